"""A table that Spark is writing is taken over, kept from it, and given back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

import deltalakedb
from deltalakedb.features import FENCE_FEATURE


def test_a_live_spark_writer(spark: SparkSession, tmp_path: Path) -> None:
    """Nothing that Spark was told is committed is lost or twice; the fence keeps every kind of write of it out; after
    the release it writes again."""
    table = tmp_path / "t"
    where = f"delta.`{table}`"
    spark.sql(f"CREATE TABLE {where} (id BIGINT) USING delta")
    committed: list[int] = []
    errors: list[str] = []

    def keep_writing() -> None:
        session = spark.newSession()
        for n in range(10_000):
            try:
                session.sql(f"INSERT INTO {where} VALUES ({n})")
            except Exception as error:
                errors.append(str(error))
                return
            committed.append(n)

    def ids() -> list[int]:
        return sorted(row["id"] for row in spark.read.format("delta").load(str(table)).toArrow().to_pylist())

    writer = threading.Thread(target=keep_writing)
    writer.start()
    while len(committed) < 2:
        assert not errors
        time.sleep(0.05)
    with deltalakedb.connect(tmp_path / "lake") as lake:
        report = lake.import_table("t", table, grace=3)
        writer.join(60)

        assert report.adopted_version is not None
        assert errors
        assert sorted(row["id"] for row in lake.table("t").to_arrow().to_pylist()) == committed == ids()
        lake.append("t", pa.table({"id": [-1]}))
        assert ids() == [-1, *committed]
        for write in (
            f"INSERT INTO {where} VALUES (1)",
            f"DELETE FROM {where} WHERE id = 0",
            f"UPDATE {where} SET id = 5",
            f"OPTIMIZE {where}",
            f"VACUUM {where}",
            f"ALTER TABLE {where} ADD COLUMN more INT",
        ):
            with pytest.raises(Exception, match=FENCE_FEATURE):
                spark.sql(write)

        lake.release("t")
        lake.sync("t")
        spark.sql(f"INSERT INTO {where} VALUES (-2)")
        assert ids() == [-2, -1, *committed]
