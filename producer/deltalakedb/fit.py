"""Rows as they come in, made to fit a table: matched by name, cast where every value stays the same, checked for nulls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .arrow import Array, arrow_field, arrow_type, is_bytes, is_list, is_text, plain
from .delta_types import ArrayType, DataType, MapType, StructField, StructType, schema_json
from .errors import TxnLogSchemaError

Convert = Callable[[Array], Array]


class Fit:
    """How rows of one Arrow schema become rows of one table. Compiled once, then called for every batch.

    `source` and the result name columns logically, or physically (column mapping) where told so. For data files
    (`stored=True`) further columns are ignored and legacy timestamps without a zone are taken as UTC; for data from
    users both are refused. Raises `TxnLogSchemaError` naming the columns, when made or when called.
    """

    def __init__(
        self,
        source: pa.Schema,
        table: StructType,
        *,
        stored: bool = False,
        from_physical: bool = False,
        to_physical: bool = False,
        only: frozenset[str] | None = None,
    ) -> None:
        """`only` restricts the result to those columns of the table, in the table's order."""
        self._columns = [c for c in table.fields if only is None or c.name in only]
        self._sides = _Sides(stored, from_physical, to_physical)
        self.schema = pa.schema([arrow_field(c, physical=to_physical) for c in self._columns])
        self._steps = self._compile(source, table)
        self.sources = tuple(source.field(index).name for index, _ in self._steps if index is not None)
        """The columns of `source` that are used."""
        nothing = all(convert is None for _, convert in self._steps)
        self._as_is = nothing and source.equals(self.schema) and all(column.nullable for column in self._columns)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._as_is:
            return batch
        if not self._columns:
            empty: Any = pa.nulls(batch.num_rows, pa.struct([]))
            return pa.RecordBatch.from_struct_array(empty)
        columns: list[Array] = []
        for column, (index, convert) in zip(self._columns, self._steps, strict=True):
            if index is None:
                array: Array = pa.nulls(batch.num_rows, self.schema.field(len(columns)).type)
            else:
                array = batch.column(index)
                if convert is not None:
                    array = convert(array)
                if not column.nullable and array.null_count and not self._sides.stored:
                    raise TxnLogSchemaError(
                        f"column {column.name} must not be null, and {array.null_count:,} of {len(array):,} values are"
                    )
            columns.append(array)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _compile(self, source: pa.Schema, table: StructType) -> list[tuple[int | None, Convert | None]]:
        by_name, by_fold = _positions(source.names, self._sides.stored)
        steps: list[tuple[int | None, Convert | None]] = []
        used = set()
        for column in self._columns:
            name = column.physical_name if self._sides.from_physical else column.name
            index = by_name.get(name, by_fold.get(name.lower()))
            if index is None:
                if not column.nullable and not self._sides.stored:
                    raise TxnLogSchemaError(f"column {column.name} must not be null, and the data has no such column")
                steps.append((None, None))
                continue
            used.add(index)
            steps.append((index, _converter(source.field(index).type, column.type, column.name, self._sides)))
        extra = [name for index, name in enumerate(source.names) if index not in used]
        if extra and not self._sides.stored:
            raise TxnLogSchemaError(
                f"the table has no column {', '.join(extra)}; its columns are {', '.join(f.name for f in table.fields)}"
            )
        return steps


class _Sides:
    """What is known about where data comes from and goes to."""

    __slots__ = ("from_physical", "stored", "to_physical")

    def __init__(self, stored: bool, from_physical: bool, to_physical: bool) -> None:
        self.stored = stored
        self.from_physical = from_physical
        self.to_physical = to_physical


