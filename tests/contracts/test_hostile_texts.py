"""Whatever texts a client sends, in whatever field: they are stored or refused, and no store stops over them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec
import pytest

from deltalakedb.actions import CdcFile, RemoveFile
from deltalakedb.database import Database, StoreAddress
from deltalakedb.events import (
    AddColumn,
    AppTransaction,
    Cancel,
    Content,
    CreateTable,
    LakeAction,
    Literal,
    Predicate,
    ReadSet,
    SetProperties,
    TableWork,
    Term,
    WidenColumn,
    WrittenAgainst,
)
from deltalakedb_committer.deciding.decisions import Commit, Imported
from deltalakedb_committer.deciding.needs import StagedEvent
from tests import imports
from tests.direct import ROOT, DirectCommitter, made, staged
from tests.model_lake import control
from tests.stores import ENGINES, database
from tests.works import add, create, field, other, schema, vector

__all__ = ["database"]

HOSTILE = ("a\0b", "\ud7ff\ue000\U0010ffff\u202e\x1b[31m\n'\"\\;--%s{}?$1")
COLUMNS = schema(("id", "long"), ("n", "integer"), ("p", "string"), ("s", "string"))
STATS = '{"numRecords":10,"minValues":{"s":"a"},"maxValues":{"s":"b"},"nullCount":{"s":0}}'
FILE = add(
    "p=x/f.parquet",
    partition_values={"p": "x"},
    stats=STATS,
    rest='{"tags":{"a":"b"},"clusteringProvider":"c","later":"d"}',
)
PROPERTIES = {
    **dict.fromkeys(("delta.enableDeletionVectors", "delta.enableChangeDataFeed"), "true"),
    "delta.isolationLevel": "WriteSerializable",
    "delta.feature.domainMetadata": "supported",
}
READ = ReadSet(
    files=("p=x/f.parquet",),
    predicates=(Predicate((Term("in", ("p",), (Literal("string", "y"), Literal("date", "2024-01-01"))),)),),
    app_ids=("job",),
)
NUMBERS = count(1)
WORKS: dict[str, tuple[TableWork, ...]] = {
    "create": (
        TableWork(
            name="made",
            intents=(
                CreateTable(
                    schema_string=COLUMNS,
                    partition_columns=("p",),
                    properties={"key": "value"},
                    location=f"{ROOT}/made",
                    description="d",
                ),
            ),
            adds=(FILE,),
        ),
    ),
    "change": (
        TableWork(
            name="orders",
            intents=(
                AddColumn(field=json.dumps(field("new", "long", metadata={"comment": "c"})), after="id"),
                WidenColumn(column=("n",), new_type="long"),
                SetProperties(set={"k": "v"}, unset=("w",)),
            ),
        ),
    ),
    "append": (
        TableWork(
            name="orders",
            operation="WRITE",
            operation_parameters={"a": "b"},
            operation_metrics={"c": "d"},
            written_against=WrittenAgainst(0, 0),
            adds=(FILE, add("p=y/g.parquet", partition_values={"p": "y"}, stats=STATS, deletion_vector=vector())),
            read_version=0,
            read_set=READ,
            others=(
                other("txn", {"appId": "own", "version": 1}),
                other("domainMetadata", {"domain": "d", "configuration": "c", "removed": False}),
                other("later", {"a": ["b"]}),
            ),
            cdc=(CdcFile(path="_change_data/p=x/c", partition_values={"p": "x"}, size=1, rest='{"tags":{"a":"b"}}'),),
        ),
    ),
    "by id": (TableWork(id="id", adds=(FILE,)),),
    "remove": (
        TableWork(
            name="orders",
            read_version=0,
            removes=(RemoveFile(path="p=x/f.parquet", rest='{"later":"x"}'),),
            read_set=READ,
        ),
    ),
}
CONTROLS = (
    LakeAction(action="drop", table="nothing"),
    LakeAction(action="target-add", target="t", parameters={"kind": "copy", "root": "file:///copies"}),
    LakeAction(action="release", table="nothing"),
    Cancel(txn_id="x"),
)
IMPORTS = (
    imports.PROTOCOL,
    imports.metadata(name="n", description="d", configuration={"k": "v"}),
    imports.info(userMetadata="u", tags={"t": "v"}, engineInfo="e", txnId="i", operationParameters={"a": "b"}),
    imports.add("f", tags={"a": "b"}, clusteringProvider="c"),
    imports.remove("g"),
    ("txn", {"appId": "app", "version": 1}),
    ("domainMetadata", {"domain": "d", "configuration": "c", "removed": False}),
    ("cdc", {"path": "_change_data/c", "partitionValues": {}, "size": 1, "dataChange": False}),
    ("later", {"a": "b"}),
)


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> StoreAddress:
    return ENGINES[request.param](request)


def with_each(value: Any, hostile: str) -> Iterator[Any]:
    """`value` as often as it has texts, keys and texts within JSON texts among them, each time with one of them hostile."""
    if isinstance(value, str):
        yield hostile
        if value[:1] in ("{", "["):
            yield from map(json.dumps, with_each(json.loads(value), hostile))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield {(hostile if k == key else k): v for k, v in value.items()}
            for changed in with_each(inner, hostile):
                yield {**value, key: changed}
    elif isinstance(value, list | tuple):
        for n, inner in enumerate(value):
            for changed in with_each(inner, hostile):
                yield [*value[:n], changed, *value[n + 1 :]]


def transactions(works: tuple[TableWork, ...], hostile: str) -> Iterator[Content]:
    whole = Content(tables=works, apps=(AppTransaction("job", 1),), user_metadata="u", engine_info="e")
    for plain in with_each(msgspec.to_builtins(whole), hostile):
        with suppress(msgspec.ValidationError, KeyError):  # no event can say that
            # A table and an application of its own for each, so that none comes between another and its rows.
            apps = [{**app, "version": next(NUMBERS)} for app in plain["apps"]]
            tables = [
                {**work, "name": f"orders-{next(NUMBERS)}"} if work.get("name") == "orders" else work
                for work in plain["tables"]
            ]
            yield msgspec.convert({**plain, "apps": apps, "tables": tables}, Content)


def controls(hostile: str) -> Iterator[StagedEvent]:
    for command in CONTROLS:
        for plain in with_each(msgspec.to_builtins(command), hostile):
            with suppress(msgspec.ValidationError):
                yield control(msgspec.convert(plain, type(command)))


def imported(hostile: str) -> Iterator[StagedEvent]:
    for number, bodies in enumerate(with_each([list(body) for body in IMPORTS], hostile)):
        import_id = f"0190b5a0-0000-7000-8000-{number:012x}"
        yield from imports.version(
            0,
            [tuple(body) for body in bodies],
            kind="BASELINE",
            root=ROOT,
            import_id=import_id,
            table_name=f"t{number}",
            location=f"file:///elsewhere/{number}",
        )


@pytest.mark.parametrize("hostile", HOSTILE, ids=["nul", "odd"])
def test_no_text_stops_a_store(database: Database, hostile: str) -> None:
    """Every event is decided and its batch written, the next one goes on from there, and many of them get as far as rows."""
    committer = DirectCommitter(made(database))
    contents = [content for works in WORKS.values() for content in transactions(works, hostile)]
    names = sorted({work.name for content in contents for work in content.tables if work.name and "-" in work.name})
    committer.apply([staged(create(name, COLUMNS, FILE, by=("p",), properties=PROPERTIES)) for name in names])
    position = committer.cursor.position
    events = [
        *[staged(*c.tables, apps=c.apps, user_metadata=c.user_metadata, engine_info=c.engine_info) for c in contents],
        *controls(hostile),
        *imported(hostile),
    ]

    decisions = [decision for event in events for decision in committer.apply([event])]

    assert committer.cursor.position == position + len(events)
    written = Counter(type(decision) for decision in decisions)
    assert written[Commit] > 50
    assert written[Imported] > 40
