"""Commits of others in the `_delta_log` of a table: which there are, and whether SQL has versions of its own there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deltalakedb.catalog import MirrorProgress
from deltalakedb.database import Pool
from deltalakedb.deltalog.listing import list_log
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.objectstore import ObjectInfo

from .inspection import inspect
from .places import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignCommits:
    """What others committed, as files by version in rising order."""

    instead: Mapping[int, ObjectInfo]
    """Where SQL has versions of its own."""
    beyond: Mapping[int, ObjectInfo]
    """Above SQL's head."""

    @property
    def first(self) -> int:
        return min((*self.instead, *self.beyond))

    @property
    def all(self) -> Mapping[int, ObjectInfo]:
        return {**self.instead, **self.beyond}


def foreign_commits(pool: Pool, place: Place, table: MirrorProgress) -> ForeignCommits | None:
    """The foreign commits in the log of a table at its own place; None if there are none.

    Raises `TxnLogMirrorError` where a version is missing among those beyond SQL's head: nobody can read behind it.
    """
    first = 0 if table.status is None else table.status.first_kept
    commits = list_log(place.store, place.folder).commits
    beyond = {version: file for version, file in commits.items() if version > table.version}
    gap = next(
        (version for version in range(table.version + 1, max(beyond, default=-1)) if version not in beyond), None
    )
    if gap is not None:
        raise TxnLogMirrorError(
            f"{place.uri} has a foreign version {max(beyond)} and no version {gap}: move the files behind the gap away"
        )
    versions = [version for version in commits if first <= version <= table.version]
    differing = [found.version for found in inspect(pool, place, table.table_no, versions) if found.what == "differs"]
    if not differing and not beyond:
        return None
    return ForeignCommits(instead={version: commits[version] for version in differing}, beyond=beyond)
