"""What the log asks of librdkafka and of its topics, and why. Pure: values and one comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = dict[str, Any]

LARGEST_MESSAGE = 1_048_588
"""Bytes of a message as a broker counts them: its default, in which MAX_RECORD_BYTES and MAX_HEADERS_BYTES fit."""

TOPIC = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "max.message.bytes": str(LARGEST_MESSAGE),
}

# Values that an operator may change by options: security comes on top, timings may be tuned.
_CLIENT: Settings = {
    # Only librdkafka's last words: what else matters arrives as errors and is logged by the adapter.
    "log_level": 0,
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
    # A broker that falls silent without closing its connections is given up after this long, instead of a minute.
    "socket.timeout.ms": 15_000,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 1_000,
    "retry.backoff.ms": 50,
    "retry.backoff.max.ms": 1_000,
}
_PRODUCER: Settings = {
    # A message goes out at once. To wait here even a tenth of a millisecond costs each lone message a whole one; what
    # waits for others does so before, see `pace`.
    "linger.ms": 0,
    # Events are mostly text: it saves more time in system calls than it takes.
    "compression.type": "lz4",
    "message.timeout.ms": 120_000,
    "request.timeout.ms": 15_000,
    "queue.buffering.max.kbytes": 65_536,
}
_ONE_PARTITION: Settings = {
    # A request has messages of one partition: those that come while one is under way are the next one.
    "max.in.flight.requests.per.connection": 1,
}
_CONSUMER: Settings = {
    # A fetch is answered as soon as there is a byte, an idle one after half a second.
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 500,
    # By default a reader whose local queue was full once fetches nothing for a second.
    "fetch.queue.backoff.ms": 2,
    # After a refused fetch (a leader that is not ready), instead of half a second.
    "fetch.error.backoff.ms": 50,
    "queued.max.messages.kbytes": 16_384,
}

# Values that promises of the log rest on.
_PRODUCER_PROMISES: Settings = {
    "acks": "all",
    "enable.idempotence": True,
    "message.max.bytes": LARGEST_MESSAGE,
}
_CONSUMER_PROMISES: Settings = {
    # The client demands a name; no group is joined, and no offset left to it.
    "group.id": "deltalakedb",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "check.crcs": True,
    "fetch.message.max.bytes": 2 * LARGEST_MESSAGE,
}

# Other names that librdkafka has for some of them.
_ALIASES = {"request.required.acks", "max.partition.fetch.bytes", "metadata.broker.list"}

PROMISED = frozenset({"client.id", *_ALIASES, *_PRODUCER_PROMISES, *_CONSUMER_PROMISES})
"""Settings that nobody else may set."""


def client(servers: str, client_id: str, options: Mapping[str, str]) -> Settings:
    """Settings of every client of a log, and the whole of them for one that only asks questions."""
    # As an option it is another way to the same brokers, from where this client stands.
    return {**_CLIENT, "bootstrap.servers": servers, **options, "client.id": client_id}


def producer(client: Settings, *, one_partition: bool) -> Settings:
    """Settings of a producer, and whether all that it sends goes to one partition."""
    own = _ONE_PARTITION if one_partition else {}
    return {**_PRODUCER, **own, **client, **_PRODUCER_PROMISES}


def consumer(client: Settings) -> Settings:
    return {**_CONSUMER, **client, **_CONSUMER_PROMISES}


def wrong_in_topic(found: Mapping[str, str]) -> dict[str, str]:
    """The settings of a topic that have another value than they need, with the value they need."""
    wrong = {name: value for name, value in TOPIC.items() if found.get(name) != value}
    if int(found.get("max.message.bytes", "0")) >= LARGEST_MESSAGE:
        wrong.pop("max.message.bytes", None)
    return wrong
