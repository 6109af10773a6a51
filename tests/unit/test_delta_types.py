from __future__ import annotations

import json

import pytest

from deltalakedb.delta_types import (
    ArrayType,
    MapType,
    StructField,
    StructType,
    decimal_of,
    field_json,
    fields_in,
    leaf_columns,
    name_problem,
    parse_field,
    parse_schema,
    parse_type,
    resolve,
    schema_json,
    types_in,
    with_type,
)
from deltalakedb.errors import TxnLogSchemaError
from deltalakedb.schema_evolution import accepts, alike, widens
from tests.works import field, schema

NESTED = StructType(
    (
        StructField("id", "long", False, {"comment": "key", "x": {"y": [1]}}),
        StructField("s", StructType((StructField("a", "decimal(10,2)"), StructField("b", ArrayType("string", False))))),
        StructField("m", MapType("string", ArrayType(StructType((StructField("c", "date"),))), False)),
    )
)


class TestParsing:
    def test_schemas_come_back_as_they_were(self) -> None:
        """Through compact JSON, always the same for equal schemas."""
        text = schema_json(NESTED)

        assert parse_schema(text) == NESTED
        assert schema_json(parse_schema(text)) == text
        assert " " not in text

    def test_schemas_are_values(self) -> None:
        """Equal ones hash alike; metadata counts for equality."""
        again = parse_schema(schema_json(NESTED))
        other = parse_schema(schema_json(NESTED).replace('"key"', '"no key"'))

        assert {NESTED, again} == {NESTED}
        assert other != NESTED

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("", "JSON"),
            ("[1", "JSON"),
            ("5", "a type is"),
            ('"long"', "struct"),
            ("{}", "not a Delta type"),
            ('{"type":"struct"}', "'fields' is missing"),
            ('{"type":"struct","fields":{}}', "list"),
            ('{"type":"struct","fields":[5]}', "object"),
            ('{"type":"struct","fields":[],"more":1}', "'more'"),
            (schema({"name": "a", "type": "long", "nullable": True}), "'metadata' is missing"),
            (schema({"name": "a", "type": "long", "metadata": {}}), "'nullable' is missing"),
            (schema({**field("a", "long"), "nullable": 1}), "true or false"),
            (schema({**field("a", "long"), "metadata": []}), "metadata is an object"),
            (schema({**field("a", "long"), "comment": "x"}), "'comment'"),
            (schema({**field("a", "long"), "name": ""}), "name"),
            (schema({**field("a", "long"), "name": 5}), "name"),
            (schema(("a\x01", "long")), "control"),
            (schema(("a", "long"), ("A", "long")), "but for case"),
            (schema(("a", "bigint")), "bigint"),
            (schema(("a", "decimal(39,2)")), "decimal"),
            (schema(("a", "decimal(5,6)")), "decimal"),
            (schema(("a", "decimal(0,0)")), "decimal"),
            (schema(("a", "decimal( 5,2)")), "decimal"),
            (schema(field("a", {"type": "array", "elementType": "long"})), "containsNull"),
            (schema(field("a", {"type": "array", "elementType": "long", "containsNull": 1})), "containsNull"),
            (schema(field("a", {"type": "map", "keyType": "long", "valueType": "long"})), "valueContainsNull"),
            ('{"type":"struct","fields":[],"fields":[]}', "twice"),
            ('{"type":"struct","fields":[],"x":NaN}', "JSON"),
            ('{"type":"struct","fields":[{"name":"\\ud800","type":"long","nullable":true,"metadata":{}}]}', "JSON"),
        ],
    )
    def test_what_is_no_schema_is_refused(self, text: str, what: str) -> None:
        """The message says where and what."""
        with pytest.raises(TxnLogSchemaError, match=what):
            parse_schema(text)

    @pytest.mark.parametrize("depth", [70, 400, 100_000])
    def test_deep_schemas_are_refused(self, depth: int) -> None:
        """Before the stack is full."""
        text = '{"type":"array","containsNull":true,"elementType":' * depth + '"long"' + "}" * depth

        with pytest.raises(TxnLogSchemaError, match="deeper"):
            parse_schema(text)

    def test_fields_and_types_are_parsed_alone(self) -> None:
        """As intents carry them."""
        assert parse_field(field_json(NESTED.fields[0])) == NESTED.fields[0]
        assert parse_type("decimal(10,2)") == parse_type('"decimal(10,2)"') == "decimal(10,2)"
        assert parse_type(schema_json(NESTED)) == NESTED
        with pytest.raises(TxnLogSchemaError):
            parse_type("int")

    def test_decimals_say_precision_and_scale(self) -> None:
        """Others are none."""
        assert decimal_of("decimal(10,2)") == (10, 2)
        assert decimal_of("long") is decimal_of(NESTED) is None


