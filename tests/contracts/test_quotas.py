"""Quotas of clients: what is one too many is refused unseen, and whatever the batches are, the same is."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltalakedb import failpoints
from deltalakedb.codec import encode, encode_chunk, transaction_headers
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import Reason
from deltalakedb.eventlog import EventLog, Message, Record, Stream
from deltalakedb.events import Cancel, Command, Content, Outcome, StagedTransaction, Tick
from deltalakedb_committer.deciding.rules import RULES
from deltalakedb_committer.replay import replay
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.digests import digests
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.logged import commit_all, log, made
from tests.model_lake import chunked, control, staged, txn
from tests.stores import address, database, migrated
from tests.works import append, relaxed

__all__ = ["address", "database", "log"]

GARBAGE = b"\xc3\x01 no event at all"


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the first rule set say otherwise."""

    def limit(**limits: Any) -> None:
        monkeypatch.setitem(RULES, 1, replace(RULES[1], **limits))

    return limit


@pytest.fixture
def unseen() -> Iterator[list[bytes]]:
    """Values that nobody may decode."""
    values: list[bytes] = []

    def seen() -> None:
        raise AssertionError("a record was decoded that is over its quota")

    failpoints.arm("committer.decoding", seen, over=lambda found: isinstance(found, Record) and found.value in values)
    yield values
    failpoints.disarm()


def parts(number: int, client: str = "one", count: int = 2, *, name: str = "orders") -> list[StagedTransaction]:
    """A transaction in chunks of a file each."""
    contents = [Content(tables=(append(f"f{number}-{n}", name=name),)) for n in range(count)]
    return chunked(contents, txn_id=txn(number), client_id=client)


def message(event: StagedTransaction, value: bytes | None = None) -> Message:
    value = encode_chunk(event.envelope, event.content_bytes) if value is None else value
    return Message(value, transaction_headers(event.envelope))


def send(log: EventLog, messages: Sequence[Message]) -> None:
    log.append(Stream.STAGED, messages).result()


def reasons(database: Database) -> dict[str, tuple[Reason | None, str]]:
    """By transaction why it was rejected, None if it was not, and in which words."""
    found: dict[str, tuple[Reason | None, str]] = {}
    for txn_id, outcome in database.query("SELECT txn_id, outcome FROM dl_transactions"):
        rejected = msgspec.json.decode(outcome, type=Outcome).rejected
        found[txn_id] = (None, "") if rejected is None else (Reason(rejected.reason), rejected.message)
    return found


def test_one_transaction_too_many_is_refused_unseen(
    database: Database, log: EventLog, limited: Callable[..., None], unseen: list[bytes]
) -> None:
    """By its headers alone, for its quota and not as poison; others are not touched, and it stays refused when there is
    room again: its client knows that it is."""
    limited(max_open_per_client=3, max_open=5)
    open_ones = [parts(n) for n in range(3)]
    late = parts(3)
    unseen.append(GARBAGE)
    send(log, [Message(encode_chunk((made_ := staged(relaxed())).envelope, made_.content_bytes))])
    send(log, [message(chunks[0]) for chunks in open_ones])
    store = made(database, log)
    commit_all(store, log, 100)
    send(log, [message(late[0], GARBAGE), message(parts(4, "two")[0]), message(parts(5, "three")[0])])
    commit_all(store, log, 100)
    send(log, [message(parts(6, "four")[0], GARBAGE)])
    commit_all(store, log, 100)
    send(log, [message(open_ones[0][1]), message(late[0]), message(late[1]), *map(message, parts(7))])
    commit_all(store, log, 100)

    found = reasons(database)
    assert found[txn(3)] == (
        Reason.QUOTA_EXCEEDED,
        "client 'one' has 3 transactions staged of transactions that are not complete, and 3 are allowed "
        "(max_open_per_client): finish or cancel some, or wait until they expire, and do this again in a new transaction",
    )
    assert found[txn(6)][0] is Reason.QUOTA_EXCEEDED
    assert "all clients have 5 transactions" in found[txn(6)][1]
    assert found[txn(0)] == found[txn(7)] == (None, "")
    assert set(found) == {made_.envelope.txn_id, txn(0), txn(3), txn(6), txn(7)}
    left = database.query("SELECT DISTINCT txn_id FROM dl_staged_chunks")
    assert {txn_id for (txn_id,) in left} == {txn(1), txn(2), txn(4), txn(5)}


def test_bytes_count_too(database: Database, log: EventLog, limited: Callable[..., None], unseen: list[bytes]) -> None:
    """Of transactions that are not complete; one chunk too many is the end of its transaction and makes room."""
    one = parts(1, count=3)
    size = len(one[0].content_bytes)
    limited(max_staged_bytes_per_client=2 * size)
    unseen.append(GARBAGE)
    send(log, [message(one[0]), message(one[1])])
    store = made(database, log)
    commit_all(store, log, 100)
    send(log, [message(parts(2)[0], GARBAGE), message(one[2], GARBAGE)])
    commit_all(store, log, 100)

    found = reasons(database)
    assert [found[txn(n)][0] for n in (1, 2)] == [Reason.QUOTA_EXCEEDED] * 2
    assert f"client 'one' has {2 * size} bytes staged" in found[txn(1)][1]
    assert database.query("SELECT * FROM dl_staged_chunks") == []


