"""The mirror as a process and inside a client's process: stops, kills, upkeep, what it tells."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deltalake import DeltaTable

from deltalakedb import failpoints
from deltalakedb.database import Pool, StoreAddress
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.health import Health
from deltalakedb.objectstore import ObjectStore
from deltalakedb.settings import Settings, load_settings
from deltalakedb_mirror_worker import checkpoint as _checkpoint  # noqa: F401 - has a place to hold it at
from deltalakedb_mirror_worker import service, watermark
from deltalakedb_mirror_worker.embedded import open_stepper
from deltalakedb_mirror_worker.lock import StepLock
from deltalakedb_mirror_worker.step import Mirror
from deltalakedb_mirror_worker.upkeep import Upkeep
from deltalakedb_mirror_worker.worker import Worker
from tests.fix_s3 import S3Bucket
from tests.lakes import FilledLake, add, append, create
from tests.mirror.readers import rows
from tests.mirrors import MakeMirror, Root, log_files, progress_of, publish_all, unpublished
from tests.processes import Service
from tests.s3_proxy import Fault, S3Proxy

PATIENCE = 60.0
TABLES = ["t", "u", "v"]

LOCAL = pytest.mark.parametrize("root", ["local"], indirect=True)
"""What has nothing to do with the kind of object store."""


@pytest.fixture
def environment(
    store_address: StoreAddress, root: Root, tmp_path: Path, request: pytest.FixtureRequest
) -> Mapping[str, str]:
    """Settings of a service on the lake, as environment variables."""
    store = str(tmp_path)
    if store_address.engine == "postgres":
        store = f"{request.getfixturevalue('postgres_url')}?schema={store_address.schema}"
    return {
        "DELTALAKEDB_STORE": store,
        "DELTALAKEDB_LOG": f"sqlite://{tmp_path / 'log.db'}",
        "DELTALAKEDB_ROOT": root.uri,
        "DELTALAKEDB_STORAGE_OPTIONS": json.dumps(dict(root.options)),
    }


@pytest.fixture
def process(environment: Mapping[str, str], lake: FilledLake, tmp_path: Path) -> Iterator[Service]:
    """A mirror process on the lake, not started yet."""
    service = Service("mirror", "run", environment=environment, log=tmp_path / "mirror.log")
    yield service
    if service.running:
        service.kill()


@pytest.fixture
def settings(environment: Mapping[str, str], lake: FilledLake, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def wait_until(condition: Callable[[], bool], what: str, process: Service | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        tail = "" if process is None else process.tail()
        assert process is None or process.running, f"the mirror ended by itself:\n{tail}"
        assert time.monotonic() < deadline, f"{what} took too long\n{tail}"
        time.sleep(0.01)


def mirrored(pool: Pool, tables: list[str]) -> bool:
    found = [progress_of(pool, name) for name in tables]
    return all(t.status is not None and t.status.mirrored_version == t.version for t in found)


def newest(pool: Pool, tables: list[str]) -> int:
    """The newest recorded version of any of the tables; -1: none."""
    statuses = [progress_of(pool, name).status for name in tables]
    return max(-1 if status is None else status.mirrored_version for status in statuses)


def mark(store: ObjectStore) -> int:
    found = watermark.read(store)
    return 0 if found is None else found.commit_seq


def named_checkpoint(store: ObjectStore, table: str) -> int | None:
    """The version in `_last_checkpoint`; fails if what it names is not there."""
    hint = store.get(f"{table}/_delta_log/_last_checkpoint")
    if hint is None:
        return None
    version = json.loads(hint.data)["version"]
    assert f"{version:020}.checkpoint.parquet" in log_files(store, table)
    assert isinstance(version, int)
    return version


def test_a_service_publishes_checkpoints_and_marks_what_is_committed(
    lake: FilledLake, process: Service, pool: Pool, root: Root
) -> None:
    """Versions, checkpoints and the watermark follow the commits; SIGTERM ends it in time with exit code 0."""
    process.start()
    lake.commit(*(create(name) for name in TABLES))
    for n in range(25):
        last = lake.commit(*(append(name, add(f"{n}")) for name in TABLES))
    wait_until(lambda: mark(lake.objects) == last.commit_seq, "the watermark", process)
    wait_until(lambda: all(named_checkpoint(lake.objects, name) for name in TABLES), "checkpoints", process)
    began = time.monotonic()
    code = process.stop()
    took = time.monotonic() - began
    document = watermark.read(lake.objects)
    opened = DeltaTable(f"{lake.root}/t", storage_options=dict(root.options))

    assert (code, took < 10) == (0, True)
    assert unpublished(pool, lake.objects, TABLES) == {}
    assert document is not None
    assert {name: table.version for name, table in document.tables.items()} == dict.fromkeys(TABLES, 25)
    assert opened.version() == 25
    assert len(opened.file_uris()) == 25
    # Recorded just after it was named.
    checkpoint = named_checkpoint(lake.objects, "t")
    assert checkpoint is not None
    assert checkpoint >= 10


@LOCAL
def test_what_a_killed_mirror_left_undone_is_done_without_a_new_commit(
    lake: FilledLake, make_mirror: MakeMirror, process: Service, pool: Pool
) -> None:
    """Versions may be published and recorded, and their watermark and checkpoint not: the next start sees to that."""
    lake.commit(create("t"))
    for n in range(12):
        last = lake.commit(append("t", add(f"{n}")))
    publish_all(make_mirror())
    before = (mark(lake.objects), named_checkpoint(lake.objects, "t"))
    process.start()
    wait_until(lambda: named_checkpoint(lake.objects, "t") == 12, "the checkpoint", process)
    wait_until(lambda: mark(lake.objects) == last.commit_seq, "the watermark", process)
    process.stop()
    status = progress_of(pool, "t").status

    assert before == (0, None)
    assert status is not None
    assert status.checkpoint_version == 12


def test_a_service_is_killed_again_and_again(lake: FilledLake, process: Service, pool: Pool, root: Root) -> None:
    """SIGKILL at any moment, checkpoints included, leaves a readable prefix; the next start goes on from there."""
    dice = random.Random(3)
    lake.commit(*(create(name, checkpointInterval="2") for name in TABLES))
    stop = threading.Event()

    def commit() -> int:
        count = 0
        # Slow enough for the mirror to be about level, so that the kills meet it in the middle of things.
        while not stop.wait(0.1 if root.options else 0.02):
            count += 1
            lake.commit(*(append(name, add(f"{count}")) for name in TABLES))
        return count

    with ThreadPoolExecutor(1) as threads:
        committing = threads.submit(commit)
        for _ in range(3 if root.options else 6):
            before = newest(pool, TABLES)
            process.start()
            wait_until(lambda before=before: newest(pool, TABLES) > before, "publishing after a start", process)  # type: ignore[misc]
            time.sleep(dice.random() * 0.5)
            process.kill()
            for name in TABLES:
                named_checkpoint(lake.objects, name)
                opened = DeltaTable(f"{lake.root}/{name}", storage_options=dict(root.options))
                assert len(opened.file_uris()) == opened.version()
        stop.set()
        count = committing.result()
    process.start()
    wait_until(lambda: mark(lake.objects) == count + 1, "catching up", process)
    code = process.stop()

    assert code == 0
    assert unpublished(pool, lake.objects, TABLES) == {}
    for name in TABLES:
        opened = DeltaTable(f"{lake.root}/{name}", storage_options=dict(root.options))
        assert (opened.version(), len(opened.file_uris())) == (count, count)


def test_a_service_stops_in_time_though_the_store_hangs(s3_bucket: S3Bucket, tmp_path: Path, postgres_url: str) -> None:
    """A put that gets no answer does not hold up SIGTERM."""
    asked = threading.Event()

    def plan(method: str, path: str) -> Fault | None:
        if method != "PUT" or "_delta_log" not in path:
            return None
        asked.set()
        return Fault(reach=False, delay=30)

    with S3Proxy(s3_bucket.endpoint) as proxy:
        options = {**s3_bucket.storage_options, "AWS_ENDPOINT_URL": proxy.endpoint}
        address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
        environment = {
            "DELTALAKEDB_STORE": str(tmp_path),
            "DELTALAKEDB_ROOT": s3_bucket.uri("lake"),
            "DELTALAKEDB_STORAGE_OPTIONS": json.dumps(options),
        }
        process = Service("mirror", "run", environment=environment, log=tmp_path / "mirror.log")
        with FilledLake(address, tmp_path, s3_bucket.uri("lake"), options=options) as lake, process:
            proxy.plan = plan
            lake.commit(create("t"))
            assert asked.wait(PATIENCE), process.tail()
            began = time.monotonic()
            code = process.stop()
            took = time.monotonic() - began

    assert (code, took < 10) == (0, True)


@LOCAL
def test_no_commit_event_is_needed(lake: FilledLake, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any event log the loop finds by itself what SQL has."""
    monkeypatch.setattr(service, "POLL_SECONDS", 0.05)
    stop = threading.Event()
    with Worker(settings) as worker:
        thread = threading.Thread(
            target=service.serve,
            args=(worker, None),
            kwargs={"target": "in-place", "health": Health("in-place"), "stop": stop},
        )
        thread.start()
        try:
            last = lake.commit(create("t"))
            wait_until(lambda: mark(lake.objects) == last.commit_seq, "the watermark")
        finally:
            stop.set()
            thread.join(60)

    assert log_files(lake.objects, "t") == [f"{0:020}.json"]


