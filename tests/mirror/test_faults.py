"""The mirror when strangers write, answers are lost, files vanish and two of it run."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deltalakedb.database import Pool
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import NewObject
from deltalakedb_mirror_worker.places import Places
from deltalakedb_mirror_worker.reconcile import Reconciler
from deltalakedb_mirror_worker.step import Mirror
from tests.fix_s3 import S3Bucket
from tests.lakes import FilledLake, add, append, create, remove
from tests.mirrors import MakeMirror, Root, log_files, progress_of, publish_all, unpublished
from tests.s3_proxy import CUT_AFTER, CUT_BEFORE, Fault, S3Proxy

FOREIGN = b'{"commitInfo":{"txnId":"foreign-txn","operation":"OPTIMIZE","engineInfo":"somebody/1.0"}}\n'


def foreign(lake: FilledLake, table: str, version: int, data: bytes = FOREIGN) -> None:
    lake.objects.put_if_absent([NewObject(log_path(table, version), data)])


def test_a_foreign_commit_fences_its_table_and_no_other(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """The table stops where the stranger is, both sides are named, nothing is overwritten, the others go on."""
    lake.commit(create("t"), create("u"))
    publish_all(mirror)
    foreign(lake, "t", 2)
    commits = [lake.commit(append("t", add(f"{n}")), append("u", add(f"{n}"))) for n in range(3)]
    progress = publish_all(mirror)
    fenced, free = progress_of(pool, "t").status, progress_of(pool, "u").status
    there = lake.objects.get(log_path("t", 2))
    with pool.connection() as db:
        (ours,) = db.query("SELECT txn_id FROM dl_table_versions WHERE table_no = 1 AND version = 2")[0]

    assert len(commits) == 3
    assert (progress.published, progress.fenced, progress.versions_behind) == (4, 1, 2)
    assert fenced is not None
    assert free is not None
    assert (fenced.state, fenced.mirrored_version) == ("FENCED", 1)
    assert (free.state, free.mirrored_version) == ("SUCCEEDED", 3)
    assert fenced.fenced_by is not None
    assert ours in fenced.fenced_by
    assert "txnId foreign-txn, operation OPTIMIZE, engineInfo somebody/1.0" in fenced.fenced_by
    assert there is not None
    assert there.data == FOREIGN
    assert log_files(lake.objects, "t")[-1] == f"{2:020}.json"


def test_a_fenced_table_goes_on_when_the_stranger_is_gone(
    lake: FilledLake, make_mirror: MakeMirror, pool: Pool
) -> None:
    """Taking the foreign file away is enough, for this mirror as for the next one."""
    mirror = make_mirror()
    lake.commit(create("t"))
    publish_all(mirror)
    foreign(lake, "t", 1)
    lake.commit(append("t", add("1")))
    publish_all(mirror)
    before = progress_of(pool, "t").status
    lake.objects.delete([log_path("t", 1)])
    progress = publish_all(mirror)
    after = progress_of(pool, "t").status

    assert before is not None
    assert before.state == "FENCED"
    assert (progress.published, progress.fenced) == (1, 0)
    assert after is not None
    assert (after.state, after.fenced_by, after.attempts) == ("SUCCEEDED", None, 0)
    assert unpublished(pool, lake.objects, ["t"]) == {}


@pytest.mark.parametrize("data", [b"", b"{", b"null", b'{"add":{}}'])
def test_a_torn_or_empty_file_is_foreign(lake: FilledLake, mirror: Mirror, pool: Pool, data: bytes) -> None:
    """What cannot be read as our commit is never taken for it."""
    lake.commit(create("t"))
    foreign(lake, "t", 0, data)
    publish_all(mirror)
    status = progress_of(pool, "t").status

    assert status is not None
    assert (status.state, status.mirrored_version) == ("FENCED", -1)


def test_a_new_table_does_not_move_into_somebody_elses_log(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """A `_delta_log` whose oldest version is cleaned away is somebody's all the same."""
    lake.objects.put_if_absent([NewObject("t/_delta_log/00000000000000000010.checkpoint.parquet", b"x")])
    lake.commit(create("t"))
    publish_all(mirror)
    status = progress_of(pool, "t").status

    assert status is not None
    assert status.state == "FENCED"
    assert status.fenced_by is not None
    assert "00000000000000000010.checkpoint.parquet is there already" in status.fenced_by
    assert log_files(lake.objects, "t") == ["00000000000000000010.checkpoint.parquet"]


