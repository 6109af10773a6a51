"""Transactions that share a commit, from clients to readers by path: embedded, and on servers that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import deltalake
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb import Lake, Result, Transaction
from deltalakedb.database import open_database
from deltalakedb.eventlog import Stream, open_event_log
from deltalakedb.eventlog.sqlite import SqliteEventLog
from deltalakedb.settings import load_settings
from deltalakedb_committer.lake import lock_file
from tests.pipeline import Pipeline, on_servers
from tests.processes import Service
from tests.services.run import Addresses

TABLES = ("orders", "items")
KILLS = 4
BURST = 60


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


def begun(lake: Lake, number: int, tables: Sequence[str] = TABLES) -> Transaction:
    tx = lake.begin()
    for name in tables:
        tx.stage_table(name, rows(number))
    return tx


def verb(store: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deltalakedb", *arguments, "--store", store]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def ids(location: str) -> list[int]:
    """As delta-rs reads them by path."""
    found = deltalake.DeltaTable(location).to_pyarrow_table()["id"]
    return sorted(number.as_py() for number in found)


def commit_infos(location: str) -> list[dict[str, object]]:
    log = Path(unquote(urlsplit(location).path)) / "_delta_log"
    return [json.loads(file.read_text().splitlines()[0])["commitInfo"] for file in sorted(log.glob("*.json"))]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """An embedded one with two tables and a window of 200 ms. For its log no time passes, however busy the machine is."""
    now = time.time_ns()
    monkeypatch.setattr(SqliteEventLog.__init__, "__kwdefaults__", {"clock": lambda: now})
    with deltalakedb.connect(tmp_path / "lake") as lake:
        for name in TABLES:
            lake.create_table(name, rows().schema)
        changed = verb(str(tmp_path / "lake"), "rules", "--fold-window-ms", "200", "--output", "json")
        assert changed.returncode == 0, changed.stderr
        told = json.loads(changed.stdout)
        assert (told["rule_set"], told["max_tables"], told["fold_window_ms"]) == (7, 10, 200)
        assert (told["max_open_per_client"], told["max_open"]) == (256, 10_000)
        yield lake


def together(lake: Lake, tmp_path: Path, *tables: Sequence[str]) -> list[tuple[Transaction, Result]]:
    """Transactions that are all on the log before anybody decides."""
    lock = lock_file(load_settings(store=str(tmp_path / "lake")))
    assert lock is not None
    while not lock.try_acquire():
        time.sleep(0.01)
    try:
        with closing(open_event_log(f"sqlite://{tmp_path / 'lake' / 'log.db'}")) as log:
            before = log.end(Stream.STAGED)
            transactions = [begun(lake, number, names) for number, names in enumerate(tables, 1)]
            sent = [(tx, tx.commit_async()) for tx in transactions]
            while log.end(Stream.STAGED) < before + len(tables):
                time.sleep(0.01)
    finally:
        lock.release()
    return [(tx, future.result(60)) for tx, future in sent]


def test_versions_are_shared_and_read_by_path(lake: Lake, tmp_path: Path) -> None:
    """Every transaction has the same commit and its own tables' versions; the log's commitInfo names all of them."""
    first, second, third = together(lake, tmp_path, TABLES, ["orders"], TABLES)

    assert [result.versions for _, result in (first, second, third)] == [
        {"orders": 1, "items": 1},
        {"orders": 1},
        {"orders": 1, "items": 1},
    ]
    assert len({(result.commit_seq, result.timestamp) for _, result in (first, second, third)}) == 1
    assert ids(lake.table("orders").location) == [1, 2, 3]
    assert lake.table("orders").to_arrow().num_rows == 3
    assert ids(lake.table("items").location) == [1, 3]
    info = commit_infos(lake.table("orders").location)[-1]
    assert (info["txnId"], info["isBlindAppend"]) == (first[0].txn_id, True)
    tags = {
        "commit_seq": str(first[1].commit_seq),
        "folded": ",".join(f"{tx.txn_id}:1" for tx, _ in (first, second, third)),
    }
    assert info["tags"] == tags
    assert lake.outcome(third[0].txn_id).committed is not None  # type: ignore[union-attr]


def test_one_of_them_is_undone(lake: Lake, tmp_path: Path) -> None:
    """Its rows go, in all its tables, and what the others did in the same versions stays."""
    first, second, _ = together(lake, tmp_path, TABLES, TABLES, TABLES)

    lake.undo(second[0].txn_id)
    assert ids(lake.table("orders").location) == ids(lake.table("items").location) == [1, 3]
    with pytest.raises(deltalakedb.TxnLogUndoError):
        lake.undo(second[0].txn_id)
    lake.undo(first[0].txn_id)
    assert ids(lake.table("items").location) == [3]


def test_a_lone_client_of_an_embedded_lake_waits_for_nobody(lake: Lake) -> None:
    """Whoever decides is who waits: nothing else can come, so the window is not waited for."""
    lake.append("orders", rows(0))
    took = []
    for number in range(20):
        began = time.monotonic()
        lake.append("orders", rows(number))
        took.append(time.monotonic() - began)

    assert min(took) < 0.2
    assert lake.version("orders") == 21


def test_rules_are_shown_and_refused(lake: Lake, tmp_path: Path) -> None:
    """What is not given stays; a rule set that there is not is named with those that there are."""
    store = str(tmp_path / "lake")
    shown, changed, refused = (
        verb(store, "rules", *options) for options in ([], ["--max-tables", "100"], ["--fold-window-ms", "30"])
    )

    assert "200 ms" in shown.stdout
    assert "rule set         8" in changed.stdout
    assert refused.returncode == 1
    assert "0, 20, 50, 200" in refused.stderr


@pytest.fixture
def pipeline(servers: Addresses, tmp_path: Path) -> Iterator[Pipeline]:
    """On Kafka and Postgres; a committer that is killed is followed soon."""
    pipeline = on_servers(servers, tmp_path)
    environment = pipeline.address.environment
    pipeline.committer = Service(
        "committer", "run", "--takeover-after", "0.5", environment=environment, log=tmp_path / "committer.log"
    )
    with pipeline:
        yield pipeline


@pytest.mark.timeout(300)
def test_a_committer_killed_within_folds(pipeline: Pipeline) -> None:
    """While appends keep coming a window is always open. Killed in it and started again, nothing is lost, nothing twice,
    every version by path is a whole fold, and a replay finds every row."""
    store = pipeline.address.store
    assert verb(store, "rules", "--fold-window-ms", "200").returncode == 0
    with pipeline.address.connect() as lake:
        for name in TABLES:
            lake.create_table(name, rows().schema)
        sent: list[tuple[Transaction, Future[Result]]] = []
        for kill in range(KILLS):
            transactions = [begun(lake, len(sent) + n) for n in range(BURST)]
            sent += [(tx, tx.commit_async()) for tx in transactions[:-1]]
            sent[kill * BURST][1].result(60)
            # The last one begins another fold, which is open for its window.
            sent.append((transactions[-1], transactions[-1].commit_async()))
            pipeline.committer.kill()
            pipeline.committer.start()
        results = [future.result(120) for _, future in sent]
        lake.sync(timeout=60)
        locations = [lake.table(name).location for name in TABLES]

    database = open_database(load_settings(store=store).address)
    try:
        commits = {seq: json.loads(txns) for seq, txns in database.query("SELECT commit_seq, txn_ids FROM dl_commits")}
    finally:
        database.close()
    for (tx, _), result in zip(sent, results, strict=True):
        assert tx.txn_id in commits[result.commit_seq]
        assert set(result.versions) == set(TABLES)
    assert max(map(len, commits.values())) > 2
    for location in locations:
        assert ids(location) == list(range(len(sent)))
        infos = commit_infos(location)
        assert len(infos) == 1 + len({result.commit_seq for result in results})
    replayed = verb(store, "replay")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
