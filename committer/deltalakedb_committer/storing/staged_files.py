"""The rows of big transactions' files: asked about as a whole once all are there, and placed by the commit.

All of it in SQL, however many there are, and a statement for each table: it goes by the primary key of
`dl_staged_files`, and from there to live files by path. No planner knows how many rows a transaction has that has just come, and one
statement for all of them would be planned as if they were few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from deltalakedb.catalog.records import columns
from deltalakedb.database import Database, Row
from deltalakedb.errors import TxnLogHaltedError
from deltalakedb_committer.deciding.parts import Found, TableKey
from deltalakedb_committer.deciding.staged_files import StagedFiles

from .columns import COLUMNS, PARTITION_TEXT
from .rows import Placed

NO_TABLE = -1
"""As table_no: of a table that the transaction makes."""


class Asked(NamedTuple):
    """One table of a complete transaction, to be asked about."""

    key: TableKey
    files: StagedFiles
    table_no: int
    live: bool
    """Whether it has live files."""
    read_version: int | None
    """Above which it is asked who removed what."""
    version: int
    """Of the table, as it is asked about."""

    @property
    def question(self) -> Question:
        """What the answer depends on, beside the rows of the transaction."""
        return (self.key, self.table_no, self.version, self.read_version)


Question = tuple[TableKey, int, int, int | None]

_MINE = "s.txn_id = ? AND s.work = ? AND s.kind = ?"
_AT = "s.chunk_index * CAST(4294967296 AS BIGINT) + s.n"
"""Where an action comes among those of its kind."""
# Nothing here looks up staged rows by path, one for each: with as many rows as there are, that has to be done by
# grouping them.
_TWICE = (
    "SELECT DISTINCT d.kind FROM (SELECT s.kind FROM dl_staged_files s WHERE s.txn_id = ? AND s.work = ? "
    "GROUP BY s.kind, s.path HAVING count(*) > 1) d"
)
_FIRST_TWICE = (
    f"SELECT d.path FROM (SELECT s.path, {_AT} AS place, row_number() OVER (PARTITION BY s.path ORDER BY {_AT}) AS nth "
    f"FROM dl_staged_files s WHERE {_MINE}) d WHERE d.nth = 2 ORDER BY d.place LIMIT 1"
)
_BOTH = (
    f"SELECT d.place, d.path FROM (SELECT s.path, min(CASE WHEN s.kind = 'remove' THEN {_AT} END) AS place "
    "FROM dl_staged_files s WHERE s.txn_id = ? AND s.work = ? GROUP BY s.path, s.dv_id "
    "HAVING min(s.kind) <> max(s.kind)) d ORDER BY d.place LIMIT 1"
)
_LIVE = (
    "SELECT s.kind, CASE WHEN f.dv_id = s.dv_id THEN 1 ELSE 0 END, count(*), sum(f.size) "
    "FROM dl_staged_files s CROSS JOIN dl_live_files f "
    "WHERE s.txn_id = ? AND s.work = ? AND f.path = s.path AND f.table_no = ? GROUP BY 1, 2"
)
_MISSING = (
    f"SELECT s.path, s.dv_id FROM dl_staged_files s WHERE {_MINE} AND NOT EXISTS ("
    "SELECT 1 FROM dl_live_files f WHERE f.path = s.path AND f.dv_id = s.dv_id AND f.table_no = ?) "
    "ORDER BY s.chunk_index, s.n LIMIT 1"
)
_LEFT = (
    "SELECT d.path FROM (SELECT s.path, max(CASE WHEN s.kind = 'remove' AND s.dv_id = f.dv_id THEN 1 ELSE 0 END) AS gone, "
    f"min(CASE WHEN s.kind = 'add' AND s.dv_id <> f.dv_id THEN {_AT} END) AS place "
    "FROM dl_staged_files s CROSS JOIN dl_live_files f "
    "WHERE s.txn_id = ? AND s.work = ? AND f.path = s.path AND f.table_no = ? GROUP BY s.path, f.dv_id) d "
    "WHERE d.gone = 0 AND d.place IS NOT NULL ORDER BY d.place LIMIT 1"
)
_VECTORS = "SELECT f.dv_id FROM dl_live_files f WHERE f.path = ? AND f.table_no = ?"
_NAMED = f"SELECT s.dv_id FROM dl_staged_files s WHERE {_MINE} AND s.path = ?"
_REMOVED_BY = (
    "SELECT DISTINCT r.version FROM dl_remove_files r WHERE r.table_no = ? AND r.version > ? "
    f"AND r.path IN (SELECT s.path FROM dl_staged_files s WHERE {_MINE})"
)


def find(database: Database, txn_id: str, asked: Sequence[Asked]) -> dict[TableKey, Found]:
    """What the rows of a complete transaction's files tell. Each list is read to its first row that is wrong, if any."""
    return {one.key: _found(database, txn_id, one) for one in asked}