class TestWalking:
    def test_leaves_come_in_order(self) -> None:
        """Structs are opened, lists and maps are not."""
        assert [path for path, _ in leaf_columns(NESTED)] == [("id",), ("s", "a"), ("s", "b"), ("m",)]

    def test_leaves_by_physical_name(self) -> None:
        """As files and logs have them."""
        mapped = StructType((StructField("a", "long", True, {"delta.columnMapping.physicalName": "col-1"}),))

        assert leaf_columns(mapped, physical=True) == ((("col-1",), "long"),)

    def test_paths_lead_through_lists_and_maps(self) -> None:
        """By element, key and value; a path that leads nowhere finds nothing."""
        assert resolve(NESTED, ("m", "value", "element", "c")) == StructField("c", "date")
        assert resolve(NESTED, ("m", "key")) == StructField("key", "string", False)
        assert resolve(NESTED, ("s", "b", "element")) == StructField("element", "string", False)
        for path in (("nowhere",), ("id", "x"), ("m", "x"), ("s", "b", "x"), ()):
            assert resolve(NESTED, path) is None

    @pytest.mark.parametrize(
        "path", [("id",), ("s", "a"), ("s", "b", "element"), ("m", "key"), ("m", "value", "element", "c")]
    )
    def test_a_type_is_replaced_and_all_else_stays(self, path: tuple[str, ...]) -> None:
        """Wherever it lies."""
        changed = with_type(NESTED, path, "binary")

        assert isinstance(changed, StructType)
        found = resolve(changed, path)
        assert found is not None
        assert found.type == "binary"
        old = resolve(NESTED, path)
        assert old is not None
        assert with_type(changed, path, old.type) == NESTED
        with pytest.raises(KeyError):
            with_type(NESTED, ("s", "nowhere"), "long")

    def test_types_and_fields_are_found_at_any_depth(self) -> None:
        """Whatever lies between."""
        assert list(types_in(NESTED)) == ["long", "decimal(10,2)", "string", "string", "date"]
        assert [f.name for f in fields_in(NESTED)] == ["id", "s", "a", "b", "m", "c"]

    def test_alike_looks_at_everything_but_metadata(self) -> None:
        """Names, types, nullability and order."""
        plain = parse_schema(schema_json(NESTED).replace('"key"', '"other"'))

        assert alike(NESTED, plain)
        assert not alike(NESTED, StructType(NESTED.fields[:2]))
        assert not alike(StructType((StructField("a", "long"),)), StructType((StructField("a", "long", False),)))
        assert not alike(ArrayType("long", True), ArrayType("long", False))
        assert not alike(MapType("long", "long", True), MapType("long", "long", False))

    @pytest.mark.parametrize("name", ["a b", "a,b", "a;b", "a{b", "a}b", "a(b", "a)b", "a\nb", "a\tb", "a=b"])
    def test_names_that_need_column_mapping(self, name: str) -> None:
        """At any depth."""
        inner = StructType((StructField(name, "long"),))

        assert name_problem(StructType((StructField("x", ArrayType(inner)),))) is not None
        assert name_problem(NESTED) is None


class TestWidening:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            *[("byte", t) for t in ("short", "integer", "long", "double", "decimal(10,0)", "decimal(12,2)")],
            *[("short", t) for t in ("integer", "long", "double", "decimal(10,0)")],
            *[("integer", t) for t in ("long", "double", "decimal(10,0)", "decimal(38,28)")],
            *[("long", "decimal(20,0)"), ("long", "decimal(22,2)"), ("float", "double"), ("date", "timestamp_ntz")],
            *[("decimal(5,2)", t) for t in ("decimal(6,2)", "decimal(7,4)", "decimal(10,3)")],
        ],
    )
    def test_what_delta_widens(self, old: str, new: str) -> None:
        """And never back."""
        assert widens(old, new)
        assert not widens(new, old)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            *[("long", "long"), ("long", "double"), ("integer", "float"), ("float", "decimal(20,2)")],
            *[("date", "timestamp"), ("long", "decimal(19,0)"), ("integer", "decimal(9,0)"), ("string", "long")],
            *[("decimal(5,2)", "decimal(5,2)"), ("decimal(5,2)", "decimal(6,4)"), ("decimal(5,2)", "decimal(7,1)")],
            *[("integer", "decimal(11,2)"), ("decimal(5,2)", "double"), ("boolean", "byte")],
        ],
    )
    def test_what_delta_does_not_widen(self, old: str, new: str) -> None:
        """Values would change or not fit."""
        assert not widens(old, new)


