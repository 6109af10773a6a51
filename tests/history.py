"""Random histories that mean something: each next event is made from what the lake holds, mostly right, often late."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence

import msgspec

from deltalakedb.actions import AddFile, DeletionVector, OtherAction, RemoveFile
from deltalakedb.events import (
    AddColumn,
    AppTransaction,
    Content,
    Intent,
    LakeAction,
    Literal,
    Predicate,
    ReadSet,
    SetProperties,
    SetRules,
    TableWork,
    Term,
    Tick,
    WidenColumn,
    WrittenAgainst,
)
from deltalakedb_committer.deciding.needs import StagedEvent
from tests.history_imports import NAMES as IMPORTED
from tests.history_imports import Importer
from tests.model_lake import ModelLake, cancel, chunked, control, txn
from tests.works import add, create, field, other, schema, vector

NAMES = ("a", "b", "c")
_BY = {"c": ("day",)}
"""One of the tables is partitioned."""
_DAYS = ("2024-01-01", "2024-01-02", None)
_DOMAINS = {"delta.feature.domainMetadata": "supported"}
_KINDS: tuple[dict[str, str], ...] = (
    {},
    {"delta.isolationLevel": "WriteSerializable"},
    {"delta.isolationLevel": "WriteSerializable", "delta.enableDeletionVectors": "true"},
    {"delta.isolationLevel": "WriteSerializable", "delta.enableRowTracking": "true"},
)


class Historian:
    """Makes events for a lake, from `chance` alone."""

    columns: Sequence[tuple[str, str]] = [("id", "integer"), ("day", "date")]
    """Of every table that is made."""

    def __init__(self, lake: ModelLake, chance: random.Random, *, imports: bool = False, folds: bool = False) -> None:
        """With `imports` there are logs from elsewhere too, and actions on the lake itself; with `folds` many
        transactions that may share a commit."""
        self._lake = lake
        self._chance = chance
        self._importer = Importer(lake, chance) if imports else None
        self._folds = folds
        self._number = 1000
        self._sent: list[StagedEvent] = []
        self._late: list[StagedEvent] = []

    def events(self) -> list[StagedEvent]:
        """The next few events: a transaction in one or more chunks, a repetition, a control event, or junk."""
        found = self._next()
        self._sent += found
        if len(found) > 1 and self._maybe(0.3):
            self._chance.shuffle(found)
        if len(found) > 1 and self._maybe(0.3):
            self._late.append(found.pop())
        return found

    def follow(self, event: StagedEvent) -> None:
        """Have the lake in memory decide what was made, so that what comes next is made from that."""
        self._lake.decide(event)

    def _next(self) -> list[StagedEvent]:
        roll = self._chance.random()
        if roll < 0.12 and self._sent:
            return [self._chance.choice(self._sent)]
        if roll < 0.3 and self._late:
            return [self._late.pop()]
        if roll < 0.31:
            return [cancel(txn(self._number + self._chance.randint(-3, 1)))]
        if roll < 0.32:
            return [control(Tick(), control_id=txn(1))]
        if roll < 0.33:
            rule_sets = [1, 3, 5, 7, 7] if self._folds else [1, 2]
            return [control(SetRules(rule_set=self._chance.choice(rule_sets)), control_id=txn(self._new_number()))]
        if self._folds and roll < 0.8 and (appends := self.appends()):
            return appends
        names = list(NAMES)
        if self._importer is not None:
            if roll < 0.36:
                return [control(self._action(), control_id=txn(self._new_number()))]
            if roll < 0.7:
                return [self._importer.event()]
            names += self._importer.adopted() * 2
        names = list(dict.fromkeys(self._chance.sample(names, self._chance.choice([1, 1, 2, 3]))))
        whole = Content(tables=tuple(map(self._work, names)), apps=self._apps(), isolation=self._isolation())
        return list(chunked(self._parts(whole), txn_id=txn(self._new_number())))

    def appends(self) -> list[StagedEvent]:
        """Transactions that may share a commit, most of them right; none while there is no table to append to."""
        chance = self._chance
        names = [name for name in NAMES if self._head(name) is not None]
        found: list[StagedEvent] = []
        for _ in range(chance.randint(1, 5) if names else 0):
            works = [
                TableWork(
                    name=name,
                    written_against=None if self._maybe(0.05) else WrittenAgainst(*(self._head(name) or (0, 0, 0))[1:]),
                    operation=chance.choice(["WRITE", "WRITE", "STREAMING UPDATE"]),
                    operation_parameters={"mode": "Append", "n": chance.choice("12")},
                    operation_metrics={"numFiles": "1", "bytes": str(chance.randint(0, 10**6))},
                    adds=self._adds(name),
                )
                for name in chance.sample(names, chance.randint(1, len(names)))
            ]
            content = Content(tables=tuple(works), apps=self._apps(), user_metadata="x" if self._maybe(0.05) else None)
            found += chunked([content], txn_id=txn(self._new_number()))
        return found

    def _action(self) -> LakeAction:
        roll = self._chance.random()
        if roll < 0.5:
            name = self._chance.choice([*NAMES, *IMPORTED])
            return LakeAction(action="release" if roll < 0.2 else "drop", table=name)
        action = self._chance.choice(["target-add", "target-pause", "target-resume", "target-remove"])
        parameters = {"kind": "copy", "root": "s3://copy"} if action == "target-add" else {}
        return LakeAction(action=action, target=self._chance.choice(["t", "in-place"]), parameters=parameters)

    def _parts(self, whole: Content) -> list[Content]:
        """The content as one, or cut: files and removes come in later chunks."""
        if self._maybe(0.85):
            return [whole]
        first = Content(
            tables=tuple(_without_files(work) for work in whole.tables), apps=whole.apps, isolation=whole.isolation
        )
        rest = [TableWork(name=work.name, id=work.id, adds=work.adds, removes=work.removes) for work in whole.tables]
        return [first, *[Content(tables=(work,)) for work in rest]]

    def _work(self, name: str) -> TableWork:
        chance = self._chance
        head = self._head(name)
        if head is None or self._maybe(0.1):
            text = schema(*self.columns, *([("x", "string")] if self._maybe(0.2) else []))
            return create(
                name, text, *self._adds(name), by=_BY.get(name, ()), properties=_DOMAINS | chance.choice(_KINDS)
            )
        version, metadata_version, protocol_version = head
        read_version = chance.choice([None, version, version, max(0, version - chance.randint(0, 4))])
        if self._maybe(0.02):
            read_version = chance.choice([-1, version + 1])
        against = WrittenAgainst(metadata_version, protocol_version)
        if self._maybe(0.2):
            against = WrittenAgainst(chance.choice(self._metadata_versions(name)), 0)
        read_set = None
        if read_version is not None and self._maybe(0.4):
            read_set = self._reads(name)
        adds, removes = self._changes(name)
        return TableWork(
            name=name,
            read_version=read_version,
            read_set=read_set,
            written_against=None if self._maybe(0.05) else against,
            intents=self._intents(),
            adds=adds,
            removes=removes,
            others=self._others(),
        )

    def _reads(self, name: str) -> ReadSet:
        chance = self._chance
        day = Term(chance.choice(["=", "<", "is-null"]), ("day",), (Literal("date", _DAYS[0]),))
        live = sorted(path for path, _ in self._lake.live(name))
        return ReadSet(
            whole_table=self._maybe(0.4),
            files=tuple(chance.sample(live, min(len(live), chance.choice([0, 0, 1, 3])))),
            predicates=(Predicate((day, Term("not")) if self._maybe(0.3) else (day,)),) if self._maybe(0.5) else (),
            app_ids=("p",) if self._maybe(0.2) else (),
        )

    def _others(self) -> tuple[OtherAction, ...]:
        roll = self._chance.random()
        if roll < 0.1:
            return (other("txn", {"appId": "own", "version": self._chance.randint(1, 9)}),)
        if roll < 0.15:
            domain = {"domain": self._chance.choice(["x", "y"]), "configuration": "{}", "removed": self._maybe(0.3)}
            return (other("domainMetadata", domain),)
        return ()

    def _changes(self, name: str) -> tuple[tuple[AddFile, ...], tuple[RemoveFile, ...]]:
        live = sorted(self._lake.live(name))
        if not live or self._maybe(0.5):
            return self._adds(name), ()
        path, dv_id = self._chance.choice(live)
        values = self._lake.partition_of(name, path)
        gone = RemoveFile(path=path, deletion_vector=self._vector(dv_id), data_change=self._maybe(0.8))
        roll = self._chance.random()
        if roll < 0.05:
            return (), (RemoveFile(path="never"),)
        if roll < 0.4:
            return (), (gone,)
        if roll < 0.6:
            marked = vector(cardinality=self._chance.randint(1, 9), size_in_bytes=44)
            text = marked.path_or_inline_dv[:-1] + self._chance.choice("abcdef")
            marked_file = add(
                path,
                stats=f'{{"numRecords":{records_in(path)}}}',
                deletion_vector=vector(text),
                partition_values=values,
            )
            return (marked_file,), (gone,)
        if roll < 0.7:
            stats = f'{{"numRecords":{records_in(path)},"later":1}}'
            return (add(path, stats=stats, data_change=False, partition_values=values),), ()
        return self._adds(name), (gone,)

    def _vector(self, dv_id: str) -> DeletionVector | None:
        return vector(dv_id[1:]) if dv_id else None

    def _adds(self, name: str) -> tuple[AddFile, ...]:
        paths = [
            self._path(self._new_number() if self._maybe(0.9) else self._chance.randint(1, 5))
            for _ in range(self._chance.choice([0, 1, 1, 2]))
        ]
        return tuple(
            [
                add(
                    path,
                    size=self._chance.randint(1, 1000),
                    stats=self._stats(path),
                    data_change=self._maybe(0.8),
                    rest='{"tags":{"k":"v"},"x":[1]}' if self._maybe(0.2) else None,
                    partition_values={column: self._chance.choice(_DAYS) for column in _BY.get(name, ())},
                )
                for path in paths
            ]
        )

    def _path(self, number: int) -> str:
        """Of the file of that number."""
        return f"f{number}"

    def _stats(self, path: str) -> str:
        """Of the file of that name."""
        return f'{{"numRecords":{records_in(path)},"minValues":{{"id":1}},"maxValues":{{"id":2}}}}'

    def _intents(self) -> tuple[Intent, ...]:
        roll = self._chance.random()
        if roll < 0.05:
            name = self._chance.choice(["x", "y", "z"])
            return (AddColumn(field=json.dumps(field(name, self._chance.choice(["string", "timestamp_ntz"])))),)
        if roll < 0.08:
            return (SetProperties(set={self._chance.choice(["k", "delta.appendOnly"]): "true"}),)
        if roll < 0.1:
            return (WidenColumn(column=("id",), new_type="long"),)
        return ()

    def _apps(self) -> tuple[AppTransaction, ...]:
        if self._maybe(0.8):
            return ()
        return tuple(
            AppTransaction(app_id, self._chance.randint(1, 20))
            for app_id in self._chance.choice([("p",), ("q",), ("p", "q")])
        )

    def _isolation(self) -> str | None:
        return self._chance.choice([None] * 8 + ["Serializable", "SnapshotIsolation"])

    def _head(self, name: str) -> tuple[int, int, int] | None:
        for row in self._lake.rows["dl_tables"]:
            if row["name"] == name and row["state"] != "DROPPED":
                head = self._lake.heads[row["table_no"]]
                return head["version"], head["metadata_version"], head["protocol_version"]
        return None

    def _metadata_versions(self, name: str) -> list[int]:
        (number,) = [
            row["table_no"] for row in self._lake.rows["dl_tables"] if row["name"] == name and row["state"] != "DROPPED"
        ]
        return [row["version"] for row in self._lake.rows["dl_metadata_updates"] if row["table_no"] == number]

    def _new_number(self) -> int:
        self._number += 1
        return self._number

    def _maybe(self, share: float) -> bool:
        return self._chance.random() < share


def dealt(whole: Content, count: int, chance: random.Random) -> list[Content]:
    """The content in so many chunks, its adds and removes dealt to them one by one; some come twice."""
    cut: list[list[TableWork]] = [[] for _ in range(count)]
    for work in whole.tables:
        bare = TableWork(name=work.name, id=work.id)
        pieces = [msgspec.structs.replace(bare, adds=(add,)) for add in work.adds]
        pieces += [msgspec.structs.replace(bare, removes=(remove,)) for remove in work.removes]
        if pieces and chance.random() < 0.1:
            pieces.append(chance.choice(pieces))
        for piece in pieces:
            chance.choice(cut[1:] if chance.random() < 0.8 else cut).append(piece)
        cut[0].insert(0, msgspec.structs.replace(work, adds=(), removes=()))
    first = Content(tables=tuple(cut[0]), apps=whole.apps, isolation=whole.isolation)
    return [first, *[Content(tables=tuple(works)) for works in cut[1:]]]


def _without_files(work: TableWork) -> TableWork:
    return TableWork(
        name=work.name,
        id=work.id,
        read_version=work.read_version,
        read_set=work.read_set,
        written_against=work.written_against,
        intents=work.intents,
        others=work.others,
    )


def records_in(path: str) -> int:
    """Of the file of that name, however often it is added: a file never changes. More than any deletion vector marks."""
    return 10 + zlib.crc32(path.encode()) % 40
