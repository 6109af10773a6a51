"""A store that is older than what was told: it catches up from the log, and only to the very same history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deltalakedb.codec import encode_chunk, encode_told
from deltalakedb.database import Database, StoreAddress
from deltalakedb.errors import TxnLogHaltedError
from deltalakedb.eventlog import Done, EventLog, Message, Stream, open_event_log
from deltalakedb.events import Commit, TableWork
from deltalakedb_committer.catching_up import ToldCommits
from deltalakedb_committer.replay import replay
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.logged import made
from tests.model_lake import LAKE_ID, START_MS, staged
from tests.stores import migrated
from tests.works import append, relaxed

TOLD = 40


@pytest.fixture(params=["sqlite", "kafka"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    if request.param == "sqlite":
        address = f"sqlite://{tmp_path / 'log.db'}"
    else:
        bootstrap, prefix = (request.getfixturevalue(name) for name in ("kafka_bootstrap", "kafka_prefix"))
        address = f"kafka://{bootstrap}/{prefix}"
    log = open_event_log(address)
    log.create()
    yield log
    log.close()


def store_at(folder: Path, name: str, log: EventLog) -> tuple[Database, SqlCommitStore]:
    database = migrated(StoreAddress(engine="sqlite", path=str(folder / f"{name}.db")))
    return database, made(database, log)


def publish(log: EventLog, *works: TableWork) -> None:
    for work in works:
        event = staged(work)
        log.append(Stream.STAGED, [Message(encode_chunk(event.envelope, event.content_bytes))]).result()


def decide(store: SqlCommitStore, log: EventLog, count: int, *, limit: int = 7) -> None:
    with Committer(store, log, holder="test") as committer:
        while count > 0:
            count -= committer.step(min(limit, count), 10.0)


@pytest.mark.parametrize("behind", [1, 20, TOLD])
def test_an_older_store_catches_up(log: EventLog, tmp_path: Path, behind: int) -> None:
    """However far it is behind, it ends with the very rows of the newest, and goes on from there."""
    publish(log, relaxed(), *(append(f"f{n}") for n in range(TOLD - 1)))
    newest, store = store_at(tmp_path, "newest", log)
    older, backup = store_at(tmp_path, "backup", log)
    # What is told twice, as after any crash, is no difference.
    decide(store, log, 10)
    decide(store, log, TOLD - 10)
    if behind < TOLD:
        decide(backup, silent(log), TOLD - behind)

    with Committer(backup, log, holder="test") as committer:
        before = committer.is_catching_up
        while committer.cursor.commit_seq < TOLD:
            committer.step(7, 10.0)
        after = committer.is_catching_up

    assert (before, after) == (True, False)
    assert backup.cursor().commit_seq == TOLD
    publish(log, append("later"))
    decide(backup, log, 1)
    decide(store, log, 1)
    assert replay(newest, log, older).equal
    assert ToldCommits.after(log, TOLD + 1) is None


def test_another_history_is_never_written(log: EventLog, tmp_path: Path) -> None:
    """A backup with other rows than the log gives would decide otherwise: it halts before anything of it is there."""
    publish(log, relaxed(), append("a"), append("b"), append("c"), append("d"))
    _, store = store_at(tmp_path, "newest", log)
    changed, backup = store_at(tmp_path, "backup", log)
    decide(store, log, 5)
    decide(backup, silent(log), 2)
    changed.execute("UPDATE dl_table_heads SET version = version + 1")
    before = backup.cursor()

    with pytest.raises(TxnLogHaltedError, match=r"HISTORY_DIVERGED.*another content"):
        decide(backup, log, 3)

    assert (backup.cursor().position, backup.cursor().commit_seq) == (before.position, before.commit_seq)
    assert changed.query("SELECT count(*) FROM dl_commits") == [(2,)]


def test_a_commit_that_was_never_told_is_told_apart(log: EventLog, tmp_path: Path) -> None:
    """Where the stream of commits lacks one in the middle, somebody has taken it away."""
    publish(log, relaxed(), append("a"), append("b"))
    _, store = store_at(tmp_path, "lake", log)
    third = Commit(lake_id=LAKE_ID, commit_seq=3, position=2, time_ms=START_MS, txn_ids=(), tables=())
    (record,) = encode_told([third])
    log.append(Stream.COMMITS, [Message(record)]).result()

    with pytest.raises(TxnLogHaltedError, match=r"HISTORY_DIVERGED.*never told"):
        decide(store, log, 3)


def silent(log: EventLog) -> EventLog:
    found: Any = SilentLog(log)
    told: EventLog = found
    return told


class SilentLog:
    """The log for a committer of which nobody heard: what it tells goes nowhere."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def send(self, stream: Stream, messages: Sequence[Message], done: Done) -> None:
        done([])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)
