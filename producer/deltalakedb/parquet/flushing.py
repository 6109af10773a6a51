"""Data files made durable beside those who write more of them: what has come meanwhile is flushed together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from deltalakedb.errors import TxnLogError

from .files import DataFiles, flush_ahead

logger = logging.getLogger(__name__)

WAITING_BYTES: Final = 64 * 1024 * 1024
"""Of files that wait at once. What goes to an object store is in memory until it is there."""

GATHER_SECONDS: Final = 0.005
"""How long those that nobody waits for may wait for others. Flushed one by one they cost four times as much."""
_MEMORY_SECONDS: Final = 0.025
"""How long after a flush the next one still counts as its successor: a lone one never waits."""

Then = Callable[[TxnLogError | None], None]
"""Told when files are durable, or why they are not; must not raise."""


class _Job(NamedTuple):
    files: Sequence[DataFiles]
    size: int
    then: Then
    urgent: bool


class Flusher:
    """Flushes the files of one transaction after the other, in the order they are given, in a thread of its own.

    Thread-safe; not used across a fork.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_Job] = []
        self._size = 0
        self._busy = False
        self._flushed = -_MEMORY_SECONDS
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="deltalakedb-flush")
        self._ident: int | None = None

    @property
    def idle(self) -> bool:
        """Whether whatever was given is done."""
        return not self._busy

    def flush(self, files: Sequence[DataFiles], size: int, then: Then, *, urgent: bool) -> None:
        """Flush these files, of `size` bytes together, and call `then`, after all that was given before.

        What is `urgent` waits for that and nothing else. Waits while too much is waiting already.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._size or self._size + size <= WAITING_BYTES)
            self._waiting.append(_Job(files, size, then, urgent))
            self._size += size
            if self._busy:
                if urgent:
                    self._changed.notify_all()
                return
            self._busy = True
        try:
            self._thread.submit(self._run)
        except RuntimeError:  # the interpreter is about to end and starts no threads any more
            self._run()

    def close(self) -> None:
        """Return once whatever was given is done, but where that is what calls this. Idempotent."""
        self._thread.shutdown(wait=threading.get_ident() != self._ident)

    def _run(self) -> None:
        self._ident = threading.get_ident()
        while jobs := self._next():
            flush_ahead([files for job in jobs for files in job.files])
            for job in jobs:
                _finish(job)
                with self._changed:
                    self._size -= job.size
                    self._changed.notify_all()
            self._flushed = time.monotonic()

    def _next(self) -> list[_Job]:
        with self._changed:
            if self._waiting and time.monotonic() < self._flushed + _MEMORY_SECONDS:
                self._changed.wait_for(lambda: any(job.urgent for job in self._waiting), GATHER_SECONDS)
            jobs, self._waiting = self._waiting, []
            self._busy = bool(jobs)
            return jobs


def _finish(job: _Job) -> None:
    failed: TxnLogError | None = None
    try:
        for files in job.files:
            files.flush()
    except TxnLogError as error:
        failed = error
    try:
        job.then(failed)
    except Exception:
        logger.exception("what comes after a flush failed")
