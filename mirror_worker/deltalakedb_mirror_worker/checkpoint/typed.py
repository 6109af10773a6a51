"""`partitionValues_parsed` and `stats_parsed`: what a checkpoint has as text, in columns of the table's own types. Pure.

Every leaf is nullable, whatever the table's schema says, and a value that does not read as its type is null: readers
take what is null for unknown, and one wrong value would hide rows.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.json as paj

from deltalakedb.arrow import Array, arrow_type
from deltalakedb.delta_types import ArrayType, DataType, MapType, StructType, parse_schema
from deltalakedb.errors import TxnLogSchemaError
from deltalakedb.parquet.partitions import values_of

_NO_BOUNDS: Final = frozenset({"boolean", "binary", "void", "variant"})
_BOUNDS: Final = ("minValues", "maxValues")


class TypedColumns:
    """The typed columns of one table's adds."""

    def __init__(self, schema_string: str, partition_columns: Sequence[str], indexed: int) -> None:
        """`indexed`: how many leaf columns have statistics, from the first on; -1: all.

        Raises `TxnLogSchemaError` for a schema that cannot be understood.
        """
        schema = parse_schema(schema_string)
        partitions = [column for column in schema.fields if column.name in partition_columns]
        self._partitions = [(column.physical_name, column.type) for column in partitions]
        data = StructType(tuple(column for column in schema.fields if column.name not in partition_columns))
        budget = _Budget(indexed)
        bounds, counts = _statistics(data, budget)
        self._stats = pa.struct(
            [
                pa.field("numRecords", pa.int64()),
                *([pa.field(name, bounds) for name in _BOUNDS] if bounds is not None else []),
                *([pa.field("nullCount", counts)] if counts is not None else []),
                pa.field("tightBounds", pa.bool_()),
            ]
        )
        self.fields: list[pa.Field[Any]] = [pa.field("stats_parsed", self._stats)]
        """To come behind the other fields of an add."""
        if self._partitions:
            struct = pa.struct([pa.field(name, arrow_type(kind)) for name, kind in self._partitions])
            self.fields.insert(0, pa.field("partitionValues_parsed", struct))

    def columns(self, files: pa.RecordBatch) -> dict[str, pa.Array[Any]]:
        """The values of `fields` for files with the columns `partition_values` and `stats`."""
        found = {"stats_parsed": self._parsed(files["stats"])}
        if self._partitions:
            found["partitionValues_parsed"] = self._values(files["partition_values"])
        return found

    def _values(self, texts: pa.Array[Any]) -> pa.Array[Any]:
        encoded: Any = texts if isinstance(texts, pa.DictionaryArray) else texts.dictionary_encode()
        parse = msgspec.json.Decoder(dict[str, str | None]).decode
        objects = [parse(text) for text in encoded.dictionary.to_pylist()]
        parts = [_column([each.get(name) for each in objects], kind, name) for name, kind in self._partitions]
        fields = [pa.field(name, part.type) for (name, _), part in zip(self._partitions, parts, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=fields).take(encoded.indices)

    def _parsed(self, texts: pa.Array[Any]) -> pa.Array[Any]:
        lines = [_line(text) for text in texts.to_pylist()]
        found = _read(lines, self._stats)
        # A file without statistics has none at all, and not statistics that say nothing.
        nothing = pa.array([line == _NOTHING for line in lines], pa.bool_())
        parts = [found[field.name].combine_chunks() for field in self._stats]
        return pa.StructArray.from_arrays(parts, fields=list(self._stats), mask=nothing)


class _Budget:
    """How many more leaf columns have statistics."""

    def __init__(self, leaves: int) -> None:
        self._left = leaves

    def take(self) -> bool:
        if self._left == 0:
            return False
        self._left -= 1  # from -1 on never 0
        return True


def _statistics(struct: StructType, budget: _Budget) -> tuple[pa.StructType | None, pa.StructType | None]:
    """The types of minima and maxima, and of null counts; None: no column has any."""
    bounds: list[pa.Field[Any]] = []
    counts: list[pa.Field[Any]] = []
    for column in struct.fields:
        name = column.physical_name
        if isinstance(column.type, StructType):
            inner_bounds, inner_counts = _statistics(column.type, budget)
            bounds += [pa.field(name, inner_bounds)] if inner_bounds is not None else []
            counts += [pa.field(name, inner_counts)] if inner_counts is not None else []
        elif budget.take():
            counts.append(pa.field(name, pa.int64()))
            if not isinstance(column.type, ArrayType | MapType) and column.type not in _NO_BOUNDS:
                bounds.append(pa.field(name, arrow_type(column.type)))
    return (pa.struct(bounds) if bounds else None), (pa.struct(counts) if counts else None)


def _column(texts: Sequence[str | None], kind: DataType, name: str) -> Array:
    """Partition values by their type."""
    try:
        return values_of(texts, kind, name)
    except TxnLogSchemaError:
        return pa.concat_arrays([_value(text, kind, name) for text in texts])


def _value(text: str | None, kind: DataType, name: str) -> Array:
    try:
        return values_of([text], kind, name)
    except TxnLogSchemaError:
        return pa.array([None], arrow_type(kind))


_NOTHING: Final = b"{}"


def _line(text: str | None) -> bytes:
    """Statistics as one line; those that are no JSON object as an empty one."""
    if not text:
        return _NOTHING
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _NOTHING
    # Within the strings of JSON a line end is always escaped.
    return text.replace("\r", " ").replace("\n", " ").encode()


def _read(lines: Sequence[bytes], kind: pa.StructType) -> pa.Table:
    """Statistics by their types; where one does not fit, of its file only what is counted, or nothing."""
    try:
        return _read_json(lines, list(kind))
    except pa.ArrowInvalid:
        if len(lines) > 1:
            middle = len(lines) // 2
            return pa.concat_tables([_read(lines[:middle], kind), _read(lines[middle:], kind)])
    counted = [field for field in kind if field.name not in _BOUNDS]
    try:
        found = _read_json(lines, counted)
    except pa.ArrowInvalid:
        found = _read_json([_NOTHING], counted)
    for index, field in enumerate(kind):
        if field.name in _BOUNDS:
            found = found.add_column(index, field, pa.nulls(1, field.type))
    return found


def _read_json(lines: Sequence[bytes], fields: Sequence[pa.Field[Any]]) -> pa.Table:
    data = b"\n".join(lines) + b"\n"
    readable = pa.schema([pa.field(field.name, _readable(field.type)) for field in fields])
    found = paj.read_json(
        io.BytesIO(data),
        read_options=paj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=paj.ParseOptions(explicit_schema=readable, unexpected_field_behavior="ignore"),
    )
    return found.select([field.name for field in fields]).cast(pa.schema(fields))


def _readable(kind: Any) -> Any:
    """The type as which the JSON reader takes it: dates it knows as texts only."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _readable(field.type)) for field in kind])
    return pa.string() if pa.types.is_date(kind) else kind
