"""From settings to a mirror with its upkeep: what service and client have in common. The mirror's composition root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from deltalakedb.catalog import IN_PLACE, Catalog, LakeInfo, MirrorProgress
from deltalakedb.database import Pool, open_database
from deltalakedb.database.schema import verify_schema
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.objectstore import ObjectStore, open_object_store
from deltalakedb.settings import Settings

from . import status
from .lock import StepLock
from .step import Mirror, Progress
from .upkeep import Upkeep

LOCAL_THREADS = 4
REMOTE_THREADS = 32
"""An object store takes milliseconds for a put, so that many tables have to wait side by side."""


class Worker:
    """A mirror of one target, its upkeep, and what they stand on. Used by one thread at a time."""

    def __init__(self, settings: Settings, *, target: str = IN_PLACE) -> None:
        """Raises `TxnLogConfigError` if there is no lake in the store or the settings name another root than its own,
        `TxnLogMirrorError` if it has no such target, `TxnLogHaltedError` if its SQL schema is not that of this release."""
        self.pool = Pool(lambda: open_database(settings.address, by_key=True))
        try:
            self.lake = _lake(self.pool, settings)
            with self.pool.connection() as db:
                place = status.find_target(Catalog(db), target)
        except BaseException:
            self.pool.close()
            raise
        self._target = target
        self.mirror = Mirror(
            self.pool,
            store_opener(settings),
            target=target,
            threads=REMOTE_THREADS if urlsplit(place.root or self.lake.root).scheme == "s3" else LOCAL_THREADS,
            secrets=settings.secrets,
            on_published=lambda versions: self.upkeep.published(versions),
        )
        self.upkeep = Upkeep(self.pool, lambda: self.mirror.places, target=target)
        self._begun = False
        # Of its own for each target: a copy that takes its time must not keep a client from publishing what it committed.
        suffix = "mirror" if target == IN_PLACE else f"mirror-{target}"
        self.lock = StepLock(Path(f"{settings.address.path}.{suffix}.lock")) if settings.address.path else None

    def step(self, timeout: float) -> Progress | None:
        """The mirror's step; None if another process was at it for `timeout` seconds."""
        if self.lock is None:
            progress = self.mirror.step()
        else:
            with self.lock.hold(timeout) as held:
                if not held:
                    return None
                progress = self.mirror.step()
        if not self._begun:
            # A mirror before this one may have been killed between a version and its watermark.
            self.upkeep.published({})
            self._begun = True
        return progress

    def idle(self) -> bool:
        """Whether a step would find nothing to do; asks SQL, and waits for nobody."""
        return self._begun and self.mirror.idle()

    def reach(self) -> None:
        """Ask the store anything. Raises `TxnLogDatabaseError` if it does not answer. May be called by any thread."""
        with self.pool.connection() as db:
            db.query("SELECT 1")

    def progress(self, name: str) -> MirrorProgress:
        """How far the table of that name is. Raises `TxnLogTableNotFoundError` if there is none."""
        with self.pool.connection() as db:
            catalog = Catalog(db)
            table_no = catalog.table(name).table_no
            return next(table for table in catalog.progress(self._target) if table.table_no == table_no)

    def tables(self) -> list[MirrorProgress]:
        """How far every table is that was not dropped, by name."""
        with self.pool.connection() as db:
            found = Catalog(db).progress(self._target)
        return sorted((table for table in found if table.state != "DROPPED"), key=lambda table: table.name)

    def close(self) -> None:
        """Record what is on its way, write the last watermark, free connections."""
        self.mirror.close()
        self.upkeep.close()
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def store_opener(settings: Settings) -> Callable[[str], ObjectStore]:
    """Opens object stores by URI, with the settings' options where they apply."""
    options = settings.storage.values
    return lambda uri: open_object_store(uri, options if urlsplit(uri).scheme == "s3" else None)


def _lake(pool: Pool, settings: Settings) -> LakeInfo:
    with pool.connection() as db:
        verify_schema(db)
        lake = Catalog(db).lake()
    if lake is None:
        raise TxnLogConfigError(f"{settings.address} holds no lake yet: run `deltalakedb migrate` first")
    if settings.root_uri is not None and settings.root_uri.rstrip("/") != lake.root.rstrip("/"):
        raise TxnLogConfigError(
            f"the settings name the root {settings.root_uri}, but this lake's is {lake.root}: correct --root "
            "(DELTALAKEDB_ROOT), or leave it out"
        )
    return lake
