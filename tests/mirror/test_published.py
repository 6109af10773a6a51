"""What the mirror publishes, read by readers that know nothing of us; what it records of itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder

from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.events import AppTransaction, SetProperties, TableWork
from deltalakedb.objectstore import NewObject
from deltalakedb_mirror_worker import checkpoint as checkpoints
from deltalakedb_mirror_worker import watermark
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from tests.fix_s3 import S3Bucket
from tests.lakes import PARTITIONED, FilledLake, add, append, create, local_path, remove
from tests.mirrors import MakeMirror, Root, log_files, progress_of, publish_all

Reader = Callable[[str], list[dict[str, Any]]]


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "text": [f"row {n}" for n in ids]})


def days(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


def fill(lake: FilledLake) -> dict[str, list[dict[str, Any]]]:
    """Three tables over a dozen versions, with removes, partitions and odd names; the rows that are left in each."""
    first = lake.write("plain", "part-0.parquet", rows(1, 2))
    day = lake.write("days", "day=mon/a.parquet", days(1), day="mon")
    null = lake.write("days", "day=__HIVE_DEFAULT_PARTITION__/b.parquet", days(2), day=None)
    odd = [
        lake.write("odd", "day=a%20b%25253A/c%20d.parquet", days(3), day="a b%3A"),
        lake.write("odd", "day=%C3%BC/e.parquet", days(4), day="ü"),
    ]
    by_day: dict[str, Any] = {"schema": PARTITIONED, "partition_by": ("day",)}
    lake.commit(create("plain", first), create("days", day, null, **by_day), create("odd", *odd, **by_day))
    for n in range(1, 12):
        file = lake.write("plain", f"part-{n}.parquet", rows(10 * n))
        lake.commit(append("plain", file))
        if n == 5:
            lake.commit(remove("plain", first))
    lake.commit(remove("days", day), append("plain", lake.write("plain", "last.parquet", rows(500))))
    return {
        "plain": [{"id": n, "text": f"row {n}"} for n in [*range(10, 120, 10), 500]],
        "days": [{"id": 2, "day": None}],
        "odd": [{"id": 3, "day": "a b%3A"}, {"id": 4, "day": "ü"}],
    }


@pytest.fixture
def read_by_all(
    root: Root,
    request: pytest.FixtureRequest,
    duckdb_connection: duckdb.DuckDBPyConnection,
    duckdb_s3: Callable[[S3Bucket], None],
) -> Callable[[str], dict[str, list[dict[str, Any]]]]:
    """Rows of the table at a location, ordered by id, by each reader."""
    options = dict(root.options)
    if options:
        duckdb_s3(request.getfixturevalue("s3_bucket"))

    def delta_rs(location: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (
            DeltaTable(location, storage_options=options).to_pyarrow_table().sort_by("id").to_pylist()
        )
        return found

    def data_fusion(location: str) -> list[dict[str, Any]]:
        builder = QueryBuilder().register("t", DeltaTable(location, storage_options=options))
        found: list[dict[str, Any]] = pa.table(builder.execute("SELECT * FROM t ORDER BY id").read_all()).to_pylist()
        return found

    def duck(location: str) -> list[dict[str, Any]]:
        cursor = duckdb_connection.execute("SELECT * FROM delta_scan($1) ORDER BY id", [location])
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def polars_rows(location: str) -> list[dict[str, Any]]:
        return polars.scan_delta(location, storage_options=options).collect().sort("id").to_dicts()

    readers = {"delta-rs": delta_rs, "datafusion": data_fusion, "duckdb": duck, "polars": polars_rows}
    # Polars (2.1) asks an object store for a percent-encoded path as it stands in the log, which nobody wrote.
    unable = {("polars", "odd")} if options else set()

    def read(location: str) -> dict[str, list[dict[str, Any]]]:
        table = location.rsplit("/", 1)[1]
        return {name: reader(location) for name, reader in readers.items() if (name, table) not in unable}

    return read


def test_every_reader_reads_what_was_committed(
    lake: FilledLake, mirror: Mirror, pool: Pool, read_by_all: Callable[[str], dict[str, list[dict[str, Any]]]]
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
    # A step ends after a slice of each table, or after its time, whichever comes first.
    deadline = time.monotonic() + 60
    while last.versions_behind and time.monotonic() < deadline:
        last = mirror.step()
    done = progress_of(pool, "a").status

    assert 1 <= first.published <= 129
    assert (first.versions_behind, first.more) == (302 - first.published, True)
    assert first.seconds_behind > 0
    assert midway is not None
    assert midway.state in {"PENDING", "IN_FLIGHT"}
    assert midway.mirrored_version in {-1, 127}
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
    with pytest.raises(TxnLogMirrorError, match="no mirror target 'elsewhere'; it has: in-place"):
        mirror.step()


def test_another_lakes_root_is_refused(lake: FilledLake, mirror: Mirror) -> None:
    """Nothing is published into a root that belongs to another lake."""
    lake.objects.put_if_absent([NewObject("_deltalakedb.json", b'{"lake_id":"somebody-else"}')])
    lake.commit(create("t"))
    with pytest.raises(TxnLogMirrorError, match="belongs to the lake somebody-else"):
        mirror.step()

    assert log_files(lake.objects, "t") == []


def live(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The actions of a checkpoint by kind."""
    table = pq.read_table(path)
    return {name: [row for row in table[name].to_pylist() if row is not None] for name in table.column_names}


