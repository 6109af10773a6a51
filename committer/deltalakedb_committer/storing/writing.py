"""One batch to SQL: the cursor moves, and with it come all rows, in the one transaction that the caller has begun."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import msgspec

from deltalakedb.catalog.records import columns
from deltalakedb.database import Database
from deltalakedb.errors import TxnLogFencedError
from deltalakedb.failpoints import Failpoint

from .columns import COLUMNS
from .partitions import Partitions
from .rows import Batch, OutboxRow
from .staged_files import live_files_missing, place

_MOVED = Failpoint("committer.position-moved")
_INSERTED = Failpoint("committer.rows-inserted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where the committer stands: the row that moves only together with its effects.

    A write names the cursor it started from; if the stored row is not exactly that any more, nothing is written and
    `TxnLogFencedError` is raised.
    """

    epoch: int
    position: int
    """Next record of the staged stream."""
    stream_identity: str
    last_event_hash: bytes | None
    """SHA-256 of the record before `position`."""
    commit_seq: int
    time_ms: int
    next_table_no: int
    rule_set: int
    published_position: int
    """Everything caused by records below is on the log."""


CURSOR = tuple(Cursor.__dataclass_fields__)
_HEADS = COLUMNS["dl_table_heads"]
_TABLES = COLUMNS["dl_tables"]
TARGETS = COLUMNS["dl_mirror_targets"]
_FILES = COLUMNS["dl_live_files"]
_FILE_COLUMNS = tuple("partition_no" if name == "partition_values" else name for name in _FILES)
OUTBOX = OutboxRow._fields

_TEXTS = frozenset({"target", "kind", "root", "state"})


def _upsert(table: str, names: tuple[str, ...]) -> str:
    """A statement that writes a list of rows, over those that have the same first column."""
    typed = ", ".join(f"{name} {'TEXT' if name in _TEXTS else 'BIGINT'}" for name in names)
    return (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {columns(names, 'k')} FROM ROWS(?) AS k ({typed}) WHERE TRUE "
        f"ON CONFLICT ({names[0]}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names[1:])}"
    )


_KEPT = _TABLES.index("state")
"""So many columns of a table's entry, from the first on, never change."""
_CHANGE_TABLE = f"UPDATE dl_tables SET {', '.join(f'{name} = ?' for name in _TABLES[_KEPT:])} WHERE table_no = ?"
_WRITE_HEADS = _upsert("dl_table_heads", _HEADS)
_WRITE_TARGETS = _upsert("dl_mirror_targets", TARGETS)


def move_cursor(database: Database, lake_id: str, cursor: Cursor, new: Cursor) -> None:
    """Move the stored cursor, in the transaction under way. Raises `TxnLogFencedError` unless it is `cursor`."""
    moved = database.execute(
        f"UPDATE dl_committer_position SET {', '.join(f'{name} = ?' for name in CURSOR)} "
        "WHERE lake_id = ? AND epoch = ? AND position = ?",
        [*astuple(new), lake_id, cursor.epoch, cursor.position],
    )
    if moved != 1:
        raise TxnLogFencedError(
            f"another committer took over from epoch {cursor.epoch} at position {cursor.position}: nothing was written"
        )


def write_batch(
    database: Database, partitions: Partitions, lake_id: str, cursor: Cursor, batch: Batch, new: Cursor
) -> None:
    """Write a batch and move the cursor, in the transaction under way.

    Raises `TxnLogFencedError` unless the stored cursor is at the epoch and position of `cursor`; `TxnLogHaltedError`
    (`LIVE_FILE_MISSING`) if a file that ends is not live. `partitions` is of no more use once a row was placed.
    """
    move_cursor(database, lake_id, cursor, new)
    _MOVED.reached(batch)
    _write(database, partitions, batch)
    if new.published_position > cursor.published_position:
        # From the old mark on: what lies below it is gone, and its dead index entries need not be walked over.
        database.submit(
            "DELETE FROM dl_outbox WHERE position >= ? AND position < ?",
            [cursor.published_position, new.published_position],
        )
    _INSERTED.reached(batch)


def _write(database: Database, partitions: Partitions, batch: Batch) -> None:
    finished = set(batch.finished_chunks)
    # Changes first: a name that becomes free may be taken by a table of the same batch.
    database.execute_many(_CHANGE_TABLE, [(*row[_KEPT:], row[0]) for row in batch.tables.values()])
    database.insert("dl_tables", _TABLES, list(batch.new_tables.values()))
    for table, rows in batch.inserts.items():
        if table == "dl_live_files":
            files, new_partitions = partitions.number(database, rows)
            database.insert("dl_partitions", ("table_no", "partition_no", "partition_values"), new_partitions)
            database.insert(table, _FILE_COLUMNS, files)
        elif table in ("dl_staged_chunks", "dl_staged_files"):
            database.insert(table, COLUMNS[table], [row for row in rows if row[0] not in finished])
        else:
            database.insert(table, COLUMNS[table], rows)
    outbox = [(*row[:4], msgspec.json.encode(row.headers).decode(), row.payload) for row in batch.outbox]
    database.insert("dl_outbox", OUTBOX, outbox)
    # From here on statements go out with the COMMIT, where an adapter has pipelines.
    if batch.heads:
        database.submit(_WRITE_HEADS, [list(batch.heads.values())])
    if batch.targets:
        database.submit(_WRITE_TARGETS, [list(batch.targets.values())])
    if batch.imports:
        database.submit("DELETE FROM dl_imports WHERE table_no = ANY(?)", [sorted(batch.imports)])
        under_way = [row for row in batch.imports.values() if row is not None]
        database.insert("dl_imports", COLUMNS["dl_imports"], under_way)
    if batch.placed:
        place(database, batch.placed)
    if batch.superseded:
        ended = database.move(
            *("dl_live_files", "dl_past_files", _FILE_COLUMNS, sorted(batch.superseded)),
            by=("table_no", "version", "n"),
            adding=("removed_version",),
        )
        if ended != len(batch.superseded):
            raise live_files_missing(len(batch.superseded), ended)
    if finished:
        for table in ("dl_staged_chunks", "dl_staged_files"):
            database.submit(f"DELETE FROM {table} WHERE txn_id = ANY(?)", [sorted(finished)])
