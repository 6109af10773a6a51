"""Delta schemas as values: parsed strictly, rendered deterministically, and compared for what files stay valid under.

A primitive type is its Delta name as a plain `str` (`"long"`, `"decimal(10,2)"`); the other three kinds are classes.
Everything is frozen and hashable; a field's metadata is a mapping that nobody changes (it counts for equality, not for
the hash).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from .errors import TxnLogSchemaError

PRIMITIVES: Final = frozenset(
    {
        "string",
        "long",
        "integer",
        "short",
        "byte",
        "float",
        "double",
        "boolean",
        "binary",
        "date",
        "timestamp",
        "timestamp_ntz",
        "void",
        "variant",
    }
)
"""Names of the primitive types; `decimal(p,s)` comes on top."""

EMPTY_SCHEMA: Final = '{"type":"struct","fields":[]}'
"""What a `metaData` action without a `schemaString` means, such as Databricks writes before it knows the first one."""

MAX_DEPTH: Final = 64
"""How deep a schema may be nested."""
MAX_DECIMAL_PRECISION: Final = 38

PHYSICAL_NAME: Final = "delta.columnMapping.physicalName"
COLUMN_ID: Final = "delta.columnMapping.id"
TYPE_CHANGES: Final = "delta.typeChanges"

_DECIMAL = re.compile(r"decimal\((0|[1-9][0-9]?),(0|[1-9][0-9]?)\)")
_NOT_IN_NAMES = re.compile(r"[ ,;{}()\n\t=]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ArrayType:
    """A list of values of one type."""

    element_type: DataType
    contains_null: bool = True


@dataclass(frozen=True, slots=True)
class MapType:
    """A map; keys are never null."""

    key_type: DataType
    value_type: DataType
    value_contains_null: bool = True


@dataclass(frozen=True, slots=True)
class StructField:
    """A named field of a struct, or a column of a table."""

    name: str
    type: DataType
    nullable: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def physical_name(self) -> str:
        """The name in files and in the log: another one than `name` only under column mapping."""
        name = self.metadata.get(PHYSICAL_NAME)
        return name if isinstance(name, str) else self.name


@dataclass(frozen=True, slots=True)
class StructType:
    """Fields in order. A table's schema is one of these."""

    fields: tuple[StructField, ...] = ()

    def field(self, name: str) -> StructField | None:
        """The field of exactly that name."""
        return next((f for f in self.fields if f.name == name), None)


DataType = str | ArrayType | MapType | StructType


def parse_schema(text: str) -> StructType:
    """The schema that `text` (Delta's `schemaString`) is. Raises `TxnLogSchemaError` saying where it is wrong."""
    parsed = _parse_type(_strict_json(text), "schema", 0)
    if not isinstance(parsed, StructType):
        raise TxnLogSchemaError("a table's schema is a struct; this is a single type")
    return parsed


def parse_field(text: str) -> StructField:
    """One field from its JSON object. Raises `TxnLogSchemaError`."""
    return _parse_field(_strict_json(text), "field", 0)


def parse_type(text: str) -> DataType:
    """A type from its name (`long`, `decimal(10,2)`) or its JSON. Raises `TxnLogSchemaError`."""
    return _parse_type(_strict_json(text) if text[:1] in ("{", '"') else text, "type", 0)


def schema_json(schema: DataType) -> str:
    """Delta's JSON of a schema: compact, keys in the protocol's order, equal schemas always to equal text."""
    return msgspec.json.encode(_plain(schema)).decode()


def field_json(column: StructField) -> str:
    """Delta's JSON of one field."""
    return msgspec.json.encode(_plain_field(column)).decode()


def decimal_of(data_type: DataType) -> tuple[int, int] | None:
    """(precision, scale) of a decimal type, else None."""
    if isinstance(data_type, str) and (match := _DECIMAL.fullmatch(data_type)):
        return int(match[1]), int(match[2])
    return None


def leaf_columns(schema: StructType, *, physical: bool = False) -> tuple[tuple[tuple[str, ...], DataType], ...]:
    """Path and type of every leaf in order, structs opened; an array or map is a leaf. Names are physical on request."""
    return tuple(_leaves(schema, (), physical))


