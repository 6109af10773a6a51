"""How many transactions a lake object has in flight: back-pressure, in the client and before anything is published.

The committer tells with every outcome how long the event had waited for it. Where that is long, more in flight gains
nothing and makes everybody wait longer: the window is halved, and grows again, one by one, once the wait is short.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

LAG_MS: Final = 1_000
"""An outcome that waited longer than this shrinks the window."""
LEAST: Final = 4
"""Where shrinking ends: a committer that is far behind still gets batches."""
PAUSE_SECONDS: Final = 1.0
"""Outcomes of one jam come together, and are one reason to shrink."""


class Window:
    """A semaphore whose size follows the committer's lag. Thread-safe."""

    def __init__(self, size: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = size
        self._least = min(LEAST, size)
        self._limit = size
        self._in_flight = 0
        self._good = 0
        self._shrunk = -PAUSE_SECONDS
        self._clock = clock
        self._room = threading.Condition()

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """How many are."""
        return self._in_flight

    def acquire(self, timeout: float) -> bool:
        """Wait for room up to `timeout` seconds; whether there was any."""
        with self._room:
            if not self._room.wait_for(lambda: self._in_flight < self._limit, timeout):
                return False
            self._in_flight += 1
            return True

    def release(self, lag_ms: int | None = None) -> None:
        """One is answered, after waiting `lag_ms` for the committer (None: nobody has told)."""
        with self._room:
            self._in_flight -= 1
            if lag_ms is not None:
                self._follow(lag_ms)
            self._room.notify(max(1, self._limit - self._in_flight))

    def _follow(self, lag_ms: int) -> None:
        if lag_ms <= LAG_MS:
            self._good += 1
            # By one for every window that was answered in time.
            if self._good >= self._limit and self._limit < self._most:
                self._limit, self._good = self._limit + 1, 0
            return
        self._good = 0
        now = self._clock()
        if now - self._shrunk >= PAUSE_SECONDS:
            self._limit, self._shrunk = max(self._least, self._limit // 2), now
