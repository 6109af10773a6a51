"""The mirror is killed: at every step that it has, and at any moment, one or two of it, again and again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from deltalakedb.catalog import Catalog
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.events import AppTransaction
from deltalakedb.log_names import LogFile, log_path, parse_name
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker.checkpoint import counted
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.render import render
from tests.lakes import FilledLake, add, append, create, local_path, local_root, remove
from tests.mirror.mortal import Mortuary, Work

TABLES = ("plain", "v2", "wide")


@pytest.fixture(scope="module")
def mortuary() -> Iterator[Mortuary]:
    """Forks mirrors."""
    with Mortuary() as mortuary:
        yield mortuary


def make(lake: FilledLake) -> None:
    """A classic table, one that wants V2 checkpoints, and one with versions of many files; some versions of each."""
    lake.commit(create("plain", checkpointInterval="3"), create("v2", checkpointPolicy="v2", checkpointInterval="3"))
    lake.commit(create("wide", *(add(f"first-{n}") for n in range(8)), checkpointInterval="1"))
    lake.commit(append("wide", *(add(f"second-{n}") for n in range(8))))
    for n in range(6):
        lake.commit(
            *(append(name, add(f"{n}", size=n + 1)) for name in ("plain", "v2")), apps=(AppTransaction("job", n),)
        )
    lake.commit(remove("plain", add("3", size=4)), remove("v2", add("5", size=6)))


def log_of(root: Path, table: str) -> Path:
    return root / table / "_delta_log"


def commits(root: Path, table: str) -> dict[int, bytes]:
    """The bytes of every version that can be seen."""
    return {int(file.stem): file.read_bytes() for file in log_of(root, table).glob("*.json")}


def check_readable(database: Database, root: Path, before: dict[str, dict[int, bytes]], *, lost: int = -1) -> None:
    """What is there at any moment: whole versions of ours, in order, never written over; names that lead somewhere."""
    catalog = Catalog(database)
    for progress in catalog.progress("in-place"):
        there = commits(root, progress.name)
        for version, data in before.get(progress.name, {}).items():
            assert there.get(version, data) == data, f"{progress.name} {version} was written over"
        begin = 0 if progress.status is None else progress.status.log_start
        kept = sorted(version for version in there if version >= begin)
        missing = set(range(begin, kept[-1] + 1 if kept else 0)) - {lost}
        assert missing <= set(kept), f"{progress.name} has gaps: {kept}"
        with database.snapshot():
            ours = catalog.versions([(progress.table_no, 0, progress.version)])
        for each in ours:
            data = render(each)
            assert there.get(each.row.version, data) == data, f"{progress.name} {each.row.version} is not ours"
        hint = log_of(root, progress.name) / "_last_checkpoint"
        if hint.exists():
            named = json.loads(hint.read_text())["version"]
            names = [parse_name(file.name) for file in log_of(root, progress.name).iterdir()]
            assert any(n and n.version == named and n.file in (LogFile.CLASSIC, LogFile.UNIQUE) for n in names)


def check_done(database: Database, root: Path, folder: Path) -> None:
    """Everything is published and recorded, and all that was written beside it says the same as SQL."""
    catalog = Catalog(database)
    for progress in catalog.progress("in-place"):
        status = progress.status
        assert status is not None
        assert (status.state, status.mirrored_version) == ("SUCCEEDED", progress.version)
        assert sorted(v for v in commits(root, progress.name) if v >= status.log_start) == list(
            range(status.log_start, progress.version + 1)
        )
        place = Place(open_object_store(root.as_uri()), progress.name)
        for file in log_of(root, progress.name).iterdir():
            name = parse_name(file.name)
            if name is None or name.file is LogFile.COMMIT:
                continue
            size = catalog.size_at(catalog.table(progress.name, version=name.version))
            if name.file is LogFile.CHECKSUM:
                told = json.loads(file.read_text())
                assert (told["numFiles"], told["tableSizeBytes"]) == size
            else:
                assert counted(place, file.name, folder) == size
        opened = DeltaTable(str(root / progress.name))
        assert (opened.version(), len(opened.file_uris())) == (progress.version, size_now(catalog, progress.name))


def size_now(catalog: Catalog, table: str) -> int:
    return catalog.size_at(catalog.table(table))[0]


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("passes", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 2, 4, 8))])
def test_killed_at_every_step_it_goes_on_from_there(tmp_path: Path, mortuary: Mortuary, passes: int, part: int) -> None:
    """At each failpoint, after so many passes: what is there then is a whole prefix, and the next one finishes."""
    store, root = tmp_path / "lake.db", local_path(local_root(tmp_path))
    address = StoreAddress(engine="sqlite", path=str(store))
    with FilledLake(address, tmp_path, local_root(tmp_path)) as lake:
        make(lake)
    shutil.copy(store, tmp_path / "fresh.db")
    lose = str(root / log_path("plain", 1))
    unreached = []
    for place in mortuary.places()[part::2]:
        for file in tmp_path.glob("lake.db*"):
            file.unlink()
        shutil.copy(tmp_path / "fresh.db", store)
        shutil.rmtree(root, ignore_errors=True)
        ended = mortuary.run(Work(store=str(store), kill_at=place, passes=passes, lose=lose))
        if ended == 0:
            unreached.append(place)
        assert ended in (0, -signal.SIGKILL)
        before = {table: commits(root, table) for table in TABLES if log_of(root, table).exists()}
        database = open_database(address)
        check_readable(database, root, {}, lost=1)
        assert mortuary.run(Work(store=str(store), lose=lose)) == 0
        check_readable(database, root, before)
        check_done(database, root, tmp_path)
        database.close()

    assert passes > 0 or unreached == []


def kill_again_and_again(tmp_path: Path, mortuary: Mortuary, *, kills: int, mirrors: int, seed: int) -> None:
    """Commit all the time, and kill mirrors at random moments; look at what is there each time, and at the end."""
    dice = random.Random(seed)
    root = local_path(local_root(tmp_path))
    address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
    work = Work(store=str(tmp_path / "lake.db"), forever=True)
    seen: dict[str, dict[int, bytes]] = {}
    with FilledLake(address, tmp_path, local_root(tmp_path)) as lake:
        make(lake)
        database = open_database(address)
        running = [mortuary.start(work) for _ in range(mirrors)]
        for number in range(kills):
            lake.commit(*(append(name, add(f"more-{number}", size=7)) for name in TABLES))
            time.sleep(dice.random() * 0.1)
            victim = dice.randrange(mirrors)
            assert mortuary.kill(running[victim]) == -signal.SIGKILL
            if mirrors == 1:
                # Nobody writes meanwhile.
                check_readable(database, root, seen)
                seen = {table: commits(root, table) for table in TABLES if log_of(root, table).exists()}
            running[victim] = mortuary.start(work)
        for pid in running:
            mortuary.kill(pid)
    assert mortuary.run(Work(store=str(tmp_path / "lake.db"))) == 0
    check_readable(database, root, seen)
    check_done(database, root, tmp_path)
    database.close()


@pytest.mark.parametrize("mirrors", [1, 2])
def test_killed_at_any_moment_nothing_is_torn(tmp_path: Path, mortuary: Mortuary, mirrors: int) -> None:
    """Commits go on; one mirror, or two of one target, die and come back: never a version twice, torn or out of order."""
    kill_again_and_again(tmp_path, mortuary, kills=15, mirrors=mirrors, seed=mirrors)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_kills(tmp_path: Path, mortuary: Mortuary, seed: int) -> None:
    """A thousand of them all together."""
    kill_again_and_again(tmp_path, mortuary, kills=100, mirrors=1 + seed % 2, seed=seed)
