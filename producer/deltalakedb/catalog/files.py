"""Files of a table at a version, planned in SQL and streamed as Arrow record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from deltalakedb.database import Database
from deltalakedb.database.arrow import batches_of

from .records import columns, partition_values
from .values import SlotRange, TableInfo

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS: Final = 10_000

PartitionFilter = Callable[[Mapping[str, str | None]], bool]
"""Whether files with these partition values (as Delta writes them) may matter."""

_VECTOR: Final = ("dv_storage_type", "dv_path", "dv_offset", "dv_size", "dv_cardinality", "dv_max_row_index")
FILE_COLUMNS: Final = (
    *("path", "partition_values", "size", "modification_time", "data_change", "stats", "num_records"),
    *(*_VECTOR, "tags", "base_row_id", "default_row_commit_version", "clustering_provider", "extra", "version"),
)
"""Columns of a batch of files: those of `dl_live_files`; `partition_values` is JSON text, dictionary-encoded."""
TOMBSTONE_COLUMNS: Final = (
    *("path", "partition_values", "size", "data_change", "deletion_timestamp", "extended_file_metadata"),
    *(*_VECTOR, "base_row_id", "default_row_commit_version", "version"),
)
"""Columns of a batch of tombstones: those of `dl_remove_files`, without statistics and tags."""

_FLAGS: Final = frozenset({"data_change", "extended_file_metadata"})
_TEXTS: Final = frozenset(
    {"path", "stats", "dv_storage_type", "dv_path", "tags", "clustering_provider", "extra", "partition_values"}
)
_INT32: Final = frozenset({"dv_offset", "dv_size"})


def read_files(
    database: Database,
    table: TableInfo,
    *,
    partitions: PartitionFilter | None = None,
    ranges: Sequence[SlotRange] = (),
    names: Sequence[str] = FILE_COLUMNS,
    batch: int = BATCH_ROWS,
    many: bool = False,
) -> Iterator[pa.RecordBatch]:
    """The files that `table` has at its version, in no particular order; the columns `names` of `FILE_COLUMNS`.

    `partitions` and `ranges` only ever leave out files that cannot matter: a file whose statistics say nothing about a
    column of `ranges` is kept, and so is every file where the column has no slot. `many`: so many files are expected that
    it pays to begin slowly. Inside a `snapshot()` of the database.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = dict(
        database.query("SELECT partition_no, partition_values FROM dl_partitions WHERE table_no = ?", [table.table_no])
    )
    texts[0] = "{}"
    wanted: list[int] | None = None
    if partitions is not None:
        wanted = [number for number, text in texts.items() if partitions(partition_values(text))]
        if not wanted:
            return
    # A file is live, or it is past and was removed later than the version that is read.
    selects: list[str] = []
    parameters: list[Any] = []
    for name, when, versions in (
        ("dl_live_files", "f.version <= ?", [table.version]),
        ("dl_past_files", "f.removed_version > ? AND f.version <= ?", [table.version, table.version]),
    ):
        stored = columns([("partition_no" if column == "partition_values" else column) for column in names], "f")
        where, more = _condition(table, wanted if wanted is None or len(wanted) < len(texts) else None, ranges)
        selects.append(f"SELECT {stored} FROM {name} f WHERE f.table_no = ? AND {when}{where}")
        parameters += [table.table_no, *versions, *more]
    numbers = pa.array(list(texts), pa.int64())
    dictionary = pa.array(list(texts.values()), pa.string())
    wanted_schema = file_schema(names)
    stored_schema = pa.schema(
        [pa.field(f.name, pa.int64()) if f.name == "partition_values" else f for f in wanted_schema]
    )
    for rows in _batches(database, " UNION ALL ".join(selects), parameters, stored_schema, batch, many=many):
        columns_of = {name: rows[name] for name in names}
        if "partition_values" in columns_of:
            places = pc.index_in(rows["partition_values"], numbers)
            columns_of["partition_values"] = pa.DictionaryArray.from_arrays(places, dictionary)
        yield pa.RecordBatch.from_arrays(list(columns_of.values()), schema=wanted_schema)


