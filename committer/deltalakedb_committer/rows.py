"""Decisions to rows: what one batch writes to each SQL table, pure and independent of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class OutboxRow(NamedTuple):
    """Something to be told, by the staged record that caused it."""

    position: int
    n: int
    stream: str
    stream_partition: int
    headers: dict[str, bytes]
    payload: bytes


@dataclass(slots=True)
class Batch:
    """All effects of a batch of records; the store writes it in one SQL transaction, in the order of the fields."""

    tables: list[tuple[Any, ...]] = field(default_factory=list)
    """New rows of `dl_tables`."""
    inserts: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    """New rows per SQL table, columns as in `COLUMNS`."""
    superseded: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(table_no, version, n, removed_version): rows that move from live to past files, rows of this batch included."""
    heads: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """The newest head of every table that changed, by table_no, columns as in `COLUMNS["dl_table_heads"]`."""
    finished_chunks: list[str] = field(default_factory=list)
    """Transactions whose staged chunks are not needed any more."""
    outbox: list[OutboxRow] = field(default_factory=list)


COLUMNS: dict[str, tuple[str, ...]] = {}
"""Columns that the committer writes, per SQL table, in the order in which rows carry them."""
