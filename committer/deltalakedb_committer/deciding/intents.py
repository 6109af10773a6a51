"""Intents: from what a client wants of a table to its metadata and protocol, which only the committer can give.

An intent that is true already changes nothing, so two clients with the same wish both get it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from deltalakedb.actions import Metadata, Protocol
from deltalakedb.delta_types import StructType, decimal_of, fields_in, schema_json
from deltalakedb.errors import Reason
from deltalakedb.events import AddColumn, CreateTable, DropColumn, Intent, RenameColumn, SetProperties, WidenColumn
from deltalakedb.features import FENCE_FEATURE, ICT, listed
from deltalakedb.ids import is_table_name, metadata_id, table_id, table_location
from deltalakedb.locations import nested, same
from deltalakedb.schema_evolution import accepts, alike
from deltalakedb.slots import slot_columns

from .column_mapping import MAX_COLUMN_ID, fresh_names, last_id, mapped, same_names
from .facts import TableFacts, is_mapped
from .features import (
    FEATURE_PREFIX,
    MAPPING_MODE,
    NEW_TABLE,
    ROW_TRACKING,
    needed,
    protocol_of,
    unwritable,
    with_dependencies,
)
from .other_actions import check_configuration, checked_schema
from .partition_values import PARTITION_TYPES
from .properties import check_property, is_system
from .refusal import Refused, shown
from .rules import Rules
from .schema_changes import (
    add_column,
    check_field_metadata,
    check_new_columns,
    drop_column,
    rename_column,
    widen_column,
)
from .state import State, TableState

_FOLDERS = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.=+@~-]*/)*[A-Za-z0-9_][A-Za-z0-9_.=+@~-]*")
OURS = "_deltalakedb"
"""Names at a lake's root that begin like this are documents of the lake itself."""
_TYPE_WIDENING = "delta.enableTypeWidening"


@dataclass(frozen=True, slots=True)
class Definition:
    """What makes a table what it is."""

    metadata: Metadata
    schema: StructType
    protocol: Protocol


def new_table(
    intent: CreateTable, name: str, txn_id: str, state: State, siblings: Sequence[TableState]
) -> tuple[TableState, Definition]:
    """The table that `intent` makes, without a version yet, and its first metadata and protocol.

    `siblings` are the tables that the same transaction makes before it. Raises `Refused`.
    """
    rules = state.rules
    if not is_table_name(name) or name.startswith(OURS):
        raise Refused(
            Reason.INVALID_ACTION,
            f"{shown(name)} is not a table name: [namespace.]name of ASCII letters, digits, _ and -, not beginning "
            f"with {OURS}",
            table=name[:255],
        )
    definition = _definition(intent, name, txn_id, state.lake.fence, rules)
    table = TableState(
        table_no=state.next_table_no + len(siblings),
        table_id=table_id(txn_id, name),
        name=name,
        location=_new_location(intent, name, state, siblings),
        slot_columns=slot_columns(definition.schema, definition.metadata.partition_columns),
        loaded=True,
        winners_since=-1,
    )
    return table, definition


def check_existing(intent: CreateTable, table: TableState, facts: TableFacts, *, appends: bool, state: State) -> None:
    """Check that the table that is there is the one that `intent` wants, or that its first files fit. Raises `Refused`."""
    if not intent.if_absent:
        raise Refused(Reason.TABLE_EXISTS, "a table of this name is there already", table=table.name)
    location = intent.location
    if location is None and appends:
        # The files lie where their author thought the table would be.
        location = _default_location(table.name, state)
    if location is not None and not same(location, table.location):
        raise Refused(
            Reason.LOCATION_CHANGED,
            f"the table lies at {table.location}, not at {shown(location)}; write its files there",
            table=table.name,
        )
    schema = checked_schema(intent.schema_string, table.name, state.rules)
    difference: str | None = None
    if intent.partition_columns != facts.metadata.partition_columns:
        ours, theirs = intent.partition_columns, facts.metadata.partition_columns
        difference = f"it is partitioned by {shown(list(theirs))}, not by {shown(list(ours))}"
    elif facts.mapped and appends:
        difference = "it maps column names: read it first, then append"
    elif not alike(schema, facts.schema):
        difference = accepts(schema, facts.schema) if appends else "its schema is another one"
    if difference is None:
        difference = _property_difference(intent.properties, facts)
    if difference is not None:
        raise Refused(Reason.TABLE_EXISTS, f"a table of this name is there already, and {difference}", table=table.name)


