"""A transaction of very many actions on real Kafka and Postgres: whole or not at all, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.eventlog import open_event_log
from deltalakedb.settings import load_settings
from deltalakedb_committer.replay import replay
from tests.integration.big_client import PATIENCE
from tests.pipeline import Pipeline, on_servers
from tests.processes import Service
from tests.services.run import Addresses

FILES = 50_000
TABLES = tuple(f"big_{n:03}" for n in range(100))
COMMITTER_BYTES = 180 * 1024**2
"""What the committer's process may have at most: 125 of them are used, and 220 if all actions are held as objects."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def pipeline(servers: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A lake whose transactions may have a hundred tables, which are there; only the committer runs."""
    pipeline = on_servers(servers, tmp_path)
    for name, value in {**pipeline.address.environment, "DELTALAKEDB_MAX_TABLES": str(len(TABLES))}.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        stack.callback(pipeline.__exit__, None, None, None)
        pipeline.start(pipeline.committer)
        subprocess.run([sys.executable, "-m", "deltalakedb", "rules", "--max-tables", "100"], check=True, timeout=120)
        with deltalakedb.connect() as lake, lake.begin(timeout=PATIENCE) as tx:
            for name in TABLES:
                tx.create_table(name, pa.schema([("id", pa.int64())]))
        yield pipeline


@pytest.fixture
def database(pipeline: Pipeline) -> Iterator[Database]:
    """The lake's store, to be looked at."""
    with closing(open_database(load_settings(store=pipeline.address.store).address)) as database:
        yield database


def big_client() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.integration.big_client", str(FILES), *TABLES])


def count(database: Database, what: str) -> int:
    return int(database.query(f"SELECT count(*) FROM {what}")[0][0])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        time.sleep(0.05)


def staged(database: Database, chunks: int) -> bool:
    return count(database, "dl_staged_chunks") >= chunks


def cleared(database: Database) -> bool:
    return count(database, "dl_staged_chunks") == count(database, "dl_staged_files") == 0


def restarted(committer: Service) -> None:
    committer.kill()
    committer.start()


class Others:
    """Small transactions, one after the other, in a thread of their own."""

    def __init__(self) -> None:
        self.committed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with deltalakedb.connect() as lake:
            while not self._stop.is_set():
                with lake.begin(timeout=PATIENCE) as tx:
                    tx.stage_table("small", pa.table({"id": [self.committed]}))
                self.committed += 1

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_client_that_dies_between_chunks_leaves_nothing(pipeline: Pipeline, database: Database) -> None:
    """Others commit at once, nothing of it is visible, and what is staged goes with a cancel."""
    client = big_client()
    wait_for(partial(staged, database, 5), "a part of the transaction")
    client.kill()
    client.wait()
    ((txn_id,),) = database.query("SELECT DISTINCT txn_id FROM dl_staged_chunks")

    with deltalakedb.connect() as lake:
        with lake.begin(timeout=PATIENCE) as tx:
            tx.stage_table(TABLES[0], pa.table({"id": [1]}))
        assert tx.result.versions == {TABLES[0]: 1}
        assert count(database, "dl_live_files") == 1
        lake.cancel(txn_id)
        assert count(database, "dl_live_files") == 1

    wait_for(partial(cleared, database), "that nothing stays staged")


def test_a_committer_that_dies_between_chunks_loses_nothing(
    pipeline: Pipeline, database: Database, tmp_path: Path
) -> None:
    """All of it is committed, once, by whoever comes after; others commit meanwhile; memory stays what it is; the mirror
    publishes every version, and a replay finds the same rows."""
    with Others() as others:
        client = big_client()
        for chunks in (5, 15):
            wait_for(partial(staged, database, chunks), f"{chunks} chunks")
            restarted(pipeline.committer)
        before = others.committed
        assert client.wait(PATIENCE) == 0
        meanwhile = others.committed - before
    peak = _peak(pipeline.committer.pid)
    pipeline.start(pipeline.mirror)
    with deltalakedb.connect() as lake:
        lake.sync(timeout=PATIENCE)

    versions = database.query("SELECT added_files, commit_seq FROM dl_table_versions WHERE added_files > 1")
    assert [added for added, _ in versions] == [FILES // len(TABLES)] * len(TABLES)
    assert len({commit_seq for _, commit_seq in versions}) == 1
    wait_for(partial(cleared, database), "that nothing stays staged")
    assert count(database, "dl_live_files") == FILES + others.committed
    assert meanwhile > 0
    assert peak < COMMITTER_BYTES
    log_file = pipeline.address.tables_folder / TABLES[0] / "_delta_log" / f"{1:020}.json"
    assert log_file.read_text().count('{"add":') == FILES // len(TABLES)
    pipeline.committer.stop()
    into = open_database(StoreAddress(engine="sqlite", path=str(tmp_path / "replayed.db")), create=True)
    assert pipeline.address.log is not None
    with closing(into), closing(open_event_log(pipeline.address.log, client_id="replay")) as log:
        assert replay(database, log, into).equal


def _peak(pid: int) -> int:
    """Bytes of memory that the process had at most."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
