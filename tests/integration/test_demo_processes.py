"""The demo's child processes: none of them can fail, or disappear, without the demo failing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb.demo.batches import cut
from deltalakedb.demo.plan import Insert, Job
from deltalakedb.demo.processes import Clients, Services
from deltalakedb.errors import TxnLogError

BATCHES = 3


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of processes that work on an embedded lake which decides in its clients."""
    return {**os.environ, "DELTALAKEDB_STORE": str(tmp_path / "lake")}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Insert a few batches of one row."""
    rows = pa.table({"n": list(range(BATCHES))})
    cut(tmp_path / "batches", "t", rows.schema, rows.to_batches(), [1] * BATCHES)
    steps = [Insert(batch) for batch in range(BATCHES)]
    return Job(client=0, folder=str(tmp_path / "batches"), tables={"t": "t"}, steps=list(steps))


@pytest.fixture
def others() -> list[psutil.Process]:
    """Processes that are no demo's: other tests of this run may have left theirs for the tests after them."""
    return psutil.Process().children()


def children(others: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in others]


def test_clients_tell_every_step(
    environment: dict[str, str], job: Job, tmp_path: Path, others: list[psutil.Process]
) -> None:
    """Each step is told once with its commit, and afterwards no process is left."""
    with Clients(environment, 1) as clients:
        done = [told for told in clients.do([job], 0.1) if told is not None]

    assert [(step.batch, step.status, step.commit_seq) for step in done] == [
        (n, "committed", n + 1) for n in range(BATCHES)
    ]
    assert children(others) == []
    with deltalakedb.connect(tmp_path / "lake") as lake:
        assert set(lake.table("t").to_arrow()["n"].to_pylist()) == set(range(BATCHES))


def test_a_client_that_cannot_go_on_fails_the_demo(
    environment: dict[str, str], job: Job, tmp_path: Path, others: list[psutil.Process]
) -> None:
    """What a client says before it gives up is what the demo says."""
    (tmp_path / "lake").write_text("a file where a lake should be")

    with Clients(environment, 1) as clients, pytest.raises(TxnLogError, match="is a file"):
        list(clients.do([job], 0.1))

    assert children(others) == []


def test_a_client_that_dies_fails_the_demo(environment: dict[str, str], job: Job, others: list[psutil.Process]) -> None:
    """A client that is killed is missed, though it said nothing."""
    with Clients(environment, 1) as clients:
        (process,) = children(others)
        process.kill()
        with pytest.raises(TxnLogError, match="client 0"):
            list(clients.do([job], 0.1))

    assert children(others) == []


def test_a_service_that_ends_fails_the_demo(
    environment: dict[str, str], tmp_path: Path, others: list[psutil.Process]
) -> None:
    """A committer without a lake ends by itself; the error has its exit code and the end of its log."""
    with Services(environment, tmp_path) as services:
        committer = next(child for child in children(others) if "committer" in child.cmdline())
        psutil.wait_procs([committer], timeout=30)
        with pytest.raises(TxnLogError) as caught:
            services.check()

    assert "ended with exit code" in str(caught.value)
    assert "its log ends with" in str(caught.value)
    assert children(others) == []
