"""One whole transaction: checked, judged against what came before, and turned into new versions of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from deltalakedb.actions import SetTransaction
from deltalakedb.errors import Reason
from deltalakedb.events import AppTransaction, Content, CreateTable, TableWork

from .conflicts import Effort, Level, check_conflicts, check_reads, check_written_against, level_of
from .decisions import TableChange
from .facts import TableFacts
from .files import Files
from .intents import Definition, apply_intent, check_existing, new_table
from .other_actions import Others, check_fit, check_metadata, check_protocol, parse_others
from .refusal import Refused, shown
from .rules import Rules
from .staged_files import Checked
from .state import State, TableState
from .validate import check_change_data

MAX_BYTES = 2**63 - 1
"""Of a table's live files."""


class Draft:
    """One table of a transaction, on its way from what is wanted to what becomes a version."""

    __slots__ = ("created", "definition", "facts", "files", "others", "table", "work")

    def __init__(self, work: TableWork, files: Files, table: TableState, facts: TableFacts) -> None:
        self.work = work
        self.files = files
        self.table = table
        self.facts = facts
        """Of the table as the transaction leaves it."""
        self.created = table.version < 0
        self.definition: Definition | None = None
        """What the transaction makes of the table's metadata and protocol; None: it leaves them."""
        self.others: Others | None = None

    @property
    def isolation(self) -> str:
        """The level of the table as the transaction finds it, so that none lowers what it is judged by."""
        before = self.table.facts
        return self.facts.isolation if before is None else before.isolation

    @property
    def changes(self) -> bool:
        """Whether the table gets a new version."""
        work = self.work
        return _acts(work, self.files) or self.created or self.definition is not None

    @property
    def changes_metadata(self) -> bool:
        """Whether the table's metadata is another one afterwards."""
        return self.definition is not None and self.definition.metadata is not self.table.metadata


class Changed(NamedTuple):
    """What a transaction does: new versions at one time T, and the application transactions it stands for."""

    time_ms: int
    changes: tuple[TableChange, ...]


def change_tables(content: Content, files: Sequence[Files], txn_id: str, time_ms: int, state: State) -> Changed:
    """The new versions that `content` gives tables, none if it changes nothing. Raises `Refused`.

    `files` has the adds and removes of each of its tables; nobody looks at those in `content`.
    """
    _check_limits(content, files, state.rules)
    drafts = _drafts(content, files, txn_id, state)
    level = level_of(content, files, [draft.isolation for draft in drafts])
    effort = Effort(state.rules.max_comparisons)
    for draft in drafts:
        if not draft.created:
            domains = [] if draft.others is None else [domain.domain for domain in draft.others.domains]
            check_conflicts(
                *(draft.work, draft.files, draft.table, level, state.rules, effort),
                domains=domains,
                changes_metadata=draft.changes_metadata,
            )
    changed = [draft for draft in drafts if draft.changes]
    for draft in changed:
        for app in content.apps:
            _check_app_order(app.app_id, app.version, draft.table)
    at = max(time_ms, state.time_ms, *[1 + draft.table.time_ms for draft in changed])
    return Changed(at, tuple([_change(draft, content.apps, level, at) for draft in changed]))


def _check_limits(content: Content, of_tables: Sequence[Files], rules: Rules) -> None:
    if len(content.tables) > rules.max_tables:
        raise Refused(
            Reason.LIMIT_EXCEEDED,
            f"the transaction names {len(content.tables)} tables; {rules.max_tables} are allowed",
        )
    actions = files = terms = intents = 0
    for work, given in zip(content.tables, of_tables, strict=True):
        actions += given.adds + given.removes + len(work.cdc) + len(work.others) + len(work.intents)
        intents += len(work.intents)
        if work.read_set is not None:
            files += len(work.read_set.files) + len(work.read_set.app_ids)
            terms += sum(len(predicate.terms) for predicate in work.read_set.predicates)
        _check_text(work.operation, "operation", rules.max_name_bytes)
        for texts in (work.operation_parameters, work.operation_metrics):
            if texts and sum(map(len, (*texts, *texts.values()))) * 4 > rules.max_text_bytes:
                raise Refused(
                    Reason.LIMIT_EXCEEDED,
                    f"operation parameters or metrics have more than {rules.max_text_bytes // 4} characters",
                    table=work.name,
                )
    for count, limit, what in (
        (actions, rules.max_actions, "actions"),
        (files, rules.max_read_files, "files read"),
        (terms, rules.max_predicate_terms, "terms of predicates"),
        (intents, rules.max_intents, "intents"),
        (len(content.apps), rules.max_apps, "application transactions"),
    ):
        if count > limit:
            raise Refused(Reason.LIMIT_EXCEEDED, f"the transaction has {count} {what}; {limit} are allowed")
    if content.user_metadata is not None:
        _check_text(content.user_metadata, "user metadata", rules.max_text_bytes)
    _check_text(content.engine_info, "engine", rules.max_name_bytes)
    for app in content.apps:
        _check_text(app.app_id, "application id", rules.max_name_bytes)
    if len({app.app_id for app in content.apps}) != len(content.apps):
        raise Refused(Reason.INVALID_ACTION, "an application is there twice in one transaction")


