"""A history decided through a store, in any batches and by any number of committers, is the one decided in memory."""

from __future__ import annotations

import random

import pytest

from deltalakedb.database import Database
from deltalakedb_committer.deciding.decisions import Decision, Imported
from deltalakedb_committer.deciding.needs import StagedEvent
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.direct import DirectCommitter
from tests.history import Historian
from tests.model_lake import LAKE_ID, ROOT, START_MS, ModelLake
from tests.stores import address, database

__all__ = ["address", "database"]


@pytest.mark.parametrize("seed", range(8))
def test_a_store_gives_back_what_decisions_need(database: Database, seed: int) -> None:
    """Between batches some state is kept and some forgotten, between committers all of it: no decision shows it."""
    chance = random.Random(seed)
    lake = ModelLake()
    historian = Historian(lake, chance, imports=seed % 2 == 1)
    events: list[StagedEvent] = []
    expected: list[Decision] = []
    while len(events) < 60:
        for event in historian.events():
            events.append(event)
            expected.append(lake.decide(event))
    store = _store(database)
    committer = DirectCommitter(store)

    found: list[Decision] = []
    rest = list(events)
    while rest:
        size = chance.randint(1, 8)
        found += committer.apply(rest[:size])
        rest = rest[size:]
        if chance.random() < 0.2:
            committer = DirectCommitter(store)

    assert [_told(decision) for decision in found] == [_told(decision) for decision in expected]
    assert _files(database) == sorted(
        (
            row["path"],
            row["dv_id"],
            row["size"],
            row["base_row_id"],
            row["tags"],
            row["extra"],
            row["min1"],
            row["max1"],
        )
        for row in lake.rows["dl_live_files"]
    )


def _store(database: Database) -> SqlCommitStore:
    store = SqlCommitStore(database)
    store.init_lake(
        lake_id=LAKE_ID,
        root=ROOT,
        log_address="sqlite:///log.db",
        stream_identity="stream-1",
        position=0,
        fence=True,
        created_ms=START_MS,
    )
    return store


def _files(database: Database) -> list[tuple[object, ...]]:
    rows = database.query("SELECT path, dv_id, size, base_row_id, tags, extra, min1, max1 FROM dl_live_files")
    return sorted(map(tuple, rows))


def _told(decision: Decision) -> tuple[object, ...]:
    """What a decision says, but for objects that live on."""
    outcome = getattr(decision, "outcome", None)
    changes: list[object] = [
        (c.version, c.adds, c.removes, c.txns, c.domains, c.live_files, c.live_bytes, c.widths, c.superseded)
        for c in getattr(decision, "changes", ())
    ]
    if isinstance(decision, Imported):
        chunk = decision.chunk
        changes = [(chunk.before, chunk.after, chunk.actions, chunk.files)]
        outcome = None if decision.decided is None else decision.decided.outcome
    return (type(decision).__name__, outcome, changes)
