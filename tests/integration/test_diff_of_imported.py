"""`diff` of tables that others wrote: in their own place, and as our mirror writes them elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

import deltalakedb
from deltalakedb.lake import Lake
from deltalakedb.program import app
from tests.fix_golden import GOLDEN

SAMPLE = (
    "delta-rs/table_with_deletion_logs",
    "kernel-rs-data/v2-checkpoints-json-with-sidecars",
    "kernel-rs-data/v1-multi-part-partitioned-struct-stats-only",
    "delta-kernel-java/basic-dv-with-checkpoint",
    "delta-spark/transaction_log_schema_evolvability",
    "delta-rs/checkpoints_vacuumed",
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """An embedded lake."""
    with deltalakedb.connect(str(tmp_path_factory.mktemp("diff") / "lake")) as lake:
        yield lake


def verdict(lake: Lake, name: str) -> tuple[int, str, dict[str, int]]:
    """What the verb says of one table: exit code, verdict, counts."""
    result = CliRunner().invoke(app, ["diff", name, "--store", str(lake.settings.address), "--output", "json"])
    (told,) = json.loads(result.output)
    return result.exit_code, told["verdict"], told["counts"]


@pytest.mark.parametrize("table", SAMPLE if GOLDEN.is_dir() else ())
def test_a_table_of_others_is_equal_when_it_was_imported(lake: Lake, table: str) -> None:
    """Checkpoints of every kind, deletion vectors, statistics in columns, logs without a beginning: SQL says the same."""
    name = table.replace("/", ".").replace("-", "_")
    lake.import_table(name, str(GOLDEN / table), cutover=False)

    assert verdict(lake, name) == (0, "equal", {})


def test_a_table_taken_over_stays_equal(lake: Lake, tmp_path: Path) -> None:
    """Its old versions, the one that took it over, and ours after it; until somebody changes a file."""
    place = str(tmp_path / "table")
    for n in range(3):
        rows = pa.table({"id": [n, n + 1], "p": ["a", "b"]})
        write_deltalake(place, rows, mode="append", partition_by=["p"])
    DeltaTable(place).delete("p = 'b' AND id = 2")
    DeltaTable(place).create_checkpoint()
    lake.import_table("taken", place, grace=0)
    taken = verdict(lake, "taken")
    with lake.begin() as tx:
        tx.stage_table("taken", pa.table({"id": [7], "p": ["c"]}))
    lake.sync(["taken"])
    later = verdict(lake, "taken")
    log = tmp_path / "table" / "_delta_log" / f"{1:020}.json"
    log.write_text(log.read_text().replace('"WRITE"', '"MERGE"'))

    assert (taken, later) == ((0, "equal", {}), (0, "equal", {}))
    assert verdict(lake, "taken") == (2, "drift", {"history": 1})