def _check_text(text: str, what: str, limit: int) -> None:
    if "\0" in text:
        raise Refused(Reason.INVALID_ACTION, f"{what} {shown(text)} has a NUL character in it")
    if len(text) * 4 > limit and len(text.encode()) > limit:
        raise Refused(Reason.LIMIT_EXCEEDED, f"{what} {shown(text)} has more than {limit} bytes")


def _drafts(content: Content, files: Sequence[Files], txn_id: str, state: State) -> list[Draft]:
    drafts: list[Draft] = []
    seen: set[int] = set()
    created: list[TableState] = []
    for work, of_table in zip(content.tables, files, strict=True):
        draft = _draft(work, of_table, txn_id, state, created)
        if draft.created:
            created.append(draft.table)
        if draft.table.table_no in seen:
            raise Refused(Reason.INVALID_ACTION, "the table is named twice, by id and by name", table=draft.table.name)
        seen.add(draft.table.table_no)
        if work.others:
            _take_others(draft, state)
        if of_table.adds or of_table.removes:
            of_table.check(draft.facts, draft.table, state.rules)
        if work.cdc:
            check_change_data(work, draft.facts, draft.table, state.rules, changes_data=of_table.changes_data)
        drafts.append(draft)
    return drafts


def checked_against(work: TableWork, files: Files, txn_id: str, state: State) -> Checked | None:
    """What the files of `work` are to be checked against, as things are; None if it would be refused before that."""
    try:
        draft = _draft(work, files, txn_id, state, ())
        if work.others:
            _take_others(draft, state)
    except Refused:
        return None
    return Checked.against(draft.table, draft.facts)


def _draft(work: TableWork, files: Files, txn_id: str, state: State, siblings: Sequence[TableState]) -> Draft:
    if work.id is None and work.name is None:
        raise Refused(Reason.INVALID_ACTION, "a table is given neither by name nor by id")
    table = state.table(name=work.name, table_id=work.id)
    if table is None:
        return _created(work, files, txn_id, state, siblings)
    return _existing(work, files, table, txn_id, state)


def _created(work: TableWork, files: Files, txn_id: str, state: State, siblings: Sequence[TableState]) -> Draft:
    first = work.intents[0] if work.intents else None
    if not isinstance(first, CreateTable) or work.name is None or work.id is not None:
        raise Refused(
            Reason.UNKNOWN_TABLE,
            f"there is no table {shown(work.id or work.name)}; create it first (create_table, or a first append)",
            table=(work.name or work.id or "")[:255],
        )
    if work.read_version is not None or work.read_set is not None:
        raise Refused(
            Reason.READ_VERSION_INVALID, "the table is not there yet: it has no version to be read", table=work.name
        )
    table, definition = new_table(first, work.name, txn_id, state, siblings)
    return _redefined(work, files, table, definition, txn_id, state)


def _existing(work: TableWork, files: Files, table: TableState, txn_id: str, state: State) -> Draft:
    if table.state == "DROPPED":
        raise Refused(Reason.UNKNOWN_TABLE, "the table was dropped", table=table.name)
    if table.state == "IMPORTING":
        raise Refused(
            Reason.TABLE_READ_ONLY,
            "the table is being imported: no transaction reads or writes it before it is adopted",
            table=table.name,
        )
    facts = table.facts_under(state.rules)
    check_reads(work, table)
    if not (work.intents or _acts(work, files)):
        return Draft(work, files, table, facts)
    first = work.intents[0] if work.intents else None
    if isinstance(first, CreateTable):
        check_existing(first, table, facts, appends=bool(files.adds), state=state)
        if len(work.intents) == 1 and not _acts(work, files):
            return Draft(work, files, table, facts)
    if table.state != "ACTIVE":
        raise Refused(
            Reason.TABLE_READ_ONLY, f"the table is {table.state.lower()}: it takes no commits", table=table.name
        )
    if facts.unwritable is not None:
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            f"the table has feature {facts.unwritable}, with which we cannot write it: it is read-only",
            table=table.name,
        )
    if (files.adds or work.cdc) and not isinstance(first, CreateTable):
        check_written_against(work, table, facts)
    if not work.intents:
        return Draft(work, files, table, facts)
    definition = Definition(facts.metadata, facts.schema, facts.protocol)
    return _redefined(work, files, table, definition, txn_id, state)


