"""When appends go to the broker: at once while few come, together while many do.

Messages cost by the request. One for each of many messages that come within milliseconds takes three to four times as
much of a processor, here and at the broker, as one for all of them; but a lone message must not wait for others. So
time is cut into windows that begin with a message. The first few of a window go at once and the rest at its end; and
once there was a rest, all messages of the next windows wait for their ends, until one has only few again.
"""

from __future__ import annotations

from typing import Final

WINDOW_SECONDS: Final = 0.004
AT_ONCE: Final = 3
"""Appends of a window that do not wait."""
MEMORY_SECONDS: Final = 0.025
"""How long after a window the next one still counts as its successor."""


class Pace:
    """Pure: it is told the time, in seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._end = 0.0
        self._count = 0
        self._together = False

    def send_at(self, now: float) -> float:
        """When the append that comes `now` goes to the broker."""
        if now >= self._end:
            self._together = self._count > AT_ONCE and now < self._end + MEMORY_SECONDS
            self._end, self._count = now + WINDOW_SECONDS, 0
        self._count += 1
        return self._end if self._together or self._count > AT_ONCE else now

    def may_hold(self, now: float) -> bool:
        """Whether an append that comes next may have to wait."""
        if self._count > AT_ONCE:
            return now < self._end + MEMORY_SECONDS
        return self._count == AT_ONCE and now < self._end