def _converter(source: Any, target: DataType, where: str, sides: _Sides) -> Convert | None:
    """What turns an array of `source` into one of the table's type; None: it is one already."""
    wanted = arrow_type(target, physical=sides.to_physical)
    inside = plain(source)
    inner = _converter_of_plain(inside, target, wanted, where, sides)
    if inside is source:
        return inner

    def unpack(array: Any) -> Array:
        while True:
            if isinstance(array, pa.DictionaryArray):
                array = array.dictionary_decode()
            elif isinstance(array, pa.ExtensionArray):
                array = array.storage
            elif pa.types.is_run_end_encoded(array.type):
                array = pc.call_function("run_end_decode", [array])
            else:
                return array if inner is None else inner(array)

    return unpack


def _converter_of_plain(source: Any, target: DataType, wanted: Any, where: str, sides: _Sides) -> Convert | None:
    if pa.types.is_null(source):
        return lambda array: pa.nulls(len(array), wanted)
    match target:
        case StructType() if pa.types.is_struct(source):
            return _struct_converter(source, target, where, sides)
        case ArrayType() if is_list(source):
            return _list_converter(source, target, wanted, where, sides)
        case MapType() if pa.types.is_map(source):
            return _map_converter(source, target, wanted, where, sides)
        case str() if _may_cast(source, wanted, sides.stored):
            return None if source == wanted else _cast(source, wanted, where)
    hint = ""
    if pa.types.is_timestamp(source) and target in ("timestamp", "timestamp_ntz"):
        hint = ": attach the time zone it is in" if target == "timestamp" else ": drop the time zone first"
    shown = target if isinstance(target, str) else schema_json(target)
    raise TxnLogSchemaError(
        f"column {where} is {shown} in the table, and {source} does not fit{hint or '; cast it first'}"
    )


def _may_cast(source: Any, wanted: Any, stored: bool) -> bool:
    """Whether values of one type can be the same values in the other; each value is then checked."""
    types = pa.types
    if types.is_integer(wanted):
        return types.is_integer(source) or types.is_floating(source) or types.is_decimal(source)
    if types.is_floating(wanted):
        return types.is_integer(source) or types.is_floating(source)
    if types.is_decimal(wanted):
        return types.is_integer(source) or types.is_decimal(source)
    if types.is_timestamp(wanted):
        if stored and types.is_date(source):  # a widened column
            return wanted.tz is None
        return types.is_timestamp(source) and (
            (source.tz is None) == (wanted.tz is None) or (stored and source.tz is None)
        )
    for test in (types.is_boolean, types.is_date, is_text, is_bytes):
        if test(wanted):
            return test(source)
    return types.is_null(wanted) and types.is_null(source)


def _cast(source: Any, wanted: Any, where: str) -> Convert:
    def cast(array: Array) -> Array:
        try:
            if pa.types.is_decimal(wanted) and pa.types.is_integer(source):
                # Straight from integers Arrow looks at the type's digits, from decimals at each value's.
                array = array.cast(pa.decimal128(20, 0))
            out = array.cast(wanted)
        except pa.ArrowInvalid as error:
            raise TxnLogSchemaError(f"column {where}: {source} to {wanted}: {error}") from error
        narrowed = pa.types.is_float32(wanted) and pa.types.is_float64(source)
        if narrowed and not pc.all(pc.or_(pc.equal(out.cast(source), array), pc.is_nan(array))).as_py():
            if array.null_count == len(array):
                return out
            raise TxnLogSchemaError(f"column {where}: values of {source} are not exact as {wanted}; cast them first")
        return out

    return cast


