"""The rows of a checkpoint as Arrow batches in exactly the Parquet shape that Spark writes. Pure.

Every field is optional, versions of the protocol are 32 bit, lists and maps have three levels, one row holds one action.
Absent feature lists are null and never empty; partition values are a map and never null; a remove has neither
statistics nor tags. A V2 checkpoint has two more kinds of rows, and its file actions may lie in sidecars.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from deltalakedb.actions import DomainMetadata, Metadata, Protocol, SetTransaction

from .typed import TypedColumns

_MAP = pa.map_(pa.string(), pa.string())
_LIST = pa.list_(pa.string())
_VECTOR = pa.struct(
    [
        ("storageType", pa.string()),
        ("pathOrInlineDv", pa.string()),
        ("offset", pa.int32()),
        ("sizeInBytes", pa.int32()),
        ("cardinality", pa.int64()),
        ("maxRowIndex", pa.int64()),
    ]
)
_ADD = pa.struct(
    [
        ("path", pa.string()),
        ("partitionValues", _MAP),
        ("size", pa.int64()),
        ("modificationTime", pa.int64()),
        ("dataChange", pa.bool_()),
        ("tags", _MAP),
        ("deletionVector", _VECTOR),
        ("baseRowId", pa.int64()),
        ("defaultRowCommitVersion", pa.int64()),
        ("clusteringProvider", pa.string()),
    ]
)
_STATS = pa.field("stats", pa.string())
_REMOVE = pa.struct(
    [
        ("path", pa.string()),
        ("deletionTimestamp", pa.int64()),
        ("dataChange", pa.bool_()),
        ("extendedFileMetadata", pa.bool_()),
        ("partitionValues", _MAP),
        ("size", pa.int64()),
        ("deletionVector", _VECTOR),
        ("baseRowId", pa.int64()),
        ("defaultRowCommitVersion", pa.int64()),
    ]
)
_TXN = pa.struct([("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())])
_METADATA = pa.struct(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("description", pa.string()),
        ("format", pa.struct([("provider", pa.string()), ("options", _MAP)])),
        ("schemaString", pa.string()),
        ("partitionColumns", _LIST),
        ("configuration", _MAP),
        ("createdTime", pa.int64()),
    ]
)
_PROTOCOL = pa.struct(
    [
        ("minReaderVersion", pa.int32()),
        ("minWriterVersion", pa.int32()),
        ("readerFeatures", _LIST),
        ("writerFeatures", _LIST),
    ]
)
_DOMAIN = pa.struct([("domain", pa.string()), ("configuration", pa.string()), ("removed", pa.bool_())])
_CHECKPOINT_METADATA = pa.struct([("version", pa.int64()), ("tags", _MAP)])
_SIDECAR = pa.struct(
    [("path", pa.string()), ("sizeInBytes", pa.int64()), ("modificationTime", pa.int64()), ("tags", _MAP)]
)

_VECTOR_COLUMNS = ("dv_storage_type", "dv_path", "dv_offset", "dv_size", "dv_cardinality", "dv_max_row_index")
_FILE_COLUMNS = (*_VECTOR_COLUMNS, "base_row_id", "default_row_commit_version")

ADD_COLUMNS = (
    *("path", "partition_values", "size", "modification_time", "stats", "tags", *_FILE_COLUMNS),
    "clustering_provider",
)
"""Columns that `adds` wants, by their names in SQL."""

REMOVE_COLUMNS = (
    *("path", "deletion_timestamp", "data_change", "extended_file_metadata", "partition_values", "size"),
    *_FILE_COLUMNS,
)
"""Columns that `removes` wants, by their names in SQL."""


class Sidecar(NamedTuple):
    """A file of a V2 checkpoint that holds file actions."""

    name: str
    size: int
    modification_time: int


def schema(*, stats: bool, typed: TypedColumns | None = None, v2: bool = False) -> pa.Schema:
    """Of the whole checkpoint, or of the main file of a V2 one.

    `stats`: whether adds carry their statistics as JSON text; `typed`: the columns that hold them, and the partition
    values, by their types.
    """
    add = pa.struct([*_ADD, *([_STATS] if stats else []), *(typed.fields if typed is not None else [])])
    return pa.schema(
        [
            ("txn", _TXN),
            ("add", add),
            ("remove", _REMOVE),
            ("metaData", _METADATA),
            ("protocol", _PROTOCOL),
            ("domainMetadata", _DOMAIN),
            *([("checkpointMetadata", _CHECKPOINT_METADATA), ("sidecar", _SIDECAR)] if v2 else []),
        ]
    )


def sidecar_schema(shape: pa.Schema) -> pa.Schema:
    """Of the sidecars beside a main file of `shape`: they hold file actions and nothing else."""
    return pa.schema([shape.field("add"), shape.field("remove")])


def heading(
    shape: pa.Schema,
    protocol: Protocol,
    metadata: Metadata,
    txns: Iterable[SetTransaction],
    domains: Iterable[DomainMetadata],
) -> pa.RecordBatch:
    """The rows of everything but files: one protocol, one metaData, every txn and every domain."""
    rows: list[dict[str, Any]] = [
        {
            "protocol": {
                "minReaderVersion": protocol.min_reader_version,
                "minWriterVersion": protocol.min_writer_version,
                "readerFeatures": protocol.reader_features if protocol.min_reader_version == 3 else None,
                "writerFeatures": protocol.writer_features if protocol.min_writer_version == 7 else None,
            }
        },
        {
            "metaData": {
                "id": metadata.id,
                "name": metadata.name,
                "description": metadata.description,
                "format": {"provider": metadata.format_provider, "options": list(metadata.format_options.items())},
                "schemaString": metadata.schema_string,
                "partitionColumns": metadata.partition_columns,
                "configuration": list(metadata.configuration.items()),
                "createdTime": metadata.created_time,
            }
        },
    ]
    rows += [{"txn": {"appId": t.app_id, "version": t.version, "lastUpdated": t.last_updated}} for t in txns]
    rows += [
        {"domainMetadata": {"domain": d.domain, "configuration": d.configuration, "removed": False}} for d in domains
    ]
    return pa.RecordBatch.from_pylist(rows, schema=shape)


def v2_heading(shape: pa.Schema, version: int, sidecars: Sequence[Sidecar]) -> pa.RecordBatch:
    """The rows that only a V2 checkpoint has: one for itself, and one for each of its sidecars."""
    rows: list[dict[str, Any]] = [{"checkpointMetadata": {"version": version}}]
    rows += [
        {"sidecar": {"path": s.name, "sizeInBytes": s.size, "modificationTime": s.modification_time}} for s in sidecars
    ]
    return pa.RecordBatch.from_pylist(rows, schema=shape)


def adds(shape: pa.Schema, files: pa.RecordBatch, typed: TypedColumns | None = None) -> pa.RecordBatch:
    """One row per live file of `files` (columns as in `ADD_COLUMNS`). A checkpoint's adds change no data."""
    columns: dict[str, pa.Array[Any]] = {
        "path": files["path"],
        "partitionValues": _maps(files["partition_values"]),
        "size": files["size"],
        "modificationTime": files["modification_time"],
        "dataChange": pa.repeat(False, files.num_rows),
        "tags": _maps(files["tags"]),
        "clusteringProvider": files["clustering_provider"],
        "stats": files["stats"],
        **_file_fields(files),
        **({} if typed is None else typed.columns(files)),
    }
    return _only(shape, "add", columns, files.num_rows)


