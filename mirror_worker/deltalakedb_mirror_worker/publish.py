"""Puts rendered versions into a `_delta_log`, in order and never over anything, and tells what lies there already.

A put has three results. *Mine*: the object is there with our bytes, or is the same commit in other bytes. *Absent*: it
is not there. *Foreign*: somebody else took that version. Only reading tells them apart: an answer of a store may be lost,
and "exists" may mean that our own put was stored before its answer was lost.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from deltalakedb.actions import as_json, from_json
from deltalakedb.errors import TxnLogError, TxnLogObjectStoreError, TxnLogTableFencedError
from deltalakedb.log_names import commit_version, log_folder, log_path
from deltalakedb.objectstore import NewObject, ObjectStore, Put

logger = logging.getLogger(__name__)

_line = msgspec.json.Decoder(dict[str, dict[str, Any]])
_SHOWN = 120
"""Characters of a foreign field that a message shows."""


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a table as the bytes of its log file."""

    version: int
    txn_id: str | None
    time_ms: int
    """In-commit timestamp; becomes the file's modification time where the store allows that."""
    data: bytes


class Published(NamedTuple):
    """How many versions, from the first on, are there now and are ours, and what kept the next one from it."""

    done: int
    error: TxnLogError | None
    """`TxnLogTableFencedError` for a foreign commit; others pass, and trying again later may do."""


def listed_version(store: ObjectStore, folder: str, first: int) -> int | None:
    """The lowest version from `first` on that a listing shows, ours or not; None: there is none."""
    before = log_path(folder, first - 1) if first > 0 else ""
    for found in store.list(log_folder(folder), start_after=before):
        version = commit_version(found.path)
        if version is not None and version >= first:
            return version
    return None


def publish(store: ObjectStore, folder: str, commits: Sequence[Rendered]) -> Published:
    """Publish consecutive versions. The version before the first must be there and ours.

    Raises nothing of ours: what came before an error is published all the same. To publish the same again is harmless.
    """
    done = 0
    try:
        while done < len(commits):
            new = [NewObject(log_path(folder, c.version), c.data, c.time_ms) for c in commits[done:]]
            done += store.put_if_absent(new).count(Put.CREATED)
            first = done
            # Whoever put this one may have put the next ones too: step over all that is ours before putting again.
            while done < len(commits) and is_there(store, folder, commits[done]):
                done += 1
            if first == done < len(commits):
                path = log_path(folder, commits[done].version)
                error = f"no trustworthy answer to putting {path!r} in {store.root}, and it is not there"
                return Published(done, TxnLogObjectStoreError(error))
    except TxnLogError as error:
        return Published(done, error)
    return Published(done, None)


def is_there(store: ObjectStore, folder: str, ours: Rendered) -> bool:
    """Whether `ours` is there. Raises `TxnLogTableFencedError` if something else lies in its place."""
    path = log_path(folder, ours.version)
    found = store.get(path)
    if found is None:
        return False
    if found.data == ours.data:
        return True
    if same_commit(found.data, ours.data):
        logger.info("%s is the same commit in other bytes", path, extra={"txn_id": ours.txn_id})
        return True
    raise foreign_commit(f"{store.root}/{path}", found.data, f"transaction {ours.txn_id}")


def foreign_commit(path: str, data: bytes, ours: str) -> TxnLogTableFencedError:
    """The error for somebody else's commit at `path`, where SQL has `ours`."""
    return TxnLogTableFencedError(
        f"{path} is not ours: {ours} belongs there, and there is {_description(data)}. SQL stays as it is, and nothing "
        "more is published to this table here. End the other writer; `deltalakedb mirror adopt` then settles it, or move "
        "its file away: the mirror goes on by itself"
    )


def same_commit(one: bytes, other: bytes) -> bool:
    """Whether two log files are one commit: the same `commitInfo.txnId`, and the same actions but for `commitInfo`.

    Commits without such an id must have the same `commitInfo`. Actions are compared by what they say, not by spelling.
    """
    mine, theirs = _parsed(one), _parsed(other)
    if mine is None or theirs is None or mine.actions != theirs.actions:
        return False
    return mine.txn_id == theirs.txn_id if mine.txn_id is not None else mine.info == theirs.info


def _description(data: bytes) -> str:
    """In words, who wrote a log file: what its `commitInfo` says of itself."""
    parsed = _parsed(data)
    if parsed is None:
        return f"a file of {len(data)} bytes that is no commit"
    known = {name: parsed.info.get(name) for name in ("txnId", "operation", "engineInfo", "timestamp")}
    told = ", ".join(f"{name} {str(value)[:_SHOWN]}" for name, value in known.items() if value is not None)
    return f"a commit with {told}" if told else "a commit that does not say whose it is"


class _Parsed(msgspec.Struct):
    info: dict[str, Any]
    actions: list[bytes]

    @property
    def txn_id(self) -> str | None:
        return self.info.get("txnId")


def _parsed(data: bytes) -> _Parsed | None:
    """A log file as its `commitInfo` and its other actions in a form that does not depend on order and spelling."""
    try:
        lines = [_line.decode(line) for line in data.split(b"\n") if line.strip()]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    info: dict[str, Any] = {}
    actions: list[bytes] = []
    for line in lines:
        if "commitInfo" in line:
            info = line["commitInfo"]
        else:
            actions.append(msgspec.json.encode({k: _meaning(k, line[k]) for k in line}, order="deterministic"))
    return _Parsed(info, sorted(actions)) if lines else None


def _meaning(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """An action without the fields that say nothing: those that are null, and those at their defaults."""
    with contextlib.suppress(KeyError, ValueError):
        body = msgspec.json.decode(msgspec.json.encode(as_json(kind, from_json(kind, msgspec.json.encode(body)))))
    return {name: value for name, value in body.items() if value is not None}
