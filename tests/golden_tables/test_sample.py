"""Some of the golden tables through every store and back, where they are at hand; `make golden` takes all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.fix_golden import GOLDEN
from tests.golden_tables.readers import differing, digest, in_process
from tests.golden_tables.roundtrip import entries, name_of, refusal_of, round_trip
from tests.golden_tables.stores import STORES, lake_on
from tests.services.readers import ReaderProcess
from tests.services.run import Addresses

SAMPLE = (
    "dat-v0/multi_partitioned/delta",
    "delta-golden/corrupted-last-checkpoint",
    "delta-golden/type-widening",
    "delta-kernel-java/basic-dv-with-checkpoint",
    "delta-kernel-java/catalog-owned-preview",
    "delta-rs-errlogs/table_c",
    "delta-rs-errlogs/table_h",
    "delta-rs/cdc_ict_table",
    "delta-rs/checkpoint-cdf-table",
    "delta-rs/checkpoints_vacuumed",
    "delta-rs/table_with_liquid_clustering",
    "delta-rs/table_with_partitioning_mapping",
    "delta-spark/table-with-dv-special-char",
    "duckdb-delta/variant/basic",
    "kernel-rs-data/crc-full",
    "kernel-rs-data/crc-malformed",
    "kernel-rs-data/v1-multi-part-partitioned-struct-stats-only",
    "kernel-rs-data/v2-checkpoints-json-with-sidecars",
    "kernel-rs-data/v2-parquet-sidecars-struct-stats-only",
)
FOR_SPARK = (
    "dat-v0/multi_partitioned/delta",
    "delta-kernel-java/basic-dv-with-checkpoint",
    "duckdb-delta/variant/basic",
)


def sample() -> list[dict[str, Any]]:
    """The tables of the sample; none where there is no golden data, as the report's header says."""
    return [entry for entry in entries(GOLDEN) if entry["table"] in SAMPLE] if GOLDEN.is_dir() else []


@pytest.mark.parametrize("store", STORES)
def test_round_trip(store: str, servers: Addresses, tmp_path: Path) -> None:
    """Imported into a store and written again from it alone, a table is what it was, at every version; what no reader
    could understand is refused with the reason. On the first store readers give the same, too."""
    wrong = []
    readers = in_process() if store == STORES[0] else {}
    with lake_on(store, tmp_path, servers) as lake:
        for entry in sample():
            table = GOLDEN / entry["table"]
            verdict = round_trip(
                lake, table, name_of(entry), tmp_path / name_of(entry), expected_refusal=refusal_of(entry, table)
            )
            if verdict.copy is not None and verdict.ok:
                wrong += [f"{entry['table']}: {found}" for found in differing(table, verdict.copy, readers)]
            wrong += [] if verdict.ok else [f"{entry['table']}: {verdict.detail}"]

    assert wrong == []


def test_spark_and_sail_read_the_copies(
    spark: SparkSession, sail: ReaderProcess, servers: Addresses, tmp_path: Path
) -> None:
    """Spark, and Sail which is of another make, read the copies as they read the originals."""

    def through_spark(path: Path) -> str:
        return digest(spark.read.format("delta").load(str(path)).toArrow())

    wrong = []
    with lake_on("sqlite", tmp_path, servers) as lake:
        for entry in sample():
            if entry["table"] in FOR_SPARK:
                table, copy = GOLDEN / entry["table"], tmp_path / name_of(entry)
                round_trip(lake, table, name_of(entry), copy)
                wrong += differing(table, copy, {"spark": through_spark, "sail": sail.digest})

    assert wrong == []
