"""Targets at another root: copies, whose data files the mirror brings, and replicas, whose data files others bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

import deltalakedb
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError, TxnLogValidationError
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import NewObject, ObjectStore
from deltalakedb.program import app
from deltalakedb_mirror_worker import watermark
from deltalakedb_mirror_worker.places import Places
from deltalakedb_mirror_worker.reconcile import Reconciler
from deltalakedb_mirror_worker.step import Mirror
from tests.lakes import FilledLake, add, append, create, remove
from tests.mirror.readers import fill, rows
from tests.mirrors import MakeMirror, Root, log_files, progress_of, publish_all


@pytest.fixture
def elsewhere(root: Root) -> str:
    """A root beside the lake's."""
    return f"{root.uri}-elsewhere"


@pytest.fixture
def objects(root: Root, elsewhere: str) -> ObjectStore:
    """What lies there."""
    return root.open(elsewhere)


def add_target(lake: FilledLake, kind: str, root: str) -> None:
    """A target with the name of its kind."""
    lake.act("target-add", target=kind, parameters={"kind": kind, "root": root})


def bring(lake: FilledLake, objects: ObjectStore, path: str) -> None:
    """Copy one file as somebody else would."""
    found = lake.objects.get(path)
    assert found is not None
    objects.put_if_absent([NewObject(path, found.data)])


def rows_at(location: str, root: Root, version: int | None = None) -> list[dict[str, Any]]:
    table = DeltaTable(location, version=version, storage_options=dict(root.options))
    found: list[dict[str, Any]] = table.to_pyarrow_table().sort_by("id").to_pylist()
    return found


def test_a_copy_has_every_table_with_its_files(
    lake: FilledLake, make_mirror: MakeMirror, pool: Pool, root: Root, elsewhere: str, objects: ObjectStore
) -> None:
    """Readers find the same rows at the other root, at every version; the lake's own tables are not published by it."""
    expected = fill(lake)
    add_target(lake, "copy", elsewhere)
    mirror = make_mirror(target="copy")
    progress = publish_all(mirror)
    with pool.connection() as db:
        watermark.write(mirror.places.root, watermark.load(db, "copy", mirror.places.uri))
    document = watermark.read(objects)

    assert (progress.published, progress.versions_behind, progress.failed) == (17, 0, 0)
    assert {name: rows_at(f"{elsewhere}/{name}", root) for name in expected} == expected
    assert [len(rows_at(f"{elsewhere}/plain", root, version)) for version in (0, 1, 5, 6)] == [2, 3, 7, 5]
    assert log_files(lake.objects, "plain") == []
    assert progress_of(pool, "plain").status is None
    assert document is not None
    assert (document.target, document.tables["odd"].location) == ("copy", f"{elsewhere}/odd")
    assert objects.get("_deltalakedb.json") is not None


def test_a_copy_takes_what_vacuum_has_left(
    lake: FilledLake, make_mirror: MakeMirror, pool: Pool, root: Root, elsewhere: str
) -> None:
    """A file that a newer version removed may be gone; one that is live must be there, or its version waits."""
    gone = lake.write("t", "gone.parquet", rows(1))
    lake.commit(create("t", gone))
    lake.commit(append("t", lake.write("t", "kept.parquet", rows(2))))
    lake.commit(remove("t", gone))
    lake.objects.delete(["t/gone.parquet"])
    add_target(lake, "copy", elsewhere)
    mirror = make_mirror(target="copy")
    publish_all(mirror)
    there = rows_at(f"{elsewhere}/t", root)
    lake.commit(append("t", add("never.parquet")))
    publish_all(mirror)
    failed = progress_of(pool, "t", "copy").status

    assert there == [{"id": 2, "text": "row 2"}]
    assert failed is not None
    assert (failed.state, failed.mirrored_version) == ("FAILED", 2)
    assert failed.last_error is not None
    assert "version 3 cannot be copied: 'never.parquet' is not in" in failed.last_error


