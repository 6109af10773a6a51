"""One log is one history: whoever decides it, in whatever batches, on whichever store, from the beginning or a backup."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from deltalakedb.database.schema import migrate
from deltalakedb.errors import Reason
from deltalakedb.eventlog import EventLog, open_event_log
from tests.chronicle import Chronicle
from tests.deciding_again import Replay, decided, opened, replayed
from tests.logged import made
from tests.scenes import SCENES, chronicle
from tests.stores import ENGINES

DECISIONS = {"Commit", "Accepted", "Rejection", "Answer", "Staged", "Imported", "Expired", "Nothing"}
EVENTS = {"StagedTransaction", "ImportedVersion", "Control", "Completion", "Undecodable", "Unread", "Isolated", "fold"}


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(3), id="some", marks=pytest.mark.timeout(900)),
        *[
            pytest.param(
                range(first, first + 12), id=f"from {first}", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]
            )
            for first in range(100, 160, 12)
        ],
    ],
)
def test_there_is_one_history(seeds: range, postgres_url: str, tmp_path: Path) -> None:
    """Logs with all that one may hold are decided in random batches, and again by processes that hash texts differently, on
    every kind of store, from its beginning and from a random position: outcomes and rows are the same."""
    kinds, reasons = Counter[str](), set[Reason]()
    from_backups: list[Replay] = []
    from_nothing: list[Replay] = []
    for seed in seeds:
        found, chance = chronicle(seed), random.Random(seed)
        kinds += found.kinds
        reasons |= found.reasons
        found.write(tmp_path / f"{seed}.log")

        def store(what: str, engine: str, seed: int = seed) -> str:
            if engine == "postgres":
                return f"{postgres_url}?schema={what}_{seed}"
            return f"deltasql://{engine}/{tmp_path / f'{what}-{seed}.{engine}'}"

        with closing(open_event_log(f"sqlite://{tmp_path / f'{seed}.log'}")) as log:
            live = store("live", list(ENGINES)[seed % len(ENGINES)])
            decide(live, log, found, chance, None)
            for engine in ENGINES:
                backup = store("backup", engine)
                decide(backup, log, found, chance, chance.randint(1, len(found.records)))
                from_backups.append(Replay(live=live, log=log.address, into=backup))
                from_nothing.append(Replay(live=live, log=log.address, into=store("nothing", engine)))

    first, second = replayed(from_backups, 1), replayed(from_nothing, 2)

    for one, wanted in zip([*first, *second], [*from_backups, *from_nothing], strict=True):
        assert one.different == [], wanted
        assert one.rows > 300, wanted
    assert all(one.records == one.position for one in second)
    assert sum(one.records for one in first) > 0
    # Everything has happened.
    assert {*SCENES, *DECISIONS, *EVENTS} <= kinds.keys()
    assert set(Reason) == reasons


def decide(uri: str, log: EventLog, found: Chronicle, chance: random.Random, until: int | None) -> None:
    """Into a new store; what is told is what a lake in memory has told."""
    with closing(opened(uri)) as database:
        migrate(database)
        outcomes = decided(made(database, log), log, found.isolated, chance, until=until)
    expected = found.outcomes if until is None else found.outcomes[: len(outcomes)]
    assert outcomes == expected, uri
