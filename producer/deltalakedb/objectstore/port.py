"""The object store port: whole objects, put if absent, compare-and-swap, ordered listing.

Paths are relative to the store's root, with `/`, decoded (no percent-encoding). An object is there whole or not at
all. A put that may or may not have happened (timeout, reset, 409, 412 after a retry) is UNKNOWN: the caller reads the
object and compares; an adapter never retries a conditional put, and never lets its client library do so.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from deltalakedb.errors import TxnLogObjectStoreError


class Put(Enum):
    """What came of a conditional put."""

    CREATED = "created"
    EXISTS = "exists"
    """Something was there before, or the condition did not hold; nothing was changed by this call."""
    UNKNOWN = "unknown"
    """No trustworthy answer: read and compare."""


class Object(NamedTuple):
    """An object as read. `tag` stands for exactly this content in `put_if_match`."""

    data: bytes
    tag: str
    time_ms: int


class ObjectInfo(NamedTuple):
    """An object as listed."""

    path: str
    size: int
    time_ms: int


class NewObject(NamedTuple):
    """An object to be put. `time_ms` becomes its modification time where the store allows that (local files)."""

    path: str
    data: bytes
    time_ms: int | None = None


class ObjectStore(Protocol):
    """A place under one root URI. Thread-safe."""

    @property
    def root(self) -> str:
        """Root URI without a trailing slash and without credentials."""
        ...

    def probe(self) -> None:
        """Raise `TxnLogObjectStoreError` unless the store is reachable and keeps put-if-absent (two puts, one winner)."""
        ...

    def get(self, path: str) -> Object | None:
        """The object, or None if there is none. Raises `TxnLogObjectStoreError` if that cannot be told."""
        ...

    def info(self, path: str) -> ObjectInfo | None:
        """What is known of the object without reading it, or None if there is none. Raises as `get`."""
        ...

    def put_if_absent(self, objects: Sequence[NewObject]) -> list[Put]:
        """Put objects in order, each only if nothing is at its path; durable when this returns.

        Stops at the first that is not CREATED: the list is as long as what was tried, so an object never becomes
        visible while one before it is not. Batches exist because one flush may serve many local files.
        """
        ...

    def put_if_match(self, path: str, data: bytes, tag: str | None) -> Put:
        """Replace the object if its tag is still `tag` (None: if there is none)."""
        ...

    def put_file_if_absent(self, path: str, source: Path) -> Put:
        """As `put_if_absent` for one large object whose bytes are in a local file; the file is not kept open.

        The file's modification time becomes the object's where the store allows that.
        """
        ...

    def download(self, path: str, target: Path) -> None:
        """Write an object's bytes to a local file. Raises `TxnLogObjectStoreError` if it is not there."""
        ...

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose path starts with `prefix` and lies after `start_after`, in UTF-8 byte order of their paths.

        `prefix` ends at a folder boundary (`_delta_log/`). Never proof that something is absent.
        """
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; those that are not there are fine."""
        ...


def probe_conditional_puts(store: ObjectStore) -> None:
    """What every adapter's `probe` does: of two puts of one new object the second must be told that it is there."""
    path = f"_deltalakedb_probe/{uuid.uuid4().hex}"
    try:
        answers = [
            *store.put_if_absent([NewObject(path, b"first")]),
            *store.put_if_absent([NewObject(path, b"second")]),
        ]
        found = store.get(path)
    finally:
        store.delete([path])
    if answers != [Put.CREATED, Put.EXISTS] or found is None or found.data != b"first":
        raise TxnLogObjectStoreError(
            f"{store.root} does not keep put-if-absent (two puts of one object: {', '.join(a.value for a in answers)}): "
            "two writers could overwrite each other's commits. Use a store that honours If-None-Match"
        )
