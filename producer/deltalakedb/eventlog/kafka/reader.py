"""A cursor over one partition of a topic, and what it makes of each kind of error."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Protocol, cast

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException
from confluent_kafka import Message as Fetched
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import TopicDescription

from deltalakedb.errors import TxnLogError, TxnLogEventLogError, TxnLogHaltedError
from deltalakedb.eventlog.port import Headers, Record, Stream

from .health import Health, said
from .settings import Settings

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 10_000

# How often a reader makes sure, beside its reading, that its topic is still the one it began with; Kafka itself goes
# on with another topic of the same name as if nothing had happened.
_CHECK_SECONDS = 1.0

# How long records that are there already may wait for that, beyond the time that the caller gave.
_GRACE_SECONDS = 0.1

# How long something has to look wrong to be believed: brokers learn of topics and offsets one after the other.
_BELIEVE_SECONDS = 3.0

# What comes and goes with brokers, connections and leaders, by librdkafka's names. A topic that is not known is left
# to the check of its identity. The rights that a consumer group takes are not needed: there is none.
_PASSING = frozenset(
    {
        "_ALL_BROKERS_DOWN",
        "_TRANSPORT",
        "_RESOLVE",
        "_SSL",
        "_TIMED_OUT",
        "_TIMED_OUT_QUEUE",
        "_WAIT_COORD",
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
        "UNKNOWN_TOPIC_OR_PART",
        "UNKNOWN_TOPIC_ID",
        "INCONSISTENT_TOPIC_ID",
        "LEADER_NOT_AVAILABLE",
        "NOT_LEADER_FOR_PARTITION",
        "BROKER_NOT_AVAILABLE",
        "REPLICA_NOT_AVAILABLE",
        "REQUEST_TIMED_OUT",
        "NETWORK_EXCEPTION",
        "KAFKA_STORAGE_ERROR",
        "OFFSET_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH",
        "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "NOT_COORDINATOR",
        "GROUP_AUTHORIZATION_FAILED",
        "THROTTLING_QUOTA_EXCEEDED",
    }
)

_POSITION = frozenset({"_AUTO_OFFSET_RESET", "_LOG_TRUNCATION"})


class Questions(Protocol):
    """What a reader asks its log."""

    def beginning(self, stream: Stream, *, partition: int = 0) -> int: ...

    def end(self, stream: Stream, *, partition: int = 0) -> int: ...

    def identity(self, stream: Stream) -> str: ...

    def describe_later(self, stream: Stream) -> Future[TopicDescription]: ...

    def missing(self, stream: Stream) -> TxnLogHaltedError: ...


class Reader:
    """See `port.LogReader`. Once it has failed it fails again, with the same error."""

    def __init__(
        self, log: Questions, stream: Stream, topic: str, partition: int, position: int, settings: Settings
    ) -> None:
        self._log = log
        self._stream = stream
        self._topic = topic
        self._partition = partition
        self._position = position
        self._identity = log.identity(stream)
        self._failure: TxnLogError | None = None
        # Fetched and not given out yet.
        self._held: list[Record] = []
        self._checking: Future[TopicDescription] | None = None
        self._asked = self._confirmed = time.monotonic()
        self._unknown_since: float | None = None
        self._outside_since: float | None = None
        self._health = Health(f"reading {topic} [{partition}]", settings["bootstrap.servers"])
        self._consumer = Consumer({**settings, **self._health.callbacks()})
        self._seek()

    def read(self, limit: int, timeout: float) -> list[Record]:
        deadline = time.monotonic() + timeout
        self._raise_failure()
        while True:
            # In slices, so that an idle reader looks after its topic too.
            wait = min(max(deadline - time.monotonic(), 0.0), _CHECK_SECONDS)
            fetched = self._held or self._fetch(limit, wait)
            # What was fetched may come from another topic already: it is given out only soon after a look at that.
            grace = max(deadline - time.monotonic(), _GRACE_SECONDS) if fetched else 0.0
            given = limit if self._checked(grace) else 0
            self._held = fetched[given:]
            if fetched[:given]:
                return fetched[:given]
            self._raise_failure()
            if time.monotonic() >= deadline:
                return []

    def close(self) -> None:
        self._consumer.close()

    def _raise_failure(self) -> None:
        if self._failure is None and self._health.refused is not None:
            self._failure = TxnLogEventLogError(f"reading {self._topic} failed{self._health}")
        if self._failure is not None:
            raise self._failure

    def _seek(self) -> None:
        self._consumer.assign([Place(self._topic, self._partition, self._position)])

    def _fetch(self, limit: int, wait: float) -> list[Record]:
        """The first record as soon as it is there, with those that came along with it."""
        messages: list[Fetched] = []
        try:
            first = self._consumer.poll(wait)
            if first is None:
                return []
            messages.append(first)
            if limit > 1:
                messages += self._consumer.consume(min(limit, _READ_AT_ONCE) - 1, 0)
        except KafkaException as ended:
            # The consumer has ended, and says so only once.
            self._fail(ended)
        records: list[Record] = []
        for message in messages:
            error = message.error()
            if error is not None:
                if self._passes(error):
                    continue
                break
            kind, time_ms = message.timestamp()
            if kind != TIMESTAMP_LOG_APPEND_TIME:
                self._failure = TxnLogHaltedError(
                    "LOG_SETTINGS",
                    f"record {message.offset()} of {self._topic} has a time that its sender gave it: set the topic's "
                    f"message.timestamp.type to LogAppendTime again (`deltalakedb migrate` says how)",
                )
                break
            record = Record(
                self._partition,
                message.offset() or 0,
                time_ms,
                message.value() or b"",
                _headers(message),
            )
            records.append(record)
            self._position = record.next_position
        if records:
            self._health.answered()
            self._outside_since = None
        return records

    def _passes(self, error: KafkaError) -> bool:
        """Whether reading simply goes on; if not, it has failed or begins again at the position."""
        name = error.name()
        if name in _POSITION:
            self._judge_position(error)
            return False
        if name in _PASSING:
            self._health.told(error)
            return True
        self._fail(KafkaException(error))
        return False

    def _fail(self, error: KafkaException) -> None:
        self._failure = TxnLogEventLogError(
            f"reading {self._topic} at {self._position} failed: {said(error)}{self._health}"
        )
        self._failure.__cause__ = error

    def _judge_position(self, error: KafkaError) -> None:
        """The broker refused the position: is it outside of the log, or does that broker only not know better?"""
        now = time.monotonic()
        self._outside_since = self._outside_since or now
        try:
            identity = self._log.identity(self._stream)
            beginning = self._log.beginning(self._stream, partition=self._partition)
            end = self._log.end(self._stream, partition=self._partition)
        except TxnLogHaltedError as halt:
            self._failure = halt
            return
        except TxnLogEventLogError:
            self._seek()
            return
        if identity != self._identity:
            self._failure = self._recreated(identity)
            return
        if beginning <= self._position <= end and now - self._outside_since < _BELIEVE_SECONDS:
            logger.debug("%s again at %s, in spite of %s", self._topic, self._position, error)
            self._seek()
            return
        self._failure = TxnLogHaltedError(
            "LOG_TRUNCATED",
            f"{self._topic} [{self._partition}] has offsets {beginning} to {end}, reading was to go on at "
            f"{self._position} ({error.str()}): records were deleted, or the brokers lost the end of the log. Restore "
            "the topic, or the store from a backup that this log still reaches",
        )
        self._failure.__cause__ = KafkaException(error)

    def _checked(self, wait: float) -> bool:
        """Look after the topic beside the reading, now and then; whether it was still the same a moment ago.

        Waits up to `wait` seconds for an answer if the last one is too old, which it is after a pause in reading.
        """
        now = time.monotonic()
        if self._checking is None and now - self._asked >= _CHECK_SECONDS:
            self._asked = now
            self._checking = self._log.describe_later(self._stream)
        fresh = now - self._confirmed < 2 * _CHECK_SECONDS
        if self._checking is None or (fresh and not self._checking.done()):
            return fresh
        try:
            identity = str(self._checking.result(wait).topic_id)
        except FutureTimeoutError:
            return fresh
        except KafkaException as error:
            self._checking = None
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._unknown_since = self._unknown_since or now
                if now - self._unknown_since >= _BELIEVE_SECONDS:
                    self._failure = self._log.missing(self._stream)
                    self._failure.__cause__ = error
            return fresh
        self._checking = None
        self._unknown_since = None
        self._health.answered()
        if identity != self._identity:
            self._failure = self._recreated(identity)
            raise self._failure
        self._confirmed = self._asked
        return True

    def _recreated(self, identity: str) -> TxnLogHaltedError:
        return TxnLogHaltedError(
            "LOG_RECREATED",
            f"the topic {self._topic} was deleted and made again (id {identity}, it was {self._identity}): what is in "
            "it now is not what was read so far. Restore the topic's records under a new prefix, or start a new lake",
        )


def _headers(message: Fetched) -> Headers:
    found = message.headers()
    if not found:
        return ()
    pairs = cast("list[tuple[str, bytes | None]]", found)
    return tuple((name, value or b"") for name, value in pairs)
