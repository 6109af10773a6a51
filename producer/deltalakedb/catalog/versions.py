"""Whole versions with all their actions, many at once: what the mirror renders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from deltalakedb.actions import AddFile, OtherAction, RemoveFile
from deltalakedb.database import Database, Row

from . import records
from .records import columns
from .values import VersionActions, VersionRow

Range = tuple[int, int, int]
"""table_no, first and last version."""
_Key = tuple[int, int]

_RANGES = 100
"""Ranges per statement: each is a branch of its own, which no planner can take for a reason to read whole tables."""


class _Source(NamedTuple):
    """Where actions of a kind lie, and of which versions they are wanted."""

    table: str
    names: Sequence[str]
    make: Callable[[Row], Any]
    where: Sequence[_Key]
    order: str = "a.n"

    @property
    def statement(self) -> tuple[str, Sequence[Any]]:
        return (
            f"SELECT a.table_no, a.version, {columns(self.names, 'a')} FROM {_WANTED} CROSS JOIN {self.table} a "
            f"WHERE a.table_no = w.table_no AND a.version = w.version ORDER BY {self.order}",
            [self.where],
        )


def read_versions(database: Database, ranges: Sequence[Range], *, files: bool = True) -> list[VersionActions]:
    """The versions in `ranges` that are committed, by table and version; without adds and removes if `files` is false.

    A handful of queries, however many versions and tables. Inside a `snapshot()` of the database.
    """
    return read_actions(database, read_rows(database, ranges), files=files)


def read_actions(database: Database, rows: Sequence[VersionRow], *, files: bool = True) -> list[VersionActions]:
    """The versions of `rows` with their actions, as `read_versions`."""
    keys = [(row.table_no, row.version) for row in rows]
    removing = [(row.table_no, row.version) for row in rows if row.removed_files and files]
    describing = [(row.table_no, row.version) for row in rows if row.changes_metadata]
    upgrading = [(row.table_no, row.version) for row in rows if row.changes_protocol]
    sources = {
        "removes": _Source("dl_remove_files", records.REMOVE, records.remove, removing),
        "metadata": _Source("dl_metadata_updates", records.METADATA, records.metadata, describing, "a.version"),
        "protocol": _Source("dl_protocol_updates", records.PROTOCOL, records.protocol, upgrading, "a.version"),
    }
    tables = _with_rare(database, keys)
    for kind, (table, names, make, order) in _RARE.items():
        sources[kind] = _Source(table, names, make, [key for key in keys if key[0] in tables[kind]], order)
    asked = {kind: source for kind, source in sources.items() if source.where}
    adding = {(row.table_no, row.version): row.added_files for row in rows if row.added_files and files}
    live, *answers = database.query_all([_adds_in("dl_live_files", adding), *(s.statement for s in asked.values())])
    found: dict[_Key, dict[str, list[Any]]] = defaultdict(dict)
    for (kind, source), answer in zip(asked.items(), answers, strict=True):
        for row in answer:
            found[row[0], row[1]].setdefault(kind, []).append(source.make(row[2:]))
    adds = _read_adds(database, adding, live)
    return [_version(row, tuple(adds.get(key, ())), found.get(key)) for row, key in zip(rows, keys, strict=True)]


def _with_rare(database: Database, keys: Sequence[_Key]) -> dict[str, set[int]]:
    """By kind the tables that have such an action from the first to the last of their versions in `keys`: one look per
    table, where one per version would cost more than all that the version has."""
    spans: dict[int, tuple[int, int]] = {}
    for table_no, version in keys:
        first, last = spans.get(table_no, (version, version))
        spans[table_no] = min(first, version), max(last, version)
    found: dict[str, set[int]] = {kind: set() for kind in _RARE}
    if spans:
        for table_no, *have in database.query(_LOOK, [[(table_no, *span) for table_no, span in spans.items()]]):
            for kind, has in zip(_RARE, have, strict=True):
                if has:
                    found[kind].add(table_no)
    return found


def _version(row: VersionRow, adds: tuple[AddFile, ...], of: Mapping[str, Sequence[Any]] | None) -> VersionActions:
    if of is None:
        return VersionActions(row=row, adds=adds)
    return VersionActions(
        row=row,
        protocol=next(iter(of.get("protocol", ())), None),
        metadata=next(iter(of.get("metadata", ())), None),
        txns=tuple(of.get("txns", ())),
        domains=tuple(of.get("domains", ())),
        removes=tuple(of.get("removes", ())),
        adds=adds,
        cdc=tuple(of.get("cdc", ())),
        others=tuple(of.get("others", ())),
    )


def read_rows(database: Database, ranges: Sequence[Range]) -> list[VersionRow]:
    """The rows of the versions in `ranges` that are committed, by table and version."""
    branch = (
        f"SELECT {columns(records.VERSION, 'v')} FROM dl_table_versions v "
        "WHERE v.table_no = ? AND v.version BETWEEN ? AND ?"
    )
    found = {(row[0], row[1]): version_row(row) for row in query_ranges(database, branch, ranges)}
    return [found[key] for key in sorted(found)]


def query_ranges(database: Database, branch: str, ranges: Sequence[Range]) -> Iterator[Row]:
    """The rows that `branch`, a SELECT whose parameters are a table_no, a first and a last version, has for each range."""
    for start in range(0, len(ranges), _RANGES):
        some = ranges[start : start + _RANGES]
        yield from database.query(" UNION ALL ".join([branch] * len(some)), [bound for each in some for bound in each])


def version_row(row: Sequence[Any]) -> VersionRow:
    """From the columns `records.VERSION`."""
    return VersionRow._make(row)


def stream_adds(database: Database, table_no: int, version: int) -> Iterator[AddFile]:
    """The adds of one version in their order, for versions with more of them than should be held at once."""
    select = (
        f"SELECT a.n, p.partition_values, {columns(records.ADD, 'a')} FROM {{}} a LEFT JOIN dl_partitions p "
        "ON p.table_no = a.table_no AND p.partition_no = a.partition_no WHERE a.table_no = ? AND a.version = ?"
    )
    past = f"{select.format('dl_past_files')} AND {_STAYED['dl_past_files']}"
    either = f"{select.format('dl_live_files')} UNION ALL {past} ORDER BY 1"
    partitions: dict[str | None, dict[str, str | None]] = {None: {}}
    for rows in database.stream(either, [table_no, version] * 2):
        for _, text, *fields in rows:
            values = partitions.get(text)
            if values is None:
                values = partitions[text] = records.partition_values(text)
            yield records.add(fields, values)


def stream_removes(database: Database, table_no: int, version: int) -> Iterator[RemoveFile]:
    """The removes of one version in their order, as `stream_adds`."""
    select = f"SELECT {columns(records.REMOVE, 'a')} FROM dl_remove_files a WHERE a.table_no = ? AND a.version = ?"
    for rows in database.stream(f"{select} ORDER BY a.n", [table_no, version]):
        yield from map(records.remove, rows)


_STAYED = {"dl_live_files": "1 = 1", "dl_past_files": "a.removed_version > a.version"}
"""That a file was there: an imported version may take back an add of its own, which is then no part of it."""
_WANTED = "ROWS(?) AS w (table_no BIGINT, version BIGINT)"


def _other(row: Row) -> OtherAction:
    kind, body = row
    return OtherAction(kind=kind, json=body)


_RARE: Mapping[str, tuple[str, Sequence[str], Callable[[Row], Any], str]] = {
    "cdc": ("dl_cdc_files", records.CDC, records.cdc, "a.n"),
    "txns": ("dl_txn_actions", records.TXN, records.txn, "a.app_id"),
    "domains": ("dl_domain_metadata", records.DOMAIN, records.domain, "a.domain"),
    "others": ("dl_other_actions", ("kind", "body"), _other, "a.n"),
}
"""Actions that most versions have none of, and do not count: where they lie and how they are made and ordered."""
_NEXT = "(SELECT min(a.version) FROM {} a WHERE a.table_no = w.table_no AND a.version >= w.first_version)"
_LOOK = (
    f"SELECT w.table_no, {', '.join(f'{_NEXT.format(table)} <= w.last_version' for table, *_ in _RARE.values())} "
    "FROM ROWS(?) AS w (table_no BIGINT, first_version BIGINT, last_version BIGINT)"
)


def _adds_in(table: str, wanted: Mapping[_Key, int]) -> tuple[str, Sequence[Any]]:
    return (
        f"SELECT a.table_no, a.version, a.n, p.partition_values, {columns(records.ADD, 'a')} "
        f"FROM {_WANTED} CROSS JOIN {table} a LEFT JOIN dl_partitions p "
        "ON p.table_no = a.table_no AND p.partition_no = a.partition_no "
        f"WHERE a.table_no = w.table_no AND a.version = w.version AND {_STAYED[table]}",
        [list(wanted)],
    )


def _read_adds(database: Database, wanted: Mapping[_Key, int], live: Sequence[Row]) -> dict[_Key, list[AddFile]]:
    """Adds by version, of `wanted` many each. They are `live` or past; those of a young version mostly live, so that the
    past is often not asked."""
    found: dict[_Key, list[tuple[int, AddFile]]] = defaultdict(list)
    partitions: dict[str | None, dict[str, str | None]] = {None: {}}

    def take(files: Sequence[Row]) -> None:
        for table_no, version, n, text, *fields in files:
            values = partitions.get(text)
            if values is None:
                values = partitions[text] = records.partition_values(text)
            found[table_no, version].append((n, records.add(fields, values)))

    take(live)
    missing = {key: count for key, count in wanted.items() if len(found[key]) < count}
    if missing:
        take(database.query(*_adds_in("dl_past_files", missing)))
    return {
        key: [add for _, add in (adds if len(adds) == 1 else sorted(adds, key=lambda numbered: numbered[0]))]
        for key, adds in found.items()
    }
