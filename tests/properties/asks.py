"""What clients ask of the lake that is modelled: drawn without looking, then made to fit what is in its tables; in the
model's words and in those of the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from hypothesis import strategies as st

from deltalakedb.actions import AddFile, RemoveFile
from deltalakedb.events import (
    AddColumn,
    AppTransaction,
    Content,
    Intent,
    Literal,
    Predicate,
    ReadSet,
    SetProperties,
    TableWork,
    Term,
    WrittenAgainst,
)
from tests import works
from tests.properties.one_at_a_time import LEVEL, LEVELS, RELAXED, SNAPSHOT, STRICT, Part, Read, Table, Wanted

TABLES = {"a": (STRICT, False), "b": (STRICT, True), "c": (RELAXED, True), "d": (RELAXED, False), "e": (SNAPSHOT, True)}
"""Isolation level, and whether the table is partitioned by `p`."""
VALUES = ("x", "y", None)
"""Of `p`."""


def _term(op: str, *texts: str, column: str = "p", data_type: str = "string") -> Term:
    return Term(op, (column,), tuple([Literal(data_type, text) for text in texts]))


_ABOVE = _term(">", "3", column="id", data_type="long")
CONDITIONS: Final[dict[str, tuple[tuple[Term, ...], set[str | None]]]] = {
    "p = 'x'": ((_term("=", "x"),), {"x"}),
    "p is null": ((_term("is-null"),), {None}),
    "p <> 'x'": ((_term("!=", "x"),), {"y"}),
    "p in ('y', 'z') or p is null": ((_term("in", "y", "z"), _term("is-null"), Term("or")), {"y", None}),
    "not p = 'x' and id > 3": ((_term("=", "x"), Term("not"), _ABOVE, Term("and")), {"y"}),
    "id > 3": ((_ABOVE,), set(VALUES)),
}
"""What rows are looked for by: in the log's words, and the partitions where it may be true of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a client may want of a table, whatever there is in it."""

    read: str | None = None
    """A condition, or `whole`, `files` or `version`: nothing but that."""
    adds: tuple[str | None, ...] = ()
    """The value of `p` for each."""
    removes: tuple[int, ...] = ()
    """Which of its files, counted from the newest; before these comes one that is gone, if there is one."""
    moves: bool = False
    """No row is another one afterwards."""
    says: bool = True
    """What its files were written for."""
    column: str | None = None
    """To be there afterwards, as are `properties`."""
    properties: Mapping[str, str] = field(default_factory=dict)


VALUES_OF_FILES = st.lists(st.sampled_from(VALUES), min_size=1, max_size=2).map(tuple)
ASKS = st.builds(
    Ask,
    read=st.sampled_from([None, None, None, "whole", "files", "version", "version", *CONDITIONS]),
    adds=st.just(()) | VALUES_OF_FILES,
    removes=st.sampled_from([(), (), (), (0,), (0,), (0, 1), (1, 2), (4,)]),
    moves=st.sampled_from([False, False, True]),
    says=st.sampled_from([True, True, False]),
    column=st.sampled_from([None] * 20 + ["c1", "c2"]),
    properties=st.sampled_from([{}] * 40 + [{"k": "1"}, {"k": "2"}, *[{LEVEL: level} for level in LEVELS]]),
)
APPENDS = st.builds(Ask, adds=VALUES_OF_FILES, says=st.sampled_from([True, True, True, True, False]))
APPS: st.SearchStrategy[dict[str, int]] = (
    st.just({}) | st.just({}) | st.dictionaries(st.sampled_from("pq"), st.integers(0, 2), max_size=2)
)
"""How much further than ever before an application is with its own transactions."""


def of_tables(asks: st.SearchStrategy[Ask]) -> st.SearchStrategy[dict[str, Ask]]:
    """What is asked of some tables, less often of those that take the strictest level."""
    return st.dictionaries(st.sampled_from("abccddee"), asks, min_size=1, max_size=3)


