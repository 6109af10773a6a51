"""Decides a log in any batches and by one committer after the other; and replays logs in processes that hash texts otherwise.

As a program, `python -m tests.deciding_again`, it reads replays as a JSON list and writes what each has found.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing

import msgspec

from deltalakedb.database import Database, open_database
from deltalakedb.eventlog import EventLog, Record, Stream, open_event_log
from deltalakedb.events import Outcome
from deltalakedb.uri import StoreUri, parse_uri
from deltalakedb_committer.applying import Applier, isolated_event_of
from deltalakedb_committer.batching import Batching
from deltalakedb_committer.deciding.isolation import IsolatedEvent
from deltalakedb_committer.deciding.needs import StagedEvent
from deltalakedb_committer.replay import replay
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.chronicle import told


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: URIs of a lake's store, of its log, and of the store to replay into."""

    live: str
    log: str
    into: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay has found."""

    records: int
    position: int
    rows: int
    """Of all tables of the lake."""
    different: list[str]
    """Tables whose rows are not the same."""


def replayed(replays: Sequence[Replay], hash_seed: int) -> list[Found]:
    """Do the replays in a process that hashes texts by that seed; what each has found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.deciding_again"],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        input=msgspec.json.encode(replays),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=list[Found])


def opened(uri: str) -> Database:
    """The store at that URI, which is made if it is not there."""
    parsed = parse_uri(uri)
    assert isinstance(parsed, StoreUri)
    return open_database(parsed.address, create=True)


def decided(
    store: SqlCommitStore,
    log: EventLog,
    isolated: Mapping[int, IsolatedEvent],
    chance: random.Random,
    *,
    until: int | None = None,
) -> list[list[Outcome]]:
    """Decide a log, or what lies below a position of it; the outcomes that every decision brings."""
    outcomes: list[list[Outcome]] = []
    end = log.end(Stream.STAGED) if until is None else until
    while not _led(store, log, isolated, chance, end, outcomes, whole=until is None):
        pass
    return outcomes


def _led(
    store: SqlCommitStore,
    log: EventLog,
    isolated: Mapping[int, IsolatedEvent],
    chance: random.Random,
    end: int,
    outcomes: list[list[Outcome]],
    *,
    whole: bool,
) -> bool:
    """One committer's part; whether nothing is left to the next one. The last fold is known to be complete if the log is
    the `whole` log."""
    applier = Applier(store, store.take_over("test"))

    def event_of(record: Record) -> StagedEvent:
        row = isolated.get(record.position)
        return applier.event_of(record) if row is None else isolated_event_of(record, row, applier.event_of)

    batching = Batching(event_of)
    batching.alone = isolated
    limit = chance.choice([2, 10, 40, 200])
    with closing(log.reader(Stream.STAGED, applier.cursor.position)) as reader:
        position = applier.cursor.position
        while True:
            units = batching.take(chance.randint(1, limit), applier.rules)
            if not units and position == end:
                units = batching.rest() if whole else []
                if not units:
                    return True
            if units:
                applier.apply(
                    units,
                    published_position=0,
                    isolated=isolated,
                    on_decision=lambda decision: outcomes.append(told(decision)),
                )
                if chance.random() < 0.03:
                    return False
            else:
                records = reader.read(min(chance.randint(1, limit), end - position), 1.0)
                position = records[-1].next_position
                batching.put(records)


def _replayed(wanted: Replay) -> Found:
    with (
        closing(opened(wanted.live)) as live,
        closing(opened(wanted.into)) as into,
        closing(open_event_log(wanted.log)) as log,
    ):
        found = replay(live, log, into)
    different = [table.name for table in found.tables if not table.equal]
    rows = sum(table.rows for table in found.tables)
    return Found(records=found.records, position=found.position, rows=rows, different=different)


if __name__ == "__main__":
    replays = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Replay])
    sys.stdout.buffer.write(msgspec.json.encode([_replayed(one) for one in replays]))
