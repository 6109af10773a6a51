"""Checkpoints: what they hold, in every form a table may ask for, and who names them when."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool
from deltalakedb.deltalog.last_checkpoint import checksum
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.events import AppTransaction
from deltalakedb.objectstore import NewObject
from deltalakedb_mirror_worker import checkpoint as checkpoints
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from tests.lakes import PARTITIONED, FilledLake, add, append, create, remove
from tests.mirror.readers import ReadByAll
from tests.mirrors import log_files, progress_of, publish_all


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
            built = checkpoints.build(db, table_id, version, tmp_path)
            found[version] = live(built.main)
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
    schema = pq.ParquetFile(built.main).schema
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
        short = checkpoints.build(db, progress_of(pool, "t").table_id, 1, tmp_path)
        found = live(short.main)["remove"]
        week = checkpoints.build(db, progress_of(pool, "u").table_id, 1, tmp_path)

    assert (short.adds, found) == (1, [])
    assert (week.adds, [r["path"] for r in live(week.main)["remove"]]) == (1, ["a"])


def test_statistics_are_left_out_where_the_table_says_so(lake: FilledLake, pool: Pool, tmp_path: Path) -> None:
    """delta.checkpoint.writeStatsAsJson=false leaves the column away."""
    lake.commit(create("t", add("a"), checkpoint_writeStatsAsJson="false"))
    with pool.connection() as db:
        built = checkpoints.build(db, progress_of(pool, "t").table_id, 0, tmp_path)

    assert "stats" not in live(built.main)["add"][0]


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
        "00000000000000000000.crc",
        "00000000000000000000.json",
        "00000000000000000001.checkpoint.parquet",
        "00000000000000000001.crc",
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


def test_a_thousand_files_in_one_version(lake: FilledLake, mirror: Mirror, pool: Pool, tmp_path: Path) -> None:
    """A wide version and its checkpoint hold every file once."""
    files = tuple(add(f"part-{n:05}.parquet") for n in range(3_000))
    lake.commit(create("t"))
    for start in range(0, len(files), 1_000):
        lake.commit(append("t", *files[start : start + 1_000]))
    publish_all(mirror)
    with pool.connection() as db:
        built = checkpoints.build(db, progress_of(pool, "t").table_id, 3, tmp_path)
        catalog = Catalog(db)
        counted = catalog.table("t").live_files
    found = [lake.objects.get(f"t/_delta_log/{n:020}.json") for n in (1, 2, 3)]
    lines = [json.loads(line) for each in found if each is not None for line in each.data.splitlines()]

    assert built.adds == counted == 3_000
    assert sorted(line["add"]["path"] for line in lines if "add" in line) == [file.path for file in files]
    assert sorted(a["path"] for a in live(built.main)["add"]) == [file.path for file in files]


TYPES = (
    '{"type":"struct","fields":['
    + ",".join(
        f'{{"name":"{name}","type":"{kind}","nullable":true,"metadata":{{}}}}'
        for name, kind in (
            *(("id", "long"), ("text", "string"), ("price", "decimal(10,2)"), ("on", "date"), ("at", "timestamp")),
            *(("flag", "boolean"), ("day", "date")),
        )
    )
    + "]}"
)


def typed_rows(*ids: int) -> pa.Table:
    """Rows of a table of `TYPES`, without its partition column."""
    at = datetime(2024, 1, 1, 12, 0, 0, 123456, UTC)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "text": [f"row {n}" for n in ids],
            "price": pa.array([Decimal(n) for n in ids], pa.decimal128(10, 2)),
            "on": [date(2024, 1, n) for n in ids],
            "at": pa.array([at] * len(ids), pa.timestamp("us", "UTC")),
            "flag": [True] * len(ids),
        }
    )


def typed_statistics(n: int) -> str:
    """Of a file with the one row `n` of `typed_rows`."""
    low = {"id": n, "text": f"row {n}", "price": n, "on": f"2024-01-0{n}", "at": "2024-01-01T12:00:00.123Z"}
    high = {**low, "at": "2024-01-01T12:00:00.124Z"}
    counts = dict.fromkeys((*low, "flag"), 0)
    return json.dumps({"numRecords": 1, "minValues": low, "maxValues": high, "nullCount": counts})


def fill_typed(lake: FilledLake, table: str, **properties: str) -> list[dict[str, Any]]:
    """A partitioned table of many types, two files in two partitions; its rows."""
    files = []
    for n, day in ((1, "2024-05-01"), (2, None)):
        folder = "__HIVE_DEFAULT_PARTITION__" if day is None else day
        file = lake.write(table, f"day={folder}/{n}.parquet", typed_rows(n), day=day)
        files.append(msgspec.structs.replace(file, stats=typed_statistics(n)))
    lake.commit(create(table, *files, schema=TYPES, partition_by=("day",), **properties))
    days = [date(2024, 5, 1), None]
    return [{**row, "day": day} for row, day in zip(typed_rows(1, 2).to_pylist(), days, strict=True)]


STRUCT_ONLY = {"checkpoint_writeStatsAsJson": "false", "checkpoint_writeStatsAsStruct": "true"}


def test_statistics_as_columns_are_read_by_all(
    lake: FilledLake, mirror: Mirror, pool: Pool, read_by_all: ReadByAll, tmp_path: Path
) -> None:
    """A table may want statistics and partition values by their types, and no text: every reader reads it all the same."""
    expected = fill_typed(lake, "t", **STRUCT_ONLY)
    publish_all(mirror)
    table_id = progress_of(pool, "t").table_id
    with pool.connection() as db:
        assert checkpoints.checkpoint(db, Place(lake.objects, "t"), table_id, 0)
        built = checkpoints.build(db, table_id, 0, tmp_path)
    found = read_by_all(f"{lake.root}/t")
    first, second = sorted(live(built.main)["add"], key=lambda add: str(add["path"]))

    assert found == dict.fromkeys(found, expected)
    assert "stats" not in first
    assert [add["partitionValues_parsed"] for add in (first, second)] == [{"day": date(2024, 5, 1)}, {"day": None}]
    assert first["stats_parsed"]["numRecords"] == 1
    assert first["stats_parsed"]["minValues"]["price"] == Decimal("1.00")
    assert first["stats_parsed"]["maxValues"]["at"] == datetime(2024, 1, 1, 12, 0, 0, 124000, UTC)
    assert first["stats_parsed"]["nullCount"] == dict.fromkeys(("id", "text", "price", "on", "at", "flag"), 0)


V2 = {"checkpointPolicy": "v2", "checkpoint_writeStatsAsStruct": "true"}


def test_a_v2_checkpoint_has_sidecars_and_is_read(
    lake: FilledLake, mirror: Mirror, pool: Pool, read_by_all: ReadByAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that asks for it gets a main file with a unique name, its file actions in sidecars, and a hint to it."""
    monkeypatch.setattr("deltalakedb_mirror_worker.checkpoint.building.SIDECAR_ACTIONS", 1)
    expected = fill_typed(lake, "t", **V2)
    gone = lake.write("t", "day=2024-05-01/gone.parquet", typed_rows(9), day="2024-05-01")
    lake.commit(append("t", gone), apps=(AppTransaction("job", 7),))
    lake.commit(remove("t", gone))
    publish_all(mirror)
    with pool.connection() as db:
        assert checkpoints.checkpoint(db, Place(lake.objects, "t"), progress_of(pool, "t").table_id, 2)
    hint = lake.objects.get("t/_delta_log/_last_checkpoint")
    lake.objects.delete(["t/_delta_log/00000000000000000000.json", "t/_delta_log/00000000000000000001.json"])
    found = read_by_all(f"{lake.root}/t")
    sidecars = list(lake.objects.list("t/_delta_log/_sidecars/"))

    assert found == dict.fromkeys(("datafusion", "duckdb"), expected)
    assert len(sidecars) == 2
    assert hint is not None
    told = json.loads(hint.data)
    assert (told["version"], told["numOfAddFiles"], told["size"]) == (2, 2, 9)
    assert told["v2Checkpoint"]["path"] in log_files(lake.objects, "t")
    assert checksum(told) == told["checksum"]


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_spark_reads_checkpoints_of_every_form(lake: FilledLake, mirror: Mirror, pool: Pool, spark: Any) -> None:
    """With nothing but the checkpoint to go by, rows, pruning by statistics and by partition are right."""
    forms: dict[str, dict[str, str]] = {
        "classic": {},
        "struct": STRUCT_ONLY,
        "v2": V2,
        "v2_struct": {**V2, **STRUCT_ONLY},
    }
    for name, properties in forms.items():
        fill_typed(lake, name, **properties)
        gone = lake.write(name, "day=2024-05-01/gone.parquet", typed_rows(9), day="2024-05-01")
        lake.commit(append(name, gone))
        lake.commit(remove(name, gone))
    publish_all(mirror)
    for name in forms:
        with pool.connection() as db:
            assert checkpoints.checkpoint(db, Place(lake.objects, name), progress_of(pool, name).table_id, 2)
    lake.objects.delete([f"{name}/_delta_log/{n:020}.json" for name in forms for n in (0, 1)])
    found = {}
    for name in forms:
        table = spark.read.format("delta").load(f"{lake.root}/{name}")
        found[name] = (
            [row.id for row in table.orderBy("id").collect()],
            [row.id for row in table.where("price > 1.5 and at > '2024-01-01'").collect()],
            [row.id for row in table.where("day = '2024-05-01'").collect()],
        )

    assert found == dict.fromkeys(forms, ([1, 2], [2], [1]))


