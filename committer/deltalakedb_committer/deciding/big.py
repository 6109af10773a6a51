"""Big transactions between the first chunk and the decision: what their files are checked against, and found to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from deltalakedb.codec import decode_content
from deltalakedb.events import Completion, Content, StagedTransaction

from .assembly import merged
from .chunks import StagedChunks
from .files import Files, GivenFiles
from .needs import Isolated, StagedEvent
from .parts import NOTHING_FOUND, ChunkPart, TableKey
from .refusal import Refused
from .rules import Rules
from .staged_files import Checked, StagedFiles, head_of, work_number
from .state import State
from .transactions import checked_against

_decoded_head = lru_cache(maxsize=32)(decode_content)
"""Every chunk is checked under what the first ones say of its table."""


def is_big(event: StagedEvent, rules: Rules) -> bool:
    """Whether `event` is a chunk of a big transaction, or ends one. It has a batch of its own: what SQL says is then
    what holds, and whoever comes after it waits for no more than it."""
    match event:
        case StagedTransaction():
            return rules.is_big(event.envelope.chunk_count)
        case Isolated():
            return event.completes is not None
        case _:
            return isinstance(event, Completion)


def decides(event: Completion, state: State) -> bool:
    """Whether a transaction is decided by `event`: it is all there, was not decided before, and of the tables that the
    event names none has moved on."""
    if event.txn_id in state.decided or event.lake_id != state.lake.lake_id:
        return False
    for table_id, version in event.heads.items():
        table = state.table(table_id=table_id)
        if table is None or table.version != version:
            return False
    chunks = state.chunks.get(event.txn_id)
    return chunks is not None and chunks.is_complete


def checked_so_far(content: Content, chunks: StagedChunks, txn_id: str, state: State) -> dict[TableKey, Checked | None]:
    """What the files of the chunk `content` are to be checked against, from it and the `chunks` that came before."""
    keys = {work.key for work in content.tables}
    try:
        # What is said twice in the same words is as good as said once here.
        whole = merged([_only(keys, head) for head in (*map(_decoded_head, chunks.heads), head_of(content))])
    except Refused:
        return {}
    counts = {key: StagedFiles(key, [(0, ChunkPart(adds=1))]) for key in keys}
    return {work.key: checked_against(work, counts[work.key], txn_id, state) for work in whole.tables}


def checked_whole(
    whole: Content, parts: Mapping[int, Sequence[ChunkPart]], txn_id: str, state: State
) -> dict[TableKey, Checked | None]:
    """What the files of a complete transaction are to be checked against; `whole` is without them."""
    by_key = _by_key(parts)
    return {
        work.key: checked_against(work, StagedFiles(work.key, by_key.get(work.key, ())), txn_id, state)
        for work in whole.tables
    }


def needs_objects(checked: Mapping[TableKey, Checked | None]) -> bool:
    """Whether a transaction has to be decided with all its actions in memory: rows with row ids are numbered one after
    the other, and a shared number of two tables is not worth a second kind of row."""
    if len({work_number(key) for key in checked}) < len(checked):
        return True
    return any(found is not None and found.facts.row_tracking for found in checked.values())


def outdated(parts: Sequence[ChunkPart], checked: Mapping[TableKey, Checked | None]) -> bool:
    """Whether a chunk has to be staged again: checked against something else than what holds now."""
    for part in parts:
        found = checked.get(part.key)
        if found is not None and found.fingerprint != part.fingerprint:
            return True
    return False


def files_of(txn_id: str, content: Content, state: State) -> list[Files]:
    """The files of each table of a complete transaction, whose `content` was put together."""
    facts = state.staged.get(txn_id)
    if facts is None:
        if any(chunk.content is None for chunk in state.chunks[txn_id].values()):
            raise TypeError(f"nothing is loaded of the files of transaction {txn_id}")
        return [GivenFiles(work) for work in content.tables]
    by_key = _by_key(facts.parts)
    return [
        StagedFiles(work.key, by_key.get(work.key, ()), facts.found.get(work.key, NOTHING_FOUND))
        for work in content.tables
    ]


def files_by_key(parts: Mapping[int, Sequence[ChunkPart]]) -> dict[TableKey, StagedFiles]:
    """The files of each table, as long as nothing is found out about all of them together."""
    return {key: StagedFiles(key, of_table) for key, of_table in _by_key(parts).items()}


def _by_key(parts: Mapping[int, Sequence[ChunkPart]]) -> dict[TableKey, list[tuple[int, ChunkPart]]]:
    by_key: dict[TableKey, list[tuple[int, ChunkPart]]] = {}
    for chunk_index in sorted(parts):
        for part in parts[chunk_index]:
            by_key.setdefault(part.key, []).append((chunk_index, part))
    return by_key


def _only(keys: set[TableKey], head: Content) -> Content:
    """The head, as far as it is about these tables."""
    return msgspec.structs.replace(head, tables=tuple([work for work in head.tables if work.key in keys]))
