"""When logical files came and went: which ended with a version, which are live, which version removed them."""

from __future__ import annotations

from collections.abc import Collection

from deltalakedb.actions import AddFile
from deltalakedb.database import Database

from . import records
from .records import columns

FileKey = tuple[str, str]
"""Identity of a logical file: (path, deletion-vector id or "")."""


def read_ended(database: Database, table_no: int, version: int) -> list[AddFile]:
    """The files that were live before `version` and ended with it: removed, or added again under the same identity."""
    rows = database.query(
        f"SELECT p.partition_values, {columns(records.ADD, 'f')} FROM dl_past_files f LEFT JOIN dl_partitions p "
        "ON p.table_no = f.table_no AND p.partition_no = f.partition_no "
        "WHERE f.table_no = ? AND f.removed_version = ? AND f.version < f.removed_version ORDER BY f.version, f.n",
        [table_no, version],
    )
    return [records.add(row[1:], records.partition_values(row[0] or "{}")) for row in rows]


def read_live(database: Database, table_no: int, paths: Collection[str]) -> dict[FileKey, int]:
    """The files of these paths that are live, and the version that added them."""
    rows = database.query(
        "SELECT f.path, f.dv_id, f.version FROM ROWS(?) AS k (table_no BIGINT, path TEXT) CROSS JOIN dl_live_files f "
        "WHERE f.path = k.path AND f.table_no = k.table_no",
        [[(table_no, path) for path in paths]],
    )
    return {(path, dv_id): version for path, dv_id, version in rows}


def read_ends(database: Database, table_no: int, version: int, paths: Collection[str]) -> dict[FileKey, int]:
    """Of the files of these paths that `version` added and that are live no more, the version that ended them."""
    rows = database.query(
        "SELECT f.path, f.dv_id, f.removed_version FROM dl_past_files f "
        "WHERE f.table_no = ? AND f.version = ? AND f.path = ANY(?)",
        [table_no, version, sorted(paths)],
    )
    return {(path, dv_id): removed for path, dv_id, removed in rows}
