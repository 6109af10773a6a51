"""The adds and removes of one table in one transaction, as everything above looks at them; here those given as objects.

`staged_files` has those of a big transaction, which lie in SQL. Both find the same things wrong, in the same order.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from deltalakedb.actions import AddFile, DomainMetadata, RemoveFile
from deltalakedb.events import TableWork
from deltalakedb.slots import NO_SLOTS, Slots, Widths, wider

from .facts import TableFacts
from .file_rest import FileRest, with_fields
from .row_tracking import assign_row_ids
from .rules import Rules
from .state import FileKey, LiveFile, TableState, Winner
from .validate import (
    Measures,
    added_twice,
    both,
    check_adds,
    check_remove,
    first_twice,
    left_live,
    not_live,
    removed_twice,
)


class Placing(NamedTuple):
    """Where the rows of one chunk come among the files of the version: numbers of its first add and first remove."""

    work: int
    chunk_index: int
    first_add: int
    first_remove: int


class StagedChange(NamedTuple):
    """Adds and removes of a version that lie in SQL."""

    placings: tuple[Placing, ...]
    added_files: int
    added_bytes: int
    removed_files: int
    removed_bytes: int
    ended_files: int
    """Live rows that end, be it that an add takes their place."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a transaction do to a table. The tuples are empty where the rows lie in SQL."""

    adds: tuple[AddFile, ...]
    num_records: tuple[int | None, ...]
    slots: tuple[Slots, ...]
    removes: tuple[RemoveFile, ...]
    superseded: tuple[LiveFile, ...]
    """Live rows that end: removed, or added again under the same identity."""
    mark: DomainMetadata | None
    """The high-water mark of row ids, if it rises."""
    ended_files: int
    ended_bytes: int
    added_bytes: int
    widths: Widths
    """Of the table, with the files that come."""
    staged: StagedChange | None = None
    """The files that lie in SQL."""


class Files(Protocol):
    """The adds and removes."""

    @property
    def adds(self) -> int:
        """How many."""
        ...

    @property
    def removes(self) -> int:
        """How many."""
        ...

    @property
    def changes_data(self) -> bool:
        """Whether any of them does."""
        ...

    def check(self, facts: TableFacts, table: TableState, rules: Rules) -> None:
        """Check them, each by itself and with one another, for the table as `facts` describe it. Raises `Refused`."""
        ...

    def removed_by(self, winner: Winner) -> bool:
        """Whether `winner` removed a path that is removed here."""
        ...

    def effect(self, facts: TableFacts, table: TableState, version: int, at: int) -> Effect:
        """What they do to the table as it is now, by its new `version` at time `at`. After `check`. Raises `Refused`,
        if what they name is not live, or what they add is with another deletion vector."""
        ...


class GivenFiles:
    """Those of a transaction that is there whole."""

    __slots__ = ("_adds", "_measures", "_paths", "_removes", "adds", "removes")

    def __init__(self, work: TableWork) -> None:
        self._adds = work.adds
        self._removes = work.removes
        self.adds = len(work.adds)
        self.removes = len(work.removes)
        self._measures = Measures((), ())
        self._paths: frozenset[str] | None = None

    @property
    def changes_data(self) -> bool:
        for add in self._adds:
            if add.data_change:
                return True
        return any(remove.data_change for remove in self._removes)

    def check(self, facts: TableFacts, table: TableState, rules: Rules) -> None:
        adds, removes = self._adds, self._removes
        self._measures = check_adds(adds, facts, table, rules)
        if len({add.path for add in adds}) != len(adds):
            raise added_twice(first_twice(adds), table)
        if not removes:
            return
        added = {add.path: add.dv_id for add in adds}
        for remove in removes:
            check_remove(remove, facts, table, rules)
            if added.get(remove.path) == remove.dv_id:
                raise both(remove.path, table)
        if len({remove.path for remove in removes}) != len(removes):
            raise removed_twice(first_twice(removes), table)

    def removed_by(self, winner: Winner) -> bool:
        if self._paths is None:
            self._paths = frozenset([remove.path for remove in self._removes])
        return not self._paths.isdisjoint(winner.removed_paths)

    def effect(self, facts: TableFacts, table: TableState, version: int, at: int) -> Effect:
        adds, (num_records, slots) = self._adds, self._measures
        removed, replaced = self._live(facts, table)
        ended = (*removed, *[live for live in replaced if live is not None])
        mark = None
        if facts.row_tracking and adds:
            gone = dict(zip([remove.path for remove in self._removes], removed, strict=True))
            adds, mark = assign_row_ids(adds, num_records, replaced, gone, table, version)
        widths = table.widths
        for file_slots in slots:
            if file_slots is not NO_SLOTS:
                widths = wider(widths, file_slots)
        return Effect(
            adds=adds,
            num_records=num_records,
            slots=slots,
            removes=tuple([_ended(*pair, at) for pair in zip(self._removes, removed, strict=True)]) if removed else (),
            superseded=ended,
            mark=mark,
            ended_files=len(ended),
            ended_bytes=sum([live.size for live in ended]),
            added_bytes=sum([add.size for add in adds]),
            widths=widths,
        )

    def _live(self, facts: TableFacts, table: TableState) -> tuple[tuple[LiveFile, ...], tuple[LiveFile | None, ...]]:
        """Per remove the live row that it names; per add the one of the same identity whose place it takes, or nothing
        at all if there is none."""
        if not self._removes and table.vectors.keys().isdisjoint([add.path for add in self._adds]):
            return (), ()
        removed = tuple([_live(remove, facts, table) for remove in self._removes])
        gone = {(remove.path, remove.dv_id) for remove in self._removes}
        replaced = tuple([_replaced(add, gone, table) for add in self._adds])
        return removed, replaced if any(replaced) else ()


def _live(remove: RemoveFile, facts: TableFacts, table: TableState) -> LiveFile:
    live = table.files.get((remove.path, remove.dv_id))
    if live is None:
        raise not_live(remove.path, remove.dv_id, table.vectors.get(remove.path, ()), facts, table)
    return live  # and its path was checked when it came


def _replaced(add: AddFile, gone: set[FileKey], table: TableState) -> LiveFile | None:
    """The live row that an add takes the place of. Another live identity of its path has to be removed with it."""
    vectors = table.vectors.get(add.path)
    if not vectors:
        return None
    left = sorted(dv_id for dv_id in vectors if dv_id != add.dv_id and (add.path, dv_id) not in gone)
    if left:
        raise left_live(add.path, left[0], table)
    return table.files.get((add.path, add.dv_id))


def _ended(remove: RemoveFile, live: LiveFile, at: int) -> RemoveFile:
    """The remove with what is known of the file that it ends."""
    known = FileRest(
        tags=msgspec.json.decode(live.tags) if live.tags else None,
        base_row_id=live.base_row_id,
        default_row_commit_version=live.default_row_commit_version,
    )
    return msgspec.structs.replace(
        remove,
        deletion_timestamp=at,
        extended_file_metadata=True,
        partition_values=live.partition_values,
        size=live.size,
        rest=with_fields(remove.rest, known),
    )
