"""Rows of single files: adds, removes and change data files, columns in the order of `rows.COLUMNS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from deltalakedb.actions import AddFile, CdcFile, DeletionVector, RemoveFile
from deltalakedb.paths import canonical_path, is_plain
from deltalakedb.slots import NO_SLOTS
from deltalakedb_committer.deciding.file_rest import ADD_REST, CDC_REST, REMOVE_REST, FileRest, as_json, split_rest
from deltalakedb_committer.deciding.staged_files import StagedWork
from deltalakedb_committer.deciding.state import TableState

_NO_VECTOR = (None,) * 6


def live_row(
    table: TableState, version: int, n: int, add: AddFile, num_records: int | None, slots: tuple[int | None, ...]
) -> tuple[Any, ...]:
    vector = add.deletion_vector
    head = (
        table.table_no,
        version,
        n,
        add.path,
        "" if vector is None else vector.unique_id,
        partition_text(add.partition_values),
        add.size,
        add.modification_time,
        add.data_change,
        add.stats,
        num_records,
    )
    canonical = None if is_plain(add.path) else canonical_path(add.path, table.location)
    if canonical == add.path:
        canonical = None
    if add.rest is None and vector is None:
        return (*head, *_NOTHING_MORE, canonical, *slots)
    more, extra = split_rest(add.rest, ADD_REST)
    return (
        *head,
        _tags(more),
        *_vector_row(vector),
        more.base_row_id,
        more.default_row_commit_version,
        more.clustering_provider,
        extra,
        canonical,
        *slots,
    )


_NOTHING_MORE = (None, *_NO_VECTOR, None, None, None, None)


def remove_row(table_no: int, version: int, n: int, remove: RemoveFile) -> tuple[Any, ...]:
    more, extra = split_rest(remove.rest, REMOVE_REST)
    return (
        table_no,
        version,
        n,
        remove.path,
        remove.dv_id,
        remove.data_change,
        remove.deletion_timestamp,
        remove.extended_file_metadata,
        None if remove.partition_values is None else partition_text(remove.partition_values),
        remove.size,
        more.stats,
        _tags(more),
        *_vector_row(remove.deletion_vector),
        more.base_row_id,
        more.default_row_commit_version,
        extra,
    )


def staged_rows(txn_id: str, chunk_index: int, staged: StagedWork) -> Iterator[tuple[Any, ...]]:
    """Rows of `dl_staged_files`: as those of adds and removes will be, but for where they come in which version."""
    head = (txn_id, chunk_index, staged.work)
    for n, (add, records, slots) in enumerate(zip(staged.adds, *staged.measures, strict=True)):
        _, _, _, *row = live_row(staged.table, 0, n, add, records, slots)
        yield (*head, "add", n, *row)
    for n, remove in enumerate(staged.removes):
        _, _, _, path, dv_id, data_change, _, _, _, _, stats, *row, extra = remove_row(0, 0, n, remove)
        yield (
            *(*head, "remove", n, path, dv_id, None, None, None, data_change, stats, None, *row, None, extra, None),
            *NO_SLOTS,
        )


def cdc_row(table_no: int, version: int, n: int, cdc: CdcFile) -> tuple[Any, ...]:
    more, extra = split_rest(cdc.rest, CDC_REST)
    values = partition_text(cdc.partition_values)
    return (table_no, version, n, cdc.path, values, cdc.size, False, _tags(more), extra)


def _vector_row(vector: DeletionVector | None) -> tuple[Any, ...]:
    if vector is None:
        return _NO_VECTOR
    return (
        vector.storage_type,
        vector.path_or_inline_dv,
        vector.offset,
        vector.size_in_bytes,
        vector.cardinality,
        vector.max_row_index,
    )


def _tags(more: FileRest) -> str | None:
    return None if more.tags is None else as_json(more.tags)


def partition_text(values: Mapping[str, str | None]) -> str:
    """Partition values as `dl_partitions` has them: compact JSON, keys in order of name."""
    if not values:
        return "{}"
    return msgspec.json.encode(values, order="sorted").decode()
