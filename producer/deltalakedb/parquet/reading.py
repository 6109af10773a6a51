"""Data files back to rows of their table: names and types of the table, partition values of the log, missing columns null."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from deltalakedb.arrow import arrow_field
from deltalakedb.delta_types import StructField, StructType
from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.fit import Fit
from deltalakedb.paths import path_problem

from .files import DataFiles
from .partitions import values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReader:
    """Reads files of one table version. `columns` are those wanted (logical names), in the order of the result."""

    files: DataFiles
    schema: StructType
    partition_columns: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def arrow_schema(self) -> pa.Schema:
        """The schema of what `read` gives."""
        return pa.schema([arrow_field(self._field(name)) for name in self.columns])

    def read(self, path: str, partition_values: dict[str, str | None]) -> Iterator[pa.RecordBatch]:
        """The rows of one file in order, in batches. `path` and values are the log's own.

        Raises `TxnLogObjectStoreError` if the file is not there or cannot be read, `TxnLogSchemaError` if it does not
        fit the table.
        """
        if problem := path_problem(path, self.partition_columns):
            raise TxnLogObjectStoreError(f"the file {path[:200]!r} is not read: {problem}")
        given = {}
        for name in self.columns:
            if name in self.partition_columns:
                field = self._field(name)
                given[name] = values_of([partition_values.get(field.physical_name)], field.type, name)
        try:
            with self.files.open(unquote(path)) as source, pq.ParquetFile(source, pre_buffer=True) as file:
                for rows in self._stored_rows(file):
                    yield self._whole(rows, given)
        except (pa.ArrowException, OSError) as error:
            raise TxnLogObjectStoreError(f"the data file {path} cannot be read: {error}") from error

    def _stored_rows(self, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        """What the file itself has of the columns wanted."""
        wanted = self._fit(file.schema_arrow).sources
        if not wanted:
            # Nothing of it is in the file but how many rows there are.
            empty: Any = pa.nulls(file.metadata.num_rows, pa.struct([]))
            yield self._fit(pa.schema([]))(pa.RecordBatch.from_struct_array(empty))
            return
        fit: Fit | None = None
        for batch in file.iter_batches(columns=list(wanted)):
            fit = fit or self._fit(batch.schema)
            yield fit(batch)

    def _fit(self, source: pa.Schema) -> Fit:
        stored = frozenset(self.columns).difference(self.partition_columns)
        return Fit(source, self.schema, stored=True, from_physical=True, only=stored)

    def _whole(self, batch: pa.RecordBatch, given: dict[str, Any]) -> pa.RecordBatch:
        columns = [
            pa.repeat(given[name][0], batch.num_rows) if name in given else batch.column(name) for name in self.columns
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.arrow_schema)

    def _field(self, name: str) -> StructField:
        field = self.schema.field(name)
        assert field is not None, "columns are checked before files are opened"
        return field
