"""Before a big transaction is decided: the files of its chunks are rows that were checked against what holds now, and
what SQL finds out about all of them together is in the state."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deltalakedb.codec import decode_content
from deltalakedb.events import Content
from deltalakedb.failpoints import Failpoint

from .deciding.assembly import assembled
from .deciding.big import checked_whole, files_by_key, needs_objects, outdated
from .deciding.needs import Needs, add_content
from .deciding.parts import ChunkPart, Found, StagedFacts, TableKey
from .deciding.refusal import Refused
from .deciding.staged_files import Checked, stage
from .deciding.state import State
from .storing.staged_files import NO_TABLE, Asked, Question
from .storing.store import Cursor, SqlCommitStore

logger = logging.getLogger(__name__)

_STAGED_AGAIN = Failpoint("committer.staged-again")


class _Whole(NamedTuple):
    """A complete transaction, its files apart."""

    content: Content
    parts: dict[int, tuple[ChunkPart, ...]]
    checked: Mapping[TableKey, Checked | None]

    @property
    def again(self) -> list[int]:
        """The chunks that were checked against something else than what holds now."""
        return [index for index, parts in self.parts.items() if outdated(parts, self.checked)]


def questions(txn_id: str, state: State, store: SqlCommitStore) -> Sequence[Asked]:
    """What SQL can be asked of a complete transaction before it is decided: nothing if it is going to be refused, has to
    be held in memory, or to be staged again. Raises the errors of the store."""
    whole = _whole(txn_id, state, store)
    if whole is None or needs_objects(whole.checked) or whole.again:
        return ()
    return _asked(whole, state)


def complete(txn_id: str, state: State, store: SqlCommitStore, cursor: Cursor, known: Mapping[Question, Found]) -> None:
    """Load what the decision of a complete transaction needs; nothing if it is going to be refused anyway. What is
    `known` is not asked again.

    Staging again what was checked against another definition takes as long as staging it did, and nobody else is served
    meanwhile. Raises the errors of the store, `TxnLogFencedError` if another committer took over.
    """
    whole = _whole(txn_id, state, store)
    if whole is None:
        return
    if needs_objects(whole.checked):
        _load_objects(txn_id, state, store)
        return
    again = whole.again
    if again:
        known = {}
        logger.info("%s of %s chunks are checked again", len(again), len(whole.parts), extra={"txn": txn_id})
    for index in again:
        content = decode_content(store.chunk_content(txn_id, index))
        whole.parts[index], works = stage(content, whole.checked, state.rules)
        store.stage_again(cursor, txn_id, index, works)
        _STAGED_AGAIN.reached()
    asked = _asked(whole, state)
    found = {one.key: known[one.question] for one in asked if one.question in known}
    found |= store.find(txn_id, [one for one in asked if one.key not in found])
    state.staged[txn_id] = StagedFacts(whole.parts, found)


def rehearse(txn_id: str, state: State, store: SqlCommitStore, known: Mapping[Question, Found]) -> bool:
    """As `complete`, from what is known alone, be it of a moment ago. Whether it is enough for a decision."""
    whole = _whole(txn_id, state, store)
    if whole is None or needs_objects(whole.checked) or whole.again:
        return False
    state.staged[txn_id] = StagedFacts(whole.parts, {question[0]: found for question, found in known.items()})
    return True


def _whole(txn_id: str, state: State, store: SqlCommitStore) -> _Whole | None:
    chunks = state.chunks.get(txn_id)
    if chunks is None or not chunks.is_complete:
        return None  # decided, by another committer that took over
    try:
        content = assembled(chunks)
    except Refused:
        return None
    store.load_parts(txn_id, state)
    parts = {index: chunk.parts or () for index, chunk in sorted(chunks.items())}
    return _Whole(content, parts, checked_whole(content, parts, txn_id, state))


def _asked(whole: _Whole, state: State) -> list[Asked]:
    by_key = files_by_key(whole.parts)
    asked = []
    for work in whole.content.tables:
        found = whole.checked[work.key]
        if found is not None and work.key in by_key:
            table = found.table
            number, live = (NO_TABLE, False) if table.version < 0 else (table.table_no, table.live_files > 0)
            since = (
                None if work.read_version is None else max(work.read_version, table.version - state.rules.read_distance)
            )
            asked.append(Asked(work.key, by_key[work.key], number, live, since, table.version))
    return asked


def _load_objects(txn_id: str, state: State, store: SqlCommitStore) -> None:
    """Everything that the transaction says and names, as of one that is not big."""
    store.load_contents(txn_id, state)
    needs = Needs()
    for chunk in state.chunks[txn_id].values():
        add_content(needs, decode_content(chunk.content or b""))
    store.load(needs, state)
