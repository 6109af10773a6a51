"""Actions from the text of a log file (or of a JSON checkpoint), each kept byte for byte as it was written.

Accepted as readers accept it: blank lines, any line end or none at the end, a byte order mark, objects over several
lines or several on one line, null beside an action, and more than one action in an object (each counts, in its order).
An action of a kind that nobody knows is an action too. Anything else that is not a JSON object is corruption.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.events import ImportedAction
from deltalakedb.objectstore import Object, ObjectInfo, ObjectStore
from deltalakedb.scratch import scratch_folder

KNOWN: Final = frozenset(
    {
        *("add", "remove", "cdc", "metaData", "protocol", "txn", "domainMetadata", "commitInfo"),
        *("checkpointMetadata", "sidecar"),
    }
)
"""Kinds of action that the protocol defines: each is a JSON object."""

HELD_BYTES: Final = 16 << 20
"""Larger files are read from a local copy, line by line."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_INVALID = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_commit(store: ObjectStore, file: ObjectInfo, version: int) -> Iterator[ImportedAction]:
    """The actions of a log file as it was listed, in order; a large file is never held as a whole.

    Raises `TxnLogDeltaLogError` (CORRUPT, VANISHED) with version and file, and `TxnLogObjectStoreError`.
    """
    if file.size <= HELD_BYTES:
        yield from actions_of(store, store.get(file.path), file, version)
        return
    with scratch_folder("log") as folder:
        copy = folder / "commit.json"
        store.download(file.path, copy)
        with copy.open("rb") as data:
            yield from parse_actions(data, path=file.path, version=version)


def actions_of(store: ObjectStore, found: Object | None, file: ObjectInfo, version: int) -> Iterator[ImportedAction]:
    """The actions of a log file that was got from the store already. Raises as `read_commit`."""
    if found is None:
        raise vanished(store, file.path, version)
    yield from parse_actions(io.BytesIO(found.data), path=file.path, version=version)


def parse_actions(data: BinaryIO, *, path: str, version: int) -> Iterator[ImportedAction]:
    """The actions in `data`, in order. Raises `TxnLogDeltaLogError` (CORRUPT) that names `path` and the line."""
    if data.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
        data.seek(0)
    for number, line in enumerate(data, 1):
        if line.isspace():
            continue
        try:
            actions = _actions(line)
        except _INVALID:
            # Not one object on one line: the rest of the file is taken as one text.
            yield from _parse_text(line + data.read(), number, path, version)
            return
        yield from actions


def _actions(text: bytes) -> list[ImportedAction]:
    actions = []
    for kind, raw in _object(text).items():
        body = str(raw, "utf-8")
        if body[0] != "{" and (body == "null" or kind in KNOWN):
            if body == "null":
                continue
            raise msgspec.ValidationError(f"{kind} is not an object")
        actions.append(ImportedAction(kind, body))
    return actions


def _parse_text(data: bytes, number: int, path: str, version: int) -> Iterator[ImportedAction]:
    """Objects one after another, wherever their lines end. `number` is that of the first line."""
    decoder = json.JSONDecoder()
    text, at = "", 0
    try:
        text = data.decode()
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            _, end = decoder.raw_decode(text, at)
            yield from _actions(text[at:end].encode())
            at = end
    except (*_INVALID, json.JSONDecodeError) as error:
        line = number + text.count("\n", 0, at)
        raise corrupt(path, version, f"line {line} is not a JSON object with an action in it ({error})") from error


def corrupt(path: str, version: int, what: str) -> TxnLogDeltaLogError:
    """The error for a file that is not what its name says."""
    return TxnLogDeltaLogError(LogProblem.CORRUPT, f"{path}: {what}", version=version, path=path)


def vanished(store: ObjectStore, path: str, version: int) -> TxnLogDeltaLogError:
    """The error for a file that was listed, or is named by another one, and is not there."""
    return TxnLogDeltaLogError(
        LogProblem.VANISHED,
        f"{store.root}/{path} is not there any more: its log may have been cleaned up just now; look again",
        version=version,
        path=path,
    )