def apply_intent(intent: Intent, definition: Definition, table: TableState, txn_id: str, rules: Rules) -> Definition:
    """`definition` as `intent` wants it; the very same object where it is true already. Raises `Refused`."""
    name = table.name
    schema, metadata = definition.schema, definition.metadata
    mapping = is_mapped(metadata)
    match intent:
        case CreateTable():
            return definition
        case SetProperties():
            return _with_properties(intent, definition, table, txn_id, rules)
        case AddColumn():
            schema, added = add_column(schema, intent, name)
            if added is not None:
                change_data = metadata.configuration.get("delta.enableChangeDataFeed") == "true"
                new = StructType((added,))
                check_new_columns(new, name, mapped=mapping, change_data=change_data)
                check_field_metadata((added, *fields_in(added.type)), name)
                schema, metadata = _mapped(schema, metadata, txn_id, name) if mapping else (schema, metadata)
        case WidenColumn():
            if intent.column[:1] and intent.column[0] in metadata.partition_columns:
                raise _invalid(name, f"column {shown(intent.column[0])} partitions the table and keeps its type")
            schema = widen_column(schema, intent, name)
            if schema is not definition.schema:
                metadata = msgspec.structs.replace(
                    metadata, configuration={**metadata.configuration, _TYPE_WIDENING: "true"}
                )
        case RenameColumn() | DropColumn():
            if not mapping:
                raise Refused(
                    Reason.FEATURE_UNSUPPORTED,
                    "columns are renamed and dropped only with column mapping (feature columnMapping): set "
                    f"{MAPPING_MODE}=name first",
                    table=name,
                )
            if isinstance(intent, RenameColumn):
                schema = rename_column(schema, intent, name)
                if schema is not definition.schema and len(intent.column) == 1:
                    partitions = tuple(
                        intent.new_name if column == intent.column[0] else column
                        for column in metadata.partition_columns
                    )
                    metadata = msgspec.structs.replace(metadata, partition_columns=partitions)
            else:
                if len(intent.column) == 1 and intent.column[0] in metadata.partition_columns:
                    raise _invalid(name, f"column {shown(intent.column[0])} partitions the table and cannot be dropped")
                schema = drop_column(schema, intent, name)
    if schema is definition.schema:
        return definition
    text = schema_json(schema)
    if len(text.encode()) > rules.max_schema_bytes:
        raise Refused(Reason.LIMIT_EXCEEDED, f"the schema has {rules.max_schema_bytes} bytes at most", table=name)
    metadata = msgspec.structs.replace(metadata, schema_string=text)
    return _upgraded(Definition(metadata, schema, definition.protocol), frozenset(), name, rules)


