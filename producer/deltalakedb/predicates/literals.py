"""Literals of a condition, made values of the column they are compared with; what cannot be one is refused."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal, InvalidOperation
from typing import Any

from deltalakedb.delta_types import DataType, decimal_of
from deltalakedb.errors import TxnLogValidationError
from deltalakedb.events import Literal

from .nodes import Value

_INTEGERS = {"byte": 2**7, "short": 2**15, "integer": 2**31, "long": 2**63}


def value_of(given: Any, data_type: DataType, column: str) -> Value:
    """`given` (not None) as a value to compare the column with.

    Dates and timestamps may be ISO text; a timestamp without a zone is UTC. Raises `TxnLogValidationError`.
    """
    match data_type:
        case "string" if isinstance(given, str):
            return Value(given, Literal("string", given))
        case "boolean" if isinstance(given, bool):
            return Value(given, Literal("boolean", str(given).lower()))
        case "binary" if isinstance(given, bytes):
            return _binary(given)
        case "date" if isinstance(given, str | dt.date) and not isinstance(given, dt.datetime):
            day = _iso(dt.date.fromisoformat, given, data_type, column) if isinstance(given, str) else given
            return Value(day, Literal("date", day.isoformat()))
        case "timestamp" | "timestamp_ntz" if isinstance(given, str | dt.datetime):
            return _moment(given, data_type, column)
        case "float" | "double" if _is_number(given):
            number = float(given)
            return Value(number, Literal("double", _float_text(number)))
        case str() if (data_type in _INTEGERS or decimal_of(data_type)) and _is_number(given):
            return _number(given, data_type)
    shown = data_type if isinstance(data_type, str) else "nested"
    raise TxnLogValidationError(
        f"column {column} is {shown}, and {given!r} ({type(given).__name__}) cannot be compared with it"
    )


def number_of(text: str) -> int | float | Decimal:
    """The number that a SQL literal is."""
    number = Decimal(text)
    # Written out, the integer that 1e999999999 is would fill the memory.
    return number if abs(number.adjusted()) < 400 else float(number)


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float | Decimal) and not isinstance(given, bool)


def _number(given: int | float | Decimal, data_type: str) -> Value:
    """A number beside a column of integers or decimals: exact whatever it is, of a type of its own where it must be."""
    if isinstance(given, float) and not 1e-300 < abs(given) < 1e300 and given != 0:
        return Value(given, Literal("double", _float_text(given)))
    number = Decimal(given) if not isinstance(given, float) else Decimal(repr(given))
    if number == number.to_integral_value():
        whole = int(number)
        bound = _INTEGERS.get(data_type, 2**63)
        kind = data_type if data_type in _INTEGERS else "long"
        if -bound <= whole < bound:
            return Value(whole, Literal(kind, str(whole)))
        if -(2**63) <= whole < 2**63:
            return Value(whole, Literal("long", str(whole)))
        number = Decimal(whole)
    _, digits, exponent = number.as_tuple()
    scale = max(-int(exponent), 0)
    precision = max(len(digits) + max(int(exponent), 0), scale)
    if precision > 38:
        return Value(float(number), Literal("double", _float_text(float(number))))
    return Value(number, Literal(f"decimal({precision},{scale})", format(number, "f")))


def _moment(given: str | dt.datetime, data_type: str, column: str) -> Value:
    moment = _iso(dt.datetime.fromisoformat, given, data_type, column) if isinstance(given, str) else given
    if data_type == "timestamp_ntz":
        if moment.tzinfo is not None:
            raise TxnLogValidationError(f"column {column} has no time zone, and the timestamp {given} has: drop it")
        return Value(moment, Literal(data_type, moment.isoformat(" ", "microseconds")))
    if moment.tzinfo is None:
        if not isinstance(given, str):
            raise TxnLogValidationError(f"column {column} is an instant, and {given!r} has no time zone: attach one")
        moment = moment.replace(tzinfo=dt.UTC)
    moment = moment.astimezone(dt.UTC)
    return Value(moment, Literal(data_type, moment.replace(tzinfo=None).isoformat("T", "microseconds") + "Z"))


def _binary(given: bytes) -> Value:
    try:
        return Value(given, Literal("binary", given.decode("utf-8")))
    except UnicodeDecodeError:
        # Without a text form; the condition is widened where it would need one.
        return Value(given, Literal("binary", None))


def _iso(parse: Any, given: str, data_type: str, column: str) -> Any:
    try:
        return parse(given)
    except (ValueError, InvalidOperation):
        raise TxnLogValidationError(f"column {column} is {data_type}, and {given!r} is none") from None


def _float_text(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return repr(number)
