"""Big transactions on Postgres are prepared beside the batches of others, and nobody can tell but by how long it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest

from deltalakedb import failpoints
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import Reason, TxnLogDatabaseError, TxnLogFencedError
from deltalakedb.eventlog import EventLog, Record, open_event_log
from deltalakedb.events import Content, StagedTransaction, TableWork
from deltalakedb_committer import placing
from deltalakedb_committer.deciding.isolation import DEATHS
from deltalakedb_committer.placing import WHOLE_TRIES
from deltalakedb_committer.replay import replay
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.aside import Aside
from deltalakedb_committer.storing.rows import Batch
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.contracts.test_big_transactions import hold_whole
from tests.logged import made, publish
from tests.model_lake import LAKE_ID, cancel, chunked, staged, txn
from tests.stores import migrated, postgres_address
from tests.works import ZERO, append, relaxed, remove

TABLES = ("a", "b", "c")
BIG = txn(77)
PATIENCE = 120.0


@dataclass
class Lake:
    """A lake on Postgres with its log in a file, and who leads it."""

    address: StoreAddress
    log: EventLog
    folder: Path
    stack: ExitStack
    batches: list[tuple[Sequence[Record], list[int]]] = field(default_factory=list)
    """Of each batch that placed rows at its decision the tables that it did so for."""

    def connection(self) -> Database:
        return self.stack.enter_context(closing(open_database(self.address)))

    def leader(self) -> Committer:
        store = SqlCommitStore(self.connection())
        aside = Aside(lambda: open_database(self.address), LAKE_ID)
        self.stack.callback(aside.close)
        return Committer(store, self.log, holder="test", aside=aside, on_batch=self._note)

    def _note(self, records: Sequence[Record], batch: Batch, seconds: float) -> None:
        if batch.inserts["dl_commits"] and any(row[0] == BIG for row in batch.inserts["dl_transactions"]):
            self.batches.append((records, [one.table_no for one in batch.placed]))

    def decided(self, txn_id: str) -> bool:
        return bool(self.query("SELECT 1 FROM dl_transactions WHERE txn_id = ?", txn_id))

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        with closing(open_database(self.address)) as database:
            return database.query(statement, parameters)

    def files(self, table: str) -> int:
        ((count,),) = self.query(
            "SELECT count(*) FROM dl_live_files JOIN dl_tables USING (table_no) WHERE name = ?", table
        )
        return int(str(count))

    def settle(self, leader: Committer) -> None:
        """Have everything decided and cleared away, and hold it against the log."""
        go_on(leader, lambda: self.decided(BIG))
        go_on(leader, lambda: not self.query("SELECT 1 FROM dl_staged_chunks UNION ALL SELECT 1 FROM dl_staged_files"))
        again = migrated(StoreAddress(engine="sqlite", path=str(self.folder / "again.db")))
        with closing(again):
            found = replay(self.connection(), self.log, again)
        assert [table.name for table in found.tables if not table.equal] == []


@pytest.fixture
def lake(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """With three tables; a transaction in more than one chunk is big."""
    hold_whole(monkeypatch, 1)
    address = postgres_address(postgres_url)
    with ExitStack() as stack:
        stack.callback(failpoints.disarm)
        log = stack.enter_context(closing(open_event_log(f"sqlite://{tmp_path / 'log.db'}")))
        log.create()
        made(stack.enter_context(closing(migrated(address))), log)
        publish(log, staged(*(relaxed(name) for name in TABLES)))
        yield Lake(address, log, tmp_path, stack)


def go_on(leader: Committer, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline
        leader.step(100, 0.02)


def big(*contents: TableWork) -> list[StagedTransaction]:
    return chunked([Content(tables=(work,)) for work in contents], txn_id=BIG)


def appends() -> list[StagedTransaction]:
    """Four files for every table, in two chunks each."""
    return big(*(append(f"{name}{n}", f"{name}{n + 2}", name=name) for n in range(2) for name in TABLES))


def at(place: str, *acts: Callable[[], object]) -> list[int]:
    """Have each of `acts` done when that place is reached once more; grows each time."""
    times: list[int] = []

    def act() -> None:
        times.append(len(times))
        if len(times) <= len(acts):
            acts[len(times) - 1]()

    failpoints.arm(place, act)
    return times


def test_others_commit_while_rows_are_placed(lake: Lake) -> None:
    """They wait for nothing, nobody sees a row before the decision, and all of them come with it, in its transaction."""
    reached, free = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        free.wait(PATIENCE)

    at("committer.placed", hold)
    leader = lake.leader()
    publish(lake.log, *appends())
    go_on(leader, reached.is_set)

    other = staged(relaxed("other"))
    publish(lake.log, other)
    go_on(leader, lambda: lake.decided(other.envelope.txn_id))
    before = [lake.decided(BIG), *map(lake.files, TABLES)]
    free.set()
    lake.settle(leader)

    assert before == [False, 0, 0, 0]
    assert [lake.files(name) for name in TABLES] == [4, 4, 4]
    assert [left for _, left in lake.batches] == [[]], "nothing was left for the decision"
    writers = lake.query(
        "SELECT xmin::text FROM dl_live_files WHERE version > 0 UNION SELECT xmin::text FROM dl_transactions WHERE txn_id = ?",
        BIG,
    )
    assert len(writers) == 1


def test_who_changes_one_of_its_tables_comes_first(lake: Lake) -> None:
    """What was placed is undone before anybody could wait for it, and placed again behind the other's version."""
    placed = at("committer.placed", lambda: publish(lake.log, staged(append("x", name="b"))))
    leader = lake.leader()
    publish(lake.log, *appends())

    lake.settle(leader)

    assert [lake.files(name) for name in TABLES] == [4, 5, 4]
    assert len(placed) == 2
    assert [left for _, left in lake.batches] == [[]]


