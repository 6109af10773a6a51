"""Deaths of a committer are counted by what was noted before them; what came of it is the same in every store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from deltalakedb import failpoints
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.database.schema import migrate
from deltalakedb.errors import TxnLogDatabaseError, TxnLogHaltedError
from deltalakedb.eventlog import EventLog, Record, Stream
from deltalakedb.events import SetRules, StagedTransaction
from deltalakedb_committer import attempting as attempting_module
from deltalakedb_committer import rehearsal
from deltalakedb_committer.attempting import Attempting
from deltalakedb_committer.deciding.isolation import DEATHS, Attempts, Begun, IsolatedEvent
from deltalakedb_committer.deciding.state import Lake
from deltalakedb_committer.replay import replay
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.digests import digests
from deltalakedb_committer.storing.isolated import attempts
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.direct import LAKE_ID, ROOT
from tests.logged import commit_all, log, made, publish
from tests.model_lake import control, staged
from tests.stores import address, database
from tests.works import append, relaxed

__all__ = ["address", "database", "log"]

CLOCK = 4_000_000_000.0
"""A clock that stands still, ahead of the log's."""


class Death(Exception):
    """Not one of ours: the committer it happens to is gone."""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


def dies(place: str, over: StagedTransaction, error: Exception) -> None:
    """Have the committer's step fail where it is at work on that transaction."""

    def raise_it() -> None:
        raise error

    def is_over(found: object) -> bool:
        if isinstance(found, Record):
            return over.envelope.txn_id.encode() in found.value
        return found is not None and getattr(found, "envelope", None) == over.envelope

    failpoints.arm(place, raise_it, over=is_over)


def step_until_decided(store: SqlCommitStore, log: EventLog, known: Attempting | None = None) -> int:
    """How many committers died until all was decided."""
    deaths = 0
    while deaths < 20:
        committer = Committer(store, log, holder="test", attempting=known, clock=lambda: CLOCK)
        try:
            while committer.step(100, 0.0):
                pass
        except (Death, TxnLogDatabaseError):
            deaths += 1
            committer.__exit__(Death, None, None)
        else:
            committer.__exit__(None, None, None)
            return deaths
    return deaths


def test_what_is_isolated_is_part_of_history(database: Database, log: EventLog, tmp_path: Path) -> None:
    """In a lake that folds: what was isolated, and what was decided by itself beside it. The log and those rows give the
    same lake again; without them, the log gives another one. An older store has them told, and nobody dies again."""
    killer = staged(append("killer"))
    events = [staged(append(f"f{n}")) for n in range(6)]
    publish(log, control(SetRules(rule_set=7)), staged(relaxed()))
    publish(log, *events[:3], killer, *events[3:], staged(relaxed("later")))
    store = made(database, log)
    with Committer(store, log, holder="test", clock=lambda: CLOCK) as committer:
        committer.step(1, 0.0)
        committer.step(1, 0.0)
    dies("committer.deciding", killer, Death())

    assert step_until_decided(store, log) == 2 * DEATHS

    isolated = store.isolated_events()
    assert [row.position for row in isolated.values() if row.rejected] == [5]
    assert sorted(isolated) == list(range(2, 2 + len(isolated)))
    with closing(_other(tmp_path, "again")) as again:
        assert [table for table in replay(database, log, again).tables if not table.equal] == []
    with closing(_other(tmp_path, "older")) as older:
        migrate(older)
        assert step_until_decided(made(older, log), log) == 0
        with database.snapshot(), older.snapshot():
            assert digests(older) == digests(database)
    database.execute("DELETE FROM dl_isolated_events")
    with closing(_other(tmp_path, "without")) as without:
        failpoints.disarm()
        assert not replay(database, log, without).equal


