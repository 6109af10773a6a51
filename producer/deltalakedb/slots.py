"""Slots: a file's minimum and maximum of a few columns as 64-bit integers in the columns' own order, for SQL to compare.

A slot never excludes what it should not: a file whose values of a column lie between `min` and `max` has
`lower(min) <= upper(x)` and `lower(x) <= upper(max)` for each such value x. Where a value has no exact form, `lower`
rounds down and `upper` rounds up; the verbatim statistics decide what slots cannot.

| type | form |
|---|---|
| byte, short, integer, long | the number |
| date | days since 1970-01-01 |
| timestamp, timestamp_ntz | microseconds since 1970-01-01 (UTC) |
| float, double | the bits of the double, so turned that their order is that of the numbers |
| decimal(p,s), p up to 18 | the unscaled number |
| string | the first eight bytes of UTF-8 |

A column that was widened keeps the form of its first type, so old and new files can be compared.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from .delta_types import TYPE_CHANGES, DataType, StructField, StructType, decimal_of, parse_type
from .errors import TxnLogSchemaError

SLOTS: Final = 4
Slot = int | None
Slots = tuple[Slot, Slot, Slot, Slot, Slot, Slot, Slot, Slot]
"""min1, max1, ... min4, max4; None where a column has no statistics (or there is no such column)."""
Widths = tuple[int, int, int, int]
"""Per slot the largest max - min of the live files, or `MAX_WIDTH` if it does not fit."""
NO_SLOTS: Final[Slots] = (None,) * (2 * SLOTS)  # type: ignore[assignment]
NO_WIDTHS: Final[Widths] = (0, 0, 0, 0)
MAX_WIDTH: Final = 2**63 - 1
"""As a width: there is no bound."""

_MIN, _MAX = -(2**63), 2**63 - 1
_SHORT_DECIMAL = 18
_INTEGERS = frozenset({"byte", "short", "integer", "long"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DOUBLE, _FLOAT, _LONG = struct.Struct(">d"), struct.Struct(">f"), struct.Struct(">q")
_EXACT = 10**15  # decimal numbers of so many units survive being a double

Encoder = Callable[[Any], Slot]


def slot_columns(schema: StructType, partition_columns: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Paths (physical names) of the columns that get slots: the first four leaves that have a form and are not
    partition columns."""
    found: list[tuple[str, ...]] = []
    for column in schema.fields:
        if column.name not in partition_columns:
            _collect(column, (), found)
    return tuple(found[:SLOTS])


def slot_type(schema: StructType, path: tuple[str, ...]) -> str | None:
    """The type whose form the slot of the column at `path` (physical names) has; None if there is no such column."""
    inside: DataType = schema
    column: StructField | None = None
    for name in path:
        if not isinstance(inside, StructType):
            return None
        column = next((f for f in inside.fields if f.physical_name == name), None)
        if column is None:
            return None
        inside = column.type
    return None if column is None else _first_type(column)


def lower(data_type: str, value: Any) -> Slot:
    """The slot form of `value` (as statistics in JSON have it), rounded down; None if it has none."""
    encoders = _encoders(data_type)
    return encoders[0](value) if encoders else None


def upper(data_type: str, value: Any) -> Slot:
    """The slot form of `value`, rounded up; None if it has none."""
    encoders = _encoders(data_type)
    return encoders[1](value) if encoders else None


class SlotReader:
    """Takes the slots of one table's columns out of statistics."""

    def __init__(self, schema: StructType, columns: Sequence[tuple[str, ...]]) -> None:
        self._columns: list[tuple[int, str, tuple[str, ...], bool, Encoder, Encoder]] = []
        for number, path in enumerate(columns[:SLOTS]):
            data_type = slot_type(schema, path)
            encoders = _encoders(data_type) if data_type is not None else None
            if encoders is not None:
                self._columns.append((2 * number, path[0], path[1:], data_type == "string", *encoders))

    def read(self, low: Mapping[str, Any] | None, high: Mapping[str, Any] | None) -> Slots:
        """Slots from `minValues` and `maxValues`.

        Raises `ValueError` where a minimum lies above its maximum: readers would skip rows that are there.
        """
        if not low or not high:
            return NO_SLOTS
        slots: list[Slot] = [None] * (2 * SLOTS)
        for at, top, inner, is_text, lower, upper in self._columns:
            least, most = low.get(top), high.get(top)
            for name in inner:
                least = least.get(name) if isinstance(least, dict) else None
                most = most.get(name) if isinstance(most, dict) else None
            if least is None or most is None:
                continue
            first, last = lower(least), upper(most)
            if first is None or last is None:
                continue
            if first > last:
                # Some writers order texts by UTF-16 units; that is odd, but not a lie about rows.
                if is_text:
                    continue
                column = ".".join((top, *inner))
                raise ValueError(f"the minimum of column {column[:100]!r} lies above its maximum")
            slots[at], slots[at + 1] = first, last
        return tuple(slots)  # type: ignore[return-value]


def wider(widths: Widths, slots: Slots) -> Widths:
    """`widths` once a file with `slots` is live too."""
    if slots is NO_SLOTS:
        return widths
    grown = list(widths)
    for number in range(SLOTS):
        least, most = slots[2 * number], slots[2 * number + 1]
        if least is not None and most is not None and most - least > grown[number]:
            grown[number] = min(most - least, MAX_WIDTH)
    return tuple(grown)  # type: ignore[return-value]


