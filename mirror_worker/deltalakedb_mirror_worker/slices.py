"""Which versions a step takes on: a bounded part of what is missing, and every table in its turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deltalakedb.catalog import MirrorProgress, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Consecutive versions of one table that are to be published next."""

    table: MirrorProgress
    first: int
    last: int
    unseen: bool
    """Whether it has yet to be seen that the version before the first is in its place and ours."""

    @property
    def rows(self) -> Range:
        """The versions to read: with the one before the first, where that is needed."""
        return (self.table.table_no, self.first - self.unseen, self.last)


def wanted(table: MirrorProgress, seen: int | None, versions: int) -> Slice:
    """Up to `versions` of what `table` lacks. `seen` is the newest version that this process has seen in its place.

    A table that lacks nothing but its status row's being up to date gets an empty slice (`last` below `first`).
    """
    publish_from = 0 if table.status is None else table.status.publish_from
    mirrored = -1 if table.status is None else table.status.mirrored_version
    there = max(mirrored, -1 if seen is None else seen)
    first = max(there + 1, publish_from)
    return Slice(
        table=table,
        first=first,
        last=min(table.version, first + versions - 1),
        unseen=seen != first - 1 and first > publish_from,
    )


def within(slices: Sequence[Slice], sizes: dict[tuple[int, int], int], actions: int) -> list[Slice]:
    """`slices` cut so that together they hold at most so many file actions, but at least one version of the first.

    `sizes` has the number of file actions by (table_no, version). Slices that get nothing are left out.
    """
    taken: list[Slice] = []
    total = 0
    for each in slices:
        last = each.first - 1
        total += sizes.get((each.table.table_no, last), 0) if each.unseen else 0
        while last < each.last:
            size = sizes.get((each.table.table_no, last + 1), 0)
            if total + size > actions and (taken or last >= each.first):
                break
            total += size
            last += 1
        if last >= each.first:
            taken.append(Slice(table=each.table, first=each.first, last=last, unseen=each.unseen))
        if total >= actions:
            break
    return taken
