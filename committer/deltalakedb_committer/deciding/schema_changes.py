"""Changing a schema: adding, renaming, widening and dropping columns. Pure, each gives a new schema or the same one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deltalakedb.delta_types import (
    TYPE_CHANGES,
    DataType,
    StructField,
    StructType,
    child,
    name_problem,
    parse_field,
    parse_type,
    resolve,
    types_in,
    with_type,
)
from deltalakedb.errors import Reason, TxnLogSchemaError
from deltalakedb.events import AddColumn, DropColumn, RenameColumn, WidenColumn
from deltalakedb.schema_evolution import alike, widens

from .refusal import Refused, shown

_CHANGE_FEED = frozenset({"_change_type", "_commit_version", "_commit_timestamp"})


def check_new_columns(data_type: DataType, table: str, *, mapped: bool, change_data: bool) -> None:
    """Check columns that a client brings into a table. Raises `Refused`."""
    for name in types_in(data_type):
        if name == "void":
            raise _invalid(table, "a column of type void holds nothing but nulls: give it a type")
    if not mapped and (problem := name_problem(data_type)):
        raise _invalid(table, problem)
    if isinstance(data_type, StructType):
        for column in data_type.fields:
            if change_data and column.name.lower() in _CHANGE_FEED:
                raise _invalid(table, f"column {shown(column.name)} has a name that the change data feed uses")


def check_field_metadata(fields: tuple[StructField, ...], table: str) -> None:
    """Refuse field metadata that only the committer gives. What stands for a feature is refused by the feature."""
    for column in fields:
        for key in column.metadata:
            if key.startswith("delta.columnMapping.") or key == TYPE_CHANGES:
                raise _invalid(table, f"{key} of column {shown(column.name)} is given by the committer: leave it out")


def type_changes(column: StructField, table: str) -> list[object]:
    """What a column notes of its earlier types. Raises `Refused` if an imported one notes something else there."""
    noted = column.metadata.get(TYPE_CHANGES, [])
    if not isinstance(noted, list):
        raise _invalid(
            table, f"{TYPE_CHANGES} of column {shown(column.name)} is no list, so that nothing can be noted there"
        )
    return noted


def add_column(schema: StructType, intent: AddColumn, table: str) -> tuple[StructType, StructField | None]:
    """`schema` with the field of `intent`, and the field as added; None if an equal one is there already."""
    try:
        column = parse_field(intent.field)
    except TxnLogSchemaError as error:
        raise _invalid(table, f"not a Delta field: {error}") from error
    inside: DataType | None = schema
    if intent.parent:
        holder = resolve(schema, intent.parent)
        inside = None if holder is None else holder.type
    if not isinstance(inside, StructType):
        raise _invalid(table, f"column {shown('.'.join(intent.parent))} is not a struct that could get a field")
    there = next((f for f in inside.fields if f.name.lower() == column.name.lower()), None)
    if there is not None:
        if there.name == column.name and there.nullable == column.nullable and alike(there.type, column.type):
            return schema, None
        raise _invalid(table, f"column {shown(column.name)} is there already, and is not the same")
    if not column.nullable:
        raise _invalid(table, f"column {shown(column.name)} must be nullable: rows that are there have no value for it")
    at = len(inside.fields)
    if intent.after is not None:
        names = [f.name for f in inside.fields]
        if intent.after and intent.after not in names:
            raise _invalid(table, f"there is no column {shown(intent.after)} to put {shown(column.name)} after")
        at = names.index(intent.after) + 1 if intent.after else 0
    fields = (*inside.fields[:at], column, *inside.fields[at:])
    return _with_struct(schema, intent.parent, StructType(fields)), column


def rename_column(schema: StructType, intent: RenameColumn, table: str) -> StructType:
    """`schema` with the column renamed; the same if that has happened. Only under column mapping."""
    siblings = _siblings(schema, intent.column, table)
    old, new = intent.column[-1], intent.new_name
    if siblings.field(old) is None and siblings.field(new) is not None:
        return schema
    column = _existing(siblings, intent.column, table)
    if any(f.name.lower() == new.lower() and f is not column for f in siblings.fields):
        raise _invalid(table, f"there is a column {shown(new)} already")
    if not new or any(ord(character) < 32 for character in new):
        raise _invalid(table, f"{shown(new)} is not a column name")
    renamed = tuple(replace(f, name=new) if f is column else f for f in siblings.fields)
    return _with_struct(schema, intent.column[:-1], StructType(renamed))


def drop_column(schema: StructType, intent: DropColumn, table: str) -> StructType:
    """`schema` without the column; the same if it is gone. Only under column mapping."""
    siblings = _siblings(schema, intent.column, table)
    column = siblings.field(intent.column[-1])
    if column is None:
        return schema
    if len(siblings.fields) == 1:
        raise _invalid(table, f"column {shown(column.name)} is the last one: a table or struct has at least one")
    left = tuple(f for f in siblings.fields if f is not column)
    return _with_struct(schema, intent.column[:-1], StructType(left))


def widen_column(schema: StructType, intent: WidenColumn, table: str) -> StructType:
    """`schema` with the column's wider type and the change noted in its metadata; the same if it has that type."""
    try:
        wanted = parse_type(intent.new_type)
    except TxnLogSchemaError as error:
        raise _invalid(table, f"not a Delta type: {error}") from error
    found = resolve(schema, intent.column)
    if found is None:
        raise _invalid(table, f"there is no column {shown('.'.join(intent.column))}")
    was = found.type
    if was == wanted:
        return schema
    if not (isinstance(was, str) and isinstance(wanted, str) and widens(was, wanted)):
        raise _invalid(
            table, f"column {shown('.'.join(intent.column))} of type {shown(was)} cannot be widened to {shown(wanted)}"
        )
    owner = _owner(schema, intent.column)
    change = {"toType": wanted, "fromType": was}
    if inner := intent.column[owner:]:
        change["fieldPath"] = ".".join(inner)

    def noted(column: StructField) -> StructField:
        changes = [*type_changes(column, table), change]
        data_type = with_type(column.type, inner, wanted) if inner else wanted
        return StructField(column.name, data_type, column.nullable, {**column.metadata, TYPE_CHANGES: changes})

    return _replaced_field(schema, intent.column[:owner], noted)


