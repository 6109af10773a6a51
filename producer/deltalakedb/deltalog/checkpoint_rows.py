"""Actions from the rows of a Parquet checkpoint: each as the JSON object that a log file would have for it. Pure.

Names are the protocol's, absent stands for null, statistics are the text they were; where there are only typed ones
(`stats_parsed`), they are written out exactly. A struct that nobody knows is an action like any other, and a column within it a field.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec
import pyarrow as pa

from deltalakedb.events import ImportedAction

from .arrow_values import Path, values

FILES: Final = ("add", "remove")
"""Actions of which there may be millions."""
NOT_STATE: Final = frozenset({"commitInfo", "cdc", "checkpointMetadata"})
"""Actions that are no part of a table's state, whatever a checkpoint may say."""

STATS_PARSED: Final = "stats_parsed"
PARTITION_VALUES_PARSED: Final = "partitionValues_parsed"

_DERIVED = frozenset({STATS_PARSED, PARTITION_VALUES_PARSED})
_encode = msgspec.json.Encoder().encode


def actions(batch: pa.RecordBatch, *, local: Collection[Path] = ()) -> Iterator[ImportedAction]:
    """The actions in `batch`, which has structs only, column by column. `local` are the table's columns of type timestamp_ntz."""
    for kind in batch.schema.names:
        if kind in NOT_STATE:
            continue
        column: Any = batch.column(kind)
        if column.null_count:
            column = column.drop_null()
        if len(column):
            for row in _objects(column, local):
                yield ImportedAction(kind, _encode(row).decode())


def _objects(column: Any, local: Collection[Path]) -> Iterator[dict[str, Any]]:
    names = [field.name for field in column.type]
    arrays = dict(zip(names, column.flatten(), strict=True))
    known = {name: values(array) for name, array in arrays.items() if name not in _DERIVED}
    if STATS_PARSED in arrays:
        given = known.setdefault("stats", [None] * len(column))
        known["stats"] = _with_parsed(given, arrays[STATS_PARSED], local)
    names = list(known)
    for row in zip(*known.values(), strict=True):
        found = {name: value for name, value in zip(names, row, strict=True) if value is not None}
        if "deletionVector" in found and not found["deletionVector"]:
            del found["deletionVector"]
        yield found


def _with_parsed(texts: list[str | None], parsed: Any, local: Collection[Path]) -> list[str | None]:
    """`texts`, and where there is none, what the typed statistics say."""
    missing = [n for n, text in enumerate(texts) if text is None]
    if not missing:
        return texts
    for n, found in zip(missing, values(parsed.take(pa.array(missing)), (), local), strict=True):
        if found:
            texts[n] = _encode(found).decode()
    return texts


def local_timestamps(schema_string: str) -> frozenset[Path]:
    """Paths, by physical names, of a schema's columns of type timestamp_ntz. Of what is no schema: none."""
    try:
        schema = msgspec.json.decode(schema_string)
        return frozenset(_local(schema, ()))
    except (msgspec.DecodeError, TypeError, KeyError, AttributeError):
        return frozenset()


def _local(schema: dict[str, Any], above: Path) -> Iterator[Path]:
    for field in schema["fields"]:
        name = (field.get("metadata") or {}).get("delta.columnMapping.physicalName") or field["name"]
        kind = field["type"]
        if kind in ("timestamp_ntz", "timestampWithoutTimezone"):
            yield (*above, name)
        elif isinstance(kind, dict) and kind.get("type") == "struct":
            yield from _local(kind, (*above, name))
