"""The stack with secure.yaml: who has no right is refused where the right is missing, and told so; all others work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPException
from urllib.parse import urlsplit, urlunsplit

import boto3
import psycopg
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, SSLError
from deltalake import DeltaTable

import deltalakedb
from deltalakedb.actions import AddFile
from deltalakedb.errors import TxnLogError, TxnLogEventLogError
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb.events import Content, TableWork
from deltalakedb.ids import new_txn_id
from deltalakedb.publishing import Sender, messages
from deltalakedb.settings import load_settings
from tests.containers import canary
from tests.containers.stack import SMALL_DEMO, Stack
from tests.http import get
from tests.services import duck

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

ROW = pa.table({"id": [1]})
ADDRESS = "kafka://kafka:9092/lake"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack("deltalakedb-secure", tmp_path_factory.mktemp("secure"), "compose.yaml", "secure.yaml") as stack:
        yield stack


@pytest.fixture
def lake(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[deltalakedb.Lake]:
    """The lake as its producer, with what the stack prints for it."""
    for name, value in stack.settings().items():
        monkeypatch.setenv(name, value)
    with deltalakedb.connect() as lake:
        yield lake


@pytest.fixture
def open_log(lake: deltalakedb.Lake) -> Iterator[Callable[..., EventLog]]:
    """Opens the log as the producer, with some options otherwise; what was opened ends with the test."""
    opened: list[EventLog] = []

    def make(**options: str) -> EventLog:
        given = lake.settings.log_settings | {name.replace("_", "."): value for name, value in options.items()}
        opened.append(open_event_log(ADDRESS, options=given))
        return opened[-1]

    yield make
    for log in opened:
        log.close()


def sent(lake_id: str, root: str, table: str = "orders") -> tuple[str, list[Message]]:
    """A transaction as a client that checks nothing might send it."""
    txn_id = new_txn_id()
    add = AddFile(path="f.parquet", partition_values={}, size=1, modification_time=1)
    sender = Sender(lake_id=lake_id, root=root, client_id="forger", outcome_partition=0)
    return txn_id, messages(txn_id, Content(tables=(TableWork(name=table, adds=(add,)),)), sender)


def test_a_producer_commits_and_reads_what_is_published(lake: deltalakedb.Lake, stack: Stack) -> None:
    """Over TLS, as users with no more rights than they need, client, committer and mirror do their work, and none of them
    has anything to complain about; readers that know nothing of the lake trust the same authority."""
    with lake.begin() as tx:
        tx.stage_table("orders", ROW)
        tx.stage_table("items", ROW)
    lake.sync(timeout=120)
    table = lake.snapshot().table("orders")
    storage = lake.settings.storage
    with duck.connect("delta", "httpfs") as connection:
        connection.execute(storage.duckdb())
        rows = connection.execute(f"SELECT id FROM delta_scan('{table.location}')").fetchall()

    assert table.to_arrow()["id"].to_pylist() == [1]
    assert storage.endpoint == f"https://127.0.0.1:{stack.port('S3_PORT')}"
    assert DeltaTable(table.location, storage_options=storage.deltalake()).to_pyarrow_table()["id"].to_pylist() == [1]
    assert rows == [(1,)]
    logged = stack.compose("logs", "--no-color", "committer", "standby", "mirror").splitlines()
    assert [line for line in logged if '"level": "info"' in line]
    assert [line for line in logged if '"level": "error"' in line or '"level": "critical"' in line] == []


def test_the_demo_finds_every_order_whole(stack: Stack) -> None:
    """Over TLS and as a producer, with what the stack prints for one: DuckDB and delta-rs read by path."""
    report = json.loads(stack.program("demo", "--no-services", *SMALL_DEMO).splitlines()[-1])

    assert report["ok"]
    assert all(check["ok"] and check["seen"] for check in report["checks"])


def test_a_wrong_password_is_refused_by_kafka(open_log: Callable[..., EventLog]) -> None:
    """Without waiting for ever, with an error that says that it is about who one is and shows no password."""
    log = open_log(sasl_password="wr0ngc4n4ry")

    with pytest.raises(TxnLogEventLogError, match=r"(?i)authentication") as refused:
        log.end(Stream.STAGED)

    assert "wr0ngc4n4ry" not in str(refused.value)


def test_who_may_only_read_cannot_publish(
    stack: Stack, lake: deltalakedb.Lake, open_log: Callable[..., EventLog]
) -> None:
    """The mirror's user is known to Kafka and may read commits; what it publishes is refused there, by name of the topic."""
    log = open_log(sasl_username="mirror", sasl_password=stack.secret("kafka-mirror"))

    with pytest.raises(TxnLogError, match=r"(?i)authorization failed") as refused:
        log.append(Stream.STAGED, sent(lake.lake_id, lake.root)[1]).result(60)

    assert "lake.staged" in str(refused.value)
    assert log.end(Stream.COMMITS) >= 0


