"""The stack of compose.yaml under faults: everything is killed or cut off once, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import deltalakedb
from deltalakedb.settings import load_settings
from tests.containers import canary, engine
from tests.containers.stack import SMALL_DEMO, UP_SECONDS, Stack
from tests.integration.pipeline_client import PATIENCE, TABLES
from tests.integration.test_pipeline import read_by_everybody
from tests.services import duck
from tests.services import spark as local_spark
from tests.services.s3 import S3Address

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]

CLIENTS = 2
IN_FLIGHT = 4
STANDBY_SECONDS = 60.0
"""Within this a standby must have committed again; it takes about four seconds on a machine of one's own."""

NEXT = Path(__file__).parent / "next.yaml"
NEXT_MIGRATION = "-- Runs with: 0001_lake\nCREATE TABLE dl_next (a INTEGER);\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack("deltalakedb-faults", tmp_path_factory.mktemp("stack"), "compose.yaml") as stack:
        yield stack


def test_the_demo_finds_every_order_whole(stack: Stack) -> None:
    """Outside, with what the stack prints for a producer and nothing else, beside the services that run."""
    report = json.loads(stack.program("demo", "--no-services", *SMALL_DEMO).splitlines()[-1])

    assert report["ok"]
    assert {check["reader"] for check in report["checks"]} == {"duckdb", "delta-rs", "deltalakedb"}
    assert all(check["ok"] and check["seen"] for check in report["checks"])


