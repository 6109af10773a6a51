"""One mirror at a time on a lake whose store is a file. Only to spare work: two at once would publish the same bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_SECONDS = 0.002


class StepLock:
    """A lock file, freed by the kernel when its holder dies, and a lock among the threads of this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()

    @contextlib.contextmanager
    def hold(self, timeout: float) -> Iterator[bool]:
        """Hold the lock for the time of the block; False if others kept it for `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if not self._threads.acquire(timeout=timeout):
            yield False
            return
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                yield _lock(file, deadline)
            finally:
                os.close(file)
        finally:
            self._threads.release()


def _lock(file: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True
