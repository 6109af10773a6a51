"""Log cleanup: what has expired goes, at a checkpoint that holds, and nobody puts it back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool
from deltalakedb.events import AppTransaction
from deltalakedb.log_names import parse_name
from deltalakedb.objectstore import NewObject
from deltalakedb_mirror_worker import checkpoint as checkpoints
from deltalakedb_mirror_worker import watermark
from deltalakedb_mirror_worker.cleanup import DAY_MS, clean, cutoff_ms, doomed_by
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.reconcile import Reconciler
from deltalakedb_mirror_worker.step import Mirror
from tests.lakes import FilledLake, append, create
from tests.mirror.readers import ReadByAll, rows
from tests.mirrors import MakeMirror, log_files, progress_of, publish_all

MONTH = 31 * DAY_MS
ROWS = [{"id": n, "text": f"row {n}"} for n in range(7)]
"""What `fill` leaves in a table."""


def fill(lake: FilledLake, mirror: Mirror, pool: Pool, *at: int, table: str = "t", **properties: Any) -> None:
    """A table of versions 0 to 6, published, with checkpoints of the versions `at`."""
    lake.commit(create(table, lake.write(table, "0.parquet", rows(0)), **properties))
    for n in range(1, 7):
        lake.commit(append(table, lake.write(table, f"{n}.parquet", rows(n))), apps=(AppTransaction(table, n),))
    publish_all(mirror)
    for version in at:
        with pool.connection() as db:
            assert checkpoints.checkpoint(db, Place(lake.objects, table), progress_of(pool, table).table_id, version)


def clean_up(lake: FilledLake, pool: Pool, *, later: int = MONTH, table: str = "t") -> int:
    """Clean the log of a table as it would be done `later` than now, in milliseconds."""
    now = int(time.time() * 1000) + later
    return clean(pool, lake.objects, Place(lake.objects, table), progress_of(pool, table).table_id, "in-place", now)


def versions(lake: FilledLake, table: str = "t") -> dict[str, list[int]]:
    """The versions that there are files of, by kind of file."""
    found: dict[str, list[int]] = {}
    for name in log_files(lake.objects, table):
        if (parsed := parse_name(name)) is not None:
            found.setdefault(name.split(".")[1], []).append(parsed.version)
    return found


def test_the_log_is_cut_at_the_newest_checkpoint_that_has_expired(
    lake: FilledLake, mirror: Mirror, pool: Pool, read_by_all: ReadByAll
) -> None:
    """Commits, checksums and checkpoints below it go; its own version stays as JSON, and every reader reads on."""
    fill(lake, mirror, pool, 2, 4)
    deleted = clean_up(lake, pool)
    again = clean_up(lake, pool)
    found = read_by_all(f"{lake.root}/t")

    assert (deleted, again) == (6, 0)
    assert versions(lake) == {"json": [4, 5, 6], "checkpoint": [4], "crc": [4]}
    assert found == dict.fromkeys(found, ROWS)
    status = progress_of(pool, "t").status
    assert status is not None
    assert (status.log_start, status.first_kept) == (4, 4)


def test_what_was_cleaned_up_is_not_put_back(lake: FilledLake, make_mirror: MakeMirror, pool: Pool) -> None:
    """Neither reconciling nor a mirror that starts anew misses it; what is gone above it comes back."""
    mirror = make_mirror()
    fill(lake, mirror, pool, 4)
    clean_up(lake, pool)
    lake.objects.delete([f"t/_delta_log/{5:020}.json"])
    repaired = Reconciler(pool).round(mirror.places)
    lake.objects.delete([f"t/_delta_log/{n:020}.json" for n in (4, 6)])
    lake.commit(append("t", lake.write("t", "7.parquet", rows(7))))
    publish_all(make_mirror())

    assert repaired == 1
    assert versions(lake)["json"] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("properties", "later"),
    [
        ({}, 29 * DAY_MS),
        ({"enableExpiredLogCleanup": "false"}, MONTH),
        ({"logRetentionDuration": "interval 60 days"}, MONTH),
    ],
)
def test_what_has_not_expired_stays(
    lake: FilledLake, mirror: Mirror, pool: Pool, properties: dict[str, str], later: int
) -> None:
    """The retention is the table's own, 30 days if it says nothing, and a table may keep everything."""
    fill(lake, mirror, pool, 4, **properties)

    assert clean_up(lake, pool, later=later) == 0
    assert versions(lake)["json"] == list(range(7))


