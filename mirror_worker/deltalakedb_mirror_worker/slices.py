"""Which versions a step takes on: a bounded part of what is missing, and every table in its turn. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deltalakedb.catalog import MirrorProgress, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Consecutive versions of one table that are to be published next."""

    table: MirrorProgress
    first: int
    last: int
    unseen: bool
    """Whether it has yet to be seen that the version before the first is in its place and ours."""
    wide: bool = False
    """Whether it is one version with more actions than should be held at once."""
    before_wide: bool = False
    """Whether the version before the first is, and is to be looked at."""

    @property
    def span(self) -> Range:
        """The versions that it is about, with the one before the first where that is to be looked at."""
        return (self.table.table_no, self.first - self.unseen, self.last)

    @property
    def rows(self) -> Range | None:
        """The versions to read as a whole; None: there are none."""
        first = self.first - (self.unseen and not self.before_wide)
        last = self.first - 1 if self.wide else self.last
        return (self.table.table_no, first, last) if last >= first else None


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


def alone(each: Slice) -> Slice:
    """`each`, cut to its first version where a log begins there without version 0: a checkpoint comes before the next."""
    publish_from = 0 if each.table.status is None else each.table.status.publish_from
    return replace(each, last=min(each.first, each.last)) if 0 < publish_from == each.first else each


def within(slices: Sequence[Slice], sizes: Mapping[tuple[int, int], int], *, actions: int, wide: int) -> list[Slice]:
    """`slices` cut so that together they hold about so many file actions, but at least one version.

    `sizes` has the number of file actions by (table_no, version). A version of more than `wide` actions is a slice of
    its own, and holds none, as it is never read as a whole. Slices that get nothing are left out.
    """
    taken: list[Slice] = []
    total = 0
    for each in slices:
        if total >= actions:
            break

        def size(version: int, table_no: int = each.table.table_no) -> int:
            return sizes.get((table_no, version), 0)

        seen_wide = each.unseen and size(each.first - 1) > wide
        if size(each.first) > wide:
            taken.append(replace(each, last=each.first, wide=True, before_wide=seen_wide))
            continue
        total += size(each.first - 1) if each.unseen and not seen_wide else 0
        last = each.first - 1
        while last < each.last and size(last + 1) <= wide:
            if total + size(last + 1) > actions and (taken or last >= each.first):
                break
            last += 1
            total += size(last)
        if last >= each.first:
            taken.append(replace(each, last=last, before_wide=seen_wide))
    return taken
