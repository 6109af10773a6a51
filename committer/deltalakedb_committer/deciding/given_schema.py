"""A whole schema in the place of another: it may say of columns only what changing them one by one would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deltalakedb.delta_types import TYPE_CHANGES, ArrayType, DataType, MapType, StructField, StructType, child
from deltalakedb.errors import Reason

from .refusal import Refused, shown
from .schema_changes import check_new_columns, type_changes

_WIDENING = "delta.enableTypeWidening"
_MAPPING = "delta.columnMapping."
_Path = tuple[str, ...]


def check_given_schema(
    old: StructType, new: StructType, configuration: Mapping[str, str], table: str, *, files: bool
) -> None:
    """Check the schema `new` of a table without column mapping and with those properties. `files` of `old` stay live, and
    are valid under it.

    Readers take from a field under which name and as which types a column is in files. Raises `Refused`.
    """
    change_data = configuration.get("delta.enableChangeDataFeed") == "true"
    widening = configuration.get(_WIDENING) == "true"
    rest: list[tuple[_Path, StructType | None, StructType]] = [((), old, new)]
    while rest:
        above, before, inside = rest.pop()
        was = {} if before is None else {column.name: column for column in before.fields}
        for column in inside.fields:
            path = (*above, column.name)
            known = was.get(column.name)
            if known is None:
                check_new_columns(StructType((column,)), table, mapped=False, change_data=change_data and not above)
            changes = []
            for within, earlier, later in _parts((), None if known is None else known.type, column.type):
                if isinstance(later, StructType):
                    rest.append(((*path, *within), earlier if isinstance(earlier, StructType) else None, later))
                elif files and isinstance(earlier, str) and earlier not in (later, "void"):
                    changes.append({"fromType": earlier, "toType": later} | _at(within))
            if changes and not widening:
                raise _invalid(table, path, f"is widened, and files of its old type stay: set {_WIDENING}=true")
            _check_metadata(column, known, changes, path, table, files=files)


def _check_metadata(
    column: StructField,
    known: StructField | None,
    changes: list[dict[str, Any]],
    path: _Path,
    table: str,
    *,
    files: bool,
) -> None:
    kept = {} if known is None else _told(known)
    if changes:
        kept[TYPE_CHANGES] = [*(() if known is None else type_changes(known, table)), *changes]
    told = _told(column)
    if told != kept and (files or told):
        key = min(key for key in (*told, *kept) if told.get(key) != kept.get(key))
        raise _invalid(table, path, f"has {key} {shown(told.get(key))}, and it would be {shown(kept.get(key))}")


def _told(column: StructField) -> dict[str, Any]:
    """What the metadata of a field says of the column in files."""
    return {key: value for key, value in column.metadata.items() if key.startswith(_MAPPING) or key == TYPE_CHANGES}


def _parts(within: _Path, old: DataType | None, new: DataType) -> Iterator[tuple[_Path, DataType | None, DataType]]:
    """What a field's type is made of, down to the next fields: where, what was there before, and what is."""
    if not isinstance(new, ArrayType | MapType):
        yield within, old, new
        return
    for name in ("element",) if isinstance(new, ArrayType) else ("key", "value"):
        before = child(old, name) if isinstance(old, ArrayType | MapType) else None
        after = child(new, name)
        if after is not None:
            yield from _parts((*within, name), None if before is None else before.type, after.type)


def _at(within: _Path) -> dict[str, str]:
    return {"fieldPath": ".".join(within)} if within else {}


def _invalid(table: str, path: _Path, what: str) -> Refused:
    return Refused(Reason.INVALID_SCHEMA, f"column {shown('.'.join(path))} {what}", table=table)
