"""Before a big transaction is decided: the files of its chunks are rows that were checked against what holds now, and
what SQL finds out about all of them together is in the state."""

from __future__ import annotations

import logging

from deltalakedb.codec import decode_content
from deltalakedb.events import Content, StagedTransaction
from deltalakedb.failpoints import Failpoint

from .deciding.assembly import assemble
from .deciding.big import checked_whole, files_by_key, needs_objects, outdated
from .deciding.needs import Needs, add_content
from .deciding.parts import ChunkPart, StagedFacts
from .deciding.refusal import Refused
from .deciding.staged_files import stage
from .deciding.state import State
from .storing.staged_files import NO_TABLE, Asked
from .storing.store import Cursor, SqlCommitStore

logger = logging.getLogger(__name__)

_STAGED_AGAIN = Failpoint("committer.staged-again")


def complete(event: StagedTransaction, state: State, store: SqlCommitStore, cursor: Cursor) -> None:
    """If `event` completes a big transaction, load what its decision needs; nothing if it is going to be refused anyway.

    Staging again what was checked against another definition takes as long as staging it did, and nobody else is served
    meanwhile. Raises the errors of the store, `TxnLogFencedError` if another committer took over.
    """
    txn_id = event.envelope.txn_id
    if txn_id in state.decided:
        return
    try:
        whole = assemble(event, state.chunks.get(txn_id, {}), state.rules)
    except Refused:
        return
    if not isinstance(whole, Content):
        return
    store.load_parts(txn_id, state)
    chunks = state.chunks.get(txn_id, {})
    parts: dict[int, tuple[ChunkPart, ...]] = {index: chunk.parts or () for index, chunk in chunks.items()}
    own, _ = stage(event.content, {}, state.rules)
    checked = checked_whole(whole, {**parts, event.envelope.chunk_index: own}, txn_id, state)
    if needs_objects(checked):
        _load_objects(event, state, store)
        return
    again = [index for index, chunk in chunks.items() if chunk.parts is None or outdated(parts[index], checked)]
    if again:
        logger.info("%s of %s chunks are checked again", len(again), len(chunks), extra={"txn": txn_id})
    for index in sorted([*again, event.envelope.chunk_index]):
        content = event.content if index not in chunks else decode_content(store.chunk_content(txn_id, index))
        parts[index], works = stage(content, checked, state.rules)
        store.stage_again(cursor, txn_id, index, works)
        _STAGED_AGAIN.reached()
    by_key = files_by_key(parts)
    asked = []
    for work in whole.tables:
        found = checked[work.key]
        if found is not None and work.key in by_key:
            table = found.table
            number, live = (NO_TABLE, False) if table.version < 0 else (table.table_no, table.live_files > 0)
            since = (
                None if work.read_version is None else max(work.read_version, table.version - state.rules.read_distance)
            )
            asked.append(Asked(work.key, by_key[work.key], number, live, since))
    state.staged[txn_id] = StagedFacts(parts, store.find(txn_id, asked))


def _load_objects(event: StagedTransaction, state: State, store: SqlCommitStore) -> None:
    """Everything that the transaction says and names, as of one that is not big."""
    txn_id = event.envelope.txn_id
    store.load_contents(txn_id, state)
    needs = Needs()
    for chunk in state.chunks.get(txn_id, {}).values():
        add_content(needs, decode_content(chunk.content or b""))
    add_content(needs, event.content)
    store.load(needs, state)
