"""Readers that know nothing of us, and tables for them to read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

from tests.fix_s3 import S3Bucket
from tests.lakes import PARTITIONED, FilledLake, append, create, local_path, remove
from tests.mirrors import Root
from tests.services.readers import ReaderProcess

Travel = Callable[[str, datetime], int]
"""How many rows the table at a location has at a time."""
ReadByAll = Callable[[str], dict[str, list[dict[str, Any]]]]


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "text": [f"row {n}" for n in ids]})


def days(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


def fill(lake: FilledLake) -> dict[str, list[dict[str, Any]]]:
    """Three tables over a dozen versions, with removes, partitions and odd names; the rows that are left in each."""
    first = lake.write("plain", "part-0.parquet", rows(1, 2))
    day = lake.write("days", "day=mon/a.parquet", days(1), day="mon")
    null = lake.write("days", "day=__HIVE_DEFAULT_PARTITION__/b.parquet", days(2), day=None)
    odd = [
        lake.write("odd", "day=a%20b%25253A/c%20d.parquet", days(3), day="a b%3A"),
        lake.write("odd", "day=%C3%BC/e.parquet", days(4), day="ü"),
    ]
    by_day: dict[str, Any] = {"schema": PARTITIONED, "partition_by": ("day",)}
    lake.commit(create("plain", first), create("days", day, null, **by_day), create("odd", *odd, **by_day))
    for n in range(1, 12):
        file = lake.write("plain", f"part-{n}.parquet", rows(10 * n))
        lake.commit(append("plain", file))
        if n == 5:
            lake.commit(remove("plain", first))
    lake.commit(remove("days", day), append("plain", lake.write("plain", "last.parquet", rows(500))))
    return {
        "plain": [{"id": n, "text": f"row {n}"} for n in [*range(10, 120, 10), 500]],
        "days": [{"id": 2, "day": None}],
        "odd": [{"id": 3, "day": "a b%3A"}, {"id": 4, "day": "ü"}],
    }


@pytest.fixture
def read_by_all(
    root: Root,
    request: pytest.FixtureRequest,
    duckdb_connection: duckdb.DuckDBPyConnection,
    duckdb_s3: Callable[[S3Bucket], None],
) -> ReadByAll:
    """Rows of the table at a location, ordered by id, by each reader."""
    options = dict(root.options)
    if options:
        duckdb_s3(request.getfixturevalue("s3_bucket"))

    def delta_rs(location: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (
            DeltaTable(location, storage_options=options).to_pyarrow_table().sort_by("id").to_pylist()
        )
        return found

    def data_fusion(location: str) -> list[dict[str, Any]]:
        builder = QueryBuilder().register("t", DeltaTable(location, storage_options=options))
        found: list[dict[str, Any]] = pa.table(builder.execute("SELECT * FROM t ORDER BY id").read_all()).to_pylist()
        return found

    def duck(location: str) -> list[dict[str, Any]]:
        cursor = duckdb_connection.execute("SELECT * FROM delta_scan($1) ORDER BY id", [location])
        found: list[dict[str, Any]] = cursor.to_arrow_table().to_pylist()
        return found

    def polars_rows(location: str) -> list[dict[str, Any]]:
        return polars.scan_delta(location, storage_options=options).collect().sort("id").to_dicts()

    readers = {"delta-rs": delta_rs, "datafusion": data_fusion, "duckdb": duck, "polars": polars_rows}
    # Polars (2.1) asks an object store for a percent-encoded path as it stands in the log, which nobody wrote.
    unable = {("polars", "odd")} if options else set()

    def read(location: str) -> dict[str, list[dict[str, Any]]]:
        table = location.rsplit("/", 1)[1]
        features = DeltaTable(location, storage_options=options).protocol().reader_features or []
        refusing = {"delta-rs", "polars"} if "v2Checkpoint" in features else set()
        return {
            name: reader(location)
            for name, reader in readers.items()
            if (name, table) not in unable and name not in refusing
        }

    return read


def _delta_rs(location: str, moment: datetime) -> int:
    table = DeltaTable(location)
    table.load_as_version(moment)
    return table.to_pyarrow_table().num_rows


def _polars(location: str, moment: datetime) -> int:
    return polars.scan_delta(location, version=moment).collect().height


@pytest.fixture
def travels(spark: Any, sail: ReaderProcess) -> dict[str, Travel]:
    """By reader. DuckDB offers versions only."""

    # As text, which both take in their session's zone.
    def text(moment: datetime) -> str:
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")

    def spark_rows(location: str, moment: datetime) -> int:
        count: int = spark.read.format("delta").option("timestampAsOf", text(moment)).load(location).count()
        return count

    def sail_rows(location: str, moment: datetime) -> int:
        return int(sail.digest(local_path(location), timestamp=text(moment)).split()[0])

    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    return {"delta-rs": _delta_rs, "polars": _polars, "spark": spark_rows, "sail": sail_rows}