def _collect(column: StructField, above: tuple[str, ...], found: list[tuple[str, ...]]) -> None:
    path = (*above, column.physical_name)
    if isinstance(column.type, StructType):
        for inner in column.type.fields:
            _collect(inner, path, found)
    elif (first := _first_type(column)) is not None and _encoders(first) is not None:
        found.append(path)


def _first_type(column: StructField) -> str | None:
    """The type that a column had before it was widened, if ever."""
    if not isinstance(column.type, str):
        return None
    changes = column.metadata.get(TYPE_CHANGES)
    for change in changes if isinstance(changes, list) else ():
        if isinstance(change, dict) and "fieldPath" not in change:
            try:
                first = parse_type(str(change.get("fromType")))
            except TxnLogSchemaError:
                return None
            return first if isinstance(first, str) else None
    return column.type


def _encoders(data_type: str) -> tuple[Encoder, Encoder] | None:
    if data_type in _INTEGERS:
        return _integer_down, _integer_up
    if data_type == "string":
        return _text, _text
    if data_type in ("double", "float"):
        return (_double_down, _double_up) if data_type == "double" else (_float_down, _float_up)
    if data_type == "date":
        return _day_down, _day_up
    if data_type in ("timestamp", "timestamp_ntz"):
        return _micros_down, _micros_up
    decimal = decimal_of(data_type)
    if decimal is not None and decimal[0] <= _SHORT_DECIMAL:
        return _decimal_encoders(10 ** decimal[1])
    return None


def _clamped(value: int) -> int:
    return _MIN if value < _MIN else _MAX if value > _MAX else value


def _integer_down(value: Any) -> Slot:
    if type(value) is int:
        return value if _MIN <= value <= _MAX else _clamped(value)
    return _clamped(math.floor(value)) if type(value) is float and math.isfinite(value) else None


def _integer_up(value: Any) -> Slot:
    if type(value) is int:
        return value if _MIN <= value <= _MAX else _clamped(value)
    return _clamped(math.ceil(value)) if type(value) is float and math.isfinite(value) else None


def _text(value: Any) -> Slot:
    if type(value) is not str:
        return None
    return int.from_bytes(value[:8].encode("utf-8", "surrogatepass")[:8].ljust(8, b"\0"), "big") + _MIN


def _ordered_bits(value: float) -> int:
    bits: int = _LONG.unpack(_DOUBLE.pack(value + 0.0))[0]  # + 0.0: the two zeros are one value
    return bits if bits >= 0 else bits ^ _MAX


def _as_float(value: Any, *, up: bool) -> float | None:
    """A JSON number as a double, rounded towards the outside."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is not int:
        return None
    try:
        near = float(value)
    except OverflowError:
        return None
    if up and near < value:
        return math.nextafter(near, math.inf)
    if not up and near > value:
        return math.nextafter(near, -math.inf)
    return near


def _double_down(value: Any) -> Slot:
    number = _as_float(value, up=False)
    return None if number is None else _ordered_bits(number)


def _double_up(value: Any) -> Slot:
    number = _as_float(value, up=True)
    return None if number is None else _ordered_bits(number)


def _single(number: float) -> float:
    """The 32-bit float nearest to a double: what a column of floats has where its statistics say `0.1`."""
    try:
        single: float = _FLOAT.unpack(_FLOAT.pack(number))[0]
    except OverflowError:
        return number
    return single


def _float_down(value: Any) -> Slot:
    number = _as_float(value, up=False)
    return None if number is None else _ordered_bits(min(number, _single(number)))


def _float_up(value: Any) -> Slot:
    number = _as_float(value, up=True)
    return None if number is None else _ordered_bits(max(number, _single(number)))


def _day(value: Any) -> int | None:
    if type(value) is not str:
        return None
    try:
        return date.fromisoformat(value[:10]).toordinal() - _EPOCH_DAY
    except ValueError:
        return None


def _day_down(value: Any) -> Slot:
    return _day(value)


def _day_up(value: Any) -> Slot:
    day = _day(value)
    return day if day is None or len(value) == 10 else day + 1


def _micros(value: Any) -> int | None:
    if type(value) is not str:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _micros_down(value: Any) -> Slot:
    return _micros(value)


def _micros_up(value: Any) -> Slot:
    micros = _micros(value)
    if micros is None:
        return None
    dot = value.rfind(".")
    digits = 0
    if dot >= 0:
        for character in value[dot + 1 :]:
            if not character.isdigit():
                break
            digits += 1
    # Statistics are cut to milliseconds by most writers, and never hold less than microseconds here.
    return micros + (999 if digits <= 3 else 1 if digits > 6 else 0)


def _decimal_encoders(factor: int) -> tuple[Encoder, Encoder]:
    return (lambda value: _unscaled(value, factor, False)), (lambda value: _unscaled(value, factor, True))


def _unscaled(value: Any, factor: int, up: bool) -> Slot:
    if type(value) is int:
        return _clamped(value * factor)
    if type(value) is not float or not math.isfinite(value):
        return None
    if abs(value) >= 2.0**64:  # outside whatever the factor is, and perhaps infinite once it is scaled
        return _MAX if value > 0 else _MIN
    unscaled: int = round(value * factor)
    if -_EXACT < unscaled < _EXACT and unscaled / factor == value:
        return unscaled  # so few digits that no other decimal number reads as this double
    exact = Fraction(math.nextafter(value, math.inf if up else -math.inf)) * factor
    return _clamped(math.ceil(exact) if up else math.floor(exact))
