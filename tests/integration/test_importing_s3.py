"""Tables on S3 are taken over: from a writer that does not pause, and through a network that loses and garbles answers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb.features import FENCE_FEATURE
from tests.fix_s3 import S3Bucket
from tests.s3_proxy import CUT_AFTER, CUT_BEFORE, TRUNCATED, Fault, S3Proxy

NOT_THERE = [CUT_BEFORE, *(Fault(status=status, reach=False) for status in (409, 412, 500, 503))]
"""Answers to a put that has not reached the store."""
THERE = [CUT_AFTER, TRUNCATED, *(Fault(status=status) for status in (409, 412, 500, 503))]
"""Answers to a put that the store has accepted."""
READING = {"t0": [CUT_AFTER, Fault(status=503)], f"t{len(NOT_THERE)}": [CUT_AFTER, Fault(status=503), TRUNCATED]}
"""What happens, one after the other, to the first reads of what was put; by table."""

pytestmark = pytest.mark.timeout(300)


def write(where: str, options: dict[str, str], *ids: int) -> None:
    """Append rows as somebody else."""
    deltalake.write_deltalake(where, pa.table({"id": list(ids)}), mode="append", storage_options=options)


def read(where: str, options: dict[str, str]) -> list[int]:
    """Ids that delta-rs reads."""
    return ids(deltalake.DeltaTable(where, storage_options=options).to_pyarrow_table())


def ids(rows: pa.Table) -> list[int]:
    """What the rows are, in order."""
    found: list[int] = [row["id"] for row in rows.sort_by("id").to_pylist()]
    return found


def test_a_live_writer(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A delta-rs writer never pauses, and each answer to our puts is lost in another way: nothing that the writer was
    told is committed is lost or twice, and the version that takes the table over is there once."""
    where, options = s3_bucket.uri("t"), s3_bucket.storage_options
    committed: list[int] = []
    errors: list[str] = []
    stop = threading.Event()
    faults = [*NOT_THERE, CUT_AFTER]

    def keep_writing() -> None:
        while not stop.is_set():
            try:
                write(where, options, len(committed))
            except Exception as error:
                errors.append(str(error))
                return
            committed.append(len(committed))

    def plan(method: str, path: str) -> Fault | None:
        ours = method == "PUT" and "/_delta_log/" in path
        return faults.pop(0) if ours and faults else None

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        with S3Proxy(s3_bucket.endpoint) as proxy:
            while len(committed) < 5:
                assert not errors
                time.sleep(0.01)
            proxy.plan = plan
            through = {**options, "AWS_ENDPOINT_URL": proxy.endpoint}
            with deltalakedb.connect(tmp_path / "lake", storage_options=through, mirror="off") as lake:
                report = lake.import_table("t", where, grace=1)
            put = [path for path in proxy.journal.stored() if "/_delta_log/" in path]
        # The fence ends it.
        writer.join(60)
    finally:
        stop.set()
        writer.join(60)

    assert faults == []
    assert FENCE_FEATURE in errors[0] or "Protocol changed" in errors[0]
    assert report.adopted_version is not None
    assert [path.rsplit("/", 1)[1] for path in put] == [f"{report.adopted_version:020}.json"]
    with deltalakedb.connect(tmp_path / "lake", storage_options=s3_bucket.storage_options) as lake:
        assert ids(lake.table("t").to_arrow()) == committed
        lake.append("t", pa.table({"id": [-1]}))
    assert read(where, s3_bucket.storage_options) == [-1, *committed]


def test_answers_that_are_lost(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Whatever is said of the put that takes a table over, and where reading it back fails at first: it is there once, it
    is ours, and one run of the import sees that."""
    options = s3_bucket.storage_options
    cases = {f"t{number}": [fault] for number, fault in enumerate([*NOT_THERE, *THERE])}
    cases["all"] = [*NOT_THERE, CUT_AFTER]
    for name in cases:
        write(s3_bucket.uri(name), options, 1)
    with S3Proxy(s3_bucket.endpoint) as proxy:
        through = {**options, "AWS_ENDPOINT_URL": proxy.endpoint}
        with deltalakedb.connect(tmp_path / "lake", storage_options=through, mirror="off") as lake:
            for name, puts in cases.items():
                gets = list(READING.get(name, ()))

                def plan(method: str, path: str, puts: list[Fault] = puts, gets: list[Fault] = gets) -> Fault | None:
                    faults = {"PUT": puts, "GET": gets}.get(method) if path.endswith(f"{1:020}.json") else None
                    return faults.pop(0) if faults else None

                proxy.plan = plan
                report = lake.import_table(name, s3_bucket.uri(name), grace=0)

                assert (report.adopted_version, puts, gets) == (1, [], []), name
        stored = [path.split("/")[-3] for path in proxy.journal.stored() if path.endswith(f"{1:020}.json")]

    assert sorted(stored) == sorted(cases), "each was put once"
    with deltalakedb.connect(tmp_path / "lake", storage_options=options) as lake:
        for name in cases:
            lake.append(name, pa.table({"id": [2]}))
            assert read(s3_bucket.uri(name), options) == [1, 2], name
