"""The running services tell how they are: ready, standing by, cut off from what they need, halted; and end when told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

import deltalakedb
from tests.http import get
from tests.processes import Service
from tests.services.kafka import Kafka
from tests.services.process import port_of, reserve_port

pytestmark = pytest.mark.timeout(300)


def ready(port: int) -> dict[str, Any]:
    """What `/ready` says of the lake; empty while nobody answers or there is none yet."""
    try:
        status, body = get(port, "/ready")
    except OSError:
        return {}
    service = json.loads(body)
    assert (status == 200) == service["ready"]
    told: dict[str, Any] = service["lakes"][0] if service["lakes"] else {}
    return told


def wait_for(
    port: int, what: Callable[[dict[str, Any]], bool], service: Service, seconds: float = 90
) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not what(told := ready(port)):
        assert time.monotonic() < deadline, f"{told}\n{service.tail()}"
        time.sleep(0.05)
    return told


def metrics(port: int) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(get(port, "/metrics")[1])
    samples = [each for family in families for each in family.samples]
    return {(s.name, *(v for k, v in s.labels.items() if k != "lake")): s.value for s in samples}


def test_services_tell_how_they_are(
    kafka_server: Kafka, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leader, standby and mirror are ready and count what is committed and published; without the broker the leader names
    it and is not ready, and is again when it is back. SIGTERM ends each with 0 within ten seconds, the broker away or not."""
    environment = {
        "DELTALAKEDB_STORE": f"{postgres_url}?schema=lake",
        "DELTALAKEDB_LOG": f"kafka://{kafka_server.bootstrap}/watched",
        "DELTALAKEDB_ROOT": str(tmp_path / "tables"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "-m", "deltalakedb", "migrate"], check=True, timeout=60)
    holders = [reserve_port() for _ in range(3)]
    ports = [port_of(holder) for holder in holders]
    verbs = (("committer", "run"), ("committer", "run"), ("mirror", "run"))
    leader, standby, mirror = (
        Service(*verb, "--listen", f"127.0.0.1:{port}", environment=environment, log=tmp_path / f"log-{port}")
        for verb, port in zip(verbs, ports, strict=True)
    )

    with leader, mirror:
        wait_for(ports[0], lambda told: told.get("ready") is True and told["state"] == "WORKING", leader)
        with standby, deltalakedb.connect() as lake:
            for number in range(5):
                with lake.begin() as tx:
                    tx.stage_table("numbers", pa.table({"number": [number]}))
            lake.sync(timeout=60)
            wait_for(ports[1], lambda told: told.get("ready") is True and told["state"] == "STANDBY", standby)
            wait_for(ports[2], lambda told: told.get("ready") is True, mirror)
            counted, observed, published = (metrics(port) for port in ports)
            assert standby.stop() == 0
        kafka_server.kill()
        cut_off = wait_for(ports[0], lambda told: bool(told) and not told["ready"], leader)
        kafka_server.start()
        wait_for(ports[0], lambda told: told.get("ready") is True, leader)
        kafka_server.kill()
        assert leader.stop() == 0
        assert mirror.stop() == 0

    for holder in holders:
        holder.close()
    assert counted["deltalakedb_decisions_total", "COMMITTED"] == 5
    assert counted["deltalakedb_versions_total",] == 5
    assert counted["deltalakedb_commit_latency_seconds_count",] >= 5
    assert observed["deltalakedb_epoch",] == counted["deltalakedb_epoch",]
    assert published["deltalakedb_mirror_versions_total", "in-place"] == 5
    assert published["deltalakedb_mirror_lag_versions", "in-place"] == 0
    assert cut_off["checks"]["store"] == "ok"
    assert cut_off["checks"]["log"] != "ok" or cut_off["state"] == "PAUSED"


def test_a_halted_service_stays_to_tell_its_state(tmp_path: Path) -> None:
    """With the log of another lake in its place the committer halts, says which state it is, and ends with 4 when told."""
    for name in ("lake", "other"):
        with deltalakedb.connect(tmp_path / name) as lake, lake.begin() as tx:
            tx.stage_table("numbers", pa.table({"number": [1]}))
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / "lake" / f"log.db{suffix}").unlink(missing_ok=True)
        if (there := tmp_path / "other" / f"log.db{suffix}").exists():
            there.rename(tmp_path / "lake" / f"log.db{suffix}")
    holder = reserve_port()
    listen = ("--listen", f"127.0.0.1:{port_of(holder)}", "--store", str(tmp_path / "lake"))

    with Service("committer", "run", *listen, environment={}, log=tmp_path / "log") as service:
        told = wait_for(port_of(holder), lambda told: told.get("state") == "HALTED", service)
        alive, _ = get(port_of(holder), "/health")
        code = service.stop()

    holder.close()
    assert (told["halted"], told["ready"], alive, code) == ("LOG_RECREATED", False, 200, 4)
