"""Imported tables in mirrors: logs that begin with a checkpoint, times that come from files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import deltalakedb
from deltalakedb import Lake
from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool, open_database
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.writing import Written, write_log
from tests.mirror.readers import Travel

START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=10)
"""Spark travels no further back than the table keeps removed files."""
HOUR = timedelta(hours=1)
NEWEST = 5
BASELINE = 3


def ids(*numbers: int) -> pa.Table:
    return pa.table({"id": pa.array(numbers, pa.int64())})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A table that delta-rs wrote, one version an hour; its log is cleaned up to a checkpoint."""
    folder = tmp_path / "source"
    for n in range(NEWEST):
        write_deltalake(folder, ids(n), mode="append")
    DeltaTable(folder).delete("id = 1")
    DeltaTable(folder, version=BASELINE).create_checkpoint()
    log = folder / "_delta_log"
    for version in range(NEWEST + 1):
        time = (START + version * HOUR).timestamp()
        os.utime(log / f"{version:020}.json", (time, time))
    for version in range(BASELINE):
        (log / f"{version:020}.json").unlink()
    return folder


@pytest.fixture
def lake(tmp_path: Path, source: Path) -> Iterator[Lake]:
    """A lake with that table, which is not taken over."""
    with deltalakedb.connect(tmp_path / "lake") as lake:
        lake.import_table("t", source, cutover=False)
        yield lake


def written(lake: Lake, source: Path, folder: Path) -> Written:
    """The log of the table, written beside a copy of its data files."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("_delta_log"), dirs_exist_ok=True)
    pool = Pool(lambda: open_database(lake.settings.address))
    try:
        with pool.connection() as database:
            info = Catalog(database).table("t")
        return write_log(pool, info, Place(open_object_store(str(folder)), ""))
    finally:
        pool.close()


def rows_at(folder: Path, version: int) -> list[Any]:
    found: list[Any] = DeltaTable(folder, version=version).to_pyarrow_table()["id"].to_pylist()
    return sorted(found)


def test_a_log_without_its_beginning_begins_with_a_checkpoint(lake: Lake, source: Path, tmp_path: Path) -> None:
    """The oldest version that can be told comes first, as commit and checkpoint; all of it reads as at the source, and
    writing it again changes nothing."""
    copy = tmp_path / "copy"
    done = written(lake, source, copy)
    names = sorted(path.name for path in (copy / "_delta_log").iterdir())
    again = written(lake, source, copy)
    versions = range(BASELINE, NEWEST + 1)

    assert (done.first, done.last, done.checkpoints) == (BASELINE, NEWEST, (BASELINE, NEWEST))
    assert [name for name in names if not name.endswith(".crc")][:3] == [
        f"{BASELINE:020}.checkpoint.parquet",
        f"{BASELINE:020}.json",
        f"{BASELINE + 1:020}.json",
    ]
    assert again == done
    assert sorted(path.name for path in (copy / "_delta_log").iterdir()) == names
    assert [rows_at(copy, version) for version in versions] == [rows_at(source, version) for version in versions]


def test_spark_and_the_others_travel_by_the_times_of_files(
    lake: Lake, source: Path, tmp_path: Path, travels: dict[str, Travel]
) -> None:
    """The table has no in-commit timestamps: SQL, and every reader at the source and in a log that was written much
    later, agree on every moment."""
    copy = tmp_path / "copy"
    written(lake, source, copy)
    moments = [START + version * HOUR for version in (BASELINE, NEWEST)]
    moments.insert(1, moments[-1] - timedelta(milliseconds=1))
    in_sql = [lake.table("t", timestamp=moment).to_arrow().num_rows for moment in moments]
    found = {
        (name, place): [travel(place.as_uri(), moment) for moment in moments]
        for name, travel in travels.items()
        if name != "sail"  # it goes by times only where the log begins with version 0
        for place in (source, copy)
    }

    assert in_sql == [4, 5, 4]
    assert found == dict.fromkeys(found, in_sql)


def test_a_copy_begins_with_a_checkpoint_too(lake: Lake, source: Path, tmp_path: Path) -> None:
    """A table that stands in the lake read-only is served at other roots, and nothing is written at its source."""
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    root = tmp_path / "copies"
    lake.act("target-add", target="copy", kind="copy", root=root.as_uri())
    lake.sync(timeout=30)
    (folder,) = [path for path in root.iterdir() if path.name.startswith("source-")]

    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    assert rows_at(folder, BASELINE) == [0, 1, 2, 3]
    assert rows_at(folder, NEWEST) == rows_at(source, NEWEST) == [0, 2, 3, 4]
    assert min(path.name for path in (folder / "_delta_log").iterdir()) == f"{BASELINE:020}.checkpoint.parquet"
