"""Which files, relative to its table's folder, a version names: data files, deletion vectors, change data. Pure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

from deltalakedb.actions import AddFile, CdcFile, DeletionVector
from deltalakedb.errors import TxnLogMirrorError

_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.\-]*:")
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_UUID_LENGTH = 20
_FRAME_BYTES = 8
"""Around a deletion vector in its file: its length before it, its checksum behind it."""


class DataFile(NamedTuple):
    """One file. Its path is decoded."""

    path: str
    size: int
    """Bytes; of a file of deletion vectors those up to the end of this one."""
    whole: bool
    """Whether the file has just this size, and not more."""
    action: str
    """Path of the action that names it."""
    change_data: bool = False


def files(adds: Iterable[AddFile], cdc: Iterable[CdcFile] = ()) -> Iterator[DataFile]:
    """The files that actions name, those at absolute addresses left out: they lie in no table's folder.

    Raises `TxnLogMirrorError` for a path that leads out of the table's folder.
    """
    for add in adds:
        if not _ABSOLUTE.match(add.path):
            yield DataFile(_decoded(add.path), add.size, True, add.path)
        if add.deletion_vector is not None and add.deletion_vector.storage_type == "u":
            yield _vector_file(add.path, add.deletion_vector)
    for file in cdc:
        if not _ABSOLUTE.match(file.path):
            yield DataFile(_decoded(file.path), file.size, True, file.path, change_data=True)


def _vector_file(action: str, vector: DeletionVector) -> DataFile:
    """The file of a vector whose address is an optional folder and a UUID in Z85."""
    folder, encoded = vector.path_or_inline_dv[:-_UUID_LENGTH], vector.path_or_inline_dv[-_UUID_LENGTH:]
    name = f"deletion_vector_{_uuid(encoded)}.bin"
    path = _confined(f"{folder}/{name}" if folder else name)
    return DataFile(path, (vector.offset or 0) + vector.size_in_bytes + _FRAME_BYTES, False, action)


def _decoded(path: str) -> str:
    return _confined(unquote(path))


def _confined(path: str) -> str:
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        raise TxnLogMirrorError(f"the path {path[:200]!r} of a file leads out of its table's folder: it is not copied")
    return path


def _uuid(text: str) -> uuid.UUID:
    """A UUID from ZeroMQ's base 85: five characters are four bytes, the first ones weigh most."""
    try:
        digits = [_Z85.index(character) for character in text]
        groups = [digits[start : start + 5] for start in range(0, len(digits), 5)]
        data = b"".join(sum(d * 85 ** (4 - i) for i, d in enumerate(group)).to_bytes(4, "big") for group in groups)
        return uuid.UUID(bytes=data)
    except (ValueError, OverflowError) as error:
        raise TxnLogMirrorError(f"a deletion vector's address does not end with a UUID in Z85: {text!r}") from error
