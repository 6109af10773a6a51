"""The adds and removes of a big transaction: checked chunk by chunk as they come, kept as rows, decided by facts about them.

What a chunk's files are checked against, the table's definition, may be another one by the time the transaction is
complete; so it is kept by its fingerprint, and what was checked under another one is checked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from deltalakedb.actions import AddFile, RemoveFile
from deltalakedb.codec import encode_content
from deltalakedb.errors import Reason
from deltalakedb.events import Content, TableWork
from deltalakedb.slots import NO_SLOTS, NO_WIDTHS, Slots, Widths, wider

from .facts import TableFacts
from .files import Effect, Placing, StagedChange
from .parts import NOTHING_FOUND, ChunkPart, Found, TableKey, Wrong
from .refusal import Refused
from .rules import Rules
from .state import TableState, Winner
from .validate import Measures, added_twice, both, check_adds, check_remove, left_live, not_live, removed_twice


class Checked(NamedTuple):
    """What files are checked against: a table, as the transaction leaves it."""

    table: TableState
    facts: TableFacts
    fingerprint: str
    """Of everything that the check of single files looks at."""

    @staticmethod
    def against(table: TableState, facts: TableFacts) -> Checked:
        """Of `table`, with `facts`."""
        metadata = facts.metadata
        seen = (
            *(facts.rules.number, table.name, table.location, table.slot_columns, facts.protocol),
            *(metadata.schema_string, metadata.partition_columns, sorted(metadata.configuration.items())),
        )
        return Checked(table, facts, hashlib.sha256(msgspec.json.encode(seen)).hexdigest()[:32])


class StagedWork(NamedTuple):
    """Files of one part, to be kept as rows."""

    work: int
    table: TableState
    adds: tuple[AddFile, ...]
    measures: Measures
    removes: tuple[RemoveFile, ...]


class StagedFiles:
    """The files of one table in a big transaction, as `Files`."""

    def __init__(self, key: TableKey, parts: Iterable[tuple[int, ChunkPart]], found: Found = NOTHING_FOUND) -> None:
        """`parts` are all of the table's, by chunk and in their order."""
        self.work = work_number(key)
        self.parts = tuple(parts)
        self.found = found
        self.adds = sum(part.adds for _, part in self.parts)
        self.removes = sum(part.removes for _, part in self.parts)
        self.changes_data = any(part.changes_data for _, part in self.parts)

    def check(self, facts: TableFacts, table: TableState, rules: Rules) -> None:
        found = self.found
        for _, part in self.parts:
            if part.wrong_add is not None:
                raise _refused(part.wrong_add, table)
        if found.twice_added is not None:
            raise added_twice(found.twice_added, table)
        for chunk_index, part in self.parts:
            wrong = part.wrong_remove
            if found.both is not None and found.both[:2] < (chunk_index, part.removes if wrong is None else wrong.n):
                raise both(found.both[2], table)
            if wrong is not None:
                raise _refused(wrong, table)
        if found.twice_removed is not None:
            raise removed_twice(found.twice_removed, table)

    def removed_by(self, winner: Winner) -> bool:
        return winner.version in self.found.removed_by

    def effect(self, facts: TableFacts, table: TableState, version: int, at: int) -> Effect:
        found = self.found
        if found.missing is not None:
            raise not_live(*found.missing, facts, table)
        if found.left is not None:
            raise left_live(*found.left, table)
        widths, added_bytes = table.widths, sum(part.added_bytes for _, part in self.parts)
        for _, part in self.parts:
            widths = _widest(widths, part.widths)
        return Effect(
            adds=(),
            num_records=(),
            slots=(),
            removes=(),
            superseded=(),
            mark=None,
            ended_files=found.ended_files,
            ended_bytes=found.ended_bytes,
            added_bytes=added_bytes,
            widths=widths,
            staged=StagedChange(
                self._placings(), self.adds, added_bytes, self.removes, found.removed_bytes, found.ended_files
            ),
        )

    def _placings(self) -> tuple[Placing, ...]:
        adds = removes = 0
        placings = []
        for chunk_index, part in self.parts:
            placings.append(Placing(self.work, chunk_index, adds, removes))
            adds, removes = adds + part.adds, removes + part.removes
        return tuple(placings)


def work_number(key: TableKey) -> int:
    """What names a table within its transaction, as rows have it: 64 bits, which two of a hundred share once in 10**15
    transactions. Whoever finds it so for two decides without rows."""
    return int.from_bytes(hashlib.blake2b(msgspec.json.encode(key), digest_size=8).digest(), "big", signed=True)


def head_of(content: Content) -> Content:
    """All that a chunk says but which files it adds and removes."""
    return msgspec.structs.replace(
        content, tables=tuple([msgspec.structs.replace(work, adds=(), removes=()) for work in content.tables])
    )


def encoded_head(content: Content) -> bytes:
    """`head_of`, as it is kept."""
    return encode_content(head_of(content))


def stage(
    content: Content, checked: Mapping[TableKey, Checked | None], rules: Rules
) -> tuple[tuple[ChunkPart, ...], tuple[StagedWork, ...]]:
    """Check the files of a chunk; its parts, and what is to be kept as rows. A table of which `checked` says nothing
    cannot be written by this transaction as things are: nobody will look at its files."""
    works: dict[TableKey, list[TableWork]] = {}
    for work in content.tables:
        works.setdefault(work.key, []).append(work)
    parts: list[ChunkPart] = []
    staged: list[StagedWork] = []
    for key, same in works.items():
        adds = tuple([add for work in same for add in work.adds])
        removes = tuple([remove for work in same for remove in work.removes])
        if adds or removes:
            part, rows = _part(key, adds, removes, checked.get(key), rules)
            parts.append(part)
            staged += rows
    return tuple(parts), tuple(staged)


def _part(
    key: TableKey,
    adds: tuple[AddFile, ...],
    removes: tuple[RemoveFile, ...],
    checked: Checked | None,
    rules: Rules,
) -> tuple[ChunkPart, list[StagedWork]]:
    part = ChunkPart(
        id=key[0],
        name=key[1],
        fingerprint="" if checked is None else checked.fingerprint,
        adds=len(adds),
        removes=len(removes),
        added_bytes=sum([add.size for add in adds]),
        changes_data=any([add.data_change for add in adds] + [remove.data_change for remove in removes]),
    )
    if checked is None:
        return part, []
    table, facts, _ = checked
    measures = Measures((), ())
    wrong_add = wrong_remove = None
    try:
        measures = check_adds(adds, facts, table, rules)
    except Refused as refused:
        wrong_add, adds = Wrong(0, refused.reason.value, refused.message), ()
    for n, remove in enumerate(removes):
        try:
            check_remove(remove, facts, table, rules)
        except Refused as refused:
            # Those before it can still be what is wrong first, together with adds.
            wrong_remove, removes = Wrong(n, refused.reason.value, refused.message), removes[:n]
            break
    part = msgspec.structs.replace(part, widths=_widths(measures.slots), wrong_add=wrong_add, wrong_remove=wrong_remove)
    return part, [StagedWork(work_number(key), table, adds, measures, removes)]


def _widths(slots: Sequence[Slots]) -> Widths:
    widths = NO_WIDTHS
    for file_slots in slots:
        if file_slots is not NO_SLOTS:
            widths = wider(widths, file_slots)
    return widths


def _widest(one: Widths, other: Widths) -> Widths:
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3]))


def _refused(wrong: Wrong, table: TableState) -> Refused:
    return Refused(Reason(wrong.reason), wrong.message, table=table.name)
