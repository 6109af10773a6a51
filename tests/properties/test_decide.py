"""What must hold of decisions whatever comes: they are found, repeated by every replay, and what they say is so."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deltalakedb.actions import RemoveFile
from deltalakedb.codec import decode, encode, encode_chunk
from deltalakedb.errors import Reason, TxnLogHaltedError
from deltalakedb.eventlog.port import Record
from deltalakedb.events import (
    AddColumn,
    AppTransaction,
    Content,
    Control,
    ImportedVersion,
    ReadSet,
    SetProperties,
    SetRules,
    StagedTransaction,
    TableWork,
    Tick,
    WrittenAgainst,
)
from deltalakedb_committer.decisions import Commit, Decision
from deltalakedb_committer.needs import StagedEvent, Undecodable
from tests.model_lake import ModelLake, cancel, chunked, control, txn
from tests.properties.strategies import CONTROLS, IMPORTED, STAGED, WORKS
from tests.works import ID, add, append, create, field, other, schema, vector

TABLES = ("a", "b", "c")
PATHS = tuple(f"f{n}" for n in range(6))

# Events that mean something: few tables, few paths, few ids, so that they meet.
names = st.sampled_from(TABLES)
versions = st.none() | st.integers(-1, 6)
against = st.none() | st.builds(WrittenAgainst, st.integers(0, 4), st.integers(0, 2))
files = st.builds(
    add,
    st.sampled_from(PATHS),
    stats=st.sampled_from([None, '{"numRecords":10}', '{"minValues":{"id":1},"maxValues":{"id":2}}']),
    data_change=st.sampled_from([True, True, False]),
    rest=st.sampled_from([None, None, '{"tags":{"k":"v"},"x":1}']),
    deletion_vector=st.sampled_from([None, None, None, vector()]),
)
removes = st.builds(
    RemoveFile,
    path=st.sampled_from(PATHS),
    data_change=st.sampled_from([True, True, False]),
    deletion_vector=st.sampled_from([None, None, vector()]),
)
reads = st.none() | st.builds(
    ReadSet,
    whole_table=st.booleans(),
    files=st.lists(st.sampled_from(PATHS), max_size=1).map(tuple),
    app_ids=st.lists(st.sampled_from(["p", "q"]), max_size=1).map(tuple),
)
creations = st.builds(
    lambda name, text, properties: create(name, text, properties=properties).intents[0],
    names,
    st.sampled_from([ID, schema(("id", "long"), ("x", "string"))]),
    st.sampled_from(
        [
            {},
            {"delta.isolationLevel": "WriteSerializable"},
            {"delta.enableDeletionVectors": "true", "delta.isolationLevel": "WriteSerializable"},
            {"delta.enableRowTracking": "true"},
        ]
    ),
)
columns = st.builds(lambda name: AddColumn(field=_field(name)), st.sampled_from(["x", "y", "id"]))
properties = st.builds(
    lambda key, value: SetProperties(set={key: value}),
    st.sampled_from(["k", "delta.appendOnly", "delta.enableDeletionVectors"]),
    st.sampled_from(["true", "false"]),
)
works = st.builds(
    TableWork,
    name=names,
    read_version=versions,
    read_set=reads,
    written_against=against,
    intents=st.one_of(
        st.just(()), st.just(()), st.tuples(creations), st.tuples(creations, columns), st.tuples(columns | properties)
    ),
    adds=st.lists(files, max_size=2, unique_by=lambda f: f.path).map(tuple),
    removes=st.lists(removes, max_size=1).map(tuple),
    others=st.sampled_from([(), (), (other("txn", {"appId": "p", "version": 3}),)]),
)
apps = st.lists(st.builds(AppTransaction, st.sampled_from(["p", "q"]), st.integers(0, 4)), max_size=1).map(tuple)
contents = st.builds(
    Content, tables=st.lists(works, min_size=1, max_size=2, unique_by=lambda w: w.name).map(tuple), apps=apps
)
ids = st.integers(1, 12).map(txn)
transactions = st.builds(lambda content, txn_id: chunked([content], txn_id=txn_id), contents, ids)
in_chunks = st.builds(
    lambda parts, txn_id: chunked(parts, txn_id=txn_id), st.lists(contents, min_size=2, max_size=3), ids
)
controls = st.one_of(
    st.builds(cancel, ids),
    st.just(control(Tick(), control_id=txn(99))),
    st.just(control(SetRules(rule_set=2), control_id=txn(98))),
).map(lambda event: [event])
friendly = st.sampled_from(TABLES).flatmap(
    lambda name: st.builds(
        lambda path, txn_id: chunked([Content(tables=(append(path, name=name),))], txn_id=txn_id),
        st.sampled_from(PATHS),
        st.integers(100, 10_000).map(txn),
    )
)
histories = st.lists(st.one_of(friendly, transactions, transactions, in_chunks, controls), max_size=14)


@given(histories, st.randoms(use_true_random=False))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_replay_gives_the_same(groups: list[list[StagedEvent]], chance: random.Random) -> None:
    """One record a batch or any other boundaries: the same decisions, the same rows, the same answers."""
    events = _first() + _shuffled(groups, chance)
    one_by_one = ModelLake()
    decisions = [one_by_one.decide(event) for event in events]

    in_batches = ModelLake()
    again: list[Decision] = []
    rest = list(events)
    while rest:
        size = chance.randint(1, len(rest))
        again += in_batches.run(rest[:size])
        rest = rest[size:]

    assert [_brief(decision) for decision in again] == [_brief(decision) for decision in decisions]
    assert in_batches.digest() == one_by_one.digest()


@given(histories, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_commits_keep_the_invariants(groups: list[list[StagedEvent]], chance: random.Random) -> None:
    """Versions and commit_seq have no gaps, time rises, files are live as versions say, a transaction is decided once."""
    lake = ModelLake()
    live: dict[str, set[tuple[str, str]]] = {name: set() for name in TABLES}
    version: dict[str, int] = {}
    commit_seq = time_ms = 0
    decided: set[str] = set()
    for event in _first() + _shuffled(groups, chance):
        decision = lake.decide(event)
        if not isinstance(decision, Commit):
            continue
        assert decision.txn_id not in decided
        decided.add(decision.txn_id)
        assert decision.commit_seq == commit_seq + 1
        assert decision.time_ms >= max(time_ms, decision.event_time_ms)
        commit_seq, time_ms = decision.commit_seq, decision.time_ms
        for change in decision.changes:
            name = change.table.name
            assert change.version == version.get(name, -1) + 1
            version[name] = change.version
            gone = {(r.path, r.dv_id) for r in change.removes}
            come = {(a.path, a.dv_id) for a in change.adds}
            assert gone <= live[name]
            assert not gone & come
            live[name] = (live[name] - gone) | come
            assert len({path for path, _ in live[name]}) == len(live[name])
            assert change.live_files == len(live[name])

    assert {name: lake.live(name) for name in version} == {name: live[name] for name in version}


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
    unknown = isinstance(command, SetRules) and not command.parameters and command.rule_set not in (1, 2)
    assume(not (ours and unknown))

    try:
        lake.decide(decoded)
    except TxnLogHaltedError:
        assert unknown


@given(IMPORTED)
@settings(max_examples=50, deadline=None)
def test_any_import_is_decided(event: ImportedVersion) -> None:
    """By this rule set it is never done."""
    lake = ModelLake()

    lake.decide(event)

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


def _shuffled(groups: list[list[StagedEvent]], chance: random.Random) -> list[StagedEvent]:
    """The events of all groups; mostly in order, chunks and repetitions anywhere."""
    events = [event for group in groups for event in group]
    for _ in range(len(events) // 4):
        events.insert(chance.randint(0, len(events)), chance.choice(events))
    return events


def _brief(decision: Decision) -> tuple[Any, ...]:
    outcome = getattr(decision, "outcome", None)
    reason = outcome.rejected.reason if outcome is not None and outcome.rejected is not None else None
    changes = [
        (c.table.name, c.version, c.adds, c.removes, c.txns, c.domains) for c in getattr(decision, "changes", ())
    ]
    return (type(decision).__name__, reason, outcome, changes)


def _field(name: str) -> str:
    import json

    return json.dumps(field(name, "string"))
