"""One imported version as the contents of its events: cut where it is large, and kept on disk rather than in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import msgspec

from deltalakedb.codec import encode_imported_content
from deltalakedb.errors import TxnLogImportError
from deltalakedb.events import ImportedAction, ImportedContent
from deltalakedb.publishing import MAX_CHUNK_BYTES

_IN_MEMORY: Final = 4 * MAX_CHUNK_BYTES
_PER_ACTION: Final = 16
"""Bytes at most that an action takes beside its texts: their lengths."""


class Chunks:
    """The encoded contents of one version, written once and read any number of times. Used by one thread.

    A version's digest goes with its first chunk and is known with the last, so that the chunks have to lie somewhere
    meanwhile: in memory if they are few, else in a file without a name.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by __exit__
        self._sizes: list[int] = []
        self._digests: list[bytes] = []

    @property
    def count(self) -> int:
        return len(self._sizes)

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(self._sizes)

    @property
    def digest(self) -> bytes:
        """What every event of the version carries, as `codec.content_digest` gives it."""
        return hashlib.sha256(b"".join(self._digests)).digest()

    def contents(self, first: int = 0) -> Iterator[bytes]:
        """The chunks in order, from number `first` on."""
        offset = sum(self._sizes[:first])
        for size in self._sizes[first:]:
            self._file.seek(offset)
            yield self._file.read(size)
            offset += size

    def _append(self, content: bytes) -> None:
        self._file.write(content)
        self._sizes.append(len(content))
        self._digests.append(hashlib.sha256(content).digest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def cut(version: ImportedContent, actions: Iterable[ImportedAction]) -> Chunks:
    """`version`, which says everything but the actions, with `actions`: as few chunks as an event's limit allows.

    The same version and actions give the same bytes, so that an import that is resumed sends what it sent before.
    Raises `TxnLogImportError` for an action that does not fit into one event.
    """
    room = MAX_CHUNK_BYTES - len(encode_imported_content(version))
    chunks = Chunks()
    try:
        some: list[ImportedAction] = []
        used = 0
        for action in actions:
            size = len(action.kind) + len(action.json.encode()) + _PER_ACTION
            if size > room:
                raise TxnLogImportError(
                    f"version {version.version} of {version.location} has one {action.kind} action of {size:,} bytes; "
                    f"{room:,} fit into one event"
                )
            if used + size > room:
                chunks._append(_encoded(version, some))
                some, used = [], 0
            some.append(action)
            used += size
        if some or not chunks.count:
            chunks._append(_encoded(version, some))
    except BaseException:
        chunks.__exit__(None, None, None)
        raise
    return chunks


def _encoded(version: ImportedContent, actions: list[ImportedAction]) -> bytes:
    return encode_imported_content(msgspec.structs.replace(version, actions=tuple(actions)))
