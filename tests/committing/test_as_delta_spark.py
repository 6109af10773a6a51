"""Random histories of a few transactions side by side are decided as Delta in Spark decides them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyspark.sql import SparkSession

from deltalakedb.actions import AddFile, CdcFile, DeletionVector, OtherAction, RemoveFile, as_json, from_json
from deltalakedb.delta_types import parse_schema
from deltalakedb.errors import Reason
from deltalakedb.events import Predicate, ReadSet, TableWork, WrittenAgainst
from deltalakedb.predicates import parse_condition
from deltalakedb_committer.deciding.decisions import Accepted, Commit
from deltalakedb_committer.deciding.read_predicates import may_match
from tests.committing.delta_spark import DeltaTable, DeltaTransaction
from tests.model_lake import ModelLake, rejected, staged
from tests.works import add, create, other, schema

COLUMNS = (("id", "long"), ("x", "integer"), ("d", "date"), ("s", "string"), ("note", "string"))
SCHEMA = schema(*COLUMNS)
VALUES: dict[str, Sequence[str | None]] = {
    "x": ("1", "2", None),
    "d": ("2024-01-01", "2024-06-30", None),
    "s": ("a", "ab", "É b", None),
}
PARTITIONINGS = ((), ("x",), ("x",), ("d", "s"), ("s", "x", "d"))
PREDICATES = (
    *(("x = 1",), ("x < 2",), ("x IS NULL",), ("x IS NOT NULL",), ("id > 5",), ("x = 2", "id = 1"), ("true",)),
    *(("x = 1 OR x = 2",), ("x = 1 OR id = 1",), ("NOT x = 1",), ("x NOT IN (1, 7)",), ("x IN (2, NULL)",)),
    *(("d = DATE '2024-01-01'",), ("d > '2024-02-01'",), ("d IS NULL",), ("NOT d >= '2024-06-30'", "s = 'a'")),
    *(("s = 'a'",), ("s LIKE 'a%'",), ("s > 'a'",), ("s <> 'a' AND d IS NOT NULL",), ("s IN ('ab', 'É b')",)),
    *(("s IS NULL OR d = DATE '2024-06-30'",), ("s = 'a' OR note = 'a'",), ("NOT (s = 'a' AND x = 1)",)),
)
"""Conditions that all have to be true."""
REASONS = {
    "ConcurrentAppendException": {Reason.CONCURRENT_APPEND},
    "ConcurrentDeleteReadException": {Reason.CONCURRENT_DELETE_READ},
    "ConcurrentDeleteDeleteException": {Reason.CONCURRENT_DELETE_DELETE, Reason.FILE_NOT_LIVE},
    "ConcurrentTransactionException": {Reason.CONCURRENT_TRANSACTION},
    "MetadataChangedException": {Reason.METADATA_CHANGED, Reason.SCHEMA_CHANGED},
    "ProtocolChangedException": {Reason.PROTOCOL_CHANGED},
    "DELTA_CANNOT_MODIFY_APPEND_ONLY": {Reason.APPEND_ONLY},
}
PROPERTIES = {
    "vectors": "delta.enableDeletionVectors",
    "row ids": "delta.enableRowTracking",
    "change data": "delta.enableChangeDataFeed",
    "append only": "delta.appendOnly",
}

STATS = '{"numRecords":10,"tightBounds":false}'
"""Of every file: deletion vectors and row ids need it."""


@dataclass(slots=True)
class Given:
    """One transaction, in words of its own."""

    kind: str
    level: str
    asked: str | None
    by: tuple[str, ...]
    whole: bool = False
    predicates: list[Predicate] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Paths that it read, whatever it was looking for."""
    apps: list[str] = field(default_factory=list)
    adds: list[AddFile] = field(default_factory=list)
    removes: list[RemoveFile] = field(default_factory=list)
    cdc: list[CdcFile] = field(default_factory=list)
    others: list[OtherAction] = field(default_factory=list)

    @property
    def reads(self) -> bool:
        return self.whole or bool(self.predicates or self.files)

    @property
    def changes_data(self) -> bool:
        files: list[AddFile | RemoveFile] = [*self.adds, *self.removes]
        return bool(self.others) or any(each.data_change for each in files)

    def has(self, kind: str) -> bool:
        """Whether there is such an action among the others."""
        return any(each.kind == kind for each in self.others)

    def actions(self) -> list[tuple[str, dict[str, Any]]]:
        """As Delta takes them: it lists by itself the features that properties need."""
        of_files = [*(("add", each) for each in self.adds), *(("remove", each) for each in self.removes)]
        typed = [(kind, json.loads(msgspec.json.encode(as_json(kind, each)))) for kind, each in of_files]
        typed += [("cdc", as_json("cdc", each)) for each in self.cdc]
        others = [each for each in self.others if each.kind != "protocol" or not self.has("metaData")]
        return typed + [(each.kind, json.loads(each.json)) for each in others]


