"""Conditions as Arrow expressions over rows of the table."""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from functools import reduce
from operator import and_, or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deltalakedb.arrow import arrow_type
from deltalakedb.delta_types import DataType, StructType, decimal_of, resolve

from .nodes import (
    And,
    Compare,
    CompareColumns,
    Constant,
    IsIn,
    IsNull,
    Like,
    Node,
    Or,
    Path,
    StartsWith,
    Value,
)

_WHOLE = frozenset({"byte", "short", "integer", "long"})
_DIGITS = Context(prec=40)


def expression(node: Node, schema: StructType) -> Any:
    """The filter for rows of `schema`."""
    match node:
        case And(parts):
            return reduce(and_, [expression(part, schema) for part in parts])
        case Or(parts):
            return reduce(or_, [expression(part, schema) for part in parts])
        case Constant(value):
            truth: Any = pa.scalar(value, pa.bool_())
            return pc.scalar(truth)
        case IsNull(column, negated):
            field = pc.field(*column)
            return field.is_valid() if negated else field.is_null()
        case Compare(column, op, value):
            return _compare(column, op, value, _type(schema, column))
        case CompareColumns(left, op, right):
            return _ordered(pc.field(*left), op, pc.field(*right), _is_float(schema, left), _is_float(schema, right))
        case IsIn(column, values, negated):
            return _where_valid(column, _is_in(column, values, _type(schema, column)), negated)
        case StartsWith(column, prefix, negated):
            return _where_valid(column, pc.starts_with(pc.field(*column), prefix), negated)
        case Like(column, pattern, negated, ignore_case):
            return _where_valid(column, pc.match_like(pc.field(*column), pattern, ignore_case=ignore_case), negated)


def _compare(column: Path, op: str, value: Value, data_type: DataType) -> Any:
    field = pc.field(*column)
    if data_type in ("float", "double"):
        number = value.python
        if math.isnan(number):
            nan = field.is_nan()
            return {"=": nan, ">=": nan, "!=": ~nan, "<": ~nan, ">": _never(field), "<=": field.is_valid()}[op]
        found = _apply(field, op, pc.scalar(number))
        # Arrow compares as IEEE does, where NaN is above nothing.
        return found | field.is_nan() if op in (">", ">=") else found
    if data_type in _WHOLE or (isinstance(data_type, str) and decimal_of(data_type)):
        return _compare_exact(field, op, value.python, data_type)
    literal: Any = pa.scalar(value.python, arrow_type(data_type))
    return _apply(field, op, pc.scalar(literal))


def _compare_exact(field: Any, op: str, number: int | float | Decimal, data_type: str) -> Any:
    """An integer or decimal column beside any number: rounded to the column's scale, where the operator allows it."""
    scale = (decimal_of(data_type) or (0, 0))[1]
    if math.isinf(number):
        above = number > 0
    elif math.isnan(number):
        above = True  # NaN is above all numbers
    else:
        exact = Fraction(number) * 10**scale
        down, up = math.floor(exact), math.ceil(exact)
        if op in ("=", "!=") and down != up:
            return _never(field) if op == "=" else field.is_valid()
        unscaled = down if op in ("<=", "<") else up
        if down != up:
            op = {"<": "<=", ">": ">="}.get(op, op)
        if abs(unscaled) < (2**63 if data_type in _WHOLE else 10**38):
            literal: Any = unscaled if data_type in _WHOLE else pa.scalar(Decimal(unscaled).scaleb(-scale, _DIGITS))
            return _apply(field, op, pc.scalar(literal))
        above = unscaled > 0
    return field.is_valid() if op in (("<", "<=", "!=") if above else (">", ">=", "!=")) else _never(field)


def _never(field: Any) -> Any:
    return field.is_null() & field.is_valid()


def _ordered(left: Any, op: str, right: Any, left_float: bool, right_float: bool) -> Any:
    found = _apply(left, op, right)
    if not (left_float or right_float):
        return found
    left_nan = left.is_nan() if left_float else None
    right_nan = right.is_nan() if right_float else None
    equal = left_nan & right_nan if left_nan is not None and right_nan is not None else None
    if equal is not None:
        found = found & ~equal if op == "!=" else found | equal if op in ("=", "<=", ">=") else found
    if op in (">", ">=") and left_nan is not None:
        above = left_nan if right_nan is None else left_nan & ~right_nan
        found = found | (above & right.is_valid())
    if op in ("<", "<=") and right_nan is not None:
        above = right_nan if left_nan is None else right_nan & ~left_nan
        found = found | (above & left.is_valid())
    return found


def _apply(left: Any, op: str, right: Any) -> Any:
    match op:
        case "=":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case _:
            return left >= right


def _is_in(column: Path, values: tuple[Value, ...], data_type: DataType) -> Any:
    return reduce(or_, [_compare(column, "=", value, data_type) for value in values])


def _where_valid(column: Path, found: Any, negated: bool) -> Any:
    """A test that Arrow answers for null too, made null there by asking only valid values."""
    return pc.field(*column).is_valid() & (~found if negated else found)


def _type(schema: StructType, column: Path) -> DataType:
    field = resolve(schema, column)
    assert field is not None, "columns were looked up when the condition was parsed"
    return field.type


def _is_float(schema: StructType, column: Path) -> bool:
    return _type(schema, column) in ("float", "double")
