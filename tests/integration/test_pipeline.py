"""The whole pipeline on real Kafka, Postgres and S3, with its services killed while transactions are in flight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import deltalake
import duckdb
import polars
import pytest
from pyspark.sql import SparkSession

import deltalakedb
from tests.fix_s3 import S3Bucket
from tests.integration.pipeline_client import PATIENCE, TABLES
from tests.processes import Service

CLIENTS = 4
IN_FLIGHT = 8
KILLS = 10
AFTERWARDS = 500

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def environment(postgres_url: str, kafka_bootstrap: str, kafka_prefix: str, s3_bucket: S3Bucket) -> dict[str, str]:
    """Settings of a lake on real services, as every process of it gets them."""
    return {
        "DELTALAKEDB_STORE": f"{postgres_url}?schema=lake",
        "DELTALAKEDB_LOG": f"kafka://{kafka_bootstrap}/{kafka_prefix}",
        "DELTALAKEDB_ROOT": s3_bucket.uri("lake"),
        **s3_bucket.environment,
    }


@pytest.fixture
def lake(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[deltalakedb.Lake]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "-m", "deltalakedb", "migrate"], check=True, timeout=60)
    with deltalakedb.connect() as lake:
        yield lake


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


def test_services_killed_under_load_and_read_by_spark_too(
    lake: deltalakedb.Lake,
    environment: dict[str, str],
    s3_bucket: S3Bucket,
    tmp_path: Path,
    spark: SparkSession,
    duckdb_connection: duckdb.DuckDBPyConnection,
    duckdb_s3: Callable[[S3Bucket], None],
) -> None:
    """With 32 two-table transactions in flight while committer and mirror are killed ten times each, every
    transaction is in both tables or in neither, none is answered twice or lost, no client retries, and all readers
    return the same rows. The root is on S3, where transactions share versions."""
    stop_file = tmp_path / "stop"
    ledgers = [tmp_path / f"client-{number}.jsonl" for number in range(CLIENTS)]
    committer = Service(
        "committer", "run", "--takeover-after", "1", environment=environment, log=tmp_path / "committer"
    )
    mirror = Service("mirror", "run", environment=environment, log=tmp_path / "mirror")

    def committed() -> int:
        return sum(ledger.read_text().count('"committed"') for ledger in ledgers if ledger.exists())

    def more_than(count: int) -> bool:
        return committed() > count

    with ExitStack() as stack:
        stack.enter_context(committer)
        stack.enter_context(mirror)
        clients = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.integration.pipeline_client",
                    str(number),
                    str(IN_FLIGHT),
                    stop_file,
                    ledger,
                ]
            )
            for number, ledger in enumerate(ledgers)
        ]
        for client in clients:
            stack.callback(client.kill)
        wait_for(partial(more_than, 50), "the first 50 transactions", 120)
        for _ in range(KILLS):
            for service in (committer, mirror):
                before = committed()
                service.kill()
                service.start()
                wait_for(partial(more_than, before + 10), f"progress after killing {service.verb}", 120)
        quiet = committed()
        wait_for(partial(more_than, quiet + AFTERWARDS), f"{AFTERWARDS} transactions without faults", 240)
        stop_file.touch()
        for client in clients:
            assert client.wait(PATIENCE) == 0, "a client saw an error"
        lake.sync(timeout=240)
        assert committer.stop() == 0
        assert mirror.stop() == 0

    answers = [json.loads(line) for ledger in ledgers for line in ledger.read_text().splitlines()]
    begun = {answer["begun"] for answer in answers if "begun" in answer}
    expected = {answer["committed"] for answer in answers if "committed" in answer}
    assert begun == expected, "every transaction begun was answered: committed"
    duckdb_s3(s3_bucket)
    for name, rows in read_by_everybody(lake, s3_bucket.storage_options, spark, duckdb_connection).items():
        assert len(rows) == len(expected), f"{name}: no row lost, none twice"
        assert set(rows) == expected, name
    for table in TABLES:
        shared = {(answer["seq"], answer["versions"][table]) for answer in answers if "versions" in answer}
        assert sorted(version for _, version in shared) == list(range(len(shared))), "one version for each commit"
    command = [sys.executable, "-m", "deltalakedb", "replay", "--output", "json"]
    replayed = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert replayed.returncode == 0, f"the log decided again gives the same rows: {replayed.stdout}{replayed.stderr}"


def read_by_everybody(
    lake: deltalakedb.Lake,
    storage_options: dict[str, str],
    spark: SparkSession,
    connection: duckdb.DuckDBPyConnection,
) -> dict[str, list[str | None]]:
    """The keys of both tables as SQL and every reader by path return them, by reader and table."""
    found: dict[str, list[str | None]] = {}
    snapshot = lake.snapshot()
    for table in TABLES:
        location = snapshot.table(table).location
        found[f"sql.{table}"] = snapshot.table(table).to_arrow(columns=["key"])["key"].to_pylist()
        rows = connection.execute(f"SELECT key FROM delta_scan('{location}')").fetchall()
        found[f"duckdb.{table}"] = [key for (key,) in rows]
        found[f"polars.{table}"] = (
            polars.scan_delta(location, storage_options=storage_options).collect()["key"].to_list()
        )
        loaded = deltalake.DeltaTable(location, storage_options=storage_options)
        found[f"delta-rs.{table}"] = loaded.to_pyarrow_table(columns=["key"])["key"].to_pylist()
        by_spark = spark.read.format("delta").load(location.replace("s3://", "s3a://")).select("key").collect()
        found[f"spark.{table}"] = [row.key for row in by_spark]
    return found
