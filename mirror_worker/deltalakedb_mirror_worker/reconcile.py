"""Compares what SQL calls published with what is there, now and then: puts back what is gone, finds who else writes."""

from __future__ import annotations

import logging
import time

from deltalakedb.catalog import IN_PLACE, Catalog, MirrorProgress
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogError, TxnLogTableFencedError

from . import status
from .inspection import foreign_version
from .places import Place, Places
from .portions import rendered
from .publish import is_there
from .repair import repair
from .status import MirrorState, StatusUpdate

logger = logging.getLogger(__name__)

NEWEST = 256
"""Versions below the newest published one that every round looks at."""
WINDOW = 1_024
"""Older versions that a round looks at besides; the next round goes on where it ended."""


class Reconciler:
    """Goes over the tables of one target. Used by one thread."""

    def __init__(self, pool: Pool, *, target: str = IN_PLACE) -> None:
        self._pool = pool
        self._target = target
        self._reached: dict[int, int] = {}
        """By table_no: up to which version the older ones have been looked at in this turn."""

    def round(self, places: Places) -> int:
        """Look at every table once; how many versions were put back.

        Tables with a foreign commit become FENCED; one whose foreign commit is gone leaves that state. Errors of single
        tables are logged. Raises the errors of the database.
        """
        with self._pool.connection() as db:
            catalog = Catalog(db)
            if status.find_target(catalog, self._target).state == "PAUSED":
                return 0
            tables = catalog.progress(self._target)
        repaired = 0
        for table in tables:
            if table.status is None or (table.state == "RELEASED" and table.status.mirrored_version == table.version):
                continue  # what was released is in the hands of others
            try:
                repaired += self._table(places.of(table.location), table)
            except TxnLogTableFencedError as error:
                self._record(table, MirrorState.FENCED, str(error))
            except TxnLogError as error:
                logger.warning("table %r could not be reconciled: %s", table.name, error)
        return repaired

    def _table(self, place: Place, table: MirrorProgress) -> int:
        assert table.status is not None
        mirrored, first = table.status.mirrored_version, table.status.first_kept
        repaired = 0
        if mirrored >= first:
            newest = max(first, mirrored - NEWEST)
            repaired += repair(self._pool, place, table.table_no, newest, mirrored)
            low = max(first, self._reached.get(table.table_no, first))
            high = min(low + WINDOW, newest) - 1
            if high >= low:
                repaired += repair(self._pool, place, table.table_no, low, high)
            self._reached[table.table_no] = high + 1 if high + 1 < newest else first
        self._refuse_foreign_version(place, table)
        if (
            table.status.state == MirrorState.FENCED
            and mirrored == table.version
            and self._newest_is_ours(place, table)
        ):
            self._record(table, MirrorState.SUCCEEDED, None)
        return repaired

    def _refuse_foreign_version(self, place: Place, table: MirrorProgress) -> None:
        """Nobody has a version that SQL does not have."""
        found = foreign_version(place, table.version)
        if found is None:
            return
        with self._pool.connection() as db:
            (head,) = db.query("SELECT version FROM dl_table_heads WHERE table_no = ?", [table.table_no])[0]
        # Meanwhile it may have been committed, and published by another worker.
        if found.version > head:
            raise TxnLogTableFencedError(found.told)

    def _newest_is_ours(self, place: Place, table: MirrorProgress) -> bool:
        with self._pool.connection() as db, db.snapshot():
            (version,) = Catalog(db).versions([(table.table_no, table.version, table.version)])
        return is_there(place.store, place.folder, rendered(version))

    def _record(self, table: MirrorProgress, state: MirrorState, told: str | None) -> None:
        assert table.status is not None
        if state == MirrorState.FENCED and table.status.state != MirrorState.FENCED:
            logger.error("table %r is fenced: %s", table.name, told, extra={"table": table.name})
        elif state == MirrorState.SUCCEEDED:
            logger.info("table %r is no longer fenced", table.name, extra={"table": table.name})
        update = StatusUpdate(
            table_no=table.table_no,
            state=state,
            mirrored=table.status.mirrored_version,
            attempts=table.status.attempts + (told is not None),
            last_error=told,
            fenced_by=told,
        )
        with self._pool.connection() as db, db.transaction():
            status.write(db, self._target, [update], int(time.time() * 1000))
