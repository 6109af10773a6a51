"""The mirror's step: what SQL says is missing is rendered, published and recorded. Service and client run the same one.

One thread reads and renders, because both are bound to one core; others put the bytes, each for one table, so that
tables wait for storage side by side. A slow table keeps only itself busy: a step goes on without it and takes in its
result later. Nothing rests on commit events: a step asks SQL what is missing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from deltalakedb.catalog import IN_PLACE, Catalog, MirrorProgress, Range, VersionActions, VersionRow
from deltalakedb.database import Database, Pool
from deltalakedb.errors import TxnLogError, TxnLogMirrorError, TxnLogTableFencedError, redacted
from deltalakedb.failpoints import Failpoint
from deltalakedb.objectstore import ObjectStore
from deltalakedb.objectstore.identity import claim_root

from . import status
from .delivery import DELIVERIES, Delivery, FilesAwaited
from .jobs import Job, make_job, run_job
from .places import Places
from .publish import Published
from .slices import alone, wanted, within
from .status import MirrorState, StatusUpdate
from .threads import Threads
from .wide import WIDE_ACTIONS

logger = logging.getLogger(__name__)

SLICE_VERSIONS = 128
"""Versions of one table that a step publishes at most."""
STEP_ACTIONS = 20_000
"""File actions that a step holds at most (but at least one version)."""
PATIENCE_SECONDS = 1.0
"""How long a step waits for the slowest table that it began with."""
LEFT_SECONDS = 0.1
"""How long it waits for those that an earlier step began with, if it has nothing else to do."""
CLOSE_SECONDS = 3.0
ALARM_ATTEMPTS = 5
"""Failures in a row from which the log says it as an error."""
MAX_PAUSE_SECONDS = 60.0
"""Longest pause before a table that failed is tried again; the first one is about a second."""
FENCED_SECONDS = 30.0
"""How often a fenced table is looked at again: whoever is in the way may have gone."""

AWAITED_SECONDS = 1.0
"""How often a replica's table is looked at whose data files are not there yet."""