def _redefined(
    work: TableWork, files: Files, table: TableState, definition: Definition, txn_id: str, state: State
) -> Draft:
    """The draft of a table whose definition, before the intents of `work`, is `definition`."""
    before = definition
    for n, intent in enumerate(work.intents):
        if n and isinstance(intent, CreateTable):
            raise Refused(
                Reason.INVALID_ACTION, "a table is created by the first of its intents, once", table=table.name
            )
        definition = apply_intent(intent, definition, table, txn_id, state.rules)
    if definition is before and table.version >= 0:
        return Draft(work, files, table, table.facts_under(state.rules))
    facts = TableFacts(definition.metadata, definition.schema, definition.protocol, table.slot_columns, state.rules)
    if facts.mapped and files.adds and (table.version < 0 or definition.schema is not before.schema):
        raise Refused(
            Reason.INVALID_ACTION,
            "with column mapping files are written under names that the committer gives: change the table first, then "
            "read it and append",
            table=table.name,
        )
    draft = Draft(work, files, table, facts)
    draft.definition = definition
    return draft


def _take_others(draft: Draft, state: State) -> None:
    """Parse and check verbatim actions; those that define the table take part in its definition."""
    work, table, facts, rules = draft.work, draft.table, draft.facts, state.rules
    others = draft.others = parse_others(work, table, facts, rules)
    for txn in others.txns:
        _check_app_order(txn.app_id, txn.version, table)
    if others.metadata is None and others.protocol is None:
        return
    if draft.created or work.intents:
        raise Refused(
            Reason.INVALID_ACTION,
            "metaData and protocol are given either by intents or verbatim, not both",
            table=table.name,
        )
    metadata, schema, protocol = facts.metadata, facts.schema, facts.protocol
    if others.metadata is not None:
        metadata = others.metadata
        schema = check_metadata(metadata, table, facts, work, rules, removes=draft.files.removes)
    if others.protocol is not None:
        protocol = others.protocol
        check_protocol(protocol, table, facts, work, rules)
    check_fit(metadata, schema, protocol, table.name, rules)
    draft.definition = Definition(metadata, schema, protocol)
    draft.facts = TableFacts(metadata, schema, protocol, table.slot_columns, rules)


def _check_app_order(app_id: str, version: int, table: TableState) -> None:
    newest = table.txns.get(app_id)
    if newest is not None and newest.txn.version >= version:
        raise Refused(
            Reason.CONCURRENT_TRANSACTION,
            f"transaction {version} of application {shown(app_id)} comes after its transaction "
            f"{newest.txn.version}, which version {newest.table_version} of the table has",
            table=table.name,
            versions=(newest.table_version,),
        )


def _change(draft: Draft, apps: Sequence[AppTransaction], level: Level, at: int) -> TableChange:
    """The new version of a table that everything else has been checked for."""
    work, table, facts, others = draft.work, draft.table, draft.facts, draft.others
    version = table.version + 1
    effect = draft.files.effect(facts, table, version, at)
    live_bytes = table.live_bytes + effect.added_bytes - effect.ended_bytes
    if live_bytes > MAX_BYTES:
        raise Refused(
            Reason.LIMIT_EXCEEDED, f"the table's files would have more than {MAX_BYTES} bytes", table=table.name
        )
    domains = [] if others is None else others.domains
    if effect.mark is not None:
        domains = [*domains, effect.mark]
    metadata = protocol = schema = None
    if draft.definition is not None:
        new, old = draft.definition, table
        if draft.changes_metadata:
            metadata, schema = new.metadata, new.schema
            if draft.created:
                metadata = msgspec.structs.replace(metadata, created_time=at)
        if new.protocol is not old.protocol:
            protocol = new.protocol
    return TableChange(
        table=table,
        version=version,
        operation=work.operation,
        operation_parameters=work.operation_parameters,
        operation_metrics=work.operation_metrics,
        read_version=work.read_version,
        isolation_level=level.isolation,
        is_blind_append=level.blind,
        adds=effect.adds,
        num_records=effect.num_records,
        slots=effect.slots,
        removes=effect.removes,
        cdc=work.cdc,
        metadata=metadata,
        schema=schema,
        protocol=protocol,
        txns=_txns(apps, others, table.name, at) if apps or others is not None else (),
        domains=tuple(domains),
        others=() if others is None else tuple(others.unknown),
        superseded=effect.superseded,
        changes_data=draft.files.changes_data,
        live_files=table.live_files + draft.files.adds - effect.ended_files,
        live_bytes=live_bytes,
        widths=effect.widths,
        staged=effect.staged,
    )


def _acts(work: TableWork, files: Files) -> bool:
    """Whether there is any action."""
    return bool(files.adds or files.removes or work.cdc or work.others)


def _txns(apps: Sequence[AppTransaction], others: Others | None, table: str, at: int) -> tuple[SetTransaction, ...]:
    """The table's `txn` actions: those of the whole transaction, and its own."""
    found = {} if others is None else {txn.app_id: txn for txn in others.txns}
    for app in apps:
        same = found.get(app.app_id)
        if same is not None and same.version != app.version:
            raise Refused(
                Reason.INVALID_ACTION,
                f"application {shown(app.app_id)} has transaction {app.version} for all tables and {same.version} here",
                table=table,
            )
        found.setdefault(app.app_id, SetTransaction(app_id=app.app_id, version=app.version))
    return tuple([msgspec.structs.replace(txn, last_updated=at) for txn in found.values()])
