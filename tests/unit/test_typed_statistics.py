"""Statistics and partition values of a checkpoint in columns of the table's own types."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from deltalakedb_mirror_worker.checkpoint.typed import TypedColumns

NESTED = {
    "type": "struct",
    "fields": [{"name": "inner", "type": "integer", "nullable": False, "metadata": {}}],
}


def typed(*columns: tuple[str, Any], partition_by: tuple[str, ...] = (), indexed: int = 32) -> TypedColumns:
    fields = [{"name": name, "type": kind, "nullable": False, "metadata": {}} for name, kind in columns]
    return TypedColumns(json.dumps({"type": "struct", "fields": fields}), partition_by, indexed)


def parsed(columns: TypedColumns, *stats: str | None) -> list[Any]:
    """The statistics of files with these texts."""
    files = pa.record_batch({"stats": pa.array(stats, pa.string()), "partition_values": pa.array(["{}"] * len(stats))})
    found: list[Any] = columns.columns(files)["stats_parsed"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("long", "-5", -5),
        ("byte", "7", 7),
        ("float", "1.5", 1.5),
        ("double", "1e300", 1e300),
        ("decimal(10,2)", "123.4", Decimal("123.40")),
        ("string", '"a\\u00fc\\n"', "aü\n"),
        ("date", '"2024-02-29"', date(2024, 2, 29)),
        ("timestamp", '"2024-02-29T01:02:03.004Z"', datetime(2024, 2, 29, 1, 2, 3, 4000, UTC)),
        ("timestamp", '"2024-02-29T01:02:03.004+01:00"', datetime(2024, 2, 29, 0, 2, 3, 4000, UTC)),
        ("timestamp_ntz", '"2024-02-29T01:02:03.004"', datetime(2024, 2, 29, 1, 2, 3, 4000)),  # noqa: DTZ001
    ],
)
def test_a_bound_has_the_type_of_its_column(kind: str, text: str, value: Any) -> None:
    """Every form in which writers put a bound reads as the value that it stands for."""
    stats = f'{{"numRecords":3,"minValues":{{"x":{text}}},\n"maxValues":{{"x":null}},"nullCount":{{"x":1}}}}'
    (found,) = parsed(typed(("x", kind)), stats)

    assert found == {
        "numRecords": 3,
        "minValues": {"x": value},
        "maxValues": {"x": None},
        "nullCount": {"x": 1},
        "tightBounds": None,
    }


@pytest.mark.parametrize("text", ['"NaN"', "1.5", "[]", '"2024-13-45"', "99999999999999999999"])
def test_a_bound_that_does_not_fit_counts_for_nothing(text: str) -> None:
    """The bounds of that file are unknown then, its counts and its neighbours are not touched."""
    columns = typed(("x", "date" if "2024" in text else "long"))
    good = '{"numRecords":1,"nullCount":{"x":0}}'
    bad = f'{{"numRecords":2,"minValues":{{"x":{text}}},"maxValues":{{"x":{text}}},"nullCount":{{"x":0}}}}'
    found = parsed(columns, good, bad, good)

    assert [each["numRecords"] for each in found] == [1, 2, 1]
    assert found[1]["minValues"] is None
    assert found[1]["maxValues"] is None


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "null", '{"numRecords":', "{}"])
def test_what_are_no_statistics_are_none(text: str | None) -> None:
    """A file without statistics has none in any form, and does not disturb the others."""
    found = parsed(typed(("x", "long")), text, '{"numRecords":1}')

    assert found[0] is None
    assert found[1]["numRecords"] == 1


def test_columns_without_order_have_counts_only() -> None:
    """Booleans, bytes, lists and maps have no bounds; the fields of a struct stand on their own, nullable all."""
    columns = typed(
        ("flag", "boolean"),
        ("raw", "binary"),
        ("list", {"type": "array", "elementType": "long", "containsNull": True}),
        ("deep", NESTED),
    )
    ((stats),) = columns.fields
    kinds = {field.name: field.type for field in stats.type}

    assert [field.name for field in kinds["minValues"]] == ["deep"]
    assert [field.name for field in kinds["nullCount"]] == ["flag", "raw", "list", "deep"]
    assert all(field.nullable for field in kinds["minValues"][0].type)


def test_only_indexed_columns_have_statistics() -> None:
    """Leaf columns are counted from the first; -1 means all, 0 none, and numRecords is always there."""
    columns = [("a", "long"), ("deep", NESTED), ("z", "long")]
    named = {
        indexed: {field.name for field in typed(*columns, indexed=indexed).fields[0].type} for indexed in (0, 1, -1)
    }
    two = typed(*columns, indexed=2).fields[0].type.field("nullCount").type

    assert named[0] == {"numRecords", "tightBounds"}
    assert named[1] == named[-1] == {"numRecords", "minValues", "maxValues", "nullCount", "tightBounds"}
    assert [field.name for field in two] == ["a", "deep"]


def test_partition_values_have_their_types() -> None:
    """By physical name, null where the value is null or is none of its type; they are no part of the statistics."""
    columns = typed(("day", "date"), ("n", "integer"), ("x", "long"), partition_by=("day", "n"))
    texts = ['{"day":"2024-01-02","n":"5"}', '{"day":null,"n":"six"}', '{"day":"2024-01-02","n":"5"}']
    files = pa.record_batch({"stats": pa.nulls(3, pa.string()), "partition_values": pa.array(texts)})
    found = columns.columns(files)

    assert [field.name for field in columns.fields] == ["partitionValues_parsed", "stats_parsed"]
    assert found["partitionValues_parsed"].to_pylist() == [
        {"day": date(2024, 1, 2), "n": 5},
        {"day": None, "n": None},
        {"day": date(2024, 1, 2), "n": 5},
    ]
    assert [field.name for field in columns.fields[1].type.field("nullCount").type] == ["x"]
