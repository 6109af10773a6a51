"""The one SQL table that a mirror writes, `dl_mirror_status`: one row for each table at each target.

States. PENDING: known, nothing published yet. IN_FLIGHT: versions were published and more wait. SUCCEEDED: all that
was committed is there. FAILED: the last attempt did not succeed, another one comes. FENCED: somebody else's commit
lies in the `_delta_log`. `mirrored_version` only grows; versions above it are pending by definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from deltalakedb.catalog import IN_PLACE, Catalog, MirrorTarget
from deltalakedb.database import Database
from deltalakedb.errors import TxnLogConfigError, TxnLogMirrorError

KINDS = (IN_PLACE, "copy", "replica")


class MirrorState(StrEnum):
    """State of one table at one target."""

    PENDING = "PENDING"
    IN_FLIGHT = "IN_FLIGHT"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    FENCED = "FENCED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusUpdate:
    """What became of a table in one step."""

    table_no: int
    state: MirrorState
    mirrored: int
    attempts: int = 0
    last_error: str | None = None
    fenced_by: str | None = None


def find_target(catalog: Catalog, name: str) -> MirrorTarget:
    """The target of that name. Raises `TxnLogConfigError` if there is none, `TxnLogMirrorError` if this release does not
    know its kind."""
    targets = [target for target in catalog.targets() if target.state != "REMOVED"]
    found = next((target for target in targets if target.target == name), None)
    if found is None:
        known = ", ".join(target.target for target in targets)
        raise TxnLogConfigError(f"this lake has no mirror target {name!r}; it has: {known}")
    if found.kind not in KINDS:
        raise TxnLogMirrorError(
            f"the mirror target {name!r} is of kind {found.kind!r}, which this release does not know: {', '.join(KINDS)}"
        )
    return found


def add_missing(db: Database, target: str, *, in_place: bool, now_ms: int) -> None:
    """Give every table without a row for the target one, in the transaction under way.

    In place it publishes from the first version that was not imported, elsewhere, where no dropped table is of use, from
    the oldest that can be reconstructed.
    """
    first, served = (
        (
            "(SELECT MIN(v.version) FROM dl_table_versions v WHERE v.table_no = t.table_no AND v.commit_seq IS NOT NULL)",
            "",
        )
        if in_place
        else ("t.first_version", "AND t.state <> 'DROPPED' AND h.version >= t.first_version")
    )
    rows = db.query(
        f"""
        SELECT t.table_no, {first} FROM dl_tables t
        JOIN dl_table_heads h ON h.table_no = t.table_no
        LEFT JOIN dl_mirror_status s ON s.table_no = t.table_no AND s.target = ?
        WHERE s.table_no IS NULL {served}
        ORDER BY t.table_no
        """,
        (target,),
    )
    rows = [(table_no, version) for table_no, version in rows if version is not None]
    if rows:
        db.execute_many(
            """
            INSERT INTO dl_mirror_status (table_no, target, state, publish_from, mirrored_version, checkpoint_version,
                                          log_start, attempts, updated_ms)
            VALUES (?, ?, 'PENDING', ?, ?, -1, 0, 0, ?) ON CONFLICT DO NOTHING
            """,
            [(table_no, target, first, first - 1, now_ms) for table_no, first in rows],
        )


def write(db: Database, target: str, updates: Sequence[StatusUpdate], now_ms: int) -> None:
    """Record what became of tables, in the transaction under way.

    A row that another worker has moved further is left as it is.
    """
    db.execute_many(
        """
        UPDATE dl_mirror_status
        SET state = ?, mirrored_version = ?, attempts = ?, last_error = ?, fenced_by = ?, updated_ms = ?
        WHERE table_no = ? AND target = ? AND mirrored_version <= ?
        """,
        [
            (u.state, u.mirrored, u.attempts, u.last_error, u.fenced_by, now_ms, u.table_no, target, u.mirrored)
            for u in sorted(updates, key=lambda u: u.table_no)  # two mirrors that lock rows in one order never deadlock
        ],
    )


def write_checkpoint(db: Database, target: str, table_no: int, version: int) -> None:
    """Record the newest checkpoint of a table; it only grows."""
    db.execute(
        "UPDATE dl_mirror_status SET checkpoint_version = ? WHERE table_no = ? AND target = ? AND checkpoint_version < ?",
        (version, table_no, target, version),
    )


def cut_log(db: Database, target: str, table_no: int, version: int) -> bool:
    """Record that a table's log begins with `version` now; whether it may: not further back, nor beside a stranger."""
    return bool(
        db.execute(
            "UPDATE dl_mirror_status SET log_start = ? "
            "WHERE table_no = ? AND target = ? AND log_start <= ? AND state <> 'FENCED'",
            (version, table_no, target, version),
        )
    )
