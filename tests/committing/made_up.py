"""A table of a model lake, and transactions that are made up on it at random, reading with Delta in Spark."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deltalakedb.actions import AddFile, CdcFile, DeletionVector, OtherAction, RemoveFile, as_json
from deltalakedb.delta_types import parse_schema
from deltalakedb.errors import Reason
from deltalakedb.events import Predicate, ReadSet, TableWork, WrittenAgainst
from deltalakedb.predicates import parse_condition
from deltalakedb_committer.deciding.decisions import Accepted, Commit
from deltalakedb_committer.deciding.read_predicates import may_match
from tests.committing.delta_spark import DeltaTable
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
        self.given.adds.append(data_file(path, values if like is None else like.partition_values, data_change))

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


def data_file(path: str, values: Mapping[str, str | None], data_change: bool = True) -> AddFile:
    return add(path, size=1, stats=STATS, partition_values=dict(values), data_change=data_change)
