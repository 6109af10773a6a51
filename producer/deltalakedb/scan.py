"""Reading the rows of one table version: files planned in SQL, opened side by side, filtered, in the order planned."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa

from .catalog import FILE_COLUMNS, PartitionFilter, SlotRange, TableInfo
from .delta_types import StructType
from .errors import TxnLogValidationError
from .parquet import DataFiles, FileReader
from .predicates import Condition

if TYPE_CHECKING:
    from .session import Session

_READERS: Final = 8
_READ_AHEAD: Final = 16
_READABLE: Final = frozenset(
    {"columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck"}
)
"""Reader features of tables whose rows can be read here; deletion vectors only as long as no file has one."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file to be read."""

    path: str
    partition_values: dict[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What is wanted of one table version."""

    session: Session
    table: TableInfo
    schema: StructType
    columns: tuple[str, ...]
    """Of the result, in order."""
    condition: Condition | None = None
    without: frozenset[str] = frozenset()
    """Paths of files that are not to be read."""
    further: tuple[DataFile, ...] = ()
    """Files that the version does not have."""

    def files(self, names: Sequence[str] = FILE_COLUMNS) -> Iterator[pa.RecordBatch]:
        """The files that may have rows that match, in batches; `names` of `catalog.FILE_COLUMNS`."""
        needed = tuple(dict.fromkeys((*names, "path", *(("stats",) if self.condition is not None else ()))))
        partitions: PartitionFilter | None = None
        ranges: Sequence[SlotRange] = ()
        if self.condition is not None:
            partitions = self.condition.partition_filter(self.table.metadata.partition_columns)
            ranges = self.condition.slot_ranges()
        with self.session.snapshot() as catalog:
            for batch in catalog.files(self.table, partitions=partitions, ranges=ranges, names=needed):
                kept = self._kept(batch)
                if kept.num_rows:
                    yield kept.select(list(names))

    def _kept(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self.condition is None and not self.without:
            return batch
        mask = [path not in self.without for path in batch.column("path").to_pylist()]
        if self.condition is not None:
            stats = batch.column("stats").to_pylist()
            mask = [keep and self._may_match(text) for keep, text in zip(mask, stats, strict=True)]
        return batch if all(mask) else batch.filter(pa.array(mask, pa.bool_()))

    def _may_match(self, stats: str | None) -> bool:
        if stats is None or self.condition is None:
            return True
        try:
            parsed = msgspec.json.decode(stats, type=dict[str, Any])
        except msgspec.MsgspecError:  # of another writer: it says nothing
            return True
        return self.condition.may_match(parsed)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, one file after the other."""
        reader = self._reader()
        for file in self._data_files():
            yield from self._rows(reader, file)

    def table_of_rows(self) -> pa.Table:
        """All rows. Files are read side by side."""
        read = self._reader().arrow_schema
        schema = pa.schema([read.field(name) for name in self.columns])
        parts: list[pa.RecordBatch] = []
        pending: deque[Future[list[pa.RecordBatch]]] = deque()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="deltalakedb-read") as threads:
            try:
                for file in self._data_files():
                    pending.append(threads.submit(self._read, file))
                    if len(pending) >= _READ_AHEAD:
                        parts += pending.popleft().result()
                while pending:
                    parts += pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
        return pa.Table.from_batches(parts, schema=schema)

    def _read(self, file: DataFile) -> list[pa.RecordBatch]:
        return list(self._rows(self._reader(), file))

    def _rows(self, reader: FileReader, file: DataFile) -> Iterator[pa.RecordBatch]:
        expression = None if self.condition is None else self.condition.expression()
        for batch in reader.read(file.path, file.partition_values):
            rows = batch if expression is None else batch.filter(expression)
            if rows.num_rows:
                yield rows.select(list(self.columns))

    def _reader(self) -> FileReader:
        used = set(self.columns) | (self.condition.columns if self.condition is not None else frozenset())
        return FileReader(
            files=self._files(),
            schema=self.schema,
            partition_columns=self.table.metadata.partition_columns,
            columns=tuple(field.name for field in self.schema.fields if field.name in used),
        )

    def _files(self) -> DataFiles:
        return self.session.files.open(self.table.location)

    def _data_files(self) -> Iterator[DataFile]:
        """The files to read. Raises `TxnLogValidationError` for what cannot be read yet."""
        unreadable = set(self.table.protocol.reader_features or ()) - _READABLE
        if unreadable or self.table.protocol.min_reader_version > 3:
            what = f"the feature {min(unreadable)}" if unreadable else "a newer protocol"
            raise TxnLogValidationError(
                f"table {self.table.name!r} has {what}, which cannot be read here yet; read it by its path with Spark"
            )
        texts: dict[str, dict[str, str | None]] = {}
        # All of the plan first: a transaction that stays open while files are read would be cut off at some time.
        for batch in list(self.files(("path", "partition_values", "dv_storage_type"))):
            for row in batch.to_pylist():
                if row["dv_storage_type"] is not None:
                    raise TxnLogValidationError(
                        f"table {self.table.name!r} has deletion vectors (feature deletionVectors), which cannot be read "
                        "here yet; read it by its path with Spark, DuckDB or delta-rs"
                    )
                text = row["partition_values"]
                values = texts.get(text)
                if values is None:
                    values = texts[text] = msgspec.json.decode(text, type=dict[str, str | None])
                yield DataFile(row["path"], values)
        yield from self.further
