"""A small pool of connections for processes with many threads, which may fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from deltalakedb.errors import TxnLogDatabaseError

from .port import Database

IDLE = 4


class Pool:
    """Connections to one store, kept for the next caller when they are done well. Thread-safe; usable after a fork."""

    def __init__(self, open: Callable[[], Database], *, idle: int = IDLE) -> None:
        """`open` makes a connection; at most `idle` of them are kept open while nobody uses them."""
        self._open = open
        self._limit = idle
        self._idle: list[Database] = []
        self._lock = threading.Lock()
        self._closed = False
        _pools.add(self)

    @contextmanager
    def connection(self) -> Iterator[Database]:
        """A connection for the time of the block.

        One that failed is closed instead of kept, so that the next caller gets a fresh one.
        """
        process = os.getpid()
        database = self._take()
        try:
            yield database
        except TxnLogDatabaseError:
            if process == os.getpid():
                database.close()
            raise
        finally:
            if process == os.getpid():
                self._give_back(database)
            else:
                _inherited.append(database)

    def close(self) -> None:
        """Close what is idle now, and the others when they are given back. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for database in idle:
            database.close()

    def _take(self) -> Database:
        with self._lock:
            if self._closed:
                raise TxnLogDatabaseError("the pool is closed")
            while self._idle:
                database = self._idle.pop()
                if database.alive:
                    return database
                database.close()
        return self._open()

    def _give_back(self, database: Database) -> None:
        with self._lock:
            if database.alive and not self._closed and len(self._idle) < self._limit:
                self._idle.append(database)
                return
        database.close()

    def _forked(self) -> None:
        """In a forked child: what was inherited is the parent's, and so may be the lock."""
        _inherited.extend(self._idle)
        self._idle = []
        self._lock = threading.Lock()


_pools: WeakSet[Pool] = WeakSet()
_inherited: list[Database] = []
"""Connections of a parent process. Kept for ever: closing or collecting one here would end it there."""


def _after_fork() -> None:
    for pool in list(_pools):
        pool._forked()


os.register_at_fork(after_in_child=_after_fork)