def test_a_table_that_never_rests_is_left_for_the_decision(lake: Lake) -> None:
    """The others are placed before."""
    busy = [lambda n=n: publish(lake.log, staged(append(f"x{n}", name="b"))) for n in range(WHOLE_TRIES)]
    placed = at("committer.placed", *busy)
    leader = lake.leader()
    publish(lake.log, *appends())

    lake.settle(leader)

    assert [lake.files(name) for name in TABLES] == [4, 4 + WHOLE_TRIES, 4]
    assert len(placed) == WHOLE_TRIES + 1
    ((table_no,),) = lake.query("SELECT table_no FROM dl_tables WHERE name = 'b'")
    assert [left for _, left in lake.batches] == [[table_no]]


def test_a_number_that_another_new_table_takes(lake: Lake) -> None:
    """A table that the transaction makes is numbered when it is decided, whatever was placed under another number."""
    at("committer.placed", lambda: publish(lake.log, staged(relaxed("faster"))))
    leader = lake.leader()
    files = [append(*paths, name="new", written_against=None) for paths in (["n1"], ["n2", "n3"])]
    publish(lake.log, *big(relaxed("new"), *files, append("a1", name="a")))

    lake.settle(leader)

    assert (lake.files("new"), lake.files("a")) == (3, 1)


def test_removes_are_left_for_the_decision(lake: Lake) -> None:
    """They carry its time. What only comes is placed before."""
    leader = lake.leader()
    publish(
        lake.log,
        staged(append("old1", "old2", name="a")),
        *big(remove("old1", name="a", written_against=ZERO), *(append("new", name=name) for name in TABLES)),
    )

    lake.settle(leader)

    assert [lake.files(name) for name in TABLES] == [2, 1, 1]
    ((table_no,),) = lake.query("SELECT table_no FROM dl_tables WHERE name = 'a'")
    assert [left for _, left in lake.batches] == [[table_no]]


