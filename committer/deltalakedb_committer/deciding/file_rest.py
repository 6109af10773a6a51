"""The further fields of add, remove and cdc: which of them have columns in SQL, and what stays verbatim JSON."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from deltalakedb.actions import AddFile

from .state import LiveFile

_Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z")]
"""Postgres takes no NUL in a text."""


class FileRest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The fields that have columns but no fields in the event."""

    stats: _Text | None = None
    tags: dict[str, str | None] | None = None
    base_row_id: _Long | None = None
    default_row_commit_version: _Long | None = None
    clustering_provider: _Text | None = None


ADD_REST = ("tags", "baseRowId", "defaultRowCommitVersion", "clusteringProvider")
REMOVE_REST = ("stats", "tags", "baseRowId", "defaultRowCommitVersion")
CDC_REST = ("tags",)

_NOTHING: tuple[FileRest, str | None] = (FileRest(), None)


def split_rest(rest: str | None, columns: tuple[str, ...]) -> tuple[FileRest, str | None]:
    """What of an action's further fields goes to `columns` (the protocol's names), and the others as JSON, if any.

    Raises `ValueError` (msgspec's errors are) where a field has not the protocol's type.
    """
    if rest is None:
        return _NOTHING
    raw: dict[str, msgspec.Raw] = msgspec.json.decode(rest, type=dict[str, msgspec.Raw])
    own = {name: raw.pop(name) for name in columns if name in raw}
    typed = msgspec.json.decode(msgspec.json.encode(own), type=FileRest)
    return typed, msgspec.json.encode(raw).decode() if raw else None


def with_fields(rest: str | None, more: FileRest) -> str | None:
    """`rest` with the fields that `more` gives, in place of what it says of them."""
    given = msgspec.json.encode(more)
    if given == b"{}":
        return rest
    raw: dict[str, msgspec.Raw] = msgspec.json.decode(rest, type=dict[str, msgspec.Raw]) if rest else {}
    raw.update(msgspec.json.decode(given, type=dict[str, msgspec.Raw]))
    return msgspec.json.encode(raw).decode()


def live_file(add: AddFile, version: int, n: int) -> LiveFile:
    """The add as a decision finds it once it is live."""
    if add.rest is None:
        return LiveFile(version, n, add.size, add.partition_values)
    more, _ = split_rest(add.rest, ADD_REST)
    return LiveFile(
        version=version,
        n=n,
        size=add.size,
        partition_values=add.partition_values,
        base_row_id=more.base_row_id,
        default_row_commit_version=more.default_row_commit_version,
        tags=None if more.tags is None else as_json(more.tags),
    )


def as_json(value: Any) -> str:
    """JSON as SQL has it: compact text."""
    return msgspec.json.encode(value).decode() if value else "{}" if isinstance(value, dict) else "[]"
