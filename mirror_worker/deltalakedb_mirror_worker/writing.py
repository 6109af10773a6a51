"""Writes the whole log of one table into another place that holds the same data files, from SQL alone."""

from __future__ import annotations

from dataclasses import dataclass

from deltalakedb.catalog import Catalog, TableInfo
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError, TxnLogTableFencedError
from deltalakedb.locations import same
from deltalakedb.log_names import log_folder

from .checkpoint import checkpoint
from .inspection import named_checkpoint
from .places import Place
from .portions import publish_versions
from .publish import listed_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The log that was written."""

    location: str
    first: int
    """The oldest version that can be read."""
    last: int
    """The newest one."""
    checkpoints: tuple[int, ...]
    """Versions with a checkpoint; `_last_checkpoint` names the newest."""


def write_log(pool: Pool, table: TableInfo, place: Place) -> Written:
    """Write every version of a table up to that of `table`, and its newest checkpoint. Safe to repeat.

    The table begins with its oldest version that can be reconstructed. If that is not version 0, the log begins with
    that version and a checkpoint of it, before anything else. The files get the times of their versions where the store
    allows that, so that readers which go by them find the same versions as SQL.

    Raises `TxnLogTableFencedError` if there is a log of somebody else's, `TxnLogMirrorError` for what cannot be written,
    and the errors of store and database. What is written until then is a valid beginning.
    """
    if same(place.uri, table.location):
        raise TxnLogMirrorError(
            f"{table.location} is the table's own location, which `deltalakedb mirror run` serves: name another folder"
        )
    with pool.connection() as db:
        first = Catalog(db).oldest_version(table.table_no)
    _refuse_other_log(place, table, first)
    publish_versions(pool, place, table.table_no, [first])
    checkpoints = [first] if first > 0 else []
    if first > 0 and named_checkpoint(place) < first:
        _checkpoint(pool, place, table, first)
    publish_versions(pool, place, table.table_no, range(first + 1, table.version + 1))
    if table.version > first:
        _checkpoint(pool, place, table, table.version)
        checkpoints.append(table.version)
    return Written(location=place.uri, first=first, last=table.version, checkpoints=tuple(checkpoints))


def _refuse_other_log(place: Place, table: TableInfo, first: int) -> None:
    """What is there already must begin where ours does, and not go beyond it."""
    lowest = listed_version(place.store, place.folder, 0)
    beyond = listed_version(place.store, place.folder, table.version + 1)
    wrong = lowest if lowest not in (None, first) else beyond
    if wrong is not None:
        raise TxnLogTableFencedError(
            f"{place.uri} has a log with a version {wrong}, and {table.name!r} has the versions {first} to "
            f"{table.version}: it is not a copy of this table's log. Choose a folder without a _delta_log"
        )


def _checkpoint(pool: Pool, place: Place, table: TableInfo, version: int) -> None:
    with pool.connection() as db:
        if not checkpoint(db, place, table.table_id, version):
            raise TxnLogMirrorError(
                f"{place.store.root}/{log_folder(place.folder)} has another checkpoint than SQL gives for version "
                f"{version}, or a _last_checkpoint that goes beyond it: it is not a copy of this table's log"
            )
