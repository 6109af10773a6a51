"""What the mirror publishes, read by readers that know nothing of us; what it records of itself."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from deltalake import DeltaTable

from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogConfigError, TxnLogMirrorError
from deltalakedb.events import AppTransaction, SetProperties, TableWork
from deltalakedb.objectstore import NewObject
from deltalakedb_mirror_worker import checkpoint as checkpoints
from deltalakedb_mirror_worker import watermark
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from tests.lakes import FilledLake, add, append, create, local_path, remove
from tests.mirror.readers import ReadByAll, fill, rows
from tests.mirrors import MakeMirror, Root, log_files, progress_of, publish_all


def test_every_reader_reads_what_was_committed(
    lake: FilledLake, mirror: Mirror, pool: Pool, read_by_all: ReadByAll
) -> None:
    """Plain and partitioned tables, before there is a checkpoint and after, have the rows that were committed."""
    expected = fill(lake)
    progress = publish_all(mirror)
    from_json = {table: read_by_all(f"{lake.root}/{table}") for table in expected}
    for table in expected:
        status = progress_of(pool, table)
        with pool.connection() as db:
            assert checkpoints.checkpoint(db, Place(lake.objects, table), status.table_id, status.version)
    from_checkpoint = {table: read_by_all(f"{lake.root}/{table}") for table in expected}

    assert (progress.published, progress.versions_behind, progress.failed) == (17, 0, 0)
    assert from_json == {table: dict.fromkeys(from_json[table], there) for table, there in expected.items()}
    assert from_checkpoint == from_json


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_spark_reads_what_was_committed(lake: FilledLake, mirror: Mirror, pool: Pool, spark: Any) -> None:
    """Spark, which validates checkpoints and their schema most strictly, reads rows, history and times."""
    expected = fill(lake)
    publish_all(mirror)
    for table in expected:
        status = progress_of(pool, table)
        with pool.connection() as db:
            checkpoints.checkpoint(db, Place(lake.objects, table), status.table_id, status.version)
    lake.commit(append("plain", lake.write("plain", "after.parquet", rows(900))))
    publish_all(mirror)
    expected["plain"].append({"id": 900, "text": "row 900"})
    found = {}
    for table in expected:
        read = spark.read.format("delta").load(f"{lake.root}/{table}").orderBy("id")
        found[table] = [row.asDict() for row in read.collect()]
    newest = spark.sql(f"DESCRIBE HISTORY delta.`{lake.root}/plain` LIMIT 1").collect()[0]

    assert found == expected
    assert newest.version == progress_of(pool, "plain").version
    assert newest.timestamp.timestamp() * 1000 == progress_of(pool, "plain").time_ms
    assert newest.operation == "WRITE"


def test_versions_are_readable_one_by_one(lake: FilledLake, mirror: Mirror, root: Root) -> None:
    """Time travel by version sees each commit, and by time the commit at that time."""
    first = lake.write("t", "0.parquet", rows(0))
    commits = [lake.commit(create("t", first))]
    commits += [lake.commit(append("t", lake.write("t", f"{n}.parquet", rows(n)))) for n in (1, 2, 3)]
    publish_all(mirror)
    table = DeltaTable(f"{lake.root}/t", storage_options=dict(root.options))
    counts = []
    for version in range(4):
        table.load_as_version(version)
        counts.append(table.to_pyarrow_table().num_rows)
    times = {entry["version"]: entry["timestamp"] for entry in table.history()}

    assert counts == [1, 2, 3, 4]
    assert times == {n: commit.time_ms for n, commit in enumerate(commits)}


def test_local_files_carry_the_time_of_their_commit(lake: FilledLake, mirror: Mirror, root: Root) -> None:
    """A late mirror does not move commits in time for readers that go by file times."""
    if root.options:
        return  # object stores have their own times; in-commit timestamps say the same
    times = [lake.commit(create("t")).time_ms, lake.commit(append("t", add("x"))).time_ms]
    publish_all(mirror)
    folder = local_path(root.uri) / "t" / "_delta_log"

    assert [folder.joinpath(f"{n:020}.json").stat().st_mtime_ns // 1_000_000 for n in (0, 1)] == times


def test_all_kinds_of_actions_reach_the_log(lake: FilledLake, mirror: Mirror) -> None:
    """Application transactions, properties and removes are in the version that carries them, commitInfo first."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")), apps=(AppTransaction("job", 7),), user_metadata="note")
    lake.commit(TableWork(name="t", operation="SET TBLPROPERTIES", intents=(SetProperties(set={"x": "1"}),)))
    lake.commit(remove("t", add("a")))
    publish_all(mirror)
    found = [lake.objects.get(f"t/_delta_log/{n:020}.json") for n in range(4)]
    versions = [[json.loads(line) for line in each.data.splitlines()] for each in found if each is not None]
    kinds = [[next(iter(line)) for line in version] for version in versions]

    assert kinds == [
        ["commitInfo", "protocol", "metaData", "add"],
        ["commitInfo", "txn", "add"],
        ["commitInfo", "metaData"],
        ["commitInfo", "remove"],
    ]
    info = versions[1][0]["commitInfo"]
    assert info["userMetadata"] == "note"
    assert info["timestamp"] == info["inCommitTimestamp"] == versions[1][1]["txn"]["lastUpdated"]
    assert info["tags"] == {"commit_seq": "2"}
    assert versions[3][1]["remove"]["deletionTimestamp"] == versions[3][0]["commitInfo"]["inCommitTimestamp"]