def test_a_cancel_between_last_chunk_and_decision(lake: Lake) -> None:
    """It comes first in the log; nothing stays of what was placed."""
    at("committer.placed", lambda: publish(lake.log, cancel(BIG)))
    leader = lake.leader()
    publish(lake.log, *appends())

    lake.settle(leader)

    assert [lake.files(name) for name in TABLES] == [0, 0, 0]
    assert lake.query("SELECT committed FROM dl_transactions WHERE txn_id = ?", BIG) == [(False,)]


def test_a_cancel_while_rows_are_placed(lake: Lake) -> None:
    """It waits for no statement that is under way, nor does who writes to the same tables; what is staged goes."""
    slow = (
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'; "
        "CREATE TRIGGER slow BEFORE INSERT ON dl_live_files FOR EACH ROW WHEN (NEW.path = 'a0') EXECUTE FUNCTION wait()"
    )
    database = lake.connection()
    with database.transaction():
        database.script(slow)
    leader = lake.leader()
    publish(lake.log, *appends())
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    go_on(leader, lambda: bool(database.query(sleeping)))

    other = staged(*(append("x", name=name) for name in TABLES))
    publish(lake.log, cancel(BIG), other)
    began = time.monotonic()
    go_on(leader, lambda: lake.decided(other.envelope.txn_id))
    took = time.monotonic() - began
    lake.settle(leader)

    assert took < 45
    assert [lake.files(name) for name in TABLES] == [1, 1, 1]
    assert lake.query("SELECT committed FROM dl_transactions WHERE txn_id = ?", BIG) == [(False,)]


END_SESSION = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name LIKE 'deltalakedb aside%'"
)
FAILURES = {
    "transient": TxnLogDatabaseError("failed", transient=True),
    "not transient": TxnLogDatabaseError("failed"),
    "not ours": RuntimeError("failed"),
}


