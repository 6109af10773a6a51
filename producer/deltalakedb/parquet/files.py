"""Where the data files of one table lie: put, made durable, deleted and opened by their paths below the table's folder.

Paths here are decoded. Data files have unique names and nobody looks for them before a commit names them, so they are
written in place; what matters is that they are durable (`flush`) before anything is published that names them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from deltalakedb.errors import TxnLogObjectStoreError, TxnLogUriError, redacted
from deltalakedb.storage_options import StorageOptions

_THREADS = 8
_SYNCFS_FROM = 8  # files from which one flush of the whole file system is cheaper than one per file
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
_STREAM_BYTES = 256 * 1024


class DataFiles(Protocol):
    """The data files of one table. Used by one thread at a time."""

    def put(self, path: str, data: pa.Buffer) -> None:
        """Begin to write a small file whole. It may be there only after `flush`."""
        ...

    def create(self, path: str) -> pa.NativeFile:
        """A stream for a large file; the caller closes it."""
        ...

    def flush(self) -> None:
        """Return once everything put and created so far is durable, folders included."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; those that are not there are fine."""
        ...

    def open(self, path: str) -> pa.NativeFile:
        """A file to read from."""
        ...


class DataFileStores:
    """Opens data files by location; connections to an object store are made once and shared. Thread-safe."""

    def __init__(self, options: StorageOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._s3: fs.S3FileSystem | None = None
        self._threads: ThreadPoolExecutor | None = None

    def open(self, location: str) -> DataFiles:
        """The files below a table's location (`file:///...` or `s3://...`)."""
        parts = urlsplit(location)
        if parts.scheme == "file":
            return LocalFiles(unquote(parts.path))
        if parts.scheme == "s3":
            with self._lock:
                if self._s3 is None or self._threads is None:
                    # Without allow_delayed_open every small file would take three requests instead of one.
                    arguments = self._options.pyarrow() | {"allow_delayed_open": True}
                    self._s3 = fs.S3FileSystem(**arguments)
                    self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="deltalakedb-s3")
                return S3Files(parts.netloc + unquote(parts.path), self._s3, self._threads, self._options.secrets)
        raise TxnLogUriError(f"data files lie in file:///... or s3://..., not in {parts.scheme}://")

    def close(self) -> None:
        """Free threads and connections. Idempotent."""
        with self._lock:
            threads, self._threads, self._s3 = self._threads, None, None
        if threads is not None:
            threads.shutdown(wait=True)


class LocalFiles:
    """Files below a folder of this machine."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self._files: list[str] = []
        self._folders: set[str] = set()

    def put(self, path: str, data: pa.Buffer) -> None:
        name = self._name(path)
        rest = memoryview(data)
        with self._errors("write", path):
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
        self._files.append(name)

    def create(self, path: str) -> pa.NativeFile:
        name = self._name(path)
        with self._errors("write", path):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            stream = fs.LocalFileSystem().open_output_stream(name, buffer_size=_STREAM_BYTES)
        self._files.append(name)
        return stream

    def flush(self) -> None:
        with self._errors("flush", "."):
            if len(self._files) >= _SYNCFS_FROM and _syncfs is not None:
                _flush(self._folder, _sync_file_system)
            else:
                for name in (*self._files, *self._folders):
                    _flush(name, os.fsync)
        self._files.clear()
        self._folders.clear()

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with self._errors("delete", path):
                Path(self._folder, path).unlink(missing_ok=True)
        self._files = [name for name in self._files if os.path.exists(name)]

    def open(self, path: str) -> pa.NativeFile:
        with self._errors("read", path):
            return fs.LocalFileSystem().open_input_file(os.path.join(self._folder, path))

    def _name(self, path: str) -> str:
        """The file's name; its folder is made, and remembered for `flush` with every folder that is new above it."""
        name = os.path.join(self._folder, path)
        folder = os.path.dirname(name)
        if folder not in self._known:
            with self._errors("make the folder of", path):
                new = folder
                while not os.path.isdir(new):
                    new = os.path.dirname(new)
                    self._folders.add(new)
                os.makedirs(folder, exist_ok=True)
            self._known.add(folder)
        self._folders.add(folder)
        return name

    @contextlib.contextmanager
    def _errors(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise TxnLogObjectStoreError(f"cannot {what} {path!r} in {self._folder}: {reason}") from error


def _flush(name: str, sync: Callable[[int], None]) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(descriptor: int) -> None:
    """Flush the whole file system that the file is on."""
    assert _syncfs is not None
    if _syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class S3Files:
    """Files below a prefix of a bucket. Small files are put side by side, large ones by multipart upload."""

    def __init__(
        self, prefix: str, store: fs.S3FileSystem, threads: ThreadPoolExecutor, secrets: Mapping[str, str]
    ) -> None:
        self._prefix = prefix.rstrip("/")
        self._store = store
        self._threads = threads
        self._secrets = secrets
        self._pending: list[Future[None]] = []

    def put(self, path: str, data: pa.Buffer) -> None:
        self._pending.append(self._threads.submit(self._put, path, data))

    def _put(self, path: str, data: pa.Buffer) -> None:
        with self._errors("write", path), self._store.open_output_stream(f"{self._prefix}/{path}") as stream:
            stream.write(data)

    def create(self, path: str) -> pa.NativeFile:
        with self._errors("write", path):
            return self._store.open_output_stream(f"{self._prefix}/{path}")

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        for done in pending:
            done.result()

    def delete(self, paths: Sequence[str]) -> None:
        for done in [self._threads.submit(self._delete, path) for path in paths]:
            done.result()

    def _delete(self, path: str) -> None:
        with self._errors("delete", path), contextlib.suppress(FileNotFoundError):
            self._store.delete_file(f"{self._prefix}/{path}")

    def open(self, path: str) -> pa.NativeFile:
        with self._errors("read", path):
            return self._store.open_input_file(f"{self._prefix}/{path}")

    @contextlib.contextmanager
    def _errors(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = redacted(str(error), self._secrets)
            raise TxnLogObjectStoreError(f"cannot {what} s3://{self._prefix}/{path}: {reason}") from error
