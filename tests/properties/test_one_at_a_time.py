"""A lake whose committers die, stand still and are put back, beside a model that takes one transaction after the other.

The model is `one_at_a_time`; here is what happens, and what must then be so.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Literal

import msgspec
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
from deltalakedb.database import Database, open_database
from deltalakedb.errors import TxnLogFencedError
from deltalakedb.eventlog import Stream, open_event_log
from deltalakedb.events import Outcome, SetRules, StagedTransaction, Tick
from deltalakedb_committer.deciding.isolation import DEATHS
from deltalakedb_committer.deciding.needs import StagedEvent
from deltalakedb_committer.deciding.rules import RULES
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.aside import Aside
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.committing.invariants import check_rows_and_told
from tests.logged import made, publish
from tests.model_lake import LAKE_ID, cancel, chunked, control, staged, txn
from tests.properties.asks import APPENDS, APPS, ASKS, TABLES, Ask, contents_of, created, creates, of_tables, part_of
from tests.properties.one_at_a_time import Model, Wanted
from tests.properties.saved_stores import InFile, OnPostgres, SavedStore
from tests.stores import migrated

CLOCK = 4_000_000_000.0
"""A clock that stands still, ahead of the log's."""
APART, TOGETHER = 1, 7
"""Rule sets: with the second one appends sent together share versions."""
WHOLE_CHUNKS = 2
"""With these, what comes in more pieces is big."""

places = st.sampled_from(
    [
        f"committer.{name}"
        for name in (
            *("read", "decoding", "deciding", "position-moved", "rows-inserted", "written", "told", "taken-over"),
            *("completing", "completed"),
        )
    ]
)


StoreIn = Callable[[Path], SavedStore]


class Death(Exception):
    """Not one of ours: the committer it happens to is gone."""


