"""Exact statistics of one data file, as the JSON text that Delta keeps: never excluding a row, left out where unsure.

They come from what the Parquet writer gathers anyway. Where that is not enough the data is looked at: NaN in floats
(the writer skips them; then there is neither minimum nor maximum), nulls of lists and maps (the writer counts their
elements), and strings too long for the writer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deltalakedb.errors import TxnLogValidationError

INDEXED_COLUMNS: Final = 32
MAX_STATS_BYTES: Final = 64 * 1024
_PREFIX: Final = 32  # UTF-16 units of a string that are kept
_LONG: Final = 4096  # bytes of a value from which the Parquet writer gives up
_FEW: Final = 50  # values that are looked at faster than Arrow is called

_DAY_MS: Final = 86_400_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_IS_NAN = pc.get_function("is_nan")
_MIN_MAX = pc.get_function("min_max")

Bound = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """A column that gets statistics."""

    path: tuple[str, ...]
    steps: tuple[int, ...]
    """Field indexes from the top of the schema."""
    column: int | None
    """Parquet column, where its own statistics serve; None for a list or map."""
    lowest: Bound | None
    """Raw minimum to its JSON value, None from it where there is none; None: the type has no order in Delta."""
    highest: Bound | None
    floating: bool = False
    text: bool = False


@dataclass(slots=True)
class _Seen:
    """What the data itself told about one leaf so far."""

    nulls: int = 0
    nan: bool = False
    texts: list[tuple[bytes, bytes] | None] = field(default_factory=list)
    """Of a text column, per row group: minimum and maximum where the writer may have given up."""


class Statistics:
    """Gathers the statistics of one file: `observe` each row group, then `finish` with the file's metadata."""

    def __init__(self, leaves: Sequence[_Leaf]) -> None:
        self._leaves = leaves
        self._seen = [_Seen() for _ in leaves]

    def observe(self, rows: pa.Table, size: int) -> None:
        """Look at the rows (`size` bytes) of one row group where the writer's own statistics will not do."""
        for leaf, seen in zip(self._leaves, self._seen, strict=True):
            if leaf.column is None:
                seen.nulls += _at(rows, leaf.steps).null_count
            elif leaf.floating:
                seen.nan = seen.nan or _has_nan(_at(rows, leaf.steps))
            elif leaf.text:
                seen.texts.append(_long_texts(_at(rows, leaf.steps)) if size > _LONG else None)

    def finish(self, metadata: pq.FileMetaData) -> str:
        """The statistics of the file, `{"numRecords":...}`."""
        lowest: dict[str, Any] = {}
        highest: dict[str, Any] = {}
        nulls: dict[str, Any] = {}
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        for leaf, seen in zip(self._leaves, self._seen, strict=True):
            low, high, count = _of_leaf(leaf, seen, groups)
            _put(nulls, leaf.path, count)
            if low is not None:
                _put(lowest, leaf.path, low)
            if high is not None:
                _put(highest, leaf.path, high)
        encoded = _encode(metadata.num_rows, lowest, highest, nulls)
        # Where every column gets statistics by the table's wish they may be more than a log entry may hold.
        return (encoded if len(encoded) <= MAX_STATS_BYTES else _encode(metadata.num_rows, {}, {}, {})).decode()


def _of_leaf(leaf: _Leaf, seen: _Seen, groups: Sequence[Any]) -> tuple[Any, Any, int]:
    if leaf.column is None:
        return None, None, seen.nulls
    nulls, exact = 0, not seen.nan and leaf.lowest is not None
    lowest: Any = None
    highest: Any = None
    for index, group in enumerate(groups):
        found = group.column(leaf.column).statistics
        nulls += found.null_count
        if not exact:
            continue
        if found.has_min_max:
            low, high = found.min_raw, found.max_raw
            if type(low) is bytes and not leaf.text:  # a decimal of more than 18 digits
                low, high = int.from_bytes(low, signed=True), int.from_bytes(high, signed=True)
        elif leaf.text and (texts := seen.texts[index]) is not None:
            low, high = texts
        else:
            exact = found.num_values == 0
            continue
        lowest = low if lowest is None or low < lowest else lowest
        highest = high if highest is None or high > highest else highest
    if not exact or lowest is None or leaf.lowest is None or leaf.highest is None:
        return None, None, nulls
    return leaf.lowest(lowest), leaf.highest(highest), nulls


def _has_nan(values: Any) -> bool:
    if len(values) <= _FEW:
        return any(value != value for value in values.to_pylist())
    return bool(pc.any(_IS_NAN.call([values])).as_py())


def _long_texts(values: Any) -> tuple[bytes, bytes] | None:
    """Minimum and maximum where a text is so long that the Parquet writer may give none."""
    if (pc.max(pc.binary_length(values)).as_py() or 0) < _LONG:
        return None
    found = _MIN_MAX.call([values.cast(pa.binary())])
    return found["min"].as_py(), found["max"].as_py()


