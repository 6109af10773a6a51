"""Undoing a committed transaction: another one that is its inverse, over all its tables.

What it added goes, what it removed comes back as it was. That is possible as long as nothing later stands on it: its
files are live still, and those that it removed are not there again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from .actions import AddFile, RemoveFile
from .catalog import Catalog, FileKey, TableInfo, VersionActions
from .errors import (
    Dependent,
    TxnLogConflictError,
    TxnLogObjectStoreError,
    TxnLogUndoError,
    TxnLogValidationError,
)
from .events import Committed, Content, TableWork, WrittenAgainst
from .folded import files_of
from .ids import is_txn_id, new_txn_id
from .outcomes import Asked
from .results import Result, rejection_of, result_of

if TYPE_CHECKING:
    from .session import Session

ATTEMPTS: Final = 10
"""Others may commit between looking and publishing; then it is looked again."""
OPERATION: Final = "UNDO"
_ROW_TRACKING: Final = "delta.rowTracking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What one version did to a table, as far as it is the transaction's, and what has become of it."""

    version: VersionActions
    before: TableInfo
    """The table as that version left it: the metadata under which its files are valid."""
    now: TableInfo
    ended: Sequence[AddFile]
    """Files that were live before that version, and not after it."""
    live: Mapping[FileKey, int]
    """Of the files that it added or ended those that are live now, with the version that added them."""
    ends: Mapping[FileKey, int]
    """Of the files that it added those that are not live any more, with the version that ended them."""


def undo(session: Session, txn_id: str, *, user_metadata: str | None, timeout: float) -> Result:
    """Commit the inverse of a transaction.

    Raises `TxnLogValidationError` if it was not committed, `TxnLogUndoError` naming what later depends on it or has no
    inverse, `TxnLogRejectedError` and `TxnLogOutcomeUnknownError` as a commit does.
    """
    for attempt in range(1, ATTEMPTS + 1):
        works = [inverse(past, txn_id) for past in _pasts(session, txn_id)]
        _check_files(session, works)
        content = Content(
            tables=tuple(work for work, _ in works), user_metadata=user_metadata, engine_info=session.engine_info
        )
        undo_id = new_txn_id()
        asked = Asked(undo_id)
        session.publish(session.publication(undo_id, content), timeout, asked.answered)
        outcome = asked.result()
        if outcome.committed is not None:
            return result_of(undo_id, outcome.committed)
        error = rejection_of(undo_id, outcome)
        if not isinstance(error, TxnLogConflictError) or attempt == ATTEMPTS:
            raise error
    raise AssertionError("the last attempt returns or raises")


def inverse(past: Past, txn_id: str) -> tuple[TableWork, TableInfo]:
    """What gives a table back as it was before the version. Raises `TxnLogUndoError`."""
    version, now = past.version, past.now
    row = version.row
    blocking = _without_inverse(version)
    if blocking is not None:
        raise TxnLogUndoError(
            f"transaction {txn_id} cannot be undone: version {row.version} of table {now.name!r} {blocking}",
            txn_id=txn_id,
        )
    added = {(add.path, add.dv_id): add for add in version.adds}
    ended = {(add.path, add.dv_id): add for add in past.ended}
    later = _later(past, added, ended)
    if later:
        raise TxnLogUndoError(
            f"transaction {txn_id} cannot be undone: files of its version {row.version} of table {now.name!r} were "
            f"removed, rewritten or brought back by version {', '.join(map(str, later))}; undo what came later first",
            txn_id=txn_id,
            dependents=tuple(Dependent(table=now.name, version=each) for each in later),
        )
    changed_data = {(remove.path, remove.dv_id): remove.data_change for remove in version.removes}
    removes = [
        RemoveFile(path=add.path, deletion_vector=add.deletion_vector, data_change=add.data_change)
        for key, add in added.items()
        if key not in ended
    ]
    adds = [msgspec.structs.replace(add, data_change=changed_data.get(key, False)) for key, add in ended.items()]
    before = past.before
    work = TableWork(
        id=now.table_id,
        read_version=now.version,
        written_against=WrittenAgainst(before.metadata_version, before.protocol_version),
        operation=OPERATION,
        operation_parameters={"txnId": txn_id, "version": str(row.version)},
        adds=tuple(adds),
        removes=tuple(removes),
    )
    return work, now


def _later(past: Past, added: Collection[FileKey], ended: Collection[FileKey]) -> list[int]:
    """Versions that ended what the version added, or brought back what it ended."""
    found = {past.ends[key] for key in added if key not in past.live}
    gone = {path for path, _ in ended}
    found |= {version for key, version in past.live.items() if key[0] in gone and key not in added}
    found |= {past.live[key] for key in ended if key in past.live and past.live[key] != past.version.row.version}
    return sorted(found)


def _without_inverse(version: VersionActions) -> str | None:
    if version.row.version == 0:
        return "created it: drop the table instead"
    if version.metadata is not None or version.protocol is not None:
        return "changed its schema, properties or protocol: change them back by another transaction"
    domains = [domain.domain for domain in version.domains if domain.domain != _ROW_TRACKING]
    if domains:
        return f"set the domain metadata {json.dumps(domains[0])}: set it back by another transaction"
    if version.others:
        return f"has an action that this release does not know ({version.others[0].kind})"
    return None


def _pasts(session: Session, txn_id: str) -> list[Past]:
    committed = _committed(session, txn_id)
    with session.snapshot() as catalog:
        return [_past(catalog, txn_id, table.table_id, table.version) for table in committed.tables]


def _committed(session: Session, txn_id: str) -> Committed:
    if not is_txn_id(txn_id):
        raise TxnLogValidationError(f"{txn_id!r} is not a transaction id: a UUID in lower case")
    session.catch_up()
    with session.catalog() as catalog:
        outcome = catalog.outcome(txn_id)
    if outcome is None:
        raise TxnLogValidationError(f"transaction {txn_id} is not decided: cancel it instead")
    if outcome.committed is None:
        raise TxnLogValidationError(f"transaction {txn_id} was rejected: there is nothing to undo")
    if outcome.committed.already_committed or not outcome.committed.tables:
        raise TxnLogValidationError(f"transaction {txn_id} changed no table itself: there is nothing to undo")
    return outcome.committed


def _past(catalog: Catalog, txn_id: str, table_id: str, number: int) -> Past:
    now = catalog.table(table_id=table_id)
    (version,) = catalog.versions([(now.table_no, number, number)])
    ended = catalog.ended(now.table_no, number)
    own = files_of(txn_id, version.row.tags)
    if own is not None:  # others share the commit, and what they did stays
        version = msgspec.structs.replace(version, adds=version.adds[own])
        paths = {add.path for add in version.adds}
        ended = [add for add in ended if add.path in paths]
    return Past(
        version=version,
        before=catalog.table(table_id=table_id, version=number),
        now=now,
        ended=ended,
        live=catalog.live(now.table_no, {add.path for add in (*version.adds, *ended)}),
        ends=catalog.ends(now.table_no, number, {add.path for add in version.adds}),
    )


def _check_files(session: Session, works: Sequence[tuple[TableWork, TableInfo]]) -> None:
    """See that what comes back is there still: somebody may have cleaned up."""
    for work, table in works:
        files = session.files.open(table.location)
        for add in work.adds:
            try:
                files.open(unquote(add.path)).close()
            except TxnLogObjectStoreError as error:
                raise TxnLogUndoError(
                    f"the data file {add.path} of table {table.name!r}, which would come back, cannot be read: was it "
                    "vacuumed?",
                    txn_id=work.operation_parameters["txnId"],
                ) from error
