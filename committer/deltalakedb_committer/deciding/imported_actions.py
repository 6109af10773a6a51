"""Actions of an imported version, from their verbatim JSON: more is taken than we would write, and nothing is lost.

Missing fields have their defaults and numbers may be texts. What has no column, or not all of what was said fits its
column, stays verbatim in `rest`, which goes over the other fields where an action is written out. Refused is what no
reader takes: an action without what makes it one, or a field of another type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec

from deltalakedb.actions import (
    AddFile,
    CdcFile,
    DeletionVector,
    DomainMetadata,
    Metadata,
    OtherAction,
    Protocol,
    RemoveFile,
    SetTransaction,
)
from deltalakedb.delta_types import EMPTY_SCHEMA
from deltalakedb.errors import Reason
from deltalakedb.events import ImportedAction
from deltalakedb.paths import has_scheme

from .json_limits import json_problem
from .refusal import Refused, said, shown
from .rules import Rules

_Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Int = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Values = dict[str, str | None]
_T = TypeVar("_T", bound=msgspec.Struct)


class _Json(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The JSON of an action that has nothing unknown in it, which is nearly every one."""


class _Vector(_Json):
    storage_type: str
    path_or_inline_dv: str
    offset: _Int | None = None
    size_in_bytes: _Int = 0
    cardinality: _Long = 0
    max_row_index: _Long | None = None


class _Add(_Json):
    path: str
    partition_values: _Values | None = None
    size: _Long | None = None
    modification_time: _Long | None = None
    data_change: bool | None = None
    stats: str | None = None
    deletion_vector: _Vector | None = None
    tags: _Values | None = None
    base_row_id: _Long | None = None
    default_row_commit_version: _Long | None = None
    clustering_provider: str | None = None


class _Remove(_Json):
    path: str
    data_change: bool | None = None
    deletion_timestamp: _Long | None = None
    extended_file_metadata: bool | None = None
    partition_values: _Values | None = None
    size: _Long | None = None
    deletion_vector: _Vector | None = None
    stats: str | None = None
    tags: _Values | None = None
    base_row_id: _Long | None = None
    default_row_commit_version: _Long | None = None


class _Cdc(_Json):
    path: str
    partition_values: _Values | None = None
    size: _Long | None = None
    tags: _Values | None = None


class _Format(_Json):
    provider: str | None = None
    options: dict[str, str] | None = None


class _Metadata(_Json):
    schema_string: str | None = None
    id: str | None = None
    name: str | None = None
    description: str | None = None
    format: _Format | None = None
    partition_columns: tuple[str, ...] | None = None
    configuration: dict[str, Any] | None = None
    created_time: _Long | None = None


class _Protocol(_Json):
    min_reader_version: _Int
    min_writer_version: _Int
    reader_features: tuple[str, ...] | None = None
    writer_features: tuple[str, ...] | None = None


class _Txn(_Json):
    app_id: str
    version: _Long
    last_updated: _Long | None = None


class _Domain(_Json):
    domain: str
    configuration: str | None = None
    removed: bool | None = None


class _More(msgspec.Struct, rename="camel", omit_defaults=True):
    """Fields that have columns and no place of their own in an action's value."""

    stats: str | None = None
    tags: _Values | None = None
    base_row_id: _Long | None = None
    default_row_commit_version: _Long | None = None
    clustering_provider: str | None = None


_JSON: dict[str, type[_Json]] = {
    "add": _Add,
    "remove": _Remove,
    "cdc": _Cdc,
    "metaData": _Metadata,
    "protocol": _Protocol,
    "txn": _Txn,
    "domainMetadata": _Domain,
}
_DECODERS: dict[str, Any] = {kind: msgspec.json.Decoder(shape).decode for kind, shape in _JSON.items()}
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(slots=True)
class ImportedActions:
    """The actions of one chunk."""

    files: list[AddFile | RemoveFile] = field(default_factory=list)
    """In the order of the log file, which decides where a version has a file twice."""
    cdc: list[CdcFile] = field(default_factory=list)
    metadata: Metadata | None = None
    protocol: Protocol | None = None
    txns: dict[str, SetTransaction] = field(default_factory=dict)
    domains: dict[str, DomainMetadata] = field(default_factory=dict)
    others: list[OtherAction] = field(default_factory=list)
    commit_info: str | None = None