def leaves(schema: pa.Schema, properties: Mapping[str, str]) -> tuple[_Leaf, ...]:
    """The columns of a file that get statistics: the first 32 leaves, or what the table's properties say."""
    found: list[_Leaf] = []
    column = 0
    for index, arrow in enumerate(schema):
        column = _collect(arrow, (), (index,), column, found)
    named = properties.get("delta.dataSkippingStatsColumns")
    if named is not None:
        wanted = [tuple(_parts(name)) for name in _split(named)]
        return tuple(leaf for leaf in found if any(leaf.path[: len(name)] == name for name in wanted))
    limit = properties.get("delta.dataSkippingNumIndexedCols", str(INDEXED_COLUMNS))
    try:
        count = int(limit)
    except ValueError:
        raise TxnLogValidationError(f"delta.dataSkippingNumIndexedCols is {limit!r}, not a number") from None
    return tuple(found if count < 0 else found[:count])


def _collect(arrow: Any, above: tuple[str, ...], steps: tuple[int, ...], column: int, found: list[_Leaf]) -> int:
    """Add the leaves of one field; the number of the next Parquet column."""
    path = (*above, arrow.name)
    if pa.types.is_struct(arrow.type):
        for index in range(arrow.type.num_fields):
            column = _collect(arrow.type.field(index), path, (*steps, index), column, found)
        return column
    if pa.types.is_nested(arrow.type):
        found.append(_Leaf(path=path, steps=steps, column=None, lowest=None, highest=None))
        return column + _width(arrow.type)
    lowest, highest = _bounds(arrow.type)
    found.append(
        _Leaf(
            path=path,
            steps=steps,
            column=column,
            lowest=lowest,
            highest=highest,
            floating=pa.types.is_floating(arrow.type),
            text=pa.types.is_string(arrow.type),
        )
    )
    return column + 1


def _width(arrow: Any) -> int:
    """Parquet columns of a type."""
    if not pa.types.is_nested(arrow):
        return 1
    return sum(_width(arrow.field(index).type) for index in range(arrow.num_fields))


def _bounds(arrow: Any) -> tuple[Bound | None, Bound | None]:
    types = pa.types
    if types.is_integer(arrow):
        return _same, _same
    if types.is_floating(arrow):
        return _finite, _finite
    if types.is_string(arrow):
        return _shortened_min, _shortened_max
    if types.is_date(arrow):
        return _date, _date
    if types.is_timestamp(arrow):
        zone = "Z" if arrow.tz is not None else ""
        return lambda raw: _timestamp(raw // 1000, zone), lambda raw: _timestamp(-(-raw // 1000), zone)
    if types.is_decimal(arrow):
        scale = arrow.scale
        return lambda raw: _decimal(raw, scale), lambda raw: _decimal(raw, scale)
    return None, None


def _same(raw: int) -> int:
    return raw


def _finite(raw: float) -> float | None:
    return raw if math.isfinite(raw) else None


@lru_cache(maxsize=128)
def _date(raw: int) -> str | None:
    try:
        return date.fromordinal(_EPOCH_DAY + raw).isoformat()
    except (ValueError, OverflowError):  # a year that Delta's text form does not have
        return None


def _timestamp(milliseconds: int, zone: str) -> str | None:
    days, rest = divmod(milliseconds, _DAY_MS)
    day = _date(days)
    if day is None:
        return None
    seconds, rest = divmod(rest, 1000)
    return f"{day}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}{zone}"


def _decimal(raw: int, scale: int) -> Any:
    """A JSON number with all its digits: as a float it would not be the same number."""
    if scale == 0:
        return raw
    digits = f"{abs(raw):0{scale + 1}d}"
    return msgspec.Raw(f"{'-' if raw < 0 else ''}{digits[:-scale]}.{digits[-scale:]}".encode())


def _shortened_min(raw: bytes) -> str | None:
    text = _text(raw)
    return text if text is None else _prefix(text)


def _shortened_max(raw: bytes) -> str | None:
    """The text itself, or a short text above every text that begins like it."""
    text = _text(raw)
    if text is None or _units(text) <= _PREFIX:
        return text
    kept = len(_prefix(text))
    # Nothing is above U+10FFFF, so the tie-breaker has to come before some smaller character.
    while kept < len(text) and text[kept] == "\U0010ffff":
        kept += 1
    if kept == len(text):
        return text if _units(text) <= 2 * _PREFIX else None
    shortened = text[:kept] + ("\x7f" if text[kept] < "\x7f" else "\U0010ffff")
    return shortened if _units(shortened) <= 2 * _PREFIX else None


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _units(text: str) -> int:
    """Length in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _prefix(text: str) -> str:
    """The first 32 UTF-16 units, no character cut in two."""
    short = text[:_PREFIX]
    while _units(short) > _PREFIX:
        short = short[:-1]
    return short


def _at(rows: pa.Table, steps: tuple[int, ...]) -> Any:
    column: Any = rows.column(steps[0])
    for step in steps[1:]:
        column = column.flatten()[step]
    return column


def _put(part: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        part = part.setdefault(name, {})
    part[path[-1]] = value


def _encode(count: int, lowest: dict[str, Any], highest: dict[str, Any], nulls: dict[str, Any]) -> bytes:
    parts: dict[str, Any] = {"numRecords": count}
    if nulls:
        parts |= {"minValues": lowest, "maxValues": highest, "nullCount": nulls}
    return msgspec.json.encode(parts)


def _split(names: str) -> list[str]:
    """A list of column names, separated by commas outside backquotes."""
    return [name.strip() for name in re.findall(r"(?:`[^`]*`|[^,`])+", names) if name.strip()]


def _parts(name: str) -> list[str]:
    return [part.strip("`") for part in re.findall(r"`[^`]*`|[^.`]+", name)]
