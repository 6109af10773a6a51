"""Careful mode: after deaths at one place in the log, the events from there on are decided one by one.

Each is rehearsed in a child process first, then decided by itself, which is noted; so the one that kills is known, and
isolated. Slow, and over as soon as that place has been passed.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Container, Mapping

from deltalakedb.eventlog import Record

from .applying import NONE_ISOLATED, isolated_event_of
from .attempting import Attempting
from .deciding.isolation import DEATHS, Attempts, Begun, IsolatedEvent
from .deciding.needs import Isolated, StagedEvent
from .deciding.rules import Rules
from .rehearsal import Rehearsal
from .storing.store import Cursor, SqlCommitStore

logger = logging.getLogger(__name__)

_ALL = 2**63


class Isolating:
    """Which events of a lake are isolated, and what they were. Used by the committer's thread."""

    def __init__(
        self,
        store: SqlCommitStore,
        attempting: Attempting,
        *,
        told: Mapping[int, IsolatedEvent] = NONE_ISOLATED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`told` is what was told of events that the store has not come to yet."""
        self._store = store
        self._attempting = attempting
        self._clock = clock
        self._isolated = {**store.isolated_events(), **told}
        self._sizes = {row.size for row in self._isolated.values() if row.rejected}
        self._noted: Attempts | None = None
        self._rehearsal = Rehearsal(store.lake())
        self._until = -1

    @property
    def events(self) -> dict[int, IsolatedEvent]:
        """All of them, those included whose row is not written yet, by position."""
        return self._isolated

    @property
    def is_careful(self) -> bool:
        """Whether events are decided one by one."""
        return self._until >= 0

    @property
    def alone(self) -> Container[int]:
        """Positions of records that are in no fold: all that come while care is taken, and all that ever were."""
        return range(_ALL) if self.is_careful else self._isolated

    def begin(self, cursor: Cursor, read_until: int) -> None:
        """Note that a batch is begun at the cursor, the first since a takeover, of the records that have been read so
        far. It may be that care is to be taken."""
        noted = self._attempting.begin(self._store, cursor, Begun(cursor.position, read_until))
        if noted.is_careful(cursor.position):
            self._noted, self._until = noted, noted.read_until
            logger.warning(
                "the committer ended, or the store refused what it wrote, %s times at position %s of the staged stream: up "
                "to position %s events are decided one by one",
                *(noted.begun, noted.position, self._until),
            )

    def moved(self, cursor: Cursor) -> None:
        """A batch is written."""
        if 0 <= self._until <= cursor.position:
            logger.warning("events are decided in batches again from position %s on", cursor.position)
            self._until = -1
            self._rehearsal.close()

    def event_of(
        self, record: Record, read: Callable[[Record], StagedEvent], cursor: Cursor, rules: Rules
    ) -> StagedEvent:
        """What a record says, as `read` tells, or that nobody is to look at it."""
        known = self._isolated.get(record.position)
        if known is not None:
            return isolated_event_of(record, known, read)
        if len(record.value) in self._sizes:
            digest = hashlib.sha256(record.value).digest()
            for row in self._isolated.values():
                if row.rejected and row.event_hash == digest and row.position != record.position:
                    return self._isolate(record, 0, f"it is the same as record {row.position}, which was isolated")
        if not self.is_careful:
            return read(record)
        died = self._rehearsal.death_of(record, rules.number)
        if died is not None:
            deaths = 0 if self._noted is None else self._noted.begun
            return self._isolate(record, deaths, f"a process that only looked at it {died}")
        what = Begun(record.position, None)
        times = self._attempting.begin(self._store, cursor, what).times_alone(record.position)
        if times >= DEATHS:
            return self._isolate(
                record,
                times,
                f"the committer ended, or the store refused what came of it, {times} times while it was decided alone",
            )
        if rules.fold_window_ms:
            # Where folds end is part of history, and that this event was in none cannot be told from the log.
            self._record(record, times, "decided by itself, near the place of deaths", rejected=False)
        return read(record)

    def close(self) -> None:
        """End the child process, if there is one. Idempotent."""
        self._rehearsal.close()

    def _isolate(self, record: Record, attempts: int, reason: str) -> Isolated:
        row = self._record(record, attempts, reason, rejected=True)
        logger.error(
            "record %s of the staged stream (%s bytes, sha256 %s) is isolated: %s. It is rejected, kept in the dead-letter "
            "stream and recorded in dl_isolated_events; everything else goes on. See 'Isolated events' in "
            "docs/troubleshooting.md",
            *(record.position, row.size, row.event_hash.hex(), reason),
            extra={"position": record.position, "attempts": attempts},
        )
        return Isolated(record=record, isolated=row)

    def _record(self, record: Record, attempts: int, reason: str, *, rejected: bool) -> IsolatedEvent:
        row = IsolatedEvent(
            position=record.position,
            event_hash=hashlib.sha256(record.value).digest(),
            size=len(record.value),
            rejected=rejected,
            attempts=attempts,
            reason=reason,
            time_ms=int(self._clock() * 1000),
        )
        self._isolated[record.position] = row
        if rejected:
            self._sizes.add(row.size)
        return row