@LOCAL
def test_a_wrong_root_in_the_settings_ends_the_service(
    environment: Mapping[str, str], lake: FilledLake, tmp_path: Path
) -> None:
    """The message names both roots; nothing was written anywhere."""
    wrong = {**environment, "DELTALAKEDB_ROOT": (tmp_path / "other").as_uri()}
    process = Service("mirror", "run", environment=wrong, log=tmp_path / "mirror.log")
    process.start()
    wait_until(lambda: not process.running, "ending")

    assert process.stop() == 1
    assert f"but this lake's is {lake.root}" in process.tail()
    assert not (tmp_path / "other").exists()


@LOCAL
def test_status_tells_how_far_each_table_is(
    environment: Mapping[str, str], lake: FilledLake, pool: Pool, process: Service, tmp_path: Path
) -> None:
    """For people in columns, for programs as JSON."""
    lake.commit(create("t"))
    process.start()
    wait_until(lambda: mirrored(pool, ["t"]), "publishing", process)
    process.stop()
    lake.commit(create("u"))
    text = Service("mirror", "status", environment=environment, log=tmp_path / "text.log")
    told = Service("mirror", "status", "--output", "json", environment=environment, log=tmp_path / "json.log")
    for verb in (text, told):
        verb.start()
        wait_until(lambda verb=verb: not verb.running, "telling")  # type: ignore[misc]
    header, first, second = text.tail().splitlines()

    assert header.split() == ["TABLE", "STATE", "VERSION", "MIRRORED", "CHECKPOINT", "BEHIND", "ATTEMPTS", "ERROR"]
    assert first.split() == ["t", "SUCCEEDED", "0", "0", "-", "-", "0"]
    assert second.split()[:5] == ["u", "PENDING", "0", "-", "-"]
    assert [(t["name"], t["status"] and t["status"]["mirrored_version"]) for t in json.loads(told.tail())] == [
        ("t", 0),
        ("u", None),
    ]