def test_nothing_goes_without_a_checkpoint_that_holds(
    lake: FilledLake, mirror: Mirror, pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any, beside a stranger, or where the checkpoint is not what SQL has: the log stays whole."""
    fill(lake, mirror, pool)
    none = clean_up(lake, pool)
    with pool.connection() as db:
        other = checkpoints.build(db, progress_of(pool, "t").table_id, 3, tmp_path).main.read_bytes()
    lake.objects.put_if_absent([NewObject(f"t/_delta_log/{4:020}.checkpoint.parquet", other)])
    wrong = clean_up(lake, pool)
    with pool.connection() as db:
        db.execute("UPDATE dl_mirror_status SET state = 'FENCED'")
    fenced = clean_up(lake, pool)

    assert (none, wrong, fenced) == (0, 0, 0)
    assert versions(lake)["json"] == list(range(7))
    assert f"{4:020}.checkpoint.parquet holds" in caplog.text


def test_versions_that_readers_are_sent_to_stay(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """The watermark document names one version of every table, however old: the log is not cut behind it."""
    fill(lake, mirror, pool, 2, 4)
    with pool.connection() as db:
        db.execute("UPDATE dl_mirror_status SET mirrored_version = 3")
        mark = watermark.load(db, "in-place")
        db.execute("UPDATE dl_mirror_status SET mirrored_version = 6")
    watermark.write(lake.objects, mark)
    clean_up(lake, pool)

    assert mark.tables["t"].version == 3
    assert versions(lake)["json"] == [2, 3, 4, 5, 6]


def test_unnamed_sidecars_go_when_they_are_old(
    lake: FilledLake, mirror: Mirror, pool: Pool, read_by_all: ReadByAll, tmp_path: Path
) -> None:
    """Those of checkpoints that went go with them, those that are named stay; old readers find a classic name."""
    fill(lake, mirror, pool, 2, 4, checkpointPolicy="v2")
    before = {found.path for found in lake.objects.list("t/_delta_log/_sidecars/")}
    clean_up(lake, pool)
    after = {found.path for found in lake.objects.list("t/_delta_log/_sidecars/")}
    found = read_by_all(f"{lake.root}/t")
    with pool.connection() as db, db.snapshot():
        catalog = Catalog(db)
        size = catalog.size_at(catalog.table("t", version=4))

    assert len(before) == 2
    assert len(after) == 1
    assert after < before
    assert versions(lake) == {"json": [4, 5, 6], "checkpoint": [4, 4], "crc": [4]}
    assert found == dict.fromkeys(("datafusion", "duckdb"), ROWS)
    classic = f"{4:020}.checkpoint.parquet"
    assert classic in log_files(lake.objects, "t")
    assert checkpoints.counted(Place(lake.objects, "t"), classic, tmp_path) == size


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_spark_reads_a_log_that_was_cleaned_up(lake: FilledLake, mirror: Mirror, pool: Pool, spark: Any) -> None:
    """Rows and history from the cut on, in a classic log as in one with V2 checkpoints."""
    forms: dict[str, dict[str, str]] = {"classic": {}, "v2": {"checkpointPolicy": "v2"}}
    for name, properties in forms.items():
        fill(lake, mirror, pool, 2, 4, table=name, **properties)
        clean_up(lake, pool, table=name)
    found = {}
    for name in forms:
        ids = [row.id for row in spark.read.format("delta").load(f"{lake.root}/{name}").orderBy("id").collect()]
        history = [row.version for row in spark.sql(f"DESCRIBE HISTORY delta.`{lake.root}/{name}`").collect()]
        found[name] = (ids, history)

    assert found == dict.fromkeys(forms, (list(range(7)), [6, 5, 4]))


def test_the_cutoff_is_the_same_all_day() -> None:
    """Whole days, so that a table that is looked at again on the same day has nothing new to delete."""
    day = 20_000 * DAY_MS

    assert {cutoff_ms(day + hour * 3_600_000, 30 * DAY_MS) for hour in range(24)} == {day - 30 * DAY_MS}
    assert cutoff_ms(day, 30 * DAY_MS + 1) == day - 31 * DAY_MS


def test_only_files_of_the_protocol_go() -> None:
    """Commits first and checkpoints last; other names, the hint, and everything from the cut on stay."""
    v = [f"{n:020}" for n in range(5)]
    names = [
        *(f"{n}.json" for n in v),
        *(f"{n}.crc" for n in v),
        *(f"{v[2]}.checkpoint.parquet", f"{v[3]}.checkpoint.parquet"),
        f"{v[1]}.checkpoint.0000000001.0000000002.parquet",
        f"{v[1]}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json",
        *(f"{v[0]}.{v[2]}.compacted.json", f"{v[3]}.{v[4]}.compacted.json", f"{v[4]}.{v[4]}.compacted.json"),
        *("_last_checkpoint", "0.json", "mine.txt", f".{v[0]}.json.crc", f"{v[0]}.json.tmp"),
    ]

    assert list(doomed_by(names, 3)) == [
        *(f"{n}.json" for n in v[:3]),
        *(f"{v[0]}.{v[2]}.compacted.json", f"{v[0]}.crc", f"{v[1]}.crc", f"{v[2]}.crc"),
        f"{v[3]}.{v[4]}.compacted.json",
        f"{v[1]}.checkpoint.0000000001.0000000002.parquet",
        f"{v[1]}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json",
        f"{v[2]}.checkpoint.parquet",
    ]
