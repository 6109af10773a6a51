"""Puts back published files that are gone, because SQL knows their bytes, and reports those that are not ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from deltalakedb.catalog import MirrorProgress
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.failpoints import Failpoint
from deltalakedb.log_names import LogFile, commit_version, log_folder, log_path, parse_name

from .inspection import Finding, foreign_version, inspect, named_checkpoint
from .places import Place
from .portions import publish_versions

logger = logging.getLogger(__name__)

_FOUND = Failpoint("repair.found")

_CHECKPOINTS = (LogFile.CLASSIC, LogFile.PART, LogFile.UNIQUE)


def repair(pool: Pool, place: Place, table_no: int, first: int, last: int) -> int:
    """Publish again what is missing of the versions `first` to `last`, in order; how many were.

    They must all have been published before. Raises `TxnLogTableFencedError` if somebody else's commit came into a
    gap meanwhile, and the errors of store and database.
    """
    missing = list(_missing(place, first, last))
    if missing:
        _FOUND.reached()
    publish_versions(pool, place, table_no, missing)
    if missing:
        logger.warning(
            "%s published versions of %s/%s were gone (the first is %s) and are there again",
            *(len(missing), place.store.root, place.folder, missing[0]),
            extra={"table_no": table_no},
        )
    return len(missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What became of the log of one table at one target."""

    table: str
    target: str
    location: str
    first: int
    """The first version that is ours to keep there and was looked at."""
    last: int
    """The newest one that was published."""
    missing: tuple[int, ...]
    """Versions that were gone."""
    checkpoint: int | None
    """The version whose checkpoint was written, because `_last_checkpoint` named one that is gone."""
    written: bool
    """Whether what was missing is there again; false for a dry run."""
    left: tuple[Finding, ...]
    """What is not ours and was left as it is."""


def repair_table(pool: Pool, place: Place, table: MirrorProgress, target: str, *, dry_run: bool) -> Repaired:
    """Look at every version that was published, and at what `_last_checkpoint` names; put back what is gone.

    Raises `TxnLogMirrorError` if nothing was published there yet, and the errors of store and database.
    """
    status = table.status
    if status is None or status.mirrored_version < status.first_kept:
        raise TxnLogMirrorError(
            f"nothing of table {table.name!r} was published on {target} yet: there is nothing to repair"
        )
    first, last = status.first_kept, status.mirrored_version
    found = list(inspect(pool, place, table.table_no, range(first, last + 1)))
    missing = tuple(finding.version for finding in found if finding.what == "missing")
    beyond = foreign_version(place, table.version)
    unnamed = _lost_checkpoint(place)
    if not dry_run:
        publish_versions(pool, place, table.table_no, missing)
        if unnamed:
            from .checkpoint import checkpoint  # pyarrow, which publishing does without

            with pool.connection() as db:
                checkpoint(db, place, table.table_id, last)
    return Repaired(
        table=table.name,
        target=target,
        location=place.uri,
        first=first,
        last=last,
        missing=missing,
        checkpoint=last if unnamed else None,
        written=not dry_run,
        left=(*(finding for finding in found if finding.what == "differs"), *([beyond] if beyond else ())),
    )


def _lost_checkpoint(place: Place) -> bool:
    """Whether `_last_checkpoint` names a checkpoint that is not there: some readers then read nothing at all."""
    named = named_checkpoint(place)
    if named < 0:
        return False
    before = log_path(place.folder, named - 1) if named > 0 else ""
    for found in place.store.list(log_folder(place.folder), start_after=before):
        name = parse_name(found.path.rsplit("/", 1)[1])
        if name is not None and name.version > named:
            break
        if name is not None and name.version == named and name.file in _CHECKPOINTS:
            return False
    return True


def _missing(place: Place, first: int, last: int) -> Iterator[int]:
    """Versions from `first` to `last` that a listing does not show. Putting them is safe where a listing is stale."""
    expected = first
    start_after = log_path(place.folder, first - 1) if first > 0 else ""
    for found in place.store.list(log_folder(place.folder), start_after=start_after):
        version = commit_version(found.path)
        if version is None:
            if found.path > log_path(place.folder, last):
                break
            continue
        yield from range(expected, min(version, last + 1))
        expected = max(expected, version + 1)
        if version >= last:
            break
    yield from range(expected, last + 1)
