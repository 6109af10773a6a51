"""How far the import of a table is: what the importer goes on from; and which places are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from deltalakedb.database import Database

_IMPORTED = """
    SELECT t.table_id, t.location, t.state, t.first_version, v.version, v.time_ms, v.origin, h.live_files, h.live_bytes,
        i.version, i.chunks,
        (SELECT max(x.version) FROM dl_table_versions x WHERE x.table_no = t.table_no AND x.origin = 'ADOPTED')
    FROM dl_tables t
    LEFT JOIN dl_table_heads h ON h.table_no = t.table_no
    LEFT JOIN dl_table_versions v ON v.table_no = t.table_no AND v.version = h.version
    LEFT JOIN dl_imports i ON i.table_no = t.table_no
    WHERE t.name = ? AND t.state <> 'DROPPED'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTable:
    """A table of the lake with what is known of its import."""

    table_id: str
    """The id of the import too, if it was imported."""
    location: str
    state: str
    """ACTIVE, IMPORTING, RELEASED."""
    first_version: int
    """The oldest version whose state can be told."""
    version: int | None
    """The newest one; None: none is complete yet. The next four are about it."""
    time_ms: int | None
    origin: str | None
    """IMPORTED, BASELINE, HISTORY, ADOPTED; None: decided here."""
    live_files: int | None
    live_bytes: int | None
    under_way: int | None
    """The version of which some chunks have come, and how many."""
    chunks: int | None
    adopted_version: int | None
    """The version by which the lake took the table over; None: it has not."""


def read_imported(database: Database, name: str) -> ImportedTable | None:
    """The table of that name; None if there is none."""
    rows = database.query(_IMPORTED, [name])
    names = ImportedTable.__dataclass_fields__
    return ImportedTable(**dict(zip(names, rows[0], strict=True))) if rows else None


class TablePlace(NamedTuple):
    """A table that is not dropped, with or without a version, and where it lies."""

    name: str
    location: str
    state: str
    """ACTIVE, IMPORTING, RELEASED."""


def read_places(database: Database) -> list[TablePlace]:
    """The place of every table that is there."""
    rows = database.query("SELECT t.name, t.location, t.state FROM dl_tables t WHERE t.state <> 'DROPPED'")
    return [TablePlace(*row) for row in rows]
