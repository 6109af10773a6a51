"""Actions that a client gives as verbatim JSON: `metaData`, `protocol`, `txn`, `domainMetadata` and unknown kinds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deltalakedb.actions import DomainMetadata, Metadata, OtherAction, Protocol, SetTransaction, from_json
from deltalakedb.delta_types import StructType
from deltalakedb.errors import Reason, TxnLogSchemaError
from deltalakedb.events import TableWork
from deltalakedb.features import FENCE_FEATURE, ICT, listed
from deltalakedb.schema_evolution import accepts

from .facts import TableFacts, parsed_schema
from .features import FEATURE_PREFIX, ROW_TRACKING, needed, protocol_problem, unwritable
from .given_schema import check_given_schema
from .json_limits import json_problem, repeats_a_key
from .properties import check_property, is_system
from .refusal import Refused, said, shown
from .rules import Rules
from .state import TableState

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_FILE_KINDS = frozenset({"add", "remove", "cdc"})
_RESERVED = frozenset({"commitInfo", "checkpointMetadata", "sidecar", "checkpoint"})
_TYPED = frozenset({"metaData", "protocol", "txn", "domainMetadata"})


@dataclass(slots=True)
class Others:
    """The verbatim actions of one table, parsed."""

    metadata: Metadata | None = None
    protocol: Protocol | None = None
    txns: list[SetTransaction] = field(default_factory=list)
    domains: list[DomainMetadata] = field(default_factory=list)
    unknown: list[OtherAction] = field(default_factory=list)


def parse_others(work: TableWork, table: TableState, facts: TableFacts, rules: Rules) -> Others:
    """Parse the verbatim actions of `work`; at most one of each kind (and app, and domain). Raises `Refused`."""
    found = Others()
    for action in work.others:
        body = _parse(action, table, rules)
        match body:
            case Metadata():
                if found.metadata is not None:
                    raise _wrong(table, "two metaData actions in one transaction")
                found.metadata = body
            case Protocol():
                if found.protocol is not None:
                    raise _wrong(table, "two protocol actions in one transaction")
                found.protocol = body
            case SetTransaction():
                _check_txn(body, found, table, rules)
                found.txns.append(body)
            case DomainMetadata():
                _check_domain(body, found, table, facts)
                found.domains.append(body)
            case _:
                found.unknown.append(action)
    return found


def check_metadata(
    new: Metadata, table: TableState, facts: TableFacts, work: TableWork, rules: Rules, *, removes: int
) -> StructType:
    """Check a verbatim `metaData` for an existing table against what is there, of which the transaction removes as many
    files. The parsed schema; raises `Refused`."""
    old = facts.metadata
    _check_base(work, table.metadata_version, Reason.METADATA_CHANGED, "metaData", table)
    if facts.mapped or new.configuration.get("delta.columnMapping.mode", "none") != "none":
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            "with column mapping (columnMapping) a table's metadata is changed by intents only: ids and physical names "
            "are given by the committer",
            table=table.name,
        )
    if new.id != old.id:
        raise _wrong(table, f"metaData.id {shown(new.id)} is not the table's own ({shown(old.id)})")
    if new.format_provider != "parquet" or new.format_options:
        raise _wrong(table, f"metaData.format {shown(new.format_provider)} is not parquet without options")
    for text, what in ((new.name, "name"), (new.description, "description")):
        if text is not None and "\0" in text:
            raise _wrong(table, f"metaData.{what} has a NUL character in it")
    if new.partition_columns != old.partition_columns:
        raise Refused(
            Reason.PARTITION_MISMATCH,
            f"the table is partitioned by {', '.join(old.partition_columns) or 'nothing'}, which cannot be changed to "
            f"{shown(list(new.partition_columns))}",
            table=table.name,
        )
    if new.created_time is not None and not -(2**63) <= new.created_time < 2**63:
        raise _wrong(table, f"metaData.createdTime {shown(new.created_time)} is no 64-bit number")
    schema = checked_schema(new.schema_string, table.name, rules)
    check_configuration(new.configuration, table.name, rules)
    for key in sorted({*old.configuration, *new.configuration}):
        if is_system(key) and new.configuration.get(key) != old.configuration.get(key):
            raise _wrong(table, f"property {key} is set by the committer: leave it as it is")
        if key.startswith(FEATURE_PREFIX) and key not in old.configuration:
            raise _wrong(table, f"{key} is no property: a feature is listed in the protocol")
    if table.live_files > removes:
        reason = accepts(facts.schema, schema)
        if reason is not None:
            raise Refused(Reason.INVALID_SCHEMA, f"live files would not be valid any more: {reason}", table=table.name)
    for name in new.partition_columns:
        was, now = facts.schema.field(name), schema.field(name)
        if was is None or now is None or was.type != now.type:
            raise Refused(
                Reason.PARTITION_MISMATCH,
                f"column {shown(name)} partitions the table and keeps its type",
                table=table.name,
            )
    check_given_schema(facts.schema, schema, new.configuration, table.name, files=table.live_files > removes)
    if old.configuration.get(ICT) == "true" and new.configuration.get(ICT) != "true":
        raise _wrong(table, f"{ICT} stays true: every commit has its time in it")
    if new.configuration.get(ROW_TRACKING) == "true" and old.configuration.get(ROW_TRACKING) != "true":
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            "rowTracking is enabled when a table is created: files that are there have no row ids",
            table=table.name,
        )
    return schema


def check_protocol(new: Protocol, table: TableState, facts: TableFacts, work: TableWork, rules: Rules) -> None:
    """Check a verbatim `protocol` for an existing table: nothing is taken away, nothing comes that we cannot write."""
    problem = protocol_problem(new)
    if problem is not None:
        raise _wrong(table, f"protocol: {problem}")
    _check_base(work, table.protocol_version, Reason.PROTOCOL_CHANGED, "protocol", table)
    old = facts.protocol
    lost = facts.features - listed(new)
    if lost:
        what = "the writer fence goes by `deltalakedb release`" if FENCE_FEATURE in lost else "features are not dropped"
        raise _wrong(table, f"protocol without {min(lost)}: {what}")
    if (new.min_reader_version, new.min_writer_version) < (old.min_reader_version, old.min_writer_version):
        raise _wrong(table, f"protocol ({new.min_reader_version}, {new.min_writer_version}) is a downgrade")


def check_fit(metadata: Metadata, schema: StructType, protocol: Protocol, name: str, rules: Rules) -> None:
    """Check that metadata and protocol go together and leave a table that we can write. Raises `Refused`."""
    features = listed(protocol)
    missing = needed(schema, metadata.configuration) - features
    blocking = unwritable(features | missing, schema, metadata.configuration, rules)
    if blocking is not None:
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            f"the table would have feature {blocking}, with which we cannot write it; leave it out",
            table=name,
        )
    if missing:
        raise Refused(
            Reason.INVALID_ACTION,
            f"schema and properties call for feature {min(missing)}, which the protocol does not list",
            table=name,
        )


def checked_schema(text: str, name: str, rules: Rules) -> StructType:
    """The schema that `text` is, within the limits. Raises `Refused`."""
    problem = json_problem(text, rules.max_schema_bytes, rules.max_json_depth)
    if problem is not None:
        raise Refused(Reason.LIMIT_EXCEEDED, f"the schema {problem}", table=name)
    try:
        return parsed_schema(text)
    except TxnLogSchemaError as error:
        raise Refused(Reason.INVALID_SCHEMA, f"not a Delta schema: {error}", table=name) from error


def check_configuration(configuration: dict[str, str], name: str, rules: Rules) -> None:
    """Check number, size and, where we know them, values of table properties. Raises `Refused`."""
    if len(configuration) > rules.max_properties:
        raise Refused(
            Reason.LIMIT_EXCEEDED,
            f"{len(configuration)} properties; a table has {rules.max_properties} at most",
            table=name,
        )
    for key, value in configuration.items():
        check_property(key, value, name, rules)


def _parse(action: OtherAction, table: TableState, rules: Rules) -> Any:
    kind = action.kind
    if kind in _FILE_KINDS:
        raise _wrong(table, f"{kind} actions have their own place in the event, not among other actions")
    if kind in _RESERVED:
        raise _wrong(table, f"{kind} is written by the committer; leave it out")
    if not _KIND.fullmatch(kind):
        raise _wrong(table, f"{shown(kind)} is not the name of an action")
    limit = rules.max_schema_bytes * 2 if kind == "metaData" else rules.max_rest_bytes
    problem = json_problem(action.json, limit, rules.max_json_depth)
    if problem is not None:
        raise Refused(Reason.LIMIT_EXCEEDED, f"action {kind}: the JSON {problem}", table=table.name)
    try:
        plain = msgspec.json.decode(action.json, type=dict[str, Any])
        if repeats_a_key(action.json):
            raise ValueError("an object has a key twice")
        return from_json(kind, action.json) if kind in _TYPED else plain
    except ValueError as error:
        raise _wrong(table, f"action {kind}: {said(error)}") from error


def _check_txn(txn: SetTransaction, found: Others, table: TableState, rules: Rules) -> None:
    if not txn.app_id or "\0" in txn.app_id or len(txn.app_id.encode()) > rules.max_name_bytes:
        raise _wrong(table, f"txn.appId {shown(txn.app_id)} is not a text of 1 to {rules.max_name_bytes} bytes")
    if not -(2**63) <= txn.version < 2**63:
        raise _wrong(table, f"txn.version {shown(txn.version)} is no 64-bit number")
    if any(txn.app_id == other.app_id for other in found.txns):
        raise _wrong(table, f"two txn actions of application {shown(txn.app_id)} in one transaction")


def _check_domain(domain: DomainMetadata, found: Others, table: TableState, facts: TableFacts) -> None:
    if domain.domain.startswith("delta."):
        raise _wrong(table, f"domain {shown(domain.domain)} is under the system's control")
    if not domain.domain or "\0" in domain.domain + domain.configuration:
        raise _wrong(table, f"domain {shown(domain.domain)} is empty or has a NUL character in it")
    if any(domain.domain == other.domain for other in found.domains):
        raise _wrong(table, f"domain {shown(domain.domain)} is there twice in one transaction")
    if "domainMetadata" not in facts.features:
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            "domainMetadata is not a feature of this table: set delta.feature.domainMetadata=supported first",
            table=table.name,
        )


def _check_base(work: TableWork, version: int, changed: Reason, kind: str, table: TableState) -> None:
    """A whole metaData or protocol replaces what its author saw, so it has to say which version that was."""
    base = work.read_version
    if base is None and work.written_against is not None:
        against = work.written_against
        base = against.metadata_version if kind == "metaData" else against.protocol_version
    if base is None:
        raise Refused(
            Reason.READ_VERSION_INVALID,
            f"a {kind} action replaces the table's own: say by read_version which version it was made from",
            table=table.name,
        )
    if base < version:
        raise Refused(
            changed,
            f"the table's {kind} was changed by version {version}, after version {base} that yours was made from",
            table=table.name,
            versions=(base, version),
        )


def _wrong(table: TableState, message: str) -> Refused:
    return Refused(Reason.INVALID_ACTION, message, table=table.name)
