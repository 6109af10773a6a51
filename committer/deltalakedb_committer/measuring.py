"""What the committer tells of itself: numbers of each batch, and where the lake stands, as SQL and log have it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from deltalakedb.errors import CONFLICTS as CONFLICTING
from deltalakedb.errors import TxnLogDatabaseError
from deltalakedb.eventlog import EventLog, Record, Stream
from deltalakedb.metrics import (
    BACKLOG,
    BATCH_RECORDS,
    BATCH_SECONDS,
    COMMIT_LATENCY,
    COMMIT_SEQ,
    COMMITS,
    CONFLICTS,
    DECISIONS,
    EPOCH,
    LAG_EVENTS,
    LAG_SECONDS,
    LIVE_BYTES,
    LIVE_FILES,
    OPEN_SECONDS,
    POSITION,
    SNAPSHOT_SECONDS,
    TABLES,
    VERSIONS,
    Measurements,
)

from .storing.columns import COLUMNS
from .storing.rows import Batch
from .storing.store import SqlCommitStore

COMMITTED = "COMMITTED"
SIZE_SECONDS = 30.0
"""How often the heads of all tables are looked at, which of many tables takes a moment."""
_DECIDED = COLUMNS["dl_transactions"]
_TXN_ID, _TIME_MS, _COMMITTED, _OUTCOME = map(_DECIDED.index, ("txn_id", "time_ms", "committed", "outcome"))


class _Rejected(msgspec.Struct):
    reason: str


class _Told(msgspec.Struct):
    """What of a recorded outcome is counted."""

    rejected: _Rejected


class BatchMeter:
    """Counts what became of batches. Called by the committer's thread once per batch, after its COMMIT."""

    def __init__(self, measurements: Measurements, *, clock: Callable[[], float] = time.time) -> None:
        self._measurements = measurements
        self._clock = clock
        self._told = msgspec.json.Decoder(_Told)

    def __call__(self, records: Sequence[Record], batch: Batch, seconds: float) -> None:
        """`records` were decided and written as `batch`, in so many `seconds`."""
        count = self._measurements
        now_ms = self._clock() * 1000
        count.observe(BATCH_RECORDS, (len(records),))
        count.observe(BATCH_SECONDS, (seconds,))
        count.observe(COMMIT_LATENCY, [max(0.0, now_ms - record.time_ms) / 1000 for record in records])
        count.add(COMMITS, len(batch.inserts["dl_commits"]))
        count.add(VERSIONS, len(batch.inserts["dl_table_versions"]))
        decided = batch.inserts["dl_transactions"]
        committed = [row for row in decided if row[_COMMITTED]]
        count.add(DECISIONS, len(committed), COMMITTED)
        count.observe(OPEN_SECONDS, [_open_seconds(row) for row in committed])
        if len(committed) < len(decided):
            reasons = Counter(
                self._told.decode(row[_OUTCOME]).rejected.reason for row in decided if not row[_COMMITTED]
            )
            for reason, number in reasons.items():
                count.add(DECISIONS, number, reason)
            count.add(CONFLICTS, sum(reasons[reason] for reason in CONFLICTING))


class LakeWatch:
    """Looks where the lake stands, whoever leads. Used by one thread, over connections of its own; close it."""

    def __init__(
        self,
        open_store: Callable[[], SqlCommitStore],
        log: EventLog,
        measurements: Measurements,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_store = open_store
        self._log = log
        self._measurements = measurements
        self._clock = clock
        self._store: SqlCommitStore | None = None
        self._looking = threading.Lock()
        self._closed = False
        self._position = -1
        self._since = clock()
        self._sized: float | None = None

    def store(self) -> None:
        """Ask SQL for the position. Raises the store's error if it cannot be reached."""
        try:
            with self._looking:
                self._look()
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close the connection, or leave that to a look under way, which may hang. For any thread; idempotent."""
        self._closed = True
        if self._looking.acquire(blocking=False):
            try:
                self._disconnect()
            finally:
                self._looking.release()

    def _look(self) -> None:
        try:
            self._store = self._store or self._open_store()
            seen = self._store.observe()
            if self._sized is None or self._clock() - self._sized >= SIZE_SECONDS:
                self._measure_size(self._store)
        except TxnLogDatabaseError:
            self._disconnect()
            raise
        if seen.position != self._position:
            self._position, self._since = seen.position, self._clock()
        for metric, value in (
            (EPOCH, seen.epoch),
            (POSITION, seen.position),
            (COMMIT_SEQ, seen.commit_seq),
            (BACKLOG, max(0, seen.position - seen.published_position)),
        ):
            self._measurements.set(metric, value)

    def _disconnect(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _measure_size(self, store: SqlCommitStore) -> None:
        began = self._clock()
        size = store.size()
        self._sized = self._clock()
        for metric, value in (
            (TABLES, size.tables),
            (LIVE_FILES, size.files),
            (LIVE_BYTES, size.bytes),
            (SNAPSHOT_SECONDS, self._sized - began),
        ):
            self._measurements.set(metric, value)

    def log(self) -> None:
        """Ask the log for its end. Raises the log's error if it cannot be reached."""
        waiting = max(0, self._log.end(Stream.STAGED) - self._position) if self._position >= 0 else 0
        if not waiting:
            self._since = self._clock()
        self._measurements.set(LAG_EVENTS, waiting)
        self._measurements.set(LAG_SECONDS, self._clock() - self._since if waiting else 0.0)


def _open_seconds(row: Sequence[object]) -> float:
    """From the beginning that a UUIDv7 carries to the append of the record that was decided."""
    digits = str(row[_TXN_ID])
    try:
        began_ms = int(digits[:8] + digits[9:13], 16)
    except ValueError:  # of somebody else's making
        return 0.0
    time_ms = row[_TIME_MS]
    assert isinstance(time_ms, int)
    return max(0, time_ms - began_ms) / 1000
