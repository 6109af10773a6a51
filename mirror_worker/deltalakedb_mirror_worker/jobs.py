"""Versions of one table on their way: rendered by the mirror's own thread, delivered and published by another one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from deltalakedb.catalog import Catalog, MirrorProgress, VersionActions
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogError, TxnLogMirrorError, TxnLogTableFencedError
from deltalakedb.objectstore.identity import foreign_log, log_object

from .data_files import files
from .delivery import Delivery
from .places import Place, Places
from .portions import rendered
from .publish import Published, Rendered, is_there, listed_version, publish
from .repair import repair
from .slices import Slice
from .wide import is_wide_there, publish_wide

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """Versions of one table on their way."""

    slice: Slice
    before: Rendered | None = None
    """The version before the first, where it has yet to be seen that it is in its place, unless it is wide."""
    versions: list[VersionActions] = field(default_factory=list)
    """Empty for a wide version."""
    commits: list[Rendered] = field(default_factory=list)
    """What `versions` are rendered to."""
    error: TxnLogError | None = None
    """What kept further versions from being rendered."""

    @property
    def table(self) -> MirrorProgress:
        return self.slice.table

    @property
    def publish_from(self) -> int:
        """The first version that is ours to publish at the target."""
        return 0 if self.table.status is None else self.table.status.publish_from


def make_job(each: Slice, versions: Sequence[VersionActions]) -> Job:
    """Render a slice. What cannot be rendered ends it: the versions before it are published all the same."""
    job = Job(slice=each)
    if each.rows is None:
        return job
    _, first, last = each.rows
    for expected, version in zip(range(first, last + 1), versions, strict=False):
        try:
            if version.row.version != expected:
                break
            commit = rendered(version)
        except TxnLogError as error:
            job.error = error
            return job
        except Exception as error:
            # Whatever it is, it must not keep the other tables from being published.
            logger.exception("version %s of table %r cannot be rendered", expected, each.table.name)
            job.error = TxnLogMirrorError(f"version {expected} cannot be rendered: {type(error).__name__}: {error}")
            return job
        if expected < each.first:
            job.before = commit
        else:
            job.versions.append(version)
            job.commits.append(commit)
    if not job.commits and not each.wide:
        job.error = TxnLogMirrorError(f"SQL has no version {each.first} of a table whose head is {each.table.version}")
    return job


def run_job(pool: Pool, places: Places, delivery: Delivery | None, job: Job) -> Published:
    """Deliver and publish one table's versions; runs in a thread of its own. Raises nothing.

    `delivery` is None where the data files are in their place, because it is the table's own.
    """
    each = job.slice
    try:
        place = places.of(job.table.location)
        begins = each.first == job.publish_from and (each.first == 0 or delivery is not None)
        if begins:
            _refuse_foreign_log(place, job.table.name, each.first)
        else:
            _see_version_before(pool, place, job)
        published = (_publish_wide if each.wide else _publish_commits)(pool, place, delivery, job)
        if begins and each.first > 0 and published.done:
            # Without a checkpoint nobody could read a log that does not begin with version 0.
            from .checkpoint import checkpoint  # pyarrow, which a short-lived client may never need here

            with pool.connection() as db:
                checkpoint(db, place, job.table.table_id, each.first)
        return published
    except TxnLogError as error:
        return Published(0, error)
    except Exception as error:
        logger.exception("table %r cannot be published", job.table.name)
        return Published(0, TxnLogMirrorError(f"{type(error).__name__} while publishing: {error}"))


def _publish_commits(pool: Pool, place: Place, delivery: Delivery | None, job: Job) -> Published:
    ready, held_up = (len(job.commits), None) if delivery is None else _delivered(delivery, job)
    published = publish(place.store, place.folder, job.commits[:ready])
    return published if held_up is None or published.error is not None else Published(published.done, held_up)


def _delivered(delivery: Delivery, job: Job) -> tuple[int, TxnLogError | None]:
    """How many versions, from the first on, have their files at the target, and what kept the next one from it."""
    for ready, version in enumerate(job.versions):
        try:
            delivery.deliver(job.table, version.row.version, files(version.adds, version.cdc))
        except TxnLogError as error:
            return ready, error
    return len(job.versions), None


def _publish_wide(pool: Pool, place: Place, delivery: Delivery | None, job: Job) -> Published:
    table_no, version = job.table.table_no, job.slice.first
    if delivery is not None:
        with pool.connection() as db, db.snapshot():
            catalog = Catalog(db)
            (bare,) = catalog.versions([(table_no, version, version)], files=False)
            delivery.deliver(job.table, version, files(catalog.adds(table_no, version), bare.cdc))
    publish_wide(pool, place, table_no, version)
    return Published(1, None)


def _see_version_before(pool: Pool, place: Place, job: Job) -> None:
    """Nothing is published behind a version that is not there, or not ours."""
    each = job.slice
    if each.before_wide:
        there = is_wide_there(pool, place, job.table.table_no, each.first - 1)
    else:
        there = job.before is None or is_there(place.store, place.folder, job.before)
    if not there:
        first = 0 if job.table.status is None else job.table.status.first_kept
        repair(pool, place, job.table.table_no, first, each.first - 1)


def _refuse_foreign_log(place: Place, table: str, first: int) -> None:
    """A table of ours begins in an empty `_delta_log`, or in one that begins with that version, which is then compared."""
    found = log_object(place.store, place.folder)
    if found is not None and listed_version(place.store, place.folder, 0) != first:
        raise TxnLogTableFencedError(str(foreign_log(place.store, found, table)))