def read_actions(actions: Sequence[ImportedAction], table: str, version: int, rules: Rules) -> ImportedActions:
    """The actions of a chunk. Of two that say the same thing of a table, the later one counts. Raises `Refused`."""
    found = ImportedActions()
    for action in actions:
        kind, body = action.kind, action.json
        try:
            problem = json_problem(body, rules.max_chunk_bytes, rules.max_json_depth)
            if problem is not None:
                raise ValueError(f"the JSON {problem}")
            match kind:
                case "add":
                    found.files.append(_add(*_read(_Add, kind, body)))
                case "remove":
                    found.files.append(_remove(*_read(_Remove, kind, body)))
                case "cdc":
                    found.cdc.append(_cdc(*_read(_Cdc, kind, body)))
                case "metaData":
                    found.metadata = _metadata(*_read(_Metadata, kind, body))
                case "protocol":
                    found.protocol = _protocol(*_read(_Protocol, kind, body))
                case "txn":
                    txn = _txn(*_read(_Txn, kind, body), rules)
                    found.txns[txn.app_id] = txn
                case "domainMetadata":
                    domain = _domain(*_read(_Domain, kind, body), rules)
                    found.domains[domain.domain] = domain
                case "commitInfo":
                    _raw(body)
                    found.commit_info = body
                case _:
                    found.others.append(_other(kind, body, rules))
        except ValueError as error:
            raise Refused(
                Reason.INVALID_ACTION,
                f"version {version}, action {shown(kind)} {shown(body)}: {said(error)}",
                table=table,
                versions=(version,),
            ) from error
    return found


def _read(shape: type[_T], kind: str, body: str) -> tuple[_T, dict[str, msgspec.Raw]]:
    """What `shape` has of an action, and what else there is of it."""
    try:
        known: _T = _DECODERS[kind](body)
        rest: dict[str, msgspec.Raw] = {}
    except msgspec.ValidationError:
        known, rest = _lenient(shape, body)
    if "\\u0000" in body:
        _check_texts(known)
    return known, rest


def _lenient(shape: type[_T], body: str) -> tuple[_T, dict[str, msgspec.Raw]]:
    """As `_read`, for an action that is not just as the protocol has it."""
    names = frozenset(shape.__struct_encode_fields__)
    known: dict[str, Any] = {}
    rest: dict[str, msgspec.Raw] = {}
    for key, raw in _raw(body).items():
        if key not in names:
            rest[key] = raw
            continue
        value = msgspec.json.decode(raw)
        inner = {"deletionVector": _Vector, "format": _Format}.get(key)
        if inner is not None and isinstance(value, dict):
            own = frozenset(inner.__struct_encode_fields__)
            if value.keys() - own:
                rest[key] = raw
                value = {name: value[name] for name in value.keys() & own}
            value = {name: part for name, part in value.items() if part is not None}
        known[key] = value
    return msgspec.convert(known, shape, strict=False), rest


def _add(json: _Add, rest: dict[str, msgspec.Raw]) -> AddFile:
    return AddFile(
        path=json.path,
        partition_values=json.partition_values or {},
        size=json.size or 0,
        modification_time=json.modification_time or 0,
        data_change=json.data_change is not False,
        stats=json.stats,
        deletion_vector=None if json.deletion_vector is None else _vector(json.deletion_vector),
        rest=_rest(
            rest,
            None,
            json.tags,
            json.base_row_id,
            json.default_row_commit_version,
            json.clustering_provider,
        ),
    )


def _remove(json: _Remove, rest: dict[str, msgspec.Raw]) -> RemoveFile:
    return RemoveFile(
        path=json.path,
        data_change=json.data_change is not False,
        deletion_vector=None if json.deletion_vector is None else _vector(json.deletion_vector),
        deletion_timestamp=json.deletion_timestamp,
        extended_file_metadata=json.extended_file_metadata,
        partition_values=json.partition_values,
        size=json.size,
        rest=_rest(rest, json.stats, json.tags, json.base_row_id, json.default_row_commit_version),
    )


