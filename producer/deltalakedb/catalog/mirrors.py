"""Mirror targets and how far each table is on them."""

from __future__ import annotations

from deltalakedb.database import Database

from .records import columns
from .values import MirrorProgress, MirrorStatus, MirrorTarget

_TARGET = tuple(MirrorTarget.__dataclass_fields__)
_STATUS = tuple(MirrorStatus.__dataclass_fields__)
_TABLE = ("table_no", "table_id", "name", "location", "state")
_HEAD = ("version", "commit_seq", "time_ms")
# A subquery and not a join: one index probe per table, also before a planner has seen how many versions there are.
_NEXT = (
    "(SELECT v.{} FROM dl_table_versions v "
    "WHERE v.table_no = h.table_no AND v.version = COALESCE(s.mirrored_version, -1) + 1)"
)


def read_targets(database: Database) -> list[MirrorTarget]:
    """All targets, removed ones included."""
    rows = database.query(f"SELECT {columns(_TARGET, 't')} FROM dl_mirror_targets t ORDER BY t.target")
    return [MirrorTarget(**dict(zip(_TARGET, row, strict=True))) for row in rows]


def read_progress(database: Database, target: str, *, behind: bool = False) -> list[MirrorProgress]:
    """Every table that can be read beside its status on `target`, by table number; with `behind` only those that lack a
    version."""
    condition = "AND (s.table_no IS NULL OR s.mirrored_version < h.version)" if behind else ""
    rows = database.query(
        f"SELECT {columns(_TABLE, 't')}, {columns(_HEAD, 'h')}, {_NEXT.format('commit_seq')}, {_NEXT.format('time_ms')}, "
        f"{columns(_STATUS, 's')} FROM dl_table_heads h JOIN dl_tables t ON t.table_no = h.table_no "
        f"LEFT JOIN dl_mirror_status s ON s.table_no = h.table_no AND s.target = ? WHERE h.version >= t.first_version {condition} "
        "ORDER BY h.table_no",
        [target],
    )
    return [
        MirrorProgress(
            **dict(zip((*_TABLE, *_HEAD, "next_commit_seq", "next_time_ms"), row[:10], strict=True)),
            status=None if row[10] is None else MirrorStatus(**dict(zip(_STATUS, row[10:], strict=True))),
        )
        for row in rows
    ]
