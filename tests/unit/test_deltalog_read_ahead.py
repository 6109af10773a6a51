"""Commits that are asked for before they are needed are the same commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltalakedb.deltalog import read_ahead
from deltalakedb.deltalog.listing import list_log
from deltalakedb.deltalog.read_ahead import ReadAhead
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import NewObject, ObjectStore, open_object_store


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A table of 100 commits, some of them large, one missing."""
    store = open_object_store(str(tmp_path))
    texts = {n: f'{{"add":{{"path":"{n}{"x" * (n % 7) * 100}"}}}}\n' for n in range(100) if n != 50}
    store.put_if_absent([NewObject(log_path("", n), text.encode()) for n, text in texts.items()])
    return store


@pytest.mark.parametrize("threads", [0, 1, 8])
@pytest.mark.parametrize(
    ("versions", "asked"),
    [
        (range(50), range(50)),
        (range(99, 50, -1), range(99, 50, -1)),
        (range(50), [0, 0, 1, 5, 4, 49, 3, 60]),
        ([7, 3, 3, 99], [3, 7, 99, 98]),
        ((), range(10)),
    ],
)
def test_whatever_is_asked_for_comes(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, threads: int, versions: range, asked: range
) -> None:
    """In the order that was announced or in another one, small or large, once or twice."""
    monkeypatch.setattr(read_ahead, "_AHEAD", 5)
    monkeypatch.setattr(read_ahead, "_SMALL", 400)
    with ReadAhead(store, list_log(store, ""), versions, threads=threads) as commits:
        for version in asked:
            (action,) = commits.commit(version)
            assert action.json.startswith(f'{{"path":"{version}')
            assert version % 7 == 0 or action.json.endswith('x"}')


@pytest.mark.parametrize("threads", [0, 4])
def test_what_is_not_there_is_named_when_it_is_its_turn(store: ObjectStore, threads: int) -> None:
    """A gap, and a file that vanished after it was listed, are errors of their own version and of no earlier one."""
    listing = list_log(store, "")
    store.delete([log_path("", 3)])
    with ReadAhead(store, listing, range(100), threads=threads) as commits:
        for version in range(3):
            assert list(commits.commit(version))
        with pytest.raises(TxnLogDeltaLogError, match=f"{3:020}") as vanished:
            list(commits.commit(3))
        with pytest.raises(TxnLogDeltaLogError, match=f"{50:020}") as gap:
            commits.commit(50)
        assert list(commits.commit(51))

    assert (vanished.value.problem, vanished.value.version) == (LogProblem.VANISHED, 3)
    assert gap.value.problem is LogProblem.GAP
