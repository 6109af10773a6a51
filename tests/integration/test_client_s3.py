"""Data files on S3: written, read, deleted, and refused without showing a credential."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from mypy_boto3_s3 import S3Client

import deltalakedb
from deltalakedb import Lake
from tests.fix_s3 import S3Bucket

ROWS = pa.table({"id": [1, 2, 3], "p": ["a b", "a:b", None]})


@pytest.fixture
def lake(tmp_path: Path, s3_bucket: S3Bucket) -> Iterator[Lake]:
    """An embedded lake whose tables lie in a bucket."""
    with deltalakedb.connect(
        tmp_path / "lake", root=s3_bucket.uri("lake"), storage_options=s3_bucket.storage_options
    ) as lake:
        yield lake


def objects(client: S3Client, bucket: S3Bucket, prefix: str) -> list[str]:
    listed = client.list_objects_v2(Bucket=bucket.name, Prefix=prefix).get("Contents", [])
    return [found["Key"] for found in listed if found["Key"].endswith(".parquet")]


def test_rows_on_s3(lake: Lake, s3_bucket: S3Bucket, s3_client: S3Client) -> None:
    """A partitioned table is written to the bucket and read from it, through the lake and by path."""
    lake.append("orders", ROWS, partition_by="p")
    lake.sync(timeout=60)

    table = lake.table("orders")
    assert table.location == s3_bucket.uri("lake/orders")
    assert table.to_arrow().sort_by("id").to_pylist() == ROWS.to_pylist()
    assert table.to_arrow(predicate="p = 'a:b'").to_pylist() == [{"id": 2, "p": "a:b"}]
    assert len(objects(s3_client, s3_bucket, "lake/orders/")) == 3
    by_path = deltalake.DeltaTable(table.location, storage_options=s3_bucket.storage_options)
    assert by_path.to_pyarrow_table().sort_by("id").select(["id", "p"]).to_pylist() == ROWS.to_pylist()


def test_rollback_deletes_objects(lake: Lake, s3_bucket: S3Bucket, s3_client: S3Client) -> None:
    """What a transaction has put into the bucket is gone after a rollback."""
    with lake.begin() as tx:
        tx.stage_table("orders", ROWS)
        assert tx.table("orders").to_arrow().num_rows == 3
        assert len(objects(s3_client, s3_bucket, "lake/orders/")) == 1
        tx.rollback()

    assert objects(s3_client, s3_bucket, "lake/orders/") == []


def test_large_files(tmp_path: Path, s3_bucket: S3Bucket) -> None:
    """Much data is streamed into files of the target size."""
    batch = pa.record_batch({"x": list(range(200_000)), "s": [f"{n:040d}" for n in range(200_000)]})
    data = pa.RecordBatchReader.from_batches(batch.schema, [batch] * 8)

    with deltalakedb.connect(
        tmp_path / "lake",
        root=s3_bucket.uri("lake"),
        storage_options=s3_bucket.storage_options,
        target_file_bytes=6_000_000,
    ) as lake:
        lake.append("big", data)
        sizes = [size for files in lake.table("big").files() for size in files.column("size").to_pylist()]

        assert len(sizes) >= 2
        assert lake.table("big").to_arrow(columns=["x"]).num_rows == 1_600_000


def test_another_lakes_root(lake: Lake, tmp_path: Path, s3_bucket: S3Bucket) -> None:
    """Two lakes never share a root: the second is refused before it writes a table there."""
    lake.append("orders", ROWS)
    options = s3_bucket.storage_options

    with (
        deltalakedb.connect(tmp_path / "other", root=s3_bucket.uri("lake"), storage_options=options) as other,
        pytest.raises(deltalakedb.TxnLogMirrorError, match="belongs to the lake"),
    ):
        other.append("lines", ROWS)


def test_wrong_credentials_are_not_shown(tmp_path: Path, s3_bucket: S3Bucket) -> None:
    """An object store that refuses us is an error without the secret in it, or in its causes."""
    wrong = {**s3_bucket.storage_options, "AWS_SECRET_ACCESS_KEY": "canary7f3a"}

    with deltalakedb.connect(tmp_path / "lake", root=s3_bucket.uri("lake"), storage_options=wrong) as lake:
        with pytest.raises(deltalakedb.TxnLogObjectStoreError) as caught:
            lake.append("orders", ROWS)
        files = lake._open_session().files.open(s3_bucket.uri("lake/orders"))
        with pytest.raises(deltalakedb.TxnLogObjectStoreError) as refused:
            files.open("x.parquet")
        files.put("y.parquet", pa.py_buffer(b"some bytes"))
        for _ in range(2):  # not only the first time: what was not put must not be named by a second try
            with pytest.raises(deltalakedb.TxnLogObjectStoreError) as unflushed:
                files.flush()

    for error in (caught.value, refused.value, unflushed.value):
        assert "canary7f3a" not in f"{error} {error.__cause__}"
