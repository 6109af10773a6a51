"""Arrow arrays as the values that JSON has, the way Delta writes them: what a Parquet checkpoint's columns say. Pure.

Nothing is rounded. What JSON cannot say exactly (NaN, bytes, years that ISO 8601 has no four digits for) is left out:
in statistics a bound that is missing is always safe, one that is off by a little is not.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Collection
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_EPOCH: Final = datetime.date(1970, 1, 1)
_FIRST_DAY: Final = (datetime.date.min - _EPOCH).days
_LAST_DAY: Final = (datetime.date.max - _EPOCH).days
_DAY_US: Final = 86_400_000_000
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

Path = tuple[str, ...]


def values(array: Any, path: Path = (), local: Collection[Path] = ()) -> list[Any]:
    """The values of `array`, null as None. Fields of a struct that are null or cannot be said are not in its dict.

    `path` leads to the array from the root of the statistics (`minValues`, column, ...); timestamps whose path without
    its first step is in `local` have no time zone. Finer than a microsecond, an upper bound is rounded up, all else down.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return values(array.dictionary_decode(), path, local)
    if pa.types.is_struct(kind):
        return _structs(array, path, local)
    if pa.types.is_map(kind):
        return _maps(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(array)
    if pa.types.is_timestamp(kind):
        return _timestamps(array, path, local)
    if pa.types.is_date(kind):
        days = pc.cast(pc.cast(array, pa.date32(), safe=False), pa.int32()).to_pylist()
        return _each(days, _date)
    if pa.types.is_floating(kind):
        return _each(array.to_pylist(), lambda number: number if math.isfinite(number) else None)
    if pa.types.is_decimal(kind):
        return _each(array.to_pylist(), _decimal)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_text(kind):
        texts: list[Any] = array.to_pylist()
        return texts
    return [None] * len(array)


def _each(items: list[Any], say: Callable[[Any], Any]) -> list[Any]:
    return [None if item is None else say(item) for item in items]


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _structs(array: Any, path: Path, local: Collection[Path]) -> list[Any]:
    names = [field.name for field in array.type]
    columns = [values(column, (*path, name), local) for name, column in zip(names, array.flatten(), strict=True)]
    rows = zip(*columns, strict=True) if columns else iter([()] * len(array))
    found: list[Any] = [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in rows]
    return _with_nulls(array, found)


def _maps(array: Any) -> list[Any]:
    keys, items = array.keys.to_pylist(), values(array.items)
    offsets = array.offsets.to_pylist()
    return _with_nulls(array, [dict(zip(keys[a:b], items[a:b], strict=True)) for a, b in pairwise(offsets)])


def _lists(array: Any) -> list[Any]:
    items, offsets = values(array.values), array.offsets.to_pylist()
    return _with_nulls(array, [items[a:b] for a, b in pairwise(offsets)])


def _with_nulls(array: Any, found: list[Any]) -> list[Any]:
    if not array.null_count:
        return found
    there = array.is_valid().to_pylist()
    return [value if valid else None for value, valid in zip(found, there, strict=True)]


def _decimal(number: Decimal) -> msgspec.Raw:
    """All digits and never an exponent: `1234`, `123.45`, `0.00000000`."""
    return msgspec.Raw(f"{number:f}".encode())


def _date(days: int) -> str | None:
    return (_EPOCH + datetime.timedelta(days)).isoformat() if _FIRST_DAY <= days <= _LAST_DAY else None


def _timestamps(array: Any, path: Path, local: Collection[Path]) -> list[Any]:
    unit, zone = array.type.unit, array.type.tz
    # INT96, the only form that comes in nanoseconds without a zone, is Spark's timestamp in UTC.
    suffix = "" if zone is None and unit != "ns" and path[1:] in local else "Z"
    up = path[:1] == ("maxValues",)
    per_second = _PER_SECOND[unit]

    def text(ticks: int) -> str | None:
        micros = ticks * 1_000_000
        micros = -(-micros // per_second) if up else micros // per_second
        days, rest = divmod(micros, _DAY_US)
        date = _date(days)
        if date is None:
            return None
        seconds, fraction = divmod(rest, 1_000_000)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        shown = f"{fraction // 1_000:03}" if fraction % 1_000 == 0 else f"{fraction:06}"
        return f"{date}T{hour:02}:{minute:02}:{second:02}.{shown}{suffix}"

    return _each(pc.cast(array, pa.int64()).to_pylist(), text)
