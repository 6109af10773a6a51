"""Random histories of two or three transactions side by side are decided as Delta in Spark decides them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from deltalakedb.actions import AddFile, OtherAction, RemoveFile
from deltalakedb.delta_types import parse_schema
from deltalakedb.errors import Reason
from deltalakedb.events import ReadSet, TableWork, WrittenAgainst
from deltalakedb.predicates import parse_condition
from deltalakedb_committer.deciding.decisions import Accepted, Commit
from tests.committing.delta_spark import DeltaTable, DeltaTransaction
from tests.model_lake import ModelLake, rejected, staged
from tests.works import add, create, other, schema

COLUMNS = schema(("id", "long"), ("x", "integer"))
VALUES = ("1", "2", None)
PREDICATES = (
    *(("x = 1",), ("x < 2",), ("x IS NULL",), ("x IS NOT NULL",), ("id > 5",), ("x = 2", "id = 1")),
    *(("x = 1 OR x = 2",), ("x = 1 OR id = 1",), ("NOT x = 1",)),
)
"""Conditions that all have to be true."""
REASONS = {
    "ConcurrentAppendException": {Reason.CONCURRENT_APPEND},
    "ConcurrentDeleteReadException": {Reason.CONCURRENT_DELETE_READ},
    "ConcurrentDeleteDeleteException": {Reason.CONCURRENT_DELETE_DELETE, Reason.FILE_NOT_LIVE},
    "ConcurrentTransactionException": {Reason.CONCURRENT_TRANSACTION},
    "MetadataChangedException": {Reason.METADATA_CHANGED},
    "ProtocolChangedException": {Reason.PROTOCOL_CHANGED},
}


@dataclass(slots=True)
class Given:
    """One transaction, in words of its own."""

    level: str
    partitioned: bool
    whole: bool = False
    predicates: list[tuple[str, ...]] = field(default_factory=list)
    apps: list[str] = field(default_factory=list)
    adds: list[tuple[str, str | None]] = field(default_factory=list)
    removes: list[tuple[str, str | None]] = field(default_factory=list)
    data_change: bool = True
    special: str | None = None

    @property
    def reads(self) -> bool:
        return self.whole or bool(self.predicates)


def a_transaction(chance: random.Random, number: int, live: dict[str, str | None], level: str, by_x: bool) -> Given:
    given = Given(level, by_x)
    given.whole = chance.random() < 0.15
    given.predicates = chance.sample(PREDICATES, chance.choice([0, 0, 1, 1, 2]))
    given.apps = ["app"] if chance.random() < 0.1 else []
    for n in range(chance.choice([0, 1, 1, 2])):
        given.adds.append((f"t{number}-{n}", chance.choice(VALUES) if by_x else None))
    if live and chance.random() < 0.5:
        path = chance.choice(sorted(live))
        given.removes.append((path, live[path]))
    given.data_change = chance.random() < 0.8
    given.special = chance.choice([None] * 7 + ["metaData", "protocol", "txn", "domainMetadata"])
    return given


class Ours:
    """The table in a lake of ours."""

    def __init__(self, level: str, by_x: bool, files: dict[str, str | None]) -> None:
        self.lake = ModelLake(fence=False)
        properties = {"delta.isolationLevel": level, "delta.feature.domainMetadata": "supported"}
        adds = [_added(path, value, by_x) for path, value in files.items()]
        self.lake.commit(create("t", COLUMNS, *adds, by=("x",) if by_x else (), properties=properties))

    def begin(self) -> tuple[int, WrittenAgainst]:
        """Where a transaction begins."""
        head = self.lake.heads[1]
        return head["version"], WrittenAgainst(head["metadata_version"], head["protocol_version"])

    def commit(self, given: Given, begun: tuple[int, WrittenAgainst], number: int) -> Reason | None:
        """Decide it; why it is rejected, if it is."""
        parts = [" AND ".join(f"({part})" for part in predicate) for predicate in given.predicates]
        predicates = [parse_condition(text, parse_schema(COLUMNS)).read_predicate() for text in parts]
        found = ReadSet(whole_table=given.whole, predicates=tuple(predicates), app_ids=tuple(given.apps))
        work = TableWork(
            name="t",
            read_version=begun[0],
            read_set=None if found == ReadSet() else found,
            written_against=begun[1],
            adds=tuple(_added(p, v, given.partitioned, given.data_change) for p, v in given.adds),
            removes=tuple(RemoveFile(path=path, data_change=given.data_change) for path, _ in given.removes),
            others=() if given.special is None else (self._other(given.special, number),),
        )
        decision = self.lake.decide(staged(work))
        return None if isinstance(decision, Commit | Accepted) else Reason(rejected(decision).reason)

    def _other(self, kind: str, number: int) -> OtherAction:
        table = self.lake.table("t")
        assert table.metadata is not None
        assert table.protocol is not None
        if kind == "metaData":
            body: dict[str, Any] = {
                "id": table.metadata.id,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": table.metadata.schema_string,
                "partitionColumns": table.metadata.partition_columns,
                "configuration": {**table.metadata.configuration, "by": f"t{number}"},
            }
        elif kind == "protocol":
            features = sorted({*(table.protocol.writer_features or ()), "changeDataFeed"})
            body = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features}
        else:
            body = SPECIAL[kind]
        return other(kind, body)


SPECIAL: dict[str, dict[str, Any]] = {
    "txn": {"appId": "app", "version": 1},
    "domainMetadata": {"domain": "d", "configuration": "{}", "removed": False},
}


def first_actions(level: str, by_x: bool, files: dict[str, str | None]) -> list[dict[str, Any]]:
    protocol = {
        "minReaderVersion": 1,
        "minWriterVersion": 7,
        "writerFeatures": ["appendOnly", "domainMetadata", "invariants"],
    }
    return [
        {"protocol": protocol},
        {"metaData": _metadata(level, by_x, {})},
        *({"add": _plain_add(path, value, by_x, True)} for path, value in files.items()),
    ]


def _metadata(level: str, by_x: bool, more: dict[str, str]) -> dict[str, Any]:
    return {
        "id": "00000000-0000-0000-0000-000000000001",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": COLUMNS,
        "partitionColumns": ["x"] if by_x else [],
        "configuration": {"delta.isolationLevel": level, **more},
        "createdTime": 1,
    }


def _plain_add(path: str, value: str | None, by_x: bool, data_change: bool) -> dict[str, Any]:
    values = {"x": value} if by_x else {}
    return {"path": path, "partitionValues": values, "size": 1, "modificationTime": 1, "dataChange": data_change}


def _added(path: str, value: str | None, by_x: bool, data_change: bool = True) -> AddFile:
    return add(path, size=1, partition_values={"x": value} if by_x else {}, data_change=data_change)


def theirs(given: Given, txn: DeltaTransaction, number: int) -> str | None:
    """Commit it there."""
    actions: list[dict[str, Any]] = [
        {"add": _plain_add(path, value, given.partitioned, given.data_change)} for path, value in given.adds
    ]
    for path, value in given.removes:
        gone = {"path": path, "deletionTimestamp": 1, "dataChange": given.data_change, "extendedFileMetadata": True}
        actions.append({"remove": {**gone, "partitionValues": {"x": value} if given.partitioned else {}, "size": 1}})
    if given.special == "metaData":
        actions.append({"metaData": _metadata(given.level, given.partitioned, {"by": f"t{number}"})})
    elif given.special == "protocol":
        features = ["appendOnly", "changeDataFeed", "domainMetadata", "invariants"]
        actions.append({"protocol": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features}})
    elif given.special is not None:
        actions.append({given.special: SPECIAL[given.special]})
    return txn.commit(actions)


@dataclass(frozen=True, slots=True)
class Decided:
    """One transaction, as both decide it."""

    given: Given
    earlier: list[Given]
    """What was committed before it."""
    seen: int
    """How many of these before it began."""
    ours: Reason | None
    theirs: str | None

    @property
    def alike(self) -> bool:
        if self.theirs is None:
            return self.ours is None
        return self.ours in REASONS[self.theirs]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A transaction under way."""

    number: int
    given: Given
    txn: DeltaTransaction
    at: tuple[int, WrittenAgainst]
    seen: int
    """How many were committed before it began."""


