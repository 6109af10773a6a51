"""Arrow and Delta: how types correspond, and how rows that come in become rows of a table.

    Arrow                                             Delta           what happens to values
    bool                                              boolean
    int8, int16, int32, int64                         byte, short, integer, long
    uint8, uint16, uint32                             short, integer, long          unsigned widens
    uint64                                            decimal(20,0)
    float16, float32                                  float
    float64                                           double
    decimal32/64/128/256(p, s), 0 <= s <= p <= 38     decimal(p,s)
    decimal(p, s) with s < 0 and p - s <= 38          decimal(p-s,0)
    string, large_string, string_view                 string
    binary, large_, fixed_size_, binary_view          binary
    date32, date64                                    date            date64 only if every value is a whole day
    timestamp(s|ms|us|ns, with a time zone)           timestamp       the instant, in UTC; ns only if exact in us
    timestamp(s|ms|us|ns, without)                    timestamp_ntz   ns only if exact in us
    list, large_list, fixed_size_list, list_view      array
    map                                               map
    struct                                            struct
    dictionary, run_end_encoded                       as its values   decoded
    extension types                                   as what they store
    null                                              any type of an existing table; in a create "give schema="

Everything else (time, duration, interval, union) has no counterpart and is refused. Data for an existing table may
also differ from it where every single value is the same value in the table's type: integers of any width, floats that
are whole numbers for an integer column, integers for a decimal one. Text is never parsed, a time zone never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pyarrow as pa

from .delta_types import (
    COLUMN_ID,
    ArrayType,
    DataType,
    MapType,
    StructField,
    StructType,
    decimal_of,
)
from .errors import TxnLogSchemaError

Array: TypeAlias = "pa.Array[Any]"
_TO_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "long": pa.int64(),
    "integer": pa.int32(),
    "short": pa.int16(),
    "byte": pa.int8(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
    "void": pa.null(),
}

_FIELD_ID = b"PARQUET:field_id"


def arrow_type(data_type: DataType, *, physical: bool = False) -> pa.DataType:
    """The one Arrow type that values of a Delta type are read as and written from."""
    match data_type:
        case str():
            if decimal := decimal_of(data_type):
                return pa.decimal128(*decimal)
            if data_type not in _TO_ARROW:
                raise TxnLogSchemaError(f"columns of type {data_type} cannot be read or written yet")
            return _TO_ARROW[data_type]
        case ArrayType():
            element = arrow_type(data_type.element_type, physical=physical)
            return pa.list_(pa.field("element", element, data_type.contains_null))
        case MapType():
            key = arrow_type(data_type.key_type, physical=physical)
            value = arrow_type(data_type.value_type, physical=physical)
            # The stubs know a type here; a field is what carries whether values may be null.
            item: Any = pa.field("value", value, data_type.value_contains_null)
            return pa.map_(key, item)
        case StructType():
            return pa.struct([arrow_field(column, physical=physical) for column in data_type.fields])


def arrow_field(column: StructField, *, physical: bool = False) -> pa.Field[Any]:
    """A Delta field in Arrow; `physical` gives the name and the Parquet field id that column mapping assigned."""
    field = pa.field(
        column.physical_name if physical else column.name, arrow_type(column.type, physical=physical), column.nullable
    )
    number = column.metadata.get(COLUMN_ID)
    return field.with_metadata({_FIELD_ID: str(number).encode()}) if physical and number is not None else field


def arrow_schema(schema: StructType, *, physical: bool = False) -> pa.Schema:
    """A table's schema in Arrow."""
    return pa.schema([arrow_field(column, physical=physical) for column in schema.fields])


def schema_from_arrow(schema: pa.Schema) -> StructType:
    """The Delta schema of a table created from such data. Raises `TxnLogSchemaError` naming every column that has none."""
    problems: list[str] = []
    fields = []
    for field in schema:
        try:
            fields.append(StructField(field.name, _delta_type(field.type, field.name), field.nullable))
        except TxnLogSchemaError as error:
            problems.append(str(error))
    if problems:
        raise TxnLogSchemaError("; ".join(problems))
    return StructType(tuple(fields))


def delta_schema(schema: pa.Schema | StructType) -> StructType:
    """A schema as users give it, in Delta's words."""
    return schema if isinstance(schema, StructType) else schema_from_arrow(schema)


