"""Rows into data files: split by partition values, in files of a target size, streamed within a bounded memory.

Batches are kept until there are enough for a row group, then encoded; a file is closed when it has its size. All rows
of a small append stay in memory until `finish` and each file is then written at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deltalakedb.actions import AddFile
from deltalakedb.arrow import arrow_field
from deltalakedb.delta_types import StructType
from deltalakedb.errors import TxnLogSchemaError, TxnLogValidationError
from deltalakedb.fit import Fit

from .files import DataFiles
from .partitions import encode_path, folder, value_texts
from .statistics import Statistics, leaves

ROW_GROUP_BYTES: Final = 32 * 1024 * 1024
"""Arrow bytes from which rows of one file become a row group."""
BUFFER_BYTES: Final = 128 * 1024 * 1024
"""Arrow bytes of rows kept at once, over all partitions."""
OPEN_FILES: Final = 32
"""Large files that are written at once; with more partitions than that the oldest is closed."""
_SMALL_BYTES: Final = 1024 * 1024
_FITS: Final = 8  # different Arrow schemas of incoming data that are remembered per table
_FEW_ROWS: Final = 1_000
"""Below this a dictionary costs more than it saves."""

_CODECS = {
    "snappy": ".snappy",
    "zstd": ".zstd",
    "gzip": ".gz",
    "lz4": ".lz4hadoop",
    "brotli": ".br",
    "none": "",
    "uncompressed": "",
}
_DEFAULT_CODEC = "snappy"

Key = tuple[str | None, ...]


class Written(NamedTuple):
    """A data file that is complete (and durable once its `DataFiles` is flushed)."""

    add: AddFile
    path: str
    """Decoded, below the table's folder."""
    rows: int


class _File:
    """One data file under way: its rows not encoded yet, and the writer once there is one."""

    __slots__ = ("batches", "buffered", "path", "rows", "sink", "statistics", "writer")

    def __init__(self) -> None:
        self.path = ""
        self.batches: list[pa.RecordBatch] = []
        self.buffered = 0
        self.rows = 0
        self.statistics: Statistics | None = None
        self.sink: Any = None
        self.writer: pq.ParquetWriter | None = None


