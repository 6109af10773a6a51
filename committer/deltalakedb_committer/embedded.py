"""The committer inside the client's process: whoever waits for an outcome runs the step (entry point)."""

from __future__ import annotations

import threading
import time

from deltalakedb.errors import TxnLogConfigError, TxnLogError, TxnLogTimeoutError
from deltalakedb.eventlog import EventLog, Stream
from deltalakedb.settings import Settings

from .attempting import Attempting
from .lake import holder, is_made, lock_file, make_lake, open_log, open_store
from .leadership import LockFile
from .step import Committer
from .storing.store import SqlCommitStore

LOCK_SECONDS = 30.0
"""How long opening waits for another process that is making or stepping the lake."""


class Stepper:
    """Runs the committer's step of an embedded lake when no other process does. Thread-safe; not used across a fork."""

    def __init__(self, settings: Settings, lock: LockFile) -> None:
        self._settings = settings
        self._lock = lock
        self._mutex = threading.Lock()
        self._log: EventLog = open_log(settings)
        self._store: SqlCommitStore | None = None
        self._committer: Committer | None = None
        self._attempting = Attempting()

    def try_step(self, max_events: int) -> int | None:
        """Decide up to `max_events` records; 0 if there were none, None if somebody else is stepping right now.

        Raises what the committer raises; the next call starts afresh from the stored cursor.
        """
        if not self._mutex.acquire(blocking=False):
            return None
        try:
            if not self._lock.try_acquire():
                return None
            try:
                return self._step(max_events)
            except TxnLogError:
                self._drop()
                raise
            finally:
                self._lock.release()
        finally:
            self._mutex.release()

    def close(self) -> None:
        """Free connections. Idempotent."""
        with self._mutex:
            self._drop()
            self._log.close()

    def _step(self, max_events: int) -> int:
        """Step; take over again where another process stepped since, because our caches are stale. Where it has decided
        all there is, the lake is left to it: taking over writes to SQL."""
        if self._store is None:
            self._store = open_store(self._settings)
        cursor = self._store.cursor()
        if self._committer is not None and self._committer.cursor != cursor:
            if self._log.end(Stream.STAGED) == cursor.position and not self._store.observe().undecided:
                return 0
            self._committer.__exit__(None, None, None)
            self._committer = None
        if self._committer is None:
            self._committer = Committer(
                self._store, self._log, holder=holder(self._settings), attempting=self._attempting
            )
        return self._committer.step(max_events, 0.0)

    def _drop(self) -> None:
        self._committer = None
        if self._store is not None:
            self._store.close()
            self._store = None


def open_stepper(settings: Settings) -> Stepper:
    """The stepper of an embedded lake, which is made or brought up to this release first.

    Raises `TxnLogConfigError` for a lake on a server (its committer is a service of its own).
    """
    lock = lock_file(settings)
    if lock is None:
        raise TxnLogConfigError("only an embedded lake is stepped by its clients; run `deltalakedb committer run`")
    if settings.directory is not None:
        settings.directory.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    while not is_made(settings):
        if lock.try_acquire():
            try:
                make_lake(settings)
            finally:
                lock.release()
        elif time.monotonic() > deadline:
            raise TxnLogTimeoutError(
                f"another process has held {lock.path} for {LOCK_SECONDS:.0f} s without making the lake: "
                "end it, then try again"
            )
        else:
            time.sleep(0.05)
    return Stepper(settings, lock)