def _cdc(json: _Cdc, rest: dict[str, msgspec.Raw]) -> CdcFile:
    if rest.get("dataChange") is not None and bytes(rest["dataChange"]) in (b"false", b"null"):
        del rest["dataChange"]
    return CdcFile(
        path=json.path,
        partition_values=json.partition_values or {},
        size=json.size or 0,
        rest=_rest(rest, None, json.tags),
    )


def _metadata(json: _Metadata, rest: dict[str, msgspec.Raw]) -> Metadata:
    configuration = json.configuration or {}
    if not all(isinstance(value, str) for value in configuration.values()):
        rest = {**rest, "configuration": msgspec.Raw(msgspec.json.encode(configuration))}
    form = json.format or _Format()
    return Metadata(
        id=json.id or "",
        schema_string=EMPTY_SCHEMA if json.schema_string is None else json.schema_string,
        partition_columns=json.partition_columns or (),
        configuration={name: _text(value) for name, value in configuration.items() if value is not None},
        name=json.name,
        description=json.description,
        format_provider="parquet" if form.provider is None else form.provider,
        format_options=form.options or {},
        created_time=json.created_time,
        rest=_rest(rest),
    )


def _protocol(json: _Protocol, rest: dict[str, msgspec.Raw]) -> Protocol:
    return Protocol(
        min_reader_version=json.min_reader_version,
        min_writer_version=json.min_writer_version,
        reader_features=json.reader_features,
        writer_features=json.writer_features,
        rest=_rest(rest),
    )


def _txn(json: _Txn, rest: dict[str, msgspec.Raw], rules: Rules) -> SetTransaction:
    _check_key(json.app_id, rules)
    return SetTransaction(app_id=json.app_id, version=json.version, last_updated=json.last_updated, rest=_rest(rest))


def _domain(json: _Domain, rest: dict[str, msgspec.Raw], rules: Rules) -> DomainMetadata:
    _check_key(json.domain, rules)
    return DomainMetadata(
        domain=json.domain,
        configuration=json.configuration or "",
        removed=json.removed is True,
        rest=_rest(rest),
    )


def _other(kind: str, body: str, rules: Rules) -> OtherAction:
    msgspec.json.decode(body)
    _check_key(kind, rules)
    return OtherAction(kind=kind, json=body)


def _vector(json: _Vector) -> DeletionVector:
    return DeletionVector(
        storage_type=json.storage_type,
        path_or_inline_dv=json.path_or_inline_dv,
        offset=json.offset,
        size_in_bytes=json.size_in_bytes,
        cardinality=json.cardinality,
        max_row_index=json.max_row_index,
    )


def _rest(rest: dict[str, msgspec.Raw], *more: Any) -> str | None:
    """The further fields of an action as one JSON object; `more` in the order of `_More`."""
    text = "" if more.count(None) == len(more) else msgspec.json.encode(_More(*more)).decode()
    if rest:
        others = msgspec.json.encode(rest).decode()
        return others if not text else f"{text[:-1]},{others[1:]}"
    return text or None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _check_key(text: str, rules: Rules) -> None:
    """A text that rows are found by."""
    if "\0" in text:
        raise ValueError("a text in it has a NUL character")
    if len(text.encode()) > rules.max_imported_key_bytes:
        raise ValueError(f"a name in it has more than {rules.max_imported_key_bytes} bytes")


def _check_texts(value: Any) -> None:
    """No text with a column of its own may have a NUL character in it: SQL has no place for that."""
    for item in msgspec.structs.astuple(value):
        if isinstance(item, msgspec.Struct):
            _check_texts(item)
        elif isinstance(item, str) and "\0" in item:
            raise ValueError("a text in it has a NUL character")


def path_problem(path: str, rules: Rules) -> str | None:
    """What keeps a path from being stored. Absolute ones are for the importer to judge, who knows what was allowed."""
    if not path:
        return "it is empty"
    if len(path.encode()) > rules.max_imported_path_bytes:
        return f"it has more than {rules.max_imported_path_bytes} bytes"
    if not has_scheme(path) and not path.startswith("/") and ".." in unquote(path).split("/"):
        return "it leads out of the table's folder"
    return None