class Lake(RuleBasedStateMachine):
    """Events are put on the log and decided by the model at once, by committers sooner or later.

    Which rule comes next is a matter of the model alone, never of what committers have come to.
    """

    reached: ClassVar[Counter[str]] = Counter()
    """What has happened, in all examples."""

    def __init__(self, store_in: StoreIn) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="deltalakedb-model-"))
        self.store = store_in(self.folder)
        self.address = self.store.address
        self.log = open_event_log(f"sqlite://{self.folder / 'log.db'}")
        self.log.create()
        self.reader = self.log.reader(Stream.STAGED, 0)
        self.model = Model(
            created(), txn(0), whole_chunks=WHOLE_CHUNKS, windows_ms={APART: 0, TOGETHER: 200}, reached=self.reached
        )
        self.late: list[StagedTransaction] = []
        """Last chunks that are not on the log."""
        self.sent: list[StagedEvent] = []
        self.newest = {"p": 1, "q": 1}
        """How far applications are."""
        self.number = 0
        self.deaths = self.saved_deaths = 0
        """That the store has a note of, and its backup."""
        self.committer: Committer | None = None
        self.zombie: Committer | None = None
        self.connections: list[Database | Aside] = []
        self.read_until = 0
        self.is_made = self.is_saved = self.has_moved = False

    @initialize()
    def make(self) -> None:
        with closing(migrated(self.address)) as database:
            made(database, self.log)
        self._publish(staged(*creates(), txn_id=txn(0)))
        self.is_made = True

    # What clients do.

    @rule(asks=of_tables(APPENDS), apps=APPS, cut=st.booleans(), late=st.booleans())
    def append(self, asks: Mapping[str, Ask], apps: Mapping[str, int], cut: bool, late: bool) -> None:
        """Blindly."""
        self._send(self._wanted(asks, 0, apps), cut=cut, late=late)

    @rule(
        several=st.lists(st.tuples(of_tables(ASKS), APPS), min_size=1, max_size=2),
        clients=st.integers(1, 2),
        back=st.integers(0, 4),
    )
    def transact(self, several: Sequence[tuple[Mapping[str, Ask], Mapping[str, int]]], clients: int, back: int) -> None:
        """At the same time as others, who may want the same; in tables that were read as they are, or were."""
        for wanted in [self._wanted(asks, back, apps) for asks, apps in several for _ in range(clients)]:
            self._send(wanted)

    @rule(asks=of_tables(ASKS), clients=st.integers(1, 2), back=st.integers(0, 2), late=st.booleans())
    def transact_in_pieces(self, asks: Mapping[str, Ask], clients: int, back: int, late: bool) -> None:
        """The last of which may come later."""
        for wanted in [self._wanted(asks, back) for _ in range(clients)]:
            self._send(wanted, cut=True, late=late)

    @rule(appends=st.lists(st.tuples(of_tables(APPENDS), APPS), min_size=2, max_size=4), choice=st.integers(0, 99))
    def append_together(self, appends: Sequence[tuple[Mapping[str, Ask], Mapping[str, int]]], choice: int) -> None:
        """While those that come together share versions; one of them comes twice."""
        events = [event for asks, apps in appends for event in self._events(self._wanted(asks, 0, apps))]
        self._publish(self._rules(TOGETHER), *events, events[choice % len(events)], self._rules(APART))

    @precondition(lambda self: self.late)
    @rule(choice=st.integers(0, 99))
    def send_the_rest(self, choice: int) -> None:
        """Of a transaction in pieces."""
        self._publish(self.late.pop(choice % len(self.late)))

    @precondition(lambda self: self.sent)
    @rule(choice=st.integers(0, 99))
    def send_again(self, choice: int) -> None:
        """The same bytes: nothing comes of it."""
        self._publish(self.sent[choice % len(self.sent)])

    @rule(choice=st.integers(0, 99))
    def cancel(self, choice: int) -> None:
        """What is decided stays so; what is not, is rejected for ever."""
        self._publish(cancel(txn(choice % (self.number + 2))))

    # What becomes of committers.

    @rule(limit=st.integers(1, 12))
    def step(self, limit: int) -> None:
        """Whoever leads decides some of what is there."""
        committer = self.committer or self._lead()
        self.has_moved = True
        if committer.step(limit, 0.0):
            self.deaths = 0
        if self.model.undecided:
            # What the committer has said of them is on the log before this is.
            self._publish(control(Tick()))

    @rule(place=places, limit=st.integers(1, 12))
    def die(self, place: str, limit: int) -> None:
        """At that step of the loop, if it comes to it; not so often that an event is taken for the cause."""
        self._send(self._wanted({"d": Ask(adds=("x",))}))
        if self.deaths == DEATHS - 2:
            return  # one that succeeds counts as well, until all is passed that it had read

        def happen() -> None:
            self.connections[-1].close()
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
        self._send(self._wanted({"c": Ask(adds=("x",))}))
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
        self.store.save()
        self.saved_deaths = self.deaths
        self.is_saved = True

    @precondition(lambda self: self.is_saved)
    @rule()
    def restore(self) -> None:
        """What was told since is decided again, to the same."""
        self._end_all()
        before = self._position()
        self.store.set_back()
        self.reached["set back"] += self._position() != before
        self.deaths = self.saved_deaths

    # What must hold.

    @invariant()
    def is_a_prefix(self) -> None:
        """Whatever is decided is what the model says."""
        if not self.has_moved:
            return
        self.has_moved = False
        with closing(open_database(self.address)) as database:
            self._follow()
            for txn_id, committed in database.query("SELECT txn_id, committed FROM dl_transactions"):
                assert bool(committed) == self.model.decided.get(txn_id), txn_id

    def teardown(self) -> None:
        try:
            if self.is_made:
                self._check_all()
        finally:
            failpoints.disarm()
            self._end_all()
            self.reader.close()
            self.log.close()
            self.store.drop()
            shutil.rmtree(self.folder)

    def _check_all(self) -> None:
        committer = self.committer or self._lead()
        while committer.step(5, 0.0) or self.model.undecided or committer.cursor.position < self.log.end(Stream.STAGED):
            self._follow()
        self._end_all()
        model = self.model
        with closing(open_database(self.address)) as database:
            told = {
                txn_id: msgspec.json.decode(outcome, type=Outcome).committed
                for txn_id, outcome in database.query("SELECT txn_id, outcome FROM dl_transactions")
            }
            assert {txn_id: found is not None for txn_id, found in told.items()} == model.decided
            assert {
                txn_id: {table.name: table.version for table in found.tables}
                for txn_id, found in told.items()
                if found is not None and txn_id in model.wanted
            } == model.versions
            commits = database.query("SELECT txn_ids FROM dl_commits ORDER BY commit_seq")
            assert [json.loads(txn_ids) for (txn_ids,) in commits] == model.commits
            live: dict[str, dict[str, str | None]] = {name: {} for name in TABLES}
            for name, path, found in database.query(
                "SELECT t.name, a.path, a.partition_values FROM dl_add_files a JOIN dl_tables t USING (table_no) "
                "WHERE a.removed_version IS NULL"
            ):
                live[name][path] = json.loads(found).get("p")
            heads = database.query(
                "SELECT t.name, h.version, m.version, m.schema_string, m.configuration FROM dl_table_heads h "
                "JOIN dl_tables t USING (table_no) "
                "JOIN dl_metadata_updates m ON m.table_no = h.table_no AND m.version = h.metadata_version"
            )
            assert len(heads) == len(TABLES)
            for name, version, metadata_version, schema_string, configuration in heads:
                table = model.tables[name]
                assert live[name] == table.live
                assert (version, metadata_version) == (len(table.changes), table.metadata_versions[-1])
                assert {column["name"] for column in json.loads(schema_string)["fields"]} == table.columns
                assert json.loads(configuration).items() >= table.properties.items()
            check_rows_and_told(database, self.log, self.folder)

    # What is sent.

    def _wanted(self, asks: Mapping[str, Ask], back: int = 0, apps: Mapping[str, int] = {}) -> Wanted:
        numbers = {app: self.newest[app] + further for app, further in apps.items()}
        self.newest |= {app: max(number, self.newest[app]) for app, number in numbers.items()}
        tables = self.model.tables
        return Wanted(
            parts={name: part_of(ask, tables[name], back, self._new_file) for name, ask in asks.items()}, apps=numbers
        )

    def _new_file(self) -> str:
        self.number += 1
        return f"f{self.number}"

    def _rules(self, rule_set: int) -> StagedEvent:
        self.number += 1
        return control(SetRules(rule_set=rule_set), control_id=txn(self.number))

    def _events(self, wanted: Wanted, *, cut: bool = False) -> list[StagedTransaction]:
        self.number += 1
        self.model.wanted[txn(self.number)] = wanted
        return chunked(contents_of(wanted, cut=cut), txn_id=txn(self.number))

    def _send(self, wanted: Wanted, *, cut: bool = False, late: bool = False) -> None:
        *chunks, last = self._events(wanted, cut=cut)
        self._publish(*chunks)
        if chunks and late:
            self.late.append(last)
        else:
            self._publish(last)

    def _publish(self, *events: StagedEvent) -> None:
        publish(self.log, *events)
        self.sent += events
        self._follow()

    def _follow(self) -> None:
        """Have the model decide what is on the log."""
        while self.read_until < self.log.end(Stream.STAGED):
            for record in self.reader.read(1000, 10.0):
                self.model.read(record)
                self.read_until = record.next_position

    # How it is done.

    def _lead(self) -> Committer:
        aside = None
        if self.address.engine == "postgres":
            aside = Aside(lambda: open_database(self.address), LAKE_ID)
            self.connections.append(aside)
        database = open_database(self.address)
        self.connections.append(database)
        self.committer = Committer(SqlCommitStore(database), self.log, holder="test", aside=aside, clock=lambda: CLOCK)
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
        while self.connections:
            self.connections.pop().close()

    def _position(self) -> tuple[object, ...]:
        with closing(open_database(self.address)) as database:
            return database.query("SELECT epoch, position, commit_seq FROM dl_committer_position")[0]


