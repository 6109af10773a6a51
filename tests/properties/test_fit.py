"""Rows made to fit a table: whatever layout they come in, however nested and sliced, every value stays the same."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalakedb.arrow import arrow_schema, schema_from_arrow
from deltalakedb.delta_types import ArrayType, DataType, MapType, StructField, StructType
from deltalakedb.fit import Fit

_small = st.integers(0, 100)
LEAVES: dict[str, tuple[st.SearchStrategy[Any], list[pa.DataType]]] = {
    "long": (_small, [pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.int64(), pa.float64()]),
    "short": (_small, [pa.int8(), pa.uint8(), pa.int64()]),
    "double": (_small.map(float), [pa.float16(), pa.float32(), pa.float64(), pa.int16()]),
    "string": (
        st.text(max_size=4),
        [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int16(), pa.large_string())],
    ),
    "binary": (st.binary(max_size=4), [pa.binary(), pa.large_binary(), pa.binary_view()]),
    "boolean": (st.booleans(), [pa.bool_(), pa.dictionary(pa.int8(), pa.bool_())]),
}


@st.composite
def columns(draw: st.DrawFn, depth: int = 2) -> tuple[DataType, pa.DataType, st.SearchStrategy[Any]]:
    """A Delta type, an Arrow type in which its values may come, and values."""
    kind = draw(st.sampled_from(["leaf", "leaf", "array", "map", "struct"] if depth else ["leaf"]))
    if kind == "leaf":
        name = draw(st.sampled_from(sorted(LEAVES)))
        values, layouts = LEAVES[name]
        return name, draw(st.sampled_from(layouts)), st.none() | values
    if kind == "array":
        delta, arrow, values = draw(columns(depth=depth - 1))
        make: Any = draw(st.sampled_from([pa.list_, pa.large_list, pa.list_view, pa.large_list_view]))
        return ArrayType(delta), make(arrow), st.none() | st.lists(values, max_size=3)
    if kind == "map":
        delta, arrow, values = draw(columns(depth=depth - 1))
        keyed = st.dictionaries(st.text(max_size=2), values, max_size=2).map(lambda d: list(d.items()))
        return MapType("string", delta), pa.map_(pa.string(), arrow), st.none() | keyed
    parts = [draw(columns(depth=depth - 1)) for _ in range(draw(st.integers(1, 3)))]
    names = [f"f{index}" for index in range(len(parts))]
    order = draw(st.permutations(range(len(parts))))
    fields = tuple(StructField(name, part[0]) for name, part in zip(names, parts, strict=True))
    arrow = pa.struct([pa.field(names[index], parts[index][1]) for index in order])
    row = st.fixed_dictionaries({name: part[2] for name, part in zip(names, parts, strict=True)})
    return StructType(fields), arrow, st.none() | row


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_values_stay_the_same(data: st.DataObject) -> None:
    """Every value of any layout is the same value in the table's own type; so it is for a slice."""
    delta, arrow, values = data.draw(columns())
    rows = data.draw(st.lists(values, max_size=8))
    start = data.draw(st.integers(0, len(rows)))
    length = data.draw(st.integers(0, len(rows) - start))
    table = StructType((StructField("c", delta),))
    array: Any = pa.array(rows, arrow)
    batch = pa.RecordBatch.from_arrays([array.slice(start, length)], names=["c"])

    fit = Fit(batch.schema, table)
    result = fit(batch)

    result.validate(full=True)
    assert result.schema == arrow_schema(table)
    assert _plain(result.column("c").to_pylist()) == _plain(rows[start : start + length])
    again = Fit(result.schema, table)(result)
    assert again.equals(result)
    assert schema_from_arrow(result.schema) == table


def _plain(value: Any) -> Any:
    """Numbers as floats, fields of a struct by name, so that only values are compared."""
    match value:
        case bool() | str() | bytes() | None:
            return value
        case int() | float():
            return float(value)
        case dict():
            return {name: _plain(inner) for name, inner in sorted(value.items())}
        case _:
            return [_plain(inner) for inner in value]
