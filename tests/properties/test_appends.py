"""Appends that are decided in one go, alone or as a fold: just so would they be decided by those who look closely."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalakedb.actions import AddFile, CdcFile
from deltalakedb.events import (
    AppTransaction,
    Content,
    LakeAction,
    ReadSet,
    SetProperties,
    StagedTransaction,
    TableWork,
    WrittenAgainst,
)
from deltalakedb_committer.batching import Batching
from deltalakedb_committer.deciding.appends import plain_append
from deltalakedb_committer.deciding.decisions import Commit
from deltalakedb_committer.deciding.files import GivenFiles
from deltalakedb_committer.deciding.folded import decide_each
from deltalakedb_committer.deciding.folded_appends import plain_fold
from deltalakedb_committer.deciding.needs import Needs, StagedEvent, add_needs
from deltalakedb_committer.deciding.rules import Rules
from deltalakedb_committer.deciding.transactions import Changed, change_tables
from tests.history import Historian
from tests.model_lake import START_MS, ModelLake, chunked, control, decide_one, txn
from tests.works import ID, ID_DAY, add, create, other, remove, vector


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=150, deadline=None)
def test_in_any_history(seed: int, folds: bool) -> None:
    """Whatever came before: the same versions, to the last field; and nothing that would be refused."""
    lake = ModelLake()
    historian = Historian(lake, random.Random(seed), folds=folds)
    while lake.position < 40:
        for event in historian.events():
            if isinstance(event, StagedTransaction):
                _compared(lake, event)
            lake.decide(event)


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_folds_in_any_history(seed: int) -> None:
    """Whatever came before: the same commit, to the last field, as if each of a fold is decided by itself."""
    lake = ModelLake()
    historian = Historian(lake, random.Random(seed), folds=True)
    while lake.position < 60:
        events = historian.events()
        _folds_compared(lake, events, lake.rules)
        lake.fold(*events)


def test_histories_have_them() -> None:
    """The property above says little about appends that never come."""
    seen: set[str] = set()
    for seed in range(20):
        lake = ModelLake()
        historian = Historian(lake, random.Random(seed), folds=seed % 2 == 0)
        while lake.position < 40:
            for event in historian.events():
                changed = _compared(lake, event) if isinstance(event, StagedTransaction) else None
                lake.decide(event)
                changes = () if changed is None else changed.changes
                seen |= {"several tables"} if len(changes) > 1 else set()
                seen |= {"several files"} if any(len(change.adds) > 1 for change in changes) else set()
                seen |= (
                    {"partitions"} if any(add.partition_values for change in changes for add in change.adds) else set()
                )
                seen |= {change.isolation_level for change in changes}

    assert seen == {"several tables", "several files", "partitions", "Serializable", "WriteSerializable"}


@cache
def _lake() -> ModelLake:
    """Tables of several kinds, which nobody changes any more."""
    lake = ModelLake()
    relaxed = {"delta.isolationLevel": "WriteSerializable", "delta.enableDeletionVectors": "true"}
    tracked = {"delta.enableRowTracking": "true"}
    lake.commit(create("a", ID, add("live")))
    lake.commit(create("b", ID, properties=relaxed))
    lake.commit(create("c", ID_DAY, by=("day",)))
    lake.commit(create("d", ID, properties=tracked))
    lake.commit(create("gone", ID))
    lake.decide(control(LakeAction(action="drop", table="gone")))
    lake.commit(TableWork(name="b", intents=(SetProperties(set={"k": "v"}),)))
    return lake


DROPPED = _lake().rows["dl_tables"][-1]["table_id"]
LONG = 2**63 - 1
LARGE, NUL = "ä" * 40_000, "a\0"
STATS = (
    *(None, "", "{}", "null", "{", '{"numRecords":-1}', '{"numRecords":"7"}', '{"numRecords":1,"numRecords":2}'),
    '{"numRecords":7,"minValues":{"id":5},"maxValues":{"id":1}}',
    f'{{"numRecords":7,"minValues":{{"id":{-LONG - 1}}},"maxValues":{{"id":{LONG}}}}}',
    f'{{"numRecords":7,"x":{"[" * 70}{"]" * 70}}}',
    f'{{"x":"{"x" * 70_000}"}}',
)
ADDS: dict[str, Sequence[Any]] = {
    "path": ("live", "twice", "a%20b", "../f", "_hidden/f", "x=1/f", NUL, ""),
    "size": (0, -1, LONG, LONG - 100),
    "modification_time": (0, -1),
    "stats": STATS,
    "data_change": (False,),
    "partition_values": ({}, {"day": "2024-01-01"}, {"day": None}, {"day": "x"}, {"id": "1"}),
    "deletion_vector": (vector(), vector(cardinality=9)),
    "rest": ('{"tags":{"k":"v"}}', '{"path":"x"}', "["),
}
WORKS: dict[str, Sequence[Any]] = {
    "name": ("a", "gone", "none", None),
    "id": ("none", DROPPED),
    "read_version": (0, 9),
    "read_set": (ReadSet(), ReadSet(whole_table=True)),
    "written_against": (None, *(WrittenAgainst(*versions) for versions in ((0, 0), (1, 0), (1, 1), (0, 9), (0, -1)))),
    "operation": ("", "ä" * 63, "ä" * 127, "ä" * 128, NUL),
    "operation_parameters": ({}, {NUL: NUL}, {"x": LARGE}),
    "operation_metrics": ({"numFiles": "1"}, {LARGE: ""}),
    "intents": (create("a").intents, (SetProperties(set={"k": "v"}),)),
    "adds": ((),),
    "removes": (remove("live").removes,),
    "cdc": ((CdcFile(path="_change_data/f", partition_values={}, size=1),),),
    "others": ((other("txn", {"appId": "own", "version": 1}),), (other("x", {}),)),
}
CONTENTS: dict[str, Sequence[Any]] = {
    "tables": ((),),
    "isolation": ("Serializable", "WriteSerializable", "SnapshotIsolation", "none"),
    "apps": ((AppTransaction("p", 1),),),
    "user_metadata": ("", "x", LARGE, NUL),
    "engine_info": ("", "me", LARGE, NUL),
}
Odd = tuple[type, str, Any]
ODD: list[Odd] = [
    (kind, name, value)
    for kind, fields in ((AddFile, ADDS), (TableWork, WORKS), (Content, CONTENTS))
    for name, values in fields.items()
    for value in values
]
"""What may be unusual about an append, or wrong with it."""


def test_whatever_is_odd_about_one() -> None:
    """It is decided in one go only as it would be otherwise, too, be it about the first table or about the last."""
    closely = [
        (kind.__name__, name)
        for kind, name, value in ODD
        for which in (0, -1)
        if _compared(_lake(), _event(_odd(_plain("a", "b", "c"), (kind, name, value), which))) is None
    ]

    assert _compared(_lake(), _event(_plain("a", "b", "c"))) is not None
    assert {("AddFile", "path"), ("TableWork", "read_set"), ("Content", "isolation")} <= set(closely)
    assert len(ODD) < len(closely) < 2 * len(ODD)


@given(
    st.lists(st.sampled_from(["a", "a", "b", "c", "d"]), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(ODD), st.integers(0, 2)), max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_several_odd_things(names: list[str], odd: list[tuple[Odd, int]]) -> None:
    """As above; one may hide another."""
    content = _plain(*names)
    for one, which in odd:
        content = _odd(content, one, which)

    _compared(_lake(), _event(content))


def test_whatever_is_odd_in_a_fold() -> None:
    """It is decided in one go only as its transactions would be one by one, be the odd one the first or the last."""
    closely = [
        (kind.__name__, name)
        for kind, name, value in ODD
        for which in (0, -1)
        for found in _odd_folds([(("a", "b"), []), (("a", "c"), []), (("b", "a"), [])], which, (kind, name, value))
        if found is None
    ]

    (commit,) = _odd_folds([(("a", "b"), []), (("a", "c"), []), (("b", "a"), [])])
    assert commit is not None
    assert [(change.table.name, len(change.adds)) for change in commit.changes] == [("a", 5), ("b", 3), ("c", 1)]
    assert {("AddFile", "stats"), ("TableWork", "written_against"), ("TableWork", "name")} <= set(closely)


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["a", "a", "b", "c", "d"]), min_size=1, max_size=3),
            st.lists(st.tuples(st.sampled_from(ODD), st.integers(0, 2)), max_size=1),
        ),
        min_size=2,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_several_odd_things_in_folds(transactions: list[tuple[Sequence[str], list[tuple[Odd, int]]]]) -> None:
    """As above; one may hide another."""
    _odd_folds(transactions)


def _odd_folds(
    transactions: Sequence[tuple[Sequence[str], Sequence[tuple[Odd, int]]]], which: int | None = None, *more: Odd
) -> list[Commit | None]:
    """What would be decided in one go of the folds that appends to tables make, each odd as it says; that with the number
    `which` is odd as `more` say."""
    events: list[StagedTransaction] = []
    for number, (names, odd) in enumerate(transactions):
        content = _plain(*names, of=str(number))
        for one, work in odd:
            content = _odd(content, one, work)
        if which is not None and number == which % len(transactions):
            for one in more:
                content = _odd(content, one, 0)
        events += chunked([content], txn_id=txn(900 + number))
    return _folds_compared(_lake(), events, Rules(number=1, fold_window_ms=1_000))


def _folds_compared(lake: ModelLake, events: Sequence[StagedEvent], rules: Rules) -> list[Commit | None]:
    """What the lake would decide in one go about each of the folds that events make."""
    items = lake.items(events)
    at = {record.position: event for record, event in items}
    batching = Batching(lambda record: at[record.position])
    batching.put([record for record, _ in items])
    found: list[Commit | None] = []
    for unit in [*batching.take(len(items), rules), *batching.rest()]:
        if len(unit) > 1:
            needs = Needs()
            for _, event in unit:
                add_needs(needs, event)
            state = lake.load(needs)
            commit = plain_fold(state, unit)
            if commit is not None:
                assert decide_each(state, unit, decide_one) == [commit]
            found.append(commit)
    return found


def _plain(*names: str, of: str = "") -> Content:
    """An append as nearly all are: of two files to the first table, and one to each other, with names that end with `of`."""
    against = {"b": WrittenAgainst(1, 0)}
    day = {"c": {"day": "2024-01-01"}}
    stats = '{"numRecords":7,"minValues":{"id":1},"maxValues":{"id":5}}'
    return Content(
        tables=tuple(
            TableWork(
                name=name,
                written_against=against.get(name, WrittenAgainst(0, 0)),
                operation_parameters={"mode": "Append"},
                adds=tuple(
                    add(path + of, stats=stats, partition_values=day.get(name, {}))
                    for path in (("twice", name) if number == 0 else (name,))
                ),
            )
            for number, name in enumerate(names)
        ),
        engine_info="test",
    )


def _odd(content: Content, odd: Odd, which: int) -> Content:
    """The same, but for one field: of itself, of one of its tables, or of that one's last file."""
    kind, name, value = odd
    if kind is Content or not content.tables:
        return msgspec.structs.replace(content, **({name: value} if kind is Content else {}))
    works = list(content.tables)
    which = min(which, len(works) - 1)
    if kind is AddFile:
        *files, last = works[which].adds or (add("x"),)
        name, value = "adds", (*files, msgspec.structs.replace(last, **{name: value}))
    works[which] = msgspec.structs.replace(works[which], **{name: value})
    return msgspec.structs.replace(content, tables=tuple(works))


def _event(content: Content) -> StagedTransaction:
    (event,) = chunked([content], txn_id=txn(900))
    return event


def _compared(lake: ModelLake, event: StagedTransaction) -> Changed | None:
    """What the lake would decide about the transaction in one go, if at all."""
    needs = Needs()
    add_needs(needs, event)
    state, content = lake.load(needs), event.content
    for at in (0, START_MS + lake.position):
        changed = plain_append(content, at, state)
        if changed is not None:
            files = [GivenFiles(work) for work in content.tables]
            assert change_tables(content, files, event.envelope.txn_id, at, state) == changed
            assert changed.changes
    return changed
