"""Whom a batch waits for before it is decided: clients that were answered together come back together.

A batch costs its statements, its flush to disk and its round trips through the log whether it serves one client or
ten. Clients that wait for each answer arrive one by one after it, and taking each as it comes would have every one of
them pay for a batch of its own; a lone client, and clients that keep many transactions in flight, wait for nobody.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

MOST_SKIPPED: Final = 64
"""Batches at most that do without waiting, after waits in vain."""


class Gathering:
    """Decides how long a batch may wait, and for whom: the clients of the two batches before it.

    Two, because clients that were split over two batches are to be one group again. Every wait in vain doubles the
    number of batches that do without, so clients that come when they please are hardly held up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._earlier: AbstractSet[str] = frozenset()
        self._last: AbstractSet[str] = frozenset()
        self._in_vain = 0
        self._skip = 0

    def patience(self) -> float:
        """Seconds that the batch which begins now may wait; 0: it does not."""
        if self._skip:
            self._skip -= 1
            return 0.0
        return self._seconds

    def waits_for(self, present: AbstractSet[str]) -> bool:
        """Whether a batch that has transactions of the clients `present` expects more."""
        return len(present) < len(self._last | self._earlier)

    def done(self, present: AbstractSet[str], *, waited: bool, came: bool) -> None:
        """The batch is complete: who is in it, whether it waited, and whether somebody came in that time."""
        self._earlier, self._last = self._last, present
        if came:
            self._in_vain = 0
        elif waited:
            self._skip = min(2**self._in_vain, MOST_SKIPPED)
            self._in_vain += 1