def test_our_own_commit_in_other_bytes_is_ours(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """The same transaction with the same actions, spelled otherwise, is not foreign and is left as it is."""
    lake.commit(create("t"))
    publish_all(mirror)
    found = lake.objects.get(log_path("t", 0))
    assert found is not None
    spelled = found.data.replace(b'"operation"', b' "operation"')
    lake.objects.delete([log_path("t", 0)])
    foreign(lake, "t", 0, spelled)
    with pool.connection() as db:
        db.execute("UPDATE dl_mirror_status SET mirrored_version = -1")
    lake.commit(append("t", add("1")))
    progress = publish_all(mirror)

    assert (progress.fenced, progress.versions_behind) == (0, 0)
    assert unpublished(pool, lake.objects, ["t"]) == {"t": [0]}


def test_two_mirrors_of_one_target_do_no_harm(lake: FilledLake, make_mirror: MakeMirror, pool: Pool) -> None:
    """Both publish the same bytes in the same order; neither fences a table or falls behind for ever."""
    tables = ["t", "u", "v"]
    lake.commit(*(create(name) for name in tables))
    mirrors = [make_mirror(), make_mirror()]
    published = [0, 0]
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            published[number] += mirrors[number].step().published

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(work, number) for number in range(2)]
        deadline = time.monotonic() + 60
        commits = 0
        while commits < 60 or (not all(published) and time.monotonic() < deadline):
            lake.commit(*(append(name, add(f"{commits}")) for name in tables))
            commits += 1
        stop.set()
        for future in futures:
            future.result()
    last = [publish_all(mirror) for mirror in mirrors]

    assert all(published)
    assert [(p.fenced, p.failed, p.versions_behind) for p in last] == [(0, 0, 0)] * 2
    assert unpublished(pool, lake.objects, tables) == {}
    assert {progress_of(pool, name).status.state for name in tables} == {"SUCCEEDED"}  # type: ignore[union-attr]


def test_a_mirror_that_comes_back_sees_that_the_last_version_is_there(
    lake: FilledLake, make_mirror: MakeMirror, pool: Pool
) -> None:
    """Versions that are gone though SQL calls them published come back before anything is published behind them."""
    lake.commit(create("t"))
    for n in range(6):
        lake.commit(append("t", add(f"{n}")))
    publish_all(make_mirror())
    lake.objects.delete([log_path("t", n) for n in (2, 3, 6)])
    lake.commit(append("t", add("more")))
    progress = publish_all(make_mirror())

    assert (progress.published, progress.versions_behind) == (1, 0)
    assert unpublished(pool, lake.objects, ["t"]) == {}


def test_a_mirror_that_comes_back_sees_that_the_last_version_is_ours(
    lake: FilledLake, make_mirror: MakeMirror, pool: Pool
) -> None:
    """Nothing is published behind a version that somebody replaced."""
    lake.commit(create("t"))
    lake.commit(append("t", add("1")))
    publish_all(make_mirror())
    lake.objects.delete([log_path("t", 1)])
    foreign(lake, "t", 1)
    lake.commit(append("t", add("2")))
    progress = publish_all(make_mirror())

    assert (progress.published, progress.fenced) == (0, 1)
    assert lake.objects.get(log_path("t", 2)) is None


