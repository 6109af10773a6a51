"""A big transaction, decided by facts about rows, is decided as one that is held whole: on every engine."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from deltalakedb.codec import encode, encode_chunk
from deltalakedb.database import Database, StoreAddress
from deltalakedb.eventlog import Record
from deltalakedb.events import AddColumn, Completion, Content, SetProperties, StagedTransaction, TableWork, Tick
from deltalakedb_committer.applying import Applier, event_of
from deltalakedb_committer.batching import Batching
from deltalakedb_committer.deciding import rules as numbered
from deltalakedb_committer.deciding import state
from deltalakedb_committer.deciding.needs import Isolated, StagedEvent, Undecodable, Unread
from deltalakedb_committer.storing.digests import digests
from deltalakedb_committer.storing.rows import Placed
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.history import Historian, dealt
from tests.model_lake import LAKE_ID, ROOT, START_MS, ModelLake, chunked, control, staged, txn
from tests.stores import address, database, migrated
from tests.works import append, field, relaxed, remove

__all__ = ["address", "database"]

STAGING = {"dl_staged_chunks", "dl_staged_files"}
"""Hold more of a big transaction while it comes."""


class Cutter(Historian):
    """Cuts every transaction into single actions, dealt to a few chunks at random."""

    def _parts(self, whole: Content) -> list[Content]:
        return dealt(whole, self._chance.randint(2, 5), self._chance)


def history(seed: int, count: int) -> list[StagedEvent]:
    lake = ModelLake()
    historian = Cutter(lake, random.Random(seed))
    events: list[StagedEvent] = []
    while len(events) < count:
        for event in historian.events():
            lake.decide(event)
            events.append(event)
    return events


def both_ways(events: Sequence[StagedEvent]) -> tuple[list[StagedEvent], list[StagedEvent]]:
    """The log on which every transaction is held whole, and the one on which those in chunks are big: each is decided at
    the same place."""
    whole: list[StagedEvent] = []
    big: list[StagedEvent] = []
    seen: dict[str, set[int]] = {}
    for event in events:
        nothing = control(Tick())
        if not isinstance(event, StagedTransaction) or event.envelope.chunk_count == 1:
            whole.append(event)
            big.append(event)
            continue
        txn_id = event.envelope.txn_id
        chunks = seen.setdefault(txn_id, set())
        completes = (
            chunks != (chunks := chunks | {event.envelope.chunk_index}) and len(chunks) == event.envelope.chunk_count
        )
        seen[txn_id] = chunks
        whole += [nothing, event] if completes else [event, nothing]
        big += [event, completion(txn_id)]
    last = control(Tick())
    return [*whole, last], [*big, last]


def completion(txn_id: str, **heads: int) -> Completion:
    return Completion(lake_id=LAKE_ID, client_id="committer", txn_id=txn_id, heads=heads)


def record(position: int, event: StagedEvent) -> Record:
    assert not isinstance(event, Undecodable | Isolated | Unread)
    value = encode_chunk(event.envelope, event.content_bytes) if isinstance(event, StagedTransaction) else encode(event)
    return Record(partition=0, position=position, time_ms=START_MS + position, value=value, headers=())


def run(store: SqlCommitStore, events: Sequence[StagedEvent], chance: random.Random, *, restarts: bool) -> list[Placed]:
    """Apply events in batches of any size, by one committer after the other; what came from rows."""
    placed: list[Placed] = []
    applier, batching = (
        Applier(store, store.take_over("test")),
        Batching(lambda record: event_of(record, numbered.rules(1))),
    )
    position = 0
    while position < len(events):
        some = events[position : position + chance.randint(1, 6)]
        batching.put(record(position + n, event) for n, event in enumerate(some))
        position += len(some)
        while units := batching.take(chance.randint(1, 6), applier.rules):
            placed += applier.apply(units, published_position=0).placed
        if restarts and chance.random() < 0.2:
            applier, batching = (
                Applier(store, store.take_over("test")),
                Batching(lambda record: event_of(record, numbered.rules(1))),
            )
            position = applier.cursor.position
    if units := batching.rest():
        applier.apply(units, published_position=0)
    return placed


def hold_whole(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """From here on transactions in more chunks than that are big."""
    for number, limits in list(numbered.RULES.items()):
        monkeypatch.setitem(numbered.RULES, number, replace(limits, whole_chunks=chunks))


def made(database: Database) -> SqlCommitStore:
    store = SqlCommitStore(database)
    store.init_lake(
        lake_id=LAKE_ID,
        root=ROOT,
        log_address="log",
        stream_identity="stream",
        position=0,
        fence=True,
        created_ms=START_MS,
    )
    return store


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A store in which every transaction is held whole."""
    database = migrated(StoreAddress(engine="sqlite", path=str(tmp_path_factory.mktemp("whole") / "store.db")))
    yield database
    database.close()


@pytest.mark.parametrize(("seed", "kept"), [(0, 1_000), (5, state.KEPT_BYTES), (6, state.KEPT_BYTES)])
def test_big_or_not_the_rows_are_the_same(
    database: Database, whole: Database, seed: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions, versions, files, partitions: nothing shows in which way a transaction was decided, nor how much of its
    chunks is kept in memory."""
    monkeypatch.setattr(state, "KEPT_BYTES", kept)
    small, big = both_ways(history(seed, 50))
    hold_whole(monkeypatch, numbered.Rules(number=1).max_chunks)
    held = run(made(whole), small, random.Random(seed), restarts=False)
    hold_whole(monkeypatch, 1)
    placed = run(made(database), big, random.Random(seed + 1), restarts=True)

    with whole.snapshot(), database.snapshot():
        expected, found = digests(whole), digests(database)
    assert held == []
    assert sum(one.change.added_files for one in placed) > 0
    assert sum(one.change.ended_files for one in placed) > 0
    assert [name for name in found if found[name] != expected[name] and name not in STAGING] == []


def test_what_was_checked_under_another_definition_is_checked_again(
    database: Database, whole: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table changes between two chunks: files are judged by what it is when all are there, the first ones too."""
    late = [Content(tables=(append(*(f"{chunk}-{n}" for n in range(3))),)) for chunk in range(3)]
    removing = [Content(tables=(append("x"),)), *[Content(tables=(remove(f"0-{n}"),)) for n in range(2)]]
    first, *rest = chunked(late, txn_id=txn(1))
    second, third, last = chunked(removing, txn_id=txn(2))
    wider = TableWork(name="orders", intents=(AddColumn(field=json.dumps(field("later", "string"))),))
    closed = TableWork(name="orders", intents=(SetProperties(set={"delta.appendOnly": "true"}),))
    small, big = both_ways([staged(relaxed()), first, staged(wider), *rest, second, third, staged(closed), last])
    hold_whole(monkeypatch, numbered.Rules(number=1).max_chunks)
    run(made(whole), small, random.Random(0), restarts=False)
    hold_whole(monkeypatch, 1)

    placed = run(made(database), big, random.Random(0), restarts=True)

    with whole.snapshot(), database.snapshot():
        expected, found = digests(whole), digests(database)
    assert [name for name in found if found[name] != expected[name]] == []
    assert [one.change.added_files for one in placed] == [9]
    ((outcome,),) = database.query("SELECT outcome FROM dl_transactions WHERE txn_id = ?", [txn(2)])
    assert "APPEND_ONLY" in outcome