def read_tombstones(
    database: Database, table: TableInfo, *, after_ms: int, batch: int = BATCH_ROWS, many: bool = False
) -> Iterator[pa.RecordBatch]:
    """What was removed up to the table's version with a deletion timestamp above `after_ms` and is not there again.

    `many` as in `read_files`. Columns as `TOMBSTONE_COLUMNS`. Inside a `snapshot()` of the database.
    """
    removed = "table_no = ? AND version >= ? AND version <= ?"
    versions = [table.table_no, table.first_version, table.version]
    # What names the file again: an add, or in an imported version another remove, and the last of one version counts.
    again = (
        f"SELECT path, dv_id, version, {{}} AS n FROM {{}} WHERE {removed} AND version >= (SELECT COALESCE(min(version), "
        f"?) FROM dl_remove_files WHERE {removed} AND deletion_timestamp > ?)"
    )
    since = [*versions, table.version, *versions, after_ms]
    adds = 2**31 - 1
    later = " UNION ALL ".join(
        (
            again.format(adds, "dl_live_files"),
            again.format(adds, "dl_past_files") + " AND removed_version > version",
            again.format("n", "dl_remove_files"),
        )
    )
    statement = (
        f"SELECT {columns(TOMBSTONE_COLUMNS, 'r')} FROM dl_remove_files r LEFT JOIN ({later}) a "
        "ON a.path = r.path AND a.dv_id = r.dv_id "
        "AND (a.version > r.version OR (a.version = r.version AND a.n > r.n)) "
        f"WHERE {removed.replace('table_no', 'r.table_no').replace('version', 'r.version')} "
        "AND COALESCE(r.deletion_timestamp, 0) > ? AND a.path IS NULL"
    )
    parameters = [*since * 3, *versions, after_ms]
    yield from _batches(database, statement, parameters, tombstone_schema(), batch, many=many)


def file_schema(names: Sequence[str] = FILE_COLUMNS) -> pa.Schema:
    """The Arrow schema of the batches of `read_files`."""
    import pyarrow as pa

    texts = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([(name, texts if name == "partition_values" else _type(name)) for name in names])


def tombstone_schema() -> pa.Schema:
    """The Arrow schema of the batches of `read_tombstones`."""
    import pyarrow as pa

    return pa.schema([(name, _type(name)) for name in TOMBSTONE_COLUMNS])


def _condition(table: TableInfo, wanted: list[int] | None, ranges: Sequence[SlotRange]) -> tuple[str, list[Any]]:
    parts: list[str] = []
    parameters: list[Any] = []
    if wanted is not None:
        parts.append("f.partition_no = ANY(?)")
        parameters.append(wanted)
    for column, lower, upper in ranges:
        if column not in table.slot_columns:
            continue
        slot = table.slot_columns.index(column) + 1
        if upper is not None:
            parts.append(f"(f.min{slot} IS NULL OR f.min{slot} <= ?)")
            parameters.append(upper)
        if lower is not None:
            parts.append(f"(f.max{slot} IS NULL OR f.max{slot} >= ?)")
            parameters.append(lower)
    return "".join(f" AND {part}" for part in parts), parameters


def _batches(
    database: Database, statement: str, parameters: Sequence[Any], schema: pa.Schema, batch: int, *, many: bool
) -> Iterator[pa.RecordBatch]:
    if many:
        return database.stream_arrow(statement, parameters, schema=schema, batch=batch)
    return batches_of(database.stream(statement, parameters, batch=batch), schema)


def _type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name in _FLAGS:
        return pa.bool_()
    if name in _TEXTS:
        return pa.string()
    return pa.int32() if name in _INT32 else pa.int64()
