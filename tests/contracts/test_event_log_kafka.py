"""What only the event log on Kafka can show: topics changed by others, brokers that die, producers that are lost."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic

from deltalakedb.errors import TxnLogConfigError, TxnLogEventLogError, TxnLogHaltedError
from deltalakedb.eventlog import Message, Stream, open_event_log
from deltalakedb.eventlog.kafka import KafkaEventLog, appender, pace
from deltalakedb.eventlog.kafka import log as adapter
from tests.contracts.test_event_log import SECONDS, append, read, read_all, texts, until_halted, values
from tests.services.kafka import Kafka

PASSWORD = "correct-horse-battery-staple"


@pytest.fixture
def prefix(kafka_prefix: str) -> str:
    return f"{kafka_prefix}lake"


@pytest.fixture
def admin(kafka_bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka_bootstrap})


@pytest.fixture
def log(kafka_bootstrap: str, prefix: str) -> Iterator[KafkaEventLog]:
    with closing(KafkaEventLog(kafka_bootstrap, prefix)) as log:
        log.create()
        yield log


def configure(admin: AdminClient, topic: str, settings: Mapping[str, str]) -> None:
    changes = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=changes)
    for changed in admin.incremental_alter_configs([resource]).values():
        changed.result(SECONDS)
    # A broker takes a change over in its own time.
    deadline = time.monotonic() + SECONDS
    while not settings.items() <= configured(admin, topic).items() and time.monotonic() < deadline:
        time.sleep(0.01)


def configured(admin: AdminClient, topic: str) -> dict[str, str]:
    (asked,) = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in asked.result(SECONDS).items()}


def delete(admin: AdminClient, topic: str) -> None:
    admin.delete_topics([topic])[topic].result(SECONDS)


def recreate(admin: AdminClient, log: KafkaEventLog, stream: Stream, topic: str) -> None:
    """Delete a topic and make it again; the brokers may still be busy with the deletion."""
    before = log.identity(stream)
    delete(admin, topic)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            log.create()
            if log.identity(stream) != before:
                return
        except (TxnLogEventLogError, TxnLogHaltedError):
            continue
    raise AssertionError(f"{topic} could not be made again")


@pytest.mark.parametrize("new", [0, 45], ids=["fewer records", "more records"])
def test_topic_recreated_while_it_is_read(log: KafkaEventLog, admin: AdminClient, prefix: str, new: int) -> None:
    """A reader halts on a topic that was made again, also where the new one has records at its position."""
    append(log, Stream.STAGED, *(f"old {number}" for number in range(30)))
    identity = log.identity(Stream.STAGED)
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        assert len(read(reader, 30)) == 30
        recreate(admin, log, Stream.STAGED, f"{prefix}.staged")
        append(log, Stream.STAGED, *(f"new {number}" for number in range(new)))
        # Nothing of the new topic may come out later than this after the reader last looked at the old one.
        time.sleep(2.0)
        halted = until_halted(reader)

    assert halted.state == "LOG_RECREATED"
    assert log.identity(Stream.STAGED) != identity
    assert log.identity(Stream.STAGED) in str(halted)


def test_topic_deleted_while_it_is_read(log: KafkaEventLog, admin: AdminClient, prefix: str) -> None:
    """A reader whose topic is gone halts, instead of waiting for ever as Kafka's own client does."""
    append(log, Stream.STAGED, "one")
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        read(reader, 1)
        delete(admin, f"{prefix}.staged")
        halted = until_halted(reader)

    assert halted.state == "LOG_MISSING"
    assert f"{prefix}.staged" in str(halted)


def test_records_deleted_before_they_were_read(log: KafkaEventLog, admin: AdminClient, prefix: str) -> None:
    """A reader that needs records which retention took halts and names the offsets; one past them reads on."""
    append(log, Stream.STAGED, *"abcd")
    for deleted in admin.delete_records([TopicPartition(f"{prefix}.staged", 0, 2)]).values():
        deleted.result(SECONDS)
    with closing(log.reader(Stream.STAGED, 1)) as reader:
        halted = until_halted(reader)

    assert halted.state == "LOG_TRUNCATED"
    assert "offsets 2 to 4, reading was to go on at 1" in str(halted)
    assert texts(read_all(log, Stream.STAGED, 2)) == ["c", "d"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000000000"),
        ("max.message.bytes", "500000"),
    ],
)
def test_verify_names_a_wrong_setting_and_its_remedy(
    log: KafkaEventLog, admin: AdminClient, prefix: str, name: str, value: str
) -> None:
    """A setting that could lose or reorder records halts; the command in the message puts it right."""
    log.verify()
    configure(admin, f"{prefix}.commits", {name: value})

    with pytest.raises(TxnLogHaltedError, match=f"{prefix}.commits has {name}={value}") as raised:
        log.verify()
    assert raised.value.state == "LOG_SETTINGS"
    command = re.search(r"kafka-configs\.sh .* --entity-name (\S+) --add-config (\S+)$", str(raised.value))
    assert command is not None
    configure(admin, command[1], dict(change.split("=", 1) for change in command[2].split(",")))
    log.verify()


