"""What becomes of a fold: each of its transactions is decided by itself, and those that are committed share one commit.

None of them sees another one: no file, application or transaction of one can matter to another, or they were not in one
fold. What does run on from one to the next is counted: files, bytes, row ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import msgspec

from deltalakedb.eventlog.port import Record
from deltalakedb.events import Outcome

from .decisions import Accepted, Commit, Decision, Part, TableChange
from .facts import LEVELS
from .folded_appends import plain_fold
from .folded_operation import operation_of
from .folding import Unit
from .needs import StagedEvent
from .state import State, TableState

DecideOne = Callable[[State, Record, StagedEvent], Decision]


def decide_fold(state: State, unit: Unit, decide_one: DecideOne) -> list[Decision]:
    """What becomes of the records of a fold: a decision each, but one commit for all that are committed.

    The commit is the last one in the list; it stands for the first transaction of it, and names the others (`folded`).
    """
    try:
        plain = plain_fold(state, unit)
    except Exception:
        plain = None  # whichever record it was, it is found and set aside where each is decided by itself
    return decide_each(state, unit, decide_one) if plain is None else [plain]


def decide_each(state: State, unit: Unit, decide_one: DecideOne) -> list[Decision]:
    """The same, whatever is in the fold."""
    view = copy(state)
    view.tables = _Tables(state)
    decisions: list[Decision] = []
    commits: list[Commit] = []
    for record, event in unit:
        decision = decide_one(view, record, event)
        if not isinstance(decision, Commit):
            decisions.append(decision)
            continue
        commits.append(decision)
        for change in decision.changes:
            _count(change)
    if commits:
        decisions.append(_together(commits, state))
    return decisions


class _Tables(dict[int, TableState]):
    """The tables as the next transaction of the fold finds them: copies, whose counts may run on."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._tables = state.tables
        self._rules = state.rules

    def __missing__(self, table_no: int) -> TableState:
        table = self._tables[table_no]
        if table.metadata is not None and table.protocol is not None and table.schema is not None:
            table.facts_under(self._rules)  # kept with the table, for all folds to come
        found = self[table_no] = copy(table)
        found.domains = dict(table.domains)
        return found


def _count(change: TableChange) -> None:
    table = change.table
    table.live_files, table.live_bytes, table.widths = change.live_files, change.live_bytes, change.widths
    for domain in change.domains:
        table.domains[domain.domain] = domain


def _together(commits: Sequence[Commit], state: State) -> Commit:
    """One commit of all."""
    at = max([commit.time_ms for commit in commits])
    by_table: dict[int, list[tuple[Commit, TableChange]]] = {}
    for commit in commits:
        for change in commit.changes:
            by_table.setdefault(change.table.table_no, []).append((commit, change))
    first, *others = commits
    return msgspec.structs.replace(
        first,
        time_ms=at,
        changes=tuple([_merged(found, state.tables[number], at) for number, found in by_table.items()]),
        outcome=_told(first, at),
        folded=tuple([_joined(commit, at) for commit in others]),
    )


def _merged(found: Sequence[tuple[Commit, TableChange]], table: TableState, at: int) -> TableChange:
    """One new version of a table out of those that its transactions would have made."""
    first, last = found[0][1], found[-1][1]
    changes = [change for _, change in found]
    operation = operation_of(changes)
    return msgspec.structs.replace(
        first,
        table=table,
        operation=operation.name,
        operation_parameters=operation.parameters,
        operation_metrics=operation.metrics,
        isolation_level=max([change.isolation_level for change in changes], key=LEVELS.index),
        adds=tuple([add for change in changes for add in change.adds]),
        num_records=tuple([records for change in changes for records in change.num_records]),
        slots=tuple([slots for change in changes for slots in change.slots]),
        txns=tuple([msgspec.structs.replace(txn, last_updated=at) for change in changes for txn in change.txns]),
        domains=tuple({domain.domain: domain for change in changes for domain in change.domains}.values()),
        superseded=tuple([live for change in changes for live in change.superseded]),
        changes_data=any(change.changes_data for change in changes),
        live_files=last.live_files,
        live_bytes=last.live_bytes,
        widths=last.widths,
        parts=tuple([Part(commit.txn_id, len(change.adds)) for commit, change in found]),
    )


def _joined(commit: Commit, at: int) -> Accepted:
    return Accepted(
        position=commit.position,
        txn_id=commit.txn_id,
        client_id=commit.client_id,
        digest=commit.digest,
        event_time_ms=commit.event_time_ms,
        apps=commit.apps,
        outcome=_told(commit, at),
        outcome_partition=commit.outcome_partition,
    )


def _told(commit: Commit, at: int) -> Outcome:
    outcome = commit.outcome
    if commit.time_ms == at or outcome.committed is None:
        return outcome
    return msgspec.structs.replace(outcome, committed=msgspec.structs.replace(outcome.committed, time_ms=at))
