"""Decides the whole log again, into a store of its own, and compares every row with the lake's.

What the log cannot tell, which events were the death of a committer and isolated, is taken from the lake's store.

That they are equal shows three things at once: the log is all there, decisions depend on nothing else, and nobody
changed the store behind the committer's back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from deltalakedb.database import Database
from deltalakedb.database.schema import migrate
from deltalakedb.errors import TxnLogConfigError, TxnLogHaltedError
from deltalakedb.eventlog import EventLog, Record, Stream

from .applying import Applier, isolated_event_of
from .batching import Batching
from .deciding.folding import Unit
from .deciding.isolation import IsolatedEvent
from .deciding.needs import StagedEvent
from .storing.digests import Digest, digests
from .storing.isolated import isolated_events
from .storing.store import Cursor, SqlCommitStore

READ_RECORDS = 500
READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedTable:
    """One table of both stores."""

    name: str
    rows: int
    """In the lake's store."""
    replayed_rows: int
    equal: bool
    """Whether all their rows are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay found."""

    lake_id: str
    position: int
    """Up to which the log was applied: where the lake's committer stood when the replay began."""
    commit_seq: int
    records: int
    """Applied by this replay."""
    seconds: float
    tables: tuple[ComparedTable, ...]
    equal: bool
    """Whether every row of every table is the same."""


@dataclass(frozen=True, slots=True)
class _Lake:
    """The lake's store, as it was at one moment."""

    lake_id: str
    root: str
    log_address: str
    created_ms: int
    fence: bool
    cursor: Cursor
    isolated: dict[int, IsolatedEvent]
    tables: dict[str, Digest]


def replay(
    live: Database, log: EventLog, into: Database, *, on_progress: Callable[[int, int], None] | None = None
) -> Replayed:
    """Apply the log to `into`, up to where `live` stands now, and compare them. `live` is only read.

    `into` is empty, or holds a backup of the lake, from whose position the log is applied. `on_progress` gets the
    position reached and the one to reach. Raises `TxnLogConfigError` if `into` holds another lake or is ahead,
    `TxnLogHaltedError` (`LOG_RECREATED`, `LOG_TRUNCATED`) if the log is not the lake's or has not all of it any more.
    """
    began = time.monotonic()
    with live.snapshot():
        lake = _read(live)
    if log.identity(Stream.STAGED) != lake.cursor.stream_identity:
        raise TxnLogHaltedError(
            "LOG_RECREATED",
            f"the staged stream of {log.address} is not the one that the lake was decided from: it was deleted and made "
            "again. Restore the log",
        )
    store = _store(into, lake, log)
    applier = Applier(store, store.take_over("replay"))
    end = lake.cursor.position
    records = 0
    for units in _batches(log, applier, end, lake.isolated):
        applier.apply(units, published_position=units[-1][-1][0].next_position, isolated=lake.isolated)
        records += sum(map(len, units))
        if on_progress is not None:
            on_progress(applier.cursor.position, end)
    with into.snapshot():
        found = digests(into)
    tables = tuple(
        ComparedTable(name=name, rows=digest.rows, replayed_rows=found[name].rows, equal=digest == found[name])
        for name, digest in lake.tables.items()
    )
    return Replayed(
        lake_id=lake.lake_id,
        position=end,
        commit_seq=lake.cursor.commit_seq,
        records=records,
        seconds=time.monotonic() - began,
        tables=tables,
        equal=all(table.equal for table in tables),
    )


def _read(live: Database) -> _Lake:
    rows = live.query("SELECT lake_id, root, log_address, created_ms, fence FROM dl_lake")
    if not rows:
        raise TxnLogConfigError("the store holds no lake yet: there is nothing to compare a replay with")
    lake_id, root, log_address, created_ms, fence = rows[0]
    cursor = SqlCommitStore(live).cursor()
    isolated = isolated_events(live)
    return _Lake(lake_id, root, log_address, created_ms, fence, cursor, isolated, digests(live))


def _store(into: Database, lake: _Lake, log: EventLog) -> SqlCommitStore:
    """The store to replay into: made, or checked to be a backup of this lake."""
    migrate(into)
    store = SqlCommitStore(into)
    known = store.remembered()
    if known is None:
        first = log.beginning(Stream.STAGED)
        if first:
            raise TxnLogHaltedError(
                "LOG_TRUNCATED",
                f"the staged stream of {log.address} begins at record {first}: what came before is gone, so nothing can "
                "be decided from it alone. Replay into a restored backup of the lake's store",
            )
        store.init_lake(
            lake_id=lake.lake_id,
            root=lake.root,
            log_address=lake.log_address,
            stream_identity=lake.cursor.stream_identity,
            position=first,
            fence=lake.fence,
            created_ms=lake.created_ms,
        )
    elif known.lake_id != lake.lake_id:
        raise TxnLogConfigError(
            f"the store to replay into holds the lake {known.lake_id}, and not a backup of {lake.lake_id}: "
            "name an empty store"
        )
    elif store.cursor().position > lake.cursor.position:
        raise TxnLogConfigError(
            f"the store to replay into stands at position {store.cursor().position}, and the lake at "
            f"{lake.cursor.position}: name an empty store, or an older backup"
        )
    return store


def _batches(log: EventLog, applier: Applier, end: int, isolated: Mapping[int, IsolatedEvent]) -> Iterator[list[Unit]]:
    """The records from where `applier` stands on and below `end`, in batches as a committer takes them."""
    position = applier.cursor.position
    reader = log.reader(Stream.STAGED, position)
    batching = Batching(lambda record: _event(record, isolated, applier))
    batching.alone = isolated
    try:
        while position < end:
            records = [record for record in reader.read(READ_RECORDS, READ_SECONDS) if record.position < end]
            if not records:
                raise TxnLogHaltedError(
                    "LOG_TRUNCATED",
                    f"the staged stream of {log.address} has nothing at record {position}, and the lake was decided up "
                    f"to {end}: the log lost its end. Restore it",
                )
            batching.put(records)
            while units := batching.take(READ_RECORDS, applier.rules):
                yield units
            position = records[-1].next_position
        # The lake's position stands where a fold ends, whatever comes after it.
        if units := batching.rest():
            yield units
    finally:
        reader.close()


def _event(record: Record, isolated: Mapping[int, IsolatedEvent], applier: Applier) -> StagedEvent:
    row = isolated.get(record.position)
    return applier.event_of(record) if row is None else isolated_event_of(record, row, applier.event_of)