def resolve(schema: StructType, path: tuple[str, ...]) -> StructField | None:
    """The field at `path` (exact names; `element`, `key` and `value` step into arrays and maps), or None."""
    found: StructField | None = None
    inside: DataType = schema
    for name in path:
        found = child(inside, name)
        if found is None:
            return None
        inside = found.type
    return found


def child(inside: DataType, name: str) -> StructField | None:
    """The field `name` of a struct; of an array or map, the part of that name as if it were a field."""
    match inside:
        case StructType():
            return inside.field(name)
        case ArrayType() if name == "element":
            return StructField(name, inside.element_type, inside.contains_null)
        case MapType() if name == "key":
            return StructField(name, inside.key_type, False)
        case MapType() if name == "value":
            return StructField(name, inside.value_type, inside.value_contains_null)
        case _:
            return None


def types_in(data_type: DataType) -> Iterator[str]:
    """Every primitive type name that occurs in it."""
    match data_type:
        case str():
            yield data_type
        case ArrayType():
            yield from types_in(data_type.element_type)
        case MapType():
            yield from types_in(data_type.key_type)
            yield from types_in(data_type.value_type)
        case StructType():
            for column in data_type.fields:
                yield from types_in(column.type)


def fields_in(data_type: DataType) -> Iterator[StructField]:
    """Every field that occurs in it, at any depth."""
    match data_type:
        case str():
            return
        case ArrayType():
            yield from fields_in(data_type.element_type)
        case MapType():
            yield from fields_in(data_type.key_type)
            yield from fields_in(data_type.value_type)
        case StructType():
            for column in data_type.fields:
                yield column
                yield from fields_in(column.type)


def with_type(data_type: DataType, path: tuple[str, ...], new: DataType) -> DataType:
    """`data_type` with `new` in place of the type at `path`. Raises `KeyError` where the path leads to nothing."""
    if not path:
        return new
    name, rest = path[0], path[1:]
    inside = child(data_type, name)
    if inside is None:
        raise KeyError(name)
    changed = with_type(inside.type, rest, new)
    match data_type:
        case StructType():
            return StructType(tuple(replace(f, type=changed) if f is inside else f for f in data_type.fields))
        case ArrayType():
            return replace(data_type, element_type=changed)
        case MapType() if name == "key":
            return replace(data_type, key_type=changed)
        case MapType():
            return replace(data_type, value_type=changed)
        case str():
            raise KeyError(name)


def name_problem(schema: DataType) -> str | None:
    """Why a column's name cannot stand in a table without column mapping, or None if all can."""
    for column in fields_in(schema):
        if bad := _NOT_IN_NAMES.search(column.name):
            return f"column name {column.name!r} has {bad[0]!r} in it, which needs column mapping (or another name)"
    return None


def _leaves(schema: StructType, above: tuple[str, ...], physical: bool) -> Iterator[tuple[tuple[str, ...], DataType]]:
    for column in schema.fields:
        path = (*above, column.physical_name if physical else column.name)
        if isinstance(column.type, StructType):
            yield from _leaves(column.type, path, physical)
        else:
            yield path, column.type


def _strict_json(text: str) -> Any:
    """JSON with no key twice in an object and no number that is none; nesting is bounded by the parser of types."""
    try:
        # msgspec refuses what the standard library lets through (NaN, control characters, lone surrogates).
        msgspec.json.decode(text, type=msgspec.Raw)
        msgspec.json.decode(text)
        return json.loads(text, object_pairs_hook=_unique_keys)
    except _RepeatedKey as error:
        raise TxnLogSchemaError("not valid JSON: a key is there twice in one object") from error
    except ValueError as error:
        # In no words but our own: a rejection is recorded for ever, and must be the same whatever library says it.
        raise TxnLogSchemaError("not valid JSON") from error
    except RecursionError as error:
        raise TxnLogSchemaError(f"nested deeper than {MAX_DEPTH} levels") from error


class _RepeatedKey(ValueError):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKey
    return found


