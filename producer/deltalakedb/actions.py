"""Delta's actions as values: what a transaction stages, SQL keeps and the mirror renders.

Field names and units are the protocol's own (bytes, milliseconds since the epoch). `rest` is a JSON object with every
other field of the action, known to us or not, exactly as it came: nothing is lost and nothing is parsed that no
decision looks at. Statistics stay the text they were.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A number of 64 bits."""
Int = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""A number of 32 bits."""


class JsonValue(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is JSON within an event: a field at its default is left out, and one that nobody knows is refused."""


class DeletionVector(JsonValue, frozen=True, kw_only=True):
    """A deletion vector's descriptor. `offset` is absent for inline vectors."""

    storage_type: str
    path_or_inline_dv: str
    offset: Int | None = None
    size_in_bytes: Int
    cardinality: Long
    max_row_index: Long | None = None

    @property
    def unique_id(self) -> str:
        """The protocol's id: with the path it is the identity of a logical file."""
        at = "" if self.offset is None else f"@{self.offset}"
        return f"{self.storage_type}{self.path_or_inline_dv}{at}"


class AddFile(JsonValue, frozen=True, kw_only=True):
    """`add`: a file becomes part of the table. `path` is percent-encoded and kept verbatim as the file's identity."""

    path: str
    partition_values: dict[str, str | None]
    size: Long
    modification_time: Long
    data_change: bool = True
    stats: str | None = None
    deletion_vector: DeletionVector | None = None
    rest: str | None = None

    @property
    def dv_id(self) -> str:
        """The deletion vector's unique id, or `""`: identity of the logical file is (path, dv_id)."""
        return "" if self.deletion_vector is None else self.deletion_vector.unique_id


class RemoveFile(JsonValue, frozen=True, kw_only=True):
    """`remove`: a file leaves the table. The committer sets `deletionTimestamp` and fills in what it knows of the file."""

    path: str
    data_change: bool = True
    deletion_vector: DeletionVector | None = None
    deletion_timestamp: Long | None = None
    extended_file_metadata: bool | None = None
    partition_values: dict[str, str | None] | None = None
    size: Long | None = None
    rest: str | None = None

    @property
    def dv_id(self) -> str:
        """The deletion vector's unique id, or `""`: identity of the logical file is (path, dv_id)."""
        return "" if self.deletion_vector is None else self.deletion_vector.unique_id


class CdcFile(JsonValue, frozen=True, kw_only=True):
    """`cdc`: a change data file of this version. `dataChange` is always false for it."""

    path: str
    partition_values: dict[str, str | None]
    size: Long
    rest: str | None = None


class OtherAction(JsonValue, frozen=True, kw_only=True):
    """Any other action (`metaData`, `protocol`, `txn`, `domainMetadata`, unknown ones) as its verbatim JSON object."""

    kind: str
    json: str


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """`metaData`: schema, partitioning and properties of a table. `schema_string` is verbatim JSON."""

    id: str
    schema_string: str
    partition_columns: tuple[str, ...] = ()
    configuration: dict[str, str] = {}
    name: str | None = None
    description: str | None = None
    format_provider: str = "parquet"
    format_options: dict[str, str] = {}
    created_time: int | None = None
    rest: str | None = None


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """`protocol`: versions and features. Feature lists are None unless reader version is 3, writer version 7."""

    min_reader_version: int
    min_writer_version: int
    reader_features: tuple[str, ...] | None = None
    writer_features: tuple[str, ...] | None = None
    rest: str | None = None


class SetTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """`txn`: the newest version of an application's own transactions that this table has."""

    app_id: str
    version: int
    last_updated: int | None = None
    rest: str | None = None


class DomainMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """`domainMetadata`: configuration text of one named domain, or its removal."""

    domain: str
    configuration: str
    removed: bool = False
    rest: str | None = None


Action = AddFile | RemoveFile | CdcFile | OtherAction

