"""Classic checkpoints, built from SQL: streamed to a file, read back, put if absent, and only then named.

A bad checkpoint makes a table unreadable for every reader, so nothing is named that was not verified, and one that lies
there already and is not byte for byte ours is left alone and not named.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deltalakedb.actions import SetTransaction
from deltalakedb.catalog import Catalog, TableInfo
from deltalakedb.database import Database
from deltalakedb.deltalog import last_checkpoint
from deltalakedb.errors import TxnLogMirrorError, TxnLogObjectStoreError
from deltalakedb.log_names import LAST_CHECKPOINT, checkpoint_path, log_folder, log_path
from deltalakedb.objectstore import Put

from . import properties
from .checkpoint_rows import ADD_COLUMNS, adds, heading, removes, schema
from .places import Place
from .wide import same_bytes

logger = logging.getLogger(__name__)

_BATCH_ROWS = 20_000
_ATTEMPTS = 5
# Dictionaries and statistics would cost time and serve nobody: paths and statistics are all different, and readers of a
# checkpoint read all of it.
_DICTIONARIES = ["add.partitionValues.key_value.key", "add.partitionValues.key_value.value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A checkpoint as a local file, read back and found to be what was written."""

    version: int
    actions: int
    adds: int
    size: int
    """Bytes."""


def build(db: Database, table_id: str, version: int, target: Path) -> Built:
    """Write the checkpoint of a table's `version` to the new file `target`, a batch of rows in memory at a time.

    Removes are kept by the table's retention, counted back from the version's own time: the same rows at any hour.
    Raises `TxnLogMirrorError` if what is read back differs from what was written.
    """
    catalog = Catalog(db)
    with db.snapshot():
        table = catalog.table(table_id=table_id, version=version)
        configuration = table.metadata.configuration
        shape = schema(stats=properties.stats_as_json(configuration))
        counts: dict[str, int] = dict.fromkeys(shape.names, 0)
        with pq.ParquetWriter(
            target,
            shape,
            compression="snappy",
            data_page_version="1.0",
            use_dictionary=_DICTIONARIES,  # type: ignore[arg-type]
            write_statistics=False,
            store_schema=False,
        ) as writer:
            for action, batch in _batches(catalog, table, shape):
                writer.write_batch(batch)
                if action is not None:
                    counts[action] += batch.num_rows
                else:
                    for name in shape.names:
                        counts[name] += batch.num_rows - batch[name].null_count
    _verify(target, shape, counts)
    return Built(version=version, actions=sum(counts.values()), adds=counts["add"], size=target.stat().st_size)


def _batches(catalog: Catalog, table: TableInfo, shape: pa.Schema) -> Iterator[tuple[str | None, pa.RecordBatch]]:
    """The rows of a checkpoint, each batch with the one action that it holds; None: several."""
    configuration = table.metadata.configuration
    txns = _kept(catalog.txns(table.table_no, table.version), configuration, table.time_ms)
    domains = catalog.domains(table.table_no, table.version)
    yield None, heading(shape, table.protocol, table.metadata, txns, domains)
    after = table.time_ms - properties.deleted_file_retention_ms(configuration)
    for files in catalog.tombstones(table, after_ms=after, batch=_BATCH_ROWS):
        yield "remove", removes(shape, files)
    for files in catalog.files(table, names=ADD_COLUMNS, batch=_BATCH_ROWS):
        yield "add", adds(shape, files)


def _kept(txns: list[SetTransaction], configuration: dict[str, str], time_ms: int) -> list[SetTransaction]:
    retention = properties.transaction_retention_ms(configuration)
    if retention is None:
        return txns
    return [txn for txn in txns if txn.last_updated is not None and txn.last_updated > time_ms - retention]


def _verify(file: Path, shape: pa.Schema, counts: dict[str, int]) -> None:
    """Read the file back: every page must decode, and every action be there in the number that was written."""
    found: dict[str, int] = dict.fromkeys(shape.names, 0)
    with pq.ParquetFile(file) as parquet:
        if parquet.schema_arrow.names != shape.names:
            raise TxnLogMirrorError(f"a checkpoint was read back with the columns {parquet.schema_arrow.names}")
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
            for name in shape.names:
                found[name] += batch.num_rows - batch[name].null_count
    if found != counts or found["protocol"] != 1 or found["metaData"] != 1:
        raise TxnLogMirrorError(f"a checkpoint was read back with {found} instead of {counts} actions")


def checkpoint(db: Database, place: Place, table_id: str, version: int) -> bool:
    """Publish the checkpoint of a published version, and name it in `_last_checkpoint` unless that is further already.

    Whether it is named now. Raises `TxnLogMirrorError`, `TxnLogObjectStoreError` or `TxnLogDatabaseError`; all that is
    left behind then is a checkpoint without a name, which is as good as any.
    """
    if place.store.get(log_path(place.folder, version)) is None:
        raise TxnLogMirrorError(f"version {version} is not published, so it gets no checkpoint")
    with tempfile.TemporaryDirectory(prefix="deltalakedb-checkpoint-") as folder:
        file = Path(folder) / "checkpoint.parquet"
        built = build(db, table_id, version, file)
        path = checkpoint_path(place.folder, version)
        if not _put(place, path, file):
            logger.warning("%s/%s is there already and not what SQL says; it is left unnamed", place.store.root, path)
            return False
    return _name(place, built)


def _put(place: Place, path: str, file: Path) -> bool:
    """Whether the file is at its path now: put there, or there already with the same bytes."""
    answer = place.store.put_file_if_absent(path, file)
    if answer is Put.CREATED:
        return True
    there = file.with_name("there.parquet")
    try:
        place.store.download(path, there)
    except TxnLogObjectStoreError:
        if answer is Put.EXISTS:
            raise
        # The answer was lost and so, it seems, was the put.
        raise TxnLogObjectStoreError(
            f"no trustworthy answer to putting {path!r} in {place.store.root}, and it is not there"
        ) from None
    return same_bytes(there, file)


def _name(place: Place, built: Built) -> bool:
    """Move `_last_checkpoint` forward. One that cannot be read is replaced, one that is as far or further stays."""
    path = log_folder(place.folder) + LAST_CHECKPOINT
    data = last_checkpoint.render(version=built.version, actions=built.actions, size=built.size, adds=built.adds)
    for _ in range(_ATTEMPTS):
        found = place.store.get(path)
        if found is not None:
            named = last_checkpoint.named_version(found.data)
            if named is not None and named >= built.version:
                return found.data == data
        if place.store.put_if_match(path, data, None if found is None else found.tag) is Put.CREATED:
            return True
    return False
