"""Rows of the SQL tables that keep actions, and the actions they are: which columns, in which order, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from deltalakedb.actions import (
    AddFile,
    CdcFile,
    DeletionVector,
    DomainMetadata,
    Metadata,
    Protocol,
    RemoveFile,
    SetTransaction,
)

from .values import VersionRow

_VECTOR: Final = ("dv_storage_type", "dv_path", "dv_offset", "dv_size", "dv_cardinality", "dv_max_row_index")

METADATA: Final = (
    *("metadata_id", "name", "description", "format_provider", "format_options", "schema_string"),
    *("partition_columns", "configuration", "created_time", "extra"),
)
PROTOCOL: Final = ("min_reader_version", "min_writer_version", "reader_features", "writer_features", "extra")
TXN: Final = ("app_id", "app_version", "last_updated", "extra")
DOMAIN: Final = ("domain", "configuration", "removed", "extra")
ADD: Final = (
    *("path", "size", "modification_time", "data_change", "stats", *_VECTOR),
    *("tags", "base_row_id", "default_row_commit_version", "clustering_provider", "extra"),
)
"""Of `dl_live_files` and `dl_past_files`, without the partition values."""
REMOVE: Final = (
    *("path", "data_change", "deletion_timestamp", "extended_file_metadata", "partition_values", "size", *_VECTOR),
    *("stats", "tags", "base_row_id", "default_row_commit_version", "extra"),
)
CDC: Final = ("path", "partition_values", "size", "tags", "extra")
VERSION: Final = VersionRow._fields

_ADD_REST: Final = ("tags", "baseRowId", "defaultRowCommitVersion", "clusteringProvider")
_REMOVE_REST: Final = ("stats", "tags", "baseRowId", "defaultRowCommitVersion")

_names = msgspec.json.Decoder(tuple[str, ...])
_texts = msgspec.json.Decoder(dict[str, str])
_values = msgspec.json.Decoder(dict[str, str | None])


def columns(names: Sequence[str], alias: str) -> str:
    """`names` as a select list of the table `alias`."""
    return ", ".join(f"{alias}.{name}" for name in names)


def partition_values(text: str) -> dict[str, str | None]:
    """Partition values from their text in `dl_partitions` and elsewhere."""
    return {} if text == "{}" else _values.decode(text)


def metadata(row: Sequence[Any]) -> Metadata:
    """From the columns `METADATA`."""
    (identity, name, description, provider, options, schema, partitions, configuration, created, rest) = row
    return Metadata(
        id=identity,
        schema_string=schema,
        partition_columns=_names.decode(partitions),
        configuration=_texts.decode(configuration),
        name=name,
        description=description,
        format_provider=provider,
        format_options=_texts.decode(options),
        created_time=created,
        rest=rest,
    )


def protocol(row: Sequence[Any]) -> Protocol:
    """From the columns `PROTOCOL`."""
    reader, writer, reader_features, writer_features, rest = row
    return Protocol(
        min_reader_version=reader,
        min_writer_version=writer,
        reader_features=None if reader_features is None else _names.decode(reader_features),
        writer_features=None if writer_features is None else _names.decode(writer_features),
        rest=rest,
    )


def txn(row: Sequence[Any]) -> SetTransaction:
    """From the columns `TXN`."""
    app_id, version, last_updated, rest = row
    return SetTransaction(app_id=app_id, version=version, last_updated=last_updated, rest=rest)


def domain(row: Sequence[Any]) -> DomainMetadata:
    """From the columns `DOMAIN`."""
    name, configuration, removed, rest = row
    return DomainMetadata(domain=name, configuration=configuration, removed=removed, rest=rest)


def add(row: Sequence[Any], partition: dict[str, str | None]) -> AddFile:
    """From the columns `ADD` and the file's partition values."""
    path, size, modification_time, data_change, stats, *more = row
    tags, row_id, commit_version, provider, extra = more[6:]
    return AddFile(
        path=path,
        partition_values=partition,
        size=size,
        modification_time=modification_time,
        data_change=data_change,
        stats=stats,
        deletion_vector=_vector(more),
        rest=_rest(_ADD_REST, (tags, row_id, commit_version, _quoted(provider)), extra),
    )


def remove(row: Sequence[Any]) -> RemoveFile:
    """From the columns `REMOVE`."""
    path, data_change, deleted, extended, partition, size, *more = row
    stats, tags, row_id, commit_version, extra = more[6:]
    return RemoveFile(
        path=path,
        data_change=data_change,
        deletion_vector=_vector(more),
        deletion_timestamp=deleted,
        extended_file_metadata=extended,
        partition_values=None if partition is None else partition_values(partition),
        size=size,
        rest=_rest(_REMOVE_REST, (_quoted(stats), tags, row_id, commit_version), extra),
    )


def cdc(row: Sequence[Any]) -> CdcFile:
    """From the columns `CDC`."""
    path, partition, size, tags, extra = row
    rest = _rest(("tags",), (tags,), extra)
    return CdcFile(path=path, partition_values=partition_values(partition), size=size, rest=rest)


def _vector(row: Sequence[Any]) -> DeletionVector | None:
    if row[0] is None:
        return None
    storage_type, path, offset, size, cardinality, max_row_index = row[:6]
    return DeletionVector(
        storage_type=storage_type,
        path_or_inline_dv=path,
        offset=offset,
        size_in_bytes=size,
        cardinality=cardinality,
        max_row_index=max_row_index,
    )


def _rest(names: Sequence[str], values: Sequence[str | int | None], extra: str | None) -> str | None:
    """The further fields of an action as one JSON object: those with columns first, then the others as they came."""
    if extra is None and values.count(None) == len(values):
        return None
    fields = [f'"{name}":{value}' for name, value in zip(names, values, strict=True) if value is not None]
    if extra is not None:
        fields.append(extra[1:-1])
    return "{" + ",".join(fields) + "}" if fields else None


def _quoted(text: str | None) -> str | None:
    """A text as a JSON string: in a column it is only text."""
    return None if text is None else msgspec.json.encode(text).decode()
