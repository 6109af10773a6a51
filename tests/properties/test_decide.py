"""What must hold of decisions whatever comes: they are found, repeated by every replay, and what they say is so."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deltalakedb.codec import decode, encode, encode_chunk
from deltalakedb.errors import Reason, TxnLogHaltedError
from deltalakedb.eventlog.port import Record
from deltalakedb.events import (
    Content,
    Control,
    ImportedVersion,
    SetRules,
    StagedTransaction,
    TableWork,
    WrittenAgainst,
)
from deltalakedb_committer.batching import Batching
from deltalakedb_committer.deciding.decisions import Accepted, Answer, Commit, Decision, Imported, Rejection
from deltalakedb_committer.deciding.folding import Item
from deltalakedb_committer.deciding.needs import StagedEvent, Undecodable
from deltalakedb_committer.deciding.rules import RULES
from tests import imports
from tests.history import Historian
from tests.model_lake import START_MS, ModelLake, chunked, control, record, staged, txn
from tests.properties.strategies import CONTROLS, FOUND, IMPORTED, STAGED, WORKS
from tests.works import ID, ID_DAY, add, create

TABLES = ("a", "b", "c")

against = st.none() | st.builds(WrittenAgainst, st.integers(0, 4), st.integers(0, 2))


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_replay_gives_the_same(seed: int, imports: bool) -> None:
    """One record a batch or any other boundaries: the same decisions, the same rows, the same answers."""
    chance = random.Random(seed)
    one_by_one = ModelLake()
    historian = Historian(one_by_one, chance, imports=imports)
    events: list[StagedEvent] = []
    decisions: list[Decision] = []
    while len(events) < 40:
        for event in historian.events():
            events.append(event)
            decisions.append(one_by_one.decide(event))

    in_batches = ModelLake()
    again: list[Decision] = []
    rest = list(events)
    while rest:
        size = chance.randint(1, len(rest))
        again += in_batches.run(rest[:size])
        rest = rest[size:]

    assert [_brief(decision) for decision in again] == [_brief(decision) for decision in decisions]
    assert in_batches.digest() == one_by_one.digest()


@given(st.integers(0, 2**32), st.sampled_from([3, 5, 7]))
@settings(max_examples=150, deadline=None)
def test_folds_are_the_logs_alone(seed: int, rule_set: int) -> None:
    """However the log is read and cut into batches: the same folds, the same decisions, the same rows."""
    chance = random.Random(seed)
    made = ModelLake(rule_set=rule_set)
    historian = Historian(made, chance, folds=True)
    items: list[Item] = []
    while len(items) < 60:
        for event in historian.events():
            # Several records a millisecond, and pauses longer than a window.
            later = items[-1][0].time_ms + chance.choice([0, 0, 1, 3, 60, 300]) if items else START_MS
            items.append((record(len(items), later), event))
            made.position = items[-1][0].position
            made.apply([items[-1:]])
    events = {found.position: event for found, event in items}

    lakes = [ModelLake(rule_set=rule_set) for _ in range(2)]
    decisions: list[list[Decision]] = [[], []]
    for lake, found, most in zip(lakes, decisions, (60, 7), strict=True):
        batching, rest = Batching(lambda record: events[record.position]), [one for one, _ in items]
        while rest:
            size = chance.randint(1, most)
            batching.put(rest[:size])
            rest = rest[size:]
            while units := batching.take(chance.randint(1, most), lake.rules):
                found += lake.apply(units)
        found += lake.apply(batching.rest())

    assert [_brief(decision) for decision in decisions[0]] == [_brief(decision) for decision in decisions[1]]
    assert lakes[0].digest() == lakes[1].digest()


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_fold_decides_as_if_each_came_alone(seed: int) -> None:
    """Blind appends are committed or rejected in a fold as they are without: the same files, under fewer versions."""
    chance = random.Random(seed)
    alone, folded = ModelLake(), ModelLake(rule_set=7)
    tracked = {"delta.enableRowTracking": "true"}
    first = staged(create("a", ID), create("b", ID, properties=tracked), create("c", ID_DAY, by=("day",)))
    for lake in (alone, folded):
        assert isinstance(lake.decide(first), Commit)
    historian = Historian(alone, chance, folds=True)
    events = [event for _ in range(12) for event in historian.appends()]
    events += chance.sample(events, 3)

    apart, together = alone.run(events), folded.fold(*events)

    def verdicts(decisions: list[Decision]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for decision in decisions:
            for one in decision.transactions if isinstance(decision, Commit) else (decision,):
                assert isinstance(one, Commit | Accepted | Rejection | Answer), one
                reason = None if one.outcome.rejected is None else one.outcome.rejected.reason
                found[one.position] = (one.outcome.txn_id, reason)
        return found

    assert verdicts(together) == verdicts(apart)
    for name in TABLES:
        assert folded.live(name) == alone.live(name)
    assert folded.commit_seq <= alone.commit_seq
    # No row id is given twice, and none is left out.
    taken = 0
    tracked_files = [row for row in folded.rows["dl_live_files"] + folded.past if row["base_row_id"] is not None]
    for row in sorted(tracked_files, key=lambda row: (row["base_row_id"], row["version"])):
        if row["base_row_id"] >= taken:
            assert row["base_row_id"] == taken
            taken += row["num_records"]


def test_folds_reach_what_they_are_made_for() -> None:
    """Of many transactions, with rejections and answers among them, in several tables and with applications."""
    seen: set[str] = set()
    for seed in range(30):
        lake = ModelLake(rule_set=7)
        historian = Historian(lake, random.Random(seed), folds=True)
        for _ in range(15):
            decisions = lake.fold(*[event for _ in range(4) for event in historian.events()])
            commits = [decision for decision in decisions if isinstance(decision, Commit) and decision.folded]
            seen |= {type(decision).__name__ for decision in decisions if commits}
            for commit in commits:
                seen |= {"several tables"} if len(commit.changes) > 1 else set()
                seen |= {"applications"} if any(one.apps for one in commit.folded) else set()
                seen |= {"row ids"} if any(change.domains for change in commit.changes) else set()
                seen |= {"many"} if len(commit.folded) > 3 else set()
                seen |= {"files again"} if any(change.superseded for change in commit.changes) else set()

    assert seen >= {"several tables", "applications", "row ids", "many", "files again"}
    assert seen >= {"Commit", "Rejection", "Answer", "Staged"}


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_commits_keep_the_invariants(seed: int) -> None:
    """Versions and commit_seq have no gaps, time rises, files are live as versions say, a transaction is decided once."""
    lake = ModelLake()
    historian = Historian(lake, random.Random(seed))
    live: dict[str, set[tuple[str, str]]] = {}
    version: dict[str, int] = {}
    commit_seq = time_ms = 0
    decided: set[str] = set()
    while lake.position < 40:
        for event in historian.events():
            decision = lake.decide(event)
            if isinstance(decision, Commit | Accepted | Rejection):
                assert decision.txn_id not in decided
                decided.add(decision.txn_id)
            if not isinstance(decision, Commit):
                continue
            assert decision.commit_seq == commit_seq + 1
            assert decision.time_ms >= max(time_ms, decision.event_time_ms)
            commit_seq, time_ms = decision.commit_seq, decision.time_ms
            for change in decision.changes:
                name = change.table.name
                assert change.version == version.get(name, -1) + 1
                version[name] = change.version
                gone = {(r.path, r.dv_id) for r in change.removes}
                come = {(a.path, a.dv_id) for a in change.adds}
                assert gone <= live.get(name, set())
                assert not gone & come
                live[name] = (live.get(name, set()) - gone) | come
                assert len({path for path, _ in live[name]}) == len(live[name])
                assert change.live_files == len(live[name])

    assert {name: lake.live(name) for name in version} == live


def test_histories_reach_what_they_are_made_for() -> None:
    """The properties above say little about decisions that never come."""
    seen: set[tuple[Any, ...]] = set()
    for seed in range(60):
        lake = ModelLake()
        historian = Historian(lake, random.Random(seed))
        while lake.position < 40:
            seen |= {_brief(decision)[:2] for decision in map(lake.decide, historian.events())}

    assert {name for name, _ in seen} == {"Commit", "Accepted", "Rejection", "Answer", "Staged", "Nothing"}
    assert {reason for _, reason in seen} >= {
        Reason.CANCELLED,
        Reason.CONCURRENT_APPEND,
        Reason.CONCURRENT_DELETE_READ,
        Reason.CONCURRENT_TRANSACTION,
        Reason.FILE_NOT_LIVE,
        Reason.METADATA_CHANGED,
        Reason.READ_VERSION_INVALID,
        Reason.SCHEMA_CHANGED,
        Reason.TABLE_EXISTS,
        None,
    }


def test_imports_reach_what_they_are_made_for() -> None:
    """As above: chunks, versions of every kind, adopted tables that are written, refusals."""
    seen: set[tuple[Any, ...]] = set()
    kinds: set[Any] = set()
    for seed in range(40):
        lake = ModelLake()
        historian = Historian(lake, random.Random(seed), imports=True)
        while lake.position < 60:
            for decision in map(lake.decide, historian.events()):
                seen.add(_brief(decision)[:2])
                if isinstance(decision, Imported):
                    kinds.add((decision.chunk.after.kind, decision.chunk.complete))
                if isinstance(decision, Commit) and decision.changes:
                    kinds.add(decision.changes[0].table.name)

    assert {reason for _, reason in seen} >= {Reason.IMPORT_GAP, Reason.IMPORT_FINISHED, Reason.TABLE_READ_ONLY}
    assert kinds >= {(kind, whole) for kind in ("COMMIT", "BASELINE", "HISTORY", "ADOPTION") for whole in (True, False)}
    assert kinds >= {"x", "y"}


@given(STAGED, st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_transaction_is_decided(event: StagedTransaction, ours: bool, known: bool) -> None:
    """Whatever can be decoded is committed, accepted or rejected: nothing is raised, and rows can be made of it."""
    lake = ModelLake()
    if known:
        lake.run(_first())
    if ours:
        (event,) = chunked([event.content], client_id=event.envelope.client_id)
    decoded = decode(encode_chunk(event.envelope, event.content_bytes))
    assert isinstance(decoded, StagedTransaction)

    lake.decide(decoded)


@given(WORKS, st.sampled_from(TABLES), against, st.data())
@settings(max_examples=400, deadline=None)
def test_any_work_on_a_table_that_is_there_is_decided(
    work: TableWork, name: str, written: WrittenAgainst | None, data: st.DataObject
) -> None:
    """Also what comes past the first checks: parts of it are made right, the rest is anything."""
    import msgspec

    right: dict[str, Any] = {"name": name, "id": None, "written_against": written}
    for part in ("read_version", "read_set", "intents", "others", "cdc", "removes", "operation"):
        if data.draw(st.booleans()):
            right[part] = getattr(TableWork(name=name), part)
    if data.draw(st.booleans()):
        adds = [
            msgspec.structs.replace(f, path=f"f{n}", partition_values={}, size=1, modification_time=0)
            for n, f in enumerate(work.adds)
        ]
        right["adds"] = tuple(adds)
    lake = ModelLake()
    lake.run(_first())

    (event,) = chunked([Content(tables=(msgspec.structs.replace(work, **right),))])

    lake.decide(event)


@given(CONTROLS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_control_event_is_decided(event: Control, ours: bool) -> None:
    """Or halts, where a release does not know the rule set."""
    command = event.command
    if ours:
        event = control(command)
    decoded = decode(encode(event))
    assert isinstance(decoded, Control)
    lake = ModelLake()
    unknown = isinstance(command, SetRules) and not command.parameters and command.rule_set not in RULES
    assume(not (ours and unknown))

    try:
        lake.decide(decoded)
    except TxnLogHaltedError:
        assert unknown


@given(IMPORTED, st.booleans(), st.lists(FOUND, max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_import_is_decided(event: ImportedVersion, ours: bool, bodies: list[imports.Body]) -> None:
    """Whatever somebody else's log may hold: it is taken or refused, and rows can be made of it."""
    lake = ModelLake()
    if ours:
        lake.run([imports.first(imports.add("a"))])
        event = imports.one(1, *bodies)

    decision = lake.decide(event)

    assert isinstance(decision, Imported | Rejection)
    assert lake.commit_seq == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["dl-txn", "dl-outcome", "dl-chunk", "x", "\0"]), st.binary(max_size=40)), max_size=4
    ),
    st.binary(max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_any_record_is_decided(headers: list[tuple[str, bytes]], value: bytes) -> None:
    """Its headers may hold anything."""
    record = Record(partition=0, position=0, time_ms=1, value=value, headers=tuple(headers))

    decision = ModelLake().decide(Undecodable.of(record, "e"))

    assert _brief(decision)[1] == Reason.UNDECODABLE_EVENT


def _first() -> list[StagedEvent]:
    """Two tables to begin with, one of each level."""
    relaxed = {"delta.isolationLevel": "WriteSerializable", "delta.enableDeletionVectors": "true"}
    return [
        *chunked([Content(tables=(create("a", ID, add("f0")), create("b", ID, properties=relaxed)))], txn_id=txn(50))
    ]


def _brief(decision: Decision) -> tuple[Any, ...]:
    outcome = getattr(decision, "outcome", None)
    reason = outcome.rejected.reason if outcome is not None and outcome.rejected is not None else None
    changes = [
        (c.table.name, c.version, c.adds, c.removes, c.txns, c.domains) for c in getattr(decision, "changes", ())
    ]
    return (type(decision).__name__, reason, outcome, changes)