class TestAccepts:
    def check(self, older: str, newer: str, *, mapped: bool = False) -> str | None:
        return accepts(parse_schema(older), parse_schema(newer), mapped=mapped)

    @pytest.mark.parametrize(
        ("older", "newer"),
        [
            (schema(("a", "long")), schema(("a", "long"))),
            (schema(("a", "long")), schema(("b", "string"), ("a", "long"))),
            (schema(("a", "long"), ("b", "date")), schema(("b", "date"), ("a", "long"))),
            (schema(("a", "integer")), schema(("a", "long"))),
            (schema(("a", "void")), schema(("a", "long"))),
            (schema(field("a", "long", nullable=False)), schema(("a", "long"))),
            (
                schema(field("s", json.loads(schema(("a", "integer"))))),
                schema(field("s", json.loads(schema(("a", "long"), ("b", "string"))))),
            ),
            (
                schema(field("a", {"type": "array", "elementType": "integer", "containsNull": False})),
                schema(field("a", {"type": "array", "elementType": "long", "containsNull": True})),
            ),
            (
                schema(field("a", {"type": "map", "keyType": "byte", "valueType": "byte", "valueContainsNull": False})),
                schema(field("a", {"type": "map", "keyType": "long", "valueType": "long", "valueContainsNull": True})),
            ),
        ],
    )
    def test_files_stay_valid(self, older: str, newer: str) -> None:
        """Nullable columns more, another order, wider types, nulls allowed."""
        assert self.check(older, newer) is None

    @pytest.mark.parametrize(
        ("older", "newer", "what"),
        [
            (schema(("a", "long")), schema(("a", "integer")), "a was long"),
            (schema(("a", "long")), schema(("a", "string")), "is string now"),
            (schema(("a", "long")), schema(field("a", json.loads(schema(("b", "long"))))), "is a struct now"),
            (schema(("a", "long")), schema(("a", "long"), field("b", "long", nullable=False)), "b is new"),
            (schema(("a", "long"), ("b", "long")), schema(("a", "long")), "b of the files is not a column"),
            (schema(("a", "long")), schema(("A", "long")), "a of the files"),
            (schema(("a", "long")), schema(field("a", "long", nullable=False)), "may be null"),
            (
                schema(field("s", json.loads(schema(("a", "long"))))),
                schema(field("s", json.loads(schema(("b", "long"))))),
                "s.a",
            ),
            (
                schema(field("a", {"type": "array", "elementType": "long", "containsNull": True})),
                schema(field("a", {"type": "array", "elementType": "long", "containsNull": False})),
                "elements of a",
            ),
            (
                schema(field("a", {"type": "map", "keyType": "long", "valueType": "long", "valueContainsNull": True})),
                schema(field("a", {"type": "map", "keyType": "long", "valueType": "long", "valueContainsNull": False})),
                "values of a",
            ),
            (
                schema(field("a", {"type": "map", "keyType": "long", "valueType": "long", "valueContainsNull": True})),
                schema(field("a", {"type": "map", "keyType": "byte", "valueType": "long", "valueContainsNull": True})),
                "a.key",
            ),
            (
                schema(field("a", {"type": "array", "elementType": "long", "containsNull": True})),
                schema(field("a", {"type": "map", "keyType": "byte", "valueType": "long", "valueContainsNull": True})),
                "was an array .* a map",
            ),
        ],
    )
    def test_files_are_not_valid_any_more(self, older: str, newer: str, what: str) -> None:
        """The reason names the column."""
        with pytest.raises(AssertionError, match=what):
            assert self.check(older, newer) is None, self.check(older, newer)

    def test_under_mapping_columns_are_the_same_by_physical_name(self) -> None:
        """They may be renamed or gone; what has another physical name is another column."""
        first = field("a", "long", metadata={"delta.columnMapping.physicalName": "p1"})
        renamed = {**first, "name": "b"}
        second = field("a", "string", metadata={"delta.columnMapping.physicalName": "p2"})

        assert self.check(schema(first), schema(renamed), mapped=True) is None
        assert self.check(schema(first), schema(second), mapped=True) is None
        assert self.check(schema(first, {**second, "name": "c"}), schema(renamed), mapped=True) is None
        assert self.check(schema(first), schema(renamed)) is not None
