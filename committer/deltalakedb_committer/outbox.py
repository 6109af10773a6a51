"""Tells what was decided: publishes outbox rows on the log, in order, and knows how far that has come.

Publishing may be repeated at any time: commits are told apart by `commit_seq`, outcomes by transaction id. What is
durable is decided by SQL alone; a row leaves the outbox only after the log has acknowledged it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import groupby

from deltalakedb.eventlog import Append, EventLog, Message, Stream

from .storing.rows import OutboxRow

_ORDER = (Stream.DEAD_LETTER, Stream.OUTCOMES, Stream.COMMITS)
"""A broker takes the requests of a connection one by one. For outcomes clients wait; but what was isolated comes before it
is answered."""


class Outbox:
    """The outbox of one lake, during one epoch. Used by the committer's thread."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._under_way: deque[tuple[int, list[Append]]] = deque()
        self._published = 0

    def publish(self, rows: Sequence[OutboxRow], next_position: int) -> None:
        """Append rows, all caused by records below `next_position`, without waiting for the log's acknowledgement."""
        ordered = sorted(rows, key=lambda row: _ORDER.index(row.stream))
        appends = []
        for stream, group in groupby(ordered, key=lambda row: row.stream):
            append = Append()
            messages = [Message(row.payload, tuple(row.headers.items()), row.stream_partition) for row in group]
            self._log.send(Stream(stream), messages, append.done_with)
            appends.append(append)
        self._under_way.append((next_position, appends))

    def published_position(self) -> int:
        """Everything caused by records below is acknowledged by the log.

        Raises the log's error if an append failed: the rows are still in SQL and are published again at the next start.
        """
        while self._under_way and all(append.done() for append in self._under_way[0][1]):
            position, appends = self._under_way.popleft()
            for append in appends:
                append.result()
            self._published = max(self._published, position)
        return self._published

    def drain(self, timeout: float) -> None:
        """Wait until everything is acknowledged. Raises the log's error, or `TimeoutError`."""
        for _, appends in list(self._under_way):
            for append in appends:
                append.result(timeout)
        self.published_position()