def test_reconciling_puts_back_what_is_gone(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Without any new commit, missing published files are there again with the same bytes."""
    lake.commit(create("t"), create("u"))
    for n in range(30):
        lake.commit(append("t", add(f"{n}")))
    publish_all(mirror)
    lake.objects.delete([*(log_path("t", n) for n in (0, 7, 8, 30)), log_path("u", 0)])
    repaired = Reconciler(pool).round(mirror.places)
    again = Reconciler(pool).round(mirror.places)

    assert (repaired, again) == (5, 0)
    assert unpublished(pool, lake.objects, ["t", "u"]) == {}


def test_a_round_of_reconciling_goes_on_where_the_last_one_ended(
    lake: FilledLake, mirror: Mirror, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds are bounded, and together they look at every version, again and again."""
    monkeypatch.setattr("deltalakedb_mirror_worker.reconcile.NEWEST", 3)
    monkeypatch.setattr("deltalakedb_mirror_worker.reconcile.WINDOW", 4)
    lake.commit(create("t"))
    for n in range(14):
        lake.commit(append("t", add(f"{n}")))
    publish_all(mirror)
    reconciler = Reconciler(pool)
    lake.objects.delete([log_path("t", n) for n in range(15)])
    repaired = [reconciler.round(mirror.places) for _ in range(4)]
    lake.objects.delete([log_path("t", 1)])
    repaired += [reconciler.round(mirror.places) for _ in range(3)]

    assert repaired == [8, 4, 3, 0, 0, 0, 1]
    assert unpublished(pool, lake.objects, ["t"]) == {}


def test_reconciling_finds_a_version_that_sql_does_not_have(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """A foreign commit above the head fences the table before we commit there; without it the fence is lifted."""
    lake.commit(create("t"))
    publish_all(mirror)
    foreign(lake, "t", 1)
    reconciler = Reconciler(pool)
    reconciler.round(mirror.places)
    fenced = progress_of(pool, "t").status
    lake.objects.delete([log_path("t", 1)])
    reconciler.round(mirror.places)
    free = progress_of(pool, "t").status

    assert fenced is not None
    assert fenced.state == "FENCED"
    assert fenced.fenced_by is not None
    assert "foreign-txn" in fenced.fenced_by
    assert free is not None
    assert (free.state, free.fenced_by) == ("SUCCEEDED", None)


def test_a_version_that_cannot_be_rendered_holds_up_its_table_only(
    lake: FilledLake, mirror: Mirror, pool: Pool
) -> None:
    """It fails with a reason and is tried again; versions before it, and other tables, are published."""
    lake.commit(create("t"), create("u"))
    for n in range(3):
        lake.commit(append("t", add(f"{n}")), append("u", add(f"{n}")))
    with pool.connection() as db:
        db.execute("UPDATE dl_table_versions SET render_version = 99 WHERE table_no = 1 AND version = 2")
    first = mirror.step()
    failed = progress_of(pool, "t").status
    second = mirror.step()
    with pool.connection() as db:
        db.execute("UPDATE dl_table_versions SET render_version = 1")
    third = publish_all(mirror)

    assert (first.published, first.failed) == (6, 1)
    assert (second.published, second.failed) == (0, 1)
    assert failed is not None
    assert (failed.state, failed.mirrored_version, failed.attempts) == ("FAILED", 1, 1)
    assert "renderer 99" in (failed.last_error or "")
    assert (third.published, third.failed, third.versions_behind) == (2, 0, 0)


def test_no_secret_is_recorded(lake: FilledLake, pool: Pool, root: Root) -> None:
    """Errors are written to SQL without credentials."""

    def open_store(uri: str) -> Places:
        raise AssertionError(f"cannot open {uri} with the password canary-secret")

    lake.commit(create("t"))
    mirror = Mirror(pool, root.open, secrets={"key": "canary-secret"})
    mirror.places.of = open_store  # type: ignore[method-assign, assignment]
    mirror.step()
    mirror.close()
    status = progress_of(pool, "t").status

    assert status is not None
    assert "cannot open" in (status.last_error or "")
    assert "canary" not in (status.last_error or "")


@pytest.fixture
def wide_from_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version with more than three files is wide."""
    for module in ("step", "portions", "wide"):
        monkeypatch.setattr(f"deltalakedb_mirror_worker.{module}.WIDE_ACTIONS", 3)


@pytest.mark.usefixtures("wide_from_three")
def test_wide_versions_are_published_like_others(lake: FilledLake, make_mirror: MakeMirror, pool: Pool) -> None:
    """Streamed through a file they have the same bytes and times, are recognised, and come back when they are gone."""
    files = [add(f"part-{n}", rows=n) for n in range(40)]
    lake.commit(create("t", *files[:10]), create("u", files[0]))
    lake.commit(append("t", files[10]), append("u", *files[10:20]))
    lake.commit(remove("t", *files[:5]))
    first = publish_all(make_mirror())
    lake.commit(append("t", *files[20:40]), append("u", files[20]))
    lake.objects.delete([log_path("t", n) for n in (0, 2)])
    second = publish_all(make_mirror())

    assert (first.published, first.fenced, first.versions_behind) == (5, 0, 0)
    assert (second.published, second.fenced, second.versions_behind) == (2, 0, 0)
    assert unpublished(pool, lake.objects, ["t", "u"]) == {}
    if lake.root.startswith("file:"):
        found = lake.objects.get(log_path("t", 3))
        assert found is not None
        assert found.time_ms == progress_of(pool, "t").time_ms


@pytest.mark.usefixtures("wide_from_three")
def test_a_wide_version_meets_a_stranger_like_others(lake: FilledLake, make_mirror: MakeMirror, pool: Pool) -> None:
    """A foreign commit in its place fences the table; our own in other bytes does not."""
    files = [add(f"part-{n}") for n in range(10)]
    lake.commit(create("t"), create("u"))
    lake.commit(append("t", *files), append("u", *files))
    publish_all(make_mirror())
    for name in ("t", "u"):
        found = lake.objects.get(log_path(name, 1))
        assert found is not None
        lake.objects.delete([log_path(name, 1)])
        foreign(lake, name, 1, FOREIGN if name == "t" else found.data.replace(b'"add":{', b'"add": {'))
    lake.commit(append("t", add("x")), append("u", add("x")))
    publish_all(make_mirror())
    states = {name: progress_of(pool, name).status for name in ("t", "u")}

    assert {name: status and status.state for name, status in states.items()} == {"t": "FENCED", "u": "SUCCEEDED"}


@pytest.mark.parametrize("seed", range(2))
def test_lost_answers_publish_nothing_twice_and_nothing_out_of_order(
    s3_bucket: S3Bucket, seed: int, request: pytest.FixtureRequest
) -> None:
    """Behind a proxy that cuts, refuses and lies about a third of all requests, every version is stored once, in order."""
    request.applymarker(pytest.mark.timeout(120))
    with S3Proxy(s3_bucket.endpoint) as proxy:
        options = {**s3_bucket.storage_options, "AWS_ENDPOINT_URL": proxy.endpoint}
        request.getfixturevalue("tmp_path")
        _publish_through(proxy, Root(s3_bucket.uri("lake"), options), request, random.Random(seed))


def _publish_through(proxy: S3Proxy, root: Root, request: pytest.FixtureRequest, dice: random.Random) -> None:
    from deltalakedb.database import StoreAddress, open_database

    folder = request.getfixturevalue("tmp_path")
    address = StoreAddress(engine="sqlite", path=str(folder / "lake.db"))
    faults = [
        CUT_BEFORE,
        CUT_AFTER,
        Fault(status=412),
        Fault(status=503),
        Fault(reach=False, status=409),
        Fault(reach=False, status=500),
    ]
    tables = ["t", "u"]
    with FilledLake(address, folder, root.uri, options=dict(root.options)) as lake:
        lake.commit(*(create(name) for name in tables))
        for n in range(40):
            lake.commit(*(append(name, add(f"{n}")) for name in tables))
        pool = Pool(lambda: open_database(address))
        mirror = Mirror(pool, root.open, max_pause=0.0)
        places = mirror.places
        proxy.plan = lambda method, path: dice.choice(faults) if method == "PUT" and dice.random() < 0.3 else None
        while (progress := mirror.step()).versions_behind:
            assert progress.fenced == 0
        proxy.plan = lambda method, path: None
        mirror.close()
        stored = [
            path.rsplit("/", 3)[1:] for path in proxy.journal.stored() if path.endswith(".json") and "_log" in path
        ]
        missing = unpublished(pool, places.root, tables)
        pool.close()

    assert missing == {}
    for table in tables:
        versions = [int(name.removesuffix(".json")) for folder_, _, name in stored if folder_ == table]
        assert versions == list(range(41))
