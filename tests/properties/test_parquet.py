"""Data files: every row comes back, statistics equal what brute force finds and never exclude a row."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import re
import tempfile
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalakedb.arrow import arrow_schema
from deltalakedb.delta_types import ArrayType, DataType, StructField, StructType, decimal_of
from deltalakedb.parquet import DataFileStores, FileReader, TableShape, TableWriter, Written
from deltalakedb.storage_options import StorageOptions

UTC = dt.UTC
STORES = DataFileStores(StorageOptions())
TOP = "\U0010ffff"

_texts = st.one_of(
    st.text(max_size=5),
    st.text(alphabet=st.sampled_from(["a", "é", "\x7e", "\x7f", "😀", TOP]), min_size=28, max_size=80),
    st.sampled_from(
        ["", "x" * 5000, "y" * 4095, TOP * 70, "a" * 31 + "😀" + "b", "/=%:?#{} ", "__HIVE_DEFAULT_PARTITION__"]
    ),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "byte": st.integers(-128, 127),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "decimal(5,2)": st.decimals(-999, 999, places=2),
    "decimal(18,0)": st.integers(-(10**17), 10**17).map(Decimal),
    "decimal(38,10)": st.decimals(-(10**20), 10**20, places=10),
    "string": _texts,
    "binary": st.binary(max_size=5),
    "date": st.dates(),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
    "timestamp_ntz": st.datetimes(),
}
FOLDERS = st.text(max_size=8).filter(
    lambda text: not re.search("[\x80-\x9f]", text) and not {".", ".."} & set(re.split(r"[/\\]", text))
)
"""Texts that can name a folder: no path may climb by one, or have a control character that Spark does not escape."""


@st.composite
def tables(draw: st.DrawFn) -> tuple[StructType, tuple[str, ...], pa.Table]:
    """A table's schema, its partition columns, and rows."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    fields: list[StructField] = [StructField(f"c{i}", name) for i, name in enumerate(names)]
    if draw(st.booleans()):
        inner = StructType(
            (StructField("x", "long"), StructField("l", ArrayType("string")), StructField("y", "double"))
        )
        fields.insert(draw(st.integers(0, len(fields))), StructField("s", inner))
    by = draw(st.lists(st.sampled_from(sorted(set(VALUES) - {"binary"})), max_size=2))
    fields += [StructField(f"p{i}", name) for i, name in enumerate(by)]
    schema = StructType(tuple(fields))
    count = draw(st.integers(0, 12))
    rows = draw(st.lists(st.fixed_dictionaries({f.name: _column(f) for f in fields}), min_size=count, max_size=count))
    return schema, tuple(f"p{i}" for i in range(len(by))), pa.Table.from_pylist(rows, schema=arrow_schema(schema))


def _column(field: StructField) -> st.SearchStrategy[Any]:
    return st.none() | FOLDERS if field.name[0] == "p" and field.type == "string" else _value(field.type)


def _value(data_type: DataType) -> st.SearchStrategy[Any]:
    match data_type:
        case str():
            found = VALUES[data_type]
        case ArrayType():
            found = st.lists(_value(data_type.element_type), max_size=3)
        case StructType():
            found = st.fixed_dictionaries({f.name: _value(f.type) for f in data_type.fields})
        case _:
            raise AssertionError(data_type)
    return st.none() | found


def write(folder: str, schema: StructType, by: tuple[str, ...], rows: pa.Table, *, small: bool) -> list[Written]:
    limits = {"target_bytes": 4000, "row_group_bytes": 100, "buffer_bytes": 300} if small else {"target_bytes": 1 << 27}
    files = STORES.open(f"file://{folder}")
    writer = TableWriter(files, TableShape(schema, by), stem="stem", numbers=itertools.count(), **limits)
    writer.write(pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=4)))
    written = writer.finish()
    files.flush()
    return written


@settings(max_examples=80, deadline=None)
@given(tables(), st.booleans())
def test_rows_come_back(table: tuple[StructType, tuple[str, ...], pa.Table], small: bool) -> None:
    """What was written is read back, whatever files it went into; an empty partition value is null."""
    schema, by, rows = table
    with tempfile.TemporaryDirectory() as folder:
        written = write(folder, schema, by, rows, small=small)
        reader = FileReader(
            files=STORES.open(f"file://{folder}"),
            schema=schema,
            partition_columns=by,
            columns=tuple(rows.schema.names),
        )
        found = [row for w in written for row in _rows(reader, w)]

    expected = [
        {name: None if name in by and value == "" else value for name, value in row.items()} for row in rows.to_pylist()
    ]
    assert sorted(map(_text, found)) == sorted(map(_text, expected))
    assert sum(w.rows for w in written) == rows.num_rows
    assert len({w.add.path for w in written}) == len(written)