@pytest.mark.parametrize(
    ("place", "failure"),
    [*product(["committer.placing", "committer.placed"], FAILURES), ("committer.placing", "its session is ended")],
)
def test_placing_fails_once(lake: Lake, place: str, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: others go on, it is done again, and nothing is lost or there twice."""
    monkeypatch.setattr(placing, "PAUSE_SECONDS", 0.2)
    other = staged(append("x", name="other"))

    def fail() -> None:
        publish(lake.log, other)
        if failure in FAILURES:
            raise FAILURES[failure]
        lake.query(END_SESSION)

    publish(lake.log, staged(relaxed("other")), *appends())
    placed = at(place, fail)
    lake.settle(lake.leader())

    assert len(placed) == 2
    assert lake.decided(other.envelope.txn_id)
    assert [lake.files(name) for name in (*TABLES, "other")] == [4, 4, 4, 1]
    assert [left for _, left in lake.batches] == [[]]


def test_a_session_that_ended_idle_is_replaced(lake: Lake) -> None:
    """Between two things to do. The connection that is of no more use is closed before there is another one."""
    opened: list[Database] = []

    def open_() -> Database:
        opened.append(open_database(lake.address))
        return opened[-1]

    with closing(Aside(open_, LAKE_ID)) as aside:
        aside.find(BIG, []).result(60)
        lake.query(END_SESSION)
        aside.find(BIG, []).result(60)

        assert len(opened) == 2
        with pytest.raises(TxnLogDatabaseError, match="closed"):
            opened[0].query("SELECT 1")
        assert opened[1].query("SELECT 1") == [(1,)]


def test_what_is_placed_is_lost_before_the_decision(lake: Lake) -> None:
    """The batch of the decision fails as on any connection that broke, and the next leader decides as if nothing had been
    placed."""
    leader = lake.leader()
    publish(lake.log, *appends())
    at("committer.completed", lambda: lake.query(END_SESSION))
    with pytest.raises(TxnLogDatabaseError) as failed:
        go_on(leader, lambda: False)
    leader.__exit__(TxnLogDatabaseError, failed.value, None)

    lake.settle(lake.leader())

    assert failed.value.transient
    assert [lake.files(name) for name in TABLES] == [4, 4, 4]


@pytest.mark.parametrize("cancelled", [False, True])
def test_placing_fails_always(lake: Lake, cancelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its tries are used up it takes the slow way, if nobody cancels it then; nobody waits for it any more."""
    monkeypatch.setattr(placing, "PAUSE_SECONDS", 0.02)
    tries = 0

    def fail() -> None:
        nonlocal tries
        tries += 1
        if cancelled and tries == placing.TRIES:
            publish(lake.log, cancel(BIG))
        raise FAILURES["not transient"]

    failpoints.arm("committer.placing", fail)
    publish(lake.log, *appends())
    leader = lake.leader()
    lake.settle(leader)
    other = staged(*(append("x", name=name) for name in TABLES))
    publish(lake.log, other)
    go_on(leader, lambda: lake.decided(other.envelope.txn_id))

    assert tries == placing.TRIES
    assert [lake.files(name) for name in TABLES] == ([1, 1, 1] if cancelled else [5, 5, 5])
    assert [len(left) for _, left in lake.batches] == ([] if cancelled else [3])


def test_rows_that_the_store_refuses(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the batches and at the decision: the transaction is rejected as a whole, and those beside it are not."""
    monkeypatch.setattr(placing, "PAUSE_SECONDS", 0.02)
    database = lake.connection()
    database.execute("ALTER TABLE dl_live_files ADD CONSTRAINT unforeseen CHECK (path <> 'b1')")
    other = staged(append("x", name="b"))
    publish(lake.log, *appends(), other)
    refused: list[bool] = []
    while not lake.decided(BIG):
        leader = lake.leader()
        try:
            go_on(leader, lambda: lake.decided(BIG))
        except TxnLogDatabaseError as error:
            leader.__exit__(type(error), error, None)
            refused.append(error.refuses_rows)
        assert len(refused) < 20
    lake.settle(leader)
    leader.__exit__(None, None, None)  # care may not be over, and has a process

    assert refused == [True] * (2 * DEATHS + 1)
    assert [lake.files(name) for name in TABLES] == [0, 1, 0]
    ((outcome,),) = lake.query("SELECT outcome FROM dl_transactions WHERE txn_id = ?", BIG)
    assert Reason.ISOLATED in str(outcome)


def test_a_rejection_takes_no_placing(lake: Lake) -> None:
    """The rehearsal shows it, the record on the log decides it."""
    placed = at("committer.placed")
    leader = lake.leader()
    publish(lake.log, *big(append("same", name="a"), append("same", name="a"), append("b", name="b")))

    lake.settle(leader)

    assert placed == []
    assert [lake.files(name) for name in TABLES] == [0, 0, 0]


def test_a_new_leader_waits_for_nothing_that_the_old_one_has_placed(lake: Lake) -> None:
    """Not though the old one stands still with its transaction open; coming back it is fenced, before it writes."""
    placed = at("committer.placed")
    old = lake.leader()
    publish(lake.log, *appends())
    go_on(old, lambda: bool(placed))

    heir = lake.leader()
    other = staged(*(append("x", name=name) for name in TABLES))
    publish(lake.log, other)
    go_on(heir, lambda: lake.decided(other.envelope.txn_id))
    lake.settle(heir)

    assert [lake.files(name) for name in TABLES] == [5, 5, 5]
    publish(lake.log, staged(append("y", name="a")))
    with pytest.raises(TxnLogFencedError):
        go_on(old, lambda: False)


def test_who_takes_over_before_the_decision_goes_on(lake: Lake) -> None:
    """A transaction that is all there, and of which the log says nothing more, is seen to by the next one."""
    leader = lake.leader()
    publish(lake.log, *appends())
    reached = at("committer.files-asked")
    go_on(leader, lambda: bool(reached))
    leader.__exit__(None, None, None)
    observer = SqlCommitStore(lake.connection())
    assert observer.observe().undecided

    lake.settle(lake.leader())

    assert [lake.files(name) for name in TABLES] == [4, 4, 4]
    assert not observer.observe().undecided
