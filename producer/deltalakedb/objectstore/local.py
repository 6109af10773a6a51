"""Object store on a local file system: objects appear by `link()`, whole, durable and only if absent.

An object is first a temporary file under `<root>/_deltalakedb_tmp/`, where no reader of Delta looks, then flushed,
then linked to its name, then the directory is flushed. Creating the file under its own name with `O_EXCL` would show
torn objects after a crash, and renaming would overwrite. Replacing (`put_if_match`) happens under a file lock.

Each store object keeps its temporary files in a folder of its own that it holds locked, so whoever finds such a folder
unlocked knows that its owner is gone and removes it, on another machine or in another container too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import itertools
import os
import shutil
import stat
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.failpoints import Failpoint
from deltalakedb.scratch import claim_folder, sweep

from .port import NewObject, Object, ObjectInfo, Put, probe_conditional_puts

TEMPORARY = "_deltalakedb_tmp"
_LOCK = "lock"

_SYNCFS_FROM = 8
"""Files in one batch from which one flush of the whole file system is cheaper than one per file."""

_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


_WRITTEN = Failpoint("local.written")
_FLUSHED = Failpoint("local.flushed")
_LINKED = Failpoint("local.linked")
_NAMED = Failpoint("local.named")
_REPLACED = Failpoint("local.replaced")
_DELETED = Failpoint("local.deleted")


Answers = list[Put]


class _Staged(NamedTuple):
    """A temporary file that waits for its flush and its name."""

    target: str
    temporary: str
    descriptor: int


class LocalStore:
    """Objects as files under one folder. The folder is made at the first write."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._temporary: str | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._ready: set[str] = set()

    @property
    def root(self) -> str:
        return Path(self._folder).as_uri()

    def probe(self) -> None:
        probe_conditional_puts(self)

    def get(self, path: str) -> Object | None:
        try:
            descriptor = os.open(self._path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed("read", path, error) from error
        try:
            with open(descriptor, "rb") as file:
                data = file.read()
                time_ms = os.fstat(file.fileno()).st_mtime_ns // 1_000_000
        except OSError as error:
            raise self._failed("read", path, error) from error
        return Object(data, _tag(data), time_ms)

    def info(self, path: str) -> ObjectInfo | None:
        try:
            status = os.lstat(self._path(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed("look at", path, error) from error
        return (
            ObjectInfo(path, status.st_size, status.st_mtime_ns // 1_000_000) if stat.S_ISREG(status.st_mode) else None
        )

    def put_if_absent(self, objects: Sequence[NewObject]) -> list[Put]:
        if not objects:
            return []
        path = objects[0].path
        staged: list[_Staged] = []
        try:
            if os.path.lexists(target := self._path(path)):
                # Whoever linked it may have died before the directory was flushed.
                _flush_folder(os.path.dirname(target))
                return [Put.EXISTS]
            for new in objects:
                path = new.path
                staged.append(self._stage(new.path, new.data, new.time_ms))
            _flush([file.descriptor for file in staged])
            _FLUSHED.reached()
            return self._link(staged)
        except OSError as error:
            raise self._failed("put", path, error) from error
        finally:
            _discard(staged)

    def put_if_match(self, path: str, data: bytes, tag: str | None) -> Put:
        staged: list[_Staged] = []
        try:
            file = self._stage(path, data, None)
            staged.append(file)
            _flush([file.descriptor])
            with self._replacing():
                current = self.get(path)
                if (None if current is None else current.tag) != tag:
                    return Put.EXISTS
                folder = os.path.dirname(file.target)
                self._make_folder(folder)
                os.replace(file.temporary, file.target)
                _REPLACED.reached()
                _flush_folder(folder)
        except OSError as error:
            raise self._failed("replace", path, error) from error
        finally:
            _discard(staged)
        return Put.CREATED

    def put_file_if_absent(self, path: str, source: Path) -> Put:
        staged: list[_Staged] = []
        try:
            file = self._create(path)
            staged.append(file)
            with open(source, "rb") as origin, open(file.descriptor, "wb", closefd=False) as copy:
                shutil.copyfileobj(origin, copy, 1 << 20)
                time_ns = os.fstat(origin.fileno()).st_mtime_ns
            os.utime(file.descriptor, ns=(time_ns, time_ns))
            _WRITTEN.reached()
            _flush([file.descriptor])
            return self._link(staged)[0]
        except OSError as error:
            raise self._failed("put", path, error) from error
        finally:
            _discard(staged)

    def download(self, path: str, target: Path) -> None:
        try:
            shutil.copyfile(self._path(path), target)
        except OSError as error:
            raise self._failed("download", path, error) from error

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        try:
            yield from self._walk(prefix.rstrip("/"), os.fsencode(start_after))
        except OSError as error:
            raise self._failed("list", prefix, error) from error

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            try:
                os.unlink(self._path(path))
                _DELETED.reached()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise self._failed("delete", path, error) from error

    def _path(self, path: str) -> str:
        return f"{self._folder}/{path}"

    def _failed(self, what: str, path: str, error: OSError) -> TxnLogObjectStoreError:
        reason = error.strerror or str(error)
        if error.errno == errno.EXDEV:
            reason += ": everything under one root has to lie on one file system"
        elif error.errno == errno.ELOOP:
            reason = "it is a symbolic link, which could lead out of the root; replace it by what it points to"
        return TxnLogObjectStoreError(f"cannot {what} {path!r} in {self.root}: {reason}")

    def _walk(self, folder: str, after: bytes) -> Iterator[ObjectInfo]:
        """Files below `folder` in byte order of their paths: a folder sorts as its name with a slash."""
        try:
            with os.scandir(self._path(folder)) as scan:
                entries = [(e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, e) for e in scan]
        except (FileNotFoundError, NotADirectoryError):
            return
        entries.sort(key=lambda item: os.fsencode(item[0]))
        for name, entry in entries:
            path = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                # Every path below the folder starts with its own: one that lies before `after` and is no prefix of it
                # holds nothing that lies behind.
                encoded = os.fsencode(path)
                if not (folder == "" and name == TEMPORARY + "/") and (encoded > after or after.startswith(encoded)):
                    yield from self._walk(path.rstrip("/"), after)
            elif os.fsencode(path) > after and entry.is_file(follow_symlinks=False):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield ObjectInfo(path, status.st_size, status.st_mtime_ns // 1_000_000)

    def _stage(self, path: str, data: bytes, time_ms: int | None) -> _Staged:
        file = self._create(path)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file.descriptor, view) :]
            if time_ms is not None:
                os.utime(file.descriptor, ns=(time_ms * 1_000_000, time_ms * 1_000_000))
            _WRITTEN.reached()
        except OSError:
            _discard([file])
            raise
        return file

    def _create(self, path: str) -> _Staged:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        name = f"{os.getpid()}-{next(self._numbers)}"
        temporary = f"{self._temporary_folder()}/{name}"
        try:
            descriptor = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            # Somebody removed the whole root and perhaps made it again.
            with self._lock:
                self._temporary = None
            temporary = f"{self._temporary_folder()}/{name}"
            descriptor = os.open(temporary, flags, 0o666)
        return _Staged(self._path(path), temporary, descriptor)

    def _link(self, staged: Sequence[_Staged]) -> Answers:
        """Give staged files their names, in order, up to the first that is taken; flush the folders."""
        results: list[Put] = []
        folders: dict[str, None] = {}
        try:
            for file in staged:
                folder = os.path.dirname(file.target)
                folders[folder] = None
                try:
                    self._link_one(file, folder)
                except FileExistsError:
                    results.append(Put.EXISTS)
                    break
                results.append(Put.CREATED)
                _LINKED.reached()
        finally:
            for folder in folders:
                _flush_folder(folder)
        _NAMED.reached()
        return results

    def _link_one(self, file: _Staged, folder: str) -> None:
        if folder not in self._ready:
            self._make_folder(folder)
        try:
            os.link(file.temporary, file.target)
        except FileNotFoundError:
            # Somebody removed the folder since it was last seen.
            self._make_folder(folder)
            os.link(file.temporary, file.target)

    def _make_folder(self, folder: str) -> None:
        """Make a folder of the root, durably, and refuse symbolic links on the way: they could lead out of the root."""
        missing: list[str] = []
        while folder not in ("/", "") and not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(each)
            _flush_folder(os.path.dirname(each))
        target = missing[0] if missing else folder
        inside = target
        while len(inside) > len(self._folder):
            if stat.S_ISLNK(os.lstat(inside).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), inside)
            inside = os.path.dirname(inside)
        self._ready.add(target)

    def _temporary_folder(self) -> str:
        with self._lock:
            if self._temporary is None:
                base = f"{self._folder}/{TEMPORARY}"
                self._make_folder(base)
                sweep(f"{base}/")
                self._temporary, descriptor = claim_folder(f"{base}/")
                weakref.finalize(self, _give_up_folder, self._temporary, descriptor, os.getpid())
            return self._temporary

    @contextlib.contextmanager
    def _replacing(self) -> Iterator[None]:
        """Hold the root's lock for replacing objects: against other processes and other threads alike."""
        name = f"{self._folder}/{TEMPORARY}/{_LOCK}"
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _tag(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _flush(descriptors: Sequence[int]) -> None:
    """Make the contents of files durable. After an error nothing may be flushed again: pages may be lost for good."""
    if _syncfs is not None and len(descriptors) >= _SYNCFS_FROM:
        if _syncfs(descriptors[0]) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return
    for descriptor in descriptors:
        os.fsync(descriptor)


def _flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(staged: Sequence[_Staged]) -> None:
    for file in staged:
        os.close(file.descriptor)
        with contextlib.suppress(OSError):
            os.unlink(file.temporary)


def _give_up_folder(folder: str, descriptor: int, pid: int) -> None:
    os.close(descriptor)
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