def test_progress_tells_how_far_behind_the_target_is(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Steps say how far behind they leave the target, until nothing is; then the status says the same."""
    lake.commit(create("a"), create("b"))
    for n in range(300):
        lake.commit(append("a", add(f"{n}")))
    first = last = mirror.step()
    midway = progress_of(pool, "a").status
    deadline = time.monotonic() + 60
    while last.versions_behind and time.monotonic() < deadline:
        last = mirror.step()
    done = progress_of(pool, "a").status

    assert (first.published, first.versions_behind, first.more) == (129, 173, True)
    assert first.seconds_behind > 0
    assert midway is not None
    assert (midway.state, midway.mirrored_version) == ("IN_FLIGHT", 127)
    assert (last.versions_behind, last.seconds_behind) == (0, 0.0)
    assert done is not None
    assert (done.state, done.mirrored_version, done.attempts, done.last_error) == ("SUCCEEDED", 300, 0, None)


def test_nothing_is_published_twice_and_nothing_is_asked_twice(lake: FilledLake, mirror: Mirror) -> None:
    """A step without new commits does nothing."""
    lake.commit(create("t"))
    publish_all(mirror)
    before = log_files(lake.objects, "t")
    again = mirror.step()

    assert again.published == 0
    assert log_files(lake.objects, "t") == before


def test_a_paused_target_publishes_nothing(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Pausing holds versions back, and they come when it is lifted."""
    lake.commit(create("t"))
    with pool.connection() as db:
        db.execute("UPDATE dl_mirror_targets SET state = 'PAUSED'")
    paused = mirror.step()
    with pool.connection() as db:
        db.execute("UPDATE dl_mirror_targets SET state = 'ACTIVE'")
    resumed = mirror.step()

    assert (paused.published, resumed.published) == (0, 1)


def test_an_unknown_target_is_refused(lake: FilledLake, pool: Pool, root: Root) -> None:
    """The error names the targets that there are."""
    mirror = Mirror(pool, root.open, target="elsewhere")
    with pytest.raises(TxnLogConfigError, match="no mirror target 'elsewhere'; it has: in-place"):
        mirror.step()


def test_another_lakes_root_is_refused(lake: FilledLake, mirror: Mirror) -> None:
    """Nothing is published into a root that belongs to another lake."""
    lake.objects.put_if_absent([NewObject("_deltalakedb.json", b'{"lake_id":"somebody-else"}')])
    lake.commit(create("t"))
    with pytest.raises(TxnLogMirrorError, match="belongs to the lake somebody-else"):
        mirror.step()

    assert log_files(lake.objects, "t") == []


def watermark_now(lake: FilledLake, pool: Pool) -> watermark.Watermark:
    with pool.connection() as db:
        return watermark.load(db, "in-place")


def test_the_watermark_is_one_commit_of_the_lake(lake: FilledLake, make_mirror: MakeMirror, pool: Pool) -> None:
    """It stops before the first commit that is not published whole, and names every table's version there."""
    lake.commit(create("a"), create("b"))
    publish_all(make_mirror())
    empty_handed = watermark_now(lake, pool)
    lake.commit(append("a", add("1")))
    lake.commit(append("a", add("2")), append("b", add("1")))
    behind = watermark_now(lake, pool)
    with pool.connection() as db:
        db.execute("UPDATE dl_mirror_status SET mirrored_version = 2 WHERE table_no = 1")
    torn = watermark_now(lake, pool)
    publish_all(make_mirror())
    whole = watermark_now(lake, pool)

    def versions(mark: watermark.Watermark) -> tuple[int, dict[str, int]]:
        return mark.commit_seq, {name: table.version for name, table in mark.tables.items()}

    assert versions(empty_handed) == (1, {"a": 0, "b": 0})
    assert versions(behind) == (1, {"a": 0, "b": 0})
    assert versions(torn) == (2, {"a": 1, "b": 0})
    assert versions(whole) == (3, {"a": 2, "b": 1})
    assert whole.tables["b"].location == f"{lake.root}/b"


def test_the_watermark_document_only_moves_forward(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """A later document stays when an earlier one comes, an unreadable one is replaced."""
    lake.commit(create("a"))
    publish_all(mirror)
    early = watermark_now(lake, pool)
    lake.commit(append("a", add("1")))
    publish_all(mirror)
    late = watermark_now(lake, pool)
    lake.objects.put_if_match(watermark.NAME, b"not a document", None)
    answers = [watermark.write(lake.objects, mark) for mark in (early, late, early, late)]

    assert answers == [True, True, False, True]
    assert watermark.read(lake.objects) == late
