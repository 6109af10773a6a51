"""Imports on real services: from S3, through Kafka into Postgres, with whatever is killed in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import deltalake
import pyarrow as pa

import deltalakedb
from deltalakedb.database import open_database
from tests.fix_s3 import S3Bucket
from tests.golden_tables.replay import read_log
from tests.pipeline import LakeAddress, on_servers
from tests.s3_proxy import CUT_AFTER, Fault, S3Proxy
from tests.services.run import Addresses

SCHEMA = '{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}'


def wide(folder: Path, files: int) -> None:
    """A table whose first version has so many files that it takes several events, none of which is there."""
    log = folder / "_delta_log"
    log.mkdir(parents=True)
    stats = json.dumps({"numRecords": 1, "minValues": {"id": 1}, "maxValues": {"id": 1}, "nullCount": {"id": 0}})
    protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
    metadata = {"id": "m", "format": {"provider": "parquet", "options": {}}, "schemaString": SCHEMA}
    metadata |= {"partitionColumns": [], "configuration": {}}
    with (log / f"{0:020}.json").open("w") as commit:
        for action in ({"protocol": protocol}, {"metaData": metadata}):
            commit.write(json.dumps(action) + "\n")
        for n in range(files):
            add = {"path": f"{n:0200}.parquet", "partitionValues": {}, "size": n + 1, "modificationTime": 1}
            commit.write(json.dumps({"add": {**add, "dataChange": True, "stats": stats}}) + "\n")
    remove = {"path": f"{0:0200}.parquet", "dataChange": True, "deletionTimestamp": 1}
    (log / f"{1:020}.json").write_text(json.dumps({"remove": remove}) + "\n")


def wait_for_chunks(address: LakeAddress, process: subprocess.Popen[bytes]) -> None:
    """Return once the committer has some chunks of a version and not all."""
    database = open_database(address.settings.address)
    try:
        while not database.query("SELECT chunks FROM dl_imports"):
            assert process.poll() is None, process.communicate()
    finally:
        database.close()


def test_killed_in_a_large_version(servers: Addresses, tmp_path: Path) -> None:
    """Importer and committer are killed in the middle of a version of many events: it comes over whole, and once."""
    wide(tmp_path / "wide", 30_000)
    pipeline = on_servers(servers, tmp_path)
    target = f"{pipeline.address.store}&table=t"
    verb = [sys.executable, "-m", "deltalakedb", "import", str(tmp_path / "wide"), target]
    verb += ["--grace", "0", "--output", "json"]
    with pipeline:
        process = subprocess.Popen(verb, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for_chunks(pipeline.address, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        pipeline.committer.kill()
        pipeline.committer.start()
        ended = subprocess.run(verb, capture_output=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        report = json.loads(ended.stdout)
        with pipeline.address.connect() as lake:
            lake.sync("t", timeout=60)
            found = sum(batch.num_rows for batch in lake.table("t").files())

    assert (report["state"], report["files"], found) == ("adopted", 29_999, 29_999)
    assert read_log(tmp_path / "wide").newest == 2
    assert len(read_log(tmp_path / "wide").at(2).live) == 29_999


def test_from_s3(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A table on S3 is taken over, also where the answers to the decisive put are lost, or are those of an overload."""
    where, options = s3_bucket.uri("t"), s3_bucket.storage_options
    for n in range(3):
        deltalake.write_deltalake(where, pa.table({"id": [n]}), mode="append", storage_options=options)
    faults = [Fault(status=503, reach=False), CUT_AFTER]

    def plan(method: str, path: str) -> Fault | None:
        ours = method == "PUT" and path.endswith(f"{3:020}.json")
        return faults.pop(0) if ours and faults else None

    with S3Proxy(s3_bucket.endpoint) as proxy:
        proxy.plan = plan
        through = {**options, "AWS_ENDPOINT_URL": proxy.endpoint}
        with deltalakedb.connect(tmp_path / "lake", storage_options=through) as lake:
            report = lake.import_table("t", where, grace=0)
    with deltalakedb.connect(tmp_path / "lake", storage_options=options) as lake:
        lake.append("t", pa.table({"id": [7]}))
        lake.sync("t", timeout=60)
    table = deltalake.DeltaTable(where, storage_options=options)

    assert (report.state, report.source, report.adopted_version) == ("adopted", where, 3)
    assert faults == []
    assert table.version() == 4
    assert sorted(row["id"] for row in table.to_pyarrow_table().to_pylist()) == [0, 1, 2, 7]