def _struct_converter(source: Any, target: StructType, where: str, sides: _Sides) -> Convert | None:
    names = [source.field(index).name for index in range(source.num_fields)]
    by_name, by_fold = _positions(names, sides.stored, where)
    wanted: Any = arrow_type(target, physical=sides.to_physical)
    steps: list[tuple[int | None, Convert | None, StructField]] = []
    for column in target.fields:
        name = column.physical_name if sides.from_physical else column.name
        index = by_name.get(name, by_fold.get(name.lower()))
        if index is None:
            if not column.nullable and not sides.stored:
                raise TxnLogSchemaError(
                    f"column {where}.{column.name} must not be null, and the data has no such field"
                )
            steps.append((None, None, column))
        else:
            inner = _converter(source.field(index).type, column.type, f"{where}.{column.name}", sides)
            steps.append((index, inner, column))
    used = {index for index, _, _ in steps}
    extra = [name for index, name in enumerate(names) if index not in used]
    if extra and not sides.stored:
        raise TxnLogSchemaError(f"column {where} of the table has no field {', '.join(extra)}")
    if source == wanted and all(inner is None and column.nullable for _, inner, column in steps):
        return None

    def convert(array: Any) -> Array:
        children = array.flatten()
        built: list[Array] = []
        for field, (index, inner, column) in zip(wanted, steps, strict=True):
            if index is None:
                built.append(pa.nulls(len(array), field.type))
                continue
            child = children[index] if inner is None else inner(children[index])
            # A child is null wherever its struct is; only what goes beyond that is a null of its own.
            if not column.nullable and child.null_count > array.null_count and not sides.stored:
                raise TxnLogSchemaError(f"column {where}.{column.name} must not be null, and some values are")
            built.append(child)
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(built, fields=list(wanted), mask=mask)

    return convert


def _list_converter(source: Any, target: ArrayType, wanted: Any, where: str, sides: _Sides) -> Convert | None:
    inner = _converter(source.value_type, target.element_type, f"{where}.element", sides)
    if source == wanted and inner is None and target.contains_null:
        return None

    def convert(array: Any) -> Array:
        values = array.flatten() if inner is None else inner(array.flatten())
        if not target.contains_null and values.null_count and not sides.stored:
            raise TxnLogSchemaError(f"elements of column {where} must not be null, and some are")
        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(_offsets(array), values, type=wanted, mask=mask)

    return convert


def _map_converter(source: Any, target: MapType, wanted: Any, where: str, sides: _Sides) -> Convert | None:
    of_key = _converter(source.key_type, target.key_type, f"{where}.key", sides)
    of_value = _converter(source.item_type, target.value_type, f"{where}.value", sides)
    if source == wanted and of_key is None and of_value is None and target.value_contains_null:
        return None
    entry = pa.struct([pa.field("key", source.key_type, False), pa.field("value", source.item_type)])

    def convert(array: Any) -> Array:
        entries = array.cast(pa.list_(entry)).flatten()
        keys, values = entries.flatten()
        keys = keys if of_key is None else of_key(keys)
        values = values if of_value is None else of_value(values)
        if not target.value_contains_null and values.null_count and not sides.stored:
            raise TxnLogSchemaError(f"values of column {where} must not be null, and some are")
        mask = array.is_null() if array.null_count else None
        built: Array = pa.MapArray.from_arrays(_offsets(array), keys, values, type=wanted, mask=mask)
        return built

    return convert


def _offsets(array: Any) -> Any:
    """Offsets of an array's lists into its flattened values."""
    if pa.types.is_map(array.type):
        array = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    sums = pc.cumulative_sum(lengths.cast(pa.int64()))
    try:
        return pa.concat_arrays([pa.array([0], pa.int32()), sums.cast(pa.int32())])
    except pa.ArrowInvalid as error:
        raise TxnLogSchemaError("a batch has more than 2**31 nested values; give smaller batches") from error


def _positions(names: list[str], stored: bool, where: str = "") -> tuple[dict[str, int], dict[str, int]]:
    """Index by exact name, and by name ignoring case. What is there twice is an error, or in files not found by case."""
    exact: dict[str, int] = {}
    folded: dict[str, int] = {}
    twice: set[str] = set()
    for index, name in enumerate(names):
        if name in exact or name.lower() in folded:
            if not stored:
                inside = f"column {where}" if where else "the data"
                raise TxnLogSchemaError(f"{inside} has two columns named {name} (case does not tell them apart)")
            twice.add(name.lower())
        exact[name] = index
        folded[name.lower()] = index
    return exact, {name: index for name, index in folded.items() if name not in twice}