def decide_both(spark: SparkSession, folder: Path, seed: int) -> list[Decided]:
    """A random history, up to the first transaction that only one of the two commits."""
    chance = random.Random(seed)
    level = chance.choice(["Serializable", "WriteSerializable"])
    by_x = chance.random() < 0.7
    files = {f"f{n}": chance.choice(VALUES) if by_x else None for n in range(4)}
    table = DeltaTable(spark, folder / str(seed), first_actions(level, by_x, files))
    ours = Ours(level, by_x, files)
    live, committed = dict(files), list[Given]()
    begun: list[_Begun] = []
    found: list[Decided] = []
    count = chance.choice([2, 3, 3])
    for number in range(count):
        given = a_transaction(chance, number, live, level, by_x)
        txn = table.begin()
        if given.whole:
            txn.read_whole_table()
        for predicate in given.predicates:
            txn.read(predicate)
        for app in given.apps:
            txn.read_app(app)
        begun.append(_Begun(number, given, txn, ours.begin(), len(committed)))
        # As a rule all of them begin before any ends.
        while begun and (number == count - 1 or chance.random() < 0.25):
            one = begun.pop(0)
            decided = Decided(
                one.given,
                list(committed),
                one.seen,
                ours.commit(one.given, one.at, one.number),
                theirs(one.given, one.txn, one.number),
            )
            found.append(decided)
            if (decided.ours is None) != (decided.theirs is None):
                return found
            if decided.ours is None:
                committed.append(one.given)
                live |= dict(one.given.adds)
                for path, _ in one.given.removes:
                    del live[path]
    return found


