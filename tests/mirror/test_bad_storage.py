"""The mirror where storage fails: answers that are lost, refused, late or torn, disks that are full or do not flush."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from deltalakedb import failpoints
from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool, StoreAddress, open_database
from deltalakedb.errors import TxnLogError
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker import cleanup, upkeep
from deltalakedb_mirror_worker.step import Mirror
from deltalakedb_mirror_worker.upkeep import Upkeep
from tests.fix_s3 import S3Bucket
from tests.lakes import FilledLake, local_root
from tests.mirror.wholeness import check_done, check_readable, fill_all_kinds
from tests.s3_proxy import CUT_AFTER, CUT_BEFORE, TRUNCATED, Fault, S3Proxy

PUTS = (
    *(CUT_BEFORE, CUT_AFTER, Fault(status=412), Fault(status=503), Fault(delay=0.05, status=500)),
    *(Fault(reach=False, status=409), Fault(reach=False, status=503)),
)
READS = (TRUNCATED, CUT_AFTER, Fault(status=503), Fault(delay=0.05, truncate=True))
DELETES = (CUT_AFTER, Fault(status=503), Fault(reach=False, status=503))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for a quiet moment, nor before it is tried again; a step leaves nothing on its way."""
    monkeypatch.setattr(upkeep, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(upkeep, "WATERMARK_SECONDS", 0.0)
    monkeypatch.setattr(upkeep, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr("deltalakedb_mirror_worker.step.PATIENCE_SECONDS", 120.0)
    for module in ("step", "portions", "wide"):
        monkeypatch.setattr(f"deltalakedb_mirror_worker.{module}.WIDE_ACTIONS", 3)


class Whole:
    """A mirror with its upkeep, driven by hand."""

    def __init__(self, pool: Pool, mirror: Mirror, busy: Sequence[threading.Lock] = (), number: int = 0) -> None:
        """`busy` has a lock for each mirror of the target that is driven, this one's at `number`."""
        self._pool = pool
        self.mirror = mirror
        self.keeper = Upkeep(pool, lambda: mirror.places)
        self._busy = busy or (threading.Lock(),)
        self._number = number

    def work(self) -> bool:
        """Do a bit of everything; whether nothing is left. Errors of storage are what is tested."""
        try:
            with self._busy[self._number]:
                progress = self.mirror.step()
                assert progress.fenced == 0
                with self._pool.connection() as db:
                    tables = Catalog(db).progress("in-place")
                self.keeper.tell({t.table_no: t.status.mirrored_version for t in tables if t.status is not None})
                self.keeper.round()
            if progress.versions_behind:
                return False
            # What is cleaned up has expired a month later: no mirror is in the midst of a step for so long.
            with ExitStack() as idle:
                for busy in self._busy:
                    idle.enter_context(busy)
                now = int(time.time() * 1000) + 31 * cleanup.DAY_MS
                for table in tables:
                    place = self.mirror.places.of(table.location)
                    cleanup.clean(self._pool, self.mirror.places.root, place, table.table_id, "in-place", now)
            # Each log begins with its last checkpoint, and none is due that is not there: they come every 3 versions.
            return all(t.status is not None and t.status.log_start > max(0, t.version - 3) for t in tables)
        except TxnLogError:
            return False


def finish(worker: Whole, *, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not worker.work():
        assert time.monotonic() < deadline, "it does not come to an end"


@pytest.fixture
def lake_in(tmp_path: Path) -> Iterator[Callable[..., tuple[FilledLake, Pool]]]:
    """Makes a lake with tables of all kinds at a root."""
    made: list[tuple[FilledLake, Pool]] = []

    def make(root: str, **options: str) -> tuple[FilledLake, Pool]:
        address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
        lake = FilledLake(address, tmp_path, root, options=options)
        fill_all_kinds(lake)
        made.append((lake, Pool(lambda: open_database(address))))
        return made[-1]

    yield make
    for lake, pool in made:
        pool.close()
        lake.close()


@pytest.mark.parametrize("mirrors", [1, 2])
def test_bad_answers_leave_nothing_wrong(
    s3_bucket: S3Bucket,
    lake_in: Callable[..., tuple[FilledLake, Pool]],
    tmp_path: Path,
    mirrors: int,
) -> None:
    """Puts, reads and deletes fail in every way, for one mirror or two: no version twice, torn or out of order, and
    checkpoints, checksums and hints are right; afterwards nothing is left to do."""
    dice = random.Random(mirrors)
    lock = threading.Lock()

    def plan(method: str, path: str) -> Fault | None:
        faults = {"PUT": PUTS, "GET": READS, "POST": DELETES}.get(method, ())
        with lock:
            return dice.choice(faults) if faults and dice.random() < (0.3 if method == "PUT" else 0.1) else None

    lake, pool = lake_in(s3_bucket.uri("lake"), **s3_bucket.storage_options)
    with S3Proxy(s3_bucket.endpoint) as proxy, ThreadPoolExecutor(mirrors) as threads:
        options = {**s3_bucket.storage_options, "AWS_ENDPOINT_URL": proxy.endpoint}
        busy = [threading.Lock() for _ in range(mirrors)]
        workers = [
            Whole(pool, Mirror(pool, lambda uri: open_object_store(uri, options), max_pause=0.0), busy, number)
            for number in range(mirrors)
        ]
        for worker in workers:
            worker.mirror.places.root.probe()
        proxy.plan = plan
        list(threads.map(finish, workers))
        proxy.plan = lambda method, path: None
        for worker in workers:
            finish(worker)
            worker.mirror.close()
        stored = [
            path.rsplit("/", 3)[1:] for path in proxy.journal.stored() if path.endswith(".json") and "_log" in path
        ]
    with pool.connection() as db:
        check_readable(db, lake.objects, {})
        check_done(db, lake.objects, tmp_path, s3_bucket.storage_options)

    for table in ("plain", "v2", "wide"):
        versions = [int(name.removesuffix(".json")) for folder, _, name in stored if folder == table]
        assert versions == list(range(len(versions)))


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("local.written", errno.ENOSPC),
        ("local.flushed", errno.EIO),
        ("local.linked", errno.EIO),
        ("local.named", errno.EIO),
        ("local.replaced", errno.EIO),
        ("local.deleted", errno.EIO),
    ],
)
def test_a_disk_that_fails_stops_nothing_for_good(
    lake_in: Callable[..., tuple[FilledLake, Pool]], tmp_path: Path, place: str, number: int
) -> None:
    """Full, or unable to flush, again and again: what is there is whole all the time, and in the end all is there."""
    lake, pool = lake_in(local_root(tmp_path))
    worker = Whole(pool, Mirror(pool, open_object_store, max_pause=0.0))
    worker.mirror.places  # noqa: B018 - claims the root before anything fails
    dice = random.Random(number)
    failed = 0

    def fail() -> None:
        nonlocal failed
        if failed < 2 or dice.random() < 0.4:
            failed += 1
            raise OSError(number, os.strerror(number))

    failpoints.arm(place, fail)
    try:
        for _ in range(40):
            worker.work()
        with pool.connection() as db:
            check_readable(db, lake.objects, {})
    finally:
        failpoints.disarm()
    finish(worker)
    worker.mirror.close()
    with pool.connection() as db:
        check_readable(db, lake.objects, {})
        check_done(db, lake.objects, tmp_path)

    assert failed > 0


def test_a_full_disk_under_a_checkpoint_is_ridden_out(
    lake_in: Callable[..., tuple[FilledLake, Pool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a checkpoint cannot be made as a local file, versions go on, and it is made when there is room again."""
    _, pool = lake_in(local_root(tmp_path))
    worker = Whole(pool, Mirror(pool, open_object_store, max_pause=0.0))
    nowhere = tmp_path / "no-folder"
    nowhere.touch()
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(nowhere))
        for _ in range(5):
            worker.work()
        with pool.connection() as db:
            progress = Catalog(db).progress("in-place")
    finish(worker)
    worker.mirror.close()

    plain = next(table for table in progress if table.name == "plain")
    assert plain.status is not None
    assert (plain.status.mirrored_version, plain.status.checkpoint_version) == (plain.version, -1)
