"""A log's producer, and the thread that collects its delivery reports and tells who appended."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from deltalakedb.errors import TxnLogEventLogError
from deltalakedb.eventlog.port import Appended, Done, Message

from .health import Health, said
from .pace import WINDOW_SECONDS, Pace
from .settings import Settings

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_IDLE_SECONDS = 0.1

# Each report by itself would wake the thread: those of so long are collected together, unless somebody waits for one.
_REST_SECONDS = 0.05

# An idempotent producer of librdkafka makes no request while this many messages of a partition are under way. Where more
# of them wait for that, its thread asks for the time without a pause, which takes more of a processor than the messages do.
_UNDER_WAY = 5

# How long what is held waits for those. Where brokers are away for longer, librdkafka has to know of it: it says when an
# append has failed, and how much there is room for.
_ROOM_SECONDS = 1.0

# A producer that is given a message in its first milliseconds, before it is connected, finds no broker to give it its
# producer id and asks again only half a second later.
_SETTLE_SECONDS = 0.02


class Appender:
    """One idempotent producer, replaced if an error ends it. Thread-safe."""

    def __init__(self, servers: str, settings: Settings, *, pace: Pace | None = None) -> None:
        """With a `pace`, appends are held together as that says."""
        self._servers = servers
        self._settings = settings
        self._closing = threading.Event()
        self._settled = time.monotonic() + _SETTLE_SECONDS
        self._health, self._producer = self._new()
        self._pace = pace
        self._held: deque[_Append] = deque()
        self._held_until = 0.0
        # Of the two above and of the order of what is sent. Whoever is told of a delivery may append something.
        self._lock = threading.RLock()
        self._awaited = 0
        self._counting = threading.Lock()
        self._rested = threading.Event()
        """Set to end the thread's rest."""
        self._thread = threading.Thread(target=self._collect, name=f"append to {servers}", daemon=True)
        self._thread.start()

    def append(self, topic: str, messages: Sequence[Message], done: Done, *, awaited: bool) -> None:
        """`done` is told at once where that is `awaited`, otherwise when it is convenient."""
        if awaited:
            done = self._awaiting(done)
        early = self._settled - time.monotonic()
        if early > 0:
            time.sleep(early)
        delivery = _Delivery(topic, self._servers, len(messages), self._health, done)
        append = _Append(topic, messages, delivery)
        with self._lock:
            now = time.monotonic()
            send_at = now if self._pace is None else self._pace.send_at(now)
            if self._held:
                self._held.append(append)
            elif send_at > now:
                self._held.append(append)
                self._held_until = send_at
                self._rested.set()
            else:
                self._send(append)

    def close(self) -> None:
        self._closing.set()
        self._rested.set()
        self._thread.join(_CLOSE_SECONDS)
        with self._lock:
            self._send_held()
        if _left_after_flush(self._producer, _CLOSE_SECONDS):
            _give_up(self._producer)

    def _awaiting(self, done: Done) -> Done:
        """`done`; until it is told the thread does not rest."""

        def told(appended: Appended) -> None:
            with self._counting:
                self._awaited -= 1
            done(appended)

        with self._counting:
            self._awaited += 1
        self._rested.set()
        return told

    def _send(self, append: _Append) -> None:
        producer, delivery = self._producer, append.delivery
        try:
            for index, message in enumerate(append.messages):
                self._produce(producer, append.topic, message, partial(delivery.report, index))
        except (KafkaException, BufferError) as error:
            delivery.fail(error)

    def _send_held(self) -> None:
        while self._held:
            self._send(self._held.popleft())

    def _produce(self, producer: Producer, topic: str, message: Message, report: partial[None]) -> None:
        while True:
            try:
                producer.produce(
                    topic,
                    message.value,
                    partition=message.partition,
                    headers=list(message.headers),
                    on_delivery=report,
                )
                return
            except BufferError:
                # The queue is full: there is room again when the thread has collected reports.
                if self._closing.is_set():
                    raise
                if threading.current_thread() is self._thread:
                    producer.poll(0.001)
                else:
                    self._rested.set()
                    time.sleep(0.001)

    def _new(self) -> tuple[Health, Producer]:
        health = Health(f"appending to {self._servers}", self._settings["bootstrap.servers"])
        return health, Producer({**self._settings, **health.callbacks()})

    def _collect(self) -> None:
        while not self._closing.is_set():
            reports = 0
            try:
                reports = self._producer.poll(self._patience())
            except KafkaException as error:
                # This producer sends nothing any more; what it still had fails, and may be in the log or not.
                logger.error("appending to %s goes on with a new producer: %s", self._servers, said(error))
                ended = self._producer
                self._health, self._producer = self._new()
                _give_up(ended)
            # Whoever has the lock may be waiting for room, which comes from this thread.
            if self._held and not self._patience() and self._lock.acquire(blocking=False):
                try:
                    self._send_held()
                finally:
                    self._lock.release()
            if reports and not self._awaited and not self._may_hold():
                self._rested.wait(_REST_SECONDS)
            self._rested.clear()

    def _may_hold(self) -> bool:
        """Whether something is to be sent soon, or what is appended next may be."""
        return bool(self._held) or (self._pace is not None and self._pace.may_hold(time.monotonic()))

    def _patience(self) -> float:
        """How long to wait for delivery reports before looking whether there is something to send; what is held is sent
        where this is nothing."""
        if self._held:
            room_at = self._held_until + (_ROOM_SECONDS if len(self._producer) >= _UNDER_WAY else 0.0)
            return max(room_at - time.monotonic(), 0.0)
        return WINDOW_SECONDS if self._may_hold() else _IDLE_SECONDS


class _Append(NamedTuple):
    topic: str
    messages: Sequence[Message]
    delivery: _Delivery


class _Delivery:
    """The delivery reports of one append."""

    __slots__ = ("_done", "_error", "_health", "_missing", "_positions", "_servers", "_topic")

    def __init__(self, topic: str, servers: str, messages: int, health: Health, done: Done) -> None:
        self._topic = topic
        self._servers = servers
        self._health = health
        self._done = done
        self._positions = [-1] * messages
        self._missing = messages
        self._error: KafkaError | None = None
        if not messages:
            done([])

    def report(self, index: int, error: KafkaError | None, message: Delivered) -> None:
        """librdkafka's delivery report of one message."""
        offset = message.offset()
        if error is None and (offset is None or offset < 0):
            # The broker says that it has this already, and not where. That is also what it says when a later message of
            # a new producer came in before this one, which is then nowhere.
            error = KafkaError(KafkaError.DUPLICATE_SEQUENCE_NUMBER)
        if error is None:
            self._positions[index] = offset or 0
        else:
            self._error = error
        self._missing -= 1
        if not self._missing:
            if self._error is None:
                self._health.answered()
                self._done(self._positions)
            else:
                self.fail(KafkaException(self._error))

    def fail(self, error: Exception) -> None:
        """Also where a message could not even be queued: then the reports will never be complete."""
        failure = TxnLogEventLogError(
            f"appending to {self._topic} at {self._servers} failed: {said(error)}{self._health}. It may be in the log all the "
            "same: append the same again"
        )
        failure.__cause__ = error
        self._done(failure)


def _give_up(producer: Producer) -> None:
    """Have what is not delivered reported as failed."""
    producer.purge()
    _left_after_flush(producer, 1)


def _left_after_flush(producer: Producer, seconds: float) -> int:
    try:
        return producer.flush(seconds)
    except KafkaException:
        # It has ended, and says so once.
        return len(producer)