@LOCAL
def test_each_target_has_a_worker_of_its_own(
    lake: FilledLake, environment: Mapping[str, str], pool: Pool, root: Root, tmp_path: Path
) -> None:
    """It copies, publishes, makes checkpoints and marks at its own root, and stops like any other; `status` tells of it."""
    elsewhere = f"{root.uri}-elsewhere"
    lake.act("target-add", target="backup", parameters={"kind": "copy", "root": elsewhere})
    worker = Service("mirror", "run", "--target", "backup", environment=environment, log=tmp_path / "mirror.log")
    worker.start()
    lake.commit(create("t", lake.write("t", "0.parquet", rows(0))))
    for n in range(1, 12):
        last = lake.commit(append("t", lake.write("t", f"{n}.parquet", rows(n))))
    copies = root.open(elsewhere)
    wait_until(lambda: mark(copies) == last.commit_seq, "the watermark", worker)
    wait_until(lambda: named_checkpoint(copies, "t") is not None, "a checkpoint", worker)
    code = worker.stop()
    here = progress_of(pool, "t").status
    told = Service("mirror", "status", "--target", "backup", environment=environment, log=tmp_path / "status.log")
    wrong = Service("mirror", "status", "--target", "nothing", environment=environment, log=tmp_path / "wrong.log")
    for verb in (told, wrong):
        verb.start()
        wait_until(lambda verb=verb: not verb.running, "telling")  # type: ignore[misc]

    assert code == 0
    assert here is None
    assert DeltaTable(f"{elsewhere}/t").to_pyarrow_table().num_rows == 12
    assert told.tail().splitlines()[1].split()[:4] == ["t", "SUCCEEDED", "11", "11"]
    assert "this lake has no mirror target 'nothing'; it has: backup, in-place" in wrong.tail()