def _found(database: Database, txn_id: str, one: Asked) -> Found:
    files, table_no = one.files, one.table_no
    adds, removes = (txn_id, files.work, "add"), (txn_id, files.work, "remove")
    twice = {kind for (kind,) in database.query(_TWICE, [txn_id, files.work])}
    counts: dict[tuple[str, int], tuple[int, int]] = {}
    if one.live:
        for kind, same, count, size in database.query(_LIVE, [txn_id, files.work, table_no]):
            counts[kind, same] = (count, int(size))

    def first(statement: str, *parameters: Any) -> Row | None:
        return next(iter(database.query(statement, parameters)), None)

    removed, removed_bytes = counts.get(("remove", 1), (0, 0))
    replaced, replaced_bytes = counts.get(("add", 1), (0, 0))
    added_twice = first(_FIRST_TWICE, *adds) if "add" in twice else None
    removed_twice = first(_FIRST_TWICE, *removes) if "remove" in twice else None
    both = first(_BOTH, *removes[:2]) if files.adds and files.removes else None
    missing = first(_MISSING, *removes, table_no) if removed < files.removes else None
    left = first(_LEFT, *adds[:2], table_no) if ("add", 0) in counts else None
    winners: Sequence[Row] = ()
    if one.read_version is not None and files.removes:
        winners = database.query(_REMOVED_BY, [table_no, one.read_version, *removes])
    return Found(
        twice_added=None if added_twice is None else added_twice[0],
        twice_removed=None if removed_twice is None else removed_twice[0],
        both=None if both is None else (*divmod(both[0], 2**32), both[1]),
        missing=None if missing is None else (*missing, tuple(_vectors(database, missing[0], table_no))),
        left=None if left is None else (left[0], _left(database, left[0], table_no, adds, removes)),
        ended_files=removed + replaced,
        ended_bytes=removed_bytes + replaced_bytes,
        removed_bytes=removed_bytes,
        removed_by=frozenset([version for (version,) in winners]),
    )


def _vectors(database: Database, path: str, table_no: int) -> set[str]:
    """The deletion vectors that a path is live with."""
    return {dv_id for (dv_id,) in database.query(_VECTORS, [path, table_no])}


def _left(database: Database, path: str, table_no: int, adds: tuple[Any, ...], removes: tuple[Any, ...]) -> str:
    """The least of those with which a path that is added stays live beside."""
    named = {dv_id for mine in (adds, removes) for (dv_id,) in database.query(_NAMED, [*mine, path])}
    return min(_vectors(database, path, table_no) - named)