def test_larger_messages_are_allowed(log: KafkaEventLog, admin: AdminClient, prefix: str) -> None:
    """A topic that takes larger messages than are ever sent is as good."""
    configure(admin, f"{prefix}.commits", {"max.message.bytes": "2000000"})

    log.verify()


def test_partition_added(log: KafkaEventLog, admin: AdminClient, prefix: str) -> None:
    """A stream with another number of partitions halts: records in two partitions have no order."""
    log.verify()
    added = confluent_kafka.admin.NewPartitions(f"{prefix}.staged", 2)
    admin.create_partitions([added])[f"{prefix}.staged"].result(SECONDS)
    deadline = time.monotonic() + SECONDS
    while log.partitions(Stream.STAGED) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    with pytest.raises(TxnLogHaltedError, match=f"{prefix}.staged has 2 partitions instead of 1") as raised:
        log.verify()
    assert raised.value.state == "LOG_PARTITIONS"


def test_topic_made_by_somebody_else(admin: AdminClient, kafka_bootstrap: str, prefix: str) -> None:
    """Topics that are there already, with a cluster's defaults, are left alone by `create` and refused by `verify`."""
    admin.create_topics([NewTopic(f"{prefix}.staged", 1, -1)])[f"{prefix}.staged"].result(SECONDS)
    with closing(KafkaEventLog(kafka_bootstrap, prefix)) as log:
        log.create()

        with pytest.raises(TxnLogHaltedError, match=f"{prefix}.staged has message.timestamp.type=CreateTime"):
            log.verify()


def test_time_given_by_the_sender(log: KafkaEventLog, admin: AdminClient, prefix: str) -> None:
    """Records whose time is their sender's are not given out, even where the setting was changed under a reader."""
    append(log, Stream.STAGED, "by the log")
    configure(admin, f"{prefix}.staged", {"message.timestamp.type": "CreateTime"})
    append(log, Stream.STAGED, "by its sender")
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        before = texts(read(reader, 1))
        halted = until_halted(reader)

    assert before == ["by the log"]
    assert halted.state == "LOG_SETTINGS"


def test_records_of_an_aborted_transaction(log: KafkaEventLog, kafka_bootstrap: str, prefix: str) -> None:
    """What a foreign transactional producer took back is never seen; it leaves a gap in the positions."""
    foreign = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": prefix, "log_level": 0})
    foreign.init_transactions(SECONDS)
    append(log, Stream.STAGED, "before")
    foreign.begin_transaction()
    foreign.produce(f"{prefix}.staged", b"taken back")
    foreign.flush(SECONDS)
    foreign.abort_transaction(SECONDS)
    append(log, Stream.STAGED, "after")
    records = read_all(log, Stream.STAGED, 2)

    assert texts(records) == ["before", "after"]
    assert records[1].position > records[0].next_position
    assert log.end(Stream.STAGED) >= records[1].next_position


