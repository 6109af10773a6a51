"""Foreign actions that were moved out of a log come back as transactions: decided like any other, and on record."""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from deltalakedb.actions import AddFile, CdcFile, OtherAction, RemoveFile, from_json
from deltalakedb.catalog import MirrorProgress
from deltalakedb.deltalog.commits import corrupt, parse_actions
from deltalakedb.events import Content, ImportedAction, Outcome, TableWork
from deltalakedb.objectstore import ObjectStore
from deltalakedb.publishing import messages
from deltalakedb.session import Session

from .superseding import Kept

_GIVEN_ANEW = ("baseRowId", "defaultRowCommitVersion")
"""Fields that the committer gives every file, whoever wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restaged:
    """What became of one foreign commit."""

    version: int
    """That it had in the log."""
    kept: str
    """Where its file is kept."""
    txn_id: str
    """The transaction that it was staged as; its id follows from table and content, so that it is decided once."""
    new_version: int | None
    """Where that was committed."""
    reason: str | None = None
    message: str | None = None
    """Why it was rejected."""


def restage(session: Session, root: ObjectStore, table: MirrorProgress, kept: Kept, timeout: float) -> Restaged | None:
    """Stage what a foreign commit did, or find what became of it before; None if its file is gone.

    Raises `TxnLogDeltaLogError` for a file that is no commit, `TxnLogOutcomeUnknownError` if no answer came in time:
    the same call asks again.
    """
    found = root.get(kept.path)
    if found is None:
        return None
    name = f"superseded:{kept.version}:{hashlib.sha256(found.data).hexdigest()}"
    txn_id = str(uuid.uuid5(uuid.UUID(table.table_id), name))
    uri = f"{root.root}/{kept.path}"
    with session.catalog() as catalog:
        outcome = catalog.outcome(txn_id)
    if outcome is None:
        content = _content(found.data, table, kept, uri, session.engine_info)
        records = messages(txn_id, content, session.sender)
        outcome = session.outcomes.ask(txn_id, records, timeout).result()
    return _told(outcome, txn_id, kept, uri)


def _content(data: bytes, table: MirrorProgress, kept: Kept, uri: str, engine_info: str) -> Content:
    actions = list(parse_actions(io.BytesIO(data), path=kept.path, version=kept.version))
    info: dict[str, Any] = {}
    adds: list[AddFile] = []
    removes: list[RemoveFile] = []
    cdc: list[CdcFile] = []
    others: list[OtherAction] = []
    for action in actions:
        match action.kind:
            case "commitInfo":
                info = msgspec.json.decode(action.json)
            case "add":
                adds.append(_add(action, kept))
            case "remove":
                remove: RemoveFile = _parsed(action, kept)
                vector = remove.deletion_vector
                removes.append(RemoveFile(path=remove.path, data_change=remove.data_change, deletion_vector=vector))
            case "cdc":
                cdc.append(_parsed(action, kept))
            case _:
                others.append(OtherAction(kind=action.kind, json=action.json))
    work = TableWork(
        id=table.table_id,
        read_version=kept.after,
        operation=str(info.get("operation", "WRITE")),
        operation_parameters={name: _text(value) for name, value in (info.get("operationParameters") or {}).items()},
        adds=tuple(adds),
        removes=tuple(removes),
        cdc=tuple(cdc),
        others=tuple(others),
    )
    told = {name: info.get(name) for name in ("txnId", "engineInfo", "timestamp", "userMetadata")}
    superseded = {"version": kept.version, "kept": uri, **{k: v for k, v in told.items() if v is not None}}
    return Content(
        tables=(work,), user_metadata=msgspec.json.encode({"superseded": superseded}).decode(), engine_info=engine_info
    )


def _add(action: ImportedAction, kept: Kept) -> AddFile:
    add: AddFile = _parsed(action, kept)
    if add.rest is None:
        return add
    rest = {k: v for k, v in msgspec.json.decode(add.rest, type=dict[str, msgspec.Raw]).items() if bytes(v) != b"null"}
    rest = {name: value for name, value in rest.items() if name not in _GIVEN_ANEW}
    return msgspec.structs.replace(add, rest=msgspec.json.encode(rest).decode() if rest else None)


def _parsed(action: ImportedAction, kept: Kept) -> Any:
    try:
        return from_json(action.kind, action.json)
    except ValueError as error:
        raise corrupt(kept.path, kept.version, f"a {action.kind} action cannot be understood ({error})") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _told(outcome: Outcome, txn_id: str, kept: Kept, uri: str) -> Restaged:
    if outcome.committed is not None:
        (table,) = outcome.committed.tables or (None,)
        version = None if table is None else table.version
        return Restaged(version=kept.version, kept=uri, txn_id=txn_id, new_version=version)
    told = outcome.rejected
    assert told is not None, "an outcome is one or the other"
    return Restaged(
        version=kept.version, kept=uri, txn_id=txn_id, new_version=None, reason=told.reason, message=told.message
    )
