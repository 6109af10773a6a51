"""The embedded lake: no server, no daemon, several processes, threads and forks, and kills at any time."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import deltalake
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb import Lake
from deltalakedb.database import open_database
from tests.integration.embedded_client import TABLES

ROWS = pa.table({"id": [1, 2, 3]})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "my lake"


def client(directory: Path, number: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.embedded_client", str(directory), str(number), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def keys(lake: Lake, table: str) -> list[str]:
    return sorted(str(key) for key in lake.table(table).to_arrow(columns=["key"])["key"].to_pylist())


def test_a_directory_is_a_lake(directory: Path) -> None:
    """The first connection makes the lake; the next one finds what is in it; tables are readable by path at once."""
    with deltalakedb.connect(directory) as lake:
        lake.append("orders", ROWS)
        location = lake.table("orders").location

    assert {"lake.db", "log.db", "tables"} <= {path.name for path in directory.iterdir()}
    assert unquote(urlsplit(location).path) == str(directory / "tables" / "orders")
    assert deltalake.DeltaTable(location).to_pyarrow_table().num_rows == 3
    with deltalakedb.connect(directory) as again:
        assert again.tables() == ["orders"]
        assert again.table("orders").to_arrow().to_pylist() == ROWS.to_pylist()


def test_default_lake_says_where_it_is(tmp_path: Path) -> None:
    """Without any argument the lake is `./lake`, and its absolute path is said once; a chosen one is not."""
    code = "import deltalakedb as d, sys\nfor _ in range(2):\n    d.connect(*sys.argv[1:]).close()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DELTALAKEDB_")}

    def said(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.stdout == ""
        return ran.stderr

    assert said() == f"deltalakedb: the lake is {tmp_path / 'lake'}\n"
    assert said("./lake") == ""


def test_reading_needs_no_mirror(directory: Path) -> None:
    """With the mirror off nothing is published by path, and everything is read; `sync` says what is missing."""
    with deltalakedb.connect(directory, mirror="off") as lake:
        lake.append("orders", ROWS)

        assert not list(directory.rglob("_delta_log"))
        assert lake.table("orders").to_arrow().num_rows == 3
        with pytest.raises(
            deltalakedb.TxnLogTimeoutError, match=r"table 'orders' is at version 0 .* Is a mirror running"
        ):
            lake.sync(timeout=0.1)
    with deltalakedb.connect(directory) as lake:
        lake.sync(timeout=30)
        assert deltalake.DeltaTable(lake.table("orders").location).version() == 0


def test_several_processes(directory: Path) -> None:
    """Processes that commit to the same tables at once all get through; every transaction is in both tables."""
    clients = [client(directory, number, 15) for number in range(4)]
    acknowledged = [key for process in clients for key in process.communicate(timeout=100)[0].split()]

    assert [process.returncode for process in clients] == [0] * 4
    assert len(acknowledged) == 60
    with deltalakedb.connect(directory) as lake:
        assert [keys(lake, table) for table in TABLES] == [sorted(acknowledged)] * 2
        assert [lake.version(table) for table in TABLES] == [59, 59]
        lake.sync(timeout=30)
        for table in TABLES:
            by_path = deltalake.DeltaTable(lake.table(table).location).to_pyarrow_table(columns=["key"])
            assert sorted(map(str, by_path["key"].to_pylist())) == sorted(acknowledged)


def test_killed_clients_leave_nothing_half_done(directory: Path) -> None:
    """Clients that are killed at any moment hold nobody up: what they were told is there, in both tables or neither."""
    told: list[str] = []
    steady = client(directory, 99, 40)
    for number in range(4):
        victim = client(directory, number, 1_000)
        assert victim.stdout is not None
        told += [victim.stdout.readline().strip() for _ in range(3)]
        time.sleep(0.02 * number)
        victim.send_signal(signal.SIGKILL)
        told += [line.strip() for line in victim.stdout.readlines() if line.endswith("\n")]
        victim.wait(30)
        victim.stdout.close()
    told += steady.communicate(timeout=100)[0].split()

    assert steady.returncode == 0
    with deltalakedb.connect(directory) as lake:
        left, right = (keys(lake, table) for table in TABLES)
        assert left == right
        assert len(set(left)) == len(left)
        assert set(told) <= set(left)
        lake.sync(timeout=30)


def test_who_finds_nothing_takes_nothing_over(directory: Path) -> None:
    """A client whose transaction another one has decided and published reads that, and writes nothing to SQL."""

    def written() -> list[tuple[object, ...]]:
        with closing(open_database(one.settings.address)) as database:
            return database.query("SELECT epoch, position FROM dl_committer_position") + database.query(
                "SELECT updated_ms FROM dl_mirror_status"
            )

    with deltalakedb.connect(directory) as one, deltalakedb.connect(directory) as two:
        two.append("orders", ROWS)
        one.append("orders", ROWS)
        before = written()
        session = two._open_session()
        mirror = session.mirror()
        assert session.committer is not None
        assert mirror is not None
        stepped = session.committer.try_step(10), mirror.try_step()
        after = written()
        two.append("orders", ROWS)

        assert stepped == (0, False)
        assert after == before
        assert one.table("orders").to_arrow().num_rows == 9


def test_many_threads(directory: Path) -> None:
    """One lake object serves many threads; versions have no gap."""
    versions: list[int] = []

    def work() -> None:
        versions.extend(lake.append("orders", ROWS).versions["orders"] for _ in range(10))

    with deltalakedb.connect(directory) as lake:
        lake.create_table("orders", ROWS.schema)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert sorted(versions) == list(range(1, 81))
        assert lake.table("orders").to_arrow().num_rows == 240


def test_fork(directory: Path) -> None:
    """A lake object works in a forked child and goes on working in its parent."""
    with deltalakedb.connect(directory) as lake:
        lake.append("orders", ROWS)
        child = os.fork()
        if child == 0:
            try:
                lake.append("orders", ROWS)
                os._exit(0 if lake.table("orders").to_arrow().num_rows == 6 else 1)
            except BaseException:
                os._exit(2)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        lake.append("orders", ROWS)
        assert lake.table("orders").to_arrow().num_rows == 9


def test_pickle(directory: Path) -> None:
    """A pickled lake object is its settings: it opens the same lake by itself."""
    with deltalakedb.connect(directory) as lake:
        lake.append("orders", ROWS)
        with pickle.loads(pickle.dumps(lake)) as copy:
            assert copy.lake_id == lake.lake_id
            assert copy.tables() == ["orders"]


def test_closed(directory: Path) -> None:
    """A closed lake object says so; closing twice is fine."""
    lake = deltalakedb.connect(directory)
    lake.close()
    lake.close()

    assert "closed" in repr(lake)
    with pytest.raises(deltalakedb.TxnLogConfigError, match="connect again"):
        lake.begin()


def test_dropped_without_closing(directory: Path) -> None:
    """What is read outlives the lake object that it came from."""
    deltalakedb.connect(directory).append("orders", ROWS)
    table = deltalakedb.connect(directory).table("orders")

    assert table.to_arrow().num_rows == 3


def test_log_that_is_gone(directory: Path) -> None:
    """A lake whose log file is missing does not go on as if nothing had been: it halts by name."""
    with deltalakedb.connect(directory) as lake:
        lake.append("orders", ROWS)
    for file in directory.glob("log.db*"):
        file.unlink()

    with pytest.raises(deltalakedb.TxnLogHaltedError) as caught:
        deltalakedb.connect(directory)
    assert caught.value.state == "LOG_MISSING"


def test_what_another_process_published_is_decided(directory: Path) -> None:
    """A transaction whose client died right after publishing is decided by whoever connects next."""
    with deltalakedb.connect(directory, mirror="off") as lake:
        lake.create_table("orders", ROWS.schema)
        session = lake._open_session()
        assert session.committer is not None
        session.committer.close()  # nobody decides any more
        tx = lake.begin(timeout=0.2)
        tx.stage_table("orders", ROWS)
        with pytest.raises(deltalakedb.TxnLogOutcomeUnknownError):
            tx.commit()

    with deltalakedb.connect(directory) as lake:
        outcome = lake.outcome(tx.txn_id)
        assert outcome is not None
        assert outcome.committed is not None
        assert lake.table("orders").to_arrow().num_rows == 3


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("deltasql://duckdb/:memory:", "outlive"),
        ("deltasql://duckdb/:memory:?table=t", "outlive"),
        ("s3://bucket/orders", "not available yet"),
        ("file:///data/orders", "not available yet"),
    ],
)
def test_not_available_yet(uri: str, part: str) -> None:
    """What cannot be opened in this release says so by name."""
    with pytest.raises(deltalakedb.TxnLogConfigError, match=part):
        deltalakedb.open(uri)
    with pytest.raises(deltalakedb.TxnLogConfigError):
        deltalakedb.connect(uri.split("?")[0])


@pytest.mark.parametrize("engine", ["sqlite", "duckdb"])
def test_store_that_is_not_there(tmp_path: Path, engine: str) -> None:
    """A store named by a URI is never made by the way: `migrate` makes it."""
    with pytest.raises(deltalakedb.TxnLogConfigError):
        deltalakedb.connect(f"deltasql://{engine}/{tmp_path}/none.db")

    assert list(tmp_path.glob("none.db")) == []