def _definition(intent: CreateTable, name: str, txn_id: str, fence: bool, rules: Rules) -> Definition:
    schema = checked_schema(intent.schema_string, name, rules)
    if not schema.fields:
        raise _invalid(name, "a table has at least one column")
    if "\0" in (intent.description or ""):
        raise Refused(Reason.INVALID_ACTION, "the description has a NUL character in it", table=name)
    check_configuration(intent.properties, name, rules)
    features = {key.removeprefix(FEATURE_PREFIX) for key in intent.properties if key.startswith(FEATURE_PREFIX)}
    configuration = {key: value for key, value in intent.properties.items() if not key.startswith(FEATURE_PREFIX)}
    for key in configuration:
        if is_system(key):
            raise Refused(Reason.INVALID_ACTION, f"property {key} is set by the committer: leave it out", table=name)
    if configuration.get(ICT, "true") != "true":
        raise Refused(Reason.INVALID_ACTION, f"{ICT} stays true: every commit has its time in it", table=name)
    configuration[ICT] = "true"
    mode = configuration.get(MAPPING_MODE, "none")
    if mode == "id":
        raise Refused(
            Reason.FEATURE_UNSUPPORTED, f"columnMapping is written by name only: set {MAPPING_MODE}=name", table=name
        )
    change_data = configuration.get("delta.enableChangeDataFeed") == "true"
    check_field_metadata(tuple(fields_in(schema)), name)
    check_new_columns(schema, name, mapped=mode == "name", change_data=change_data)
    _check_partitioning(intent.partition_columns, schema, name, rules)
    metadata = Metadata(
        id=metadata_id(txn_id, name),
        schema_string=schema_json(schema),
        partition_columns=intent.partition_columns,
        configuration=configuration,
        name=name,
        description=intent.description,
    )
    if mode == "name":
        schema, metadata = _mapped(schema, metadata, txn_id, name)
        metadata = msgspec.structs.replace(metadata, schema_string=schema_json(schema))
    if configuration.get(ROW_TRACKING) == "true":
        metadata = _with_row_id_columns(metadata)
    features |= NEW_TABLE | ({FENCE_FEATURE} if fence else set())
    return _upgraded(Definition(metadata, schema, protocol_of(())), features, name, rules)


def _check_partitioning(columns: tuple[str, ...], schema: StructType, name: str, rules: Rules) -> None:
    if len(columns) > rules.max_partition_columns:
        raise Refused(
            Reason.LIMIT_EXCEEDED,
            f"{len(columns)} partition columns; a table has {rules.max_partition_columns} at most",
            table=name,
        )
    if len(set(columns)) != len(columns):
        raise _invalid(name, "a partition column is there twice")
    for column in columns:
        found = schema.field(column)
        if found is None:
            raise _invalid(name, f"partition column {shown(column)} is not a column of the table")
        if not isinstance(found.type, str) or (found.type not in PARTITION_TYPES and decimal_of(found.type) is None):
            raise _invalid(
                name, f"a table cannot be partitioned by {shown(column)}, which is of type {shown(found.type)}"
            )
    if len(columns) == len(schema.fields):
        raise _invalid(name, "a table has at least one column beside its partition columns")


def _default_location(name: str, state: State) -> str:
    dropped = [t for t in state.tables.values() if t.name == name and t.dropped_seq is not None]
    newest = max((t.dropped_seq for t in dropped if t.dropped_seq is not None), default=None)
    return table_location(state.lake.root, name, newest)


def _new_location(intent: CreateTable, name: str, state: State, siblings: Sequence[TableState]) -> str:
    root = state.lake.root.rstrip("/") + "/"
    location = _default_location(name, state) if intent.location is None else intent.location.rstrip("/")
    below = location.removeprefix(root)
    if not location.startswith(root) or not _FOLDERS.fullmatch(below) or below.startswith(OURS):
        raise Refused(
            Reason.INVALID_PATH,
            f"location {shown(location)} is not a folder below the lake's root {root} of plain names; leave it out, or "
            "have an operator register the location",
            table=name,
        )
    for other in (*state.tables.values(), *siblings):
        if nested(location, other.location):
            raise Refused(
                Reason.INVALID_PATH,
                f"location {shown(location)} belongs to table {shown(other.name)} ({shown(other.location)}): every "
                "table has a folder of its own, none inside another",
                table=name,
            )
    return location


def _property_difference(properties: Mapping[str, str], facts: TableFacts) -> str | None:
    for key, value in properties.items():
        if key.startswith(FEATURE_PREFIX):
            if key.removeprefix(FEATURE_PREFIX) not in facts.features:
                return f"it does not have feature {key.removeprefix(FEATURE_PREFIX)}"
        elif facts.metadata.configuration.get(key) != value:
            return f"its property {key} is {shown(facts.metadata.configuration.get(key))}, not {shown(value)}"
    return None


