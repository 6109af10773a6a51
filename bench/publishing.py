"""The mirror's step alone, in this process, over a backlog in Postgres: to S3, beside the same to local disk."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from deltalakedb.database import Pool, StoreAddress, open_database
from deltalakedb.events import Content
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker.step import Mirror
from deltalakedb_mirror_worker.worker import LOCAL_THREADS, REMOTE_THREADS
from tests.lakes import FilledLake, add, append, create
from tests.services.s3 import S3Address

from . import data

PAIRS = 8
TRANSACTIONS = 1_600
_AT_ONCE = 200


def bucket(address: S3Address) -> tuple[str, Mapping[str, str]]:
    """A new bucket: the root of a lake in it, and what a client needs to get there."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    address.client().create_bucket(Bucket=name)
    return f"s3://{name}/lake", {
        "AWS_ACCESS_KEY_ID": address.access_key,
        "AWS_SECRET_ACCESS_KEY": address.secret_key,
        "AWS_REGION": address.region,
        "AWS_ENDPOINT_URL": address.endpoint,
        "AWS_ALLOW_HTTP": "true",
    }


def rate(address: StoreAddress, folder: Path, root: str, options: Mapping[str, str] | None = None) -> float:
    """Versions per second, of all tables together, that go from a new store at `address` to a lake's `root`."""
    pairs = data.pairs(PAIRS)
    with FilledLake(address, folder, root, options=dict(options or {}) or None) as lake:
        for pair in pairs:
            lake.commit(*(create(table) for table in pair.tables))
        contents = [
            Content(tables=tuple(append(table, add(f"{n}.parquet")) for table in pairs[n % PAIRS].tables))
            for n in range(TRANSACTIONS)
        ]
        for begin in range(0, TRANSACTIONS, _AT_ONCE):
            for outcome in lake.decide(contents[begin : begin + _AT_ONCE]):
                assert outcome.committed is not None, outcome.rejected
    pool = Pool(lambda: open_database(address, by_key=True))
    threads = REMOTE_THREADS if root.startswith("s3:") else LOCAL_THREADS
    mirror = Mirror(pool, lambda uri: open_object_store(uri, options), threads=threads)
    # The first versions open connections and claim the root; they are not measured.
    published = mirror.step().published
    began = time.monotonic()
    count = 0
    while (progress := mirror.step()).versions_behind:
        count += progress.published
    seconds = time.monotonic() - began
    count += progress.published
    mirror.close()
    pool.close()
    assert published + count >= 2 * TRANSACTIONS
    return count / seconds