def test_a_forged_lake_is_rejected_by_the_committer(lake: deltalakedb.Lake, open_log: Callable[..., EventLog]) -> None:
    """A record for another lake reaches the log, because its sender may write there, and is decided against, by reason."""
    txn_id, records = sent("01900000-0000-7000-8000-00000000000f", lake.root)
    open_log().append(Stream.STAGED, records).result(60)
    deadline = time.monotonic() + 60
    while (outcome := lake.outcome(txn_id)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert outcome.rejected is not None
    assert outcome.rejected.reason == "WRONG_LAKE"


def test_postgres_wants_tls_and_a_role_that_may(stack: Stack, lake: deltalakedb.Lake) -> None:
    """Without TLS nobody comes in, with a certificate of somebody else nobody goes there, the mirror writes no file rows,
    and the client's role writes nothing."""
    url = urlsplit(load_settings().store.get_secret_value())
    as_mirror = url._replace(
        netloc=f"mirror:{stack.secret('postgres-mirror')}@127.0.0.1:{stack.port('POSTGRES_PORT')}", query=""
    )
    other = stack.secrets / "kafka.pem"

    with pytest.raises(psycopg.OperationalError, match=r"no encryption|SSL off"):
        psycopg.connect(urlunsplit(as_mirror), sslmode="disable")
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(urlunsplit(as_mirror), sslrootcert=str(other))
    with psycopg.connect(urlunsplit(as_mirror)) as mirror, pytest.raises(psycopg.errors.InsufficientPrivilege):
        mirror.execute("DELETE FROM lake.dl_live_files")
    with psycopg.connect(urlunsplit(url._replace(query=""))) as reader, pytest.raises(psycopg.errors.Error) as refused:
        reader.execute("UPDATE lake.dl_mirror_status SET attempts = 0")
    assert refused.value.sqlstate in ("42501", "25006"), "no right, or read-only"


def test_s3_wants_tls(lake: deltalakedb.Lake, stack: Stack) -> None:
    """In clear nobody is answered there, and who does not trust the stack's authority does not go on."""
    client = boto3.client("s3", **lake.settings.storage.boto3() | {"verify": str(stack.secrets / "kafka.pem")})

    with pytest.raises(SSLError):
        client.list_objects_v2(Bucket="lake")
    with pytest.raises((OSError, HTTPException)):
        get(stack.port("S3_PORT"), "/")


def test_a_producer_cannot_write_a_log(lake: deltalakedb.Lake, stack: Stack) -> None:
    """At S3 a producer writes data files; a `_delta_log` and the lake's own documents are the mirror's."""
    client = boto3.client("s3", **lake.settings.storage.boto3())
    client.put_object(Bucket="lake", Key="tables/loose/part-0.parquet", Body=b"x")

    for key in ("tables/loose/_delta_log/00000000000000000000.json", "tables/_deltalakedb.json"):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_object(Bucket="lake", Key=key, Body=b"x")


def test_no_secret_is_shown_or_kept_anywhere(stack: Stack, lake: deltalakedb.Lake) -> None:
    """Neither the engine, nor a process, log, metric or health of a container, nor SQL, the log or the tables' files have
    any of them, though a transaction's own text is found where it belongs; nor have the errors of whoever has a wrong one.
    """
    passwords, public = canary.secrets(stack), b"a-note-that-everybody-may-see"
    with lake.begin(user_metadata=public.decode()) as tx:
        tx.stage_table("noted", ROW)
    lake.sync(timeout=120)
    settings = stack.settings()
    wrong_password = {"sasl.password": "wr0ngc4n4ry"}
    wrong = {
        "store": {"DELTALAKEDB_STORE": settings["DELTALAKEDB_STORE"].replace("reader:", "reader:wr0ngc4n4ry")},
        "log": {
            "DELTALAKEDB_LOG_OPTIONS": json.dumps(json.loads(settings["DELTALAKEDB_LOG_OPTIONS"]) | wrong_password)
        },
        "s3": {"AWS_SECRET_ACCESS_KEY": "wr0ngc4n4ry"},
        "authority": {"PGSSLROOTCERT": str(stack.secrets / "kafka.pem")},
    }
    with closing(canary.open_log(stack, "committer", settings)) as log:
        found = canary.shown(stack) | canary.kept(stack, log)
    found |= {f"client with a wrong {what}": appending(settings | other) for what, other in wrong.items()}

    assert set(passwords) >= {"postgres-mirror", "s3-producer", "kafka-committer", "s3.pem", "ca.key"}
    for place in ("log staged", "SQL dl_table_versions", "s3 tables/noted/_delta_log/00000000000000000000.json"):
        assert public in found[place], place
    assert b"DELTALAKEDB_STORE_FILE" in found["processes of committer"]
    assert [(where, name) for where in found for name in passwords if passwords[name] in found[where]] == [
        canary.UNAVOIDABLE
    ]
    assert [where for where in found if b"wr0ngc4n4ry" in found[where]] == []


def appending(environment: dict[str, str]) -> bytes:
    """What a client's process says that must fail."""
    code = """
import deltalakedb, pyarrow
with deltalakedb.connect() as lake, lake.begin(timeout=60) as tx:
    tx.stage_table("refused", pyarrow.table({"id": [1]}))
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True)
    assert done.returncode != 0
    assert b"deltalakedb.errors.TxnLog" in done.stderr, done.stderr
    return done.stdout + done.stderr