class Making:
    """Makes up a transaction on the table as it finds it, and reads for it with Delta."""

    def __init__(self, chance: random.Random, number: int, ours: Ours, theirs: DeltaTable) -> None:
        table = ours.lake.table("t")
        assert table.metadata is not None
        assert table.protocol is not None
        self.chance, self.number = chance, number
        self.metadata, self.protocol = table.metadata, table.protocol
        self.live = dict(ours.live)
        self.partitioning = table.facts_under(ours.lake.rules).partitioning
        asked = chance.choice([None, None, None, "Serializable", "WriteSerializable"])
        level = self.metadata.configuration["delta.isolationLevel"]
        make = chance.choice(KINDS)
        self.given = Given(make.__name__, level, asked, self.metadata.partition_columns)
        # The stricter one comes first in the alphabet, too.
        self.txn = theirs.begin(min(level, asked or level))
        make(self)

    def on(self, name: str) -> bool:
        """Whether the table has that property."""
        return self.metadata.configuration.get(PROPERTIES[name]) == "true"

    def odds(self, of_one: float) -> bool:
        return self.chance.random() < of_one

    def read(self, *conditions: str) -> list[str]:
        """Read with these conditions, or any. The files that may have rows of them."""
        conditions = conditions or self.chance.choice(PREDICATES)
        self.given.predicates.append(_predicate(conditions))
        found = self.txn.read(conditions)
        matching = {
            path
            for path, file in self.live.items()
            if may_match(self.given.predicates[-1], self.partitioning, file.partition_values)
        }
        assert {*found} <= matching, (conditions, found, matching)
        return found

    def read_whole(self) -> None:
        self.given.whole = True
        self.txn.read_whole_table()

    def file(self, like: AddFile | None = None, *, data_change: bool = True) -> None:
        """Add a file, in the partition of another one or in any."""
        values = {name: self.chance.choice(VALUES[name]) for name in self.given.by}
        path = f"t{self.number}-{len(self.given.adds)}"
        self.given.adds.append(_file(path, values if like is None else like.partition_values, data_change))

    def gone(self, path: str, *, data_change: bool = True) -> AddFile:
        """Remove a file."""
        file = self.live[path]
        self.given.removes.append(
            RemoveFile(
                path=path,
                data_change=data_change,
                deletion_vector=file.deletion_vector,
                deletion_timestamp=1,
                extended_file_metadata=True,
                partition_values=file.partition_values,
                size=file.size,
            )
        )
        return file

    def left(self, file: AddFile) -> None:
        """Add a file again, with fewer of its rows."""
        vector = _vector(10 * self.number + len(self.given.adds))
        self.given.adds.append(msgspec.structs.replace(file, deletion_vector=vector, data_change=True))

    def some(self, paths: Sequence[str]) -> list[str]:
        return self.chance.sample(paths, min(len(paths), self.chance.choice([1, 1, 2])))

    def define(self, schema_string: str | None = None, **properties: str) -> None:
        """Change the table's metadata."""
        body = as_json("metaData", self.metadata)
        body["configuration"] = {**body["configuration"], **properties}
        body["schemaString"] = schema_string or body["schemaString"]
        self.given.others.append(other("metaData", msgspec.json.encode(body).decode()))

    def support(self, feature: str) -> None:
        """Add a feature to the table's protocol."""
        old = self.protocol
        new = msgspec.structs.replace(old, writer_features=tuple(sorted({*(old.writer_features or ()), feature})))
        if feature != "changeDataFeed":
            features = tuple(sorted({*(old.reader_features or ()), feature}))
            new = msgspec.structs.replace(new, min_reader_version=3, reader_features=features)
        self.given.others.append(other("protocol", msgspec.json.encode(as_json("protocol", new)).decode()))


