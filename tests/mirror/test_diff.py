"""`diff`: SQL against a log, by meaning: what is equal, what only lags, and each thing that may differ."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from deltalakedb.actions import AddFile, DeletionVector
from deltalakedb.database import Pool
from deltalakedb.deltalog.log import DeltaLog
from deltalakedb.events import AppTransaction
from deltalakedb.log_names import checkpoint_path, log_path
from deltalakedb.objectstore import NewObject, ObjectStore
from deltalakedb.program import app
from deltalakedb_mirror_worker.checkpoint import checkpoint
from deltalakedb_mirror_worker.diff import TableDiff, Verdict, diff
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from tests.lakes import PARTITIONED, FilledLake, add, append, create, remove
from tests.mirrors import Root, progress_of, publish_all

on_every_store = pytest.mark.parametrize("root", ["local", "s3", "duckdb"], indirect=True)


def differences(lake: FilledLake, pool: Pool, table: str = "t") -> TableDiff:
    """What differs of a table in its own place."""
    return diff(pool, Place(lake.objects, table), progress_of(pool, table), "in-place")


def fill(lake: FilledLake) -> None:
    """A table `t` of four versions with partitions, a deletion vector, an application's transaction and removed files."""
    files = [add(f"day={n}/a%20{n}", day=str(n)) for n in range(6)]
    vector = DeletionVector(
        storage_type="u", path_or_inline_dv="ab^-aqEH.-t@S}K{vb[*k^", offset=1, size_in_bytes=34, cardinality=2
    )
    lake.commit(create("t", *files[:3], schema=PARTITIONED, partition_by=("day",), enableDeletionVectors="true"))
    lake.commit(append("t", *files[3:]), apps=(AppTransaction("loader", 7),))
    lake.commit(remove("t", files[0]), apps=(AppTransaction("other", 1),))
    lake.commit(
        append(
            "t",
            AddFile(
                path="day=9/v",
                partition_values={"day": "9"},
                size=5,
                modification_time=1,
                stats='{"numRecords":9}',
                deletion_vector=vector,
            ),
        )
    )


def rewrite(store: ObjectStore, version: int, change: Any) -> None:
    """Somebody changes a published commit: `change` gets its actions as a list of [kind, body], and changes them."""
    path = log_path("t", version)
    found = store.get(path)
    assert found is not None
    actions = [list(item) for line in found.data.splitlines() for item in json.loads(line).items()]
    change(actions)
    store.delete([path])
    store.put_if_absent(
        [NewObject(path, "".join(json.dumps({kind: body}, indent=1) + "\r\n" for kind, body in actions).encode())]
    )


