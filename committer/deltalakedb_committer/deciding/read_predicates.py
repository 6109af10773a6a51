"""Whether files with given partition values may hold rows that a read predicate was true for.

A predicate is three-valued. Of a column that does not partition the table nothing is known here, so a term about it may
be true, false or NULL; the answer errs on that side only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from deltalakedb.delta_types import DataType, decimal_of
from deltalakedb.events import Literal, Predicate, Term

PartitionValues = Mapping[str, str | None]
"""Text by the name that keys partition values, as in `add.partitionValues`."""

_TRUE: Final = 1
_FALSE: Final = 2
_NULL: Final = 4
_ANY: Final = _TRUE | _FALSE | _NULL
_CONNECTIVES: Final = {"and": 2, "or": 2, "not": 1, "true": 0}
_WHOLE: Final = frozenset({"byte", "short", "integer", "long"})
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


class PartitionColumn:
    """A column that partitions the table: what its values are keyed by, and their type."""

    __slots__ = ("data_type", "key")

    def __init__(self, key: str, data_type: DataType) -> None:
        self.key = key
        self.data_type = data_type


def is_postfix(predicate: Predicate) -> bool:
    """Whether the terms make one condition: every connective finds its operands, and one value is left."""
    depth = 0
    for term in predicate.terms:
        operands = 0 if term.column else _CONNECTIVES.get(term.op)
        if operands is None or depth < operands:
            return False
        depth += 1 - operands
    return depth == 1


def may_match(predicate: Predicate, columns: Mapping[str, PartitionColumn], values: PartitionValues) -> bool:
    """Whether the predicate can be true of a row in a file with these partition values. Only for postfix ones."""
    stack: list[int] = []
    for term in predicate.terms:
        if term.column:
            stack.append(_leaf(term, columns, values))
        elif term.op == "true":
            stack.append(_TRUE)
        elif term.op == "not":
            stack.append(_negated(stack.pop()))
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(_both(left, right) if term.op == "and" else _negated(_both(_negated(left), _negated(right))))
    return bool(stack[-1] & _TRUE)


def _negated(truth: int) -> int:
    return truth & _NULL | (_FALSE if truth & _TRUE else 0) | (_TRUE if truth & _FALSE else 0)


def _both(left: int, right: int) -> int:
    """AND: false if one is, else NULL if one is."""
    found = _TRUE if left & right & _TRUE else 0
    if (left | right) & _FALSE:
        found |= _FALSE
    if (left & _NULL and right & (_TRUE | _NULL)) or (right & _NULL and left & _TRUE):
        found |= _NULL
    return found


def _leaf(term: Term, columns: Mapping[str, PartitionColumn], values: PartitionValues) -> int:
    column = columns.get(term.column[0]) if len(term.column) == 1 else None
    if column is None:
        return _ANY
    text = values.get(column.key)
    if term.op in ("is-null", "is-not-null"):
        return _TRUE if (text is None) == (term.op == "is-null") else _FALSE
    if text is None:
        return _NULL
    value = _value(column.data_type, text)
    literals = [_literal(literal) for literal in term.literals]
    if value is None or None in literals:
        return _ANY
    wanted = [literal for literal in literals if literal is not None]
    match term.op:
        case "in":
            return _in(value, wanted)
        case "starts-with" if len(wanted) == 1:
            (prefix,) = wanted
            if not (isinstance(value[1], str) and isinstance(prefix[1], str)):
                return _ANY
            return _TRUE if value[1].startswith(prefix[1]) else _FALSE
        case op if op in _ORDER and len(wanted) == 1:
            return _compared(value, op, wanted[0])
        case _:
            return _ANY


_Comparable = tuple[str, Any]
"""A kind of values that can be compared with one another, and the value. Readers differ in how they compare an exact
number with a double."""
_SQL_NULL: Final[_Comparable] = ("null", None)


def _compared(value: _Comparable, op: str, wanted: _Comparable) -> int:
    if wanted is _SQL_NULL:
        return _NULL
    if value[0] != wanted[0]:
        return _ANY
    return _TRUE if _ORDER[op](value[1], wanted[1]) else _FALSE


def _in(value: _Comparable, wanted: Sequence[_Comparable]) -> int:
    found = [_compared(value, "=", each) for each in wanted]
    if _TRUE in found:
        return _TRUE
    if _ANY in found:
        return _ANY
    return _NULL if _NULL in found else _FALSE


def _literal(literal: Literal) -> _Comparable | None:
    return _SQL_NULL if literal.text is None else _value(literal.type, literal.text)


def _value(data_type: DataType, text: str) -> _Comparable | None:
    """A text of a Delta type as what compares like it; None where that cannot be said for certain."""
    try:
        match data_type:
            case "string":
                return "string", text
            case "boolean" if text in ("true", "false"):
                return "boolean", text == "true"
            case "date":
                return "date", date.fromisoformat(text)
            case "double":
                double = float(text)
                # NaN is equal to itself and above all numbers, which (1, 0) is beside (0, number).
                return "double", (1, 0) if math.isnan(double) else (0, double)
            case "timestamp":
                moment = datetime.fromisoformat(text)
                # Without a zone it is the writer's own, which nobody knows any more.
                return None if moment.tzinfo is None else ("timestamp", moment)
            case "timestamp_ntz":
                moment = datetime.fromisoformat(text)
                return None if moment.tzinfo is not None else ("timestamp_ntz", moment)
            case str() if data_type in _WHOLE:
                return "exact", int(text)
            case str() if decimal_of(data_type) is not None:
                number = Decimal(text)
                return ("exact", number) if number.is_finite() else None
    except (ValueError, InvalidOperation):
        return None
    # `float` among them: what a reader compares is its nearest 32-bit number, and not its text.
    return None