def explained(decided: Decided) -> str | None:
    """Why both may differ; None: they may not."""
    given, earlier = decided.given, [each.special for each in decided.earlier]
    changed = earlier[decided.seen :]
    if decided.ours is not None and decided.theirs is not None:
        return "Several things stand against it, and each names the first that it looks at."
    if decided.ours is Reason.PROTOCOL_CHANGED and "protocol" in changed:
        return (
            "Delta lets a reader pass beside a new feature that does no harm; with us a change stands against readers."
        )
    if decided.ours is Reason.CONCURRENT_TRANSACTION and given.special == "txn" and "txn" in earlier:
        return "A number of an application is committed once; Delta leaves that to whoever asks for the newest first."
    if decided.ours is None and not given.reads and given.special != "metaData":
        if decided.theirs == "MetadataChangedException" and "metaData" in changed:
            return "Who read nothing is judged by its files alone, and they are valid under the newer metadata."
        if decided.theirs == "ConcurrentAppendException" and given.removes and not given.partitioned:
            # Delta has no removes without a read; a table without partitions counts as read by all that are not blind.
            return "Who removes live files under WriteSerializable and says that it read nothing is taken at its word."
    return None


@pytest.fixture
def quick_spark(spark: SparkSession) -> Iterator[SparkSession]:
    """Without a checksum of each version, for which all of the table would be read."""
    name = "spark.databricks.delta.writeChecksumFile.enabled"
    spark.conf.set(name, "false")
    yield spark
    spark.conf.unset(name)


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(6), id="some"),
        pytest.param(range(6, 150), id="many", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_decided_as_delta_in_spark_decides(quick_spark: SparkSession, tmp_path: Path, seeds: range) -> None:
    """The same transactions, begun and committed in the same order on the same table: the same ones fail, for the same
    reason, but where we mean to differ."""
    decided = [each for seed in seeds for each in decide_both(quick_spark, tmp_path, seed)]

    assert [each for each in decided if not each.alike and explained(each) is None] == []
    assert sum(each.theirs is None for each in decided) > len(seeds)
    assert {each.alike for each in decided if each.theirs is not None} >= {True}