@on_every_store
def test_equal_then_behind_then_equal(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """A log that is not there yet, or ends some versions ago, lags; published to the end, or checkpointed, it is equal."""
    fill(lake)
    none = differences(lake, pool)
    publish_all(mirror)
    whole = differences(lake, pool)
    lake.commit(append("t", add("day=1/late", day="1")))
    behind = differences(lake, pool)
    publish_all(mirror)
    with pool.connection() as db:
        checkpoint(db, Place(lake.objects, "t"), progress_of(pool, "t").table_id, 4)
    lake.objects.delete([log_path("t", n) for n in range(4)])
    cleaned = differences(lake, pool)

    assert (none.verdict, none.sql_version, none.log_version) == (Verdict.LAG, 3, None)
    assert (whole.verdict, whole.log_version) == (Verdict.EQUAL, 3)
    assert (behind.verdict, behind.sql_version, behind.log_version) == (Verdict.LAG, 4, 3)
    assert (cleaned.verdict, cleaned.log_version) == (Verdict.EQUAL, 4)
    assert [found.differences for found in (none, whole, behind, cleaned)] == [()] * 4


def test_statistics_that_the_table_keeps_out_of_checkpoints_are_not_missed(
    lake: FilledLake, mirror: Mirror, pool: Pool
) -> None:
    """Where a table wants checkpoints without statistics, a log that has none is as it should be."""
    lake.commit(create("t", add("a"), checkpoint_writeStatsAsJson="false", checkpoint_writeStatsAsStruct="false"))
    publish_all(mirror)
    with pool.connection() as db:
        checkpoint(db, Place(lake.objects, "t"), progress_of(pool, "t").table_id, 0)
    without = differences(lake, pool)

    assert "stats" not in json.loads(next(iter(live_adds(lake))))
    assert without.verdict is Verdict.EQUAL


def live_adds(lake: FilledLake) -> list[str]:
    """The live files of `t` as its log has them."""
    with DeltaLog(lake.objects, "t").state() as state:
        return [action.json for action in state.files()]


@on_every_store
def test_other_bytes_of_the_same_meaning_are_equal(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Order, spelling of paths and numbers, statistics in other words, features in another order: nothing of it counts."""
    fill(lake)
    publish_all(mirror)

    def respell(actions: list[Any]) -> None:
        for kind, body in actions:
            if kind == "add":
                body["path"] = "./" + body["path"].replace("%20", " ")
                body["stats"] = body["stats"].replace(
                    '"numRecords":', '"tightBounds": true, "maxValues":{}, "numRecords" : '
                )
                body["dataChange"] = not body["dataChange"]
                body["clusteringProvider"] = None
            if kind == "protocol":
                for name in ("readerFeatures", "writerFeatures"):
                    body[name].reverse()
            if kind == "metaData":
                body["schemaString"] = json.dumps(json.loads(body["schemaString"]), indent=3)
        actions.reverse()

    for version in range(4):
        rewrite(lake.objects, version, respell)

    assert differences(lake, pool).verdict is Verdict.EQUAL


def set_in(kind: str, name: str, value: Any) -> Any:
    """A change of one field of the first action of a kind."""

    def change(actions: list[Any]) -> None:
        next(body for found, body in actions if found == kind)[name] = value

    return change


@pytest.mark.parametrize("root", ["local"], indirect=True)
@pytest.mark.parametrize(
    ("version", "change", "counts", "about", "name"),
    [
        (1, set_in("add", "partitionValues", {"day": "8"}), {"partitionValues of a file": 1}, "file", "day=3/a%203"),
        (1, set_in("add", "stats", '{"numRecords":2}'), {"stats of a file": 1}, "file", "day=3/a%203"),
        (1, set_in("add", "stats", None), {"stats of a file": 1}, "file", "day=3/a%203"),
        (1, set_in("add", "size", 1), {"size of a file": 1}, "file", "day=3/a%203"),
        (1, set_in("add", "tags", {"a": "b"}), {"tags of a file": 1}, "file", "day=3/a%203"),
        (1, set_in("add", "path", "x"), {"file only in SQL": 1, "file only in the log": 1}, "file", "x"),
        (1, lambda actions: actions.pop(), {"file only in SQL": 1}, "file", "day=5/a%205"),
        (2, lambda actions: actions.pop(), {"file only in the log": 1}, "file", "day=0/a%200"),
        (3, lambda actions: actions[-1][1]["deletionVector"].update(cardinality=3), {"deletionVector of a file": 1}, "file", "day=9/v"),
        (3, lambda actions: actions[-1][1]["deletionVector"].update(offset=2), {"file only in SQL": 1, "file only in the log": 1}, "file", "day=9/v"),
        (1, set_in("txn", "version", 8), {"txn": 1}, "txn", "loader"),
        (1, lambda actions: actions.append(["txn", {"appId": "x", "version": 1}]), {"txn": 1}, "txn", "x"),
        (1, lambda actions: actions.append(["domainMetadata", {"domain": "d", "configuration": "{}"}]), {"domainMetadata": 1}, "domainMetadata", "d"),
        (0, set_in("metaData", "name", "renamed"), {"metaData": 1}, "metaData", "name"),
        (0, lambda actions: next(b for k, b in actions if k == "metaData")["configuration"].update(a="b"), {"metaData": 1}, "metaData", "configuration"),
        (0, lambda actions: next(b for k, b in actions if k == "protocol")["writerFeatures"].append("x"), {"protocol": 1}, "protocol", "writerFeatures"),
        (2, set_in("commitInfo", "timestamp", 1), {"history": 1}, "history", "version 2"),
        (2, set_in("commitInfo", "operation", None), {"history": 1}, "history", "version 2"),
        (2, lambda actions: actions.pop(0), {"history": 1}, "history", "version 2"),
    ],
)  # fmt: skip
def test_every_difference_is_told(
    lake: FilledLake,
    mirror: Mirror,
    pool: Pool,
    version: int,
    change: Any,
    counts: dict[str, int],
    about: str,
    name: str,
) -> None:
    """Whatever somebody changes in the log is counted as what it is, with both sides."""
    fill(lake)
    publish_all(mirror)
    rewrite(lake.objects, version, change)

    found = differences(lake, pool)

    assert found.verdict is Verdict.DRIFT
    assert found.counts == counts
    assert (about, name) in {(one.about, one.name) for one in found.differences}
    assert all(one.sql != one.log for one in found.differences)


@on_every_store
def test_a_log_that_is_not_ours_or_not_readable_is_drift(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """A commit above SQL's head, a gap and garbage: each is named, and what can be compared still is."""
    fill(lake)
    publish_all(mirror)
    lake.objects.put_if_absent([NewObject(log_path("t", 4), b'{"commitInfo":{"operation":"OPTIMIZE"}}')])
    foreign = differences(lake, pool)
    released = diff(pool, Place(lake.objects, "t"), replace(progress_of(pool, "t"), state="RELEASED"), "in-place")
    lake.objects.delete([log_path("t", 4), log_path("t", 2)])
    gap = differences(lake, pool)
    lake.objects.put_if_absent([NewObject(log_path("t", 2), b'{"commitInfo":')])
    garbage = differences(lake, pool)

    assert (foreign.verdict, foreign.sql_version, foreign.log_version) == (Verdict.DRIFT, 3, 4)
    assert [(one.name, one.log) for one in foreign.differences] == [(log_path("t", 4), {"operation": "OPTIMIZE"})]
    assert (released.verdict, released.log_version) == (Verdict.EQUAL, 4), "others may write what they were given back"
    assert (gap.verdict, gap.counts) == (Verdict.DRIFT, {"log": 1})
    assert "GAP" in gap.differences[0].log
    assert (garbage.verdict, garbage.counts) == (Verdict.DRIFT, {"log": 1, "history": 1})
    assert all("CORRUPT" in str(one.log) for one in garbage.differences)


def test_a_hint_to_a_checkpoint_that_is_not_there_is_drift(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Kernel readers then read nothing at all, although every commit is there."""
    fill(lake)
    publish_all(mirror)
    with pool.connection() as db:
        checkpoint(db, Place(lake.objects, "t"), progress_of(pool, "t").table_id, 3)
    lake.objects.delete([checkpoint_path("t", 3)])
    found = differences(lake, pool)

    assert (found.verdict, found.counts) == (Verdict.DRIFT, {"log": 1})
    assert found.differences[0].log == "it names a checkpoint of version 3, and there is none"


def test_a_checksum_that_contradicts_its_log_is_drift(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Spark refuses such a version, kernels believe the schema in it: it is told, though the log itself is right."""
    fill(lake)
    publish_all(mirror)
    path = log_path("t", 3).replace(".json", ".crc")
    lake.objects.delete([path])
    lake.objects.put_if_absent(
        [NewObject(path, b'{"tableSizeBytes":5005,"numFiles":5,"numMetadata":1,"numProtocol":1}')]
    )
    found = differences(lake, pool)

    assert found.counts == {"checksum": 1}
    assert found.differences[0].log == "t/_delta_log/00000000000000000003.crc says numFiles 5, the log says 6"


@pytest.mark.parametrize("root", ["local", "duckdb"], indirect=True)
def test_the_verb_tells_by_its_exit_code(lake: FilledLake, mirror: Mirror, root: Root) -> None:
    """0 equal, 3 only behind, 2 as soon as one table differs; for people and as JSON, one table or all."""
    fill(lake)
    lake.commit(create("u", add("a")))
    publish_all(mirror)
    options = ["--store", f"deltasql://{root.store}/{lake.address.path}"]
    run = CliRunner().invoke
    equal = run(app, ["diff", *options])
    lake.commit(append("u", add("b")))
    behind = run(app, ["diff", *options])
    rewrite(lake.objects, 1, set_in("add", "size", 1))
    drift = run(app, ["diff", *options])
    one = run(app, ["diff", "t", "--output", "json", *options])
    other = run(app, ["diff", "u", "--output", "json", *options])

    assert [result.exit_code for result in (equal, behind, drift, one, other)] == [0, 3, 2, 2, 3], equal.output
    assert equal.output.splitlines()[0].startswith("t (in-place): equal, SQL has version 3")
    assert "u (in-place): lag, SQL has version 1" in behind.output
    assert '    SQL: {"size":1000}\n    log: {"size":1}\n' in drift.output
    (told,) = json.loads(one.output)
    assert told["differences"] == [{"about": "file", "name": "day=3/a%203", "sql": {"size": 1000}, "log": {"size": 1}}]
    assert (told["verdict"], told["counts"]) == ("drift", {"size of a file": 1})