def test_containers_have_no_more_than_they_need(stack: Stack) -> None:
    """Bounded memory and ports on loopback, all of them; what has to last in volumes with a name; services as a user that
    is nobody, without rights of the kernel's or anything to write to, the program itself as process 1."""
    for service in stack.compose("ps", "--services").split():
        host = stack.inspect(service)["HostConfig"]
        assert host["Memory"] > 0, service
        assert {binding["HostIp"] for of in host["PortBindings"].values() for binding in of} == {"127.0.0.1"}, service
    for service in ("kafka", "postgres", "s3"):
        volumes = [mount["Name"] for mount in stack.inspect(service)["Mounts"] if mount["Type"] == "volume"]
        assert f"{stack.name}_{service}" in volumes
    for service in ("committer", "standby", "mirror"):
        found = stack.inspect(service)
        host = found["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert (found["Config"]["User"], found["Path"]) == ("10001:10001", "deltalakedb")
        assert found["State"]["Health"]["Status"] == "healthy"


def test_an_upgrade_service_after_service(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next release migrates the store; services of this one go on and come back on its result, and so do clients. They
    are replaced one after the other, while every transaction that is under way then is answered: committed."""
    for name, value in stack.settings().items():
        monkeypatch.setenv(name, value)
    migration = tmp_path / "0002_next.sql"
    migration.write_text(NEXT_MIGRATION)
    stack.goes_on_with(NEXT, NEXT_MIGRATION=str(migration))
    keys: list[str] = []

    def during(what: str, step: Callable[[], object]) -> None:
        """A transaction begun before a step, one while it goes on and one by a client that comes after it."""
        with deltalakedb.connect() as lake:
            before = append(lake, f"before {what}")
            step()
            after = append(lake, f"after {what}")
            assert before.result(PATIENCE).versions.keys() == after.result(PATIENCE).versions.keys() == {"upgraded"}

    def append(lake: deltalakedb.Lake, key: str) -> Future[deltalakedb.Result]:
        keys.append(key)
        tx = lake.begin(timeout=PATIENCE)
        tx.stage_table("upgraded", pa.table({"key": [key]}))
        return tx.commit_async()

    def replace(service: str) -> Callable[[], object]:
        waiting = ("--wait", "--wait-timeout", str(UP_SECONDS), "--pull", "never", "--no-build")
        return lambda: stack.compose("up", "--no-deps", *waiting, service)

    during("the migration", lambda: stack.compose("run", "--rm", "--no-deps", "-T", "migrate"))
    for service in ("committer", "standby", "mirror"):
        during(
            f"{service} of this release is started again", partial(engine.docker, "restart", stack.container(service))
        )
    leader = stack.leader()
    follower = "standby" if leader == "committer" else "committer"
    for service in (follower, leader, "mirror"):
        during(f"{service} is replaced", replace(service))
    with psycopg.connect(stack.store("owner")) as owner:
        applied = [name for (name,) in owner.execute("SELECT name FROM lake.dl_migrations ORDER BY name")]
    mounted = [mount["Destination"] for mount in stack.inspect(leader)["Mounts"]]
    with deltalakedb.connect() as lake:
        lake.sync(timeout=240)
        table = lake.snapshot().table("upgraded")
        rows = table.to_arrow()["key"].to_pylist()
        options = lake.settings.storage.deltalake()
        published = DeltaTable(table.location, storage_options=options).to_pyarrow_table()["key"].to_pylist()

    assert applied == ["0001_lake", "0002_next"]
    assert any(name.endswith("0002_next.sql") for name in mounted)
    for read in (rows, published):
        assert Counter(read) == Counter(keys)


def test_everything_is_killed_once_and_read_by_spark_too(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With transactions in flight the leader, the mirror, the broker and the database are killed and the leader is cut off
    the network; a standby takes over, each transaction is in both tables or in neither and answered once, all readers
    return the same rows, SIGTERM ends the services with 0, before anybody loses patience, and no secret is in any log."""
    for name, value in stack.settings().items():
        monkeypatch.setenv(name, value)
    stop_file = tmp_path / "stop"
    ledgers = [tmp_path / f"client-{number}.jsonl" for number in range(CLIENTS)]

    def committed() -> int:
        return sum(ledger.read_text().count('"committed"') for ledger in ledgers if ledger.exists())

    def progress(what: str, more: int = 10, seconds: float = 120.0) -> float:
        """Seconds until so many more transactions have been committed."""
        began, before = time.monotonic(), committed()
        while committed() < before + more:
            assert time.monotonic() - began < seconds, f"nothing is committed after {what}"
            time.sleep(0.02)
        return time.monotonic() - began

    with ExitStack() as ending:
        clients = []
        for number, ledger in enumerate(ledgers):
            words = [str(number), str(IN_FLIGHT), str(stop_file), str(ledger)]
            client = subprocess.Popen([sys.executable, "-m", "tests.integration.pipeline_client", *words])
            ending.callback(client.kill)
            clients.append(client)
        progress("the start", more=50)
        stack.kill(stack.leader())
        taken_over = progress("the leader was killed", more=2 * IN_FLIGHT * CLIENTS, seconds=STANDBY_SECONDS)
        stack.kill("mirror")
        progress("the mirror was killed")
        stack.kill("kafka")
        progress("the broker was killed")
        stack.kill("postgres")
        progress("the database was killed")
        leader = stack.leader()
        stack.cut(leader)
        progress("the leader was cut off")
        stack.heal(leader)
        progress("all is healed", more=50)
        stop_file.touch()
        for client in clients:
            assert client.wait(PATIENCE) == 0, "a client saw an error"

    with capsys.disabled():
        sys.stdout.write(f"\na standby commits again {taken_over:.1f} s after the leader was killed\n")
    with deltalakedb.connect() as lake:
        lake.sync(timeout=240)
        read = everybody(lake, stack, tmp_path)
    answers = [json.loads(line) for ledger in ledgers for line in ledger.read_text().splitlines()]
    begun = {answer["begun"] for answer in answers if "begun" in answer}
    expected = {answer["committed"] for answer in answers if "committed" in answer}
    assert begun == expected, "every transaction begun was answered: committed"
    assert {name: (len(rows), set(rows)) for name, rows in read.items()} == {
        name: (len(expected), expected) for name in read
    }
    assert len(read) == 5 * len(TABLES)
    passwords = canary.secrets(stack)
    told = canary.shown(stack)
    assert [(where, name) for where in told for name in passwords if passwords[name] in told[where]] == [
        canary.UNAVOIDABLE
    ]
    stopped = {service: stack.stop(service) for service in ("committer", "standby", "mirror")}
    assert {service: code for service, (code, _) in stopped.items()} == dict.fromkeys(stopped, 0)
    with capsys.disabled():
        sys.stdout.write(f"services end in {max(seconds for _, seconds in stopped.values()):.1f} s\n")


def everybody(lake: deltalakedb.Lake, stack: Stack, folder: Path) -> dict[str, list[str | None]]:
    """Keys of all tables as SQL and every reader by path see them, the readers with rights to read only."""
    address = S3Address(
        endpoint=f"http://127.0.0.1:{stack.port('S3_PORT')}", access_key="reader", secret_key=stack.secret("s3-reader")
    )
    options = {
        "AWS_ACCESS_KEY_ID": address.access_key,
        "AWS_SECRET_ACCESS_KEY": address.secret_key,
        "AWS_ENDPOINT_URL": address.endpoint,
        "AWS_REGION": address.region,
        "AWS_ALLOW_HTTP": "true",
    }
    with duck.connect("delta", "httpfs") as connection, closing(_Session(folder / "spark", address)) as spark:
        connection.execute(load_settings(storage_options=options).storage.duckdb())
        return read_by_everybody(lake, options, spark.session, connection)


class _Session:
    def __init__(self, folder: Path, address: S3Address) -> None:
        folder.mkdir()
        self.session = local_spark.session(folder, address)

    def close(self) -> None:
        self.session.stop()
