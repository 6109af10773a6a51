"""Transactions as nearly all are: they append files to tables that are there, read nothing, and know the newest metadata.

Nothing stands against such a transaction but what is wrong with its files, so it is decided in one go. Whatever else is
about one, or may be wrong with one, is left to `transactions`, which would have decided these just so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from deltalakedb.events import Content, TableWork
from deltalakedb.slots import wider

from .decisions import Part, TableChange
from .facts import LEVELS, TableFacts
from .refusal import Refused
from .rules import Rules
from .state import State, TableState
from .transactions import MAX_BYTES, Changed
from .validate import check_adds

_LEVEL: Final = {isolation: n for n, isolation in enumerate(LEVELS)}


class Append(NamedTuple):
    """A transaction that is a plain append, as long as its files are valid."""

    time_ms: int
    level: int
    """Number of the isolation level of all of it, as in `LEVELS`."""
    works: list[tuple[TableWork, TableState, TableFacts]]


def plain_append(content: Content, time_ms: int, state: State) -> Changed | None:
    """What `change_tables` would make of `content`; None: ask that, there may be more to it."""
    append = append_of(content, time_ms, state)
    if append is None:
        return None
    changes: list[TableChange] = []
    for work, table, facts in append.works:
        change = appended(work, table, facts, LEVELS[append.level], state.rules)
        if change is None:
            return None
        changes.append(change)
    return Changed(append.time_ms, tuple(changes))


def append_of(content: Content, time_ms: int, state: State) -> Append | None:
    """`content` as a plain append, its files unseen; None: there is more to it."""
    works, rules = content.tables, state.rules
    if content.apps or content.isolation is not None or not 0 < len(works) <= rules.max_tables:
        return None
    if not _is_short(content.engine_info, rules.max_name_bytes):
        return None
    if content.user_metadata is not None and not _is_short(content.user_metadata, rules.max_text_bytes):
        return None
    found: list[tuple[TableWork, TableState, TableFacts]] = []
    level = files = 0
    at = max(time_ms, state.time_ms)
    for work in works:
        table = state.table(name=work.name, table_id=work.id)
        if table is None or table.state != "ACTIVE" or not _is_plain(work, table, rules):
            return None
        facts = table.facts_under(rules)
        if facts.unwritable is not None or facts.row_tracking:
            return None
        found.append((work, table, facts))
        level = max(level, _LEVEL[facts.isolation])
        files += len(work.adds)
        at = max(at, 1 + table.time_ms)
    if files > rules.max_actions or len({table.table_no for _, table, _ in found}) != len(found):
        return None
    return Append(at, level, found)


def appended(
    work: TableWork, table: TableState, facts: TableFacts, isolation: str, rules: Rules, parts: tuple[Part, ...] = ()
) -> TableChange | None:
    """The new version of a table; None if its files are not all new, valid and with new data."""
    adds, vectors = work.adds, table.vectors
    widths, live_bytes = table.widths, table.live_bytes
    if len(adds) > 1 and len({add.path for add in adds}) != len(adds):
        return None
    for add in adds:
        if not add.data_change or add.path in vectors:
            return None
        live_bytes += add.size
    if live_bytes > MAX_BYTES:
        return None
    try:
        num_records, slots = check_adds(adds, facts, table, rules)
    except Refused:
        return None  # of several reasons, `transactions` finds the one to be told
    for file_slots in slots:
        widths = wider(widths, file_slots)
    return TableChange(
        table=table,
        version=table.version + 1,
        operation=work.operation,
        operation_parameters=work.operation_parameters,
        operation_metrics=work.operation_metrics,
        read_version=None,
        isolation_level=isolation,
        is_blind_append=True,
        adds=adds,
        num_records=num_records,
        slots=slots,
        changes_data=True,
        live_files=table.live_files + len(adds),
        live_bytes=live_bytes,
        widths=widths,
        parts=parts,
    )


def _is_plain(work: TableWork, table: TableState, rules: Rules) -> bool:
    """Whether `work` adds files, does and read nothing else, and was written against what the table has now."""
    against = work.written_against
    return (
        against is not None
        and against.metadata_version == table.metadata_version
        and 0 <= against.protocol_version <= table.version
        and work.read_version is None
        and work.read_set is None
        and bool(work.adds)
        and not (work.intents or work.removes or work.cdc or work.others)
        and _is_short(work.operation, rules.max_name_bytes)
        and _are_short(work.operation_parameters, rules.max_text_bytes)
        and _are_short(work.operation_metrics, rules.max_text_bytes)
    )


def _is_short(text: str, limit: int) -> bool:
    """Whether a text surely has no more bytes than `limit`, and no NUL."""
    return len(text) * 4 <= limit and "\0" not in text


def _are_short(texts: Mapping[str, str], limit: int) -> bool:
    return not texts or sum(map(len, (*texts, *texts.values()))) * 4 <= limit
