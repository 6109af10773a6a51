"""Folds in the log and in every store: whole or not at all, whoever decides them and however they are read."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogFencedError
from deltalakedb.eventlog import EventLog, LogReader, Message, Record, Stream
from deltalakedb.events import SetRules, Tick
from deltalakedb.ids import digest
from deltalakedb_committer.deciding import assembly
from deltalakedb_committer.deciding.needs import StagedEvent
from deltalakedb_committer.replay import replay
from deltalakedb_committer.step import Committer
from tests.history import Historian
from tests.logged import commit_all, log, made, publish
from tests.model_lake import ModelLake, control, staged
from tests.stores import ENGINES, address, database, migrated
from tests.works import append, relaxed

__all__ = ["address", "database", "log"]

WIDE = 7
"""The rule set with a window of 200 ms."""
WINDOWS = (1, 3, 5, WIDE)
"""Rule sets from without a window to the widest."""


def some(historian: Historian) -> list[StagedEvent]:
    """The next few events of a history, as if nobody shared a commit."""
    found: list[StagedEvent] = []
    for _ in range(8):
        events = historian.events()
        historian._lake.run(events)
        found += events
    return found


def sizes(database: Database) -> list[int]:
    """How many transactions each commit has."""
    return [len(json.loads(ids)) for (ids,) in database.query("SELECT txn_ids FROM dl_commits ORDER BY commit_seq")]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_replay_finds_the_same_folds(database: Database, log: EventLog, tmp_path: Path, seed: int) -> None:
    """Whatever the batches were and whenever the log was idle, also from the middle of the log on."""
    chance = random.Random(seed)
    historian = Historian(ModelLake(), chance, folds=True)
    publish(log, control(SetRules(rule_set=WIDE)))
    store = made(database, log)
    with closing(open_database(StoreAddress(engine="sqlite", path=str(tmp_path / "again.db")), create=True)) as again:
        found = []
        for _ in range(3):
            publish(log, *some(historian))
            commit_all(store, log, chance.randint(1, 9))
            found.append(replay(database, log, again))

    assert [one.equal for one in found] == [True] * 3
    assert store.cursor().position == log.end(Stream.STAGED)
    assert max(sizes(database)) > 2


@pytest.mark.parametrize("engine", ENGINES)
def test_the_verb_finds_the_same_folds_in_every_store(
    engine: str, log: EventLog, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Replayed by another process, into each kind of store, under windows that come and go: equal in every row."""
    chance = random.Random(engine)
    historian = Historian(ModelLake(), chance, folds=True)
    publish(log, staged(relaxed("z")))
    address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
    with closing(migrated(address)) as database:
        store = made(database, log)
        for n in range(10):
            together = [staged(append(f"{n}-{m}", name="z")) for m in range(3)]
            publish(log, control(SetRules(rule_set=chance.choice(WINDOWS))), *together, *some(historian))
            commit_all(store, log, chance.randint(1, 20))
        assert sizes(database).count(1) < len(sizes(database)) - 3

    if engine == "postgres":
        into = f"{request.getfixturevalue('postgres_url')}?schema=again"
    else:
        into = f"deltasql://{engine}/{tmp_path / 'again'}"
    command = [sys.executable, "-m", "deltalakedb", "replay", "--store", str(address), "--into", into]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_older_store_catches_up_fold_by_fold(log: EventLog, tmp_path: Path) -> None:
    """The commits that come out are those that were told, whatever the newest store's batches were."""
    publish(log, control(SetRules(rule_set=WIDE)), staged(relaxed()))
    for n in range(6):
        publish(log, *[staged(append(f"{n}-{m}")) for m in range(5)], control(Tick()))
    addresses = [StoreAddress(engine="sqlite", path=str(tmp_path / name)) for name in ("newest.db", "backup.db")]
    with closing(migrated(addresses[0])) as newest, closing(migrated(addresses[1])) as backup:
        told, older = made(newest, log), made(backup, log)
        commit_all(told, log, 3)
        silent: Any = _CutOff(log, 12, silent=True)
        commit_all(older, silent, 4)
        assert 0 < older.cursor().commit_seq < told.cursor().commit_seq

        commit_all(older, log, 4)

        assert older.cursor().commit_seq == told.cursor().commit_seq == 7
        assert replay(newest, log, backup).equal


def test_an_idle_log_gets_a_tick(database: Database, log: EventLog) -> None:
    """One step decides all there is: the end of a fold is on the log for every replay to see."""
    publish(log, control(SetRules(rule_set=WIDE)), staged(relaxed()), *[staged(append(str(n))) for n in range(3)])
    store = made(database, log)

    commit_all(store, log, 100)

    assert sizes(database) == [1, 3]
    assert (store.cursor().position, log.end(Stream.STAGED)) == (6, 6)