def append(making: Making) -> None:
    for _ in range(making.chance.choice([1, 1, 2])):
        making.file()


def insert_select(making: Making) -> None:
    if making.odds(0.3):
        making.read_whole()
    else:
        making.read()
    append(making)


def delete(making: Making) -> None:
    """Rows of files: with deletion vectors, by writing what is left of them, or all of them."""
    for path in making.some(making.read()):
        file = making.gone(path)
        how = making.chance.choice(["vector", "vector", "rewrite", "whole"])
        if how == "vector" and making.on("vectors"):
            making.left(file)
        elif how == "rewrite":
            making.file(file)
        if making.on("change data") and making.odds(0.7):
            change = f"_change_data/{path}-{making.number}"
            making.given.cdc.append(CdcFile(path=change, partition_values=file.partition_values, size=1))


def optimize(making: Making) -> None:
    """No data changes: files of a partition become one."""
    found = making.read()
    if found:
        like = making.live[making.chance.choice(found)]
        for path in found:
            if making.live[path].partition_values == like.partition_values:
                making.gone(path, data_change=False)
        making.file(like, data_change=False)


def compact_unread(making: Making) -> None:
    """As `optimize`, and nothing is said about what was read."""
    for path in making.some(sorted(making.live)):
        making.file(making.gone(path, data_change=False), data_change=False)


def truncate(making: Making) -> None:
    making.read("true")
    for path in sorted(making.live):
        making.gone(path)


def overwrite(making: Making) -> None:
    """All of the table; sometimes with another schema, under which nothing that was there would be valid."""
    if making.odds(0.5):
        making.read_whole()
    truncate(making)
    making.file()
    if making.odds(0.3):
        making.define(schema(*COLUMNS[:-1], ("note", "long")))


def replace_where(making: Making) -> None:
    found = making.read()
    for path in found:
        making.gone(path)
    making.file(making.live[found[0]] if found else None)


def read_files(making: Making) -> None:
    """What was read is known by its files alone."""
    making.given.files = making.some(sorted(making.live))
    making.txn.read_files(making.given.files)
    append(making)
    for path in making.given.files:
        if making.odds(0.3):
            making.gone(path)


def remove_unread(making: Making) -> None:
    """Files or rows of them, and nothing is said about what was read."""
    for path in making.some(sorted(making.live)):
        file = making.gone(path)
        if making.on("vectors") and making.odds(0.7):
            making.left(file)
    if making.odds(0.5):
        making.file()


def state_again(making: Making) -> None:
    """Files stay as they are; what is said about them changes."""
    making.given.files = making.some(sorted(making.live))
    making.txn.read_files(making.given.files)
    for path in making.given.files:
        making.given.adds.append(msgspec.structs.replace(making.live[path], data_change=False))


def alter(making: Making) -> None:
    """A column more, a property, a feature."""
    if making.odds(0.3):
        making.read()
    match making.chance.choice(["column", "property", "append only", "vectors"]):
        case "column":
            fields = json.loads(making.metadata.schema_string)["fields"]
            making.define(schema(*fields, {**fields[-1], "name": f"more{making.number}"}))
        case "vectors" if not making.on("vectors"):
            making.define(**{PROPERTIES["vectors"]: "true"})
            making.support("deletionVectors")
        case "append only":
            making.define(**{PROPERTIES["append only"]: str(not making.on("append only")).lower()})
        case _:
            making.define(by=f"t{making.number}")


def upgrade(making: Making) -> None:
    making.support(making.chance.choice(["changeDataFeed", "v2Checkpoint", "typeWidening"]))
    if making.odds(0.5):
        insert_select(making)


def application(making: Making) -> None:
    if making.odds(0.7):
        making.given.apps = ["app"]
        making.txn.read_app("app")
    making.given.others.append(other("txn", {"appId": "app", "version": making.number}))
    append(making)


def domain(making: Making) -> None:
    making.given.others.append(other("domainMetadata", {"domain": "d", "configuration": "{}", "removed": False}))
    if making.odds(0.5):
        append(making)


