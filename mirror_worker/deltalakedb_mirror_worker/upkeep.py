"""What a mirror does beside publishing, in threads of its own: the watermark; checkpoints and what goes with them.

None of it ever holds up a version, and no checkpoint holds up the watermark. Checkpoints are paced: the interval of a table is a lower bound, and while versions
are being published all checkpoints of a target together take at most `CHECKPOINT_SHARE` of the time, the table that is
furthest past its interval first. At high rates checkpoints so come at larger steps, and publishing keeps its core.

A version checksum comes with each checkpoint, and for the newest version of a table once that is left in peace. The log
is cleaned up after a checkpoint, once a day.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from deltalakedb.catalog import IN_PLACE
from deltalakedb.database import Database, Pool
from deltalakedb.errors import TxnLogError

from . import cleanup, properties, status, version_checksum, watermark
from .places import Place, Places
from .rounds import Rounds

logger = logging.getLogger(__name__)

CHECKPOINT_SHARE = 0.1
"""Share of the time that checkpoints may take."""
MAX_PAUSE_SECONDS = 300.0
QUIET_SECONDS = 1.0
"""After this time without a published version checkpoints need no pace: longer than steps are apart that follow a stream."""
RETRY_SECONDS = 30.0
"""How long a table whose checkpoint failed is left alone."""
WATERMARK_SECONDS = 0.25
"""Least time between two writes of the watermark document."""
IDLE_SECONDS = 60.0
"""How often it is looked whether there is something to do, though nothing says so."""
CLOSE_SECONDS = 3.0


@dataclass(slots=True)
class _Table:
    """What the thread knows of one table."""

    table_no: int
    table_id: str
    location: str
    interval: int
    publish_from: int
    checkpoint: int
    published: int
    not_before: float = 0.0
    told_at: float | None = None
    """When a version was published that has no checksum yet."""
    cleaned: int = -1
    """The day (since the epoch) on which the log was cleaned up last."""

    @property
    def due(self) -> float:
        """Intervals since the last checkpoint: a checkpoint is due from 1 on. Version 0 alone is not worth one."""
        if self.published < self.publish_from:
            return 0.0
        return (self.published - max(self.checkpoint, 0)) / self.interval


class Upkeep:
    """Both threads. `published` is called by whoever publishes; they start at the first call, and begin with what a
    mirror before this one may have left undone."""

    def __init__(self, pool: Pool, places: Callable[[], Places], *, target: str = IN_PLACE) -> None:
        self._marking = _Marking(pool, places, target)
        self._keeping = _Keeping(pool, places, target)
        self._threads = (
            Rounds("mirror-watermark", self._marking.round),
            Rounds("mirror-upkeep", self._keeping.round),
        )

    def published(self, versions: Mapping[int, int]) -> None:
        """Take note of the newest published versions, by table_no, and see to them in the threads."""
        self.tell(versions)
        for thread in self._threads:
            thread.wake()

    def tell(self, versions: Mapping[int, int]) -> None:
        """Take note of the newest published versions, by table_no."""
        self._marking.tell()
        self._keeping.tell(versions)

    def round(self, *, stopping: bool = False) -> None:
        """Do in this thread what is due now: the watermark and, unless this is the end, at most one checksum and one
        checkpoint."""
        self._marking.round(stopping)
        self._keeping.round(stopping)

    def close(self) -> None:
        """Write the last watermark and end; a checkpoint under way is waited for a few seconds, then abandoned."""
        for thread in self._threads:
            thread.stop()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Marking:
    """Keeps the watermark document up to date."""

    def __init__(self, pool: Pool, places: Callable[[], Places], target: str) -> None:
        self._pool = pool
        self._open_places = places
        self._target = target
        self._due = False
        self._not_before = 0.0

    def tell(self) -> None:
        self._due = True

    def round(self, last: bool) -> float:
        """Write the document, if there may be news and the pace allows it; seconds until another round is due."""
        left = self._not_before - time.monotonic()
        if self._due and (last or left <= 0):
            # Before SQL is read: what is told meanwhile asks for another one.
            self._due = False
            try:
                places = self._open_places()
                with self._pool.connection() as db:
                    document = watermark.load(db, self._target, places.uri)
                watermark.write(places.root, document)
            except BaseException:
                self._due = True
                raise
            left = WATERMARK_SECONDS
            self._not_before = time.monotonic() + left
        return max(0.0, left) if self._due else IDLE_SECONDS


class _Keeping:
    """Makes checkpoints and checksums, and cleans up."""

    def __init__(self, pool: Pool, places: Callable[[], Places], target: str) -> None:
        self._pool = pool
        self._open_places = places
        self._target = target
        self._told: dict[int, int] = {}
        self._tables: dict[int, _Table] | None = None
        self._lock = threading.Lock()
        self._told_at = 0.0
        self._checkpoint_at = 0.0

    def tell(self, versions: Mapping[int, int]) -> None:
        with self._lock:
            self._told.update(versions)
            self._told_at = time.monotonic()

    def round(self, last: bool) -> float:
        """Do what is due, unless this is the end; seconds until there may be more."""
        if last:
            return 0.0
        self._note()
        self._write_checksum()
        self._write_checkpoint()
        return self._pause()

    def _note(self) -> None:
        """Take over what was told, and read what is not known yet of the tables it is about."""
        with self._lock:
            told, self._told = self._told, {}
        try:
            with self._pool.connection() as db:
                if self._tables is None:
                    self._tables = _read_tables(db, self._target)
                if told.keys() - self._tables.keys():
                    self._tables = _read_tables(db, self._target) | self._tables
        except TxnLogError:
            with self._lock:
                self._told = told | self._told
            raise
        for table_no, version in told.items():
            table = self._tables.get(table_no)
            if table is not None:
                table.published = max(table.published, version)
                table.told_at = time.monotonic()

    def _write_checkpoint(self) -> None:
        """One checkpoint, if one is due and the pace allows it."""
        now = time.monotonic()
        tables = self._tables or {}
        due = [table for table in tables.values() if table.due >= 1 and table.not_before <= now]
        if not due or now < self._paced():
            return
        table = max(due, key=lambda each: each.due)
        began = time.monotonic()
        try:
            self._checkpoint(table)
        except TxnLogError as error:
            tables[table.table_no].not_before = began + RETRY_SECONDS
            logger.warning(
                "no checkpoint of %s at version %s: %s",
                *(table.location, table.published, error),
                extra={"table": table.table_no},
            )
        finally:
            took = time.monotonic() - began
            self._checkpoint_at = began + took + min(took * (1 / CHECKPOINT_SHARE - 1), MAX_PAUSE_SECONDS)

    def _checkpoint(self, table: _Table) -> None:
        """A checkpoint of the newest published version, unless another process has made one meanwhile."""
        # Not part of what it takes: pyarrow's import, which a short-lived client may never need here.
        from .checkpoint import checkpoint

        assert self._tables is not None
        place = self._open_places().of(table.location)
        with self._pool.connection() as db:
            fresh = _read_tables(db, self._target, table.table_no).get(table.table_no)
            if fresh is None:
                del self._tables[table.table_no]
                return
            fresh.published = max(fresh.published, table.published)
            fresh.told_at, fresh.cleaned = table.told_at, table.cleaned
            self._tables[table.table_no] = fresh
            # The table's interval, too, may have been changed.
            if fresh.due < 1:
                return
            if checkpoint(db, place, fresh.table_id, fresh.published):
                status.write_checkpoint(db, self._target, fresh.table_no, fresh.published)
        # One that could not be named stays where it is; the next interval brings another.
        fresh.checkpoint = fresh.published
        self._clean(fresh, place)

    def _clean(self, table: _Table, place: Place) -> None:
        """Clean up the log of a table that has just got a checkpoint, once a day."""
        now_ms = int(time.time() * 1000)
        if table.cleaned == now_ms // cleanup.DAY_MS:
            return
        table.cleaned = now_ms // cleanup.DAY_MS
        try:
            cleanup.clean(self._pool, self._open_places().root, place, table.table_id, self._target, now_ms)
        except TxnLogError as error:
            where = {"table": table.table_no}
            logger.warning("the log of %s is not cleaned up today: %s", table.location, error, extra=where)

    def _write_checksum(self) -> None:
        """The checksum of one table that has been left in peace for a moment, if there is one."""
        before = time.monotonic() - QUIET_SECONDS
        tables = (self._tables or {}).values()
        table = next((t for t in tables if t.told_at is not None and t.told_at <= before), None)
        if table is None:
            return
        table.told_at = None
        with self._pool.connection() as db:
            if (
                table.table_no in _read_tables(db, self._target, table.table_no)
                and table.published >= table.publish_from
            ):
                place = self._open_places().of(table.location)
                version_checksum.put_newest(db, place, table.table_id, table.published)

    def _pause(self) -> float:
        """Seconds until there may be something to do without being woken."""
        now = time.monotonic()
        waits = [IDLE_SECONDS]
        tables = (self._tables or {}).values()
        waits += [max(table.not_before, self._paced()) - now for table in tables if table.due >= 1]
        waits += [table.told_at + QUIET_SECONDS - now for table in tables if table.told_at is not None]
        return max(0.01, min(waits))

    def _paced(self) -> float:
        """When the pace allows the next checkpoint, unless more is published before that."""
        return min(self._checkpoint_at, self._told_at + QUIET_SECONDS)


def _read_tables(db: Database, target: str, table_no: int | None = None) -> dict[int, _Table]:
    """By table_no: every table that is published at the target, or only that one.

    Nothing but versions is ever written into a log in which somebody else writes: not beside a foreign commit, nor in the
    own place of a table that is somebody else's still or again.
    """
    rows = db.query(
        "SELECT t.table_no, t.table_id, t.location, m.configuration, s.publish_from, s.checkpoint_version, "
        "s.mirrored_version FROM dl_mirror_status s JOIN dl_mirror_targets g ON g.target = s.target "
        "JOIN dl_tables t ON t.table_no = s.table_no JOIN dl_table_heads h ON h.table_no = s.table_no "
        "JOIN dl_metadata_updates m ON m.table_no = h.table_no AND m.version = h.metadata_version "
        "WHERE s.target = ? AND s.state <> 'FENCED' AND t.state <> 'DROPPED' "
        "AND (t.state = 'ACTIVE' OR g.kind <> 'in-place')" + ("" if table_no is None else " AND s.table_no = ?"),
        [target] if table_no is None else [target, table_no],
    )
    return {
        number: _Table(
            table_no=number,
            table_id=table_id,
            location=location,
            interval=properties.checkpoint_interval(msgspec.json.decode(configuration, type=dict[str, str])),
            publish_from=publish_from,
            checkpoint=checkpoint,
            published=mirrored,
        )
        for number, table_id, location, configuration, publish_from, checkpoint, mirrored in rows
    }