def test_what_the_store_refuses_is_isolated(
    address: StoreAddress, database: Database, log: EventLog, tmp_path: Path
) -> None:
    """By a constraint that nobody foresaw, also where the event is alone: those before, beside and after it are committed,
    and the log gives the same rows again in a store that has no such constraint."""
    publish(log, staged(relaxed("left"), relaxed("right")))
    store = made(database, log)
    assert step_until_decided(store, log) == 0
    database.execute("CREATE UNIQUE INDEX unforeseen ON dl_live_files (path)")
    bad = staged(append("f0", name="right"))
    publish(log, *(staged(append(f"f{n}", name="left")) for n in range(3)), bad, staged(append("f3", name="right")))

    refused = 0
    while store.cursor().position < log.end(Stream.STAGED):
        with closing(open_database(address)) as own:  # what an error has left of a connection is of no more use
            try:
                commit_all(SqlCommitStore(own), log, 100)
            except TxnLogDatabaseError:
                refused += 1
        assert refused < 20

    assert refused == 2 * DEATHS
    (row,) = [row for row in store.isolated_events().values() if row.rejected]
    assert (row.position, row.attempts) == (4, DEATHS)
    assert "the store refused" in row.reason
    assert database.query("SELECT path FROM dl_live_files ORDER BY path") == [(f"f{n}",) for n in range(4)]
    with closing(_other(tmp_path, "again")) as again:
        assert replay(database, log, again).equal


def _other(folder: Path, name: str) -> Database:
    return open_database(StoreAddress(engine="sqlite", path=str(folder / f"{name}.db")), create=True)


def test_another_record_than_was_isolated_is_noticed(log: EventLog, database: Database, tmp_path: Path) -> None:
    """A replay halts, rather than pass over an event that harmed nobody."""
    publish(log, staged(relaxed()))
    store = made(database, log)
    step_until_decided(store, log)
    row = IsolatedEvent(0, b"h" * 32, size=1, rejected=True, attempts=3, reason="", time_ms=0)
    database.insert("dl_isolated_events", IsolatedEvent._fields, [row])
    with (
        closing(open_database(StoreAddress(engine="sqlite", path=str(tmp_path / "other.db")), create=True)) as other,
        pytest.raises(TxnLogHaltedError, match="LOG_DIVERGED"),
    ):
        replay(database, log, other)


@pytest.mark.parametrize("place", ["committer.decoding", "committer.deciding"])
def test_errors_of_ours_are_no_deaths(log: EventLog, database: Database, place: str) -> None:
    """However often a store or log fails while an event is in work, the event is not to blame."""
    publish(log, staged(relaxed()))
    store = made(database, log)
    step_until_decided(store, log)
    unlucky = staged(append("unlucky"))
    publish(log, unlucky)
    dies(place, unlucky, TxnLogDatabaseError("gone", transient=True))

    assert step_until_decided(store, log) == 20

    assert attempts(database, LAKE_ID).begun == 0
    failpoints.disarm()
    assert step_until_decided(store, log) == 0
    assert store.isolated_events() == {}


def test_what_could_not_be_taken_back_is_later(log: EventLog, database: Database) -> None:
    """The store was out of reach when the step failed: the same process remembers."""
    store = made(database, log)
    cursor = store.take_over("test")
    known, broken = Attempting(), _Unreachable()
    batch = Begun(cursor.position, 7)
    for _ in range(5):
        assert known.begin(store, cursor, batch).begun == 0
        known.failed(broken, cursor, TxnLogDatabaseError("gone"))  # type: ignore[arg-type]

    assert attempts(database, LAKE_ID) == Attempts(position=cursor.position, begun=1, read_until=7)
    known.ended(store, cursor, moved=False)
    assert attempts(database, LAKE_ID).begun == 0


@dataclass
class _Unreachable:
    """A store whose server is gone."""

    def note(self, *_: object) -> Attempts:
        raise TxnLogDatabaseError("gone")


