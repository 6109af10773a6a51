"""Cleans up a `_delta_log` by the protocol's rule: what is older than the table's retention and covered by a checkpoint.

SQL keeps every version, so nothing is lost but the ability of readers by path to travel that far back. A log is cut only
at a checkpoint that was read again, whole, and found to hold what SQL has at its version, because from then on everything
rests on it; its own version stays as JSON. First SQL is told, so that nobody puts back what is deleted next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deltalakedb.catalog import Catalog, TableInfo
from deltalakedb.database import Database, Pool
from deltalakedb.deltalog import last_checkpoint
from deltalakedb.failpoints import Failpoint
from deltalakedb.log_names import LAST_CHECKPOINT, SIDECARS, LogFile, checkpoint_path, log_folder, parse_name
from deltalakedb.objectstore import ObjectInfo, ObjectStore, Put

from . import properties, status, watermark
from .places import Place
from .scratch import scratch

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
YOUNG_MS = DAY_MS
"""How long the checkpoint that names a sidecar may take to come."""

_VERIFIED = Failpoint("cleanup.verified")
_CUT = Failpoint("cleanup.cut")
_DELETED = Failpoint("cleanup.deleted")


@dataclass(frozen=True, slots=True)
class _Log:
    """The files of a `_delta_log`, by their names there."""

    files: dict[str, ObjectInfo]

    def versions(self, kind: LogFile) -> set[int]:
        return {name.version for name in map(parse_name, self.files) if name is not None and name.file is kind}

    def checkpoint(self, version: int) -> str | None:
        """The name of a checkpoint of `version` in one file: a classic one rather than one with a unique name."""
        found = [name for name in self.files if _is_checkpoint(name) and name.startswith(f"{version:020}.")]
        return min(found, key=len, default=None)


def clean(pool: Pool, root: ObjectStore, place: Place, table_id: str, target: str, now_ms: int) -> int:
    """Delete what has expired in the log of one table; how many files that were.

    Raises the errors of store and database. Whatever is left undone is done at another time.
    """
    with pool.connection() as db:
        table = Catalog(db).table(table_id=table_id)
        expired = _expired(db, table, target, now_ms)
    if expired is None:
        return 0
    shown = watermark.read(root)
    if shown is not None and table.name in shown.tables:
        # The one state of the lake that readers by path are sent to.
        expired = min(expired, shown.tables[table.name].version)
    log = _listed(place)
    cut = _cut(log, expired)
    if cut is None or 0 < cut < properties.protected_before(table.metadata.configuration, table.protocol):
        return 0
    if not _may_rest_on(pool, place, table, log, cut):
        return 0
    _VERIFIED.reached()
    with pool.connection() as db, db.transaction():
        if not status.cut_log(db, target, table.table_no, cut):
            return 0
    _CUT.reached()
    doomed = list(doomed_by(log.files, cut))
    prefix = log_folder(place.folder)
    place.store.delete([prefix + name for name in doomed])
    _DELETED.reached()
    doomed += _delete_sidecars(place, _listed(place), now_ms)
    logger.info(
        "%s files of %s/%s were deleted; the log begins with version %s",
        *(len(doomed), place.store.root, prefix, cut),
        extra={"table_no": table.table_no},
    )
    return len(doomed)


def cutoff_ms(now_ms: int, retention_ms: int) -> int:
    """Up to which time commits have expired: whole days (UTC) only, so that the answer is the same all day. Pure."""
    return (now_ms - retention_ms) // DAY_MS * DAY_MS


def doomed_by(names: Iterable[str], cut: int) -> Iterator[str]:
    """What of a log goes when it is to begin with the checkpoint of `cut`: commits first, checkpoints last. Pure.

    Names that are none of the protocol's stay.
    """
    understood = [(parsed, name) for name in names if (parsed := parse_name(name)) is not None]
    order = {LogFile.COMMIT: 0, LogFile.CHECKSUM: 1, LogFile.COMPACTED: 1}
    for parsed, name in sorted(understood, key=lambda each: (order.get(each[0].file, 2), each[1])):
        if parsed.version < cut or (parsed.version == cut and parsed.file is LogFile.COMPACTED):
            yield name


def _expired(db: Database, table: TableInfo, target: str, now_ms: int) -> int | None:
    """The newest version that has expired; None if nothing has that could be deleted."""
    retention = properties.log_retention_ms(table.metadata.configuration)
    if retention is None:
        return None
    statuses = db.query(
        "SELECT publish_from, log_start FROM dl_mirror_status WHERE table_no = ? AND target = ? AND state <> 'FENCED'",
        [table.table_no, target],
    )
    if not statuses:
        return None
    ((publish_from, log_start),) = statuses
    first = db.query(
        "SELECT version FROM dl_table_versions WHERE table_no = ? AND version >= ? AND time_ms > ? "
        "ORDER BY version LIMIT 1",
        [table.table_no, log_start, cutoff_ms(now_ms, retention)],
    )
    expired = first[0][0] - 1 if first else table.version
    # What was there before we wrote has been read and imported, but it was not we who wrote it.
    return expired if expired > log_start and expired >= publish_from else None


def _listed(place: Place) -> _Log:
    prefix = log_folder(place.folder)
    found = ((each.path.removeprefix(prefix), each) for each in place.store.list(prefix))
    return _Log({name: each for name, each in found if "/" not in name})


def _cut(log: _Log, expired: int) -> int | None:
    """The newest version up to `expired` that has a checkpoint and its commit, and something to delete below it."""
    whole = log.versions(LogFile.CLASSIC) | log.versions(LogFile.UNIQUE)
    cut = max((version for version in whole & log.versions(LogFile.COMMIT) if version <= expired), default=None)
    if cut is None or not any(doomed_by(log.files, cut)):
        return None
    return cut


def _may_rest_on(pool: Pool, place: Place, table: TableInfo, log: _Log, cut: int) -> bool:
    """Whether the log may begin with the checkpoint of `cut`: it is whole and right, and no hint leads behind it."""
    from .checkpoint import counted

    hint = place.store.get(log_folder(place.folder) + LAST_CHECKPOINT)
    named = None if hint is None else last_checkpoint.named_version(hint.data)
    if named is not None and named < cut:
        return False
    name = log.checkpoint(cut)
    assert name is not None
    with pool.connection() as db, db.snapshot():
        catalog = Catalog(db)
        expected = catalog.size_at(catalog.table(table_id=table.table_id, version=cut))
    with scratch("cleanup") as folder:
        found = counted(place, name, folder)
        if found != expected:
            logger.warning(
                "%s/%s is not cleaned up: %s holds %s instead of %s (files, bytes)",
                *(place.store.root, log_folder(place.folder), name, found, expected),
            )
            return False
        classic = checkpoint_path(place.folder, cut)
        if log.versions(LogFile.CLASSIC).isdisjoint({cut}):
            # Old readers know no unique names: they are to find a checkpoint that says what they lack, not a gap.
            return place.store.put_file_if_absent(classic, folder / name) is not Put.UNKNOWN
    return True


def _delete_sidecars(place: Place, log: _Log, now_ms: int) -> list[str]:
    """Delete the sidecars that no checkpoint names, unless they are so young that theirs may yet come."""
    from .checkpoint import sidecars_of

    prefix = f"{log_folder(place.folder)}{SIDECARS}/"
    old = [found.path for found in place.store.list(prefix) if found.time_ms < now_ms - YOUNG_MS]
    if not old:
        return []
    named: set[str] = set()
    with scratch("cleanup") as folder:
        for name in log.files:
            if _is_checkpoint(name):
                found = sidecars_of(place, name, folder)
                if found is None:
                    return []
                named |= found
    unnamed = [path for path in old if path.removeprefix(prefix) not in named]
    place.store.delete(unnamed)
    return unnamed


def _is_checkpoint(name: str) -> bool:
    """Whether a file is a whole checkpoint by itself, sidecars aside."""
    parsed = parse_name(name)
    return parsed is not None and parsed.file in (LogFile.CLASSIC, LogFile.UNIQUE)
