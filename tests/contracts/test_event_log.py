"""What every event log has to keep, on Kafka and in a SQLite file. A further adapter joins by a line in `ADAPTERS`."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest

from deltalakedb.errors import TxnLogEventLogError, TxnLogHaltedError, TxnLogValidationError
from deltalakedb.eventlog import (
    MAX_HEADERS_BYTES,
    MAX_RECORD_BYTES,
    OUTCOME_PARTITIONS,
    Appended,
    EventLog,
    LogReader,
    Message,
    Record,
    Stream,
    open_event_log,
)

SECONDS = 30.0
"""Longer than anything here takes, however busy the machine."""


def kafka_address(request: pytest.FixtureRequest) -> str:
    prefix: str = request.getfixturevalue("kafka_prefix")
    return f"kafka://{request.getfixturevalue('kafka_bootstrap')}/{prefix}lake"


def sqlite_address(request: pytest.FixtureRequest) -> str:
    folder: Path = request.getfixturevalue("tmp_path")
    return f"sqlite://{folder}/a%20lake/log.db"


ADAPTERS: dict[str, Callable[[pytest.FixtureRequest], str]] = {"kafka": kafka_address, "sqlite": sqlite_address}
"""How each adapter's address of a log that is not there yet is had."""


@pytest.fixture(params=ADAPTERS)
def address(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return ADAPTERS[name](request)


@pytest.fixture
def opened(address: str) -> Iterator[Callable[[], EventLog]]:
    """Opens the log once more."""
    with ExitStack() as stack:

        def another() -> EventLog:
            log = open_event_log(address)
            stack.callback(log.close)
            return log

        yield another


@pytest.fixture
def log(opened: Callable[[], EventLog]) -> EventLog:
    created = opened()
    created.create()
    return created


@pytest.fixture
def readers() -> Iterator[ExitStack]:
    """Closes readers when the test is over."""
    with ExitStack() as stack:
        yield stack


def values(*texts: str, partition: int = 0) -> list[Message]:
    return [Message(text.encode(), partition=partition) for text in texts]


def append(log: EventLog, stream: Stream, *texts: str, partition: int = 0) -> list[int]:
    return log.append(stream, values(*texts, partition=partition)).result(SECONDS)


def read(reader: LogReader, count: int, limit: int = 10_000) -> list[Record]:
    """The next `count` records."""
    records: list[Record] = []
    deadline = time.monotonic() + SECONDS
    while len(records) < count and time.monotonic() < deadline:
        records += reader.read(min(limit, count - len(records)), 1.0)
    return records


def read_all(log: EventLog, stream: Stream, count: int, partition: int = 0) -> list[Record]:
    """The first `count` records of a partition, and a look whether there are more."""
    reader = log.reader(stream, log.beginning(stream, partition=partition), partition=partition)
    try:
        return [*read(reader, count), *reader.read(100, 0.0)]
    finally:
        reader.close()


def texts(records: list[Record]) -> list[str]:
    return [record.value.decode() for record in records]


def until_halted(reader: LogReader) -> TxnLogHaltedError:
    """What the reader halts with."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            reader.read(100, 0.2)
        except TxnLogHaltedError as halted:
            return halted
    raise AssertionError("the reader did not halt")


def append_numbers(address: str, name: str, count: int) -> None:
    """What the other processes of a test do: append `count` records, a few calls under way at a time."""
    log = open_event_log(address)
    futures: list[Future[list[int]]] = []
    for number in range(count):
        futures.append(log.append(Stream.STAGED, values(f"{name} {number}")))
        if number >= 8:
            futures[number - 8].result(SECONDS)
    for future in futures:
        future.result(SECONDS)
    log.close()


def test_records_come_back_as_they_were_appended(log: EventLog, readers: ExitStack) -> None:
    """Values, headers and partition come back byte for byte, in order, at the positions that were promised."""
    every_byte = bytes(range(256))
    messages = [
        Message(b""),
        Message(every_byte, (("txn", every_byte), ("txn", b""), ("größe", b"\x00\xff"))),
        Message(b"third", (("chunk", b"1/2"),)),
    ]
    positions = log.append(Stream.STAGED, messages).result(SECONDS)
    records = read_all(log, Stream.STAGED, 3)

    assert [Message(record.value, record.headers, record.partition) for record in records] == messages
    assert [record.position for record in records] == positions
    assert positions == sorted(set(positions))
    assert [record.next_position for record in records] == [position + 1 for position in positions]


def test_time_is_given_by_the_log_and_never_decreases(log: EventLog) -> None:
    """A record's time is when the log took it, in milliseconds, and no record is earlier than the one before."""
    before = time.time_ns() // 1_000_000
    for number in range(20):
        append(log, Stream.COMMITS, str(number))
    after = time.time_ns() // 1_000_000
    times = [record.time_ms for record in read_all(log, Stream.COMMITS, 20)]

    assert before <= times[0]
    assert times[-1] <= after
    assert times == sorted(times)


def test_reading_starts_at_the_position_and_keeps_to_the_limit(log: EventLog, readers: ExitStack) -> None:
    """A reader begins with the record at its position, gives at most `limit` at a time, and goes on after it."""
    positions = append(log, Stream.STAGED, *"abcdef")
    reader = log.reader(Stream.STAGED, positions[2])
    readers.callback(reader.close)
    first = read(reader, 1, limit=1)
    rest = read(reader, 3, limit=2)

    assert texts(first) == ["c"]
    assert texts(rest) == ["d", "e", "f"]


def test_beginning_and_end_of_a_partition(log: EventLog) -> None:
    """The end of an empty log is its beginning; later it is one above the newest record."""
    empty = log.beginning(Stream.STAGED), log.end(Stream.STAGED)
    positions = append(log, Stream.STAGED, "a", "b")

    assert empty[0] == empty[1]
    assert log.beginning(Stream.STAGED) == positions[0] == empty[0]
    assert log.end(Stream.STAGED) == positions[-1] + 1


def test_reader_from_the_end_sees_only_what_comes_later(log: EventLog, readers: ExitStack) -> None:
    """Who reads the end first and appends then finds its own record and none before it."""
    append(log, Stream.STAGED, "before")
    reader = log.reader(Stream.STAGED, log.end(Stream.STAGED))
    readers.callback(reader.close)
    append(log, Stream.STAGED, "after")

    assert texts(read(reader, 1)) == ["after"]


def test_read_without_records_returns_after_its_timeout(log: EventLog, readers: ExitStack) -> None:
    """Where there is nothing to read, `read` waits as long as it was told to and returns nothing."""
    reader = log.reader(Stream.STAGED, 0)
    readers.callback(reader.close)
    started = time.monotonic()
    at_once = reader.read(10, 0.0)
    waited = reader.read(10, 0.3)
    seconds = time.monotonic() - started

    assert at_once == waited == []
    assert 0.3 <= seconds < SECONDS


def test_read_does_not_wait_to_fill_up(log: EventLog, readers: ExitStack) -> None:
    """One record is enough for `read` to return, however many were asked for."""
    append(log, Stream.STAGED, "only")
    reader = log.reader(Stream.STAGED, 0)
    readers.callback(reader.close)
    started = time.monotonic()
    records = reader.read(1_000, 2 * SECONDS)

    assert texts(records) == ["only"]
    assert time.monotonic() - started < SECONDS


def test_waiting_reader_is_woken_by_an_append(log: EventLog, readers: ExitStack) -> None:
    """A reader that already waits returns when a record comes, long before its time is up."""
    reader = log.reader(Stream.STAGED, 0)
    readers.callback(reader.close)
    waiting = threading.Event()

    def wait() -> list[Record]:
        reader.read(1, 0.0)
        waiting.set()
        return reader.read(1, 2 * SECONDS)

    with ThreadPoolExecutor() as pool:
        found = pool.submit(wait)
        waiting.wait(SECONDS)
        append(log, Stream.STAGED, "there")

        assert texts(found.result(SECONDS)) == ["there"]


def test_partitions_are_apart(log: EventLog) -> None:
    """One append may go to several partitions; its positions come in the order of the messages."""
    mixed = [Message(f"{number}".encode(), partition=number % 3) for number in range(9)]
    positions = log.append(Stream.OUTCOMES, mixed).result(SECONDS)
    found = [read_all(log, Stream.OUTCOMES, 3, partition=partition) for partition in range(3)]

    assert [texts(records) for records in found] == [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]
    assert [[record.position for record in records] for records in found] == [positions[n::3] for n in range(3)]
    assert {record.partition for record in found[2]} == {2}
    assert log.end(Stream.OUTCOMES, partition=7) == log.beginning(Stream.OUTCOMES, partition=7)


def test_streams_are_apart(log: EventLog) -> None:
    """What is appended to one stream is in no other."""
    for stream in Stream:
        append(log, stream, stream.value)

    assert {stream: texts(read_all(log, stream, 1)) for stream in Stream} == {
        stream: [stream.value] for stream in Stream
    }


def test_largest_record_fits(log: EventLog) -> None:
    """A value and headers of exactly the largest size go in and come out, also after other records in one read."""
    large = os.urandom(MAX_RECORD_BYTES)
    headers = (("h", os.urandom(MAX_HEADERS_BYTES - 1)),)
    # Of a new topic a broker may refuse the first request of a producer and take the second, whose order is lost then.
    append(log, Stream.STAGED, "first")
    log.append(Stream.STAGED, [Message(b"small"), Message(large, headers), Message(large)]).result(SECONDS)
    records = read_all(log, Stream.STAGED, 4)

    assert [record.value for record in records] == [b"first", b"small", large, large]
    assert records[2].headers == headers


@pytest.mark.parametrize(
    "message",
    [
        Message(bytes(MAX_RECORD_BYTES + 1)),
        Message(b"", (("h", bytes(MAX_HEADERS_BYTES)),)),
        Message(b"", partition=1),
        Message(b"", partition=-1),
    ],
    ids=["value", "headers", "partition", "negative partition"],
)
def test_unfit_message_is_refused_at_once(log: EventLog, message: Message) -> None:
    """A message that no log takes raises before anything of its append is in the log."""
    with pytest.raises(TxnLogValidationError):
        log.append(Stream.STAGED, [Message(b"fit"), message])

    assert log.end(Stream.STAGED) == log.beginning(Stream.STAGED)


def test_unfit_place_to_read_is_refused(log: EventLog) -> None:
    """There is no reading from a negative position, which drivers have other meanings for, or in no partition."""
    with pytest.raises(TxnLogValidationError):
        log.reader(Stream.STAGED, -1)
    with pytest.raises(TxnLogValidationError):
        log.reader(Stream.OUTCOMES, 0, partition=OUTCOME_PARTITIONS)
    with pytest.raises(TxnLogValidationError):
        log.end(Stream.STAGED, partition=1)
    with pytest.raises(TxnLogValidationError):
        log.beginning(Stream.STAGED, partition=1)


def test_append_of_nothing(log: EventLog) -> None:
    """An append without messages is done at once and has no positions."""
    assert log.append(Stream.STAGED, []).result(0) == []


def test_who_wants_no_future_is_told(opened: Callable[[], EventLog], log: EventLog) -> None:
    """`send` is `append` that tells what became of it: positions in the same order, nothing of nothing, and errors."""
    told: SimpleQueue[Appended] = SimpleQueue()
    (before,) = append(log, Stream.STAGED, "before")
    log.send(Stream.STAGED, values("a", "b"), told.put)
    assert told.get(timeout=SECONDS) == [before + 1, before + 2]
    log.send(Stream.STAGED, [], told.put)
    assert told.get(timeout=SECONDS) == []

    other = opened()
    for number in range(200):
        other.send(Stream.STAGED, values(str(number)), told.put)
    other.close()
    positions = [told.get(timeout=SECONDS) for _ in range(200)]
    assert all(isinstance(found, list) for found in positions)
    assert told.empty()
    with pytest.raises(TxnLogEventLogError, match="closed"):
        other.send(Stream.STAGED, values("late"), told.put)


def test_threads_keep_their_order(log: EventLog) -> None:
    """Many threads append without waiting: nothing is lost or doubled, and each thread's records are in its order."""
    threads, calls = 8, 100

    def append_all(thread: int) -> list[int]:
        futures = [
            log.append(Stream.STAGED, values(f"{thread} {call} a", f"{thread} {call} b")) for call in range(calls)
        ]
        return [position for future in futures for position in future.result(SECONDS)]

    with ThreadPoolExecutor(threads) as pool:
        promised = list(pool.map(append_all, range(threads)))
    records = read_all(log, Stream.STAGED, threads * calls * 2)

    for thread in range(threads):
        own = [record for record in records if record.value.startswith(b"%d " % thread)]
        assert texts(own) == [f"{thread} {call} {half}" for call in range(calls) for half in "ab"]
        assert [record.position for record in own] == promised[thread]
    assert len(records) == threads * calls * 2


def test_processes_keep_their_order(log: EventLog, address: str) -> None:
    """Several processes append at once: nothing is lost, and each one's records are in its order."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append_numbers, args=(address, name, 200)) for name in "AB"]
    for process in processes:
        process.start()
    append_numbers(address, "C", 200)
    for process in processes:
        process.join(SECONDS)
    records = read_all(log, Stream.STAGED, 600)

    assert [process.exitcode for process in processes] == [0, 0]
    for name in "ABC":
        assert [text for text in texts(records) if text.startswith(name)] == [f"{name} {n}" for n in range(200)]


def test_more_than_the_queue_holds(log: EventLog) -> None:
    """Appending faster than the log can write makes the caller wait for room, and loses nothing."""
    large = bytes(MAX_RECORD_BYTES)
    futures = [log.append(Stream.STAGED, [Message(large)]) for _ in range(100)]
    positions = [future.result(SECONDS) for future in futures]

    assert positions == sorted(positions)
    assert log.end(Stream.STAGED) == positions[-1][0] + 1


def test_append_cannot_be_cancelled(log: EventLog) -> None:
    """What is on its way into the log cannot be called back; to try does no harm to this append or the next."""
    future = log.append(Stream.STAGED, values("first"))
    cancelled = future.cancel()
    append(log, Stream.STAGED, "second")

    assert not cancelled
    assert texts(read_all(log, Stream.STAGED, 2)) == ["first", "second"]


def test_another_client_sees_the_same_log(log: EventLog, opened: Callable[[], EventLog], readers: ExitStack) -> None:
    """A log opened again has the same streams, identities and records, and goes on where the other is."""
    append(log, Stream.STAGED, "one")
    other = opened()
    other.verify()
    reader = other.reader(Stream.STAGED, 0)
    readers.callback(reader.close)
    before = texts(read(reader, 1))
    append(log, Stream.STAGED, "two")
    append(other, Stream.STAGED, "three")

    assert before == ["one"]
    assert texts(read(reader, 2)) == ["two", "three"]
    assert {stream: other.identity(stream) for stream in Stream} == {stream: log.identity(stream) for stream in Stream}


def test_address_opens_the_log_again(log: EventLog) -> None:
    """What a log says of itself is enough to find it."""
    append(log, Stream.STAGED, "one")
    other = open_event_log(log.address)
    try:
        assert texts(read_all(other, Stream.STAGED, 1)) == ["one"]
    finally:
        other.close()


def test_create_leaves_what_is_there(log: EventLog) -> None:
    """Creating a second time keeps identities and records."""
    append(log, Stream.STAGED, "one")
    before = {stream: log.identity(stream) for stream in Stream}
    log.create()

    assert {stream: log.identity(stream) for stream in Stream} == before
    assert texts(read_all(log, Stream.STAGED, 1)) == ["one"]


def test_create_by_several_at_once(opened: Callable[[], EventLog]) -> None:
    """Whoever comes first creates; all find the same log."""
    logs = [opened() for _ in range(4)]

    def create(log: EventLog) -> str:
        log.create()
        log.verify()
        return log.identity(Stream.STAGED)

    with ThreadPoolExecutor(len(logs)) as pool:
        assert len(set(pool.map(create, logs))) == 1


def test_created_streams(log: EventLog) -> None:
    """A created log passes its own check and has one partition per stream, but several for outcomes."""
    log.verify()

    assert {stream: log.partitions(stream) for stream in Stream} == {
        Stream.STAGED: 1,
        Stream.COMMITS: 1,
        Stream.OUTCOMES: OUTCOME_PARTITIONS,
        Stream.DEAD_LETTER: 1,
    }


@pytest.mark.parametrize(
    "use",
    [
        lambda log: log.verify(),
        lambda log: log.identity(Stream.STAGED),
        lambda log: log.end(Stream.STAGED),
        lambda log: log.beginning(Stream.STAGED),
        lambda log: log.reader(Stream.STAGED, 0),
        lambda log: log.append(Stream.STAGED, values("lost")).result(SECONDS),
    ],
    ids=["verify", "identity", "end", "beginning", "reader", "append"],
)
def test_log_that_was_never_created(opened: Callable[[], EventLog], use: Callable[[EventLog], object]) -> None:
    """Nothing but `create` creates: every use of a log that is not there halts and says what to run."""
    log = opened()

    with pytest.raises(TxnLogHaltedError, match="deltalakedb migrate") as raised:
        use(log)
    assert raised.value.state == "LOG_MISSING"
    with pytest.raises(TxnLogHaltedError):
        log.verify()


def test_position_after_the_end(log: EventLog, readers: ExitStack) -> None:
    """A reader that should go on beyond the end of the log halts: something that was read once is not there."""
    append(log, Stream.STAGED, "one", "two")
    reader = log.reader(Stream.STAGED, log.end(Stream.STAGED) + 1)
    readers.callback(reader.close)
    halted = until_halted(reader)

    assert halted.state == "LOG_TRUNCATED"
    with pytest.raises(TxnLogHaltedError):
        reader.read(1, 0.0)


def test_close_waits_for_appends(opened: Callable[[], EventLog], log: EventLog) -> None:
    """Closing waits for what is under way; afterwards nothing is taken, and closing again does nothing."""
    other = opened()
    futures = [other.append(Stream.STAGED, values(str(number))) for number in range(200)]
    other.close()
    other.close()

    assert all(future.done() for future in futures)
    assert texts(read_all(log, Stream.STAGED, 200)) == [str(number) for number in range(200)]
    with pytest.raises(TxnLogEventLogError, match="closed"):
        other.append(Stream.STAGED, values("late"))
