"""Every test service does what the rest of the suite takes for granted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import polars
import psycopg
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from deltalake import DeltaTable, write_deltalake
from mypy_boto3_s3 import S3Client
from pyspark.sql import SparkSession

from tests.fix_s3 import S3Bucket
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.services.s3 import VersityGateway

ROWS = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]


def test_kafka_returns_what_was_produced(kafka_bootstrap: str, kafka_prefix: str) -> None:
    """A consumer reads the messages of a topic in the order they were acknowledged in."""
    topic = create_topic(kafka_bootstrap, kafka_prefix + "numbers")
    values = [b"%d" % number for number in range(100)]

    produce(kafka_bootstrap, topic, values)

    assert consume(kafka_bootstrap, topic, len(values)) == values


def test_kafka_keeps_what_it_acknowledged_over_sigkill(kafka_server: Kafka) -> None:
    """A broker that is killed and started again has every acknowledged message, at the same address."""
    topic = create_topic(kafka_server.bootstrap, "numbers")
    produce(kafka_server.bootstrap, topic, [b"before"])

    kafka_server.kill()
    kafka_server.start()
    produce(kafka_server.bootstrap, topic, [b"after"])

    assert consume(kafka_server.bootstrap, topic, 2) == [b"before", b"after"]


def test_postgres_gives_each_test_an_empty_database(postgres_url: str) -> None:
    """The database has no table, takes one, and is durable: fsync is on."""
    with psycopg.connect(postgres_url) as connection:
        before = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        connection.execute("CREATE TABLE numbers AS SELECT generate_series(1, 10) AS number")
        total = connection.execute("SELECT sum(number) FROM numbers").fetchone()
        fsync = connection.execute("SHOW fsync").fetchone()

    assert (before, total, fsync) == ((0,), (55,), ("on",))


def test_postgres_keeps_what_it_committed_over_sigkill(postgres_server: Postgres) -> None:
    """A server that is killed and started again has every committed row and no other."""
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute("CREATE TABLE numbers (number integer)")
        connection.execute("INSERT INTO numbers VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO numbers VALUES (2)")
        postgres_server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.commit()

    postgres_server.start()

    with psycopg.connect(postgres_server.url) as connection:
        assert connection.execute("SELECT number FROM numbers").fetchall() == [(1,)]


def test_s3_puts_a_key_only_if_it_is_absent(s3_client: S3Client, s3_bucket: S3Bucket) -> None:
    """The first conditional put of a key is stored, the second refused with 412."""
    s3_client.put_object(Bucket=s3_bucket.name, Key="a/b.json", Body=b"first", IfNoneMatch="*")

    with pytest.raises(ClientError) as refused:
        s3_client.put_object(Bucket=s3_bucket.name, Key="a/b.json", Body=b"second", IfNoneMatch="*")

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3_client.get_object(Bucket=s3_bucket.name, Key="a/b.json")["Body"].read() == b"first"


def test_s3_lets_one_of_many_puts_win(s3_client: S3Client, s3_bucket: S3Bucket) -> None:
    """Of conditional puts of one key at the same time exactly one succeeds."""

    def put(number: int) -> bool:
        try:
            s3_client.put_object(Bucket=s3_bucket.name, Key="race", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(put, range(16)))

    winner = s3_client.get_object(Bucket=s3_bucket.name, Key="race")["Body"].read()
    assert [number for number, won in enumerate(results) if won] == [int(winner)]


def test_s3_keeps_what_it_stored_over_sigkill(s3_server: VersityGateway) -> None:
    """An endpoint that is killed and started again has what was stored, under the same credentials."""
    s3_server.address.client().create_bucket(Bucket="bucket")
    s3_server.address.client().put_object(Bucket="bucket", Key="key", Body=b"value")

    s3_server.kill()
    s3_server.start()

    assert s3_server.address.client().get_object(Bucket="bucket", Key="key")["Body"].read() == b"value"


def test_spark_and_all_readers_read_a_local_table(
    tmp_path: Path, spark: SparkSession, duckdb_connection: duckdb.DuckDBPyConnection
) -> None:
    """Spark, DuckDB, Polars and delta-rs return the same rows of a Delta table on disk."""
    table = str(tmp_path / "table")
    write_deltalake(table, pa.Table.from_pylist(ROWS))

    assert spark_rows(spark, table) == ROWS
    assert duckdb_rows(duckdb_connection, table) == ROWS
    assert polars.read_delta(table).sort("id").to_dicts() == ROWS
    assert DeltaTable(table).to_pyarrow_table().sort_by("id").to_pylist() == ROWS


def test_spark_and_all_readers_read_a_table_on_s3(
    s3_bucket: S3Bucket,
    spark: SparkSession,
    duckdb_connection: duckdb.DuckDBPyConnection,
    duckdb_s3: Callable[[S3Bucket], None],
) -> None:
    """Spark, DuckDB, Polars and delta-rs return the same rows of a Delta table on S3."""
    table = s3_bucket.uri("table")
    options = s3_bucket.storage_options
    write_deltalake(table, pa.Table.from_pylist(ROWS), storage_options=options)
    duckdb_s3(s3_bucket)

    assert spark_rows(spark, table.replace("s3://", "s3a://")) == ROWS
    assert duckdb_rows(duckdb_connection, table) == ROWS
    assert polars.read_delta(table, storage_options=options).sort("id").to_dicts() == ROWS
    assert DeltaTable(table, storage_options=options).to_pyarrow_table().sort_by("id").to_pylist() == ROWS


def create_topic(bootstrap: str, topic: str) -> str:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(30)
    return topic


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "retry.backoff.ms": 20})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(60) == 0


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "fetch.queue.backoff.ms": 5})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    while len(values) < count:
        # No message yet is not the end; the test's own time limit is.
        if (message := consumer.poll(1)) is not None:
            assert message.error() is None
            values.append(message.value() or b"")
    consumer.close()
    return values


def spark_rows(spark: SparkSession, table: str) -> list[dict[str, object]]:
    return [row.asDict() for row in spark.read.format("delta").load(table).orderBy("id").collect()]


def duckdb_rows(connection: duckdb.DuckDBPyConnection, table: str) -> list[dict[str, object]]:
    found = connection.execute("SELECT id, name FROM delta_scan($1) ORDER BY id", [table]).fetchall()
    return [{"id": number, "name": name} for number, name in found]
