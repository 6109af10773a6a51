"""When the process dies: how often is too often, whose fault it may be, and what is recorded of an event that it was.

Pure. What was begun is noted before any event is looked at; a note that nobody takes back tells of a death.
"""

from __future__ import annotations

from typing import NamedTuple

DEATHS = 3
"""So many, and it is no accident."""


class IsolatedEvent(NamedTuple):
    """An event that was not decided like others: a row of `dl_isolated_events`, which a replay takes as it is."""

    position: int
    event_hash: bytes
    """SHA-256 of the record's value."""
    size: int
    """Of the record's value, in bytes."""
    rejected: bool
    """Unseen. False: it was decided by itself, where it might have been folded."""
    attempts: int
    """That ended with the process, or were refused by the store."""
    reason: str
    time_ms: int
    """By the committer's clock."""


class Begun(NamedTuple):
    """Something that was begun, and may be the death of the process."""

    position: int
    read_until: int | None
    """Of a batch: the position after the last record that has been read. None: it is one event by itself."""


class Attempts(NamedTuple):
    """What is noted of a lake. Counts are of attempts that have not ended but with the process, or not yet."""

    position: int = -1
    """Where the batches began."""
    begun: int = 0
    read_until: int = -1
    """The position after the last record that they had read."""
    alone_position: int = -1
    """Of the event that was tried by itself."""
    alone_begun: int = 0

    def is_careful(self, position: int) -> bool:
        """Whether the event at `position` is to be decided by itself."""
        return self.begun >= DEATHS and self.position <= position < self.read_until

    def times_alone(self, position: int) -> int:
        """How often the event at `position` was tried by itself."""
        return self.alone_begun if position == self.alone_position else 0

    def beginning(self, what: Begun) -> Attempts:
        """With one more attempt."""
        if what.read_until is None:
            return self._replace(alone_position=what.position, alone_begun=self.times_alone(what.position) + 1)
        if self.is_careful(what.position):
            return self
        if what.position != self.position:
            return self._replace(position=what.position, begun=1, read_until=what.read_until)
        return self._replace(begun=self.begun + 1, read_until=max(self.read_until, what.read_until))

    def taking_back(self, what: Begun) -> Attempts:
        """Without one that has ended otherwise than with the process."""
        if what.read_until is None:
            return self._replace(alone_begun=max(0, self.alone_begun - (what.position == self.alone_position)))
        if what.position != self.position:
            return self
        return self._replace(begun=max(0, self.begun - 1))