KINDS: Sequence[Callable[[Making], None]] = (
    *(append, append, append, append, insert_select, insert_select, delete, delete, delete, optimize, optimize),
    *(compact_unread, truncate, overwrite, replace_where, replace_where, read_files, read_files),
    *(remove_unread, remove_unread, remove_unread, state_again, alter, alter, upgrade, application, domain),
)
"""The more often, the likelier."""


class Ours:
    """The table in a lake of ours."""

    def __init__(self, level: str, by: tuple[str, ...], on: Sequence[str], files: Sequence[AddFile]) -> None:
        self.lake = ModelLake(fence=False)
        properties = {PROPERTIES[name]: "true" for name in on}
        properties |= {"delta.isolationLevel": level, "delta.feature.domainMetadata": "supported"}
        self.first = self.lake.commit(create("t", SCHEMA, *files, by=by, properties=properties))
        self.live = {file.path: file for file in files}

    def first_actions(self) -> list[tuple[str, dict[str, Any]]]:
        """Those of version 0, as Delta has them."""
        (change,) = self.first.changes
        time_ms = self.first.time_ms
        info = {"timestamp": time_ms, "inCommitTimestamp": time_ms, "operation": "WRITE", "operationParameters": {}}
        typed: list[tuple[str, Any]] = [("protocol", change.protocol), ("metaData", change.metadata)]
        typed += [("domainMetadata", each) for each in change.domains] + [("add", each) for each in change.adds]
        return [("commitInfo", info), *((kind, _plain(kind, each)) for kind, each in typed)]

    def begin(self) -> tuple[int, WrittenAgainst]:
        """Where a transaction begins."""
        head = self.lake.heads[1]
        return head["version"], WrittenAgainst(head["metadata_version"], head["protocol_version"])

    def commit(self, given: Given, begun: tuple[int, WrittenAgainst]) -> Reason | None:
        """Decide it; why it is rejected, if it is."""
        found = ReadSet(
            whole_table=given.whole,
            predicates=tuple(given.predicates),
            files=tuple(given.files),
            app_ids=tuple(given.apps),
        )
        work = TableWork(
            name="t",
            read_version=begun[0],
            read_set=None if found == ReadSet() else found,
            written_against=begun[1],
            adds=tuple(given.adds),
            removes=tuple(given.removes),
            cdc=tuple(given.cdc),
            others=tuple(given.others),
        )
        decision = self.lake.decide(staged(work, isolation=given.asked))
        if not isinstance(decision, Commit | Accepted):
            return Reason(rejected(decision).reason)
        for file in given.removes:
            del self.live[file.path]
        self.live |= {file.path: file for file in given.adds}
        return None


def _predicate(conditions: Sequence[str]) -> Predicate:
    text = " AND ".join(f"({part})" for part in conditions)
    return parse_condition(text, parse_schema(SCHEMA)).read_predicate()


def _plain(kind: str, action: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(as_json(kind, action)))
    return found


def _vector(offset: int) -> DeletionVector:
    where = "ab^-aqEH.-t@S}K{vb[*"
    return DeletionVector(storage_type="u", path_or_inline_dv=where, offset=offset, size_in_bytes=40, cardinality=2)


def _file(path: str, values: Mapping[str, str | None], data_change: bool = True) -> AddFile:
    return add(path, size=1, stats=STATS, partition_values=dict(values), data_change=data_change)


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

    given: Given
    txn: DeltaTransaction
    at: tuple[int, WrittenAgainst]
    seen: int
    """How many were committed before it began."""


