"""Moving the state on by one decision, to what the next event finds: as if it had been written and read again."""

from __future__ import annotations

from collections.abc import Sequence

from deltalakedb.actions import AddFile, RemoveFile
from deltalakedb.events import AppTransaction, Outcome

from .decisions import Accepted, Answer, Commit, Decision, Nothing, Rejection, Staged, TableChange
from .file_rest import ADD_REST, split_rest
from .file_rows import as_json
from .read_predicates import PartitionValues
from .state import Decided, LiveFile, State, TableTxn, Winner


def advance(state: State, decision: Decision) -> None:
    """Move `state` on by `decision`, which was made from it."""
    match decision:
        case Commit():
            state.commit_seq = decision.commit_seq
            state.time_ms = decision.time_ms
            for change in decision.changes:
                _advance_table(state, decision, change)
            _note(state, decision.txn_id, decision.digest, decision.outcome, decision.apps)
        case Accepted():
            if decision.rules is not None:
                state.rules = decision.rules
            _note(state, decision.txn_id, decision.digest, decision.outcome, decision.apps)
        case Rejection():
            _note(state, decision.txn_id, decision.digest, decision.outcome, ())
        case Staged():
            state.chunks.setdefault(decision.txn_id, {})[decision.chunk.index] = decision.chunk
        case Answer() | Nothing():
            pass


def _note(state: State, txn_id: str, digest: bytes | None, outcome: Outcome, apps: tuple[AppTransaction, ...]) -> None:
    state.decided[txn_id] = Decided(txn_id=txn_id, digest=digest, outcome=outcome)
    for app in apps:
        state.apps.setdefault(app.app_id, {})[app.version] = txn_id
    state.chunks.pop(txn_id, None)


def _advance_table(state: State, commit: Commit, change: TableChange) -> None:
    table, version = change.table, change.version
    if version == 0:
        state.add_table(table)
        state.next_table_no = max(state.next_table_no, table.table_no + 1)
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
        table.files[add.path, dv_id] = _live(add, version, n)
        table.vectors.setdefault(add.path, set()).add(dv_id)
    if table.winners_since is not None:
        table.winners.append(_winner(commit, change))
    for txn in change.txns:
        table.txns[txn.app_id] = TableTxn(version, txn)
    for domain in change.domains:
        if domain.removed:
            table.domains.pop(domain.domain, None)
        else:
            table.domains[domain.domain] = domain


def _live(add: AddFile, version: int, n: int) -> LiveFile:
    if add.rest is None:
        return LiveFile(version=version, n=n, size=add.size, partition_values=add.partition_values)
    more, _ = split_rest(add.rest, ADD_REST)
    return LiveFile(
        version=version,
        n=n,
        size=add.size,
        partition_values=add.partition_values,
        base_row_id=more.base_row_id,
        default_row_commit_version=more.default_row_commit_version,
        tags=None if more.tags is None else as_json(more.tags),
    )


def _winner(commit: Commit, change: TableChange) -> Winner:
    return Winner(
        version=change.version,
        txn_id=commit.txn_id,
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
