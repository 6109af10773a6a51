"""Slots keep the order of values, and never exclude a value that lies between a file's minimum and maximum."""

from __future__ import annotations

import json
import math
import struct
import sys
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from deltalakedb.slots import lower, upper

_MOMENTS = st.datetimes(timezones=st.just(UTC))


def _single(value: float) -> float:
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


def _shortest_single(value: float) -> float:
    """What a writer of 32-bit floats puts into statistics: the shortest text that reads as the same float."""
    for digits in range(1, 10):
        rounded = float(f"{value:.{digits}g}")
        with suppress(OverflowError):  # rounded up to more than the largest float
            if _single(rounded) == value:
                return rounded
    return value


# Per type: values, and what statistics in JSON say of a value as minimum and as maximum.
KINDS: dict[str, tuple[st.SearchStrategy[Any], Any, Any]] = {
    "long": (st.integers(-(2**63), 2**63 - 1), int, int),
    "integer": (st.integers(-(2**31), 2**31 - 1), int, int),
    "double": (st.floats(allow_nan=False, allow_infinity=False), float, float),
    "float": (
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        _shortest_single,
        _shortest_single,
    ),
    "decimal(10,2)": (st.decimals(Decimal("-99999999.99"), Decimal("99999999.99"), places=2), float, float),
    "decimal(18,4)": (st.integers(-(10**18) + 1, 10**18 - 1).map(lambda n: Decimal(n).scaleb(-4)), float, float),
    "decimal(18,0)": (st.integers(-(10**18) + 1, 10**18 - 1), int, int),
    "date": (st.dates(), date.isoformat, date.isoformat),
    "timestamp": (
        _MOMENTS,
        lambda m: m.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        lambda m: m.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    ),
    "timestamp_ntz": (
        _MOMENTS.map(lambda m: m.replace(tzinfo=None)),
        lambda m: m.isoformat(timespec="microseconds"),
        lambda m: m.isoformat(timespec="microseconds"),
    ),
    "string": (st.text(max_size=12), lambda s: s[:32], lambda s: s),
}


def _key(value: Any) -> Any:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_value_within_the_bounds_is_excluded(kind: str, data: st.DataObject) -> None:
    """A search for x finds every file with min <= x <= max, whatever rounding statistics have gone through."""
    values, as_min, as_max = KINDS[kind]
    least, x, most = sorted((data.draw(values) for _ in range(3)), key=_key)
    low, high = (json.loads(json.dumps(form(value))) for form, value in ((as_min, least), (as_max, most)))
    sought = json.loads(json.dumps(_exactly(x)))

    first, last = lower(kind, low), upper(kind, high)
    from_x, to_x = lower(kind, sought), upper(kind, sought)

    assert first is not None
    assert last is not None
    assert from_x is not None
    assert to_x is not None
    assert -(2**63) <= first <= last < 2**63
    assert first <= to_x
    assert from_x <= last


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_order_is_kept(kind: str, data: st.DataObject) -> None:
    """Of two values the smaller never has the larger slot, on either side."""
    values, _, _ = KINDS[kind]
    small, large = sorted((_exactly(data.draw(values)) for _ in range(2)), key=_key)

    for side in (lower, upper):
        one, other = side(kind, small), side(kind, large)
        assert one is not None
        assert other is not None
        assert one <= other


@given(st.integers(-(10**13), 10**13), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_short_decimals_are_exact(unscaled: int, scale: int) -> None:
    """Both sides are the unscaled number."""
    kind = f"decimal(18,{scale})"
    value = msgspec.json.decode(str(Decimal(unscaled).scaleb(-scale)))

    assert lower(kind, value) == upper(kind, value) == unscaled


@given(st.integers(-(2**70), 2**70), st.sampled_from(["long", "double", "decimal(18,2)", "float"]))
@settings(max_examples=200, deadline=None)
def test_numbers_of_any_size_have_a_place(value: int, kind: str) -> None:
    """Above and below everything, in order."""
    first, last = lower(kind, value), upper(kind, value)

    assert first is not None
    assert last is not None
    assert -(2**63) <= first <= last < 2**63


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.integers(), max_size=2),
    st.sampled_from([*KINDS, "boolean", "binary", "variant", "decimal(38,2)", "junk"]),
)
@settings(max_examples=500, deadline=None)
@example(value=sys.float_info.max, kind="decimal(18,0)")  # the next double outwards is infinite
def test_whatever_statistics_hold_there_is_a_slot_or_none(value: Any, kind: str) -> None:
    """Never an error, never a number over 64 bits."""
    for side in (lower, upper):
        slot = side(kind, value)
        assert slot is None or -(2**63) <= slot < 2**63


@given(st.sampled_from(["long", "integer"]), st.floats(-1e18, 1e18))
def test_a_column_that_was_widened_keeps_its_form(kind: str, value: float) -> None:
    """Later files have doubles where the first had whole numbers: they are rounded outwards."""
    assume(math.isfinite(value))

    first, last = lower(kind, value), upper(kind, value)

    assert first is not None
    assert last is not None
    assert first <= value <= last
    assert last - first <= 1


@given(_MOMENTS)
def test_a_day_that_became_a_moment_is_rounded_to_days(moment: datetime) -> None:
    """As above, for dates widened to timestamps."""
    text = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
    day = (moment.date() - date(1970, 1, 1)) // timedelta(days=1)

    assert (lower("date", text), upper("date", text)) == (day, day + 1)


def _exactly(value: Any) -> Any:
    """A value as a literal is given to the planner: as precise as its type."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value