_PLACE = (
    "ROWS(?) AS m (chunk_index BIGINT, table_no BIGINT, version BIGINT, time_ms BIGINT, first_add BIGINT, "
    "first_remove BIGINT)"
)
_OF_CHUNK = "s.txn_id = ? AND s.work = ? AND s.chunk_index = m.chunk_index"
_ADDS = COLUMNS["dl_live_files"]
_REMOVES = COLUMNS["dl_remove_files"]
_SAME = tuple(name for name in _ADDS[3:] if name != PARTITION_TEXT)
"""Columns that a staged add has as its live row will have them."""
_KEPT = tuple("partition_no" if name == PARTITION_TEXT else name for name in _ADDS)
_COPY_ENDED = (
    f"INSERT INTO dl_past_files ({', '.join(_KEPT)}, removed_version) SELECT {columns(_KEPT, 'f')}, k.version "
    "FROM ROWS(?) AS k (table_no BIGINT, version BIGINT) CROSS JOIN dl_staged_files s CROSS JOIN dl_live_files f "
    "WHERE s.txn_id = ? AND s.work = ? AND f.path = s.path AND f.dv_id = s.dv_id AND f.table_no = k.table_no"
)
# They are among the past files by now, which have an index by the version that removed them.
_DELETE_ENDED = (
    "DELETE FROM dl_live_files WHERE (table_no, version, n) IN "
    "(SELECT p.table_no, p.version, p.n FROM dl_past_files p WHERE p.table_no = ? AND p.removed_version = ?)"
)
_OF_REMOVE = {
    "table_no": "m.table_no",
    "version": "m.version",
    "n": "m.first_remove + s.n",
    "deletion_timestamp": "m.time_ms",
    "extended_file_metadata": "(1 = 1)",
    "partition_values": "COALESCE(p.partition_values, '{}')",
    "size": "f.size",
    **{name: f"COALESCE(f.{name}, s.{name})" for name in ("tags", "base_row_id", "default_row_commit_version")},
}
"""What a remove's row does not have from the transaction alone."""
_PLACE_REMOVES = (
    f"INSERT INTO dl_remove_files ({', '.join(_REMOVES)}) "
    f"SELECT {', '.join(_OF_REMOVE.get(name, f's.{name}') for name in _REMOVES)} "
    f"FROM {_PLACE} CROSS JOIN dl_staged_files s CROSS JOIN dl_live_files f "
    "LEFT JOIN dl_partitions p ON p.table_no = f.table_no AND p.partition_no = f.partition_no "
    f"WHERE {_OF_CHUNK} AND s.kind = 'remove' AND f.path = s.path AND f.dv_id = s.dv_id AND f.table_no = m.table_no"
)
# By first appearance, as files that come one by one are numbered.
_NUMBER_PARTITIONS = (
    "INSERT INTO dl_partitions (table_no, partition_no, partition_values) "
    "SELECT d.table_no, d.highest + row_number() OVER (ORDER BY d.place), d.partition_values "
    "FROM (SELECT k.table_no, s.partition_values, min(s.chunk_index * CAST(4294967296 AS BIGINT) + s.n) AS place, "
    "COALESCE((SELECT max(x.partition_no) FROM dl_partitions x WHERE x.table_no = k.table_no), 0) AS highest "
    "FROM ROWS(?) AS k (table_no BIGINT) CROSS JOIN dl_staged_files s "
    "WHERE s.txn_id = ? AND s.work = ? AND s.kind = 'add' GROUP BY k.table_no, s.partition_values) d "
    "WHERE NOT EXISTS (SELECT 1 FROM dl_partitions p "
    "WHERE p.table_no = d.table_no AND p.partition_values = d.partition_values)"
)
_PLACE_ADDS = (
    f"INSERT INTO dl_live_files (table_no, version, n, partition_no, {', '.join(_SAME)}) "
    f"SELECT m.table_no, m.version, m.first_add + s.n, 0, {columns(_SAME, 's')} "
    f"FROM {_PLACE} CROSS JOIN dl_staged_files s WHERE {_OF_CHUNK} AND s.kind = 'add'"
)
_PLACE_PARTITIONED = (
    f"INSERT INTO dl_live_files (table_no, version, n, partition_no, {', '.join(_SAME)}) "
    f"SELECT m.table_no, m.version, m.first_add + s.n, p.partition_no, {columns(_SAME, 's')} "
    f"FROM {_PLACE} CROSS JOIN dl_staged_files s CROSS JOIN dl_partitions p WHERE {_OF_CHUNK} AND s.kind = 'add' "
    "AND p.partition_values = s.partition_values AND p.table_no = m.table_no"
)


def place(database: Database, placed: Sequence[Placed]) -> None:
    """Give the staged files of one transaction their places. Inside the transaction that writes their versions; raises
    `TxnLogHaltedError` (`LIVE_FILE_MISSING`) if a file that ends is not live."""
    for one in placed:
        change = one.change
        if not change.placings:
            continue
        mine = (one.txn_id, change.placings[0].work)
        at = [
            (each.chunk_index, one.table_no, one.version, one.time_ms, each.first_add, each.first_remove)
            for each in change.placings
        ]
        if change.removed_files:
            database.submit(_PLACE_REMOVES, [at, *mine])
        if change.ended_files:
            database.submit(_COPY_ENDED, [[(one.table_no, one.version)], *mine])
            ended = database.execute(_DELETE_ENDED, [one.table_no, one.version])
            if ended != change.ended_files:
                raise live_files_missing(change.ended_files, ended)
        if change.added_files and one.partitioned:
            database.submit(_NUMBER_PARTITIONS, [[(one.table_no,)], *mine])
            database.submit(_PLACE_PARTITIONED, [at, *mine])
        elif change.added_files:
            database.submit(_PLACE_ADDS, [at, *mine])


def live_files_missing(expected: int, found: int) -> TxnLogHaltedError:
    """That rows which end are not there."""
    return TxnLogHaltedError(
        "LIVE_FILE_MISSING",
        f"{expected} files end in this batch, but only {found} of them are live in SQL: rows were changed behind the "
        "committer's back. Nothing was written; restore the store from its backup",
    )
