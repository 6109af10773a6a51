"""Moving the state on by one decision, to what the next event finds: as if it had been written and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deltalakedb.actions import AddFile, DomainMetadata, RemoveFile
from deltalakedb.events import AppTransaction, Outcome

from .chunks import StagedChunks
from .decisions import (
    Accepted,
    Answer,
    Chunk,
    Commit,
    Decision,
    Entry,
    Expired,
    Imported,
    Nothing,
    Rejection,
    Staged,
    TableChange,
)
from .file_rest import live_file
from .read_predicates import PartitionValues
from .state import Decided, FileKey, LiveFile, State, TableState, TableTxn, Winner


def advance(state: State, decision: Decision) -> None:
    """Move `state` on by `decision`, which was made from it."""
    match decision:
        case Commit():
            state.commit_seq = decision.commit_seq
            state.time_ms = decision.time_ms
            for entry in decision.entries:
                _advance_entry(state, entry)
            for change in decision.changes:
                _advance_table(state, decision, change)
            for one in decision.transactions:
                _note(state, one.txn_id, one.digest, one.outcome, one.apps)
        case Accepted():
            if decision.rules is not None:
                state.rules = decision.rules
            for entry in decision.entries:
                _advance_entry(state, entry)
            if decision.target is not None:
                state.targets[decision.target.target] = decision.target
            _note(state, decision.txn_id, decision.digest, decision.outcome, decision.apps)
        case Imported():
            _advance_import(state, decision.chunk)
            if decision.decided is not None:
                advance(state, decision.decided)
        case Rejection():
            _note(state, decision.txn_id, decision.digest, decision.outcome, ())
        case Expired():
            for rejection in decision.rejections:
                advance(state, rejection)
        case Staged():
            state.incomplete.staged(decision.txn_id, decision.event_time_ms, decision.client_id, decision.chunk.size)
            if decision.chunk.head is not None:
                state.big.add(decision.txn_id)
            if decision.completes:
                state.incomplete.completed(decision.txn_id)
                state.complete[decision.txn_id] = None
            chunk = decision.chunk if decision.chunk.head is None else decision.chunk.bare
            state.chunks.setdefault(decision.txn_id, StagedChunks()).put(chunk)
        case Answer() | Nothing():
            pass


def _note(state: State, txn_id: str, digest: bytes | None, outcome: Outcome, apps: tuple[AppTransaction, ...]) -> None:
    state.decided[txn_id] = Decided(txn_id=txn_id, digest=digest, outcome=outcome)
    for app in apps:
        state.apps.setdefault(app.app_id, {})[app.version] = txn_id
    state.chunks.pop(txn_id, None)
    state.incomplete.ended(txn_id)
    state.complete.pop(txn_id, None)
    if txn_id in state.big:
        state.big.discard(txn_id)
        state.left[txn_id] = None


def _advance_table(state: State, commit: Commit, change: TableChange) -> None:
    table, version = change.table, change.version
    state.touch(table)
    if change.metadata is not None:
        if table.metadata is not None:
            table.past_metadata[table.metadata_version] = table.metadata
        table.metadata, table.schema, table.metadata_version = change.metadata, change.schema, version
    if change.protocol is not None:
        table.protocol, table.protocol_version = change.protocol, version
    table.version = version
    table.time_ms = commit.time_ms
    table.live_files = change.live_files
    table.live_bytes = change.live_bytes
    table.widths = change.widths
    for remove in change.removes:
        del table.files[remove.path, remove.dv_id]
        table.vectors[remove.path].discard(remove.dv_id)
    for n, add in enumerate(change.adds):
        dv_id = add.dv_id
        table.files[add.path, dv_id] = live_file(add, version, n)
        table.vectors.setdefault(add.path, set()).add(dv_id)
    if table.winners_since is not None:
        table.winners.append(_winner(commit, change))
    for txn in change.txns:
        table.txns[txn.app_id] = TableTxn(version, txn)
    _set_domains(table, change.domains)


def _advance_entry(state: State, entry: Entry) -> None:
    table = entry.table
    table.state = entry.state
    table.created_seq = entry.created_seq
    table.dropped_seq = entry.dropped_seq
    table.first_version = entry.first_version
    table.slot_columns = entry.slot_columns
    if entry.new:
        state.add_table(table)
        state.next_table_no = max(state.next_table_no, table.table_no + 1)
    elif table.state == "DROPPED":
        state.by_name.pop(table.name, None)


def _advance_import(state: State, chunk: Chunk) -> None:
    table, actions, way = chunk.table, chunk.actions, chunk.after
    if chunk.entry is not None:
        _advance_entry(state, chunk.entry)
    state.touch(table)
    if actions.metadata is not None and table.metadata is not None:
        table.past_metadata[table.metadata_version] = table.metadata
    # Before the version is complete: the next chunk goes on from all of it.
    table.metadata_version, table.protocol_version = chunk.metadata_version, chunk.protocol_version
    for txn in actions.txns:
        table.txns[txn.app_id] = TableTxn(way.version, txn)
    if chunk.visible:
        if actions.metadata is not None:
            table.metadata, table.schema = actions.metadata, actions.schema
        if actions.protocol is not None:
            table.protocol = actions.protocol
        _set_domains(table, actions.domains)
    _advance_files(table, chunk.files)
    for canonical, paths in chunk.spellings.items():
        table.spellings.setdefault(canonical, set()).update(paths)
    table.live_files, table.live_bytes, table.widths = way.live_files, way.live_bytes, way.widths
    if not chunk.complete:
        table.under_way = way
        return
    if not chunk.visible:
        for app_id in [app_id for app_id, txn in table.txns.items() if txn.table_version == way.version]:
            del table.txns[app_id]
    table.under_way = None
    table.version, table.time_ms = way.version, way.time_ms
    if table.winners_since is not None:
        table.winners.append(Winner.imported_as(way.version))


def _advance_files(table: TableState, files: Mapping[FileKey, LiveFile | None]) -> None:
    for (path, dv_id), live in files.items():
        if live is None:
            table.files.pop((path, dv_id), None)
            table.vectors.get(path, set()).discard(dv_id)
            continue
        table.files[path, dv_id] = live
        table.vectors.setdefault(path, set()).add(dv_id)


def _set_domains(table: TableState, domains: Sequence[DomainMetadata]) -> None:
    for domain in domains:
        if domain.removed:
            table.domains.pop(domain.domain, None)
        else:
            table.domains[domain.domain] = domain


def _winner(commit: Commit, change: TableChange) -> Winner:
    return Winner(
        version=change.version,
        txn_id=commit.txn_of(change),
        is_blind_append=change.is_blind_append,
        changes_data=change.changes_data,
        changes_metadata=change.metadata is not None,
        changes_protocol=change.protocol is not None,
        added_files=len(change.adds),
        removed_files=len(change.removes),
        added_to=_distinct(change.adds),
        removed_from=_distinct(change.removes),
        removed_paths=frozenset([remove.path for remove in change.removes]),
        domains=frozenset([domain.domain for domain in change.domains]),
    )


def _distinct(files: Sequence[AddFile] | Sequence[RemoveFile]) -> tuple[PartitionValues, ...]:
    """The different partition values that files have."""
    found: dict[tuple[tuple[str, str | None], ...], PartitionValues] = {}
    for file in files:
        values = file.partition_values or {}
        found.setdefault(tuple(sorted(values.items())), values)
    return tuple(found.values())
