"""What a checkpoint of a version holds, streamed from SQL a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from deltalakedb.actions import DomainMetadata, SetTransaction
from deltalakedb.catalog import Catalog, TableInfo
from deltalakedb.errors import TxnLogSchemaError
from deltalakedb_mirror_worker import properties

from .rows import ADD_COLUMNS, adds, heading, removes, schema
from .typed import TypedColumns

_BATCH_ROWS = 20_000
_MANY = 20_000
"""Files from which on it pays to read them by the store's way for many."""


@dataclass(slots=True)
class Contents:
    """A version of a table as a checkpoint has it. Read inside one `snapshot()` of the database."""

    catalog: Catalog
    table: TableInfo
    shape: pa.Schema
    typed: TypedColumns | None
    v2: bool
    txns: list[SetTransaction]
    """In force at the version, expired ones included, as are `domains`."""
    domains: list[DomainMetadata]
    live_files: int = field(default=0)
    """Of what was read so far, as is `live_bytes`."""
    live_bytes: int = field(default=0)

    def heading(self) -> pa.RecordBatch:
        """The rows of everything but files."""
        table = self.table
        return heading(self.shape, table.protocol, table.metadata, _kept(self.txns, table), self.domains)

    def files(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows of files, each batch with the one action that it holds.

        Removes are kept by the table's retention, counted back from the version's own time: the same rows at any hour.
        """
        after = self.table.time_ms - properties.deleted_file_retention_ms(self.table.metadata.configuration)
        many = (self.catalog.table(table_id=self.table.table_id).live_files or 0) > _MANY
        for files in self.catalog.tombstones(self.table, after_ms=after, batch=_BATCH_ROWS, many=many):
            yield "remove", removes(self.shape, files)
        for files in self.catalog.files(self.table, names=ADD_COLUMNS, batch=_BATCH_ROWS, many=many):
            self.live_files += files.num_rows
            self.live_bytes += pc.sum(files["size"]).as_py() or 0
            yield "add", adds(self.shape, files, self.typed)


def contents(catalog: Catalog, table: TableInfo) -> Contents:
    """What a checkpoint of the version of `table` holds, in the form that the table's properties ask for."""
    configuration = table.metadata.configuration
    v2 = properties.asks_for_v2_checkpoints(configuration, table.protocol)
    as_struct = properties.stats_as_struct(configuration)
    typed = _typed(table) if as_struct else None
    stats = properties.stats_as_json(configuration) or (as_struct and typed is None)
    return Contents(
        catalog=catalog,
        table=table,
        shape=schema(stats=stats, typed=typed, v2=v2),
        typed=typed,
        v2=v2,
        txns=catalog.txns(table.table_no, table.version),
        domains=catalog.domains(table.table_no, table.version),
    )


def _typed(table: TableInfo) -> TypedColumns | None:
    """None where the table's schema has what we do not know: its statistics then stay text."""
    metadata = table.metadata
    indexed = properties.indexed_columns(metadata.configuration)
    try:
        return TypedColumns(metadata.schema_string, metadata.partition_columns, indexed)
    except TxnLogSchemaError:
        return None


def _kept(txns: list[SetTransaction], table: TableInfo) -> list[SetTransaction]:
    retention = properties.transaction_retention_ms(table.metadata.configuration)
    if retention is None:
        return txns
    return [t for t in txns if t.last_updated is not None and t.last_updated > table.time_ms - retention]
