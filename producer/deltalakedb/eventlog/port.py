"""The event log port: the contract every adapter keeps, in words and types.

Words. A *lake's log* has four *streams*; a stream has one or more *partitions*; a partition is a sequence of
*records*. A record's *position* is its place in its partition: positions strictly increase, may have gaps, and are
never used twice as long as the stream's *identity* stays the same. A record's *time* is the log's own append time in
milliseconds since the epoch: it never decreases within a partition.

Every error of a driver leaves an adapter as `TxnLogEventLogError` with its cause; what could lose or repeat records
leaves it as `TxnLogHaltedError` with one of these states:

    LOG_MISSING      a stream is not there: never created, or deleted
    LOG_TRUNCATED    a position lies before the first or after the end of the log: records are gone
    LOG_SETTINGS     a stream is set up so that it could lose, reorder or expire records
    LOG_PARTITIONS   a stream has another number of partitions than it should
    LOG_RECREATED    a stream was deleted and made again while it was read: its positions mean other records now
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import NamedTuple, Protocol

from deltalakedb.errors import TxnLogValidationError


class Stream(StrEnum):
    """The four streams of a lake. All but OUTCOMES have exactly one partition."""

    STAGED = "staged"
    COMMITS = "commits"
    OUTCOMES = "outcomes"
    DEAD_LETTER = "dead-letter"


OUTCOME_PARTITIONS = 8
"""Partitions that `create` gives the OUTCOMES stream; a client reads the one it names in its events."""

MAX_RECORD_BYTES = 1_000_000
"""Largest value a record may have: what a Kafka broker takes by default, less room for headers."""

MAX_HEADERS_BYTES = 32_768
"""Largest sum of the names and values of one record's headers."""

Headers = tuple[tuple[str, bytes], ...]


class Message(NamedTuple):
    """What is appended: a value of at most `MAX_RECORD_BYTES`, and headers that can be read without decoding it."""

    value: bytes
    headers: Headers = ()
    partition: int = 0


Appended = list[int] | Exception
"""What became of an append: the positions of its messages, or why it is not known to be in the log."""
Done = Callable[[Appended], None]
"""Is told that, once, by whatever thread comes to know it. Raises nothing, and does not wait."""


class Append(Future[list[int]]):
    """An append that somebody waits for. Nobody can cancel it: it could not be given its result."""

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()

    def done_with(self, appended: Appended) -> None:
        """Is a `Done`."""
        if isinstance(appended, list):
            self.set_result(appended)
        else:
            self.set_exception(appended)


def refuse_oversize(messages: Sequence[Message]) -> None:
    """Raise `TxnLogValidationError` if a message is larger than a log has to take. Every adapter calls it first."""
    for message in messages:
        if len(message.value) > MAX_RECORD_BYTES:
            raise TxnLogValidationError(
                f"a record of {len(message.value):,} bytes is over the limit of {MAX_RECORD_BYTES:,}: split it into chunks"
            )
        if message.headers:
            size = sum(len(name.encode()) + len(value) for name, value in message.headers)
            if size > MAX_HEADERS_BYTES:
                raise TxnLogValidationError(
                    f"record headers of {size:,} bytes are over the limit of {MAX_HEADERS_BYTES:,}"
                )


class Record(NamedTuple):
    """What is read back."""

    partition: int
    position: int
    time_ms: int
    value: bytes
    headers: Headers

    @property
    def next_position(self) -> int:
        """Where reading goes on after this record."""
        return self.position + 1


class LogReader(Protocol):
    """A cursor over one partition. Used by one thread."""

    def read(self, limit: int, timeout: float) -> list[Record]:
        """Up to `limit` records in order, waiting up to `timeout` seconds for the first; empty if there is none.

        Returns as soon as there is at least one record: it never waits to fill up.
        Raises `TxnLogHaltedError` (`LOG_TRUNCATED`) if the position lies before the first or after the end of the log,
        `TxnLogEventLogError` if the log cannot be reached for longer than the adapter rides out by itself.
        """
        ...

    def close(self) -> None: ...


class EventLog(Protocol):
    """One lake's log. Thread-safe; a process that forks opens its own."""

    @property
    def address(self) -> str:
        """The log's URI without credentials: what the store remembers (`kafka://h:9092/prefix`, `sqlite:///abs/log.db`)."""
        ...

    def create(self) -> None:
        """Create the streams that are not there; leave those that are. Only `migrate` and embedded lakes call it."""
        ...

    def verify(self) -> None:
        """Raise `TxnLogHaltedError` unless every stream exists, with its number of partitions and the settings that
        correctness rests on (append times by the log, nothing expires, nothing is compacted)."""
        ...

    def identity(self, stream: Stream) -> str:
        """A name that changes when the stream is deleted and made again."""
        ...

    def partitions(self, stream: Stream) -> int: ...

    def append(self, stream: Stream, messages: Sequence[Message]) -> Future[list[int]]:
        """Append `messages` in order. The future gives their positions once *all* are durable.

        If it fails with `TxnLogEventLogError`, any number of the messages may be in the log, now or later: appending
        the same bytes again is the caller's way to be sure. Messages to one partition from one thread keep their
        order, across calls too. Returns before the messages are durable, but waits for room when very much is under
        way. A message over `MAX_RECORD_BYTES` or `MAX_HEADERS_BYTES`, or for a partition that the stream does not
        have, raises `TxnLogValidationError` at once, a stream that is not there `TxnLogHaltedError` (`LOG_MISSING`).
        """
        ...

    def send(self, stream: Stream, messages: Sequence[Message], done: Done) -> None:
        """As `append`, for whoever waits for nothing: without a future, which costs more than all else that is done here,
        and `done` may be told a moment later."""
        ...

    def reader(self, stream: Stream, position: int, *, partition: int = 0) -> LogReader:
        """A reader that starts with the record at `position`, or the next one above it.

        Raises `TxnLogValidationError` for a negative position or a partition that the stream does not have,
        `TxnLogHaltedError` (`LOG_MISSING`) if the stream is not there.
        """
        ...

    def beginning(self, stream: Stream, *, partition: int = 0) -> int:
        """The first position that can still be read."""
        ...

    def end(self, stream: Stream, *, partition: int = 0) -> int:
        """Above the position of the newest record, by one unless there is a gap at the end: where a reader starts that
        wants only what comes later."""
        ...

    def close(self) -> None:
        """Wait a few seconds for appends under way, then free everything. Idempotent."""
        ...
