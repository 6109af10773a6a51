"""Data files: folders, partition values, which columns get statistics, files of a size, clear refusals."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltalakedb.arrow import schema_from_arrow
from deltalakedb.delta_types import StructField, StructType
from deltalakedb.errors import TxnLogObjectStoreError, TxnLogSchemaError, TxnLogUriError, TxnLogValidationError
from deltalakedb.parquet import DataFileStores, FileReader, TableShape, TableWriter, Written
from deltalakedb.parquet.partitions import encode_path, folder, value_texts, values_of
from deltalakedb.storage_options import StorageOptions

UTC = dt.UTC
STORES = DataFileStores(StorageOptions())


def write(where: Path, shape: TableShape, data: pa.Table | pa.RecordBatchReader, **limits: int) -> list[Written]:
    files = STORES.open(where.as_uri())
    writer = TableWriter(files, shape, stem="s", numbers=itertools.count(), **{"target_bytes": 1 << 27, **limits})
    writer.write(data if isinstance(data, pa.RecordBatchReader) else data.to_reader())
    written = writer.finish()
    files.flush()
    return written


def shape_of(data: pa.Table, by: tuple[str, ...] = (), **properties: str) -> TableShape:
    return TableShape(schema_from_arrow(data.schema), by, {name.replace("_", "."): v for name, v in properties.items()})


@pytest.mark.parametrize(
    ("array", "data_type", "texts"),
    [
        (pa.array(["a b", "", None, "a=/%"]), "string", ["a b", None, None, "a=/%"]),
        (pa.array([1, -5, None]), "long", ["1", "-5", None]),
        (pa.array([0.1, 1e100, float("nan"), float("-inf"), -0.0]), "double", ["0.1", "1e+100", "NaN", "-Infinity", "-0"]),
        (pa.array([0.1], pa.float32()), "float", ["0.1"]),
        (pa.array([True, False]), "boolean", ["true", "false"]),
        (pa.array([Decimal("-12.30"), Decimal("0.00")]), "decimal(10,2)", ["-12.30", "0.00"]),
        (pa.array([dt.date(2023, 1, 5)]), "date", ["2023-01-05"]),
        (pa.array([1_500], pa.timestamp("us", "UTC")), "timestamp", ["1970-01-01T00:00:00.001500Z"]),
        (pa.array([1_500], pa.timestamp("us")), "timestamp_ntz", ["1970-01-01 00:00:00.001500"]),
        (pa.array([b"ab", b""]), "binary", ["ab", None]),
    ],
)  # fmt: skip
def test_partition_values(array: Any, data_type: str, texts: list[str | None]) -> None:
    """Values become the texts that Delta asks for, and texts the values again."""
    assert value_texts(array, data_type, "c") == texts
    again = values_of(texts, data_type, "c")
    assert value_texts(again, data_type, "c") == texts


@pytest.mark.parametrize(
    ("text", "data_type", "expected"),
    [
        ("2020-01-01 00:00:00", "timestamp", dt.datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01T02:00:00+02:00", "timestamp", dt.datetime(2020, 1, 1, tzinfo=UTC)),
        ("TRUE", "boolean", True),
        ("1E10", "double", 1e10),
        ("Infinity", "double", float("inf")),
        ("", "string", None),
        ("", "date", None),
    ],
)
def test_partition_values_of_other_writers(text: str, data_type: str, expected: object) -> None:
    """Forms that other writers use are understood."""
    assert values_of([text], data_type, "c").to_pylist() == [expected]


def test_partition_values_that_are_none() -> None:
    """A text that is no value of its type, and a value without a text, are refused by column."""
    with pytest.raises(TxnLogSchemaError, match="column c: a partition value is not of type long"):
        values_of(["x"], "long", "c")
    with pytest.raises(TxnLogSchemaError, match="column c: 10000-01-01 cannot be a partition value"):
        value_texts(pa.array([2_932_897], pa.date32()), "date", "c")
    with pytest.raises(TxnLogSchemaError, match="bytes that are not UTF-8"):
        value_texts(pa.array([b"\xff"]), "binary", "c")
    with pytest.raises(TxnLogSchemaError, match="cannot be partitioned by"):
        value_texts(pa.array([[1]]), StructType(), "c")


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("a b", "c=a%20b"),
        ("12:30", "c=12%253A30"),
        ("a/b", "c=a%252Fb"),
        ("100%", "c=100%2525"),
        ("ü", "c=%C3%BC"),
        ("a+b~c", "c=a%2Bb~c"),
        ("\"#'*?\\{[]^", "c=%2522%2523%2527%252A%253F%255C%257B%255B%255D%255E"),
        (None, "c=__HIVE_DEFAULT_PARTITION__"),
    ],
)
def test_folders(text: str | None, encoded: str) -> None:
    """Folders are escaped as Spark does, and the path is then percent-encoded once."""
    assert encode_path(folder(["c"], [text]) + "/f", ["c"]) == encoded + "/f"


@pytest.mark.parametrize("text", ["a/../b", "..\\..", "/.", "\x85"])
def test_values_that_cannot_be_a_folder(text: str) -> None:
    """A value by which a path could climb out of the table is refused before anything is written."""
    with pytest.raises(TxnLogValidationError, match="these partition values cannot be a folder"):
        encode_path(folder(["c"], [f"x{text}" if text[0] in "/." else text]) + "/f", ["c"])


def test_value_too_long_for_a_folder() -> None:
    """A value longer than a folder's name may be is refused by column."""
    with pytest.raises(TxnLogValidationError, match="partition column c is too long"):
        folder(["c"], ["x" * 300])


