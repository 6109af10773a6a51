"""Whole versions with all their actions, many at once: what the mirror renders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from deltalakedb.actions import AddFile, OtherAction, RemoveFile
from deltalakedb.database import Database, Row

from . import records
from .records import columns
from .values import VersionActions, VersionRow

Range = tuple[int, int, int]
"""table_no, first and last version."""
_Key = tuple[int, int]
_A = TypeVar("_A")

_RANGES = 100
"""Ranges per statement: each is a branch of its own, which no planner can take for a reason to read whole tables."""


def read_versions(database: Database, ranges: Sequence[Range], *, files: bool = True) -> list[VersionActions]:
    """The versions in `ranges` that are committed, by table and version; without adds and removes if `files` is false.

    A handful of queries, however many versions and tables. Inside a `snapshot()` of the database.
    """
    rows = read_rows(database, ranges)
    keys = [(row.table_no, row.version) for row in rows]

    def read(
        table: str, names: Sequence[str], make: Callable[[Row], _A], where: Sequence[_Key] = keys, order: str = "a.n"
    ) -> dict[_Key, list[_A]]:
        found: dict[_Key, list[_A]] = defaultdict(list)
        if where:
            for row in _read(database, table, ("table_no", "version", *names), where, order):
                found[row[0], row[1]].append(make(row[2:]))
        return found

    removing = [(row.table_no, row.version) for row in rows if row.removed_files and files]
    describing = [(row.table_no, row.version) for row in rows if row.changes_metadata]
    upgrading = [(row.table_no, row.version) for row in rows if row.changes_protocol]
    removes = read("dl_remove_files", records.REMOVE, records.remove, removing)
    metadata = read("dl_metadata_updates", records.METADATA, records.metadata, describing, "a.version")
    protocols = read("dl_protocol_updates", records.PROTOCOL, records.protocol, upgrading, "a.version")
    cdc = read("dl_cdc_files", records.CDC, records.cdc)
    txns = read("dl_txn_actions", records.TXN, records.txn, order="a.app_id")
    domains = read("dl_domain_metadata", records.DOMAIN, records.domain, order="a.domain")
    others = read("dl_other_actions", ("kind", "body"), _other)
    adds = _read_adds(database, rows) if files else {}
    return [
        VersionActions(
            row=row,
            protocol=next(iter(protocols.get(key, ())), None),
            metadata=next(iter(metadata.get(key, ())), None),
            txns=tuple(txns.get(key, ())),
            domains=tuple(domains.get(key, ())),
            removes=tuple(removes.get(key, ())),
            adds=tuple(adds.get(key, ())),
            cdc=tuple(cdc.get(key, ())),
            others=tuple(others.get(key, ())),
        )
        for row, key in zip(rows, keys, strict=True)
    ]


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
    return VersionRow(**dict(zip(records.VERSION, row, strict=True)))


def stream_adds(database: Database, table_no: int, version: int) -> Iterator[AddFile]:
    """The adds of one version in their order, for versions with more of them than should be held at once."""
    select = (
        f"SELECT a.n, p.partition_values, {columns(records.ADD, 'a')} FROM {{}} a LEFT JOIN dl_partitions p "
        "ON p.table_no = a.table_no AND p.partition_no = a.partition_no WHERE a.table_no = ? AND a.version = ?"
    )
    past = f"{select.format('dl_past_files')} AND {_STAYED}"
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


_STAYED = "a.removed_version > a.version"
"""Of a past file: it was there. An imported version may take back an add of its own, which is then no part of it."""
_WANTED = "ROWS(?) AS w (table_no BIGINT, version BIGINT)"


def _read(database: Database, table: str, names: Sequence[str], where: Sequence[_Key], order: str) -> list[Row]:
    return database.query(
        f"SELECT {columns(names, 'a')} FROM {_WANTED} CROSS JOIN {table} a "
        f"WHERE a.table_no = w.table_no AND a.version = w.version ORDER BY {order}",
        [where],
    )


def _read_adds(database: Database, rows: Sequence[VersionRow]) -> dict[_Key, list[AddFile]]:
    """Adds are live or past; those of a young version mostly live, so that the past is often not asked."""
    missing = {(row.table_no, row.version): row.added_files for row in rows if row.added_files}
    found: dict[_Key, list[tuple[int, AddFile]]] = defaultdict(list)
    partitions: dict[str | None, dict[str, str | None]] = {None: {}}
    for table, condition in (("dl_live_files", "1 = 1"), ("dl_past_files", _STAYED)):
        if not missing:
            break
        files = database.query(
            f"SELECT a.table_no, a.version, a.n, p.partition_values, {columns(records.ADD, 'a')} "
            f"FROM {_WANTED} CROSS JOIN {table} a LEFT JOIN dl_partitions p "
            "ON p.table_no = a.table_no AND p.partition_no = a.partition_no "
            f"WHERE a.table_no = w.table_no AND a.version = w.version AND {condition}",
            [list(missing)],
        )
        for table_no, version, n, text, *fields in files:
            values = partitions.get(text)
            if values is None:
                values = partitions[text] = records.partition_values(text)
            found[table_no, version].append((n, records.add(fields, values)))
        missing = {key: count for key, count in missing.items() if len(found[key]) < count}
    return {key: [add for _, add in sorted(adds, key=lambda numbered: numbered[0])] for key, adds in found.items()}


def _other(row: Row) -> OtherAction:
    kind, body = row
    return OtherAction(kind=kind, json=body)