def _owner(schema: StructType, path: tuple[str, ...]) -> int:
    """How many steps of `path` lead to the innermost field of a struct; the rest leads through arrays and maps."""
    inside: DataType = schema
    owner = 0
    for at, name in enumerate(path):
        if isinstance(inside, StructType):
            owner = at + 1
        step = child(inside, name)
        inside = step.type if step is not None else inside
    return owner


def _siblings(schema: StructType, path: tuple[str, ...], table: str) -> StructType:
    inside: DataType | None = schema
    if len(path) > 1:
        holder = resolve(schema, path[:-1])
        inside = None if holder is None else holder.type
    if not path or not isinstance(inside, StructType):
        raise _invalid(table, f"there is no column {shown('.'.join(path))}")
    return inside


def _existing(siblings: StructType, path: tuple[str, ...], table: str) -> StructField:
    column = siblings.field(path[-1])
    if column is None:
        raise _invalid(table, f"there is no column {shown('.'.join(path))}")
    return column


def _replaced_field(
    schema: StructType, path: tuple[str, ...], change: Callable[[StructField], StructField]
) -> StructType:
    """`schema` with the struct field at `path` changed."""
    holder = resolve(schema, path[:-1]) if len(path) > 1 else None
    inside = schema if holder is None else holder.type
    if not isinstance(inside, StructType):
        raise TypeError(f"{path} leads to no field of a struct")
    fields = tuple(change(f) if f.name == path[-1] else f for f in inside.fields)
    return _with_struct(schema, path[:-1], StructType(fields))


def _with_struct(schema: StructType, path: tuple[str, ...], new: StructType) -> StructType:
    changed = with_type(schema, path, new)
    if not isinstance(changed, StructType):
        raise TypeError("a table's schema is a struct")
    return changed


def _invalid(table: str, message: str) -> Refused:
    return Refused(Reason.INVALID_SCHEMA, message, table=table)