def creates() -> list[TableWork]:
    """What makes the tables, with first files."""
    columns = works.schema(("id", "long"), ("p", "string"))
    return [
        works.create(
            name,
            columns,
            *_adds(table.live, partitioned=table.partitioned),
            by=("p",) if table.partitioned else (),
            properties=table.properties,
        )
        for name, table in created().items()
    ]


def created() -> dict[str, Table]:
    """The same tables in the model."""
    return {
        name: Table(
            partitioned=partitioned,
            properties={LEVEL: level},
            columns={"id", "p"},
            live={f"{name}{n}": VALUES[n % 3] if partitioned else None for n in range(6)},
        )
        for name, (level, partitioned) in TABLES.items()
    }


def part_of(ask: Ask, table: Table, back: int, new_file: Callable[[], str]) -> Part:
    """What is asked of a table that was read `back` versions ago, if it was."""
    files = [*table.live, *table.gone[-1:]]
    return Part(
        read=None if ask.read is None else _read(ask.read, table, max(0, len(table.changes) - back), files[-2:]),
        adds={new_file(): value if table.partitioned else None for value in ask.adds},
        removes=frozenset([files[-1 - n] for n in ask.removes if n < len(files)]),
        moves=ask.moves,
        against=table.metadata_versions[-1] if ask.says else None,
        column=ask.column,
        properties=dict(ask.properties),
    )


def _read(what: str, table: Table, version: int, files: list[str]) -> Read:
    if what in CONDITIONS:
        # Where the table is not partitioned, `p` is a column like others.
        where = CONDITIONS[what][1] if table.partitioned else VALUES
        return Read(version, condition=what, where=frozenset(where))
    return Read(version, whole=what == "whole", files=frozenset(files if what == "files" else ()))


def contents_of(wanted: Wanted, *, cut: bool) -> list[Content]:
    """A transaction as it is sent: whole, or first all but its files, and then each of these by itself."""
    tables = [_work(name, part) for name, part in wanted.parts.items()]
    apps = tuple([AppTransaction(app, number) for app, number in wanted.apps.items()])
    if not cut:
        return [Content(tables=tuple(tables), apps=apps)]
    heads = [msgspec.structs.replace(work, adds=(), removes=()) for work in tables]
    files = [TableWork(name=work.name, adds=(one,)) for work in tables for one in work.adds]
    files += [TableWork(name=work.name, removes=(one,)) for work in tables for one in work.removes]
    return [Content(tables=tuple(heads), apps=apps), *[Content(tables=(work,)) for work in files]]


def _work(name: str, part: Part) -> TableWork:
    intents: list[Intent] = []
    if part.column is not None:
        intents.append(AddColumn(field=json.dumps(works.field(part.column, "long"))))
    if part.properties:
        intents.append(SetProperties(set=part.properties))
    return TableWork(
        name=name,
        read_version=None if part.read is None else part.read.version,
        read_set=_read_set(part.read) if part.read else None,
        written_against=None if part.against is None else WrittenAgainst(part.against, 0),
        intents=tuple(intents),
        adds=_adds(part.adds, partitioned=TABLES[name][1], data_change=not part.moves),
        removes=tuple([RemoveFile(path=path, data_change=not part.moves) for path in sorted(part.removes)]),
    )


def _read_set(read: Read) -> ReadSet:
    predicates = () if read.condition is None else (Predicate(CONDITIONS[read.condition][0]),)
    return ReadSet(whole_table=read.whole, files=tuple(sorted(read.files)), predicates=predicates)


def _adds(files: Mapping[str, str | None], *, partitioned: bool, data_change: bool = True) -> tuple[AddFile, ...]:
    return tuple(
        [
            works.add(path, partition_values={"p": value} if partitioned else {}, data_change=data_change)
            for path, value in files.items()
        ]
    )