def test_an_idle_log_is_waited_for_as_long_as_the_window(database: Database, log: EventLog) -> None:
    """By a committer that serves others: what comes within the window is of the fold, and no tick is there before."""
    publish(log, control(SetRules(rule_set=WIDE)), staged(relaxed()), staged(append("a")))
    store = made(database, log)
    with Committer(store, log, holder="test", gather_seconds=0.001) as committer:
        while committer.cursor.position < 4:
            committer.step(100, 1.0)
    with closing(log.reader(Stream.STAGED, 2)) as reader:
        first, tick = reader.read(10, 1.0)

    assert sizes(database) == [1, 1]
    assert tick.time_ms - first.time_ms >= 200


def test_half_a_fold_is_never_written(database: Database, log: EventLog, tmp_path: Path) -> None:
    """Another committer takes over while the first has read a part: it begins where the fold does, and only it writes."""
    appends = [staged(append(str(n))) for n in range(4)]
    publish(log, control(SetRules(rule_set=WIDE)), staged(relaxed()), *appends, control(Tick()))
    store = made(database, log)
    cut_off: Any = _CutOff(log, 4)
    with Committer(store, cut_off, holder="first") as first:
        while first.step(100, 0.0):
            pass
        assert (first.cursor.position, sizes(database)) == (2, [1])
        cut_off.before = 100
        with Committer(store, log, holder="second") as second:
            second.step(100, 0.0)
        with pytest.raises(TxnLogFencedError):
            first.step(100, 0.0)

    assert sizes(database) == [1, 4]
    with closing(open_database(StoreAddress(engine="sqlite", path=str(tmp_path / "again.db")), create=True)) as again:
        assert replay(database, log, again).equal


def test_a_record_that_cannot_be_decided_is_set_aside_alone(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its fold share their commit as if it had been rejected."""
    poison = staged(append("b"))

    def failing(chunks: list[bytes]) -> bytes:
        if chunks == [poison.content_bytes]:
            raise ValueError("nobody thought of this")
        return digest(chunks)

    monkeypatch.setattr(assembly, "digest", failing)
    good = [staged(append(path)) for path in ("a", "c")]
    publish(log, control(SetRules(rule_set=WIDE)), staged(relaxed()), good[0], poison, good[1])

    commit_all(made(database, log), log, 100)

    assert sizes(database) == [1, 2]
    assert log.end(Stream.DEAD_LETTER) == 1
    assert database.query("SELECT txn_id, position FROM dl_transactions WHERE committed = (1 = 0)") == [
        ("position-3", 3)
    ]
    live = database.query("SELECT path FROM dl_live_files WHERE path IN ('a', 'b', 'c') ORDER BY path")
    assert live == [("a",), ("c",)]


@pytest.mark.parametrize(("rule_set", "waits"), [(1, True), (WIDE, False)])
def test_commits_do_not_run_ahead_of_the_clock(log: EventLog, tmp_path: Path, rule_set: int, waits: bool) -> None:
    """Versions of a table are a millisecond apart, whenever they came: what would lie more than a second ahead waits.
    Where appends share versions, as many take no time at all."""
    publish(
        log, control(SetRules(rule_set=rule_set)), staged(relaxed()), *[staged(append(str(n))) for n in range(1500)]
    )
    with closing(migrated(StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db")))) as database:
        store = made(database, log)
        with closing(log.reader(Stream.STAGED, 1501)) as reader:
            (last,) = reader.read(1, 1.0)
        clock, waited = _Clock(last.time_ms / 1000), list[float]()

        def wait(seconds: float) -> None:
            waited.append(seconds)
            clock.now += seconds

        with Committer(store, log, holder="test", clock=clock, wait=wait) as committer:
            while committer.step(2_000, 0.0):
                cursor = committer.cursor
                assert cursor.time_ms <= clock.now * 1000 + 1_001
        times = [time_ms for (time_ms,) in database.query("SELECT time_ms FROM dl_commits ORDER BY commit_seq")]

    assert bool(waited) == waits
    assert times == sorted(set(times))


class _Clock:
    """Stands still unless somebody waits."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class _CutOff:
    """The log for a committer that reads only what lies before a position, and whose ticks get lost."""

    def __init__(self, log: EventLog, before: int, *, silent: bool = False) -> None:
        """With `silent` nobody hears what it tells either."""
        self._log = log
        self._silent = silent
        self.before = before

    def append(self, stream: Stream, messages: Sequence[Message]) -> Future[list[int]]:
        if stream is not Stream.STAGED and not self._silent:
            return self._log.append(stream, messages)
        lost: Future[list[int]] = Future()
        if stream is not Stream.STAGED:
            lost.set_result([])
        return lost

    def reader(self, stream: Stream, position: int) -> _CutOffReader:
        return _CutOffReader(self, self._log.reader(stream, position), position)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class _CutOffReader:
    def __init__(self, log: _CutOff, reader: LogReader, position: int) -> None:
        self._log = log
        self._reader = reader
        self._position = position

    def read(self, limit: int, timeout: float) -> list[Record]:
        left = min(limit, self._log.before - self._position)
        records = self._reader.read(left, timeout) if left > 0 else []
        self._position += len(records)
        return records

    def close(self) -> None:
        self._reader.close()