_FIELDS: dict[str, dict[str, str]] = {
    "add": {
        "path": "path",
        "partitionValues": "partition_values",
        "size": "size",
        "modificationTime": "modification_time",
        "dataChange": "data_change",
        "stats": "stats",
        "deletionVector": "deletion_vector",
    },
    "remove": {
        "path": "path",
        "dataChange": "data_change",
        "deletionVector": "deletion_vector",
        "deletionTimestamp": "deletion_timestamp",
        "extendedFileMetadata": "extended_file_metadata",
        "partitionValues": "partition_values",
        "size": "size",
    },
    "cdc": {"path": "path", "partitionValues": "partition_values", "size": "size"},
    "metaData": {
        "id": "id",
        "name": "name",
        "description": "description",
        "schemaString": "schema_string",
        "partitionColumns": "partition_columns",
        "configuration": "configuration",
        "createdTime": "created_time",
    },
    "protocol": {
        "minReaderVersion": "min_reader_version",
        "minWriterVersion": "min_writer_version",
        "readerFeatures": "reader_features",
        "writerFeatures": "writer_features",
    },
    "txn": {"appId": "app_id", "version": "version", "lastUpdated": "last_updated"},
    "domainMetadata": {"domain": "domain", "configuration": "configuration", "removed": "removed"},
}

_VECTOR = {
    "storageType": "storage_type",
    "pathOrInlineDv": "path_or_inline_dv",
    "offset": "offset",
    "sizeInBytes": "size_in_bytes",
    "cardinality": "cardinality",
    "maxRowIndex": "max_row_index",
}

_TYPES: dict[str, type[Any]] = {
    "add": AddFile,
    "remove": RemoveFile,
    "cdc": CdcFile,
    "metaData": Metadata,
    "protocol": Protocol,
    "txn": SetTransaction,
    "domainMetadata": DomainMetadata,
}


def own_fields(kind: str) -> frozenset[str]:
    """The protocol's names of the fields that actions of `kind` have here: no `rest` may have one of them again."""
    return frozenset(_FIELDS[kind])


def from_json(kind: str, body: str | bytes) -> Any:
    """The action `kind` (`add`, `metaData`, ...) from its JSON object; fields without a home of their own go to `rest`.

    Raises `msgspec.ValidationError` or `msgspec.DecodeError` (both `ValueError`) for what is not such an action, and
    `KeyError` for a kind that has no class here.
    """
    raw: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields = _FIELDS[kind]
    known: dict[str, Any] = {}
    rest: dict[str, msgspec.Raw] = {}
    for key, value in raw.items():
        name = fields.get(key)
        if name is not None:
            if bytes(value) != b"null":
                known[name] = msgspec.json.decode(value)
        elif kind == "metaData" and key == "format":
            form = msgspec.json.decode(value, type=dict[str, Any] | None) or {}
            known["format_provider"] = form.get("provider", "parquet")
            known["format_options"] = form.get("options") or {}
        elif not (kind == "cdc" and key == "dataChange"):
            rest[key] = value
    if "deletion_vector" in known:
        vector = known["deletion_vector"]
        known["deletion_vector"] = {name: vector[key] for key, name in _VECTOR.items() if vector.get(key) is not None}
    if kind == "add":
        known.setdefault("partition_values", {})
    if rest:
        known["rest"] = msgspec.json.encode(rest).decode()
    return msgspec.convert(known, _TYPES[kind])


def as_json(kind: str, action: Any) -> dict[str, Any]:
    """The JSON object of an action, ready for `msgspec.json.encode`: the protocol's names, absent optionals omitted."""
    body: dict[str, Any] = {}
    for key, name in _FIELDS[kind].items():
        value = getattr(action, name)
        if value is not None:
            body[key] = value
    if "deletionVector" in body:
        vector = body["deletionVector"]
        pairs = ((key, getattr(vector, name)) for key, name in _VECTOR.items())
        body["deletionVector"] = {key: value for key, value in pairs if value is not None}
    if kind == "cdc":
        body["dataChange"] = False
    if kind == "metaData":
        body["format"] = {"provider": action.format_provider, "options": action.format_options}
    if action.rest:
        body.update(msgspec.json.decode(action.rest, type=dict[str, msgspec.Raw]))
    return body
