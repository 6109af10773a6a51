"""What is known of the files of a big transaction while they lie in SQL: chunk by chunk, and of all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from deltalakedb.slots import NO_WIDTHS, Widths

TableKey = tuple[str | None, str | None]
"""(table id, name) as an event gives them; the id wins."""


class Wrong(msgspec.Struct, frozen=True):
    """The first thing that is wrong with some actions by themselves."""

    n: int
    reason: str
    message: str


class ChunkPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one chunk does to the files of one table. Kept in SQL as JSON."""

    id: str | None = None
    name: str | None = None
    fingerprint: str = ""
    """What its files were checked against; empty: nothing, and there are no rows of them."""
    adds: int = 0
    removes: int = 0
    added_bytes: int = 0
    changes_data: bool = False
    widths: Widths = NO_WIDTHS
    wrong_add: Wrong | None = None
    """Then there are no rows of its adds."""
    wrong_remove: Wrong | None = None
    """Then there are only rows of the removes before it."""

    @property
    def key(self) -> TableKey:
        """What names the table within the transaction."""
        return (self.id, self.name)


class Found(NamedTuple):
    """What a query over the rows of a table's files tells, in the order in which they came."""

    twice_added: str | None = None
    twice_removed: str | None = None
    both: tuple[int, int, str] | None = None
    """The first remove, by chunk and place, whose file is added as well, and its path."""
    missing: tuple[str, str, tuple[str, ...]] | None = None
    """The first remove whose file is not live: path, deletion vector, and the vectors its path is live with."""
    left: tuple[str, str] | None = None
    """The first add whose path stays live with another deletion vector, and that one."""
    ended_files: int = 0
    """Live rows that are removed, or whose place an add of the same identity takes."""
    ended_bytes: int = 0
    removed_bytes: int = 0
    """Of those that are removed."""
    removed_by: frozenset[int] = frozenset()
    """Versions since the one read that removed a path which is removed here."""


NOTHING_FOUND = Found()


class StagedFacts(NamedTuple):
    """All of a complete transaction."""

    parts: Mapping[int, tuple[ChunkPart, ...]]
    """By chunk."""
    found: Mapping[TableKey, Found]