def removes(shape: pa.Schema, files: pa.RecordBatch) -> pa.RecordBatch:
    """One row per tombstone of `files` (columns as in `REMOVE_COLUMNS`)."""
    columns: dict[str, pa.Array[Any]] = {
        "path": files["path"],
        "deletionTimestamp": files["deletion_timestamp"],
        "dataChange": files["data_change"],
        "extendedFileMetadata": files["extended_file_metadata"],
        "partitionValues": _maps(files["partition_values"]),
        "size": files["size"],
        **_file_fields(files),
    }
    return _only(shape, "remove", columns, files.num_rows)


def _only(shape: pa.Schema, action: str, columns: dict[str, pa.Array[Any]], rows: int) -> pa.RecordBatch:
    """A batch whose rows all hold `action` and nothing else."""
    wanted = shape.field(action).type
    parts = [columns[field.name].cast(field.type) for field in wanted]
    action_column = pa.StructArray.from_arrays(parts, fields=list(wanted))
    return pa.RecordBatch.from_arrays(
        [action_column if field.name == action else pa.nulls(rows, field.type) for field in shape], schema=shape
    )


def _file_fields(files: pa.RecordBatch) -> dict[str, pa.Array[Any]]:
    types: list[pa.Field[Any]] = list(_VECTOR)
    parts = [files[name].cast(field.type) for name, field in zip(_VECTOR_COLUMNS, types, strict=True)]
    return {
        "deletionVector": pa.StructArray.from_arrays(parts, fields=types, mask=files["dv_storage_type"].is_null()),
        "baseRowId": files["base_row_id"],
        "defaultRowCommitVersion": files["default_row_commit_version"],
    }


def _maps(texts: pa.Array[Any]) -> pa.Array[Any]:
    """JSON objects of strings as maps; null stays null. Equal texts, of which there are few, are parsed once."""
    encoded = texts if isinstance(texts, pa.DictionaryArray) else texts.dictionary_encode()
    parse = msgspec.json.Decoder(dict[str, str | None]).decode
    objects = [list(parse(text.as_py()).items()) for text in encoded.dictionary]
    return pa.array(objects, _MAP).take(encoded.indices)
