"""Partition values: their text in Delta's log, the folder they name, and back to values.

The text is what decides (Delta's `partitionValues`); the folder only says the same to readers that look at paths. A
null is a null in the log and `__HIVE_DEFAULT_PARTITION__` in the path. Delta has no empty partition value: an empty
string is stored, and read back, as null.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from deltalakedb.arrow import Array, arrow_type
from deltalakedb.delta_types import DataType
from deltalakedb.errors import TxnLogSchemaError, TxnLogValidationError
from deltalakedb.paths import path_problem

NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
MAX_FOLDER_BYTES: Final = 255

# What Spark escapes in a folder name, before the path as a whole is percent-encoded.
_ESCAPED = re.compile(r"""["#%'*/:=?\\{\[\]^\x00-\x1f\x7f]""")
_FLOATS = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


def value_texts(values: Array, data_type: DataType, column: str) -> list[str | None]:
    """Each value as it stands in `partitionValues`. Raises `TxnLogSchemaError` for what has no such form."""
    match data_type:
        case "string":
            return [text or None for text in values.to_pylist()]
        case "boolean" | "byte" | "short" | "integer" | "long" | "date":
            return _plain_texts(values, data_type, column)
        case "float" | "double":
            # Arrow writes the shortest text that reads back as the same number, in the column's own precision.
            return [None if v is None else _FLOATS.get(v, v) for v in values.cast(pa.string()).to_pylist()]
        case "timestamp" | "timestamp_ntz":
            pattern = "%Y-%m-%dT%H:%M:%SZ" if data_type == "timestamp" else "%Y-%m-%d %H:%M:%S"
            return _plain_texts(pc.strftime(values, format=pattern), "string", column)
        case "binary":
            return [_binary_text(value, column) for value in values.to_pylist()]
        case str() if data_type.startswith("decimal"):
            return [None if value is None else format(value, "f") for value in values.to_pylist()]
        case _:
            raise TxnLogSchemaError(f"column {column}: a table cannot be partitioned by a column of this type")


def _plain_texts(values: Array, data_type: str, column: str) -> list[str | None]:
    texts: list[str | None] = values.cast(pa.string()).to_pylist()
    if data_type == "string" or data_type == "date":
        for text in texts:
            # Arrow goes beyond the four-digit years that everybody reads.
            if text is not None and not re.match(r"\d{4}-", text):
                raise TxnLogSchemaError(f"column {column}: {text} cannot be a partition value (years 0000 to 9999)")
    return texts


def _binary_text(value: bytes | None, column: str) -> str | None:
    if not value:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TxnLogSchemaError(
            f"column {column}: bytes that are not UTF-8 do not survive as a partition value; partition by another column"
        ) from error


def values_of(texts: Sequence[str | None], data_type: DataType, column: str) -> Array:
    """The values that texts of `partitionValues` stand for, as an array of the column's Arrow type.

    Raises `TxnLogSchemaError` for a text that is no value of the type.
    """
    wanted: Any = arrow_type(data_type)
    strings: Any = pa.array([text or None for text in texts], pa.string())
    try:
        match data_type:
            case "string":
                return strings  # type: ignore[no-any-return]
            case "binary":
                return strings.cast(pa.binary())  # type: ignore[no-any-return]
            case "boolean":
                return pc.utf8_lower(strings).cast(wanted)  # type: ignore[no-any-return]
            case "timestamp" if strings.null_count < len(strings):
                zoned = [_zoned(text) for text in strings.to_pylist()]
                return pa.array(zoned, pa.string()).cast(wanted)
            case _:
                return strings.cast(wanted)  # type: ignore[no-any-return]
    except pa.ArrowInvalid as error:
        raise TxnLogSchemaError(f"column {column}: a partition value is not of type {data_type}: {error}") from error


def _zoned(text: str | None) -> str | None:
    """A timestamp with its zone; the form without one is what older writers gave, in UTC as readers agree."""
    if text is None or re.search(r"(Z|[+-]\d\d:?\d\d)$", text):
        return text
    return f"{text}Z"


def folder(columns: Sequence[str], texts: Sequence[str | None]) -> str:
    """The hive-style folder `a=1/b=x` of one combination of values, escaped as Spark does, not percent-encoded.

    Raises `TxnLogValidationError` for values that cannot be a folder.
    """
    segments = []
    for column, text in zip(columns, texts, strict=True):
        segment = f"{_escape(column)}={NULL_FOLDER if text is None else _escape(text)}"
        if len(segment.encode()) > MAX_FOLDER_BYTES:
            raise TxnLogValidationError(
                f"a value of partition column {column} is too long to name a folder "
                f"({len(segment.encode())} bytes of {MAX_FOLDER_BYTES}): {text[:40] if text else text!r}..."
            )
        segments.append(segment)
    return "/".join(segments)


def encode_path(path: str, partition_columns: Sequence[str]) -> str:
    """A path as Delta stores it: percent-encoded once. Raises `TxnLogValidationError` if it would not be accepted."""
    encoded = quote(path, safe="/=~")
    if problem := path_problem(encoded, partition_columns):
        raise TxnLogValidationError(f"these partition values cannot be a folder: {problem}: {path[:200]!r}")
    return encoded


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", text)