def _with_properties(
    intent: SetProperties, definition: Definition, table: TableState, txn_id: str, rules: Rules
) -> Definition:
    name = table.name
    metadata, schema = definition.metadata, definition.schema
    before = metadata.configuration
    for key in (*intent.set, *intent.unset):
        if is_system(key) or (key == ICT and intent.set.get(key) != "true"):
            raise Refused(Reason.INVALID_ACTION, f"property {key} is set by the committer", table=name)
        if key in intent.set and key in intent.unset:
            raise Refused(Reason.INVALID_ACTION, f"property {shown(key)} is both set and unset", table=name)
    for key, value in intent.set.items():
        check_property(key, value, name, rules)
    features = {key.removeprefix(FEATURE_PREFIX) for key in intent.set if key.startswith(FEATURE_PREFIX)}
    after = {key: value for key, value in before.items() if key not in intent.unset}
    after |= {key: value for key, value in intent.set.items() if not key.startswith(FEATURE_PREFIX)}
    if after == before and features <= listed(definition.protocol):
        return definition
    check_configuration(after, name, rules)
    metadata = msgspec.structs.replace(metadata, configuration=after)
    was, mode = before.get(MAPPING_MODE, "none"), after.get(MAPPING_MODE, "none")
    if was != mode:
        if (was, mode) != ("none", "name"):
            raise Refused(
                Reason.FEATURE_UNSUPPORTED, f"columnMapping cannot go from mode {was} to mode {mode}", table=name
            )
        schema, metadata = _mapped(schema, metadata, txn_id, name, keep_names=True)
        metadata = msgspec.structs.replace(metadata, schema_string=schema_json(schema))
    if before.get(ROW_TRACKING) != "true" and after.get(ROW_TRACKING) == "true":
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            "rowTracking is enabled when a table is created: files that are there have no row ids",
            table=name,
        )
    return _upgraded(Definition(metadata, schema, definition.protocol), features, name, rules)


def _mapped(
    schema: StructType, metadata: Metadata, txn_id: str, name: str, *, keep_names: bool = False
) -> tuple[StructType, Metadata]:
    """Every column with an id and a physical name, and the highest id in the properties."""
    names = same_names if keep_names else fresh_names(txn_id, name)
    changed, highest = mapped(schema, last_id(schema, metadata.configuration), names)
    if not isinstance(changed, StructType):
        raise TypeError("a table's schema is a struct")
    configuration = {**metadata.configuration, MAX_COLUMN_ID: str(highest)}
    return changed, msgspec.structs.replace(metadata, configuration=configuration)


def _with_row_id_columns(metadata: Metadata) -> Metadata:
    """Where writers that move rows keep the ids that the rows had."""
    names = {
        "delta.rowTracking.materializedRowIdColumnName": f"_row-id-col-{metadata.id}",
        "delta.rowTracking.materializedRowCommitVersionColumnName": f"_row-commit-version-col-{metadata.id}",
    }
    return msgspec.structs.replace(metadata, configuration={**metadata.configuration, **names})


def _upgraded(definition: Definition, features: frozenset[str] | set[str], name: str, rules: Rules) -> Definition:
    """`definition` with a protocol that lists `features` and what schema and properties call for. Raises `Refused`."""
    configuration = definition.metadata.configuration
    there = listed(definition.protocol)
    wanted = with_dependencies(there | features | needed(definition.schema, configuration))
    blocking = unwritable(wanted, definition.schema, configuration, rules)
    if blocking is not None:
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            f"feature {blocking} is none that we can write; leave out what calls for it",
            table=name,
        )
    return definition if wanted <= there else replace(definition, protocol=protocol_of(wanted))


def _invalid(table: str, message: str) -> Refused:
    return Refused(Reason.INVALID_SCHEMA, message, table=table)
