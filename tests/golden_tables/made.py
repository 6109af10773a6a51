"""Tables that Spark and delta-rs make during the test: every feature that has no golden data, and those that change most."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import deltalake
import pyarrow as pa
from pyspark.sql import SparkSession

Statements = tuple[str, ...]
"""SQL, with {t} for the table."""

_ROWS = "INSERT INTO {t} VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, NULL, 'x')"
_MORE = "INSERT INTO {t} VALUES (4, 'd', 'y'), (5, 'e', 'z')"

SPARK: dict[str, Statements] = {
    "partitioned": (
        "CREATE TABLE {t} (id BIGINT, day DATE, what STRING) USING delta PARTITIONED BY (day, what)",
        "INSERT INTO {t} VALUES (1, DATE'2024-01-01', 'a b'), (2, NULL, 'c/d'), (3, DATE'2024-01-02', 'ü%25=:'), "
        "(4, DATE'2024-01-02', NULL)",
        "DELETE FROM {t} WHERE day IS NULL",
    ),
    "mapped_by_name": (
        "CREATE TABLE {t} (id BIGINT, text STRING, p STRING) USING delta PARTITIONED BY (p) "
        "TBLPROPERTIES ('delta.columnMapping.mode' = 'name', 'delta.minReaderVersion' = '2', "
        "'delta.minWriterVersion' = '5')",
        _ROWS,
        "ALTER TABLE {t} RENAME COLUMN text TO `another name`",
        "ALTER TABLE {t} DROP COLUMN `another name`",
    ),
    "mapped_by_id": (
        "CREATE TABLE {t} (id BIGINT, s STRUCT<a: INT, b: STRING>, l ARRAY<INT>) USING delta "
        "TBLPROPERTIES ('delta.columnMapping.mode' = 'id')",
        "INSERT INTO {t} VALUES (1, struct(1, 'x'), array(1, 2)), (2, NULL, NULL)",
    ),
    "deletion_vectors": (
        "CREATE TABLE {t} (id BIGINT, text STRING, p STRING) USING delta PARTITIONED BY (p) "
        "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')",
        "INSERT INTO {t} SELECT id, cast(id AS STRING), cast(id % 2 AS STRING) FROM range(100)",
        "DELETE FROM {t} WHERE id = 7",
        "DELETE FROM {t} WHERE id > 90",
    ),
    "change_data_feed": (
        "CREATE TABLE {t} (id BIGINT, text STRING, p STRING) USING delta "
        "TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')",
        _ROWS,
        "UPDATE {t} SET text = 'changed' WHERE id = 1",
    ),
    "row_tracking": (
        "CREATE TABLE {t} (id BIGINT, text STRING, p STRING) USING delta "
        "TBLPROPERTIES ('delta.enableRowTracking' = 'true', 'delta.enableDeletionVectors' = 'true')",
        _ROWS,
        "UPDATE {t} SET text = 'changed' WHERE id = 1",
    ),
    "clustered": (
        "CREATE TABLE {t} (id BIGINT, text STRING, p STRING) USING delta CLUSTER BY (id, text)",
        _ROWS,
        _MORE,
        "OPTIMIZE {t}",
    ),
    "widened": (
        "CREATE TABLE {t} (id INT, text STRING, amount DECIMAL(5, 2)) USING delta "
        "TBLPROPERTIES ('delta.enableTypeWidening' = 'true')",
        "INSERT INTO {t} VALUES (1, 'a', 1.25)",
        "ALTER TABLE {t} ALTER COLUMN id TYPE BIGINT",
        "ALTER TABLE {t} ALTER COLUMN amount TYPE DECIMAL(10, 2)",
        "INSERT INTO {t} VALUES (5000000000, 'b', 12345678.25)",
    ),
    "variant": (
        "CREATE TABLE {t} (id BIGINT, v VARIANT) USING delta",
        'INSERT INTO {t} SELECT 1, parse_json(\'{{"a": [1, "x"]}}\')',
    ),
    "timestamp_ntz": (
        "CREATE TABLE {t} (id BIGINT, at TIMESTAMP_NTZ, seen TIMESTAMP) USING delta PARTITIONED BY (at)",
        "INSERT INTO {t} VALUES (1, TIMESTAMP_NTZ'2024-01-02 03:04:05.678901', TIMESTAMP'2024-01-02 03:04:05.678901Z')",
    ),
    "in_commit_timestamps": (
        "CREATE TABLE {t} (id BIGINT, text STRING, p STRING) USING delta",
        _ROWS,
        "ALTER TABLE {t} SET TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')",
        _MORE,
    ),
    "v2_checkpoints": (
        "CREATE TABLE {t} (id BIGINT, text STRING, p STRING) USING delta PARTITIONED BY (p) "
        "TBLPROPERTIES ('delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '2')",
        _ROWS,
        _MORE,
    ),
    "expressions": (
        "CREATE TABLE {t} (id BIGINT GENERATED ALWAYS AS IDENTITY, at DATE NOT NULL, "
        "year INT GENERATED ALWAYS AS (year(at)), n INT) USING delta "
        "TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')",
        "ALTER TABLE {t} ALTER COLUMN n SET DEFAULT 7",
        "ALTER TABLE {t} ADD CONSTRAINT positive CHECK (n > 0)",
        "INSERT INTO {t} (at, n) VALUES (DATE'2024-02-03', 5), (DATE'2025-02-03', DEFAULT)",
    ),
}
"""What Spark makes, by name. A new table of its own for each."""


def make_with_spark(spark: SparkSession, name: str, table: Path) -> None:
    """The table `name` of `SPARK` in a folder."""
    for statement in SPARK[name]:
        spark.sql(statement.format(t=f"delta.`{table}`"))


def _rows(*ids: int) -> pa.Table:
    return pa.table({"id": list(ids), "text": [f"row {n}" for n in ids], "p": [str(n % 2) for n in ids]})


def _plain(table: Path) -> None:
    for n in range(4):
        deltalake.write_deltalake(str(table), _rows(n, n + 10), mode="append", partition_by=["p"])
    deltalake.DeltaTable(str(table)).delete("id = 1")


def _applications(table: Path) -> None:
    for n in range(3):
        properties = deltalake.CommitProperties(
            app_transactions=[deltalake.Transaction("job", n), deltalake.Transaction(f"other {n}", 7)],
            custom_metadata={"who": "me"},
        )
        deltalake.write_deltalake(str(table), _rows(n), mode="append", commit_properties=properties)


def _constraints(table: Path) -> None:
    deltalake.write_deltalake(str(table), _rows(1, 2))
    deltalake.DeltaTable(str(table)).alter.add_constraint({"positive": "id > 0"})
    deltalake.write_deltalake(str(table), _rows(3), mode="append")


def _evolved(table: Path) -> None:
    deltalake.write_deltalake(str(table), _rows(1, 2))
    more = pa.table({"id": [3], "new": [1.5]})
    deltalake.write_deltalake(str(table), more, mode="append", schema_mode="merge")
    deltalake.write_deltalake(str(table), _rows(9), mode="overwrite", schema_mode="overwrite")


def _cleaned_up(table: Path) -> None:
    """A log without its beginning: a checkpoint at 3, and of the commits before it only the last two."""
    _plain(table)
    deltalake.DeltaTable(str(table), version=3).create_checkpoint()
    (table / "_delta_log" / f"{0:020}.json").unlink()


def _copied(table: Path) -> None:
    """Copied by hand: every file has one new time, though the commits were apart."""
    origin = table.with_name(f"{table.name}-origin")
    _plain(origin)
    shutil.copytree(origin, table, copy_function=shutil.copyfile)


DELTA_RS: dict[str, Callable[[Path], None]] = {
    "plain": _plain,
    "applications": _applications,
    "constraints": _constraints,
    "evolved": _evolved,
    "cleaned_up": _cleaned_up,
    "copied": _copied,
}
"""What delta-rs makes, by name."""