def _parse_type(plain: Any, where: str, depth: int) -> DataType:
    if depth > MAX_DEPTH:
        raise TxnLogSchemaError(f"{where[:200]} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(plain, str):
        decimal = decimal_of(plain)
        if plain in PRIMITIVES or (decimal and 1 <= decimal[0] <= MAX_DECIMAL_PRECISION and decimal[1] <= decimal[0]):
            return plain
        raise TxnLogSchemaError(f"{where}: {plain[:100]!r} is not a Delta type name")
    if not isinstance(plain, dict):
        raise TxnLogSchemaError(f"{where}: a type is a name or an object, not {type(plain).__name__}")
    kind = plain.get("type")
    if kind == "struct":
        _only(plain, {"type", "fields"}, where)
        fields = plain["fields"]
        if not isinstance(fields, list):
            raise TxnLogSchemaError(f"{where}: fields is a list")
        parsed = tuple(_parse_field(f, where, depth) for f in fields)
        seen: set[str] = set()
        for column in parsed:
            folded = column.name.lower()
            if folded in seen:
                raise TxnLogSchemaError(f"{where}: two columns are named {column.name!r} but for case")
            seen.add(folded)
        return StructType(parsed)
    if kind == "array":
        _only(plain, {"type", "elementType", "containsNull"}, where)
        element = _parse_type(plain["elementType"], f"{where}.element", depth + 1)
        return ArrayType(element, _boolean(plain, "containsNull", where))
    if kind == "map":
        _only(plain, {"type", "keyType", "valueType", "valueContainsNull"}, where)
        key = _parse_type(plain["keyType"], f"{where}.key", depth + 1)
        value = _parse_type(plain["valueType"], f"{where}.value", depth + 1)
        return MapType(key, value, _boolean(plain, "valueContainsNull", where))
    raise TxnLogSchemaError(f"{where}: {str(kind)[:100]!r} is not a Delta type")


def _parse_field(plain: Any, where: str, depth: int) -> StructField:
    if not isinstance(plain, dict):
        raise TxnLogSchemaError(f"{where}: a field is an object, not {type(plain).__name__}")
    _only(plain, {"name", "type", "nullable", "metadata"}, where)
    name = plain["name"]
    if not isinstance(name, str) or not name:
        raise TxnLogSchemaError(f"{where}: a field's name is a text of at least one character")
    if _CONTROL.search(name.translate({9: None, 10: None})):
        raise TxnLogSchemaError(f"{where}: column name {name[:100]!r} has a control character in it")
    if not isinstance(plain["metadata"], dict):
        raise TxnLogSchemaError(f"{where}.{name}: metadata is an object")
    data_type = _parse_type(plain["type"], f"{where}.{name}", depth + 1)
    return StructField(name, data_type, _boolean(plain, "nullable", f"{where}.{name}"), plain["metadata"])


def _only(plain: dict[str, Any], keys: set[str], where: str) -> None:
    if missing := sorted(keys - plain.keys()):
        raise TxnLogSchemaError(f"{where}: {missing[0]!r} is missing")
    if extra := sorted(plain.keys() - keys):
        raise TxnLogSchemaError(f"{where}: {extra[0][:100]!r} is not part of a {plain.get('type')!s:.20}")


def _boolean(plain: dict[str, Any], key: str, where: str) -> bool:
    value = plain[key]
    if not isinstance(value, bool):
        raise TxnLogSchemaError(f"{where}: {key} is true or false")
    return value


def _plain(data_type: DataType) -> Any:
    match data_type:
        case str():
            return data_type
        case ArrayType():
            return {
                "type": "array",
                "elementType": _plain(data_type.element_type),
                "containsNull": data_type.contains_null,
            }
        case MapType():
            return {
                "type": "map",
                "keyType": _plain(data_type.key_type),
                "valueType": _plain(data_type.value_type),
                "valueContainsNull": data_type.value_contains_null,
            }
        case StructType():
            return {"type": "struct", "fields": [_plain_field(f) for f in data_type.fields]}


def _plain_field(column: StructField) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": _plain(column.type),
        "nullable": column.nullable,
        "metadata": dict(column.metadata),
    }
