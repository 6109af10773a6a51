"""The demo as users run it: a process of its own, on an embedded lake, with everything it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import deltalake
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

import deltalakedb
from tests.fix_s3 import S3Bucket
from tests.processes import Service

pytestmark = pytest.mark.timeout(120)
SMALL = ("--scale", "0.002", "--transactions", "40", "--output", "json")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "deltalakedb", "demo", *arguments]


def demo(*arguments: str, code: int = 0, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the demo to its end; the JSON object that is the last line of its output."""
    ended = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert ended.returncode == code, ended.stderr + ended.stdout
    found = json.loads(ended.stdout.splitlines()[-1]) if ended.stdout else {}
    assert isinstance(found, dict)
    return found


def test_tpch(tmp_path: Path) -> None:
    """Every transaction is accounted for, all checks of both readers pass, and the lake is what the report says."""
    report = demo("--lake", str(tmp_path / "lake"), *SMALL)

    assert report["ok"]
    assert all(check["ok"] and check["seen"] for check in report["checks"])
    assert {check["reader"] for check in report["checks"]} == {"duckdb", "delta-rs", "deltalakedb"}
    assert report["transactions"] == 1 + report["inserts"] + report["removes"] == report["commit_seq"]
    assert report["inserts"] == 30
    assert report["removes"] + sum(report["rejected"].values()) <= 10
    with deltalakedb.connect(tmp_path / "lake") as lake:
        assert lake.snapshot().commit_seq == report["commit_seq"]
        assert {name: lake.table(name).location for name in lake.tables()} == report["tables"]
    for name, location in report["tables"].items():
        assert deltalake.DeltaTable(location).version() == report["versions"][name]


def test_own_data(tmp_path: Path) -> None:
    """Parquet and CSV files and folders become tables, in as many transactions as batches; both readers find the rows
    of the input, and a table shorter than the batches gets rows in some transactions only. They lie in a namespace."""
    data = tmp_path / "data"
    (data / "parts").mkdir(parents=True)
    numbers = pa.table(
        {"n": pa.array(range(1000), pa.uint32()), "s": [f"é{n}" if n % 7 else None for n in range(1000)]}
    )
    pyarrow.parquet.write_table(numbers, data / "numbers.parquet")
    pyarrow.csv.write_csv(pa.table({"day": ["2024-02-29", "2025-01-01"], "price": [1.5, None]}), data / "prices.csv")
    pyarrow.parquet.write_table(numbers.slice(0, 30), data / "parts" / "a.parquet")
    pyarrow.parquet.write_table(numbers.slice(30, 31), data / "parts" / "b.parquet")

    lake = str(tmp_path / "lake")
    report = demo(
        "--lake",
        lake,
        "--data",
        str(data),
        "--batches",
        "8",
        "--clients",
        "2",
        "--namespace",
        "own",
        "--output",
        "json",
    )

    assert report["ok"]
    assert report["transactions"] == report["inserts"] == report["commit_seq"] == 8
    assert report["rejected"] == {}
    assert {(check["reader"], check["seen"]) for check in report["checks"]} == {
        (reader, rows) for reader in ("duckdb", "delta-rs") for rows in (1000, 2, 61)
    }
    assert report["versions"] == {"own.numbers": 7, "own.parts": 7, "own.prices": 1}
    prices = deltalake.DeltaTable(report["tables"]["own.prices"]).to_pyarrow_table()
    assert sorted(map(str, prices["day"].to_pylist())) == ["2024-02-29", "2025-01-01"]


def test_services_that_run_already(tmp_path: Path) -> None:
    """With `--no-services` the demo starts no committer and no mirror, and is served by those that run. On a lake that
    has its tables already it refuses to add to them."""
    store = str(tmp_path / "lake")
    deltalakedb.connect(store).close()
    environment = {"DELTALAKEDB_STORE": store}
    committer = Service("committer", "run", environment=environment, log=tmp_path / "committer")
    mirror = Service("mirror", "run", environment=environment, log=tmp_path / "mirror")
    options = ("--lake", store, "--no-services", "--clients", "1", *SMALL)

    with committer, mirror:
        report = demo(*options)
        demo(*options, code=1)
        stopped = committer.stop(), mirror.stop()

    assert report["ok"]
    assert stopped == (0, 0)


def test_on_real_services(postgres_url: str, kafka_bootstrap: str, kafka_prefix: str, s3_bucket: S3Bucket) -> None:
    """On Kafka, Postgres and S3 it is the very same: both readers find every order whole in the bucket."""
    addresses = {
        "--store": f"{postgres_url}?schema=lake",
        "--log": f"kafka://{kafka_bootstrap}/{kafka_prefix}",
        "--root": s3_bucket.uri("lake"),
    }

    report = demo(*chain(*addresses.items()), "--clients", "2", *SMALL, environment=s3_bucket.environment)

    assert report["ok"]
    assert report["tables"]["orders"] == s3_bucket.uri("lake/orders")
    assert {check["reader"] for check in report["checks"]} == {"duckdb", "delta-rs", "deltalakedb"}


@contextmanager
def under_way(lake: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A demo in the middle of its transactions, and the processes that it has started."""
    with subprocess.Popen(
        command("--lake", str(lake), "--scale", "0.02", "--transactions", "8000", "--clients", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stderr is not None
            assert any(" committed" in line and " 0 committed" not in line for line in running.stderr)
            children = psutil.Process(running.pid).children(recursive=True)
            assert len(children) == 3, "a client, a committer and a mirror"
            yield running, children
        finally:
            running.kill()


def test_stopping_it_stops_everything(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends the demo and every process that it started, and the lake stays whole."""
    with under_way(tmp_path / "lake") as (running, children):
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)

    assert running.returncode == 130
    assert "Traceback" not in said
    assert not psutil.wait_procs(children, timeout=30)[1]
    with deltalakedb.connect(tmp_path / "lake") as lake:
        snapshot = lake.snapshot()
        assert snapshot.table("orders").version == snapshot.table("lineitem").version > 0


def test_killing_it_leaves_nothing_running(tmp_path: Path) -> None:
    """Even when the demo is killed, its committer and mirror do not stay and hold the lake."""
    with under_way(tmp_path / "lake") as (running, children):
        running.kill()

    assert not psutil.wait_procs(children, timeout=60)[1]
