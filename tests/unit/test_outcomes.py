"""Waiting for outcomes: told by the log, found in SQL, unknown in time; publishing again where it failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from deltalakedb.codec import HEADER_TXN, encode_told
from deltalakedb.errors import (
    TxnLogEventLogError,
    TxnLogHaltedError,
    TxnLogOutcomeUnknownError,
    TxnLogValidationError,
)
from deltalakedb.eventlog import MAX_RECORD_BYTES, Done, EventLog, LogReader, Message, Record, Stream, open_event_log
from deltalakedb.events import Committed, Outcome, TableVersion
from deltalakedb.ids import new_txn_id
from deltalakedb.outcomes import Outcomes

CLIENT = "me"


class Store:
    """Decisions as SQL has them."""

    def __init__(self) -> None:
        self.decided: dict[str, Outcome] = {}

    def lookup(self, txn_ids: Sequence[str]) -> dict[str, Outcome]:
        return {txn_id: self.decided[txn_id] for txn_id in txn_ids if txn_id in self.decided}


class Unreliable:
    """A log whose appends or reads fail a number of times; everything else is the real log's."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.failing_appends = 0
        self.failing_reads = 0
        self.appends = 0

    @property
    def address(self) -> str:
        return self._log.address

    def create(self) -> None:
        self._log.create()

    def verify(self) -> None:
        self._log.verify()

    def identity(self, stream: Stream) -> str:
        return self._log.identity(stream)

    def partitions(self, stream: Stream) -> int:
        return self._log.partitions(stream)

    def append(self, stream: Stream, messages: Sequence[Message]) -> Future[list[int]]:
        return self._log.append(stream, messages)

    def send(self, stream: Stream, messages: Sequence[Message], done: Done) -> None:
        self.appends += 1
        if self.failing_appends:
            self.failing_appends -= 1
            done(TxnLogEventLogError("the broker went away"))
        else:
            self._log.send(stream, messages, done)

    def reader(self, stream: Stream, position: int, *, partition: int = 0) -> LogReader:
        return _Reader(self, self._log.reader(stream, position, partition=partition))

    def beginning(self, stream: Stream, *, partition: int = 0) -> int:
        return self._log.beginning(stream, partition=partition)

    def end(self, stream: Stream, *, partition: int = 0) -> int:
        return self._log.end(stream, partition=partition)

    def close(self) -> None:
        self._log.close()


class _Reader:
    def __init__(self, log: Unreliable, reader: LogReader) -> None:
        self._log = log
        self._reader = reader

    def read(self, limit: int, timeout: float) -> list[Record]:
        if self._log.failing_reads:
            self._log.failing_reads -= 1
            raise TxnLogEventLogError("the broker went away")
        return self._reader.read(limit, timeout)

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Unreliable]:
    real = open_event_log(f"sqlite://{tmp_path}/log.db")
    real.create()
    yield Unreliable(real)
    real.close()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def outcomes(log: Unreliable, store: Store) -> Iterator[Outcomes]:
    asker = Outcomes(log, store.lookup, client_id=CLIENT)
    yield asker
    asker.close()


def committed(txn_id: str, client_id: str = CLIENT, seq: int = 1) -> Outcome:
    told = Committed(commit_seq=seq, time_ms=1, tables=(TableVersion(name="t", table_id="i", version=0),))
    return Outcome(lake_id="lake", txn_id=txn_id, client_id=client_id, position=0, committed=told)


def tell(log: EventLog, partition: int, outcome: Outcome) -> None:
    (record,) = encode_told([outcome])
    log.append(Stream.OUTCOMES, [Message(record, partition=partition)]).result(60)


def message(txn_id: str) -> Message:
    return Message(b"content", ((HEADER_TXN, txn_id.encode()),))


def test_told_by_the_log(log: Unreliable, outcomes: Outcomes) -> None:
    """The outcome that the log tells in the client's own partition is the answer, whenever others are told theirs."""
    first, second = new_txn_id(), new_txn_id()
    futures = [outcomes.ask(txn_id, [message(txn_id)], 30) for txn_id in (first, second)]

    tell(log, outcomes.partition, committed("of somebody else"))
    tell(log, outcomes.partition, committed(second, client_id="another client", seq=8))
    tell(log, outcomes.partition, committed(second, seq=2))
    tell(log, outcomes.partition, committed(first))

    assert [future.result(60) for future in futures] == [committed(first), committed(second, seq=2)]
    assert log.end(Stream.STAGED) - log.beginning(Stream.STAGED) == 2


def test_found_in_sql(outcomes: Outcomes, store: Store) -> None:
    """Where the log tells nothing, SQL is asked."""
    txn_id = new_txn_id()
    future = outcomes.ask(txn_id, [message(txn_id)], 30)

    store.decided[txn_id] = committed(txn_id)

    assert future.result(60) == committed(txn_id)


def test_the_same_question_twice(log: Unreliable, outcomes: Outcomes) -> None:
    """Whoever asks about a transaction gets the answer, also while somebody else waits for it."""
    txn_id = new_txn_id()
    futures = [outcomes.ask(txn_id, [message(txn_id)], 30) for _ in range(2)]

    tell(log, outcomes.partition, committed(txn_id))

    assert [future.result(60) for future in futures] == [committed(txn_id)] * 2


