"""A replay decides the log again and finds what the store holds, on every engine; and it finds what does not belong."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

import deltalakedb
import deltalakedb_migrations
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogConfigError, TxnLogHaltedError
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb_committer.replay import Replayed, replay
from deltalakedb_committer.storing.digests import COMPARED, LEFT_OUT
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.history import Historian
from tests.logged import commit_all, log, made, publish
from tests.model_lake import ModelLake
from tests.stores import address, database

__all__ = ["address", "database", "log"]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Database]:
    """A store to replay into, of another engine than most."""
    database = open_database(StoreAddress(engine="sqlite", path=str(tmp_path / "replayed.db")), create=True)
    yield database
    database.close()


def publish_history(log: EventLog, seed: int, count: int = 40) -> None:
    """Append a random history, junk included."""
    historian = Historian(ModelLake(), random.Random(seed))
    sent = 0
    while sent < count:
        for event in historian.events():
            publish(log, event)
            historian._lake.decide(event)
            sent += 1
    log.append(Stream.STAGED, [Message(b"junk")]).result()


def different(found: Replayed) -> list[str]:
    return [table.name for table in found.tables if not table.equal]


def test_the_log_gives_the_same_rows_again(database: Database, other: Database, log: EventLog) -> None:
    """Every row of every table, whatever the batches were; into an empty store, and from where a store stands on."""
    publish_history(log, 1)
    store = made(database, log)
    commit_all(store, log, 7)
    first = replay(database, log, other)
    publish_history(log, 2)
    commit_all(store, log, 3)
    told = log.end(Stream.COMMITS), log.end(Stream.OUTCOMES)

    second = replay(database, log, other)

    assert different(first) == different(second) == []
    assert first.equal
    assert (first.records, second.position) == (first.position, first.position + second.records)
    counts = {table.name: table.rows for table in second.tables}
    assert min(counts["dl_transactions"], counts["dl_live_files"], counts["dl_past_files"], counts["dl_commits"]) > 0
    # Nobody is told anything by a replay, and the lake's own store is left as it was.
    assert store.cursor().epoch == 2
    assert (log.end(Stream.COMMITS), log.end(Stream.OUTCOMES)) == told


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE dl_live_files SET size = size + 1 WHERE n = 0", ["dl_live_files"]),
        ("DELETE FROM dl_transactions WHERE committed = (1 = 0)", ["dl_transactions"]),
        ("UPDATE dl_table_heads SET live_bytes = 0", ["dl_table_heads"]),
    ],
)
def test_what_the_log_does_not_say_is_found(
    database: Database, other: Database, log: EventLog, change: str, where: list[str]
) -> None:
    """A row that somebody changed, took away or added is in one of the tables that are told."""
    publish_history(log, 3)
    commit_all(made(database, log), log, 50)
    database.execute(change)

    found = replay(database, log, other)

    assert different(found) == where
    assert not found.equal


def test_only_the_lakes_own_log_and_an_older_store_will_do(
    database: Database, other: Database, log: EventLog, tmp_path: Path
) -> None:
    """Another log, another lake's store and a store that is ahead are refused by name, before anything is written."""
    publish_history(log, 4)
    store = made(database, log)
    commit_all(store, log, 50)
    replay(database, log, other)
    with closing(open_event_log(f"sqlite://{tmp_path / 'another.db'}")) as another:
        another.create()
        with pytest.raises(TxnLogHaltedError, match="LOG_RECREATED"):
            replay(database, another, other)
    publish_history(log, 5)
    commit_all(SqlCommitStore(other), log, 50)
    with pytest.raises(TxnLogConfigError, match="older backup"):
        replay(database, log, other)


def test_every_table_is_compared_or_left_out_on_purpose() -> None:
    """A table that a migration adds has to be put into one of the two."""
    text = deltalakedb_migrations.migrations("postgres")[0].text
    tables = set(re.findall(r"CREATE TABLE (\w+)", text)) | {"dl_migrations"}

    assert tables == COMPARED.keys() | LEFT_OUT
    assert not COMPARED.keys() & LEFT_OUT


def test_the_verb(tmp_path: Path) -> None:
    """`deltalakedb replay` tells table by table, and by its exit code: 0 equal, 2 different, 1 when it cannot be done."""
    directory = tmp_path / "lake"
    with deltalakedb.connect(directory) as lake:
        for n in range(3):
            lake.append("orders", pa.table({"id": [n]}))

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deltalakedb", "replay", "--store", str(directory), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    as_text, as_json = run(), run("--output", "json")
    onto_itself = run("--into", f"deltasql://sqlite/{directory / 'lake.db'}")
    with closing(open_database(StoreAddress(engine="sqlite", path=str(directory / "lake.db")))) as store:
        store.execute("UPDATE dl_commits SET time_ms = time_ms + 1")
    changed = run("--output", "json")

    assert as_text.returncode == 0, as_text.stderr
    assert "every row is the same" in as_text.stdout
    assert json.loads(as_json.stdout)["equal"] is True
    assert onto_itself.returncode == 1
    assert "the lake's own store" in onto_itself.stderr
    assert changed.returncode == 2
    assert [table["name"] for table in json.loads(changed.stdout)["tables"] if not table["equal"]] == ["dl_commits"]