def test_versions_too_wide_to_be_held_are_copied_like_others(
    lake: FilledLake,
    make_mirror: MakeMirror,
    pool: Pool,
    root: Root,
    elsewhere: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their files are read from SQL as a stream, and come before the version all the same."""
    for module in ("step", "portions", "wide"):
        monkeypatch.setattr(f"deltalakedb_mirror_worker.{module}.WIDE_ACTIONS", 3)
    lake.commit(create("t", *(lake.write("t", f"{n}.parquet", rows(n)) for n in range(5))))
    lake.commit(append("t", lake.write("t", "5.parquet", rows(5))))
    lake.commit(append("t", *(lake.write("t", f"{n}.parquet", rows(n)) for n in range(6, 10))))
    add_target(lake, "copy", elsewhere)
    progress = publish_all(make_mirror(target="copy"))

    assert (progress.failed, progress.versions_behind) == (0, 0)
    assert [row["id"] for row in rows_at(f"{elsewhere}/t", root)] == list(range(10))


def test_a_replica_waits_for_its_files(
    lake: FilledLake, make_mirror: MakeMirror, pool: Pool, root: Root, elsewhere: str, objects: ObjectStore
) -> None:
    """Versions appear in order, each once its files are there whole; other tables go on meanwhile."""
    lake.commit(create("t", lake.write("t", "0.parquet", rows(0))), create("u"))
    lake.commit(append("t", lake.write("t", "1.parquet", rows(1))))
    lake.commit(append("t", lake.write("t", "2.parquet", rows(2))))
    add_target(lake, "replica", elsewhere)
    mirror = make_mirror(target="replica")
    bring(lake, objects, "t/0.parquet")
    bring(lake, objects, "t/2.parquet")
    objects.put_if_absent([NewObject("t/1.parquet", b"half of it")])
    publish_all(mirror)
    waiting = progress_of(pool, "t", "replica").status
    other = progress_of(pool, "u", "replica").status
    objects.delete(["t/1.parquet"])
    bring(lake, objects, "t/1.parquet")
    while mirror.step().versions_behind:
        pass
    done = progress_of(pool, "t", "replica").status

    assert waiting is not None
    assert (waiting.state, waiting.mirrored_version, waiting.attempts) == ("IN_FLIGHT", 0, 0)
    assert waiting.last_error is not None
    assert "version 1 waits for its data files: '1.parquet' is not in" in waiting.last_error
    assert other is not None
    assert other.state == "SUCCEEDED"
    assert done is not None
    assert (done.state, done.mirrored_version, done.last_error) == ("SUCCEEDED", 2, None)
    assert len(rows_at(f"{elsewhere}/t", root)) == 3


def test_a_replica_does_not_wait_for_what_vacuum_took(
    lake: FilledLake, make_mirror: MakeMirror, pool: Pool, root: Root, elsewhere: str, objects: ObjectStore
) -> None:
    """A file that was removed longer ago than the table keeps removed files will never come."""
    gone, kept = lake.write("t", "gone.parquet", rows(1)), lake.write("t", "kept.parquet", rows(2))
    lake.commit(create("t", gone, kept, deletedFileRetentionDuration="interval 0 seconds"))
    lake.commit(remove("t", gone))
    add_target(lake, "replica", elsewhere)
    bring(lake, objects, "t/kept.parquet")
    mirror = make_mirror(target="replica")
    publish_all(mirror)

    assert rows_at(f"{elsewhere}/t", root) == [{"id": 2, "text": "row 2"}]


def test_targets_do_not_wait_for_each_other(
    lake: FilledLake, mirror: Mirror, make_mirror: MakeMirror, pool: Pool, elsewhere: str, objects: ObjectStore
) -> None:
    """Each target has its own status: a fence at one is none at the other, and a paused one does nothing."""
    lake.commit(create("t", lake.write("t", "0.parquet", rows(0))))
    add_target(lake, "copy", elsewhere)
    copy = make_mirror(target="copy")
    publish_all(copy)
    objects.put_if_absent([NewObject(log_path("t", 1), b'{"commitInfo":{"txnId":"theirs"}}\n')])
    lake.commit(append("t", lake.write("t", "1.parquet", rows(1))))
    publish_all(copy)
    publish_all(mirror)
    here, there = progress_of(pool, "t").status, progress_of(pool, "t", "copy").status
    lake.act("target-pause", target="copy")
    objects.delete([log_path("t", 1)])
    paused = (copy.step().published, Reconciler(pool, target="copy").round(copy.places))

    assert here is not None
    assert there is not None
    assert (here.state, here.mirrored_version) == ("SUCCEEDED", 1)
    assert (there.state, there.mirrored_version) == ("FENCED", 0)
    assert paused == (0, 0)


@pytest.mark.parametrize("below", ["", "/within"])
def test_a_target_keeps_out_of_the_lakes_own_root(root: Root, below: str) -> None:
    """Its files would be taken for tables, or overwrite their logs."""
    with pytest.raises(TxnLogMirrorError, match="overlap"):
        Places(root.uri, root.open, target=f"{root.uri}{below}")


def test_the_verbs_and_a_client_serve_an_embedded_lake(tmp_path: Path) -> None:
    """Targets come, pause, go on and go by their verbs. A commit by itself publishes at the tables' own places only; a
    client that waits for a target runs its mirror, as nobody else would."""
    copied = tmp_path / "copied"
    verb = ["mirror", "target"]
    where = ["--store", str(tmp_path / "lake")]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*verb, *arguments, *where])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    with deltalakedb.connect(tmp_path / "lake") as lake:
        lake.append("t", rows(1, 2))
        told = run("add", "backup", "--root", str(copied))
        lake.append("t", rows(3))
        before = copied.exists()
        lake.sync("t", targets="backup", timeout=30)
        run("pause", "backup")
        lake.append("t", rows(4))
        lake.sync("t", timeout=30)
        with pytest.raises(TxnLogValidationError, match="'backup' is paused"):
            lake.sync("t", targets="backup")
        paused = DeltaTable(str(copied / "t")).version()
        run("resume", "backup")
        lake.sync(timeout=30)
        listed = run("list")
        run("remove", "backup")
        left = json.loads(run("list", "--output", "json"))

    assert told == f"target backup: copy at {copied.as_uri()}; `deltalakedb mirror run --target backup` serves it\n"
    assert not before
    assert paused == 1
    assert DeltaTable(str(copied / "t")).to_pyarrow_table().num_rows == 4
    assert listed.splitlines()[1].split()[:6] == ["backup", "copy", "ACTIVE", "1", "0", "0"]
    assert [line["target"] for line in left] == ["in-place"]
