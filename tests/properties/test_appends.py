"""Appends that are decided in one go: just so would they be decided by those who look closely."""

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
from deltalakedb_committer.deciding.appends import plain_append
from deltalakedb_committer.deciding.files import GivenFiles
from deltalakedb_committer.deciding.needs import Needs, add_needs
from deltalakedb_committer.deciding.transactions import Changed, change_tables
from tests.history import Historian
from tests.model_lake import START_MS, ModelLake, chunked, control, txn
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
ODD = [
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
def test_several_odd_things(names: list[str], odd: list[tuple[tuple[type, str, Any], int]]) -> None:
    """As above; one may hide another."""
    content = _plain(*names)
    for one, which in odd:
        content = _odd(content, one, which)

    _compared(_lake(), _event(content))


def _plain(*names: str) -> Content:
    """An append as nearly all are: of two files to the first table, and one to each other."""
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
                    add(path, stats=stats, partition_values=day.get(name, {}))
                    for path in (("twice", name) if number == 0 else (name,))
                ),
            )
            for number, name in enumerate(names)
        ),
        engine_info="test",
    )


def _odd(content: Content, odd: tuple[type, str, Any], which: int) -> Content:
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
