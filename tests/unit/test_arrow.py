"""Arrow and Delta types, and how incoming rows are made to fit a table."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from deltalakedb.arrow import arrow_schema, arrow_type, schema_from_arrow, to_reader
from deltalakedb.delta_types import ArrayType, MapType, StructField, StructType, parse_type
from deltalakedb.errors import TxnLogSchemaError
from deltalakedb.fit import Fit

UTC = dt.UTC


def delta(*columns: tuple[str, Any] | StructField) -> StructType:
    return StructType(tuple(c if isinstance(c, StructField) else StructField(*c) for c in columns))


def fitted(data: pa.Table, table: StructType) -> pa.Table:
    fit = Fit(data.schema, table)
    return pa.Table.from_batches([fit(batch) for batch in data.to_batches()], schema=fit.schema)


@pytest.mark.parametrize(
    ("arrow", "expected"),
    [
        (pa.bool_(), "boolean"),
        (pa.int8(), "byte"),
        (pa.int16(), "short"),
        (pa.int32(), "integer"),
        (pa.int64(), "long"),
        (pa.uint8(), "short"),
        (pa.uint16(), "integer"),
        (pa.uint32(), "long"),
        (pa.uint64(), "decimal(20,0)"),
        (pa.float16(), "float"),
        (pa.float32(), "float"),
        (pa.float64(), "double"),
        (pa.decimal32(5, 2), "decimal(5,2)"),
        (pa.decimal64(15, 2), "decimal(15,2)"),
        (pa.decimal128(38, 38), "decimal(38,38)"),
        (pa.decimal128(5, -2), "decimal(7,0)"),
        (pa.decimal256(38, 1), "decimal(38,1)"),
        (pa.string(), "string"),
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.binary(), "binary"),
        (pa.binary(4), "binary"),
        (pa.large_binary(), "binary"),
        (pa.binary_view(), "binary"),
        (pa.date32(), "date"),
        (pa.date64(), "date"),
        (pa.timestamp("ns", "Europe/Berlin"), "timestamp"),
        (pa.timestamp("s"), "timestamp_ntz"),
        (pa.list_(pa.field("x", pa.int8(), False)), ArrayType("byte", contains_null=False)),
        (pa.large_list(pa.string_view()), ArrayType("string")),
        (pa.list_(pa.int8(), 3), ArrayType("byte")),
        (pa.list_view(pa.int8()), ArrayType("byte")),
        (pa.map_(pa.string(), pa.int64()), MapType("string", "long")),
        (pa.struct([pa.field("a", pa.uint8(), False)]), delta(StructField("a", "short", nullable=False))),
        (pa.dictionary(pa.int8(), pa.large_string()), "string"),
        (pa.run_end_encoded(pa.int32(), pa.uint16()), "integer"),
        (pa.json_(), "string"),
        (pa.uuid(), "binary"),
    ],
)
def test_types(arrow: pa.DataType, expected: Any) -> None:
    """The written table of types is what happens; nullability is kept."""
    assert schema_from_arrow(pa.schema([pa.field("c", arrow, False)])) == delta(
        StructField("c", expected, nullable=False)
    )


@pytest.mark.parametrize(
    ("arrow", "part"),
    [
        (pa.null(), "column c has only nulls, so its type is unknown: give schema="),
        (pa.list_(pa.null()), "column c.element has only nulls"),
        (pa.struct([("a", pa.null())]), "column c.a has only nulls"),
        (pa.time64("us"), "column c: time64[us] has no Delta type"),
        (pa.duration("s"), "column c: duration[s] has no Delta type"),
        (pa.month_day_nano_interval(), "column c: month_day_nano_interval has no Delta type"),
        (pa.decimal256(50, 2), "38 digits at most"),
        (pa.decimal128(38, -1), "38 digits at most"),
        (pa.dense_union([pa.field("a", pa.int8())]), "column c: dense_union"),
    ],
)
def test_types_without_counterpart(arrow: pa.DataType, part: str) -> None:
    """What Delta cannot hold is refused, naming the column."""
    with pytest.raises(TxnLogSchemaError) as caught:
        schema_from_arrow(pa.schema([("c", arrow)]))

    assert part in str(caught.value)


def test_every_column_that_is_wrong_is_named() -> None:
    """One refusal names all columns that have no type."""
    with pytest.raises(TxnLogSchemaError, match=r"column a has only nulls.*column b: time32"):
        schema_from_arrow(pa.table({"a": [None], "ok": [1], "b": pa.array([0], pa.time32("s"))}).schema)


@pytest.mark.parametrize(
    "name",
    ["byte", "short", "integer", "long", "float", "double", "decimal(12,3)", "boolean", "string", "binary", "date",
     "timestamp", "timestamp_ntz"],
)  # fmt: skip
def test_there_and_back(name: str) -> None:
    """A Delta type read as Arrow is that Delta type again, bare and nested."""
    nested = StructType((StructField("f", MapType("string", ArrayType(name), value_contains_null=False)),))

    assert schema_from_arrow(pa.schema([("c", arrow_type(name))])) == delta(("c", name))
    assert schema_from_arrow(arrow_schema(nested)) == nested


def test_physical_names_and_ids() -> None:
    """Under column mapping the file gets the physical names and the Parquet field ids, at every level."""
    inner = StructField("x", "long", True, {"delta.columnMapping.physicalName": "p2", "delta.columnMapping.id": 2})
    outer = StructField("s", StructType((inner,)), True, {"delta.columnMapping.physicalName": "p1", "delta.columnMapping.id": 1})  # fmt: skip

    field = arrow_schema(StructType((outer,)), physical=True).field(0)
    data = pa.table({"s": [{"x": 5}, None]})
    fit = Fit(data.schema, StructType((outer,)), to_physical=True)
    back = Fit(fit.schema, StructType((outer,)), stored=True, from_physical=True)
    batch = fit(data.to_batches()[0])

    assert (field.name, field.metadata) == ("p1", {b"PARQUET:field_id": b"1"})
    assert field.type.field(0).equals(
        pa.field("p2", pa.int64(), metadata={"PARQUET:field_id": "2"}), check_metadata=True
    )
    assert batch.to_pylist() == [{"p1": {"p2": 5}}, {"p1": None}]
    assert back(batch).to_pylist() == data.to_pylist()


@pytest.mark.parametrize(
    ("array", "target", "expected"),
    [
        (pa.array([1, None], pa.uint8()), "short", [1, None]),
        (pa.array([2**64 - 1], pa.uint64()), "decimal(20,0)", [Decimal(2**64 - 1)]),
        (pa.array([1.0, None]), "integer", [1, None]),
        (pa.array([Decimal("7.00")]), "long", [7]),
        (pa.array([3], pa.int64()), "byte", [3]),
        (pa.array([3], pa.int64()), "decimal(5,2)", [Decimal("3.00")]),
        (pa.array([Decimal("1.5")]), "decimal(10,3)", [Decimal("1.500")]),
        (pa.array([1.5, None, float("nan")]), "float", [1.5, None, "nan"]),
        (pa.array([None, None], pa.float64()), "float", [None, None]),
        (pa.array([1.5], pa.float16()), "double", [1.5]),
        (pa.array([2**53]), "double", [float(2**53)]),
        (pa.array(["a"], pa.string_view()), "string", ["a"]),
        (pa.array([b"ab"], pa.binary(2)), "binary", [b"ab"]),
        (pa.array([dt.date(2020, 1, 2)], pa.date64()), "date", [dt.date(2020, 1, 2)]),
        (pa.array([1_000], pa.timestamp("ns")), "timestamp_ntz", [dt.datetime.fromisoformat("1970-01-01T00:00:00.000001")]),
        (pa.array([0], pa.timestamp("s", "Europe/Berlin")), "timestamp", [dt.datetime(1970, 1, 1, tzinfo=UTC)]),
        (pa.array(["x", None, "x"]).dictionary_encode(), "string", ["x", None, "x"]),
        (pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([5, 6])), "long", [5, 5, 6]),
        (pa.array([None], pa.null()), "date", [None]),
        (pa.array([[1], None, []], pa.large_list(pa.int8())), ArrayType("long"), [[1], None, []]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), ArrayType("long"), [[1, 2], None]),
        (pa.array([[1], None, [2, None]], pa.list_view(pa.int8())), ArrayType("byte"), [[1], None, [2, None]]),
        (pa.array([[("k", 1)], None, []], pa.map_(pa.large_string(), pa.int8())), MapType("string", "long"), [[("k", 1)], None, []]),
        (pa.array([{"a": 1}, None], pa.struct([("a", pa.int8())])), delta(("a", "long"), ("b", "string")), [{"a": 1, "b": None}, None]),
    ],
)  # fmt: skip
def test_values_that_fit(array: Any, target: Any, expected: list[Any]) -> None:
    """Data of another type fits where every value is the same value in the table's type; slices too."""
    data = pa.table({"c": array})
    padded = pa.table({"c": pa.concat_arrays([array, array, array])}).slice(len(array), len(array))

    for given in (data, padded):
        result = fitted(given, delta(("c", target)))
        result.validate(full=True)
        assert result.schema == arrow_schema(delta(("c", target)))
        values = ["nan" if v != v else v for v in result["c"].to_pylist()]
        assert values == expected