def test_a_death_is_charged_to_one_lake(log: EventLog, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several in a process only one at a time has noted something; another one waits, or goes on unnoted."""
    monkeypatch.setattr(attempting_module, "TURN_SECONDS", 0.01)
    store = made(database, log)
    cursor = store.take_over("test")
    turn = threading.Lock()
    one, two = Attempting(turn), Attempting(turn)
    one.begin(store, cursor, Begun(cursor.position, 1))

    two.begin(store, cursor, Begun(cursor.position, 1))
    assert attempts(database, LAKE_ID).begun == 1

    one.ended(store, cursor, moved=True)
    two.begin(store, cursor, Begun(cursor.position, 1))
    assert attempts(database, LAKE_ID).begun == 2
    two.failed(store, cursor, Death())
    assert attempts(database, LAKE_ID).begun == 2
    assert not turn.locked()


def test_idle_leaders_note_nothing(log: EventLog, database: Database) -> None:
    """A takeover with nothing to read is no attempt, nor is what comes once the position has moved."""
    store = made(database, log)
    for _ in range(5):
        Committer(store, log, holder="test").step(10, 0.0)
    assert database.query("SELECT * FROM dl_committer_attempts") == []
    publish(log, staged(relaxed()))
    committer = Committer(store, log, holder="test")
    committer.step(10, 0.0)
    noted = attempts(database, LAKE_ID)
    publish(log, staged(append("a")))
    committer.step(10, 0.0)

    assert noted == attempts(database, LAKE_ID) == Attempts(position=0, begun=1, read_until=1)
    assert log.end(Stream.STAGED) == store.cursor().position


CHILD = """
import os, signal, sys
from deltalakedb import failpoints
from deltalakedb_committer import rehearsal

def harm():
    if sys.argv[1] == "memory":
        bytearray(3 * 1024**3)
    elif sys.argv[1] == "time":
        while True:
            pass
    elif sys.argv[1] == "exit":
        raise LookupError("nobody expected this")
    else:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))

rehearsal.CPU_SECONDS = 1
failpoints.arm("committer.decoding", harm, over=lambda record: b"harm" in record.value)
rehearsal.main()
"""


@pytest.mark.parametrize(
    ("what", "ending"),
    [
        ("memory", "ran out of 1024 MiB of memory"),
        ("time", "ran out of 20 s of processor time"),
        ("exit", "ended with exit code 1"),
        ("SIGSEGV", "ended with signal 11"),
        ("SIGKILL", None),
    ],
)
def test_a_child_tells_what_an_event_does(monkeypatch: pytest.MonkeyPatch, what: str, ending: str | None) -> None:
    """It has so much memory and processor time, and what ends it is not let near the lake; but what the system or an
    operator ends says nothing of the event. The next event has a new child."""
    monkeypatch.setattr(rehearsal, "COMMAND", (sys.executable, "-c", CHILD, what))
    trial = rehearsal.Rehearsal(Lake(lake_id=LAKE_ID, root=ROOT, fence=True))
    fine, harmful = (Record(0, n, 0, value, ()) for n, value in enumerate((b"fine", b"harm")))
    try:
        assert trial.death_of(fine, 1) is None
        assert trial.death_of(harmful, 1) == ending
        assert trial.death_of(fine, 1) is None
    finally:
        trial.close()


def test_without_a_child_events_are_decided_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started, that is said, and no event is to blame."""
    for command in (("/nothing/there",), (sys.executable, "-c", "raise SystemExit(3)")):
        monkeypatch.setattr(rehearsal, "COMMAND", command)
        trial = rehearsal.Rehearsal(Lake(lake_id=LAKE_ID, root=ROOT, fence=True))

        assert trial.death_of(Record(0, 0, 0, b"", ()), 1) is None


def test_a_child_whose_committer_is_gone_ends_in_silence() -> None:
    """A killed committer leaves no error of another process in its output."""
    nobody, output = os.pipe()
    os.close(nobody)
    with open(output, "wb") as told:
        done = subprocess.run(
            rehearsal.COMMAND, stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.PIPE, check=False
        )

    assert (done.returncode, done.stderr) == (0, b"")
