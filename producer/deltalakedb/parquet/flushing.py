"""Data files made durable beside those who write more of them: what has come meanwhile is flushed together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from .files import DataFiles, flush_ahead

logger = logging.getLogger(__name__)

WAITING_BYTES: Final = 64 * 1024 * 1024
"""Of files that wait at once. What goes to an object store is in memory until it is there."""

GATHER_SECONDS: Final = 0.02
"""How long what is not urgent may wait for more of it. Flushed one by one it costs four times as much."""
ENOUGH: Final = 16
"""Transactions that wait for no more."""

Then = Callable[[Exception | None], None]
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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="deltalakedb-flush")
        self._ident: int | None = None

    @property
    def idle(self) -> bool:
        """Whether whatever was given is done."""
        return not self._busy

    def flush(self, files: Sequence[DataFiles], size: int, then: Then, *, urgent: bool) -> None:
        """Flush these files, of `size` bytes together, and call `then`, after all that was given before.

        What is `urgent` waits for that and nothing else. Returns at once, or waits while too much is waiting already.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._size or self._size + size <= WAITING_BYTES)
            self._waiting.append(_Job(files, size, then, urgent))
            self._size += size
            if self._busy:
                if self._ready():
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
            try:
                flush_ahead([files for job in jobs for files in job.files])
            except Exception:
                logger.exception("flushing together failed, each is flushed by itself")
            for job in jobs:
                _finish(job)
                with self._changed:
                    self._size -= job.size
                    self._changed.notify_all()

    def _next(self) -> list[_Job]:
        with self._changed:
            if self._waiting:
                self._changed.wait_for(self._ready, GATHER_SECONDS)
            jobs, self._waiting = self._waiting, []
            self._busy = bool(jobs)
            return jobs

    def _ready(self) -> bool:
        return len(self._waiting) >= ENOUGH or any(job.urgent for job in self._waiting)


def _finish(job: _Job) -> None:
    failed: Exception | None = None
    try:
        for files in job.files:
            files.flush()
    except Exception as error:
        failed = error
    try:
        job.then(failed)
    except Exception:
        logger.exception("what comes after a flush failed")