def test_a_checkpoint_is_what_replay_gives(lake: FilledLake, pool: Pool, tmp_path: Path) -> None:
    """Live files, tombstones, transactions and table at any version, in exactly the schema that Spark writes."""
    a, b, c = (add(name, day=day) for name, day in (("a", "1"), ("b", None), ("c", "2")))
    lake.commit(create("t", a, b, schema=PARTITIONED, partition_by=("day",)))
    lake.commit(append("t", c), apps=(AppTransaction("job", 7),))
    lake.commit(remove("t", a))
    lake.commit(append("t", a), apps=(AppTransaction("job", 8), AppTransaction("other", 1)))
    lake.commit(remove("t", b))
    table_id = progress_of(pool, "t").table_id
    found = {}
    with pool.connection() as db:
        for version in range(5):
            file = tmp_path / f"{version}.parquet"
            built = checkpoints.build(db, table_id, version, file)
            found[version] = live(file)
            assert built.actions == sum(len(actions) for actions in found[version].values())
            assert built.adds == len(found[version]["add"])

    def paths(version: int, kind: str) -> list[str]:
        return sorted(action["path"] for action in found[version][kind])

    assert [paths(v, "add") for v in range(5)] == [["a", "b"], ["a", "b", "c"], ["b", "c"], ["a", "b", "c"], ["a", "c"]]
    assert [paths(v, "remove") for v in range(5)] == [[], [], ["a"], [], ["b"]]
    assert [[(t["appId"], t["version"]) for t in found[v]["txn"]] for v in (0, 1, 4)] == [
        [],
        [("job", 7)],
        [("job", 8), ("other", 1)],
    ]
    newest = found[4]
    (protocol,), (metadata,) = newest["protocol"], newest["metaData"]
    assert (protocol["minReaderVersion"], protocol["minWriterVersion"]) == (1, 7)
    assert protocol["readerFeatures"] is None
    assert "inCommitTimestamp" in protocol["writerFeatures"]
    assert metadata["partitionColumns"] == ["day"]
    assert dict(metadata["configuration"])["delta.enableInCommitTimestamps"] == "true"
    assert {a["path"]: dict(a["partitionValues"]) for a in newest["add"]} == {"a": {"day": "1"}, "c": {"day": "2"}}
    assert all(action["dataChange"] is False for action in newest["add"])
    assert all(json.loads(action["stats"]) == {"numRecords": 1} for action in newest["add"])
    schema = pq.ParquetFile(tmp_path / "4.parquet").schema
    assert {schema.column(i).physical_type for i in range(len(schema)) if "min" in schema.column(i).path} == {"INT32"}
    required = [schema.column(i).path for i in range(len(schema)) if schema.column(i).max_definition_level == 0]
    assert required == []