_READ = Failpoint("step.read")
_PUBLISHED = Failpoint("step.published")
_RECORDED = Failpoint("step.recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What one step did, and how far behind the target is after it."""

    published: int
    """Versions of all tables that were published."""
    versions_behind: int
    """Versions that are committed and not published; those of fenced tables count."""
    seconds_behind: float
    """About the age of the oldest of them; 0: there is none."""
    failed: int
    """Tables that wait for another attempt."""
    fenced: int
    more: bool
    """Whether another step has something to do right now."""


class Mirror:
    """Publishes the tables of one target. Used by one thread at a time."""

    def __init__(
        self,
        pool: Pool,
        open_objects: Callable[[str], ObjectStore],
        *,
        target: str = IN_PLACE,
        threads: int = 4,
        max_pause: float = MAX_PAUSE_SECONDS,
        secrets: Mapping[str, str] | None = None,
        on_published: Callable[[Mapping[int, int]], None] = lambda versions: None,
    ) -> None:
        """`open_objects` opens the object store at a URI; `secrets` are values that no recorded error may show.

        `on_published` is told the newest published version of each table that moved, by table_no.
        """
        self._pool = pool
        self._open_objects = open_objects
        self._target = target
        self._max_pause = max_pause
        self._secrets = dict(secrets or {})
        self._threads = Threads(threads, "mirror")
        self._on_published = on_published
        self._places: Places | None = None
        self._delivery: Delivery | None = None
        self._seen: dict[int, int] = {}
        """Newest version of each table that this process has seen in its place."""
        self._running: dict[int, tuple[Job, Future[Published]]] = {}
        self._not_before: dict[int, float] = {}
        """When a table that failed is tried again."""
        self._turn = 0

    @property
    def places(self) -> Places:
        """The stores of the lake and the target. The first use makes the target's root this lake's.

        Raises `TxnLogMirrorError` if the root is another lake's or the target cannot be served, `TxnLogConfigError` if
        there is no such target.
        """
        if self._places is None:
            with self._pool.connection() as db:
                catalog = Catalog(db)
                lake = catalog.lake()
                if lake is None:
                    raise TxnLogMirrorError("the store holds no lake yet: run `deltalakedb migrate` first")
                target = status.find_target(catalog, self._target)
            places = Places(lake.root, self._open_objects, target=target.root)
            claim_root(places.root, lake.lake_id)
            if target.kind != IN_PLACE:
                self._delivery = DELIVERIES[target.kind](self._pool, places)
            self._places = places
        return self._places

    def step(self) -> Progress:
        """Publish a bounded part of what is missing.

        Errors of single tables are recorded, and tried again after growing pauses. Raises `TxnLogMirrorError` if the
        root is another lake's or the target cannot be served, and the errors of the database.
        """
        places = self.places
        with self._pool.connection() as db:
            catalog = Catalog(db)
            if status.find_target(catalog, self._target).state == "PAUSED":
                return Progress(published=0, versions_behind=0, seconds_behind=0.0, failed=0, fenced=0, more=False)
            behind = self._behind(db, catalog)
            jobs, more = self._read(db, catalog, [table for table in behind if self._free(table)])
        _READ.reached()
        left = [future for _, future in self._running.values()]
        begun = [self._threads.submit(run_job, self._pool, places, self._delivery, job) for job in jobs]
        self._running |= {job.table.table_no: (job, future) for job, future in zip(jobs, begun, strict=True)}
        if begun or left:
            wait(begun or left, PATIENCE_SECONDS if begun else LEFT_SECONDS)
        return self._collect(behind, more=more)

    def idle(self) -> bool:
        """Whether nothing is missing and nothing on its way from here."""
        if self._running:
            return False
        with self._pool.connection() as db:
            return not self._served(Catalog(db))

    def close(self) -> None:
        """Wait a few seconds for what is on its way, and record it. What is not recorded is found again later."""
        self._threads.close()
        if self._running:
            wait([future for _, future in self._running.values()], CLOSE_SECONDS)
            try:
                self._collect([], more=False)
            except TxnLogError:
                logger.warning("the last published versions could not be recorded", exc_info=True)

    def _behind(self, db: Database, catalog: Catalog) -> list[MirrorProgress]:
        """Tables that lack versions; each has a status row after this."""
        behind = self._served(catalog)
        if any(table.status is None for table in behind):
            with db.transaction():
                status.add_missing(db, self._target, in_place=self._delivery is None, now_ms=_now_ms())
            behind = self._served(catalog)
        return behind

    def _served(self, catalog: Catalog) -> list[MirrorProgress]:
        """Tables that lack versions. In place without those that are being imported, whose log is still somebody else's;
        elsewhere without those that were dropped before they came here."""
        unserved = "IMPORTING" if self._delivery is None else "DROPPED"
        behind = catalog.progress(self._target, behind=True)
        return [table for table in behind if table.status is not None or table.state != unserved]

    def _free(self, table: MirrorProgress) -> bool:
        return (
            table.status is not None
            and table.table_no not in self._running
            and self._not_before.get(table.table_no, 0.0) <= time.monotonic()
        )

    def _read(self, db: Database, catalog: Catalog, tables: Sequence[MirrorProgress]) -> tuple[list[Job], bool]:
        """The jobs of this step, and whether it leaves something that the next one could begin with at once."""
        # Where not all fit in one step, another table is first each time.
        self._turn = (self._turn + 1) % max(1, len(tables))
        turned = [*tables[self._turn :], *tables[: self._turn]]
        full = [wanted(table, self._seen.get(table.table_no), SLICE_VERSIONS) for table in turned]
        if self._delivery is not None:
            full = [alone(each) for each in full]
        missing = [each for each in full if each.last >= each.first]
        # Published already, and not recorded.
        jobs = [Job(slice=each) for each in full if each.last < each.first]
        if missing:
            with db.snapshot():
                rows = catalog.version_rows([each.span for each in missing])
                sizes = {(row.table_no, row.version): row.added_files + row.removed_files for row in rows}
                taken = within(missing, sizes, actions=STEP_ACTIONS, wide=WIDE_ACTIONS)
                whole = {each.table.table_no: each.rows for each in taken if each.rows is not None}
                versions = catalog.actions([row for row in rows if _is_in(row, whole.get(row.table_no))])
            by_table: dict[int, list[VersionActions]] = {}
            for version in versions:
                by_table.setdefault(version.row.table_no, []).append(version)
            jobs += [make_job(each, by_table.get(each.table.table_no, [])) for each in taken]
        begun = sum(job.slice.last - job.slice.first + 1 for job in jobs)
        return jobs, sum(each.table.version - each.first + 1 for each in missing) > begun

    def _collect(self, behind: Sequence[MirrorProgress], *, more: bool) -> Progress:
        """Take in the jobs that are done, and record them in one SQL transaction."""
        done = [(job, future) for job, future in self._running.values() if future.done()]
        updates = [self._update(job, future.result()) for job, future in done]
        if updates:
            _PUBLISHED.reached()
            with self._pool.connection() as db, db.transaction():
                status.write(db, self._target, updates, _now_ms())
            _RECORDED.reached()
            for (job, future), update in zip(done, updates, strict=True):
                # After an error it may be that nothing at all could be seen, the version before the first included.
                if not job.slice.unseen or future.result().error is None or future.result().done:
                    self._seen[update.table_no] = update.mirrored
                del self._running[update.table_no]
            self._on_published({update.table_no: update.mirrored for update in updates})
        published = {job.table.table_no: future.result().done for job, future in done}
        states = {update.table_no: update.state for update in updates}
        now = _now_ms()
        versions = ages = failed = fenced = 0
        for table in behind:
            state = states.get(table.table_no) or (table.status.state if table.status else MirrorState.PENDING)
            failed += state == MirrorState.FAILED
            fenced += state == MirrorState.FENCED
            missing = table.version - max(self._seen.get(table.table_no, -1), _mirrored(table))
            versions += max(0, missing)
            if missing > 0:
                ages = max(ages, now - (table.next_time_ms if table.next_time_ms is not None else table.time_ms))
        return Progress(
            published=sum(published.values()),
            versions_behind=versions,
            seconds_behind=ages / 1000,
            failed=failed,
            fenced=fenced,
            more=(more and any(published.values())) or bool(self._running),
        )

    def _update(self, job: Job, published: Published) -> StatusUpdate:
        """What one job means for the table: its new status, and when it is tried again."""
        table = job.table
        mirrored = job.slice.first - 1 + published.done
        error = published.error or job.error
        if error is None:
            self._not_before.pop(table.table_no, None)
            state = MirrorState.SUCCEEDED if mirrored >= table.version else MirrorState.IN_FLIGHT
            return StatusUpdate(table_no=table.table_no, state=state, mirrored=mirrored)
        told = redacted(str(error), self._secrets)
        attempts = 1 + (table.status.attempts if table.status is not None and not published.done else 0)
        where = {"table": table.name, "target": self._target, "version": mirrored + 1, "attempts": attempts}
        if isinstance(error, TxnLogTableFencedError):
            if table.status is None or table.status.state != MirrorState.FENCED:
                logger.error("table %r is fenced: %s", table.name, told, extra=where)
            self._not_before[table.table_no] = time.monotonic() + min(self._max_pause, FENCED_SECONDS)
            return StatusUpdate(
                table_no=table.table_no,
                state=MirrorState.FENCED,
                mirrored=mirrored,
                attempts=attempts,
                last_error=told,
                fenced_by=told,
            )
        if isinstance(error, FilesAwaited):
            self._not_before[table.table_no] = time.monotonic() + min(self._max_pause, AWAITED_SECONDS)
            state = MirrorState.IN_FLIGHT if mirrored >= job.publish_from else MirrorState.PENDING
            return StatusUpdate(table_no=table.table_no, state=state, mirrored=mirrored, last_error=told)
        pause = min(self._max_pause, 2.0 ** min(attempts - 1, 10)) * random.uniform(0.75, 1.25)
        level = logging.ERROR if attempts >= ALARM_ATTEMPTS else logging.WARNING
        logger.log(level, "table %r could not be published, again in %.0f s: %s", table.name, pause, told, extra=where)
        self._not_before[table.table_no] = time.monotonic() + pause
        return StatusUpdate(
            table_no=table.table_no, state=MirrorState.FAILED, mirrored=mirrored, attempts=attempts, last_error=told
        )


def _is_in(row: VersionRow, span: Range | None) -> bool:
    return span is not None and span[1] <= row.version <= span[2]


def _mirrored(table: MirrorProgress) -> int:
    return -1 if table.status is None else table.status.mirrored_version


def _now_ms() -> int:
    return int(time.time() * 1000)
