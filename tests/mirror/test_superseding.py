"""Foreign histories give way to ours: on every object store, and whatever ends it in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError, TxnLogObjectStoreError
from deltalakedb.log_names import LAST_CHECKPOINT, checkpoint_path, log_path
from deltalakedb.objectstore import NewObject
from deltalakedb_mirror_worker.foreign import ForeignCommits, foreign_commits
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from deltalakedb_mirror_worker.superseding import kept_commits, supersede
from tests.lakes import FilledLake, add, append, create
from tests.mirrors import log_files, progress_of, publish_all, unpublished

THEIRS = {
    log_path("t", 2): b'{"commitInfo":{"txnId":"theirs-2"}}\n',
    log_path("t", 3): b'{"commitInfo":{"txnId":"theirs-3"}}\n',
    checkpoint_path("t", 3): b"their checkpoint",
    f"t/_delta_log/{LAST_CHECKPOINT}": b'{"version":3,"size":1}',
}


class Dying:
    """A store whose process ends at one of its deletes."""

    def __init__(self, store: Any, survived: int) -> None:
        self._store = store
        self._left = survived

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, paths: Sequence[str]) -> None:
        if self._left == 0:
            raise TxnLogObjectStoreError("killed")
        self._left -= 1
        self._store.delete(paths)


@pytest.fixture
def contested(lake: FilledLake, mirror: Mirror) -> FilledLake:
    """A lake whose table `t` has versions 0 to 2, and a foreign history from version 2 on in its log."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")))
    publish_all(mirror)
    lake.objects.put_if_absent([NewObject(path, data) for path, data in THEIRS.items()])
    lake.commit(append("t", add("c")))
    return lake


def found(lake: FilledLake, pool: Pool) -> ForeignCommits | None:
    return foreign_commits(pool, Place(lake.objects, "t"), progress_of(pool, "t"))


def test_every_file_of_theirs_is_kept_and_ours_take_their_places(
    contested: FilledLake, mirror: Mirror, pool: Pool
) -> None:
    """Commits, checkpoint and hint are moved, none is lost; there is a checkpoint of ours, and the mirror goes on by
    itself."""
    lake, table = contested, progress_of(pool, "t")
    foreign = found(lake, pool)
    assert foreign is not None
    seen = (list(foreign.instead), list(foreign.beyond))
    supersede(pool, lake.objects, Place(lake.objects, "t"), table, foreign)
    kept = {
        info.path.rsplit("/", 1)[1]: lake.objects.get(info.path)
        for info in lake.objects.list("_deltalakedb_conflicts/")
    }
    lake.commit(append("t", add("d")))
    publish_all(mirror)

    assert seen == ([2], [3])
    assert {name: each and each.data for name, each in kept.items()} == {
        path.rsplit("/", 1)[1]: data for path, data in THEIRS.items()
    }
    assert [(commit.version, commit.after) for commit in kept_commits(lake.objects, table)] == [(2, 1), (3, 1)]
    assert unpublished(pool, lake.objects, ["t"]) == {}
    assert [name for name in log_files(lake.objects, "t") if not name.endswith(".crc")] == [
        f"{0:020}.json",
        f"{1:020}.json",
        f"{2:020}.checkpoint.parquet",
        f"{2:020}.json",
        f"{3:020}.json",
        LAST_CHECKPOINT,
    ]
    assert found(lake, pool) is None


@pytest.mark.parametrize("survived", range(4))
def test_an_end_in_the_middle_leaves_a_log_that_can_be_read(contested: FilledLake, pool: Pool, survived: int) -> None:
    """What others built on goes before what it is built on, and the next call completes it all."""
    lake, table = contested, progress_of(pool, "t")
    foreign = found(lake, pool)
    assert foreign is not None
    dying: Any = Dying(lake.objects, survived)
    with pytest.raises(TxnLogObjectStoreError, match="killed"):
        supersede(pool, lake.objects, Place(dying, "t"), table, foreign)
    left = log_files(lake.objects, "t")
    again = found(lake, pool)
    assert again is not None
    supersede(pool, lake.objects, Place(lake.objects, "t"), table, again)

    order = [LAST_CHECKPOINT, f"{3:020}.checkpoint.parquet", f"{3:020}.json", f"{2:020}.json"]
    assert sorted(left) == sorted([f"{0:020}.json", f"{1:020}.json", *order[survived:]])
    assert {commit.version for commit in kept_commits(lake.objects, table)} == {2, 3}
    assert len(list(lake.objects.list("_deltalakedb_conflicts/"))) == len(THEIRS)
    assert unpublished(pool, lake.objects, ["t"]) == {}


def test_a_gap_in_what_others_wrote_is_named(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Nobody can read behind it, so nothing can be adopted."""
    lake.commit(create("t"))
    publish_all(mirror)
    lake.objects.put_if_absent([NewObject(log_path("t", 2), b'{"commitInfo":{}}\n')])

    with pytest.raises(TxnLogMirrorError, match="has a foreign version 2 and no version 1"):
        found(lake, pool)
