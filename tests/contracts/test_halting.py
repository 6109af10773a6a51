"""A committer that must not go on says which state it is in, and has decided and written nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from deltalakedb.database import Database, StoreAddress
from deltalakedb.errors import TxnLogHaltedError
from deltalakedb.eventlog import EventLog, open_event_log
from deltalakedb_committer.step import Committer
from tests.logged import commit_all, log, made, publish
from tests.model_lake import staged
from tests.stores import migrated
from tests.works import append, relaxed

__all__ = ["log"]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(migrated(StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db")))) as database:
        yield database


@pytest.mark.parametrize(
    ("harm", "state"),
    [
        ("UPDATE log SET identity = 'another'", "LOG_RECREATED"),
        ('DELETE FROM "staged/0" WHERE position = 2', "LOG_TRUNCATED"),
        ('DELETE FROM "staged/0" WHERE position <= 2', "LOG_TRUNCATED"),
        ("""UPDATE "staged/0" SET value = zeroblob(3) WHERE position = 2""", "LOG_DIVERGED"),
    ],
)
def test_only_the_log_that_was_decided_is_decided_on(
    log: EventLog, database: Database, tmp_path: Path, harm: str, state: str
) -> None:
    """Made again, without its end or its beginning, or with another record where it was left: halted at the takeover, and
    whoever comes next need not wait."""
    publish(log, staged(relaxed()), staged(append("a")), staged(append("b")))
    store = made(database, log)
    commit_all(store, log, 10)
    before = store.cursor()
    publish(log, staged(append("c")))
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as connection:
        connection.execute(harm)

    with closing(open_event_log(log.address)) as found, pytest.raises(TxnLogHaltedError) as halted:
        Committer(store, found, holder="test")

    assert halted.value.state == state
    assert store.cursor() == replace(before, epoch=before.epoch + 1)
    assert store.observe().released


def test_a_clock_that_is_far_behind_halts(log: EventLog, database: Database) -> None:
    """By an hour and a minute: nothing is decided. By less, or once it is right, all is."""
    publish(log, staged(relaxed()), staged(append("a")))
    store = made(database, log)

    with (
        Committer(store, log, holder="test", clock=lambda: time.time() - 3_660) as late,
        pytest.raises(TxnLogHaltedError, match=r"set the clocks .* right") as halted,
    ):
        late.step(10, 1.0)
    undecided = store.cursor().position
    waited: list[float] = []
    with Committer(store, log, holder="test", clock=lambda: time.time() - 3_540, wait=waited.append) as committer:
        assert committer.step(10, 1.0) == 2

    assert (halted.value.state, undecided) == ("CLOCK_AHEAD", 0)
    assert waited, "commits do not run ahead of the clock"


def test_a_lake_that_somebody_deletes_while_it_is_made_halts(log: EventLog, database: Database) -> None:
    """Nobody is told that there is one."""
    tables = ("dl_mirror_targets", "dl_committer_heartbeat", "dl_committer_position", "dl_lake")
    deletes = "; ".join(f"DELETE FROM {table}" for table in tables)
    database.execute(f"CREATE TRIGGER other AFTER INSERT ON dl_mirror_targets BEGIN {deletes}; END")

    with pytest.raises(TxnLogHaltedError) as halted:
        made(database, log)

    assert halted.value.state == "LAKE_MISSING"
