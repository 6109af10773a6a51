"""Which files a condition may leave out: by partition values, by slots in SQL, by their verbatim statistics.

All of it errs on one side: a file that may have a matching row is never left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from deltalakedb.catalog import PartitionFilter, SlotRange
from deltalakedb.delta_types import DataType, StructField, StructType, resolve
from deltalakedb.slots import lower, slot_type, upper

from .nodes import And, Compare, Constant, IsIn, IsNull, Node, Or, Path, StartsWith, Value

_TOP = "\U0010ffff"
_APPLY = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def partition_test(node: Node, columns: Mapping[str, StructField]) -> PartitionFilter:
    """Whether rows with given partition values (texts by physical name) may match."""
    from deltalakedb.parquet.partitions import values_of

    def test(texts: Mapping[str, str | None]) -> bool:
        values: dict[str, Any] = {}
        for name, field in columns.items():
            values[name] = values_of([texts.get(field.physical_name)], field.type, name)[0].as_py()
        return _may_hold(node, values)

    return test


def _may_hold(node: Node, values: Mapping[str, Any]) -> bool:
    """Whether it can be true, where only some columns' values are known."""
    match node:
        case And(parts):
            return all(_may_hold(part, values) for part in parts)
        case Or(parts):
            return any(_may_hold(part, values) for part in parts)
        case Constant(value):
            return value is True
        case Compare() | IsIn() | IsNull() | StartsWith() if node.column[0] in values:
            return _holds(node, values[node.column[0]])
        case _:
            return True


def _holds(node: Compare | IsIn | IsNull | StartsWith, value: Any) -> bool:
    if isinstance(node, IsNull):
        return (value is None) != node.negated
    if value is None:
        return False
    match node:
        case Compare(_, op, wanted):
            return bool(_APPLY[op](_ordered(value), _ordered(wanted.python)))
        case IsIn(_, wanted_values, negated):
            return (_ordered(value) in [_ordered(wanted.python) for wanted in wanted_values]) != negated
        case StartsWith(_, prefix, negated):
            return bool(value.startswith(prefix)) != negated


def _ordered(value: Any) -> Any:
    """A value that compares as SQL does: NaN equals itself and is above all numbers."""
    if isinstance(value, float):
        return (1, 0) if math.isnan(value) else (0, value)
    return (0, value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def slot_ranges(node: Node, schema: StructType) -> list[SlotRange]:
    """Ranges in slot form that hold for every match: from conditions that all have to be true."""
    parts = node.parts if isinstance(node, And) else (node,)
    found: list[SlotRange] = []
    for part in parts:
        if isinstance(part, And):
            found += slot_ranges(part, schema)
            continue
        bounds = _bounds(part)
        if bounds is None:
            continue
        column = _physical(bounds[0], schema)
        data_type = slot_type(schema, column)
        if data_type is not None:
            low = None if bounds[1] is None else lower(data_type, bounds[1])
            high = None if bounds[2] is None else upper(data_type, bounds[2])
            if low is not None or high is not None:
                found.append(SlotRange(column, low, high))
    return found


def _bounds(node: Node) -> tuple[Path, Any, Any] | None:
    """Column, lowest and highest value (as statistics have them) that a leaf allows; None if it bounds nothing."""
    match node:
        case Compare(column, op, value) if op != "!=" and not _is_nan(value):
            known = _json(value)
            return column, known if op in ("=", ">", ">=") else None, known if op in ("=", "<", "<=") else None
        case IsIn(column, values, False) if not any(map(_is_nan, values)):
            known_values = sorted(values, key=lambda value: _ordered(value.python))
            return column, _json(known_values[0]), _json(known_values[-1])
        case StartsWith(column, prefix, False) if prefix:
            return column, prefix, prefix + _TOP * 2
    return None


def may_match(node: Node, stats: Mapping[str, Any], schema: StructType) -> bool:
    """Whether a file with these statistics (parsed) may have a matching row."""
    match node:
        case And(parts):
            return all(may_match(part, stats, schema) for part in parts)
        case Or(parts):
            return any(may_match(part, stats, schema) for part in parts)
        case Constant(value):
            return value is True
        case IsNull(column, negated):
            nulls = _at(stats.get("nullCount"), _physical(column, schema))
            if not isinstance(nulls, int):
                return True
            return nulls != stats.get("numRecords") if negated else nulls > 0
        case IsIn(column, values, False):
            return any(may_match(Compare(column, "=", value), stats, schema) for value in values)
        case _:
            bounds = _bounds(node)
            return bounds is None or _overlaps(bounds, stats, schema)


def _overlaps(bounds: tuple[Path, Any, Any], stats: Mapping[str, Any], schema: StructType) -> bool:
    path, lowest, highest = bounds
    column = _physical(path, schema)
    least, most = _at(stats.get("minValues"), column), _at(stats.get("maxValues"), column)
    field = resolve(schema, path)
    data_type: DataType | None = None if field is None else field.type
    if isinstance(data_type, str) and data_type == "string":
        if isinstance(least, str) and highest is not None and least > highest:
            return False
        return not (isinstance(most, str) and lowest is not None and most < lowest)
    if not isinstance(data_type, str):
        return True
    return not (
        _above(lower(data_type, least), None if highest is None else upper(data_type, highest))
        or _above(None if lowest is None else lower(data_type, lowest), upper(data_type, most))
    )


def _above(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one > other


def _json(value: Value) -> Any:
    """A value as statistics have it."""
    python = value.python
    if isinstance(python, Decimal):
        return float(python)
    return python if isinstance(python, int | float | str) else value.literal.text


def _is_nan(value: Value) -> bool:
    return isinstance(value.python, float) and math.isnan(value.python)


def _physical(path: Path, schema: StructType) -> Path:
    names: list[str] = []
    inside: DataType = schema
    for name in path:
        assert isinstance(inside, StructType), "columns were looked up when the condition was parsed"
        field = inside.field(name)
        assert field is not None
        names.append(field.physical_name)
        inside = field.type
    return tuple(names)


def _at(values: Any, column: Path) -> Any:
    for name in column:
        values = values.get(name) if isinstance(values, dict) else None
    return values
