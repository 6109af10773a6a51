"""What actions say, apart from how they are written: two that mean the same become equal values. Pure.

Null is absent, lists of features are sets, numbers count by value, statistics by the types of their columns. `normal`
gives values that can be compared and, by `encoded`, digested.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final

import msgspec

from deltalakedb.delta_types import EMPTY_SCHEMA, PHYSICAL_NAME

_EXACT: Final = Context(prec=100_000)
_LONG: Final = 10**40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_METADATA: Final[Mapping[str, Any]] = {
    "id": "",
    "schemaString": EMPTY_SCHEMA,
    "partitionColumns": [],
    "configuration": {},
}

encoded = msgspec.json.Encoder(order="deterministic", decimal_format="number").encode
"""Equal values to equal bytes."""


def parsed(text: str) -> Any:
    """JSON with every number as it was written. Raises `ValueError`."""
    try:
        return json.loads(text, parse_float=Decimal)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def normal(value: Any) -> Any:
    """Any JSON value, without the fields that are null, and with one form for each number."""
    match value:
        case dict():
            return {name: normal(inner) for name, inner in value.items() if inner is not None}
        case list() | tuple():
            return [normal(inner) for inner in value]
        case bool() | str() | None:
            return value
        case _:
            return _one_form(value)


def _one_form(number: int | float | Decimal) -> int | Decimal:
    """A number as an integer where it is one (of a length that a person would write), else without idle zeros."""
    if isinstance(number, int) and -_LONG < number < _LONG:
        return number
    exact = Decimal(number).normalize(_EXACT)
    if exact.adjusted() < 40 and exact == exact.to_integral_value(context=_EXACT):
        return int(exact)
    return exact


def protocol(body: Mapping[str, Any]) -> Any:
    """A `protocol`: the order of features says nothing, and no list is an empty one."""
    found = normal(dict(body))
    for name in ("readerFeatures", "writerFeatures"):
        found[name] = sorted(set(found.get(name, ())))
    return found


def metadata(body: Mapping[str, Any]) -> Any:
    """A `metaData`: the schema by what it says, defaults where nothing is said."""
    found = {**_NO_METADATA, **normal(dict(body))}
    found["format"] = {"provider": "parquet", "options": {}, **found.get("format", {})}
    found["schemaString"] = _json_or_text(found["schemaString"])
    return found


def domain(body: Mapping[str, Any]) -> Any:
    """A `domainMetadata`: its configuration by what it says where it is JSON."""
    found = {"removed": False, **normal(dict(body))}
    if "configuration" in found:
        found["configuration"] = _json_or_text(found["configuration"])
    return found


def partition_values(values: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """Partition values: the empty text is how some writers say NULL."""
    return {name: value or None for name, value in (values or {}).items()}


def deletion_vector(vector: Mapping[str, Any] | None) -> Any:
    """A deletion vector's descriptor, without what only checkpoints have of it."""
    return {name: value for name, value in normal(dict(vector or {})).items() if name != "maxRowIndex"}


def other_fields(body: Mapping[str, Any]) -> Any:
    """What is left of an `add`: size, times, tags, row ids, unknown fields. `dataChange` is about a version, not a file."""
    apart = {"path", "partitionValues", "stats", "deletionVector", "dataChange"}
    found = normal({name: value for name, value in body.items() if name not in apart})
    return {name: value for name, value in found.items() if value != {}}


class Statistics:
    """Statistics of a table's files, understood by its schema."""

    def __init__(self, schema_string: str) -> None:
        try:
            self._columns = _columns(json.loads(schema_string))
        except (ValueError, LookupError, TypeError, AttributeError):
            self._columns = {}

    def normal(self, text: str | None) -> Any:
        """What a statistics text says; the text itself where it is no JSON, None where it says nothing."""
        if text is None:
            return None
        found = _json_or_text(text, parsed)
        if not isinstance(found, dict):
            return found
        said = {
            name: self._bounds(value, self._columns) if name in ("minValues", "maxValues") else normal(value)
            for name, value in found.items()
            if not (name == "tightBounds" and value is True)
        }
        return {name: value for name, value in said.items() if value is not None and value != {}} or None

    def _bounds(self, value: Any, kind: Any) -> Any:
        if isinstance(value, dict):
            inner = kind if isinstance(kind, dict) else {}
            found = {name: self._bounds(below, inner.get(name)) for name, below in value.items()}
            return {name: below for name, below in found.items() if below is not None and below != {}}
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return _number(value, kind)
        if isinstance(value, str) and kind in ("timestamp", "timestamp_ntz"):
            return _instant(value)
        return normal(value)


def _columns(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Types by physical names; of a struct the same of its fields."""
    found: dict[str, Any] = {}
    for field in schema["fields"]:
        kind = field["type"]
        name = (field.get("metadata") or {}).get(PHYSICAL_NAME) or field["name"]
        if isinstance(kind, dict) and kind.get("type") == "struct":
            found[name] = _columns(kind)
        elif isinstance(kind, str):
            found[name] = kind
    return found


def _number(value: int | Decimal, kind: Any) -> Any:
    """By value: of a float or double the one that the text stands for."""
    if kind in ("float", "double"):
        try:
            number = float(value)
            return repr(struct.unpack("<f", struct.pack("<f", number))[0] if kind == "float" else number)
        except OverflowError:
            pass
    return normal(value)


def _instant(text: str) -> str:
    """A timestamp as microseconds since the epoch; without a zone it stays told apart from one that has it."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = "local " if time.tzinfo is None else ""
    since = (time.replace(tzinfo=UTC) if time.tzinfo is None else time) - _EPOCH
    return f"{zone}{since // timedelta(microseconds=1)}"


def _json_or_text(text: str, parse: Any = lambda text: normal(parsed(text))) -> Any:
    try:
        return parse(text)
    except ValueError:
        return text
