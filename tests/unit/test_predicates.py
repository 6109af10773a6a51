"""Predicates as users write them: SQL text and filter lists, and what is refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from deltalakedb.arrow import arrow_schema
from deltalakedb.delta_types import ArrayType, StructField, StructType
from deltalakedb.errors import TxnLogValidationError
from deltalakedb.events import Literal, Predicate, Term
from deltalakedb.predicates import parse_condition

SCHEMA = StructType(
    (
        StructField("id", "long"),
        StructField("Name", "string"),
        StructField("price", "decimal(10,2)"),
        StructField("day", "date"),
        StructField("at", "timestamp"),
        StructField("local", "timestamp_ntz"),
        StructField("ok", "boolean"),
        StructField("score", "float"),
        StructField("raw", "binary"),
        StructField("odd name", "long"),
        StructField("s", StructType((StructField("x", "integer"),))),
        StructField("l", ArrayType("long")),
        StructField("a.b", "long"),
    )
)
ROWS: list[dict[str, Any]] = [
    {
        "id": 1, "Name": "alpha", "price": Decimal("1.50"), "day": dt.date(2020, 1, 1), "ok": True, "score": 0.5,
        "at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "local": dt.datetime.fromisoformat("2020-01-01"),
        "raw": b"\x01", "odd name": 7, "s": {"x": 1}, "l": [1], "a.b": 5,
    },
    {"id": 2, "Name": "beta", "price": Decimal("2.00"), "day": dt.date(2021, 1, 1), "ok": False, "score": float("nan"), "s": {"x": None}},
    {"id": 3, "Name": "al%", "s": None},
]  # fmt: skip
TABLE = pa.Table.from_pylist(ROWS, schema=arrow_schema(SCHEMA))


def ids(predicate: Any) -> list[int | None]:
    found: list[int | None] = TABLE.filter(parse_condition(predicate, SCHEMA).expression())["id"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("id = 1", [1]),
        ("1 < id", [2, 3]),
        ("ID <> 2", [1, 3]),
        ("id == 2 OR id = 3", [2, 3]),
        ("NOT (id = 2 OR id = 3)", [1]),
        ("id in (1, 3, 99)", [1, 3]),
        ("id not in (1, 3)", [2]),
        ("id not in (1, NULL)", []),
        ("id in (NULL)", []),
        ("id between 2 and 3", [2, 3]),
        ("id not between 2 and 3", [1]),
        ("id > 1.5", [2, 3]),
        ("id = -1", []),
        ("id < 1e30", [1, 2, 3]),
        ("id < 1e999999999", [1, 2, 3]),
        ("id = NULL", []),
        ("name = 'alpha'", [1]),
        ("name like 'al%'", [1, 3]),
        ("name not like 'al%'", [2]),
        ("name like '%a'", [1, 2]),
        ("name ilike 'AL____' or name ilike 'BET_'", [2]),
        ("starts_with(name, 'al')", [1, 3]),
        ("price >= 1.5 and price < 2", [1]),
        ("price = 1.50", [1]),
        ("day >= '2020-06-01'", [2]),
        ("day = DATE '2020-01-01'", [1]),
        ("at = TIMESTAMP '2020-01-01 00:00:00'", [1]),
        ("at = '2020-01-01T01:00:00+01:00'", [1]),
        ("local = '2020-01-01'", [1]),
        ("ok", [1]),
        ("not ok", [2]),
        ("ok is true", [1]),
        ("ok is not true", [2, 3]),
        ("price is null", [3]),
        ("price is not null", [1, 2]),
        ("price <=> NULL", [3]),
        ("price is not distinct from 2", [2]),
        ("price is distinct from 2", [1, 3]),
        ("score > 100", [2]),
        ("score <= 0.5", [1]),
        ("s.x = 1", [1]),
        ("s.x is null", [2, 3]),
        ('"odd name" = 7', [1]),
        ("`odd name` = 7", [1]),
        ('"a.b" = 5', [1]),
        ("id < price", [1]),
        ("id >= price", [2]),
        ("true", [1, 2, 3]),
        ("false or id = 1", [1]),
        ([("id", ">", 1), ("id", "<", 3)], [2]),
        ([[("id", "=", 1)], [("id", "==", 3)]], [1, 3]),
        ([("id", "in", {1, 3})], [1, 3]),
        ([("id", "not in", [1, 3])], [2]),
        ([("price", "=", None)], [3]),
        ([("price", "!=", None)], [1, 2]),
        ([("a.b", "=", 5)], [1]),
        ([("s.x", "=", 1)], [1]),
        ([("raw", "=", b"\x01")], [1]),
        ([("score", "=", float("nan"))], [2]),
        ([("score", "<", float("nan"))], [1]),
        ([("at", "<=", dt.datetime(2020, 1, 1, tzinfo=dt.UTC))], [1]),
        ([], [1, 2, 3]),
    ],
)
def test_rows(predicate: Any, expected: list[int]) -> None:
    """A predicate keeps the rows that SQL would."""
    assert ids(predicate) == expected


@pytest.mark.parametrize(
    ("predicate", "part"),
    [
        ("id >", "is not SQL"),
        ("id = 1; drop table x", "cannot be evaluated here"),
        ("select 1", "cannot be evaluated here"),
        ("upper(name) = 'A'", "UPPER(name)"),
        ("id + 1 = 2", "'id + 1'"),
        ("1 = 1", "'1' in the predicate"),
        ("id in (select 1)", "cannot be evaluated here"),
        ("id = interval '1' day", "cannot be evaluated here"),
        ("name like 'a\\%'", "cannot be evaluated here"),
        ("id = :p", "cannot be evaluated here"),
        ("nope = 1", "the table has no column nope; its columns are id, Name"),
        ("s.y = 1", "the table has no column s.y"),
        ("id.x = 1", "the table has no column id.x"),
        ("id = 'x'", "column id is long, and 'x' (str) cannot be compared"),
        ("name = 1", "column Name is string"),
        ("l = 1", "column l is nested"),
        ("day = 'soon'", "column day is date, and 'soon' is none"),
        ("local = '2020-01-01T00:00:00Z'", "drop it"),
        ("name", "is not a condition"),
        ("id like 'a%'", "column id is not text"),
        ("id < name", "columns id and Name cannot be compared"),
        ([("id", "~", 1)], "operator '~'"),
        ([("id", "in", "abc")], "needs a list"),
        ([("id", "<", None)], "only = and !="),
        ([("id", "=")], "is not (column, operator, value)"),
        ([("id", "=", 1), [("id", "=", 1)]], "a filter is a list"),
        ([("at", "=", dt.datetime.fromisoformat("2020-01-01"))], "attach one"),
        ([("ok", "=", 1)], "column ok is boolean"),
        ([("id", "=", True)], "column id is long"),
    ],
)
def test_refusals(predicate: Any, part: str) -> None:
    """What cannot be understood or evaluated is refused, naming it."""
    with pytest.raises(TxnLogValidationError) as caught:
        parse_condition(predicate, SCHEMA)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("predicate", "terms"),
    [
        ("id = 1", [Term("=", ("id",), (Literal("long", "1"),))]),
        (
            "day >= '2020-01-01' and not (s.x in (1, 2) or name like 'a%')",
            [
                Term(">=", ("day",), (Literal("date", "2020-01-01"),)),
                Term("in", ("s", "x"), (Literal("integer", "1"), Literal("integer", "2"))),
                Term("not"),
                Term("starts-with", ("Name",), (Literal("string", "a"),)),
                Term("not"),
                Term("and"),
                Term("and"),
            ],
        ),
        ("id = 1 and name like '%a'", [Term("=", ("id",), (Literal("long", "1"),))]),
        ("id = 1 or name like '%a'", [Term("true")]),
        ("id < price", [Term("true")]),
        ("false", [Term("true"), Term("not")]),
        ("at < '2020-01-01'", [Term("<", ("at",), (Literal("timestamp", "2020-01-01T00:00:00.000000Z"),))]),
        ("local < '2020-01-01'", [Term("<", ("local",), (Literal("timestamp_ntz", "2020-01-01 00:00:00.000000"),))]),
        ("price is null", [Term("is-null", ("price",))]),
        ([("raw", "=", b"\xff")], [Term("true")]),
    ],
)
def test_read_sets(predicate: Any, terms: list[Term]) -> None:
    """A condition becomes postfix terms; what has none is widened to true, never narrowed."""
    assert parse_condition(predicate, SCHEMA).read_predicate() == Predicate(tuple(terms))


def test_columns() -> None:
    """The columns that a condition needs are known by their top-level names."""
    assert parse_condition("s.x = 1 or id < price", SCHEMA).columns == {"s", "id", "price"}


def test_partition_filter_only_where_it_helps() -> None:
    """A condition without partition columns leaves all partitions, one with them those that may match."""
    condition = parse_condition("day = '2020-01-01' and id = 5", SCHEMA)

    assert condition.partition_filter(["ok"]) is None
    keep = condition.partition_filter(["day"])
    assert keep is not None
    assert [keep({"day": text}) for text in ("2020-01-01", "2021-01-01", None)] == [True, False, False]
