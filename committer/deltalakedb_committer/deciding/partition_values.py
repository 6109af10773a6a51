"""Partition values as Delta writes them: whether a text is a value of its column's type that every reader takes."""

from __future__ import annotations

import re
from datetime import date, datetime

from deltalakedb.delta_types import decimal_of

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_RANGES = {"byte": 2**7, "short": 2**15, "integer": 2**31, "long": 2**63}
_FLOATING = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?|NaN|-?Infinity")
_DECIMAL = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(r"[0-9-]{10}(?:T[0-9:]{8}(?:\.[0-9]{1,6})?Z| [0-9:]{8}(?:\.[0-9]{1,6})?)")
_TIMESTAMP_NTZ = re.compile(r"[0-9-]{10} [0-9:]{8}(?:\.[0-9]{1,6})?")

PARTITION_TYPES = frozenset(
    {"string", "byte", "short", "integer", "long", "float", "double", "boolean", "date", "timestamp", "timestamp_ntz"}
)
"""Types of which a table may be partitioned, decimals on top; the bytes of `binary` survive no reader."""


def value_problem(data_type: str, text: str) -> str | None:
    """Why `text` is not a value of `data_type`, or None. NULL is no text and no business of this function."""
    if data_type == "string":
        return None if text else "an empty text reads as NULL: write null"
    if data_type in _RANGES:
        bound = _RANGES[data_type]
        ok = _INTEGER.fullmatch(text) is not None and -bound <= int(text) < bound
        return None if ok else f"it is not a number that a {data_type} holds"
    if data_type == "date":
        return None if _DATE.fullmatch(text) and _is_date(text) else "a date is written YYYY-MM-DD"
    if data_type == "boolean":
        return None if text in ("true", "false") else "a boolean is written true or false"
    if data_type in ("float", "double"):
        return None if _FLOATING.fullmatch(text) else f"it is not a {data_type}"
    if data_type == "timestamp":
        ok = _TIMESTAMP.fullmatch(text) is not None and _is_moment(text)
        return None if ok else "a timestamp is written YYYY-MM-DDTHH:MM:SS.ffffffZ"
    if data_type == "timestamp_ntz":
        ok = _TIMESTAMP_NTZ.fullmatch(text) is not None and _is_moment(text)
        return None if ok else "a timestamp_ntz is written YYYY-MM-DD HH:MM:SS.ffffff"
    decimal = decimal_of(data_type)
    if decimal is not None:
        return _decimal_problem(text, *decimal)
    return None if data_type == "binary" else f"a column of type {data_type} cannot be partitioned by"


def _decimal_problem(text: str, precision: int, scale: int) -> str | None:
    match = _DECIMAL.fullmatch(text)
    if match is None or len(match[2] or "") != scale or len(match[1].lstrip("0")) > precision - scale:
        return f"a decimal({precision},{scale}) is written with exactly {scale} digits after the point"
    return None


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