@LOCAL
def test_the_watermark_moves_on_while_a_checkpoint_is_made(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """The checkpoint of a large table takes long; the watermark does not wait for it."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(PATIENCE)

    failpoints.arm("checkpoint.built", hold)
    keeper = Upkeep(pool, lambda: mirror.places)
    try:
        lake.commit(create("t", checkpointInterval="1"))
        lake.commit(append("t", add("a")))
        publish_all(mirror)
        keeper.published({1: 1})
        assert begun.wait(PATIENCE)
        passed = lake.commit(append("t", add("b")))
        publish_all(mirror)
        keeper.published({1: 2})
        wait_until(lambda: mark(lake.objects) == passed.commit_seq, "the watermark")
        unnamed = named_checkpoint(lake.objects, "t")
        go_on.set()
        wait_until(lambda: named_checkpoint(lake.objects, "t") is not None, "the checkpoint")
    finally:
        go_on.set()
        failpoints.disarm()
        keeper.close()

    assert unnamed is None


def test_whoever_commits_on_an_embedded_lake_publishes(lake: FilledLake, settings: Settings, root: Root) -> None:
    """After the client's own step the table is readable by path, and closing leaves the last watermark."""
    if settings.address.path is None:
        with pytest.raises(TxnLogConfigError, match="run `deltalakedb mirror run`"):
            open_stepper(settings)
        return
    stepper = open_stepper(settings)
    lake.commit(create("t", add("a")))
    more = stepper.try_step()
    version = DeltaTable(f"{lake.root}/t", storage_options=dict(root.options)).version()
    last = lake.commit(append("t", add("b")))
    while stepper.try_step():
        pass
    stepper.close()
    stepper.close()

    assert more is False
    assert version == 0
    assert mark(lake.objects) == last.commit_seq


def test_one_process_at_a_time_steps_an_embedded_lake(tmp_path: Path) -> None:
    """A second one waits for the first, and gives up after its patience; other threads of a process wait too."""
    mine, theirs = StepLock(tmp_path / "lock"), StepLock(tmp_path / "lock")
    with mine.hold(1.0) as held, theirs.hold(0.01) as also, mine.hold(0.01) as again:
        answers = (held, also, again)
    with theirs.hold(0.01) as after:
        pass

    assert answers == (True, False, False)
    assert after is True