def test_records_of_other_tools(log: KafkaEventLog, kafka_bootstrap: str, prefix: str) -> None:
    """A record without a value, or with a header without one, comes as empty bytes: whoever decodes it refuses it."""
    foreign = Producer({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
    foreign.produce(f"{prefix}.staged", None, key=b"a key", headers=[("h", None), ("h", b"v")])
    foreign.flush(SECONDS)
    (record,) = read_all(log, Stream.STAGED, 1)

    assert (record.value, record.headers) == (b"", (("h", b""), ("h", b"v")))


@pytest.mark.parametrize("name", ["acks", "enable.idempotence", "auto.offset.reset", "isolation.level", "group.id"])
def test_option_that_would_break_a_promise(name: str) -> None:
    """A setting that the log rests on cannot be set from outside."""
    with pytest.raises(TxnLogConfigError, match=name):
        open_event_log("kafka://127.0.0.1:9/lake", options={name: "1"})


def test_options_that_are_not_understood() -> None:
    """A wrong option is an error of its own kind, in which no credential shows."""
    options = {"sasl.password": PASSWORD, "sasl.username": "alice", "security.protocol": PASSWORD}
    with pytest.raises(TxnLogConfigError, match=r"security\.protocol") as raised:
        open_event_log("kafka://127.0.0.1:9/lake", options=options)

    assert PASSWORD not in f"{raised.value}{raised.value.__cause__}{raised.value.__context__}"


def test_refused_credentials(kafka_bootstrap: str, prefix: str) -> None:
    """Brokers that refuse us are an error at once, not after a timeout, and the password shows nowhere."""
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": PASSWORD,
    }
    started = time.monotonic()
    with closing(KafkaEventLog(kafka_bootstrap, prefix, options=options)) as log:
        with pytest.raises(TxnLogEventLogError, match="check the credentials") as raised:
            log.verify()
        seconds = time.monotonic() - started

        assert PASSWORD not in f"{raised.value}{raised.value.__cause__}{log!r}{log.address}"
        assert seconds < adapter._ASK_SECONDS


@pytest.mark.parametrize(
    ("listening", "options", "why"),
    [
        (False, {}, "Connection refused"),
        (True, {"bootstrap.servers": "127.0.0.1:9"}, "Connection refused"),
        (True, {"security.protocol": "SSL"}, "connecting to a PLAINTEXT broker listener?"),
    ],
    ids=["no broker", "another way that is none", "wrong protocol"],
)
def test_brokers_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kafka_bootstrap: str,
    listening: bool,
    options: dict[str, str],
    why: str,
) -> None:
    """A question that nobody answers ends with an error that says where it was asked, for how long, what came of the
    last attempt to connect, and what to do; without an object of the client's, which is in no line of the log either."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(adapter, "_ASK_SECONDS", 0.5)
    servers = kafka_bootstrap if listening else "127.0.0.1:9"
    deadline = time.monotonic() + SECONDS
    with closing(KafkaEventLog(servers, "lake", options=options)) as log:
        while True:
            with pytest.raises(TxnLogEventLogError) as raised:
                log.verify()
            message = str(raised.value)
            assert message.startswith(f"looking for lake.staged at kafka://{servers}/lake failed after ")
            assert "KafkaError" not in message
            assert isinstance(raised.value.__cause__, (KafkaException, TimeoutError))
            if why in message:
                break
            assert time.monotonic() < deadline, message

    assert f"no broker answers at {options.get('bootstrap.servers', servers)}: " in message
    assert "DELTALAKEDB_LOG_OPTIONS" in message
    assert "no broker answers" in caplog.text
    assert "KafkaError" not in caplog.text


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_is_told_to_open_its_own(log: KafkaEventLog) -> None:
    """The threads of a log do not live in a forked child: using it there is an error, not a wait without end."""

    def child() -> None:
        for use in (lambda: append(log, Stream.STAGED, "child"), log.verify):
            with pytest.raises(TxnLogEventLogError, match="open another one"):
                use()
        log.close()

    process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
    process.start()
    process.join(SECONDS)

    assert process.exitcode == 0
    assert append(log, Stream.STAGED, "parent") == [0]


def test_broker_killed_while_appends_are_under_way(
    kafka_server: Kafka, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that dies and comes back costs time only: nothing acknowledged is lost, doubled or out of order."""
    caplog.set_level(logging.INFO, logger="deltalakedb.eventlog")
    in_flight, count = 32, 3_000
    futures: list[Future[list[int]]] = []
    with closing(KafkaEventLog(kafka_server.bootstrap, prefix)) as log, ThreadPoolExecutor() as pool:
        log.create()

        def keep_in_flight() -> None:
            for number in range(count):
                if number >= in_flight:
                    futures[number - in_flight].result(2 * SECONDS)
                futures.append(log.append(Stream.STAGED, values(str(number))))

        appending = pool.submit(keep_in_flight)
        while len(futures) < count // 10:
            time.sleep(0.001)
        kafka_server.kill()
        reached = len(futures)
        kafka_server.start()
        appending.result(2 * SECONDS)
        positions = [future.result(2 * SECONDS)[0] for future in futures]
        records = read_all(log, Stream.STAGED, count)

    assert reached < count
    assert [record.position for record in records] == positions
    assert texts(records) == [str(number) for number in range(count)]
    assert told(caplog, "appending") in OUTAGES


