"""`mirror repair`: what is missing is written again, what is not ours is reported and left alone."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.log_names import LAST_CHECKPOINT, checkpoint_path, log_path
from deltalakedb.objectstore import NewObject
from deltalakedb.program import app
from deltalakedb_mirror_worker.checkpoint import checkpoint
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.repair import repair_table
from deltalakedb_mirror_worker.step import Mirror
from tests.lakes import FilledLake, add, append, create
from tests.mirrors import Root, log_files, progress_of, publish_all, unpublished

FOREIGN = b'{"commitInfo":{"txnId":"foreign-txn","operation":"OPTIMIZE"}}\n'


def test_what_is_gone_comes_back_and_what_is_foreign_stays(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """A dry run only says so. A repair brings back the bytes of SQL, and names what is not ours; again it finds no gap."""
    lake.commit(create("t", add("a")))
    for n in range(9):
        lake.commit(append("t", add(f"{n}")))
    publish_all(mirror)
    lake.objects.delete([log_path("t", n) for n in (0, 4, 5, 7)])
    lake.objects.put_if_absent([NewObject(log_path("t", 7), FOREIGN), NewObject(log_path("t", 10), FOREIGN)])
    place = Place(lake.objects, "t")
    dry = repair_table(pool, place, progress_of(pool, "t"), "in-place", dry_run=True)
    untouched = unpublished(pool, lake.objects, ["t"])
    done = repair_table(pool, place, progress_of(pool, "t"), "in-place", dry_run=False)
    again = repair_table(pool, place, progress_of(pool, "t"), "in-place", dry_run=False)

    assert (dry.missing, dry.written) == ((0, 4, 5), False)
    assert untouched == {"t": [0, 4, 5, 7]}
    assert (done.first, done.last, done.missing, done.written) == (0, 9, (0, 4, 5), True)
    assert [(finding.version, finding.what) for finding in done.left] == [(7, "differs"), (10, "foreign")]
    assert all("foreign-txn" in finding.told for finding in done.left)
    assert (again.missing, again.left) == ((), done.left)
    assert unpublished(pool, lake.objects, ["t"]) == {"t": [7]}


def test_a_named_checkpoint_that_is_gone_is_made_again(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Some readers read nothing at all of a table whose `_last_checkpoint` names a checkpoint that is not there."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")))
    publish_all(mirror)
    place = Place(lake.objects, "t")
    with pool.connection() as db:
        checkpoint(db, place, progress_of(pool, "t").table_id, 0)
    lake.objects.delete([checkpoint_path("t", 0)])
    dry = repair_table(pool, place, progress_of(pool, "t"), "in-place", dry_run=True)
    done = repair_table(pool, place, progress_of(pool, "t"), "in-place", dry_run=False)
    hint = lake.objects.get(f"t/_delta_log/{LAST_CHECKPOINT}")

    assert (dry.checkpoint, done.checkpoint) == (1, 1)
    assert f"{1:020}.checkpoint.parquet" in log_files(lake.objects, "t")
    assert hint is not None
    assert json.loads(hint.data)["version"] == 1
    assert repair_table(pool, place, progress_of(pool, "t"), "in-place", dry_run=False).checkpoint is None


def test_nothing_is_repaired_that_was_never_published(lake: FilledLake, pool: Pool) -> None:
    """Publishing is the mirror's: a repair does not get ahead of it."""
    lake.commit(create("t", add("a")))

    with pytest.raises(TxnLogMirrorError, match="nothing of table 't' was published on in-place yet"):
        repair_table(pool, Place(lake.objects, "t"), progress_of(pool, "t"), "in-place", dry_run=False)


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_the_verb_tells_by_its_exit_code(lake: FilledLake, mirror: Mirror, root: Root) -> None:
    """0: all is there and ours, also because it was just written again; 2: something is missing or not ours."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")))
    publish_all(mirror)
    uri = f"deltasql://sqlite/{lake.address.path}?table=t"
    verb = ["mirror", "repair", uri]
    lake.objects.delete([log_path("t", 1)])
    dry = CliRunner().invoke(app, [*verb, "--dry-run"])
    done = CliRunner().invoke(app, verb)
    whole = CliRunner().invoke(app, verb)
    lake.objects.put_if_absent([NewObject(log_path("t", 2), FOREIGN)])
    foreign = CliRunner().invoke(app, [*verb, "--output", "json"])

    assert (dry.exit_code, dry.stdout.splitlines()[1]) == (2, "missing: 1")
    assert (done.exit_code, done.stdout.splitlines()[1]) == (0, "written again: 1")
    assert (whole.exit_code, whole.stdout.splitlines()[1]) == (0, "nothing is missing, and all of it is ours")
    assert foreign.exit_code == 2
    assert [finding["version"] for finding in json.loads(foreign.stdout)["left"]] == [2]
