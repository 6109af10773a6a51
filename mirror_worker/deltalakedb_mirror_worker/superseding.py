"""Moves foreign commits out of a `_delta_log` where SQL has versions of its own, and keeps them for the record.

The one exception to "never overwrites": files are copied to `_deltalakedb_conflicts` below the lake's root, then deleted
from the log, the newest first, so that what is left can be read at any moment; ours take their place.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

from deltalakedb.catalog import MirrorProgress
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.log_names import LAST_CHECKPOINT, LogFile, commit_version, log_folder, parse_name
from deltalakedb.objectstore import ObjectStore, Put

from .checkpoint import checkpoint
from .foreign import ForeignCommits
from .inspection import named_checkpoint
from .places import Place
from .portions import publish_versions
from .scratch import scratch
from .wide import same_bytes

logger = logging.getLogger(__name__)

CONFLICTS = "_deltalakedb_conflicts"


class Kept(NamedTuple):
    """A foreign commit that was moved away."""

    version: int
    after: int
    """The newest version that it may have been written against: from the next one on, the histories differ."""
    path: str
    """Below the lake's root."""

    @property
    def history(self) -> str:
        """The folder of what was moved away together: each commit rests on those before it."""
        return self.path.rsplit("/", 1)[0]


def supersede(pool: Pool, root: ObjectStore, place: Place, table: MirrorProgress, foreign: ForeignCommits) -> None:
    """Move every file that tells the foreign history to `root`, and publish SQL's versions in its place. Repeatable.

    Raises `TxnLogTableFencedError` if the other one goes on writing, and the errors of store and database.
    """
    files = _told_by_others(place, foreign)
    first = place.store.get(foreign.all[foreign.first].path)
    mark = hashlib.sha256(b"" if first is None else first.data).hexdigest()[:8]
    folder = f"{_folder(table)}{foreign.first:020}-{mark}/"
    for path in files:
        _keep(place.store, path, root, folder + path.rsplit("/", 1)[1])
    for path in files:
        place.store.delete([path])
    logger.warning(
        "%s files of a foreign history of table %r, from version %s on, were moved to %s/%s",
        *(len(files), table.name, foreign.first, root.root, folder),
        extra={"table": table.name},
    )
    publish_versions(pool, place, table.table_no, range(foreign.first, table.version + 1))
    if len(files) > len(foreign.all):
        # With theirs a checkpoint of ours may have gone that the log began with.
        with pool.connection() as db:
            checkpoint(db, place, table.table_id, table.version)


def kept_commits(root: ObjectStore, table: MirrorProgress) -> Iterator[Kept]:
    """The foreign commits of a table that were moved away, ever, in the order of their versions."""
    for found in root.list(_folder(table)):
        version = commit_version(found.path)
        if version is not None:
            first = int(found.path.rsplit("/", 2)[1].split("-", 1)[0])
            yield Kept(version, first - 1, found.path)


def _folder(table: MirrorProgress) -> str:
    return f"{CONFLICTS}/{table.name}-{table.table_id[-8:]}/"


def _told_by_others(place: Place, foreign: ForeignCommits) -> list[str]:
    """Paths in the order in which they have to go: the hint, checkpoints and checksums, then commits, the newest first."""
    beside: list[str] = []
    log = log_folder(place.folder)
    for found in place.store.list(log):
        name = parse_name(found.path.removeprefix(log))
        if name is not None and name.file is not LogFile.COMMIT and name.version >= foreign.first:
            beside.append(found.path)
    if named_checkpoint(place) >= foreign.first:
        beside.append(log + LAST_CHECKPOINT)
    commits = [foreign.all[version].path for version in sorted(foreign.all)]
    return [*reversed(beside), *reversed(commits)]


def _keep(source: ObjectStore, path: str, root: ObjectStore, kept: str) -> None:
    """Copy a file; one that is there already must be the same."""
    with scratch("conflict") as folder:
        theirs, there = folder / "theirs", folder / "there"
        source.download(path, theirs)
        if root.put_file_if_absent(kept, theirs) is not Put.CREATED:
            root.download(kept, there)
            if not same_bytes(theirs, there):
                raise TxnLogObjectStoreError(f"{root.root}/{kept} is there already with other bytes: move it away")
