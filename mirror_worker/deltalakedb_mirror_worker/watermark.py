"""The watermark document: up to which commit a target shows the whole lake, and at which versions.

It names the highest `commit_seq` up to which every table is published, with each table's version there: reading these
versions by path gives all tables at one commit. Tables that cannot take part are named with the reason and their last
good version. The document only moves forward, by compare-and-swap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from deltalakedb.catalog import Catalog, MirrorProgress
from deltalakedb.database import Database
from deltalakedb.failpoints import Failpoint
from deltalakedb.objectstore import ObjectStore, Put

from .status import MirrorState

logger = logging.getLogger(__name__)

NAME = "_deltalakedb_watermark.json"

_RENDERED = Failpoint("watermark.rendered")
_WRITTEN = Failpoint("watermark.written")
_ATTEMPTS = 5


class WatermarkTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table at the watermark: reading `version` at `location` shows the lake at its commit."""

    id: str
    location: str
    version: int


class ExcludedTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table that the watermark does not wait for. `version` is the last good one; -1: none."""

    name: str
    location: str
    reason: str
    version: int


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """The document. Tables are keyed by name, excluded ones by id (a dropped table's name may be in use again)."""

    lake_id: str
    target: str
    commit_seq: int
    tables: dict[str, WatermarkTable]
    excluded: dict[str, ExcludedTable]


def ceiling(commit_seq: int, tables: Iterable[MirrorProgress]) -> int:
    """The highest commit up to which all tables that are waited for are published; `commit_seq` is the newest one."""
    waiting = [t for t in tables if _behind(t) and exclusion(t) is None]
    first = (t.next_commit_seq if t.next_commit_seq is not None else t.commit_seq for t in waiting)
    return min([commit_seq, *(seq - 1 for seq in first if seq is not None)])


def exclusion(table: MirrorProgress) -> str | None:
    """Why a watermark does not wait for a table, or None if it does."""
    if table.status is not None and table.status.state == MirrorState.FENCED:
        return "FENCED"
    if table.state == "DROPPED" and table.status is None:
        return table.state  # before the target was there
    return table.state if table.state in ("IMPORTING", "RELEASED") else None


def _in_place(location: str) -> str:
    return location


def document(
    lake_id: str,
    target: str,
    commit_seq: int,
    tables: Iterable[MirrorProgress],
    versions: Mapping[int, int],
    dropped: Collection[int],
    locate: Callable[[str], str] = _in_place,
) -> Watermark:
    """The document at `commit_seq`. By table_no: the versions of all tables that existed then, and those dropped by then.

    `locate` gives the address at the target of a table with that location.
    """
    shown: dict[str, WatermarkTable] = {}
    excluded: dict[str, ExcludedTable] = {}
    for table in tables:
        reason = "DROPPED" if table.table_no in dropped else exclusion(table)
        if reason is not None:
            last = -1 if table.status is None else table.status.mirrored_version
            excluded[table.table_id] = ExcludedTable(
                name=table.name, location=locate(table.location), reason=reason, version=last
            )
        elif table.table_no in versions:
            shown[table.name] = WatermarkTable(
                id=table.table_id, location=locate(table.location), version=versions[table.table_no]
            )
    return Watermark(lake_id=lake_id, target=target, commit_seq=commit_seq, tables=shown, excluded=excluded)


def load(db: Database, target: str, locate: Callable[[str], str] = _in_place) -> Watermark:
    """The watermark as SQL has it now; `locate` as for `document`."""
    catalog = Catalog(db)
    with db.snapshot():
        ((lake_id,),) = db.query("SELECT lake_id FROM dl_lake")
        tables = catalog.progress(target)
        commit_seq = ceiling(catalog.head().commit_seq, tables)
        versions = {t.table_no: t.version for t in tables if t.commit_seq is None or t.commit_seq <= commit_seq}
        later = [t.table_no for t in tables if t.table_no not in versions]
        if later:
            found = db.query(
                """
                SELECT table_no, MAX(version) FROM dl_table_versions
                WHERE table_no = ANY(?) AND (commit_seq IS NULL OR commit_seq <= ?) GROUP BY table_no
                """,
                (later, commit_seq),
            )
            versions.update(found)
        gone = db.query("SELECT table_no FROM dl_tables WHERE state = 'DROPPED' AND dropped_seq <= ?", (commit_seq,))
    return document(lake_id, target, commit_seq, tables, versions, {row[0] for row in gone}, locate)


def write(store: ObjectStore, watermark: Watermark) -> bool:
    """Put the document at the root of its target unless one that is further is there. Whether it is there now."""
    data = msgspec.json.encode(watermark) + b"\n"
    _RENDERED.reached()
    for _ in range(_ATTEMPTS):
        found = store.get(NAME)
        if found is not None:
            if found.data == data:
                return True
            there = _parsed(found.data)
            if there is None:
                logger.warning("%s/%s cannot be read and is replaced", store.root, NAME)
            elif there.commit_seq > watermark.commit_seq:
                return False
        if store.put_if_match(NAME, data, None if found is None else found.tag) is Put.CREATED:
            _WRITTEN.reached()
            return True
    return False


def read(store: ObjectStore) -> Watermark | None:
    """The document at the root of a target; None if there is none that can be read."""
    found = store.get(NAME)
    return None if found is None else _parsed(found.data)


def _behind(table: MirrorProgress) -> bool:
    return table.status is None or table.status.mirrored_version < table.version


def _parsed(data: bytes) -> Watermark | None:
    try:
        return msgspec.json.decode(data, type=Watermark)
    except msgspec.MsgspecError:
        return None