def decide_both(spark: SparkSession, folder: Path, seed: int) -> list[Decided]:
    """A random history, up to the first transaction that only one of the two commits."""
    chance = random.Random(seed)
    level = chance.choice(["Serializable", "WriteSerializable"])
    by = chance.choice(PARTITIONINGS)
    on = [name for name in PROPERTIES if chance.random() < (0.1 if name == "append only" else 0.4)]
    files = [_file(f"f{n}", {name: chance.choice(VALUES[name]) for name in by}) for n in range(3)]
    ours = Ours(level, by, on, files)
    table = DeltaTable(spark, folder / str(seed), level, ours.first_actions())
    committed = list[Given]()
    begun: list[_Begun] = []
    found: list[Decided] = []
    numbers = {0: 0}
    count = chance.choice([3, 4, 5])
    for number in range(count):
        made = Making(chance, number, ours, table)
        begun.append(_Begun(made.given, made.txn, ours.begin(), len(committed)))
        # As a rule all of them begin before any ends.
        while begun and (number == count - 1 or chance.random() < 0.25):
            one = begun.pop(0)
            reason = ours.commit(one.given, one.at)
            decided = Decided(one.given, list(committed), one.seen, reason, one.txn.commit(one.given.actions()))
            found.append(decided)
            if (decided.ours is None) != (decided.theirs is None):
                return found
            if decided.ours is None:
                committed.append(one.given)
                # Delta makes a version of a transaction that does nothing, too.
                numbers.setdefault(ours.begin()[0], len(table.versions()) - 1)
    compare(ours, table, numbers)
    return found


def compare(ours: Ours, theirs: DeltaTable, numbers: Mapping[int, int]) -> None:
    """The same files are live, under the same metadata; where rows have ids, they have been there since the same version,
    and no two rows have the same one. `numbers` are theirs of our versions."""
    live = theirs.live()
    rows = {row["path"]: row for row in ours.lake.rows["dl_live_files"]}
    assert {path: row["dv_id"] for path, row in rows.items()} == {
        path: from_json("add", json.dumps(body)).dv_id for path, body in live.items()
    }
    metadata = ours.lake.table("t").metadata
    assert metadata is not None
    newest = [body for actions in theirs.versions() for kind, body in actions if kind == "metaData"][-1]
    assert json.loads(metadata.schema_string) == json.loads(newest["schemaString"])
    assert metadata.configuration == newest["configuration"]
    if metadata.configuration.get(PROPERTIES["row ids"]) == "true":
        assert {path: numbers[row["default_row_commit_version"]] for path, row in rows.items()} == {
            path: body["defaultRowCommitVersion"] for path, body in live.items()
        }
        for first in ([row["base_row_id"] for row in rows.values()], [body["baseRowId"] for body in live.values()]):
            assert all(one + 10 <= two for one, two in pairwise(sorted(first))), first


def explained(decided: Decided) -> str | None:
    """Why both may differ; None: they may not."""
    given, earlier = decided.given, decided.earlier
    changed = earlier[decided.seen :]
    if decided.ours is not None and decided.theirs is not None:
        return "Several things stand against it, and each names the first that it looks at."
    added_feature = any(each.has("protocol") for each in changed)
    if decided.ours in (Reason.PROTOCOL_CHANGED, Reason.METADATA_CHANGED) and added_feature:
        return "Delta lets a reader pass beside a feature that does no harm; with us a change stands against readers."
    if decided.ours is Reason.CONCURRENT_TRANSACTION and given.has("txn") and any(each.has("txn") for each in earlier):
        return "A number of an application is committed once; Delta leaves that to whoever asks for the newest first."
    if decided.ours is Reason.CONCURRENT_APPEND and given.asked is not None and not given.changes_data:
        return "Who asks for an isolation level has it; Delta judges whoever changes no data by snapshots."
    if decided.ours is None and not given.reads and not given.has("metaData"):
        if decided.theirs == "MetadataChangedException" and any(each.has("metaData") for each in changed):
            return "Who read nothing is judged by its files alone, and they are valid under the newer metadata."
        if decided.theirs == "ConcurrentAppendException" and given.removes and not given.by:
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
        pytest.param(range(20), id="some", marks=pytest.mark.timeout(600)),
        pytest.param(range(20, 200), id="many", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_decided_as_delta_in_spark_decides(quick_spark: SparkSession, tmp_path: Path, seeds: range) -> None:
    """The same transactions, begun and committed in the same order on the same table: the same ones fail, for the same
    reason, but where we mean to differ. Where the same ones are committed, the same is left."""
    decided = [each for seed in seeds for each in decide_both(quick_spark, tmp_path, seed)]

    assert [each for each in decided if not each.alike and explained(each) is None] == []
    assert sum(each.theirs is None for each in decided) > len(seeds)
    met = {f"{what}Exception" for what in ("ConcurrentAppend", "ConcurrentDeleteRead", "MetadataChanged")}
    assert {each.theirs for each in decided if each.alike} >= {None, *met}