LONG = [pytest.mark.soak, pytest.mark.timeout(3600)]
EVERYTHING: Final = {
    *("committed", "committed, and nothing changed", "shared a version", "big"),
    *("added, which a snapshot does not mind", "added, which the relaxed do not mind"),
    *("added what would have been read", "removed what was read", "removed twice", "metadata changed"),
    *("removed what is not there", "not said what was read", "not said what files are written for"),
    *("application was there before", "application was there in part"),
    *("death", "fenced", "set back"),
}


@pytest.fixture
def store_in(engine: Literal["sqlite", "duckdb", "postgres"], request: pytest.FixtureRequest) -> StoreIn:
    """How to get a store that works in a folder."""
    if engine != "postgres":
        return partial(InFile, engine)
    server: str = request.getfixturevalue("postgres_url")
    return lambda _: OnPostgres(server)


@pytest.mark.parametrize(
    ("engine", "examples", "steps"),
    [
        pytest.param("sqlite", 100, 40, id="some", marks=pytest.mark.timeout(900)),
        pytest.param("sqlite", 300, 50, id="many", marks=LONG),
        pytest.param("duckdb", 100, 40, id="many-duckdb", marks=LONG),
        pytest.param("postgres", 100, 40, id="many-postgres", marks=LONG),
    ],
)
def test_whatever_happens_it_is_as_if_one_came_after_the_other(
    store_in: StoreIn, examples: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions, files, versions and metadata are the model's; invariants hold of rows and of all that was told; the
    log decided again gives the same."""
    for rule_set in (APART, TOGETHER):
        monkeypatch.setitem(RULES, rule_set, replace(RULES[rule_set], whole_chunks=WHOLE_CHUNKS))
    Lake.reached.clear()

    class There(Lake):
        def __init__(self) -> None:
            super().__init__(store_in)

    wanted = settings(max_examples=examples, stateful_step_count=steps)

    run_state_machine_as_test(There, settings=wanted)

    if wanted.derandomize:  # of examples that no run has seen nobody knows what they reach
        assert set(+Lake.reached) == EVERYTHING
