"""`mirror adopt`: real writers commit into our `_delta_log`; what they did becomes the lake's own, or gives way to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

import deltalakedb
from deltalakedb import Lake
from deltalakedb.errors import TxnLogMirrorError, TxnLogTableFencedError
from deltalakedb.program import app
from deltalakedb.session import Session
from deltalakedb_mirror_worker.adopting import Adopted, Adoption
from deltalakedb_mirror_worker.repair import repair_table
from deltalakedb_mirror_worker.superseding import CONFLICTS
from deltalakedb_mirror_worker.worker import Worker
from tests.pipeline import on_servers
from tests.services.run import Addresses


def ids(*numbers: int) -> pa.Table:
    return pa.table({"id": pa.array(numbers, pa.int64())})


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An embedded lake without the writer fence, so that others can write, with a table of one version."""
    with deltalakedb.connect(tmp_path / "lake", fence=False) as lake:
        lake.create_table("t", ids().schema, properties={"delta.isolationLevel": "WriteSerializable"})
        lake.append("t", ids(1))
        yield lake


def write(lake: Lake, *numbers: int, removes: tuple[str, ...] = ()) -> bytes:
    """Commit the next version of the log as an engine that does not ask for writer features: its file. Fields that say
    nothing are null, as delta-rs has them."""
    version = DeltaTable(table_of(lake)).version() + 1
    lines: list[dict[str, Any]] = []
    if numbers:
        name = f"others-{version}.parquet"
        pq.write_table(ids(*numbers), log_of(lake).parent / name)
        size = (log_of(lake).parent / name).stat().st_size
        lines.append(
            {
                "add": {
                    "path": name,
                    "partitionValues": {},
                    "size": size,
                    "modificationTime": 1_700_000_000_000,
                    "dataChange": True,
                    "stats": f'{{"numRecords":{len(numbers)}}}',
                    "tags": None,
                    "deletionVector": None,
                    "baseRowId": None,
                    "clusteringProvider": None,
                }
            }
        )
    lines += [
        {"remove": {"path": path, "dataChange": True, "deletionTimestamp": 1_700_000_000_000}} for path in removes
    ]
    info = {"timestamp": int(time.time() * 1000), "operation": "WRITE", "operationParameters": {"mode": "Append"}}
    lines.append({"commitInfo": {**info, "engineInfo": "others:1.0", "operationMetrics": {"files": 1}}})
    data = "\n".join(json.dumps(line) for line in lines).encode()
    (log_of(lake) / f"{version:020}.json").write_bytes(data)
    return data


def live(lake: Lake) -> list[str]:
    """Paths of the files that the table has in SQL."""
    return [file["path"] for batch in lake.table("t").files() for file in batch.to_pylist()]


def settle(lake: Lake, *, superseding: bool = False, dry_run: bool = False) -> Adopted:
    session = Session(lake.settings)
    try:
        with Worker(lake.settings) as worker:
            return Adoption(worker, session, "t", timeout=30).run(superseding=superseding, dry_run=dry_run)
    finally:
        session.close()


def table_of(lake: Lake) -> str:
    return lake.table("t").location


def in_sql(lake: Lake) -> list[int]:
    found: list[Any] = lake.table("t").to_arrow()["id"].to_pylist()
    return sorted(found)


def by_path(lake: Lake) -> list[int]:
    found: list[Any] = DeltaTable(table_of(lake)).to_pyarrow_table()["id"].to_pylist()
    return sorted(found)


def log_of(lake: Lake) -> Path:
    return Path(table_of(lake).removeprefix("file://")) / "_delta_log"


def test_a_foreign_version_becomes_that_version(lake: Lake) -> None:
    """What others appended and removed is the lake's history now, each under its number and with a commit of its own;
    the files stay as they are, the fence is lifted, and the lake goes on behind them."""
    theirs = {2: write(lake, 2, 3), 3: write(lake, 5, removes=("others-2.parquet",))}
    seq = lake.snapshot().commit_seq
    would = settle(lake, dry_run=True)
    untouched = lake.version("t")
    done = settle(lake)
    lake.sync("t", timeout=60)
    lake.append("t", ids(4))

    assert (would.adopted, would.dry_run, untouched) == ((2, 3), True, 1)
    assert (done.adopted, done.superseded, done.restaged) == ((2, 3), (), ())
    assert {version: (log_of(lake) / f"{version:020}.json").read_bytes() for version in theirs} == theirs
    assert lake.snapshot().commit_seq == seq + 3
    assert lake.version("t") == 4
    assert in_sql(lake) == by_path(lake) == [1, 4, 5]
    assert settle(lake).adopted == ()


def test_what_spark_committed_becomes_the_lakes_own(lake: Lake, spark: Any) -> None:
    """Rows added and deleted, and a new column: the versions that Spark wrote are found in SQL as they are, with times that
    rise, and the mirror takes its files for the lake's."""
    table = f"delta.`{table_of(lake)}`"
    spark.sql(f"INSERT INTO {table} VALUES (2), (3)")
    spark.sql(f"DELETE FROM {table} WHERE id = 2")
    spark.sql(f"ALTER TABLE {table} ADD COLUMN (name STRING)")
    done = settle(lake)
    lake.sync("t", timeout=60)
    lake.append("t", pa.table({"id": [4], "name": ["four"]}))
    times = [lake.table("t", version=version).timestamp for version in range(6)]
    found = spark.read.format("delta").load(table_of(lake)).orderBy("id").collect()
    with Worker(lake.settings) as worker:
        progress = worker.progress("t")
        place = worker.mirror.places.of(progress.location)
        repaired = repair_table(worker.pool, place, progress, "in-place", dry_run=True)

    assert done.adopted == (2, 3, 4)
    assert lake.table("t").to_arrow().sort_by("id").to_pylist() == [
        {"id": 1, "name": None},
        {"id": 3, "name": None},
        {"id": 4, "name": "four"},
    ]
    assert [(row.id, row.name) for row in found] == [(1, None), (3, None), (4, "four")]
    assert times == sorted(set(times))
    assert (repaired.missing, repaired.left) == ((), ())