def test_what_comes_while_much_is_under_way_is_kept_back(
    kafka_server: Kafka, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka would use up a processor to wait for the first ones with the others; what is kept goes when they are told."""
    futures: list[Future[list[int]]] = []
    monkeypatch.setattr(appender, "_ROOM_SECONDS", 10 * SECONDS)
    with closing(KafkaEventLog(kafka_server.bootstrap, prefix)) as log:
        log.create()
        append(log, Stream.STAGED, "first")
        producer = log._appenders[True]._producer
        os.kill(kafka_server.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + SECONDS
            while len(producer) < appender._UNDER_WAY:  # a broker goes on for a moment
                assert time.monotonic() < deadline
                futures.append(log.append(Stream.STAGED, values(str(len(futures)))))
                time.sleep(0.001)
            for _ in range(200):
                futures.append(log.append(Stream.STAGED, values(str(len(futures)))))
            time.sleep(20 * pace.WINDOW_SECONDS)  # in which all of these would be sent, too
            under_way = len(producer)
        finally:
            os.kill(kafka_server.pid, signal.SIGCONT)
        positions = [future.result(2 * SECONDS)[0] for future in futures]
        records = read_all(log, Stream.STAGED, 1 + len(futures))

    assert under_way < len(futures)
    assert [record.position for record in records[1:]] == positions
    assert texts(records[1:]) == [str(number) for number in range(len(futures))]


OUTAGES = (["WARNING", "INFO"], ["WARNING", "INFO"] * 2)
"""One outage, told at its beginning and at its end; a broker that starts slowly may be away a second time."""


def told(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    """The levels at which something was logged."""
    return [record.levelname for record in caplog.records if record.message.startswith(what)]


def test_reader_rides_out_a_restart(kafka_server: Kafka, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """A reader returns nothing while no broker is there, says so once, and goes on by itself."""
    caplog.set_level(logging.INFO, logger="deltalakedb.eventlog")
    with closing(KafkaEventLog(kafka_server.bootstrap, prefix)) as log:
        log.create()
        append(log, Stream.STAGED, "before")
        with closing(log.reader(Stream.STAGED, 0)) as reader:
            before = texts(read(reader, 1))
            kafka_server.kill()
            deadline = time.monotonic() + SECONDS
            while not told(caplog, "reading") and time.monotonic() < deadline:
                assert reader.read(1, 0.2) == []
            for _ in range(10):
                assert reader.read(1, 0.1) == []
            kafka_server.start()
            append(log, Stream.STAGED, "after")
            after = texts(read(reader, 1))

    assert (before, after) == (["before"], ["after"])
    assert told(caplog, "reading") in OUTAGES


def test_producer_lost_to_a_fatal_error(log: KafkaEventLog, caplog: pytest.LogCaptureFixture) -> None:
    """An error that ends an idempotent producer fails what it had, and appends go on with a new one."""
    append(log, Stream.STAGED, "before")
    futures = [log.append(Stream.STAGED, values(str(number))) for number in range(500)]
    end_producer(log._appender(staged=True)._producer)
    errors = [future.exception(SECONDS) for future in futures]
    deadline = time.monotonic() + SECONDS
    while not told(caplog, "appending") and time.monotonic() < deadline:
        time.sleep(0.01)
    append(log, Stream.STAGED, "after")
    found = texts(read_all(log, Stream.STAGED, log.end(Stream.STAGED)))

    assert found[0] == "before"
    assert found[-1] == "after"
    assert {str(number) for number, error in enumerate(errors) if error is None} <= set(found)
    assert all(isinstance(error, TxnLogEventLogError) for error in errors if error is not None)
    assert told(caplog, "appending") == ["ERROR"]


def end_producer(producer: Producer) -> None:
    """Have librdkafka raise a fatal error, as its own tests do: no broker can be made to cause one on demand."""
    (library,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*")
    librdkafka = ctypes.CDLL(str(library))
    librdkafka.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    # The first field of the client's object after Python's own two.
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    librdkafka.rd_kafka_test_fatal_error(handle, 45, b"out of order, for a test")


def test_thousands_of_appends_cost_little(log: KafkaEventLog) -> None:
    """One process can append thousands of messages a second: each takes well under a millisecond of processor time."""
    count = 5_000
    message = Message(b"x" * 2_000, (("txn", bytes(16)), ("partition", b"3"), ("chunk", b"1/1")))
    log.append(Stream.STAGED, [message]).result(SECONDS)
    before = time.process_time()
    futures = [log.append(Stream.STAGED, [message]) for _ in range(count)]
    for future in futures:
        future.result(SECONDS)
    used = time.process_time() - before

    assert used / count < 0.000_5