def test_partitioned_table(tmp_path: Path) -> None:
    """One file per combination of values, in its folder, without the partition columns; nulls have a folder."""
    data = pa.table({"d": [dt.date(2024, 1, 1), None, dt.date(2024, 1, 1)], "x": [1, 2, 3], "p": ["a:b", "", None]})

    written = write(tmp_path, shape_of(data, ("p", "d")), data)

    assert {w.add.path.rsplit("/", 1)[0]: w.add.partition_values for w in written} == {
        "p=a%253Ab/d=2024-01-01": {"p": "a:b", "d": "2024-01-01"},
        "p=__HIVE_DEFAULT_PARTITION__/d=__HIVE_DEFAULT_PARTITION__": {"p": None, "d": None},
        "p=__HIVE_DEFAULT_PARTITION__/d=2024-01-01": {"p": None, "d": "2024-01-01"},
    }
    for w in written:
        assert (tmp_path / w.path).stat().st_size == w.add.size
        assert pq.ParquetFile(tmp_path / w.path).schema_arrow.names == ["x"]


def test_many_partitions(tmp_path: Path) -> None:
    """Rows of many combinations of values each find their file, order kept within it."""
    count = 4_000
    data = pa.table({"a": [i % 40 for i in range(count)], "b": [i % 33 for i in range(count)], "x": list(range(count))})

    written = write(tmp_path, shape_of(data, ("a", "b")), data)

    reader = _reader(tmp_path, data, ("a", "b"))
    assert len(written) == 40 * 33
    for w in written:
        rows = [row for b in reader.read(w.add.path, w.add.partition_values) for row in b.to_pylist()]
        expected = [
            row for row in data.slice(rows[0]["x"]).to_pylist() if (row["a"], row["b"]) == (rows[0]["a"], rows[0]["b"])
        ]
        assert rows == expected  # fmt: skip


def test_not_null_partition_column(tmp_path: Path) -> None:
    """An empty text is null as a partition value, so a column that must not be null refuses it."""
    schema = StructType((StructField("p", "string", nullable=False), StructField("x", "long")))

    with pytest.raises(TxnLogSchemaError, match="column p must not be null, and an empty partition value is"):
        write(tmp_path, TableShape(schema, ("p",)), pa.table({"p": [""], "x": [1]}))


def test_files_of_a_size(tmp_path: Path) -> None:
    """Much data becomes several files near the target size, with all their row groups' statistics."""
    count = 100_000
    data = pa.table({"x": list(range(count)), "s": [f"{i:040d}" for i in range(count)]})

    batches = pa.RecordBatchReader.from_batches(data.schema, data.to_batches(max_chunksize=500))
    written = write(tmp_path, shape_of(data), batches, target_bytes=200_000, row_group_bytes=50_000)

    assert len(written) > 3
    assert all(200_000 <= w.add.size < 300_000 for w in written[:-1])
    start = 0
    for w in written:
        stats = json.loads(w.add.stats or "")
        assert pq.ParquetFile(tmp_path / w.path).num_row_groups > 1
        assert (stats["minValues"]["x"], stats["maxValues"]["x"]) == (start, start + w.rows - 1)
        start += w.rows
    assert start == count


def test_memory_is_bounded(tmp_path: Path) -> None:
    """What is kept at once does not grow with the data, however the rows of many partitions are mixed."""
    batch = pa.record_batch({"p": [i % 50 for i in range(5_000)], "s": ["x" * 200] * 5_000})
    peak = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal peak
        for _ in range(60):
            yield batch
            peak = max(peak, pa.total_allocated_bytes() - before)

    data = pa.RecordBatchReader.from_batches(batch.schema, batches())
    before = pa.total_allocated_bytes()
    written = write(tmp_path, shape_of(pa.table(batch), ("p",)), data, row_group_bytes=1 << 20, buffer_bytes=8 << 20)

    assert sum(w.rows for w in written) == 300_000
    assert 60 * batch.nbytes > 60_000_000
    assert peak < 30_000_000


