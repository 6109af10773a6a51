"""Imported versions in few words: events as an importer publishes them, from plain actions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from deltalakedb.codec import content_digest, encode_imported_content
from deltalakedb.events import Envelope, ImportedAction, ImportedContent, ImportedVersion
from deltalakedb.ids import import_txn_id
from tests.works import ID

IMPORT_ID = "0190b5a0-0000-7000-8000-0000000000aa"
LAKE_ID = "0190b5a0-0000-7000-8000-000000000001"
LOCATION = "file:///elsewhere/old"
BEGIN_MS = 1_600_000_000_000
"""Time of version 0; each next one comes a second later."""

Body = tuple[str, Any]
"""An action: its kind, and its JSON object or text."""

PROTOCOL: Body = ("protocol", {"minReaderVersion": 1, "minWriterVersion": 2})


def metadata(schema_string: str = ID, **more: Any) -> Body:
    """A `metaData` action."""
    body = {"id": "m", "format": {"provider": "parquet", "options": {}}, "schemaString": schema_string}
    return ("metaData", {**body, "partitionColumns": [], "configuration": {}, **more})


def info(operation: str = "WRITE", **more: Any) -> Body:
    """A `commitInfo` action."""
    return ("commitInfo", {"timestamp": 5, "operation": operation, **more})


def add(path: str, **more: Any) -> Body:
    """An `add` action of a file with ten rows."""
    stats = json.dumps({"numRecords": 10, "minValues": {"id": 1}, "maxValues": {"id": 7}})
    body = {"path": path, "partitionValues": {}, "size": 100, "modificationTime": 1, "dataChange": True, "stats": stats}
    return ("add", {**body, **more})


def remove(path: str, **more: Any) -> Body:
    """A `remove` action."""
    return ("remove", {"path": path, "dataChange": True, "deletionTimestamp": 3, **more})


def version(
    number: int,
    *chunks: Sequence[Body],
    kind: str = "COMMIT",
    attempt: int = 0,
    root: str = "s3://bucket/lake",
    **content: Any,
) -> list[ImportedVersion]:
    """One version, in as many events as it has chunks."""
    fields: dict[str, Any] = {
        "import_id": IMPORT_ID,
        "table_name": "old",
        "location": LOCATION,
        "time_ms": BEGIN_MS + 1000 * number,
        "file_time_ms": BEGIN_MS,
        **content,
    }
    contents = [
        ImportedContent(version=number, kind=kind, actions=tuple(_action(*body) for body in chunk), **fields)
        for chunk in chunks
    ]
    encoded = [encode_imported_content(content) for content in contents]
    return [
        ImportedVersion(
            envelope=Envelope(
                txn_id=import_txn_id(fields["import_id"], number, attempt),
                chunk_index=index,
                chunk_count=len(contents),
                digest=content_digest(encoded),
                lake_id=LAKE_ID,
                root=root,
                client_id="importer",
                outcome_partition=0,
            ),
            content=content,
            content_bytes=encoded[index],
        )
        for index, content in enumerate(contents)
    ]


def first(*bodies: Body, **more: Any) -> ImportedVersion:
    """Version 0 with a table's protocol and metadata, and further actions."""
    (event,) = version(0, [info("CREATE TABLE"), PROTOCOL, metadata(), *bodies], **more)
    return event


def one(number: int, *bodies: Body, **more: Any) -> ImportedVersion:
    """A version in one event."""
    (event,) = version(number, [info(), *bodies], **more)
    return event


def _action(kind: str, body: Any) -> ImportedAction:
    return ImportedAction(kind=kind, json=body if isinstance(body, str) else json.dumps(body))
