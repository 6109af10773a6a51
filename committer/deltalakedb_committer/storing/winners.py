"""Loads what was committed since the versions that transactions read: by ranges of versions, so by primary keys alone.

The rows of the versions always; what they added, removed and set only where a batch names something to compare with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from deltalakedb.catalog import records
from deltalakedb.catalog.values import VersionRow
from deltalakedb.catalog.versions import Range, query_ranges, read_rows
from deltalakedb.database import Database
from deltalakedb_committer.deciding.needs import TableNeeds
from deltalakedb_committer.deciding.read_predicates import PartitionValues
from deltalakedb_committer.deciding.state import TableState, Winner

_Key = tuple[int, int]
"""table_no and version."""

_ADDED_TO = (
    "SELECT DISTINCT a.table_no, a.version, p.partition_values FROM {} a LEFT JOIN dl_partitions p "
    "ON p.table_no = a.table_no AND p.partition_no = a.partition_no "
    "WHERE a.table_no = ? AND a.version BETWEEN ? AND ?"
)
_REMOVED_FROM = (
    "SELECT DISTINCT r.table_no, r.version, r.partition_values FROM dl_remove_files r "
    "WHERE r.table_no = ? AND r.version BETWEEN ? AND ?"
)
_REMOVED_PATHS = (
    "SELECT r.table_no, r.version, r.path FROM dl_remove_files r "
    "WHERE r.table_no = ? AND r.version BETWEEN ? AND ? AND r.path = ANY(?)"
)
_DOMAINS = (
    "SELECT d.table_no, d.version, d.domain FROM dl_domain_metadata d "
    "WHERE d.table_no = ? AND d.version BETWEEN ? AND ?"
)


def load_winners(database: Database, wanted: Sequence[tuple[TableState, TableNeeds]], distance: int) -> None:
    """Give every table its winners above the lowest version read of it, at most `distance` versions back."""
    tables: dict[int, TableState] = {}
    since: dict[int, int] = {}
    gone: dict[int, set[str]] = defaultdict(set)
    with_partitions: set[int] = set()
    with_domains: set[int] = set()
    for table, of_table in wanted:
        if of_table.read_version is None or not table.loaded:
            continue
        number = table.table_no
        tables[number] = table
        lowest = max(of_table.read_version, table.version - distance)
        since[number] = min(lowest, since.get(number, lowest))
        # Postgres takes no NUL in a text, not even to say that there is none.
        gone[number] |= {path for path in of_table.gone if "\0" not in path}
        if of_table.partitions and table.metadata is not None and table.metadata.partition_columns:
            with_partitions.add(number)
        if of_table.domains:
            with_domains.add(number)
    for number, table in tables.items():
        table.winners_since = since[number]
        table.winners.clear()
    rows = read_rows(database, [(number, since[number] + 1, table.version) for number, table in tables.items()])
    if not rows:
        return
    adding = _ranges(row for row in rows if row.added_files and row.table_no in with_partitions)
    removing = _ranges(row for row in rows if row.removed_files)
    added_to = _partitions(database, [_ADDED_TO.format(name) for name in ("dl_live_files", "dl_past_files")], adding)
    removed_from = _partitions(database, [_REMOVED_FROM], [r for r in removing if r[0] in with_partitions])
    removed_paths: dict[_Key, set[str]] = defaultdict(set)
    for number, first, last in removing:
        if gone[number]:
            for _, version, path in database.query(_REMOVED_PATHS, [number, first, last, sorted(gone[number])]):
                removed_paths[number, version].add(path)
    domains: dict[_Key, set[str]] = defaultdict(set)
    describing = _ranges(row for row in rows if row.table_no in with_domains)
    for number, version, domain in query_ranges(database, _DOMAINS, describing):
        domains[number, version].add(domain)
    for row in rows:
        key = (row.table_no, row.version)
        if row.origin is not None:
            tables[row.table_no].winners.append(Winner.imported_as(row.version))
            continue
        tables[row.table_no].winners.append(
            Winner(
                version=row.version,
                txn_id=row.txn_id,
                is_blind_append=bool(row.is_blind_append),
                changes_data=row.changes_data,
                changes_metadata=row.changes_metadata,
                changes_protocol=row.changes_protocol,
                added_files=row.added_files,
                removed_files=row.removed_files,
                added_to=tuple(added_to.get(key, ())),
                removed_from=tuple(removed_from.get(key, ())),
                removed_paths=frozenset(removed_paths.get(key, ())),
                domains=frozenset(domains.get(key, ())),
            )
        )


def _ranges(rows: Iterator[VersionRow]) -> list[Range]:
    """For each table of the rows the range from the first to the last of its versions."""
    found: dict[int, Range] = {}
    for row in rows:
        _, first, last = found.get(row.table_no, (row.table_no, row.version, row.version))
        found[row.table_no] = (row.table_no, min(first, row.version), max(last, row.version))
    return list(found.values())


def _partitions(
    database: Database, branches: Sequence[str], ranges: Sequence[Range]
) -> dict[_Key, list[PartitionValues]]:
    """Distinct partition values by version, whichever branch they come from."""
    texts: dict[_Key, set[str | None]] = defaultdict(set)
    for branch in branches:
        for number, version, text in query_ranges(database, branch, ranges):
            texts[number, version].add(text)
    parsed = {text: records.partition_values(text or "{}") for text in set().union(*texts.values())}
    return {key: [parsed[text] for text in found] for key, found in texts.items()}