def test_a_chunk_that_came_before_takes_no_room(
    database: Database, log: EventLog, limited: Callable[..., None]
) -> None:
    """A big transaction that is all there, and the last that its client may have, is not the worse for one that comes twice."""
    chunks = parts(1)
    limited(whole_chunks=1, max_staged_bytes_per_client=sum(len(chunk.content_bytes) for chunk in chunks))
    send(log, [Message(encode_chunk((first := staged(relaxed())).envelope, first.content_bytes))])
    send(log, [message(chunk) for chunk in (*chunks, chunks[0], chunks[1])])
    with Committer(made(database, log), log, holder="test") as committer:
        while txn(1) not in reasons(database):  # the record that decides it comes when it comes
            committer.step(100, 0.02)

    assert reasons(database)[txn(1)] == (None, "")
    assert database.query("SELECT count(*) FROM dl_live_files") == [(2,)]


def test_too_large_and_too_many_chunks_are_refused_unseen(
    database: Database, log: EventLog, limited: Callable[..., None], unseen: list[bytes]
) -> None:
    """Whatever they hold."""
    limited(max_event_bytes=1_000, max_chunks=4)
    large = GARBAGE + bytes(1_000)
    unseen += [GARBAGE, large]
    send(log, [message(staged(relaxed(), txn_id=txn(1)), large), message(parts(2, count=5)[0], GARBAGE)])
    commit_all(made(database, log), log, 100)

    found = reasons(database)
    reason, words = found["position-0"]
    assert reason is Reason.LIMIT_EXCEEDED
    assert f"{len(large)} bytes; 1000 are allowed" in words
    reason, words = found[txn(2)]
    assert reason is Reason.LIMIT_EXCEEDED
    assert "5 chunks; from 1 to 4 are allowed" in words


@pytest.mark.parametrize("seed", range(12))
def test_quotas_are_the_logs_alone(log: EventLog, tmp_path: Path, limited: Callable[..., None], seed: int) -> None:
    """Whatever the batches, the restarts, and whether a record was decoded or not: the same rows. Chunks come in any order
    and twice, headers lie, bodies are garbage, transactions are cancelled and expire."""
    chance = random.Random(seed)
    size = len(parts(1)[0].content_bytes)
    limited(
        max_open_per_client=2, max_open=4, max_staged_bytes_per_client=5 * size, max_staged_bytes=8 * size, expire_ms=3
    )
    send(log, [Message(encode_chunk((first := staged(relaxed())).envelope, first.content_bytes))])
    waiting: list[Message] = []
    for number in range(1, 30):
        chunks = parts(number, chance.choice(["one", "two", "three"]), chance.randint(2, 4))
        waiting += [_spoilt(chunk, chance) for chunk in chunks for _ in range(chance.choice([1, 1, 2]))]
        if chance.random() < 0.3:
            command: Command = Tick() if chance.random() < 0.5 else Cancel(txn_id=txn(chance.randint(1, 30)))
            waiting.append(Message(encode(control(command))))
    while waiting:
        place = min(chance.randrange(12), len(waiting) - 1)
        send(log, [waiting.pop(place)])

    found: list[Any] = []
    for name in range(3):
        with closing(migrated(StoreAddress(engine="sqlite", path=str(tmp_path / f"{name}.db")))) as database:
            store = made(database, log)
            _decide(store, log, 1 if name == 0 else 30, chance, restarts=name == 2)
            with database.snapshot():
                found.append(digests(database))
            told = {reason for reason, _ in reasons(database).values()}
            path = str(tmp_path / f"again{name}.db")
            with closing(open_database(StoreAddress(engine="sqlite", path=path), create=True)) as other:
                assert replay(database, log, other).equal

    assert found[0] == found[1] == found[2]
    assert Reason.QUOTA_EXCEEDED in told
    assert Reason.ISOLATED not in told


def _spoilt(event: StagedTransaction, chance: random.Random) -> Message:
    dice = chance.random()
    if dice < 0.1:
        return message(event, GARBAGE)
    if dice < 0.2:
        other = msgspec.structs.replace(event.envelope, client_id=chance.choice(["one", "two"]))
        return Message(encode_chunk(event.envelope, event.content_bytes), transaction_headers(other))
    if dice < 0.3:
        return Message(encode_chunk(event.envelope, event.content_bytes))
    return message(event)


def _decide(store: SqlCommitStore, log: EventLog, most: int, chance: random.Random, *, restarts: bool) -> None:
    end = log.end(Stream.STAGED)
    while store.cursor().position < end:
        # Ticks are the test's alone: by this clock nothing expires.
        with Committer(
            store, log, holder="test", clock=lambda: time.time() - 1_800, wait=lambda seconds: None
        ) as committer:
            while committer.step(chance.randint(1, most), 0.0) and not (restarts and chance.random() < 0.2):
                pass


def test_ten_thousand_open_transactions_are_little(log: EventLog, tmp_path: Path) -> None:
    """As many as all clients may have: they take a few MB, whoever leads, and the next one is refused."""
    rules = RULES[1]
    clients = -(-rules.max_open // rules.max_open_per_client)
    events = [parts(n, f"client-{n % clients}", name="orders")[0] for n in range(rules.max_open + 1)]
    send(log, list(map(message, events)))
    with closing(migrated(StoreAddress(engine="sqlite", path=str(tmp_path / "store.db")))) as database:
        store = made(database, log)
        commit_all(store, log, 1_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(3):
            Committer(store, log, holder="test").step(10, 0.0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

        assert reasons(database)[txn(rules.max_open)][0] is Reason.QUOTA_EXCEEDED
        assert database.query("SELECT count(*) FROM dl_staged_chunks") == [(rules.max_open,)]
    assert grown < 50 * 1024, "KB"
