"""A client that floods the log is held back by its quota at the broker, and others hardly notice it."""

from __future__ import annotations

import statistics
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pyarrow as pa

import deltalakedb
from deltalakedb.actions import AddFile
from deltalakedb.database import open_database
from deltalakedb.errors import Reason
from deltalakedb.events import Outcome
from tests.hostile import GARBAGE, OPENED, Hostile
from tests.pipeline import on_servers
from tests.services import kafka
from tests.services.run import Addresses

BYTE_RATE = 1_000_000
CLIENTS = 4
SECONDS = 3.0
PATIENCE = 60.0
ONE_ROUND = 1 + OPENED + GARBAGE


def latencies(lake: deltalakedb.Lake, seconds: float) -> list[float]:
    """Seconds of each transaction of clients that send one after the other; all of them are committed."""

    def client() -> list[float]:
        found: list[float] = []
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            file = AddFile(path=f"{uuid.uuid4()}.parquet", partition_values={}, size=1, modification_time=1)
            with lake.begin(timeout=PATIENCE) as tx:
                tx.stage_table("t", actions=[file])
            found.append(time.monotonic() - began)
        return found

    with ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(client) for _ in range(CLIENTS)]
        return sorted(latency for one in clients for latency in one.result())


def test_a_flood_under_a_quota_starves_nobody(servers: Addresses, tmp_path: Path) -> None:
    """It may send so many bytes a second and no more; who sends one transaction after the other goes on committing, about as
    fast as before, and of what it leaves open the lake takes no more than its rule set says."""
    pipeline = on_servers(servers, tmp_path)
    hostile_id = f"hostile-{uuid.uuid4().hex[:8]}"
    assert pipeline.address.log is not None
    kafka.limit(servers.kafka(), hostile_id, producer_byte_rate=BYTE_RATE, request_percentage=20)
    with pipeline, pipeline.address.connect() as lake:
        lake.append("t", pa.table({"id": [1]}))
        latencies(lake, 1.0)
        alone = latencies(lake, SECONDS)
        with Hostile(pipeline.address.log, lake.lake_id, lake.root, hostile_id, tmp_path / "hostile") as hostile:
            deadline = time.monotonic() + PATIENCE
            while not hostile.taken().records:
                assert time.monotonic() < deadline, "the flood does not begin"
                time.sleep(0.1)
            first = hostile.taken()
            # What the broker takes at once before it holds back comes now.
            beside = latencies(lake, SECONDS)
            while (last := hostile.taken()).seconds < first.seconds + SECONDS - 1:
                assert time.monotonic() < deadline, "the flood has ended"
                time.sleep(0.1)
        assert pipeline.committer.running
        database = open_database(pipeline.address.settings.address)
        try:
            rows = database.query("SELECT outcome FROM dl_transactions WHERE NOT committed")
            (left,) = database.query("SELECT count(*) FROM dl_staged_chunks WHERE client_id = ?", [hostile_id])
        finally:
            database.close()
    told = {msgspec.json.decode(outcome, type=Outcome).rejected.reason for (outcome,) in rows}  # type: ignore[union-attr]

    assert last.records >= ONE_ROUND, "there was no flood"
    assert len(beside) >= CLIENTS
    assert statistics.median(beside) < 5 * statistics.median(alone) + 0.2, (alone, beside)
    # The broker averages over ten seconds: what it took at once before counts too.
    assert last.bytes <= BYTE_RATE * (last.seconds + 11) + 4_000_000
    assert left[0] <= 256
    assert Reason.UNDECODABLE_EVENT in told