def test_without_a_word_ours_and_theirs_stay_as_they_are(lake: Lake) -> None:
    """Where SQL has the version already, nothing is touched: the error names both ways out."""
    write(lake, 2)
    lake.append("t", ids(3))

    with pytest.raises(TxnLogTableFencedError):
        lake.sync("t", timeout=60)
    with pytest.raises(TxnLogMirrorError, match=r"foreign versions \(2\) where SQL has committed .* --supersede"):
        settle(lake)
    with pytest.raises(TxnLogMirrorError, match="--supersede"):
        settle(lake, dry_run=True)
    assert (in_sql(lake), by_path(lake)) == ([1, 3], [1, 2])
    assert not (Path(lake.root.removeprefix("file://")) / CONFLICTS).exists()


def test_superseding_keeps_ours_and_commits_theirs_anew(lake: Lake) -> None:
    """Nothing is lost: the foreign files are kept aside, ours take their places, and what they appended is appended."""
    theirs = [write(lake, 2), write(lake, 3)]
    lake.append("t", ids(4))
    would = settle(lake, superseding=True, dry_run=True)
    before = by_path(lake)
    done = settle(lake, superseding=True)
    again = settle(lake, superseding=True)
    kept = sorted((Path(lake.root.removeprefix("file://")) / CONFLICTS).rglob("*.json"))
    metadata = json.loads(
        json.loads((log_of(lake) / f"{3:020}.json").read_text().splitlines()[0])["commitInfo"]["userMetadata"]
    )

    assert (would.superseded, would.restaged, before) == ((2, 3), (), [1, 2, 3])
    assert done.superseded == (2, 3)
    assert [(restaged.version, restaged.new_version, restaged.reason) for restaged in done.restaged] == [
        (2, 3, None),
        (3, 4, None),
    ]
    assert (again.superseded, again.restaged) == ((), done.restaged)
    assert [path.read_bytes() for path in kept] == theirs
    assert in_sql(lake) == by_path(lake) == [1, 2, 3, 4]
    assert metadata["superseded"]["version"] == 2
    assert metadata["superseded"]["kept"] == kept[0].as_uri()
    lake.sync("t", timeout=60)


def test_what_cannot_be_committed_anew_is_told_and_kept(lake: Lake) -> None:
    """They rewrote a file that ours removed: decided like any other transaction, and rejected with a reason, which does not
    stand in the way of another history later."""
    (file,) = live(lake)
    write(lake, 2, removes=(file,))
    with lake.begin() as tx:
        tx.stage_table("t", actions=[{"remove": {"path": file, "dataChange": True}}])
    done = settle(lake, superseding=True)
    verb = ["mirror", "adopt", "t", "--store", str(lake.settings.directory), "--supersede"]
    told = CliRunner().invoke(app, verb)
    emptied = (in_sql(lake), by_path(lake))
    write(lake, 7)
    lake.append("t", ids(8))
    later = settle(lake, superseding=True)

    assert [(restaged.version, restaged.new_version) for restaged in later.restaged] == [(2, None), (3, 4)]
    assert in_sql(lake) == by_path(lake) == [7, 8]
    assert [(restaged.version, restaged.new_version) for restaged in done.restaged] == [(2, None)]
    assert done.restaged[0].reason in ("FILE_NOT_LIVE", "CONCURRENT_DELETE_DELETE")
    assert emptied == ([], [])
    assert told.exit_code == 2
    assert "what version 2 did" in told.stdout
    assert "rejected: " in told.stdout


def test_nothing_foreign_is_nothing_to_do(lake: Lake) -> None:
    """A table that is only ours stays as it is, and the verb says so."""
    told = CliRunner().invoke(app, ["mirror", "adopt", "t", "--store", str(lake.settings.directory)])

    assert (told.exit_code, told.stdout) == (0, f"nothing foreign is in {table_of(lake)}\n")


def test_a_lake_on_servers_settles_beside_its_running_services(servers: Addresses, tmp_path: Path) -> None:
    """Committer and mirror go on meanwhile: the one decides what is imported and staged anew, the other finds all of it
    its own, and lifts the fence."""
    with on_servers(servers, tmp_path) as pipeline, pipeline.address.connect() as lake:
        lake.append("t", ids(1))
        lake.sync("t", timeout=60)
        write(lake, 2)
        adopted = settle(lake).adopted
        lake.append("t", ids(3))
        lake.sync("t", timeout=60)
        write(lake, 4)
        lake.append("t", ids(5))
        with pytest.raises(TxnLogTableFencedError):
            lake.sync("t", timeout=60)
        done = settle(lake, superseding=True)
        lake.sync("t", timeout=60)

        assert adopted == (1,)
        assert done.superseded == (3,)
        assert [(restaged.version, restaged.new_version) for restaged in done.restaged] == [(3, 4)]
        assert in_sql(lake) == by_path(lake) == [1, 2, 3, 4, 5]