def test_tombstones_are_kept_by_the_versions_own_time(lake: FilledLake, pool: Pool, tmp_path: Path) -> None:
    """Retention counts back from the checkpoint's version, not from now; a short one keeps nothing old."""
    a, b = add("a"), add("b")
    lake.commit(create("t", a, b, deletedFileRetentionDuration="interval 0 seconds"))
    lake.commit(remove("t", a))
    lake.commit(create("u", a, b))
    lake.commit(remove("u", a))
    with pool.connection() as db:
        short = checkpoints.build(db, progress_of(pool, "t").table_id, 1, tmp_path / "t.parquet")
        week = checkpoints.build(db, progress_of(pool, "u").table_id, 1, tmp_path / "u.parquet")

    assert (short.adds, live(tmp_path / "t.parquet")["remove"]) == (1, [])
    assert (week.adds, [r["path"] for r in live(tmp_path / "u.parquet")["remove"]]) == (1, ["a"])


def test_statistics_are_left_out_where_the_table_says_so(lake: FilledLake, pool: Pool, tmp_path: Path) -> None:
    """delta.checkpoint.writeStatsAsJson=false leaves the column away."""
    lake.commit(create("t", add("a"), checkpoint_writeStatsAsJson="false"))
    with pool.connection() as db:
        checkpoints.build(db, progress_of(pool, "t").table_id, 0, tmp_path / "t.parquet")

    assert "stats" not in live(tmp_path / "t.parquet")["add"][0]


def test_a_checkpoint_is_published_once_and_named_last(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Repeating it changes nothing; an older one never takes the name back; an unpublished version gets none."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")))
    publish_all(mirror)
    lake.commit(append("t", add("c")))
    place, table_id = Place(lake.objects, "t"), progress_of(pool, "t").table_id
    with pool.connection() as db:
        newer = checkpoints.checkpoint(db, place, table_id, 1)
        again = checkpoints.checkpoint(db, place, table_id, 1)
        older = checkpoints.checkpoint(db, place, table_id, 0)
        with pytest.raises(TxnLogMirrorError, match="version 2 is not published"):
            checkpoints.checkpoint(db, place, table_id, 2)
    hint = lake.objects.get("t/_delta_log/_last_checkpoint")

    assert (newer, again, older) == (True, True, False)
    assert hint is not None
    assert json.loads(hint.data)["version"] == 1
    assert log_files(lake.objects, "t") == [
        "00000000000000000000.checkpoint.parquet",
        "00000000000000000000.json",
        "00000000000000000001.checkpoint.parquet",
        "00000000000000000001.json",
        "_last_checkpoint",
    ]


def test_a_foreign_checkpoint_is_left_alone_and_not_named(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """What lies there already and is not ours is neither overwritten nor vouched for."""
    lake.commit(create("t", add("a")))
    publish_all(mirror)
    path = "t/_delta_log/00000000000000000000.checkpoint.parquet"
    lake.objects.put_if_absent([NewObject(path, b"foreign")])
    with pool.connection() as db:
        named = checkpoints.checkpoint(db, Place(lake.objects, "t"), progress_of(pool, "t").table_id, 0)
    found = lake.objects.get(path)

    assert not named
    assert found is not None
    assert found.data == b"foreign"
    assert lake.objects.get("t/_delta_log/_last_checkpoint") is None


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


def test_a_thousand_files_in_one_version(lake: FilledLake, mirror: Mirror, pool: Pool, tmp_path: Path) -> None:
    """A wide version and its checkpoint hold every file once."""
    files = tuple(add(f"part-{n:05}.parquet") for n in range(3_000))
    lake.commit(create("t"))
    for start in range(0, len(files), 1_000):
        lake.commit(append("t", *files[start : start + 1_000]))
    publish_all(mirror)
    with pool.connection() as db:
        built = checkpoints.build(db, progress_of(pool, "t").table_id, 3, tmp_path / "t.parquet")
        catalog = Catalog(db)
        counted = catalog.table("t").live_files
    found = [lake.objects.get(f"t/_delta_log/{n:020}.json") for n in (1, 2, 3)]
    lines = [json.loads(line) for each in found if each is not None for line in each.data.splitlines()]

    assert built.adds == counted == 3_000
    assert sorted(line["add"]["path"] for line in lines if "add" in line) == [file.path for file in files]
    assert sorted(a["path"] for a in live(tmp_path / "t.parquet")["add"]) == [file.path for file in files]