def to_reader(data: Any) -> pa.RecordBatchReader:
    """Batches of anything that speaks the Arrow stream protocol, or of a pyarrow dataset or scanner.

    The unnamed index of a pandas frame is not a column. Raises `TxnLogSchemaError` for anything else.
    """
    if isinstance(data, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(data.schema, [data])
    if isinstance(data, pa.Table):
        return data.to_reader()
    if isinstance(data, pa.RecordBatchReader):
        return data
    if hasattr(data, "__arrow_c_stream__"):
        try:
            reader = pa.RecordBatchReader.from_stream(data)
        except (pa.ArrowException, TypeError) as error:
            raise TxnLogSchemaError(f"the data does not become Arrow columns: {error}") from error
        index = _unnamed_index(reader.schema)
        return _without(reader, index) if index else reader
    if hasattr(data, "to_reader"):  # pyarrow.dataset.Scanner
        return _reader(data.to_reader())
    if hasattr(data, "scanner"):  # pyarrow.dataset.Dataset
        return _reader(data.scanner().to_reader())
    hint = "; collect() it first" if hasattr(data, "collect") else ""
    if isinstance(data, list):
        hint = "; make a table of the rows first: pyarrow.Table.from_pylist(rows)"
    elif isinstance(data, dict):
        hint = "; make a table of the columns first: pyarrow.table(columns)"
    raise TxnLogSchemaError(
        f"{type(data).__module__}.{type(data).__qualname__} does not speak the Arrow stream protocol{hint}: "
        "give a pandas or polars DataFrame, a pyarrow Table, RecordBatch, RecordBatchReader or Dataset, or a DuckDB relation"
    )


def _delta_type(source: pa.DataType, where: str) -> DataType:
    arrow: Any = plain(source)
    types = pa.types
    if types.is_null(arrow):
        raise TxnLogSchemaError(f"column {where} has only nulls, so its type is unknown: give schema=")
    if types.is_struct(arrow):
        inner = (arrow.field(index) for index in range(arrow.num_fields))
        return StructType(
            tuple(StructField(f.name, _delta_type(f.type, f"{where}.{f.name}"), f.nullable) for f in inner)
        )
    if types.is_map(arrow):
        value = arrow.item_field
        return MapType(
            _delta_type(arrow.key_type, f"{where}.key"), _delta_type(value.type, f"{where}.value"), value.nullable
        )
    if is_list(arrow):
        element = arrow.value_field
        return ArrayType(_delta_type(element.type, f"{where}.element"), element.nullable)
    if types.is_timestamp(arrow):
        return "timestamp" if arrow.tz is not None else "timestamp_ntz"
    if types.is_decimal(arrow):
        precision, scale = arrow.precision - min(arrow.scale, 0), max(arrow.scale, 0)
        if precision > 38 or scale > precision:
            raise TxnLogSchemaError(f"column {where}: {arrow} has no Delta type (decimals have 38 digits at most)")
        return f"decimal({precision},{scale})"
    for test, name in _KINDS:
        if test(arrow):
            return name
    raise TxnLogSchemaError(f"column {where}: {arrow} has no Delta type; cast it to one that has")


def is_text(arrow: pa.DataType) -> bool:
    """Whether it is a string of any layout."""
    return pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow)


def is_bytes(arrow: pa.DataType) -> bool:
    """Whether it is binary of any layout."""
    types = pa.types
    return (
        types.is_binary(arrow)
        or types.is_large_binary(arrow)
        or types.is_fixed_size_binary(arrow)
        or types.is_binary_view(arrow)
    )


_KINDS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_int8, "byte"),
    (pa.types.is_int16, "short"),
    (pa.types.is_int32, "integer"),
    (pa.types.is_int64, "long"),
    (pa.types.is_uint8, "short"),
    (pa.types.is_uint16, "integer"),
    (pa.types.is_uint32, "long"),
    (pa.types.is_uint64, "decimal(20,0)"),
    (pa.types.is_float16, "float"),
    (pa.types.is_float32, "float"),
    (pa.types.is_float64, "double"),
    (pa.types.is_date, "date"),
    (is_text, "string"),
    (is_bytes, "binary"),
)


def plain(arrow: Any) -> Any:
    """The type without dictionaries, run ends and extensions around it."""
    while True:
        if isinstance(arrow, pa.DictionaryType) or pa.types.is_run_end_encoded(arrow):
            arrow = arrow.value_type
        elif isinstance(arrow, pa.BaseExtensionType):
            arrow = arrow.storage_type
        else:
            return arrow


def is_list(arrow: Any) -> bool:
    """Whether it is a list of any layout; a map is not."""
    types = pa.types
    return (
        types.is_list(arrow)
        or types.is_large_list(arrow)
        or types.is_fixed_size_list(arrow)
        or types.is_list_view(arrow)
        or types.is_large_list_view(arrow)
    )


def _unnamed_index(schema: pa.Schema) -> set[str]:
    """Columns that are a pandas frame's unnamed index."""
    described = (schema.metadata or {}).get(b"pandas")
    if described is None:
        return set()
    columns = json.loads(described).get("index_columns", [])
    return {name for name in columns if isinstance(name, str) and name.startswith("__index_level_")}


def _without(reader: pa.RecordBatchReader, columns: set[str]) -> pa.RecordBatchReader:
    kept = [name for name in reader.schema.names if name not in columns]
    schema = pa.schema([reader.schema.field(name) for name in kept])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield batch.select(kept)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _reader(reader: Any) -> pa.RecordBatchReader:
    if not isinstance(reader, pa.RecordBatchReader):
        raise TxnLogSchemaError(f"to_reader() gave a {type(reader).__name__}, not a pyarrow RecordBatchReader")
    return reader