def test_unknown_in_time(outcomes: Outcomes) -> None:
    """Without an answer the outcome is unknown, under its id, and says how to settle it."""
    txn_id = new_txn_id()
    began = time.monotonic()

    with pytest.raises(TxnLogOutcomeUnknownError, match=r"lake\.cancel") as caught:
        outcomes.ask(txn_id, [message(txn_id)], 0.3).result(60)

    assert caught.value.txn_id == txn_id
    assert time.monotonic() - began >= 0.3


def test_late_but_in_sql(outcomes: Outcomes, store: Store) -> None:
    """Before an outcome is called unknown, SQL is asked a last time."""
    txn_id = new_txn_id()
    store.decided[txn_id] = committed(txn_id)

    assert outcomes.ask(txn_id, [message(txn_id)], 0.0).result(60) == committed(txn_id)


def test_published_again_until_it_is_on_the_log(log: Unreliable, outcomes: Outcomes) -> None:
    """A failed append is repeated with the same bytes, and the caller only sees the outcome."""
    log.failing_appends = 2
    txn_id = new_txn_id()
    future = outcomes.ask(txn_id, [message(txn_id)], 30)
    reader = log.reader(Stream.STAGED, log.beginning(Stream.STAGED))
    assert reader.read(10, 10)
    reader.close()
    tell(log, outcomes.partition, committed(txn_id))

    assert future.result(60) == committed(txn_id)
    assert log.appends >= 3


def test_never_on_the_log(log: Unreliable, outcomes: Outcomes) -> None:
    """If publishing fails all the time the outcome is unknown, with the failure as the cause."""
    log.failing_appends = 1_000
    txn_id = new_txn_id()

    with pytest.raises(TxnLogOutcomeUnknownError) as caught:
        outcomes.ask(txn_id, [message(txn_id)], 0.5).result(60)

    assert isinstance(caught.value.__cause__, TxnLogEventLogError)


def test_refused_at_once(outcomes: Outcomes) -> None:
    """What the log refuses before taking anything is an error of its own: nothing was published."""
    txn_id = new_txn_id()

    with pytest.raises(TxnLogValidationError):
        outcomes.ask(txn_id, [Message(b"x" * (MAX_RECORD_BYTES + 1))], 30)


def test_reading_fails_for_a_while(log: Unreliable, outcomes: Outcomes, store: Store) -> None:
    """When reading outcomes fails, SQL stands in, and reading begins again."""
    log.failing_reads = 1_000_000
    first, second = new_txn_id(), new_txn_id()
    missed = outcomes.ask(first, [message(first)], 30)
    store.decided[first] = committed(first)
    assert missed.result(60) == committed(first)

    log.failing_reads = 0
    told = outcomes.ask(second, [message(second)], 30)
    tell(log, outcomes.partition, committed(second))
    assert told.result(60) == committed(second)


def test_closing_leaves_nobody_waiting(outcomes: Outcomes) -> None:
    """What is unanswered when the object is closed is unknown, and nothing new is published."""
    txn_id = new_txn_id()
    future = outcomes.ask(txn_id, [message(txn_id)], 30)

    outcomes.close()

    with pytest.raises(TxnLogOutcomeUnknownError, match="was closed"):
        future.result(60)
    with pytest.raises(TxnLogOutcomeUnknownError, match="closed before publishing"):
        outcomes.ask(txn_id, [message(txn_id)], 30)


class Deciding:
    """An embedded committer that decides, fails, or has no turn, as the test says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pending: list[str] = []
        self.error: Exception | None = None
        self.mirrored = 0
        self.steps = 0

    def step(self) -> bool | None:
        self.steps += 1
        if self.error is not None:
            raise self.error
        for txn_id in self.pending:
            self._store.decided[txn_id] = committed(txn_id)
        decided, self.pending = bool(self.pending), []
        return decided

    def mirror(self) -> None:
        self.mirrored += 1


@pytest.fixture
def deciding(store: Store) -> Deciding:
    return Deciding(store)


@pytest.fixture
def embedded(log: Unreliable, store: Store, deciding: Deciding) -> Iterator[Outcomes]:
    asker = Outcomes(log, store.lookup, client_id=CLIENT, deciding=deciding)
    yield asker
    asker.close()


def test_embedded_decides_by_itself(embedded: Outcomes, deciding: Deciding) -> None:
    """On an embedded lake the waiting thread takes the steps, and mirrors before it answers."""
    txn_id = new_txn_id()
    deciding.pending.append(txn_id)

    assert embedded.ask(txn_id, [message(txn_id)], 30).result(60) == committed(txn_id)
    assert deciding.mirrored == 1
    assert embedded.partition == -1


def test_embedded_failure_is_told_at_once(embedded: Outcomes, deciding: Deciding) -> None:
    """A step that cannot go on makes the outcome unknown at once, with its reason."""
    deciding.error = TxnLogHaltedError("LOG_MISSING", "put it back")
    txn_id = new_txn_id()

    with pytest.raises(TxnLogOutcomeUnknownError, match="LOG_MISSING: put it back") as caught:
        embedded.ask(txn_id, [message(txn_id)], 30).result(60)

    assert caught.value.__cause__ is deciding.error


def test_embedded_survives_its_own_bugs(
    embedded: Outcomes, deciding: Deciding, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is logged, and the thread lives to answer later questions."""
    deciding.error = RuntimeError("a bug")
    txn_id = new_txn_id()
    future = embedded.ask(txn_id, [message(txn_id)], 30)
    while deciding.steps == 0:
        time.sleep(0.001)
    deciding.error = None
    deciding.pending.append(txn_id)

    assert future.result(60) == committed(txn_id)
    assert "a bug" in caplog.text