def test_indexed_columns(tmp_path: Path) -> None:
    """The first 32 leaves get statistics, partition columns do not count; properties change that."""
    data = pa.table({"p": ["x"], "s": [{"a": 1, "b": [1]}], **{f"c{i}": [i] for i in range(40)}})
    folders = itertools.count()

    def counted(**properties: str) -> set[str]:
        (w,) = write(tmp_path / str(next(folders)), shape_of(data, ("p",), **properties), data)
        nulls = json.loads(w.add.stats or "").get("nullCount", {})
        return {f"{k}.{inner}" for k, v in nulls.items() if isinstance(v, dict) for inner in v} | {
            k for k, v in nulls.items() if not isinstance(v, dict)
        }

    assert counted() == {"s.a", "s.b", *(f"c{i}" for i in range(30))}
    assert counted(delta_dataSkippingNumIndexedCols="-1") == {"s.a", "s.b", *(f"c{i}" for i in range(40))}
    assert counted(delta_dataSkippingNumIndexedCols="0") == set()
    assert counted(delta_dataSkippingStatsColumns="c3, `s`.b") == {"c3", "s.b"}
    assert counted(delta_dataSkippingStatsColumns="s,c39") == {"s.a", "s.b", "c39"}


@pytest.mark.parametrize("arrow", [pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("rows", [3, 300])
def test_nan_leaves_bounds_out(tmp_path: Path, arrow: pa.DataType, rows: int) -> None:
    """Wherever a NaN lies there is neither minimum nor maximum; infinities, what a slice leaves out and what lies where
    values are null are none."""
    nan, inf = float("nan"), float("inf")

    def bounds(values: Any) -> tuple[object, object]:
        (w,) = write(tmp_path / f"{next(numbers)}", shape_of(pa.table({"x": values})), pa.table({"x": values}))
        stats = json.loads(w.add.stats or "")
        return stats["minValues"].get("x"), stats["maxValues"].get("x")

    numbers = itertools.count()
    some: Any = pa.array([1.0, *[2.0] * (rows - 2), nan], arrow)
    assert bounds(some) == (None, None)
    assert bounds(some.slice(0, rows - 1)) == (1.0, 2.0)
    assert bounds(some.slice(1)) == (None, None)
    valid = pa.py_buffer(bytes([0b011]) + b"\xff" * (rows // 8) if rows == 3 else b"\xff" * (rows // 8) + b"\x07")
    assert bounds(pa.Array.from_buffers(arrow, rows, [valid, some.buffers()[1]])) == (1.0, 2.0)
    assert bounds(pa.array([inf, -inf, *[1.0] * (rows - 2)], arrow)) == (None, None)
    assert bounds(pa.array([inf, *[1.0] * (rows - 1)], arrow)) == (1.0, None)
    nothing: Any = pa.array([None] * rows, arrow)
    assert bounds(nothing) == (None, None)


def test_statistics_never_outgrow_a_log_entry(tmp_path: Path) -> None:
    """Statistics of very many columns are left out but for the number of rows."""
    data = pa.table({f"c{i}": ["é" * 32] for i in range(1_000)})

    (w,) = write(tmp_path, shape_of(data, delta_dataSkippingNumIndexedCols="-1"), data)

    assert w.add.stats == '{"numRecords":1}'


@pytest.mark.parametrize(("codec", "suffix"), [("zstd", ".zstd.parquet"), ("uncompressed", ".c000.parquet")])
def test_codec(tmp_path: Path, codec: str, suffix: str) -> None:
    """The table's property says how files are compressed, and names say it too."""
    data = pa.table({"x": [1]})

    (w,) = write(tmp_path, shape_of(data, delta_parquet_compression_codec=codec), data)

    assert w.path.endswith(suffix)
    assert pq.ParquetFile(tmp_path / w.path).metadata.row_group(0).column(0).compression.lower() == codec


def test_shapes_without_files() -> None:
    """Wrong properties and tables of nothing but partition columns are refused."""
    data = pa.table({"x": [1]})

    with pytest.raises(TxnLogValidationError, match="codec is 'lzo'"):
        shape_of(data, delta_parquet_compression_codec="lzo")
    with pytest.raises(TxnLogValidationError, match="NumIndexedCols is 'many'"):
        shape_of(data, delta_dataSkippingNumIndexedCols="many")
    with pytest.raises(TxnLogSchemaError, match="a column that it is not partitioned by"):
        shape_of(data, ("x",))
    with pytest.raises(TxnLogSchemaError, match="partition column y"):
        shape_of(data, ("y",))


def test_no_rows_no_file(tmp_path: Path) -> None:
    """Data without rows writes nothing."""
    data = pa.table({"x": pa.array([], pa.int64())})

    assert write(tmp_path / "t", shape_of(data), data) == []
    assert not (tmp_path / "t").exists()


def test_abort_deletes_everything(tmp_path: Path) -> None:
    """When the data ends in an error, no file stays, neither finished nor under way."""
    rows = pa.record_batch({"x": list(range(2_000))})

    def failing() -> Iterator[pa.RecordBatch]:
        for _ in range(10):
            yield rows
        raise RuntimeError("the source broke")

    files = STORES.open(tmp_path.as_uri())
    shape = shape_of(pa.table(rows))
    writer = TableWriter(
        files, shape, stem="s", numbers=itertools.count(), target_bytes=20_000, row_group_bytes=10_000, buffer_bytes=1
    )
    with pytest.raises(RuntimeError, match="the source broke"):
        writer.write(pa.RecordBatchReader.from_batches(rows.schema, failing()))
    assert list(tmp_path.iterdir())

    writer.abort()

    assert list(tmp_path.iterdir()) == []


def test_a_small_file_that_cannot_be_written(tmp_path: Path) -> None:
    """It is an object store error that names the file, its folder and what the system said; what is there stays."""
    data = pa.table({"x": [1]})
    write(tmp_path / "table", shape_of(data), data)
    (tmp_path / "taken").write_bytes(b"somebody's")

    for place, said in (("table", "File exists"), ("taken", "Not a directory")):
        with pytest.raises(TxnLogObjectStoreError, match=f"cannot write 'part-.*' in {tmp_path}/{place}: {said}"):
            write(tmp_path / place, shape_of(data), data)

    assert pq.read_table(next((tmp_path / "table").iterdir())) == data
    assert (tmp_path / "taken").read_bytes() == b"somebody's"


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    """Missing, damaged and escaping files are object store errors that name the file."""
    data = pa.table({"x": [1]})
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    reader = _reader(tmp_path, data, ())

    for path, part in [
        ("gone.parquet", "gone.parquet"),
        ("bad.parquet", "the data file bad.parquet cannot be read"),
        ("../x.parquet", "is not read: a segment of it is"),
    ]:
        with pytest.raises(TxnLogObjectStoreError, match=part):
            list(reader.read(path, {}))


def test_reading_only_partition_columns(tmp_path: Path) -> None:
    """Columns that are not in the file at all still have as many rows as the file."""
    data = pa.table({"p": ["a", "a"], "x": [1, 2]})
    (w,) = write(tmp_path, shape_of(data, ("p",)), data)

    assert _read(_reader(tmp_path, data, ("p",), "p"), w) == [{"p": "a"}, {"p": "a"}]


def test_reading_columns_with_dots(tmp_path: Path) -> None:
    """A column whose name has a dot is not taken for a field of a struct."""
    data = pa.table({"a.b": [1], "a": [{"b": 2, "c": 3}]})
    (w,) = write(tmp_path, shape_of(data), data)

    assert _read(_reader(tmp_path, data, (), "a.b"), w) == [{"a.b": 1}]
    assert _read(_reader(tmp_path, data, (), "a"), w) == [{"a": {"b": 2, "c": 3}}]


def test_locations() -> None:
    """Data files lie on local disk or on S3."""
    with pytest.raises(TxnLogUriError, match="gs://"):
        STORES.open("gs://bucket/x")


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """An error of the file system is an object store error with the reason."""
    (tmp_path / "t").write_text("a file where the folder should be")

    with pytest.raises(TxnLogObjectStoreError, match=r"File exists|Not a directory"):
        write(tmp_path / "t", shape_of(pa.table({"x": [1]})), pa.table({"x": [1]}))


def _reader(where: Path, data: pa.Table, by: tuple[str, ...], *columns: str) -> FileReader:
    return FileReader(
        files=STORES.open(where.as_uri()),
        schema=schema_from_arrow(data.schema),
        partition_columns=by,
        columns=columns or tuple(data.schema.names),
    )


def _read(reader: FileReader, w: Written) -> list[dict[str, Any]]:
    return [row for batch in reader.read(w.add.path, w.add.partition_values) for row in batch.to_pylist()]