@pytest.mark.parametrize(
    ("array", "target", "part"),
    [
        (pa.array([300]), "byte", "column c: int64 to int8"),
        (pa.array([1.5]), "long", "column c: double to int64"),
        (pa.array([0.1]), "float", "not exact as float"),
        (pa.array([2**53 + 1]), "double", "column c: int64 to double"),
        (pa.array([Decimal("1.5")]), "long", "Rescaling"),
        (pa.array([Decimal("1.555")]), "decimal(10,2)", "Rescaling"),
        (pa.array([12345]), "decimal(5,2)", "precision 5"),
        (pa.array([1], pa.timestamp("ns")), "timestamp_ntz", "would lose data"),
        (pa.array([0], pa.timestamp("us")), "timestamp", "attach the time zone"),
        (pa.array([0], pa.timestamp("us", "UTC")), "timestamp_ntz", "drop the time zone"),
        (pa.array([86_400_001], pa.int64()).view(pa.date64()), "date", "would lose data"),
        (pa.array(["1"]), "long", "column c is long in the table, and string does not fit"),
        (pa.array([1]), "string", "int64 does not fit"),
        (pa.array([1]), "boolean", "int64 does not fit"),
        (pa.array([1.5]), "decimal(5,2)", "double does not fit"),
        (pa.array([[1]]), "long", "does not fit"),
        (pa.array([1]), ArrayType("long"), "does not fit"),
        (pa.array([["a"]]), ArrayType("long"), "column c.element is long"),
        (pa.array([{"a": 1, "z": 2}]), delta(("a", "long")), "no field z"),
        (pa.array([{"a": 1}]), delta(("a", "long"), StructField("b", "long", nullable=False)), "column c.b must not be null"),
        (pa.array([{"a": None}]), delta(StructField("a", "long", nullable=False)), "column c.a must not be null"),
        (pa.array([[None]], pa.list_(pa.int64())), ArrayType("long", contains_null=False), "elements of column c"),
        (pa.array([[("a", None)]], pa.map_(pa.string(), pa.int64())), MapType("string", "long", value_contains_null=False), "values of column c"),
        (pa.array([b"x"]), "variant", "variant cannot be read or written yet"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(array: Any, target: Any, part: str) -> None:
    """Where one value would change, or a null stands where none may, the column is named and nothing is written."""
    with pytest.raises(TxnLogSchemaError) as caught:
        fitted(pa.table({"c": array}), delta(("c", target)))

    assert part in str(caught.value)


def test_required_fields_of_a_null_struct() -> None:
    """A struct that is null as a whole does not break NOT NULL inside it."""
    target = delta(("c", delta(StructField("a", "long", nullable=False))))

    assert fitted(pa.table({"c": [{"a": 1}, None]}), target)["c"].to_pylist() == [{"a": 1}, None]


def test_columns_are_matched_by_name() -> None:
    """Order does not matter, case only where it tells columns apart; what is missing becomes null."""
    table = delta(("id", "long"), ("Name", "string"), ("note", "string"))

    result = fitted(pa.table({"NAME": ["a"], "id": [1]}), table)

    assert result.to_pylist() == [{"id": 1, "Name": "a", "note": None}]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (pa.table({"id": [1], "x": [2], "y": [3]}), "the table has no column x, y; its columns are id, name"),
        (pa.table({"name": ["a"]}), "column id must not be null, and the data has no such column"),
        (pa.table({"id": [1, None]}), "column id must not be null, and 1 of 2 values are"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "ID"]), "two columns named ID"),
    ],
)
def test_columns_that_do_not_match(data: pa.Table, part: str) -> None:
    """Further columns, missing ones and nulls are refused by name."""
    table = delta(StructField("id", "long", nullable=False), ("name", "string"))

    with pytest.raises(TxnLogSchemaError) as caught:
        fitted(data, table)
    assert part in str(caught.value)