class TableShape:
    """What a writer has to know of a table, worked out once for all writers of the same metadata. Thread-safe.

    Raises `TxnLogValidationError` (`TxnLogSchemaError`) for what no file can be written for.
    """

    def __init__(
        self,
        schema: StructType,
        partition_columns: Sequence[str] = (),
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.schema = schema
        by_name = {column.name: column for column in schema.fields}
        for name in partition_columns:
            if name not in by_name:
                raise TxnLogSchemaError(f"partition column {name} is not a column of the table")
        self.partition_columns = tuple(by_name[name] for name in partition_columns)
        self.partition_names = tuple(column.physical_name for column in self.partition_columns)
        columns = [column for column in schema.fields if column.name not in partition_columns]
        if not columns:
            raise TxnLogSchemaError("a table needs a column that it is not partitioned by")
        self.file_schema = pa.schema([arrow_field(column, physical=True) for column in columns])
        self.leaves = leaves(self.file_schema, properties)
        codec = properties.get("delta.parquet.compression.codec", _DEFAULT_CODEC).lower()
        if codec not in _CODECS:
            raise TxnLogValidationError(f"delta.parquet.compression.codec is {codec!r}: {', '.join(_CODECS)} are known")
        self.codec: Any = "none" if codec == "uncompressed" else codec
        self.suffix = f"{_CODECS[codec]}.parquet"
        self._fits: tuple[tuple[pa.Schema, Fit], ...] = ()

    def fit(self, source: pa.Schema) -> Fit:
        """How data of that Arrow schema becomes rows of the table, under their physical names."""
        for known, found in self._fits:
            if known.equals(source):
                return found
        made = Fit(source, self.schema, to_physical=True)
        self._fits = ((source, made), *self._fits[: _FITS - 1])
        return made


class TableWriter:
    """Writes rows of one table. `stem` makes its file names unique; `numbers` tells those of one stem apart.

    Used by one thread. Whatever raises in here leaves files behind that nothing names; `abort` deletes them.
    """

    def __init__(
        self,
        files: DataFiles,
        shape: TableShape,
        *,
        stem: str,
        numbers: Iterator[int],
        target_bytes: int,
        row_group_bytes: int = ROW_GROUP_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self._files = files
        self._shape = shape
        self._stem = stem
        self._numbers = numbers
        self._target = target_bytes
        self._row_group_bytes = row_group_bytes
        self._buffer_bytes = buffer_bytes
        self._open: dict[Key, _File] = {}
        self._buffered = 0
        self._done: list[Written] = []
        self._paths: list[str] = []

    def write(self, reader: pa.RecordBatchReader) -> None:
        """Write all rows. Raises `TxnLogSchemaError` if they do not fit the table."""
        fit = self._shape.fit(reader.schema)
        try:
            for batch in reader:
                if batch.num_rows:
                    self._take(fit(batch))
        except pa.ArrowException as error:
            raise TxnLogSchemaError(f"the data cannot be read: {error}") from error

    def finish(self) -> list[Written]:
        """Close all files and give them, in the order they were closed. The writer is of no more use."""
        for key in list(self._open):
            self._close(key)
        return self._done

    def abort(self) -> None:
        """Close and delete whatever was written."""
        for file in self._open.values():
            if file.sink is not None:
                with contextlib.suppress(OSError):  # it is deleted all the same
                    file.sink.close()
        self._open.clear()
        self._files.delete(self._paths)

    def _take(self, batch: pa.RecordBatch) -> None:
        for key, rows in self._parts(batch):
            file = self._open.get(key)
            if file is None:
                file = self._open[key] = _File()
            size = rows.get_total_buffer_size()
            if size > _SMALL_BYTES:
                size = rows.nbytes  # exact for slices of something larger, and slower to find out
            file.batches.append(rows)
            file.buffered += size
            self._buffered += size
            if file.buffered >= self._row_group_bytes:
                self._encode(key, file)
        while self._buffered > self._buffer_bytes:
            largest = max(self._open, key=lambda key: self._open[key].buffered)
            self._encode(largest, self._open[largest])

    def _parts(self, batch: pa.RecordBatch) -> Iterator[tuple[Key, pa.RecordBatch]]:
        """The rows by their partition values, without the partition columns, order kept."""
        columns = self._shape.partition_columns
        if not columns:
            yield (), batch
            return
        codes: Any = None
        keys: list[Key] = [()]
        for column in columns:
            encoded: Any = batch.column(column.physical_name).dictionary_encode(null_encoding="encode")
            texts = value_texts(encoded.dictionary, column.type, column.name)
            if not column.nullable and None in texts:
                raise TxnLogSchemaError(f"column {column.name} must not be null, and an empty partition value is")
            keys = [(*key, text) for key in keys for text in texts]
            indices = encoded.indices.cast(pa.int64())
            codes = indices if codes is None else pc.add(pc.multiply(codes, len(texts)), indices)
            if len(keys) > 1_000:  # keep what occurs, not every combination of many columns
                found: Any = codes.dictionary_encode()
                keys = [keys[code] for code in found.dictionary.to_pylist()]
                codes = found.indices.cast(pa.int64())
        rest = batch.drop_columns(list(self._shape.partition_names))
        if len(keys) == 1:
            yield keys[0], rest
            return
        order = pc.sort_indices(codes)  # stable
        runs: Any = pc.call_function("run_end_encode", [pc.take(codes, order)])
        start = 0
        for end, code in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
            # Taken one by one: a slice would keep the whole batch in memory for the rows of one partition.
            yield keys[code], rest.take(order.slice(start, end - start))
            start = end

    def _encode(self, key: Key, file: _File) -> None:
        """Make a row group of the rows kept for a file; close the file if it has its size."""
        if file.writer is None:
            begun = [other for other, its in self._open.items() if its.writer is not None]
            if len(begun) >= OPEN_FILES:
                self._close(begun[0])
            self._begin(key, file, self._files.create)
        self._write_group(file)
        if file.sink.tell() >= self._target:
            self._close(key)

    def _begin(self, key: Key, file: _File, sink: Any) -> None:
        name = f"part-{next(self._numbers):05d}-{self._stem}.c000{self._shape.suffix}"
        file.path = f"{folder(self._shape.partition_names, key)}/{name}" if key else name
        file.statistics = Statistics(self._shape.leaves)
        self._paths.append(file.path)
        file.sink = sink(file.path)
        file.writer = pq.ParquetWriter(
            file.sink,
            self._shape.file_schema,
            compression=self._shape.codec,
            use_dictionary=sum(batch.num_rows for batch in file.batches) >= _FEW_ROWS,
            store_decimal_as_integer=True,
            store_schema=False,  # Arrow's own types: every reader goes by the table's
        )

    def _write_group(self, file: _File) -> None:
        assert file.writer is not None
        assert file.statistics is not None
        rows = pa.Table.from_batches(file.batches, schema=self._shape.file_schema)
        file.statistics.observe(rows, file.buffered)
        file.writer.write_table(rows, row_group_size=rows.num_rows)
        file.rows += rows.num_rows
        self._buffered -= file.buffered
        file.batches, file.buffered = [], 0

    def _close(self, key: Key) -> None:
        file = self._open.pop(key)
        in_memory = file.writer is None
        if in_memory:
            self._begin(key, file, lambda _: pa.BufferOutputStream())
        if file.batches:
            self._write_group(file)
        assert file.writer is not None
        assert file.statistics is not None
        file.writer.close()
        size = file.sink.tell()
        if in_memory:
            self._files.put(file.path, file.sink.getvalue())
        else:
            file.sink.close()
        add = AddFile(
            path=encode_path(file.path, self._shape.partition_names) if key else file.path,
            partition_values=dict(zip(self._shape.partition_names, key, strict=True)),
            size=size,
            modification_time=time.time_ns() // 1_000_000,
            stats=file.statistics.finish(file.writer.writer.metadata),
        )
        self._done.append(Written(add=add, path=file.path, rows=file.rows))
