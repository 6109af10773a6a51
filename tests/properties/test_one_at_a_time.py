"""A lake whose committers die, stand still and are put back, beside a model that takes one transaction after the other.

The model knows no rule of ours: who read a table loses to whoever changed it since, unless that only added, blindly, and
all tables are relaxed; whoever read nothing wins.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deltalakedb import failpoints
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogFencedError
from deltalakedb.eventlog import open_event_log
from deltalakedb.events import StagedTransaction
from deltalakedb_committer.deciding.isolation import DEATHS
from deltalakedb_committer.deciding.needs import StagedEvent
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.committing.invariants import check_rows_and_told
from tests.logged import made, publish
from tests.model_lake import cancel, chunked, staged, txn
from tests.stores import migrated
from tests.works import append, create, reading, relaxed, remove

STRICT, RELAXED = ("a", "b"), ("c", "d")
TABLES = (*STRICT, *RELAXED)
CLOCK = 4_000_000_000.0
"""A clock that stands still, ahead of the log's."""

some_tables = st.lists(st.sampled_from(TABLES), min_size=1, max_size=3, unique=True)
places = st.sampled_from(
    [
        f"committer.{name}"
        for name in ("read", "decoding", "deciding", "position-moved", "rows-inserted", "written", "told", "taken-over")
    ]
)


class Death(Exception):
    """Not one of ours: the committer it happens to is gone."""


@dataclass(slots=True)
class Table:
    """What the model has of a table; the changes of each version since the one that made it."""

    live: set[str] = field(default_factory=set)
    changes: list[tuple[bool, bool]] = field(default_factory=list)
    """Whether it removed anything, whether it was blind."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A transaction, in the model's words."""

    reads: dict[str, int]
    """Version, by table read."""
    adds: dict[str, str]
    removes: dict[str, str]


