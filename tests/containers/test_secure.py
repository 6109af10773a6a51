"""The stack with secure.yaml: who has no right is refused where the right is missing, and told so; all others work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import boto3
import psycopg
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

import deltalakedb
from deltalakedb.actions import AddFile
from deltalakedb.errors import TxnLogError, TxnLogEventLogError
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb.events import Content, TableWork
from deltalakedb.ids import new_txn_id
from deltalakedb.publishing import Sender, messages
from deltalakedb.settings import load_settings
from tests.containers.stack import Stack
from tests.containers.test_stack import secrets_shown

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
    """Over TLS, as users with no more rights than they need, client, committer and mirror do their work; no secret is in
    any log, metric, or in what the engine knows of a container."""
    with lake.begin() as tx:
        tx.stage_table("orders", ROW)
        tx.stage_table("items", ROW)
    lake.sync(timeout=60)

    assert lake.snapshot().table("orders").to_arrow()["id"].to_pylist() == [1]
    secrets_shown(stack)


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


def test_a_producer_cannot_write_a_log(lake: deltalakedb.Lake, stack: Stack) -> None:
    """At S3 a producer writes data files; a `_delta_log` and the lake's own documents are the mirror's."""
    client = boto3.client("s3", **lake.settings.storage.boto3())
    client.put_object(Bucket="lake", Key="tables/loose/part-0.parquet", Body=b"x")

    for key in ("tables/loose/_delta_log/00000000000000000000.json", "tables/_deltalakedb.json"):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_object(Bucket="lake", Key=key, Body=b"x")
