"""What a store holds, in one number per table: equal lakes have equal digests, whichever engine they lie in.

Left out is what does not follow from the log: who leads, what was told and published already, and what mirrors say.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec

from deltalakedb.database import Database

from .columns import COLUMNS, PARTITION_TEXT

_FILE_COLUMNS = tuple("partition_no" if name == PARTITION_TEXT else name for name in COLUMNS["dl_live_files"])

COMPARED: Final[dict[str, tuple[str, ...]]] = {
    "dl_lake": ("lake_id", "root", "log_address", "created_ms", "fence"),
    "dl_committer_position": (
        *("lake_id", "position", "stream_identity", "last_event_hash", "commit_seq", "time_ms", "next_table_no"),
        "rule_set",
    ),
    **COLUMNS,
    "dl_live_files": _FILE_COLUMNS,
    "dl_past_files": (*_FILE_COLUMNS, "removed_version"),
    "dl_partitions": ("table_no", "partition_no", "partition_values"),
}
"""Columns by table."""
UNDECIDED: Final = "WHERE NOT EXISTS (SELECT 1 FROM dl_transactions t WHERE t.txn_id = s.txn_id)"
"""What is staged goes some time after its transaction was decided."""
LEFT_OUT: Final = frozenset(
    {"dl_committer_heartbeat", "dl_committer_attempts", "dl_outbox", "dl_mirror_status", "dl_migrations"}
)
"""Tables that are not compared."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The rows of one table."""

    rows: int
    sum: int
    """Of the hashes of its rows, modulo 2**128: it does not depend on their order."""


def digests(database: Database) -> dict[str, Digest]:
    """The digest of every table in `COMPARED`. Inside a `snapshot()` of the database; memory stays bounded."""
    return {table: _digest(database, table, columns) for table, columns in COMPARED.items()}


def _digest(database: Database, table: str, columns: tuple[str, ...]) -> Digest:
    count = total = 0
    encode = msgspec.msgpack.Encoder().encode
    where = UNDECIDED if table in ("dl_staged_chunks", "dl_staged_files") else ""
    for rows in database.stream(f"SELECT {', '.join(columns)} FROM {table} s {where}"):
        count += len(rows)
        for row in rows:
            total += int.from_bytes(hashlib.blake2b(encode(row), digest_size=16).digest())
    return Digest(count, total % 2**128)
