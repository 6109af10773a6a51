"""The writer fence before everybody who writes Delta here, beside Spark (see `test_cutover`): all read, none writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb.features import FENCE_FEATURE
from tests.golden_tables.readers import READERS, digest, polars_scan
from tests.services.readers import ReaderProcess

Write = Callable[[Path], Any]
ROWS = pa.table({"id": [9]})


def opened(table: Path) -> deltalake.DeltaTable:
    return deltalake.DeltaTable(str(table))


BY_DELTA_RS: dict[str, Write] = {
    "append": lambda table: deltalake.write_deltalake(str(table), ROWS, mode="append"),
    "overwrite": lambda table: deltalake.write_deltalake(str(table), ROWS, mode="overwrite"),
    "delete": lambda table: opened(table).delete("id >= 0"),
    "update": lambda table: opened(table).update(updates={"id": "5"}),
    "merge": lambda table: (
        opened(table)
        .merge(ROWS, "s.id = t.id", source_alias="s", target_alias="t")
        .when_not_matched_insert_all()
        .execute()
    ),
    "compact": lambda table: opened(table).optimize.compact(),
    "z-order": lambda table: opened(table).optimize.z_order(["id"]),
    "vacuum": lambda table: opened(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False),
    "restore": lambda table: opened(table).restore(0),
    "properties": lambda table: opened(table).alter.set_table_properties({"delta.appendOnly": "true"}),
    "columns": lambda table: opened(table).alter.add_columns(
        [deltalake.Field("more", deltalake.schema.PrimitiveType("string"))]
    ),
    "polars": lambda table: polars.DataFrame(ROWS).write_delta(str(table), mode="append"),
}
"""What delta-rs can do to a table, also for Polars."""

BY_SAIL = {
    "append": "INSERT INTO t VALUES (9)",
    "delete": "DELETE FROM t WHERE id >= 0",
    "merge": "MERGE INTO t USING (SELECT 9 AS id) s ON s.id = t.id WHEN NOT MATCHED THEN INSERT *",
}


def test_everybody_reads_and_nobody_else_writes(
    tmp_path: Path, sail: ReaderProcess, duckdb_connection: duckdb.DuckDBPyConnection
) -> None:
    """Whatever a writer tries fails by the fence's name, commits nothing and leaves every file as it was; after the
    release those write again that know every other feature of our tables."""
    with deltalakedb.connect(tmp_path / "lake") as lake:
        table = tmp_path / "lake" / "tables" / "t"
        lake.create_table("t", ROWS.schema, properties={"delta.isolationLevel": "WriteSerializable"})
        for n in range(4):
            lake.append("t", pa.table({"id": [n]}))
        with lake.begin() as tx:
            # Something for VACUUM to take.
            path = next(table.glob("*.parquet")).name
            tx.stage_table("t", actions=[{"remove": {"path": path, "dataChange": True}}])
        lake.sync("t")
        left = lake.table("t").to_arrow()
        before = everything(table)
        found = {**{name: digest(read(table)) for name, read in READERS.items()}, "sail": sail.digest(table)}
        duckdb_connection.execute(f"ATTACH '{table}' AS fenced (TYPE delta)")

        assert found == {name: digest(as_seen(name, left)) for name in found}
        for name, write in BY_DELTA_RS.items():
            with pytest.raises(Exception, match=FENCE_FEATURE):
                pytest.fail(f"delta-rs could {name}: {write(table)}")
        with pytest.raises(duckdb.Error, match=FENCE_FEATURE):
            duckdb_connection.execute("INSERT INTO fenced VALUES (9)")
        for statement in BY_SAIL.values():
            # It does not say which one it does not know.
            with pytest.raises(ValueError, match=r"Unsupported table features required: \[Unknown\]"):
                sail.execute(table, statement)
        after = everything(table)
        assert {name: after.get(name) for name in before} == before
        assert commits(after) == commits(before)

        lake.release("t")
        lake.sync("t")
        with pytest.raises(Exception, match=r"Unsupported table features required: \[InCommitTimestamp\]"):
            BY_DELTA_RS["append"](table)
        sail.execute(table, BY_SAIL["append"])
        duckdb_connection.execute(f"ATTACH '{table}' AS released (TYPE delta)")
        duckdb_connection.execute("INSERT INTO released VALUES (9)")
        assert digest(polars_scan(table)) == digest(pa.concat_tables([left, ROWS, ROWS]))


def as_seen(reader: str, rows: pa.Table) -> pa.Table:
    """Rows as that reader gives them: DuckDB's are text."""
    return pa.table({"id": [repr(n) for n in rows["id"].to_pylist()]}) if reader == "duckdb" else rows


def everything(table: Path) -> dict[str, bytes]:
    """Every file of a table with what is in it."""
    return {str(path.relative_to(table)): path.read_bytes() for path in table.rglob("*") if path.is_file()}


def commits(files: dict[str, bytes]) -> set[str]:
    """Those of them that are versions."""
    return {name for name in files if name.startswith("_delta_log/") and name.endswith(".json")}
