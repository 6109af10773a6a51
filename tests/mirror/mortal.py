"""A mirror in a process that is ended at any point."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as _pandas  # noqa: F401 - pyarrow imports it at first use

from deltalakedb import failpoints
from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool, StoreAddress, open_database
from deltalakedb.errors import TxnLogError
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker import checkpoint as _checkpoint  # noqa: F401 - loaded before anybody forks
from deltalakedb_mirror_worker import cleanup, portions, step, upkeep, wide
from deltalakedb_mirror_worker.reconcile import Reconciler
from tests.mortuary import serve

WIDE = 3
"""A version with more files than this is wide."""
LATER_MS = 31 * cleanup.DAY_MS
"""How far ahead of now the log is cleaned up: everything has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one mirror does before it ends by itself, if it is let."""

    store: str
    """Path of a SQLite store."""
    kill_at: str | None = None
    """The failpoint at which it ends; None: it does not."""
    passes: int = 0
    """How often it passes there before."""
    lose: str | None = None
    """Path of a file to delete once everything is published, so that it has to be put back."""
    forever: bool = False
    """Whether it goes on when nothing is left to do."""


def _mirror(given: dict[str, Any]) -> int:
    work = Work(**given)
    for module in (step, portions, wide):
        module.WIDE_ACTIONS = WIDE  # type: ignore[attr-defined]
    upkeep.QUIET_SECONDS = upkeep.WATERMARK_SECONDS = 0.0
    if work.forever:
        # There may be another one: what it is about to name is no month old, as it is when everything else is.
        cleanup.YOUNG_MS = 2 * LATER_MS
    if work.kill_at is not None:
        left = [work.passes]

        def end() -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.arm(work.kill_at, end)
    address = StoreAddress(engine="sqlite", path=work.store)
    pool = Pool(lambda: open_database(address))
    mirror = step.Mirror(
        pool, open_object_store, threads=2, max_pause=0.0, on_published=lambda versions: keeper.tell(versions)
    )
    keeper = upkeep.Upkeep(pool, lambda: mirror.places)
    keeper.tell({})
    reconciler = Reconciler(pool)
    done = False
    while work.forever or not done:
        try:
            progress = mirror.step()
            keeper.round()
            if not progress.versions_behind and not progress.more:
                if work.lose is not None:
                    Path(work.lose).unlink(missing_ok=True)
                reconciler.round(mirror.places)
                for _ in range(4):
                    keeper.round()
                _clean_up(pool, mirror)
                keeper.round(stopping=True)
                done = True
        except TxnLogError:
            time.sleep(0.01)
    return 0


def _clean_up(pool: Pool, mirror: step.Mirror) -> None:
    with pool.connection() as db:
        tables = Catalog(db).progress("in-place")
    now = int(time.time() * 1000) + LATER_MS
    for table in tables:
        place = mirror.places.of(table.location)
        cleanup.clean(pool, mirror.places.root, place, table.table_id, "in-place", now)


if __name__ == "__main__":
    serve(_mirror)
