"""Comparing schemas: what files written for one stay valid under another, and which types Delta widens."""

from __future__ import annotations

from typing import Final

from .delta_types import ArrayType, DataType, MapType, StructType, decimal_of


def alike(one: DataType, other: DataType) -> bool:
    """Whether two types are the same but for field metadata."""
    match one, other:
        case StructType(), StructType():
            return len(one.fields) == len(other.fields) and all(
                a.name == b.name and a.nullable == b.nullable and alike(a.type, b.type)
                for a, b in zip(one.fields, other.fields, strict=True)
            )
        case ArrayType(), ArrayType():
            return one.contains_null == other.contains_null and alike(one.element_type, other.element_type)
        case MapType(), MapType():
            return (
                one.value_contains_null == other.value_contains_null
                and alike(one.key_type, other.key_type)
                and alike(one.value_type, other.value_type)
            )
        case _:
            return one == other


def widens(old: str, new: str) -> bool:
    """Whether Delta's type widening turns values of primitive type `old` into values of `new`."""
    before, after = decimal_of(old), decimal_of(new)
    if before and after:
        return after != before and after[1] >= before[1] and after[0] - before[0] >= after[1] - before[1]
    if after:
        digits = {"byte": 10, "short": 10, "integer": 10, "long": 20}.get(old)
        return digits is not None and after[0] - digits >= after[1]
    return new in _WIDER.get(old, ())


_WIDER: Final[dict[str, tuple[str, ...]]] = {
    "byte": ("short", "integer", "long", "double"),
    "short": ("integer", "long", "double"),
    "integer": ("long", "double"),
    "float": ("double",),
    "date": ("timestamp_ntz",),
}


def accepts(older: StructType, newer: StructType, *, mapped: bool = False) -> str | None:
    """Why files written for `older` are not valid under `newer`; None if they are.

    They are where columns were added that may be null, types were widened, the order changed or a column now allows
    nulls; with column mapping (`mapped`) columns are the same by physical name, so they may also be renamed or gone.
    """
    return _accepts(older, newer, "", mapped)


def _accepts(older: DataType, newer: DataType, where: str, mapped: bool) -> str | None:
    match older, newer:
        case StructType(), StructType():
            return _accepts_struct(older, newer, where, mapped)
        case ArrayType(), ArrayType():
            if older.contains_null and not newer.contains_null:
                return f"elements of {where} may be null in the files and not in the table"
            return _accepts(older.element_type, newer.element_type, f"{where}.element", mapped)
        case MapType(), MapType():
            if older.value_contains_null and not newer.value_contains_null:
                return f"values of {where} may be null in the files and not in the table"
            return _accepts(older.key_type, newer.key_type, f"{where}.key", mapped) or _accepts(
                older.value_type, newer.value_type, f"{where}.value", mapped
            )
        case str(), str() if older == newer or older == "void" or widens(older, newer):
            return None
        case _:
            return f"column {where} was {_brief(older)} when the files were written and is {_brief(newer)} now"


def _accepts_struct(older: StructType, newer: StructType, where: str, mapped: bool) -> str | None:
    before = {(f.physical_name if mapped else f.name): f for f in older.fields}
    for column in newer.fields:
        path = f"{where}.{column.name}" if where else column.name
        was = before.pop(column.physical_name if mapped else column.name, None)
        if was is None:
            if not column.nullable:
                return f"column {path} is new, must not be null, and is not in the files"
            continue
        if was.nullable and not column.nullable:
            return f"column {path} may be null in the files and not in the table"
        if reason := _accepts(was.type, column.type, path, mapped):
            return reason
    if before and not mapped:
        gone = next(iter(before))
        return f"column {f'{where}.{gone}' if where else gone} of the files is not a column of the table"
    return None


def _brief(data_type: DataType) -> str:
    match data_type:
        case str():
            return data_type
        case ArrayType():
            return "an array"
        case MapType():
            return "a map"
        case StructType():
            return "a struct"
