"""The log itself: topics, their settings and identities, and what producers and readers are made from."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, TopicDescription
from confluent_kafka.cimpl import NewTopic

from deltalakedb.errors import (
    TxnLogConfigError,
    TxnLogEventLogError,
    TxnLogHaltedError,
    TxnLogValidationError,
    redacted,
)
from deltalakedb.eventlog.port import OUTCOME_PARTITIONS, Append, Done, Message, Stream, refuse_oversize

from . import settings
from .appender import Appender
from .health import Health, said
from .pace import Pace
from .reader import Reader

T = TypeVar("T")

_PARTITIONS = {stream: OUTCOME_PARTITIONS if stream is Stream.OUTCOMES else 1 for stream in Stream}

_ASK_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_CREATE_SECONDS = 30.0

# A partition that was just made, or whose broker just went or came back: to be asked again. The first is also what is
# said of a topic that is not there.
_ASK_AGAIN = (
    KafkaError._NOENT,
    KafkaError._TRANSPORT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.NETWORK_EXCEPTION,
)


class KafkaEventLog:
    """An event log in the topics `<prefix>.<stream>` of the cluster at `servers`; see `port.EventLog`.

    `options` are further librdkafka settings: security, or other timings. One that a promise of the log rests on is
    refused with `TxnLogConfigError`. A log belongs to the process that opened it, not to a forked child.
    """

    def __init__(
        self,
        servers: str,
        prefix: str,
        *,
        options: Mapping[str, str] | None = None,
        client_id: str = "deltalakedb",
        reads_only: bool = False,
    ) -> None:
        options = dict(options or {})
        if refused := sorted(settings.PROMISED & options.keys()):
            raise TxnLogConfigError(f"the log itself sets {', '.join(refused)}: take it out of the log's options")
        self._servers = servers
        self._prefix = prefix
        self._process = os.getpid()
        self._closed = False
        self._settings = settings.client(servers, client_id, options)
        self._seen: set[Stream] = set()
        self._health = Health(f"asking {servers}", self._settings["bootstrap.servers"])
        self._lock = threading.Lock()
        self._appenders: dict[bool, Appender] = {}
        """By whether it is the one of the staged stream, which has one partition; the other is made when it is needed."""
        self._admin = self._clients(options, reads_only=reads_only)

    def __repr__(self) -> str:
        return f"KafkaEventLog({self.address!r})"

    @property
    def address(self) -> str:
        return f"kafka://{self._servers}/{self._prefix}"

    def create(self) -> None:
        found = self._describe(*Stream)
        topics = [
            NewTopic(self._topic(stream), _PARTITIONS[stream], -1, config=settings.TOPIC)
            for stream in Stream
            if stream not in found
        ]
        if not topics:
            return
        for created in self._open().create_topics(topics, request_timeout=_CREATE_SECONDS).values():
            # Somebody else may have been quicker.
            quicker = (KafkaError.TOPIC_ALREADY_EXISTS,)
            self._answer(created, "creating topics", fine=quicker, seconds=_CREATE_SECONDS)
        deadline = time.monotonic() + _CREATE_SECONDS
        while not self._ready():
            if time.monotonic() > deadline:
                raise TxnLogEventLogError(f"{self.address}: topics were created, but the brokers do not show them yet")
            time.sleep(0.02)

    def verify(self) -> None:
        found = self._describe(*Stream)
        if missing := [self._topic(stream) for stream in Stream if stream not in found]:
            raise TxnLogHaltedError(
                "LOG_MISSING",
                f"there are no topics {', '.join(missing)} at {self._servers}: run `deltalakedb migrate` for a new lake, "
                "restore the topics for an old one",
            )
        for stream, topic in found.items():
            if len(topic.partitions) != _PARTITIONS[stream]:
                raise TxnLogHaltedError(
                    "LOG_PARTITIONS",
                    f"{topic.name} has {len(topic.partitions)} partitions instead of {_PARTITIONS[stream]}, which "
                    f"cannot be undone. If nothing was ever appended to it, run kafka-topics.sh --bootstrap-server "
                    f"{self._servers} --delete --topic {topic.name} and then `deltalakedb migrate`; otherwise the lake "
                    "needs a new log",
                )
        resources = [ConfigResource(ConfigResource.Type.TOPIC, self._topic(stream)) for stream in Stream]
        asked = self._open().describe_configs(resources, request_timeout=_ASK_SECONDS)
        complaints = []
        for resource in resources:
            entries = self._answer(asked[resource], "reading the settings of topics") or {}
            values = {name: str(entry.value) for name, entry in entries.items()}
            if wrong := settings.wrong_in_topic(values):
                complaints.append(
                    f"{resource.name} has {', '.join(f'{name}={values.get(name)}' for name in wrong)}: run "
                    f"kafka-configs.sh --bootstrap-server {self._servers} --alter --entity-type topics --entity-name "
                    f"{resource.name} --add-config {','.join(f'{name}={value}' for name, value in wrong.items())}"
                )
        if complaints:
            raise TxnLogHaltedError("LOG_SETTINGS", "; ".join(complaints))

    def identity(self, stream: Stream) -> str:
        return str(self._described(stream).topic_id)

    def partitions(self, stream: Stream) -> int:
        return len(self._described(stream).partitions)

    def append(self, stream: Stream, messages: Sequence[Message]) -> Future[list[int]]:
        append = Append()
        self._send(stream, messages, append.done_with, awaited=True)
        return append

    def send(self, stream: Stream, messages: Sequence[Message], done: Done) -> None:
        self._send(stream, messages, done, awaited=False)

    def reader(self, stream: Stream, position: int, *, partition: int = 0) -> Reader:
        _refuse_partition(stream, partition)
        if position < 0:
            # To librdkafka negative offsets are words: -1 is the end.
            raise TxnLogValidationError(f"a position is 0 or more, not {position}")
        return Reader(self, stream, self._topic(stream), partition, position, settings.consumer(self._settings))

    def beginning(self, stream: Stream, *, partition: int = 0) -> int:
        return self._offset(stream, partition, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def end(self, stream: Stream, *, partition: int = 0) -> int:
        return self._offset(stream, partition, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def close(self) -> None:
        # A forked child has no part in its parent's clients, and ending them there would wait for ever.
        if not self._closed and os.getpid() == self._process:
            self._closed = True
            with self._lock:
                for appender in self._appenders.values():
                    appender.close()

    def describe_later(self, stream: Stream) -> Future[TopicDescription]:
        """The stream's topic; the future raises `KafkaException`."""
        return self._ask_for((stream,))[self._topic(stream)]

    def missing(self, stream: Stream) -> TxnLogHaltedError:
        return TxnLogHaltedError(
            "LOG_MISSING",
            f"there is no topic {self._topic(stream)} at {self._servers}: run `deltalakedb migrate` for a new lake, "
            "restore the topic for an old one",
        )

    def _send(self, stream: Stream, messages: Sequence[Message], done: Done, *, awaited: bool) -> None:
        self._open()
        refuse_oversize(messages)
        for message in messages:
            _refuse_partition(stream, message.partition)
        if stream not in self._seen:
            # A producer that asks for a topic that is not there makes a broker with auto-creation create it.
            self._described(stream)
            self._seen.add(stream)
        appender = self._appender(staged=stream is Stream.STAGED)
        appender.append(self._topic(stream), messages, done, awaited=awaited)

    def _clients(self, options: Mapping[str, str], *, reads_only: bool) -> AdminClient:
        """The client that asks; and the appender at once, to be connected when the first append comes.

        Not for a reader: a producer asks for its id as soon as it is there, and is refused for ever without the right to
        write anything.
        """
        try:
            asking = AdminClient({**self._settings, **self._health.callbacks()})
            if not reads_only:
                self._appender(staged=True)
            return asking
        except KafkaException as error:
            refusal = redacted(said(error), options)
        # Not from within the handler: the error of the driver, which would come along, can show a password.
        raise TxnLogConfigError(f"the log's options are not understood: {refusal}")

    def _appender(self, *, staged: bool) -> Appender:
        with self._lock:
            found = self._appenders.get(staged)
            if found is None:
                wanted = settings.producer(self._settings, one_partition=staged)
                # Transactions come one by one; whatever else is appended comes in batches already.
                pace = Pace() if staged else None
                found = self._appenders[staged] = Appender(self._servers, wanted, pace=pace)
            return found

    def _topic(self, stream: Stream) -> str:
        return f"{self._prefix}.{stream}"

    def _open(self) -> AdminClient:
        if self._closed:
            raise TxnLogEventLogError(f"the event log {self.address} is closed")
        if os.getpid() != self._process:
            raise TxnLogEventLogError(f"the event log {self.address} is the parent process's: open another one here")
        return self._admin

    def _ask_for(self, streams: Sequence[Stream]) -> dict[str, Future[TopicDescription]]:
        topics = TopicCollection([self._topic(stream) for stream in streams])
        return self._open().describe_topics(topics, request_timeout=_ASK_SECONDS)

    def _describe(self, *streams: Stream) -> dict[Stream, TopicDescription]:
        """The topics of those of `streams` that have one."""
        found = {}
        asked = self._ask_for(streams)
        for stream in streams:
            answer = asked[self._topic(stream)]
            topic = self._answer(answer, f"looking for {self._topic(stream)}", fine=(KafkaError.UNKNOWN_TOPIC_OR_PART,))
            if topic is not None:
                found[stream] = topic
        return found

    def _ready(self) -> bool:
        """Whether every partition of every topic can be written and read."""
        found = self._describe(*Stream)
        return len(found) == len(Stream) and all(p.leader is not None for t in found.values() for p in t.partitions)

    def _described(self, stream: Stream) -> TopicDescription:
        found = self._describe(stream)
        if stream not in found:
            raise self.missing(stream)
        return found[stream]

    def _offset(self, stream: Stream, partition: int, which: OffsetSpec) -> int:
        _refuse_partition(stream, partition)
        place = Place(self._topic(stream), partition)
        deadline = time.monotonic() + _ASK_SECONDS
        while True:
            asked = self._open().list_offsets(
                {place: which}, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_ASK_SECONDS
            )
            found = self._answer(asked[place], "reading offsets", fine=_ASK_AGAIN)
            # A broker that has just come back may not know yet, and says -1.
            if found is not None and found.offset >= 0:
                return int(found.offset)
            self._described(stream)
            if time.monotonic() > deadline:
                raise TxnLogEventLogError(f"{place.topic} [{partition}] at {self._servers} has no leader")
            time.sleep(0.02)

    def _answer(
        self, asked: Future[T], what: str, *, fine: Sequence[int] = (), seconds: float = _ASK_SECONDS
    ) -> T | None:
        """What the brokers answered, None if that was one of the errors `fine`."""
        # The client itself gives up after so long; this is for the case that it does not.
        started = time.monotonic()
        deadline = started + seconds + 5
        while True:
            # Has the error callback called: a question to brokers that refuse us is not answered, it only times out.
            self._admin.poll(0)
            try:
                answer = asked.result(_LOOK_SECONDS)
            except FutureTimeoutError as error:
                if self._health.refused is None and time.monotonic() < deadline:
                    continue
                raise self._failed(what, "no answer", started) from error
            except KafkaException as error:
                if error.args[0].code() not in fine:
                    raise self._failed(what, said(error), started) from error
                answer = None
            self._health.answered()
            return answer

    def _failed(self, what: str, why: str, started: float) -> TxnLogEventLogError:
        self._admin.poll(0)  # what the brokers said last
        seconds = time.monotonic() - started
        return TxnLogEventLogError(f"{what} at {self.address} failed after {seconds:.1f} s: {why}{self._health}")


def _refuse_partition(stream: Stream, partition: int) -> None:
    if not 0 <= partition < _PARTITIONS[stream]:
        raise TxnLogValidationError(
            f"{stream} has partitions 0 to {_PARTITIONS[stream] - 1}, there is no partition {partition}"
        )