def test_stored_files_are_read_leniently() -> None:
    """A data file may lack columns, have more, and hold narrower types and legacy timestamps."""
    file = pa.table(
        {"id": pa.array([1, None], pa.int32()), "gone": [1, 2], "t": pa.array([0, None], pa.timestamp("ns"))}
    )
    table = delta(StructField("id", "long", nullable=False), ("t", "timestamp"), ("new", parse_type("date")))

    fit = Fit(file.schema, table, stored=True)
    part = Fit(file.schema, table, stored=True, only=frozenset({"t"}))

    assert fit(file.to_batches()[0]).to_pylist() == [
        {"id": 1, "t": dt.datetime(1970, 1, 1, tzinfo=UTC), "new": None},
        {"id": None, "t": None, "new": None},
    ]
    assert part(file.to_batches()[0]).schema.names == ["t"]


def test_everything_that_speaks_arrow() -> None:
    """Frames, tables, batches, readers, relations and datasets all give the same rows."""
    table = pa.table({"a": [1, 2], "s": ["x", None]})
    frame = pd.DataFrame({"a": [1, 2], "s": ["x", None]})
    given: list[Any] = [
        table,
        table.to_batches()[0],
        table.to_reader(),
        frame,
        pl.DataFrame({"a": [1, 2], "s": ["x", None]}),
        duckdb.connect().sql("select * from (values (1::bigint, 'x'), (2, null)) t(a, s)"),
        ds.dataset(table),
        ds.dataset(table).scanner(),
    ]
    target = delta(("a", "long"), ("s", "string"))

    for data in given:
        read = to_reader(data).read_all()
        assert fitted(read, target).to_pylist() == table.to_pylist()


def test_pandas_index() -> None:
    """An unnamed index is not a column, a named one is."""
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=[5, 6, 7])

    assert to_reader(frame).read_all().to_pylist() == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert to_reader(frame.rename_axis("key")).schema.names == ["a", "key"]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ([{"a": 1}], "builtins.list does not speak the Arrow stream protocol; make a table of the rows first"),
        ({"a": [1]}, "pyarrow.table(columns)"),
        (pl.LazyFrame({"a": [1]}), "collect() it first"),
        (pd.DataFrame({"a": [1, "x"]}), "does not become Arrow columns"),
    ],
)
def test_what_is_no_data(data: Any, part: str) -> None:
    """Other objects are refused with what to give instead."""
    with pytest.raises(TxnLogSchemaError) as caught:
        to_reader(data)
    assert part in str(caught.value)
