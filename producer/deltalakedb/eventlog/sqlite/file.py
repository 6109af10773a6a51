"""A SQLite file shared by threads and processes: a connection that follows its path, a lock file, and care for forks."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from deltalakedb.errors import TxnLogEventLogError, TxnLogHaltedError

_BUSY_SECONDS = 30.0
"""How long SQLite waits for a lock of somebody who does not know of the lock file: a backup, the sqlite3 shell."""


class File:
    """A connection to the log file that is at the path now, opened when it is first used. Thread-safe: one user at a time.

    A pinned one refuses to go on with a file that was made anew.
    """

    def __init__(self, path: str, *, pinned: bool = False) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._pinned = pinned
        self._identity: str | None = None
        self._inode: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        with _forking:
            _files.add(self)

    @contextmanager
    def use(self, what: str) -> Iterator[sqlite3.Connection]:
        """The connection, for one task that is named by `what` in errors.

        Raises `TxnLogHaltedError` if there is no log at the path, or not the one it is pinned to.
        """
        with self.lock, translated(self._path, what):
            yield self._current()

    def close(self) -> None:
        with self.lock:
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection, with the lock held."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _current(self) -> sqlite3.Connection:
        try:
            found = os.stat(self._path)
        except FileNotFoundError as error:
            self.disconnect()
            raise TxnLogHaltedError(
                "LOG_MISSING",
                f"there is no file {self._path}: run `deltalakedb migrate` for a new lake, put the log back in its "
                "place for an old one",
            ) from error
        inode = found.st_dev, found.st_ino
        if self._connection is None or inode != self._inode:
            self.disconnect()
            connection = connect(self._path, "rw")
            try:
                identity = identity_of(connection, self._path)
                if self._pinned and self._identity not in (None, identity):
                    raise TxnLogHaltedError(
                        "LOG_RECREATED",
                        f"{self._path} is another log than the one that was read so far ({identity}, it was "
                        f"{self._identity}): put the old file back in its place",
                    )
            except BaseException:
                connection.close()
                raise
            self._connection, self._inode, self._identity = connection, inode, identity
        return self._connection


# SQLite keeps what it knows of a file's locks per process and would carry it into a forked child, where it is wrong:
# so every connection of this module is closed before a fork. A child also closes its copy of a lock file held at that
# moment, or the lock would outlive the process that holds it.
_forking = threading.Lock()
_files: weakref.WeakSet[File] = weakref.WeakSet()
_forkable: weakref.WeakSet[Forkable] = weakref.WeakSet()
_turns: set[int] = set()
_resting: list[File] = []


class Forkable(Protocol):
    """What has threads, and therefore starts anew in a forked child."""

    def start_anew(self) -> None: ...


def register(forkable: Forkable) -> None:
    """Call its `start_anew` in every forked child for as long as it lives."""
    with _forking:
        _forkable.add(forkable)


def _before_fork() -> None:
    _forking.acquire()
    for file in list(_files):
        file.lock.acquire()
        _resting.append(file)
        file.disconnect()


def _after_fork() -> None:
    for file in _resting:
        file.lock.release()
    _resting.clear()
    _forking.release()


def _after_fork_in_child() -> None:
    for descriptor in _turns:
        os.close(descriptor)
    _turns.clear()
    for forkable in _forkable:
        forkable.start_anew()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


@contextmanager
def turn(path: str) -> Iterator[None]:
    """Hold the lock file of the log at `path`; waits for as long as another process holds it."""
    with _forking:
        descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        _turns.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with _forking:
            _turns.discard(descriptor)
            os.close(descriptor)


def connect(path: str, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=_BUSY_SECONDS,
    )
    connection.execute("PRAGMA synchronous=FULL")
    return connection


@contextmanager
def translated(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise TxnLogEventLogError(f"the event log {path}: {what} failed: {error}") from error


def identity_of(connection: sqlite3.Connection, path: str) -> str:
    if not first(connection, "SELECT count(*) FROM sqlite_schema WHERE name = 'log'"):
        raise TxnLogHaltedError("LOG_MISSING", f"{path} holds no event log yet: run `deltalakedb migrate`")
    return str(first(connection, "SELECT identity FROM log"))


def first(connection: sqlite3.Connection, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