def test_old_transactions_leave_the_checkpoint(lake: FilledLake, pool: Pool, tmp_path: Path) -> None:
    """delta.setTransactionRetentionDuration counts back from the checkpoint's version; without it all are kept."""
    retentions: dict[str, dict[str, Any]] = {
        "t": {"setTransactionRetentionDuration": "interval 0 seconds"},
        "u": {},
    }
    for name, properties in retentions.items():
        lake.commit(create(name, **properties))
        lake.commit(append(name, add("a")), apps=(AppTransaction(name, 7),))
        lake.commit(append(name, add("b")))
    with pool.connection() as db:
        tables = {name: progress_of(pool, name).table_id for name in ("t", "u")}
        built = {}
        for name, table_id in tables.items():
            folder = tmp_path / name
            folder.mkdir()
            built[name] = checkpoints.build(db, table_id, 2, folder)
    found = {name: [txn["appId"] for txn in live(each.main)["txn"]] for name, each in built.items()}

    assert found == {"t": [], "u": ["u"]}


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_ours(lake: FilledLake, pool: Pool, tmp_path: Path) -> None:
    """Whatever the disk says, upkeep hears that there is no checkpoint, and goes on."""
    lake.commit(create("t", add("a")))
    with pool.connection() as db, pytest.raises(TxnLogMirrorError, match="could not be made"):
        checkpoints.build(db, progress_of(pool, "t").table_id, 0, tmp_path / "nowhere")