class Lake(RuleBasedStateMachine):
    """Events are put on the log and decided by the model at once, by committers sooner or later.

    Which rule comes next is a matter of the model alone, never of what committers have come to.
    """

    reached: ClassVar[Counter[str]] = Counter()
    """What has happened, in all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="deltalakedb-model-"))
        self.address = StoreAddress(engine="sqlite", path=str(self.folder / "lake.db"))
        self.log = open_event_log(f"sqlite://{self.folder / 'log.db'}")
        self.log.create()
        self.tables = {name: Table() for name in TABLES}
        self.decided: dict[str, bool] = {}
        self.late: list[tuple[StagedTransaction, Wanted]] = []
        """Last chunks that are not on the log."""
        self.sent: list[StagedEvent] = []
        self.number = 0
        self.deaths = 0
        self.committer: Committer | None = None
        self.zombie: Committer | None = None
        self.databases: list[Database] = []
        self.backup: Path | None = None

    @initialize()
    def make(self) -> None:
        with closing(migrated(self.address)) as database:
            made(database, self.log)
        works = [*(create(name) for name in STRICT), *(relaxed(name) for name in RELAXED)]
        event = staged(*works, txn_id=txn(0))
        publish(self.log, event)
        self.decided[txn(0)] = True

    # What clients do.

    @rule(names=some_tables, late=st.booleans())
    def append(self, names: list[str], late: bool) -> None:
        """Blindly."""
        self._send(Wanted({}, {name: self._new() for name in names}, {}), late)

    @rule(read=some_tables, written=some_tables, back=st.integers(0, 3), late=st.booleans())
    def read_and_append(self, read: list[str], written: list[str], back: int, late: bool) -> None:
        """To tables of which some were read, as they are or were; or others were read."""
        self._send(Wanted(self._versions(read, back), {name: self._new() for name in written}, {}), late)

    @rule(read=some_tables, choice=st.integers(0, 99), back=st.integers(0, 2), late=st.booleans())
    def read_and_remove(self, read: list[str], choice: int, back: int, late: bool) -> None:
        """A file of each table that was read, where it has one."""
        gone = {name: sorted(self.tables[name].live) for name in read}
        removes = {name: live[choice % len(live)] for name, live in gone.items() if live}
        if removes:
            self._send(Wanted(self._versions(read, back), {read[0]: self._new()}, removes), late)

    @precondition(lambda self: self.late)
    @rule(choice=st.integers(0, 99))
    def send_the_rest(self, choice: int) -> None:
        """Of a transaction in two chunks."""
        event, wanted = self.late.pop(choice % len(self.late))
        self._publish(event)
        self._decide(event.envelope.txn_id, wanted)

    @precondition(lambda self: self.sent)
    @rule(choice=st.integers(0, 99))
    def send_again(self, choice: int) -> None:
        """The same bytes: nothing comes of it."""
        publish(self.log, self.sent[choice % len(self.sent)])

    @rule(choice=st.integers(0, 99))
    def cancel(self, choice: int) -> None:
        """What is decided stays so; what is not, is rejected for ever."""
        txn_id = txn(choice % (self.number + 2))
        self._publish(cancel(txn_id))
        self.decided.setdefault(txn_id, False)

    # What becomes of committers.

    @rule(limit=st.integers(1, 12))
    def step(self, limit: int) -> None:
        """Whoever leads decides some of what is there."""
        committer = self.committer or self._lead()
        if committer.step(limit, 0.0):
            self.deaths = 0

    @rule(place=places, limit=st.integers(1, 12))
    def die(self, place: str, limit: int) -> None:
        """At that step of the loop, if it comes to it; not so often that an event is taken for the cause."""
        self._send(Wanted({}, {RELAXED[1]: self._new()}, {}), late=False)
        if self.deaths == DEATHS - 1:
            return

        def happen() -> None:
            self.databases[-1].close()
            raise Death

        failpoints.arm(place, happen)
        try:
            self.step(limit)
        except Death:
            self.deaths += 1
            self.reached["death"] += 1
            self._bury(Death)
        finally:
            failpoints.disarm()

    @rule(limit=st.integers(0, 12))
    def take_over(self, limit: int) -> None:
        """Another one leads; the one that led does not know."""
        if self.zombie is not None:
            self.zombie.__exit__(Death, None, None)
        self.zombie = self.committer or self._lead()
        self._lead()
        if limit:
            self.step(limit)

    @rule(limit=st.integers(1, 12))
    def come_back(self, limit: int) -> None:
        """The one that led tries to go on: it writes nothing."""
        if self.zombie is None:
            self.take_over(0)
        self._send(Wanted({}, {RELAXED[0]: self._new()}, {}), late=False)
        zombie, self.zombie = self.zombie, None
        assert zombie is not None
        before = self._position()
        try:
            assert zombie.step(limit, 0.0) == 0, "an old epoch wrote"
        except TxnLogFencedError:
            self.reached["fenced"] += 1
        finally:
            zombie.__exit__(Death, None, None)
        assert self._position() == before

    @rule()
    def save(self) -> None:
        """A backup of the store."""
        self._end_all()
        self.backup = self.folder / "backup.db"
        shutil.copy(self.address.path or "", self.backup)

    @precondition(lambda self: self.backup)
    @rule()
    def restore(self) -> None:
        """What was told since is decided again, to the same."""
        assert self.backup is not None
        self._end_all()
        before = self._position()
        for file in self.folder.glob("lake.db*"):
            file.unlink()
        shutil.copy(self.backup, self.address.path or "")
        self.reached["set back"] += self._position() != before
        self.deaths = 0

    # What must hold.

    @invariant()
    def is_a_prefix(self) -> None:
        """Whatever is decided is what the model says."""
        if not self.decided:
            return
        with closing(open_database(self.address)) as database:
            for txn_id, committed in database.query("SELECT txn_id, committed FROM dl_transactions"):
                assert committed == self.decided.get(txn_id), txn_id

    def teardown(self) -> None:
        try:
            if self.decided:
                self._check_all()
        finally:
            failpoints.disarm()
            self._end_all()
            self.log.close()
            shutil.rmtree(self.folder)

    def _check_all(self) -> None:
        committer = self.committer or self._lead()
        while committer.step(5, 0.0):
            pass
        self._end_all()
        with closing(open_database(self.address)) as database:
            rows: dict[str, bool] = dict(database.query("SELECT txn_id, committed FROM dl_transactions"))
            live = database.query("SELECT t.name, f.path FROM dl_live_files f JOIN dl_tables t USING (table_no)")
            heads = database.query("SELECT t.name, h.version FROM dl_table_heads h JOIN dl_tables t USING (table_no)")
            assert rows == self.decided
            assert set(live) == {(name, path) for name, table in self.tables.items() for path in table.live}
            assert dict(heads) == {name: len(table.changes) for name, table in self.tables.items()}
            check_rows_and_told(database, self.log, self.folder)

    # The model.

    def _decide(self, txn_id: str, wanted: Wanted) -> None:
        if txn_id in self.decided:
            return
        named = {*wanted.reads, *wanted.adds, *wanted.removes}
        strict = not named.isdisjoint(STRICT)
        won = all(
            not (removed or strict or not blind)
            for name, version in wanted.reads.items()
            for removed, blind in self.tables[name].changes[version:]
        )
        self.decided[txn_id] = won
        self.reached["committed" if won else "rejected"] += 1
        if won:
            for name in {*wanted.adds, *wanted.removes}:
                table = self.tables[name]
                table.live |= {wanted.adds[name]} if name in wanted.adds else set()
                table.live -= {wanted.removes[name]} if name in wanted.removes else set()
                table.changes.append((name in wanted.removes, not wanted.reads))

    def _versions(self, names: list[str], back: int) -> dict[str, int]:
        return {name: max(0, len(self.tables[name].changes) - back) for name in names}

    def _new(self) -> str:
        self.number += 1
        return f"f{self.number}"

    # How it is done.

    def _send(self, wanted: Wanted, late: bool) -> None:
        self.number += 1
        works = []
        for name in {**wanted.reads, **wanted.adds, **wanted.removes}:
            files = [wanted.adds[name]] if name in wanted.adds else []
            gone = remove(*([wanted.removes[name]] if name in wanted.removes else [])).removes
            if name in wanted.reads:
                works.append(reading(wanted.reads[name], *files, name=name, removes=gone))
            else:
                works.append(append(*files, name=name, removes=gone))
        contents = [staged(work).content for work in works] if late else [staged(*works).content]
        *chunks, last = chunked(contents, txn_id=txn(self.number))
        self._publish(*chunks)
        if chunks:
            self.late.append((last, wanted))
        else:
            self._publish(last)
            self._decide(txn(self.number), wanted)

    def _publish(self, *events: StagedEvent) -> None:
        publish(self.log, *events)
        self.sent += events

    def _lead(self) -> Committer:
        database = open_database(self.address)
        self.databases.append(database)
        self.committer = Committer(SqlCommitStore(database), self.log, holder="test", clock=lambda: CLOCK)
        return self.committer

    def _bury(self, error: type[Exception] | None) -> None:
        if self.committer is not None:
            self.committer.__exit__(error, None, None)
        self.committer = None

    def _end_all(self) -> None:
        self._bury(None)
        if self.zombie is not None:
            self.zombie.__exit__(Death, None, None)
            self.zombie = None
        while self.databases:
            self.databases.pop().close()

    def _position(self) -> tuple[object, ...]:
        with closing(open_database(self.address)) as database:
            return database.query("SELECT epoch, position, commit_seq FROM dl_committer_position")[0]


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(20, 40, id="some", marks=pytest.mark.timeout(900)),
        pytest.param(300, 50, id="many", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_whatever_happens_it_is_as_if_one_came_after_the_other(examples: int, steps: int) -> None:
    """Decisions, files and versions are the model's; invariants hold of rows and of all that was told; the log decided
    again gives the same."""
    Lake.reached.clear()

    run_state_machine_as_test(
        Lake, settings=settings(settings.default, max_examples=examples, stateful_step_count=steps)
    )

    assert set(+Lake.reached) == {"committed", "rejected", "death", "fenced", "set back"}
