"""Whole versions with all their actions, many at once: what the mirror renders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from deltalakedb.actions import AddFile, OtherAction
from deltalakedb.database import Database, Row

from . import records
from .records import columns
from .values import VersionActions, VersionRow

Range = tuple[int, int, int]
"""table_no, first and last version."""
_Key = tuple[int, int]
_A = TypeVar("_A")

_WANTED = "ROWS(?) AS w (table_no BIGINT, first BIGINT, last BIGINT)"
_WITHIN = "a.table_no = w.table_no AND a.version BETWEEN w.first AND w.last"


def read_versions(database: Database, ranges: Sequence[Range]) -> list[VersionActions]:
    """The versions in `ranges` that are committed, by table and version.

    A handful of queries, however many versions and tables. Inside a `snapshot()` of the database.
    """
    rows = [version_row(row) for row in _read(database, "dl_table_versions", records.VERSION, ranges)]

    def read(table: str, names: Sequence[str], make: Callable[[Row], _A], wanted: bool = True) -> dict[_Key, list[_A]]:
        found: dict[_Key, list[_A]] = defaultdict(list)
        if wanted:
            for row in _read(database, table, ("table_no", "version", *names), ranges):
                found[row[0], row[1]].append(make(row[2:]))
        return found

    removes = read("dl_remove_files", records.REMOVE, records.remove, any(row.removed_files for row in rows))
    metadata = read(
        "dl_metadata_updates", records.METADATA, records.metadata, any(row.changes_metadata for row in rows)
    )
    protocols = read(
        "dl_protocol_updates", records.PROTOCOL, records.protocol, any(row.changes_protocol for row in rows)
    )
    cdc = read("dl_cdc_files", records.CDC, records.cdc, bool(rows))
    txns = read("dl_txn_actions", records.TXN, records.txn, bool(rows))
    domains = read("dl_domain_metadata", records.DOMAIN, records.domain, bool(rows))
    others = read("dl_other_actions", ("kind", "body"), _other, bool(rows))
    adds = _read_adds(database, ranges, rows)
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
        for row in rows
        for key in [(row.table_no, row.version)]
    ]


def version_row(row: Sequence[Any]) -> VersionRow:
    """From the columns `records.VERSION`."""
    return VersionRow(**dict(zip(records.VERSION, row, strict=True)))


_ORDER = {
    "dl_table_versions": "a.version",
    "dl_metadata_updates": "a.version",
    "dl_protocol_updates": "a.version",
    "dl_txn_actions": "a.version, a.app_id",
    "dl_domain_metadata": "a.version, a.domain",
}


def _read(database: Database, table: str, names: Sequence[str], ranges: Sequence[Range]) -> list[Row]:
    return database.query(
        f"SELECT {columns(names, 'a')} FROM {_WANTED} CROSS JOIN {table} a WHERE {_WITHIN} "
        f"ORDER BY a.table_no, {_ORDER.get(table, 'a.version, a.n')}",
        [ranges],
    )


def _read_adds(database: Database, ranges: Sequence[Range], rows: Sequence[VersionRow]) -> dict[_Key, list[AddFile]]:
    """Adds are live or past; those of a young version mostly live, so that the past is often not asked."""
    wanted = sum(row.added_files for row in rows)
    found: dict[_Key, list[tuple[int, AddFile]]] = defaultdict(list)
    partitions: dict[str | None, dict[str, str | None]] = {None: {}}
    for table in ("dl_live_files", "dl_past_files"):
        if wanted <= 0:
            break
        files = database.query(
            f"SELECT a.table_no, a.version, a.n, p.partition_values, {columns(records.ADD, 'a')} "
            f"FROM {_WANTED} CROSS JOIN {table} a LEFT JOIN dl_partitions p "
            f"ON p.table_no = a.table_no AND p.partition_no = a.partition_no WHERE {_WITHIN}",
            [ranges],
        )
        wanted -= len(files)
        for table_no, version, n, text, *fields in files:
            values = partitions.get(text)
            if values is None:
                values = partitions[text] = records.partition_values(text)
            found[table_no, version].append((n, records.add(fields, values)))
    return {key: [add for _, add in sorted(adds, key=lambda numbered: numbered[0])] for key, adds in found.items()}


def _other(row: Row) -> OtherAction:
    kind, body = row
    return OtherAction(kind=kind, json=body)
