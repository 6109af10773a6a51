"""The mirror is killed: at every step that it has, and at any moment, one or two of it, again and again."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltalakedb.database import StoreAddress, open_database
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import open_object_store
from tests.lakes import FilledLake, add, append, local_path, local_root
from tests.mirror.mortal import Work
from tests.mirror.wholeness import TABLES, Commits, check_done, check_readable, commits, fill_all_kinds
from tests.mortuary import Mortuary


@pytest.fixture(scope="module")
def mortuary() -> Iterator[Mortuary]:
    """Forks mirrors."""
    with Mortuary("tests.mirror.mortal") as mortuary:
        yield mortuary


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("passes", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 2, 4, 8))])
def test_killed_at_every_step_it_goes_on_from_there(tmp_path: Path, mortuary: Mortuary, passes: int, part: int) -> None:
    """At each failpoint, after so many passes: what is there then is a whole prefix, and the next one finishes."""
    store, root = tmp_path / "lake.db", local_path(local_root(tmp_path))
    address = StoreAddress(engine="sqlite", path=str(store))
    with FilledLake(address, tmp_path, local_root(tmp_path)) as lake:
        fill_all_kinds(lake)
    shutil.copy(store, tmp_path / "fresh.db")
    lose = str(root / log_path("plain", 1))
    objects = open_object_store(local_root(tmp_path))
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
        before = commits(objects)
        database = open_database(address)
        check_readable(database, objects, {}, lost=1)
        assert mortuary.run(Work(store=str(store), lose=lose)) == 0
        check_readable(database, objects, before)
        check_done(database, objects, tmp_path)
        database.close()

    assert passes > 0 or unreached == []


def kill_again_and_again(tmp_path: Path, mortuary: Mortuary, *, kills: int, mirrors: int, seed: int) -> None:
    """Commit all the time, and kill mirrors at random moments; look at what is there each time, and at the end."""
    dice = random.Random(seed)
    objects = open_object_store(local_root(tmp_path))
    address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
    work = Work(store=str(tmp_path / "lake.db"), forever=True)
    seen: Commits = {}
    with FilledLake(address, tmp_path, local_root(tmp_path)) as lake:
        fill_all_kinds(lake)
        database = open_database(address)
        running = [mortuary.start(work) for _ in range(mirrors)]
        for number in range(kills):
            lake.commit(*(append(name, add(f"more-{number}", size=7)) for name in TABLES))
            time.sleep(dice.random() * 0.1)
            victim = dice.randrange(mirrors)
            assert mortuary.kill(running[victim]) == -signal.SIGKILL
            if mirrors == 1:
                # Nobody writes meanwhile.
                check_readable(database, objects, seen)
                seen = commits(objects)
            running[victim] = mortuary.start(work)
        for pid in running:
            mortuary.kill(pid)
    assert mortuary.run(Work(store=str(tmp_path / "lake.db"))) == 0
    check_readable(database, objects, seen)
    check_done(database, objects, tmp_path)
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
