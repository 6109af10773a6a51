"""Column mapping by name: ids and physical names that the committer gives to columns."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping

from deltalakedb.delta_types import (
    COLUMN_ID,
    PHYSICAL_NAME,
    ArrayType,
    DataType,
    MapType,
    StructField,
    StructType,
    fields_in,
)

MAX_COLUMN_ID = "delta.columnMapping.maxColumnId"

PhysicalName = Callable[[StructField, int], str]
"""The physical name of a column without one, from the field and its id."""


def fresh_names(txn_id: str, table: str) -> PhysicalName:
    """Names that no other transaction gives: for columns that no file has yet."""
    space = uuid.UUID(txn_id)
    return lambda column, number: f"col-{uuid.uuid5(space, f'column:{table}:{number}:{column.name}')}"


def same_names(column: StructField, number: int) -> str:
    """A column's own name: for columns that files have already."""
    return column.name


def mapped(schema: DataType, last_id: int, name: PhysicalName) -> tuple[DataType, int]:
    """`schema` with an id and a physical name on every field that has none, and the highest id now given."""
    match schema:
        case str():
            return schema, last_id
        case ArrayType():
            element, last_id = mapped(schema.element_type, last_id, name)
            return ArrayType(element, schema.contains_null), last_id
        case MapType():
            key, last_id = mapped(schema.key_type, last_id, name)
            value, last_id = mapped(schema.value_type, last_id, name)
            return MapType(key, value, schema.value_contains_null), last_id
        case StructType():
            fields: list[StructField] = []
            for column in schema.fields:
                metadata = column.metadata
                if PHYSICAL_NAME not in metadata:
                    last_id += 1
                    metadata = {**metadata, COLUMN_ID: last_id, PHYSICAL_NAME: name(column, last_id)}
                inner, last_id = mapped(column.type, last_id, name)
                fields.append(StructField(column.name, inner, column.nullable, metadata))
            return StructType(tuple(fields)), last_id


def last_id(schema: StructType, configuration: Mapping[str, str]) -> int:
    """The highest column id that the table has ever given."""
    noted = configuration.get(MAX_COLUMN_ID, "")
    ids = [column.metadata.get(COLUMN_ID) for column in fields_in(schema)]
    return max([int(noted) if noted.isdecimal() else 0, *(number for number in ids if isinstance(number, int))])
