"""What transactions ask of tables, in few words."""

from __future__ import annotations

import json
from typing import Any

from deltalakedb.actions import AddFile, DeletionVector, OtherAction, RemoveFile
from deltalakedb.events import CreateTable, ReadSet, TableWork, WrittenAgainst

ZERO = WrittenAgainst(0, 0)
"""Written against a table as it was created."""


def schema(*columns: tuple[str, str] | dict[str, Any]) -> str:
    """A Delta schema of nullable columns, given as (name, type) or as whole fields."""
    return json.dumps({"type": "struct", "fields": [c if isinstance(c, dict) else field(*c) for c in columns]})


def field(name: str, data_type: Any, *, nullable: bool = True, metadata: Any = None) -> dict[str, Any]:
    """One field of a Delta schema."""
    return {"name": name, "type": data_type, "nullable": nullable, "metadata": metadata or {}}


ID = schema(("id", "long"))
ID_DAY = schema(("id", "long"), ("day", "date"))


def create(
    name: str = "orders",
    schema_string: str = ID,
    *adds: AddFile,
    by: tuple[str, ...] = (),
    properties: dict[str, str] | None = None,
    **intent: Any,
) -> TableWork:
    """Create a table, with first files."""
    wanted = CreateTable(schema_string=schema_string, partition_columns=by, properties=properties or {}, **intent)
    return TableWork(name=name, intents=(wanted,), adds=adds)


def relaxed(name: str = "orders", schema_string: str = ID, *adds: AddFile, **more: Any) -> TableWork:
    """Create a table under WriteSerializable."""
    properties = {"delta.isolationLevel": "WriteSerializable", **more.pop("properties", {})}
    return create(name, schema_string, *adds, properties=properties, **more)


def add(path: str, *, stats: str | None = None, size: int = 100, **more: Any) -> AddFile:
    """A file of an unpartitioned table."""
    fields: dict[str, Any] = {"partition_values": {}, "modification_time": 1, **more}
    return AddFile(path=path, size=size, stats=stats, **fields)


def append(*adds: AddFile | str, name: str | None = "orders", **more: Any) -> TableWork:
    """A blind append to a table as it was created."""
    fields: dict[str, Any] = {"written_against": ZERO, **more}
    return TableWork(name=name, adds=tuple([add(a) if isinstance(a, str) else a for a in adds]), **fields)


def remove(*paths: str | RemoveFile, name: str = "orders", **more: Any) -> TableWork:
    """Removes of files without deletion vectors."""
    return TableWork(name=name, removes=tuple([RemoveFile(path=p) if isinstance(p, str) else p for p in paths]), **more)


def reading(version: int, *adds: AddFile | str, name: str = "orders", **more: Any) -> TableWork:
    """An append by somebody who read the whole table at `version`."""
    return append(*adds, name=name, read_version=version, read_set=ReadSet(whole_table=True), **more)


def other(kind: str, body: Any) -> OtherAction:
    """A verbatim action."""
    return OtherAction(kind=kind, json=body if isinstance(body, str) else json.dumps(body))


def vector(text: str = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", **more: Any) -> DeletionVector:
    """An inline deletion vector."""
    fields: dict[str, Any] = {"storage_type": "i", "size_in_bytes": 44, "cardinality": 2, **more}
    return DeletionVector(path_or_inline_dv=text, **fields)
