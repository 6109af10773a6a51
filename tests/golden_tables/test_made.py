"""Tables made by Spark and delta-rs during the test survive the round trip, for every reader."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import deltalakedb
from deltalakedb import Lake
from tests.golden_tables.made import DELTA_RS, SPARK, make_with_spark
from tests.golden_tables.readers import differing, digest, in_process
from tests.golden_tables.roundtrip import round_trip
from tests.services.readers import ReaderLost, ReaderProcess


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """An embedded lake that publishes nothing by itself."""
    with deltalakedb.connect(tmp_path_factory.mktemp("made") / "lake", mirror="off") as lake:
        yield lake


def goes_round(lake: Lake, table: Path, name: str, readers: dict[str, Callable[[Path], str]]) -> None:
    """Fail unless the table comes back equal, and every reader of the original reads the same from the copy."""
    verdict = round_trip(lake, table, name, table.with_name(f"{table.name}-copy"))
    assert verdict.outcome == "equal", verdict.detail
    assert verdict.copy is not None
    assert differing(table, verdict.copy, readers) == []


@pytest.mark.parametrize("name", SPARK)
def test_spark_made(spark: SparkSession, lake: Lake, sail: ReaderProcess, tmp_path: Path, name: str) -> None:
    """A table that Spark made comes back equal, for Spark and every other reader that reads it."""
    table = tmp_path / "t"
    make_with_spark(spark, name, table)

    def through_spark(path: Path) -> str:
        return digest(spark.read.format("delta").load(str(path)).toArrow())

    through_spark(table)
    goes_round(lake, table, f"spark_{name}", {"spark": through_spark, "sail": sail.digest, **in_process()})


@pytest.mark.parametrize("name", DELTA_RS)
def test_delta_rs_made(lake: Lake, tmp_path: Path, name: str) -> None:
    """A table that delta-rs made comes back equal, for every reader that reads it."""
    table = tmp_path / "t"
    DELTA_RS[name](table)

    goes_round(lake, table, f"deltars_{name}", in_process())


def test_a_reader_that_is_lost(sail: ReaderProcess, tmp_path: Path) -> None:
    """It is not taken for one that cannot read: the error names the table. For the next one it is there again."""
    table = tmp_path / "t"
    DELTA_RS["plain"](table)
    read = sail.digest(table)
    os.kill(sail.pid, signal.SIGKILL)

    with pytest.raises(ReaderLost, match=f"sail ended with -9 over {table}"):
        differing(table, table, {"sail": sail.digest})
    assert sail.digest(table) == read
