"""Where the data files of one table lie: put, made durable, deleted and opened by their paths below the table's folder.

Paths here are decoded. Data files have unique names and nobody looks for them before a commit names them, so they are
written in place; what matters is that they are durable (`flush`) before anything is published that names them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from deltalakedb.errors import TxnLogObjectStoreError, TxnLogUriError, redacted
from deltalakedb.storage_options import StorageOptions

_THREADS = 8
_SYNCFS_FROM = 8  # files and folders from which one flush of the whole file system is cheaper than one for each
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
_STREAM_BYTES = 256 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class DataFiles(Protocol):
    """The data files of one table. Used by one thread at a time."""

    def put(self, path: str, data: pa.Buffer) -> None:
        """Begin to write a small file whole. It may be there only after `flush`."""
        ...

    def create(self, path: str) -> pa.NativeFile:
        """A stream for a large file; the caller closes it."""
        ...

    def flush(self) -> None:
        """Return once everything put and created so far is durable, folders included. Once it has raised it always does."""
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
        self._disks = _Disks()
        self._s3: fs.S3FileSystem | None = None
        self._threads: ThreadPoolExecutor | None = None

    def open(self, location: str) -> DataFiles:
        """The files below a table's location (`file:///...` or `s3://...`)."""
        parts = urlsplit(location)
        if parts.scheme == "file":
            return LocalFiles(unquote(parts.path), self._disks)
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
        self._disks.close()


class _Disks:
    """The local file systems that a lake object writes to. Thread-safe.

    Each is held open from before the first byte: an error of writing is told once to every descriptor that was open by
    then. Told by a flush it concerns whatever was being written at that time, so it is kept for all who were.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._failures: list[OSError] = []

    @property
    def failures(self) -> int:
        """How many flushes have failed so far."""
        return len(self._failures)

    def failed_since(self, failures: int) -> OSError | None:
        """The flush that failed after so many had, if one did."""
        return self._failures[failures] if failures < len(self._failures) else None

    def hold(self, file: int, folder: str) -> int:
        """The device of an open file that lies in `folder`."""
        device = os.fstat(file).st_dev
        if device not in self._held:
            with self._lock:
                if device not in self._held:
                    self._held[device] = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        return device

    def flush(self, devices: Iterable[int]) -> None:
        """Flush all there is on these devices; see `failed_since` for what came of it."""
        assert _syncfs is not None
        with self._lock:
            for device in devices:
                if _syncfs(self._held[device]) != 0:
                    number = ctypes.get_errno()
                    self._failures.append(OSError(number, os.strerror(number)))

    def close(self) -> None:
        """Let go of all of them. Idempotent."""
        with self._lock:
            for descriptor in self._held.values():
                os.close(descriptor)
            self._held.clear()


class LocalFiles:
    """Files below a folder of this machine."""

    def __init__(self, folder: str, disks: _Disks) -> None:
        self._folder = folder
        self.disks = disks
        self.devices: set[int] = set()
        self._files: list[str] = []
        self._folders: set[str] = set()
        self._began = 0
        """Failures of the disks when the first of the files was begun."""
        self._failed: OSError | None = None

    def put(self, path: str, data: pa.Buffer) -> None:
        rest = memoryview(data)
        try:
            descriptor = self._new(path)
            try:
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
        except OSError as error:  # as `_errors`; a generator for each small file costs as much as its bytes
            raise self._error("write", path, error) from error

    def create(self, path: str) -> pa.NativeFile:
        with self._errors("write", path):
            os.close(self._new(path))
            return fs.LocalFileSystem().open_output_stream(self._files[-1], buffer_size=_STREAM_BYTES)

    def flush(self) -> None:
        flush_ahead([self])
        with self._errors("flush", "."):
            if self.failure is not None:
                raise self.failure
            try:
                for name in (*self._files, *self._folders):
                    _fsync(name)
            except OSError as error:
                self._failed = error  # what could not be written may be gone: the next flush would know nothing of it
                raise
        self.flushed()

    @property
    def unflushed(self) -> int:
        """Files and folders that wait for a flush."""
        return len(self._files) + len(self._folders)

    @property
    def failure(self) -> OSError | None:
        """Why what waits will never be durable."""
        return self._failed or (self.disks.failed_since(self._began) if self._files else None)

    def flushed(self) -> None:
        """Nothing waits any more."""
        self._files.clear()
        self._folders.clear()
        self.devices.clear()

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with self._errors("delete", path):
                Path(self._folder, path).unlink(missing_ok=True)
        self._files = [name for name in self._files if os.path.exists(name)]

    def open(self, path: str) -> pa.NativeFile:
        with self._errors("read", path):
            return fs.LocalFileSystem().open_input_file(os.path.join(self._folder, path))

    def _new(self, path: str) -> int:
        """A new file, open; with its folder and every folder that is new above it it waits for `flush`."""
        name = f"{self._folder}/{path}"
        folder = name.rpartition("/")[0]
        if not self._files:
            self._began = self.disks.failures
        try:
            descriptor = os.open(name, _NEW, 0o666)
        except FileNotFoundError:
            self._make(folder)
            descriptor = os.open(name, _NEW, 0o666)
        try:
            self.devices.add(self.disks.hold(descriptor, folder))
        except BaseException:
            os.close(descriptor)
            raise
        self._files.append(name)
        self._folders.add(folder)
        return descriptor

    def _make(self, folder: str) -> None:
        above = folder
        while not os.path.isdir(above):
            above = os.path.dirname(above)
            self._folders.add(above)
        os.makedirs(folder, exist_ok=True)

    @contextlib.contextmanager
    def _errors(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(what, path, error) from error

    def _error(self, what: str, path: str, error: OSError) -> TxnLogObjectStoreError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return TxnLogObjectStoreError(f"cannot {what} {path!r} in {self._folder}: {reason}")


def flush_ahead(many: Iterable[DataFiles]) -> None:
    """Do for all of these together what the `flush` of each would do, where that is cheaper.

    What goes wrong is told by the `flush` of each, which has nothing else left to do.
    """
    local = [files for files in many if isinstance(files, LocalFiles)]
    if _syncfs is None or sum(files.unflushed for files in local) < _SYNCFS_FROM:
        return
    by_disks: dict[_Disks, list[LocalFiles]] = {}
    for files in local:
        by_disks.setdefault(files.disks, []).append(files)
    for disks, those in by_disks.items():
        disks.flush(set().union(*(files.devices for files in those)))
        for files in those:
            if files.failure is None:
                files.flushed()


def _fsync(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        for done in self._pending:
            done.result()
        self._pending.clear()

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
