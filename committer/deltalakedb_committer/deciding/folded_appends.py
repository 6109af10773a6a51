"""Folds as nearly all are: of plain appends that all are committed. Each is checked by itself, and their files together.

Whatever else is in a fold, or may be wrong with it, is left to `folded`, which would have decided it just so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from deltalakedb.events import Committed, Content, StagedTransaction, TableVersion, TableWork

from .answers import Asker, accepted, asked_by, commit
from .appends import append_of, appended
from .assembly import assemble
from .chunks import StagedChunks
from .decide import check_envelope
from .decisions import Commit, Part, TableChange
from .facts import LEVELS, TableFacts
from .folded_operation import operation_of
from .folding import Unit
from .refusal import Refused
from .state import State, TableState

_NO_CHUNKS = StagedChunks()


class _Appended:
    """What a fold appends to one table."""

    __slots__ = ("facts", "level", "parts", "table", "works")

    def __init__(self, table: TableState, facts: TableFacts) -> None:
        self.table = table
        self.facts = facts
        self.level = 0
        self.works: list[TableWork] = []
        self.parts: list[Part] = []


class _One(NamedTuple):
    """A transaction of a fold."""

    asker: Asker
    digest: bytes
    content: Content
    tables: tuple[int, ...]


def plain_fold(state: State, unit: Unit) -> Commit | None:
    """The one commit that the records of a fold make; None: decide them one by one, there may be more to it."""
    at = state.time_ms
    ones: list[_One] = []
    tables: dict[int, _Appended] = {}
    for record, event in unit:
        if not isinstance(event, StagedTransaction) or event.envelope.txn_id in state.decided:
            return None
        envelope = event.envelope
        txn_id, client_id = envelope.txn_id, envelope.client_id
        asker = asked_by(state, txn_id, client_id, envelope.outcome_partition, record.position, record.time_ms)
        try:
            check_envelope(state, txn_id, client_id, envelope.lake_id, envelope.root)
            content = assemble(event, _NO_CHUNKS, state.rules, position=record.position)
        except Refused:
            return None
        if not isinstance(content, Content):
            return None
        append = append_of(content, record.time_ms, state)
        if append is None:
            return None
        at = max(at, append.time_ms)
        for work, table, facts in append.works:
            to = tables.get(table.table_no)
            if to is None:
                to = tables[table.table_no] = _Appended(table, facts)
            to.level = max(to.level, append.level)
            to.works.append(work)
            to.parts.append(Part(txn_id, len(work.adds)))
        ones.append(_One(asker, envelope.digest, content, tuple([table.table_no for _, table, _ in append.works])))
    changes: list[TableChange] = []
    for to in tables.values():
        change = _change(to, state)
        if change is None:
            return None
        changes.append(change)
    return _commit(state, ones, changes, at)


def _change(to: _Appended, state: State) -> TableChange | None:
    """The one new version of a table, as of one append of all the files; None as `appended`."""
    operation = operation_of(to.works)
    whole = msgspec.structs.replace(
        to.works[0],
        operation=operation.name,
        operation_parameters=operation.parameters,
        operation_metrics=operation.metrics,
        adds=tuple([add for work in to.works for add in work.adds]),
    )
    return appended(whole, to.table, to.facts, LEVELS[to.level], state.rules, tuple(to.parts))


def _commit(state: State, ones: Sequence[_One], changes: Sequence[TableChange], at: int) -> Commit:
    versions = {
        change.table.table_no: TableVersion(
            name=change.table.name, table_id=change.table.table_id, version=change.version
        )
        for change in changes
    }
    # Transactions on the same tables are told the same.
    committed = {
        tables: Committed(
            commit_seq=state.commit_seq + 1, time_ms=at, tables=tuple([versions[number] for number in tables])
        )
        for tables in {one.tables for one in ones}
    }
    first, *others = ones
    return commit(
        *(state, first.asker, first.digest, at, committed[first.tables].tables),
        changes=tuple(changes),
        content=first.content,
        folded=tuple([accepted(one.asker, committed[one.tables], one.digest) for one in others]),
    )