@settings(max_examples=120, deadline=None)
@given(tables(), st.booleans())
def test_statistics_are_what_brute_force_finds(
    table: tuple[StructType, tuple[str, ...], pa.Table], small: bool
) -> None:
    """Counts are exact; minimum and maximum are the extreme values in Delta's forms, or left out by its rules."""
    schema, by, rows = table
    with tempfile.TemporaryDirectory() as folder:
        for w in write(folder, schema, by, rows, small=small):
            reader = FileReader(
                files=STORES.open(f"file://{folder}"),
                schema=schema,
                partition_columns=by,
                columns=tuple(n for n in rows.schema.names if n not in by),
            )
            content = list(_rows(reader, w))
            stats = json.loads(w.add.stats or "", parse_float=str, parse_int=str)
            assert int(stats["numRecords"]) == w.rows == len(content)
            for path, data_type in _leaves(schema, by):
                values = [_at(row, path) for row in content]
                assert int(_at(stats["nullCount"], path)) == values.count(None)
                low, high = _at(stats.get("minValues"), path), _at(stats.get("maxValues"), path)
                if data_type in ("float", "double"):
                    low, high = (text if text is None else repr(float(text)) for text in (low, high))
                assert (low, high) == _extremes([v for v in values if v is not None], data_type)


def _rows(reader: FileReader, written: Written) -> list[dict[str, Any]]:
    return [row for b in reader.read(written.add.path, written.add.partition_values) for row in b.to_pylist()]


def _text(row: dict[str, Any]) -> str:
    return repr(dict(sorted(row.items())))


def _leaves(schema: StructType, by: tuple[str, ...]) -> list[tuple[tuple[str, ...], DataType]]:
    found: list[tuple[tuple[str, ...], DataType]] = []
    for f in schema.fields:
        if isinstance(f.type, StructType):
            found += [((f.name, inner.name), inner.type) for inner in f.type.fields]
        elif f.name not in by:
            found.append(((f.name,), f.type))
    return found


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = None if value is None else value.get(name)
    return value


def _extremes(values: list[Any], data_type: DataType) -> tuple[Any, Any]:
    """Minimum and maximum as their JSON texts, written from the rules alone."""
    if not values or not isinstance(data_type, str) or data_type in ("boolean", "binary"):
        return None, None
    if data_type in ("float", "double"):
        if any(map(math.isnan, values)):
            return None, None
        low, high = min(values), max(values)
        # Zeros are equal, and their signs are widened.
        low, high = (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
        return (repr(low) if math.isfinite(low) else None), (repr(high) if math.isfinite(high) else None)
    if data_type == "string":
        low, high = min(values, key=str.encode), max(values, key=str.encode)
        return _cut(low), _cut_above(high)
    low, high = min(values), max(values)
    if data_type == "date":
        return low.isoformat(), high.isoformat()
    if data_type.startswith("timestamp"):
        zone = "Z" if data_type == "timestamp" else ""
        floor = low.replace(microsecond=low.microsecond // 1000 * 1000)
        try:
            ceiling = high + dt.timedelta(microseconds=-high.microsecond % 1000)
        except OverflowError:
            return _moment(floor, zone), None
        return _moment(floor, zone), _moment(ceiling, zone)
    if decimal := decimal_of(data_type):
        return f"{low:.{decimal[1]}f}", f"{high:.{decimal[1]}f}"
    return str(low), str(high)


def _moment(value: dt.datetime, zone: str) -> str:
    return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + zone


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str) -> str:
    while _units(text) > 32:
        text = text[:-1]
    return text


def _cut_above(text: str) -> str | None:
    """The shortest prefix with one character more that is above the text, by trying."""
    if _units(text) <= 32:
        return text
    for length in range(len(_cut(text)), len(text)):
        for last in ("\x7f", TOP):
            candidate = text[:length] + last
            if candidate.encode() > text.encode():
                return candidate if _units(candidate) <= 64 else None
    return text if _units(text) <= 64 else None
