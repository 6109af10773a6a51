from __future__ import annotations

import json

import pytest

from deltalakedb.delta_types import parse_schema
from deltalakedb.slots import MAX_WIDTH, NO_SLOTS, SlotReader, lower, slot_columns, slot_type, upper, wider
from tests.works import field, schema


def test_the_first_four_columns_with_an_order_get_slots() -> None:
    """Leaves of structs as well; not partition columns, nor what has no 64-bit form."""
    text = schema(
        ("flag", "boolean"),
        ("day", "date"),
        field("s", json.loads(schema(("a", "long"), ("b", "binary")))),
        field("xs", {"type": "array", "elementType": "long", "containsNull": True}),
        ("money", "decimal(38,2)"),
        ("price", "decimal(18,2)"),
        ("at", "timestamp"),
        ("name", "string"),
        ("fifth", "long"),
    )

    assert slot_columns(parse_schema(text), ("day",)) == (("s", "a"), ("price",), ("at",), ("name",))


def test_slots_are_found_by_physical_names() -> None:
    """As statistics have them under column mapping."""
    mapped = schema(field("a", "long", metadata={"delta.columnMapping.physicalName": "col-1"}))
    parsed = parse_schema(mapped)

    assert slot_columns(parsed, ()) == (("col-1",),)
    assert slot_type(parsed, ("col-1",)) == "long"
    assert slot_type(parsed, ("a",)) is None
    assert slot_type(parsed, ("col-1", "x")) is None
    assert slot_type(parsed, ()) is None


@pytest.mark.parametrize(
    ("changes", "data_type"),
    [
        ([{"fromType": "byte", "toType": "short"}, {"fromType": "short", "toType": "long"}], "byte"),
        ([{"fromType": "byte", "toType": "long", "fieldPath": "element"}], "long"),
        ([{"fromType": "junk"}], None),
        (["junk"], "long"),
        ("junk", "long"),
    ],
)
def test_a_slot_has_the_form_of_the_columns_first_type(changes: object, data_type: str | None) -> None:
    """Else old and new files could not be compared."""
    text = schema(field("a", "long", metadata={"delta.typeChanges": changes}))

    assert slot_type(parse_schema(text), ("a",)) == data_type


class TestReading:
    reader = SlotReader(
        parse_schema(schema(("id", "long"), field("s", json.loads(schema(("name", "string")))), ("d", "double"))),
        (("id",), ("s", "name"), ("gone",), ("d",)),
    )

    def test_slots_have_the_place_of_their_column(self) -> None:
        """A column that is gone leaves its place empty."""
        slots = self.reader.read({"id": 1, "s": {"name": "a"}, "d": 0.0}, {"id": 2, "s": {"name": "b"}, "d": -0.0})

        assert slots[:2] == (1, 2)
        assert slots[2] is not None
        assert slots[3] is not None
        assert slots[2] < slots[3]
        assert slots[4:] == (None, None, 0, 0)

    @pytest.mark.parametrize(
        ("low", "high"),
        [
            (None, None),
            ({}, {"id": 1}),
            ({"id": 1}, None),
            ({"id": None}, {"id": 2}),
            ({"id": "1"}, {"id": "2"}),
            ({"id": True}, {"id": 2}),
            ({"s": 5}, {"s": {"name": "b"}}),
            ({"s": {"name": "b"}}, {"s": {"name": "a"}}),
            ({"d": 1}, {"d": [1]}),
        ],
    )
    def test_what_statistics_do_not_say_is_empty(
        self, low: dict[str, object] | None, high: dict[str, object] | None
    ) -> None:
        """One side alone is no interval."""
        assert self.reader.read(low, high) == NO_SLOTS

    def test_numbers_the_wrong_way_round_are_an_error(self) -> None:
        """Readers would skip rows that are there."""
        with pytest.raises(ValueError, match="'id' lies above"):
            self.reader.read({"id": 2}, {"id": 1})


def test_widths_grow_to_the_widest_file() -> None:
    """And say so where no 64-bit number holds the width."""
    narrow = (1, 3, None, None, -(2**63), 2**63 - 1, 5, 5)
    wide = (0, 10, 1, 2, None, None, None, None)

    widths = wider(wider((0, 0, 0, 0), narrow), wide)

    assert widths == (10, 1, MAX_WIDTH, 0)
    assert wider(widths, NO_SLOTS) is widths


@pytest.mark.parametrize(
    ("data_type", "value", "slots"),
    [
        ("double", 10**400, (None, None)),
        ("double", 2**53 + 1, (4845873199050653696, 4845873199050653697)),
        ("double", -(2**53) - 1, (-4845873199050653698, -4845873199050653697)),
        ("decimal(18,2)", 1.5e308, (2**63 - 1, 2**63 - 1)),
        ("decimal(18,17)", 1.7e308, (2**63 - 1, 2**63 - 1)),
        ("decimal(18,17)", -1.7e308, (-(2**63), -(2**63))),
        ("decimal(18,2)", 10**30, (2**63 - 1, 2**63 - 1)),
        ("decimal(18,2)", float("inf"), (None, None)),
        ("timestamp", "2024-01-01T00:00:00.123Z", (1704067200123000, 1704067200123999)),
        ("timestamp", "2024-01-01T01:00:00.123456+01:00", (1704067200123456, 1704067200123456)),
        ("timestamp", "2024-01-01 00:00:00", (1704067200000000, 1704067200000999)),
        ("timestamp", "2024-01-01T00:00:00.1234567Z", (1704067200123456, 1704067200123457)),
        ("timestamp", "soon", (None, None)),
        ("date", "2024-13-01", (None, None)),
        ("string", "", (-(2**63), -(2**63))),
        ("boolean", True, (None, None)),
    ],
)
def test_values_at_the_edges(data_type: str, value: object, slots: tuple[int | None, int | None]) -> None:
    """Rounded outwards, kept within 64 bits, or left out."""
    assert (lower(data_type, value), upper(data_type, value)) == slots


def test_a_float_is_between_its_neighbours() -> None:
    """Statistics say 0.1 where the file has the 32-bit float next to it, or more than any float."""
    for value in (0.1, -0.1, 3.5e38):
        first, last = lower("float", value), upper("float", value)
        exactly = lower("double", value)
        assert first is not None
        assert last is not None
        assert exactly is not None
        assert first <= exactly <= last
