"""An embedded lake whose store is DuckDB: one process with many threads; every other process is refused by name."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import deltalakedb
from deltalakedb import Lake
from deltalakedb.program import app
from deltalakedb.settings import load_settings
from deltalakedb_committer.lake import make_lake
from tests.integration.embedded_client import TABLES

ROWS = pa.table({"id": [1, 2, 3]})


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A lake that nobody has open: store, log and tables in one folder."""
    folder = tmp_path / "my lake"
    folder.mkdir()
    uri = f"deltasql://duckdb/{folder}/lake.duckdb"
    make_lake(load_settings(store=uri, log=f"sqlite://{folder}/log.db", root=str(folder / "tables")))
    return uri


def told(*verb: str) -> str:
    """What a verb of the program says, run in this process."""
    result = CliRunner().invoke(app, verb)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*modules: Sequence[str]) -> list[str]:
    """What processes say on stderr that all fail; they run beside each other."""
    processes = [
        subprocess.Popen([sys.executable, "-m", *module], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for module in modules
    ]
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [1] * len(modules)
    return said


def keys(lake: Lake, table: str) -> list[str]:
    return sorted(str(key) for key in lake.table(table).to_arrow(columns=["key"])["key"].to_pylist())


def test_a_lake_from_end_to_end(uri: str) -> None:
    """Commits are decided and mirrored by whoever waits for them; what is closed is there when it is opened again."""
    with deltalakedb.connect(uri) as lake:
        with lake.begin() as tx:
            tx.stage_table("orders", ROWS)
            tx.stage_table("items", ROWS)
        lake.append("orders", ROWS)
        before = lake.snapshot(commit_seq=1)
        location = lake.table("orders").location

        assert tx.result.versions == {"orders": 0, "items": 0}
        assert deltalake.DeltaTable(location).to_pyarrow_table().num_rows == 6
        assert [before.table(name).to_arrow().num_rows for name in ("orders", "items")] == [3, 3]
    with deltalakedb.connect(uri) as again:
        assert again.tables() == ["items", "orders"]
        assert again.table("orders").to_arrow(predicate="id = 2").num_rows == 2
    table = deltalakedb.open(f"{uri}?table=orders")
    assert isinstance(table, deltalakedb.TableSnapshot)
    assert table.version == 1
    del table
    assert len(json.loads(told("tables", "--store", uri, "--output", "json"))) == 2
    assert json.loads(told("info", "--store", uri, "--output", "json"))["commit_seq"] == 2
    assert "orders version 0" in told("outcome", tx.txn_id, "--store", uri)
    assert "SUCCEEDED" in told("mirror", "status", "--store", uri)


def test_threads_share_one_instance(uri: str) -> None:
    """Threads of two lake objects, and readers beside them, all get through; versions have no gap."""
    versions: list[int] = []
    counts: list[int] = []

    def write(lake: Lake) -> None:
        versions.extend(lake.append("orders", ROWS).versions["orders"] for _ in range(5))

    def read(lake: Lake) -> None:
        counts.extend(lake.table("orders").to_arrow().num_rows for _ in range(5))

    with deltalakedb.connect(uri) as one, deltalakedb.connect(uri) as two:
        one.create_table("orders", ROWS.schema)
        works = [(write, one), (write, two), (write, one), (write, two), (read, one), (read, two)]
        threads = [threading.Thread(target=work, args=[lake]) for work, lake in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)

        assert sorted(versions) == list(range(1, 21))
        assert len(counts) == 10
        assert all(count % 3 == 0 for count in counts)
        assert two.table("orders").to_arrow().num_rows == 60


def test_another_process_is_refused(uri: str) -> None:
    """Verbs and clients in another process are told who has the lake and what to do; services do not serve it at all."""
    with deltalakedb.connect(uri) as lake:
        lake.append("orders", ROWS)
        verb, client, *services = refused(
            ["deltalakedb", "info", "--store", uri],
            ["tests.integration.embedded_client", uri, "1", "1"],
            ["deltalakedb", "committer", "run", "--store", uri],
            ["deltalakedb", "mirror", "run", "--store", uri],
        )
        lake.append("orders", ROWS)

    for said in (verb, client):
        assert "TxnLogStoreInUseError" in said
        assert str(os.getpid()) in said
    for said, service in zip(services, ("committer run", "mirror run"), strict=True):
        assert f"{service} cannot serve deltasql://duckdb/" in said


def test_pickle(uri: str) -> None:
    """A pickled lake object opens the same lake again in its own process."""
    with deltalakedb.connect(uri) as lake:
        lake.append("orders", ROWS)
        with pickle.loads(pickle.dumps(lake)) as copy:
            assert copy.lake_id == lake.lake_id
            assert copy.table("orders").to_arrow().num_rows == 3


FORKED = """
import os, signal, sys
import pyarrow as pa
import deltalakedb

rows = pa.table({"id": [1]})
lake = deltalakedb.connect(sys.argv[1])
lake.append("orders", rows)
child = os.fork()
if child == 0:
    try:
        lake.append("orders", rows)
    except deltalakedb.TxnLogStoreInUseError as error:
        assert "forked" in str(error)
        sys.exit(7)
    sys.exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
lake.append("orders", rows)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_leaves_the_store_alone(uri: str) -> None:
    """The child is refused, ends as any process does, and takes nothing of what the parent commits after that."""
    ran = subprocess.run([sys.executable, "-c", FORKED, uri], capture_output=True, text=True, timeout=100)

    assert ran.stdout == "7\n", ran.stderr
    assert ran.returncode == -signal.SIGKILL
    with deltalakedb.connect(uri) as lake:
        assert lake.table("orders").to_arrow().num_rows == 2


@pytest.mark.slow
def test_killed_with_transactions_in_flight(uri: str) -> None:
    """SIGKILL with 32 transactions in flight, again and again: what was told is there, in both tables or in neither."""
    answered: list[str] = []
    for number, seconds in enumerate((0.1, 0.7)):
        victim = client(uri, number)
        assert victim.stdout is not None
        answered.append(victim.stdout.readline().strip())
        time.sleep(seconds)
        victim.send_signal(signal.SIGKILL)
        answered += [line.strip() for line in victim.stdout.readlines() if line.endswith("\n")]
        victim.wait(30)
        victim.stdout.close()
    with deltalakedb.connect(uri) as lake:
        left, right = (keys(lake, table) for table in TABLES)
        lake.sync(timeout=30)
        by_path = [deltalake.DeltaTable(lake.table(table).location).to_pyarrow_table().num_rows for table in TABLES]

    assert left == right
    assert len(set(left)) == len(left)
    assert set(answered) <= set(left)
    assert by_path == [len(left)] * 2


def client(uri: str, number: int) -> subprocess.Popen[str]:
    """A process that commits without end, 32 transactions at a time."""
    command = [sys.executable, "-m", "tests.integration.embedded_client", uri, str(number), "100000", "32"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
