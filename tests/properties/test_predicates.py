"""Conditions: rows are filtered as a model in plain Python does it, pruning and read sets never lose a matching row."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import tempfile
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalakedb.arrow import arrow_schema
from deltalakedb.catalog import SlotRange
from deltalakedb.delta_types import StructField, StructType
from deltalakedb.events import Literal, Predicate, Term
from deltalakedb.parquet import DataFileStores, TableShape, TableWriter
from deltalakedb.predicates import Condition
from deltalakedb.predicates.literals import value_of
from deltalakedb.predicates.nodes import (
    And,
    Compare,
    CompareColumns,
    Constant,
    IsIn,
    IsNull,
    Like,
    Node,
    Or,
    StartsWith,
    negate,
)
from deltalakedb.slots import SlotReader, slot_columns
from deltalakedb.storage_options import StorageOptions
from deltalakedb_committer.deciding.read_predicates import PartitionColumn, is_postfix, may_match

UTC = dt.UTC
STORES = DataFileStores(StorageOptions())
VALUES: dict[str, list[Any]] = {
    "i": [-(2**31), -1, 0, 1, 2, 2**31 - 1],
    "d": [Decimal("-1.50"), Decimal("0.00"), Decimal("0.01"), Decimal("99999999.99")],
    "f": [-1.5, 0.0, -0.0, 1.5, float("nan"), float("inf")],
    "s": ["", "a", "ab", "aé", "b", "\U0010ffff"],
    "b": [True, False],
    "t": [dt.date(1999, 12, 31), dt.date(2000, 1, 1)],
    "z": [dt.datetime(2000, 1, 1, tzinfo=UTC), dt.datetime(2000, 1, 1, 0, 0, 0, 1, tzinfo=UTC)],
}
TYPES = {
    "i": "integer",
    "d": "decimal(10,2)",
    "f": "double",
    "s": "string",
    "b": "boolean",
    "t": "date",
    "z": "timestamp",
}
EXTRA: dict[str, list[Any]] = {
    "i": [2**40, Decimal("0.5"), 1e300, float("-inf")],
    "d": [Decimal("0.005"), 10**30, 1],
    "f": [Decimal("1.5"), 1],
}
BY = ("b", "t")
SCHEMA = StructType(tuple(StructField(name, TYPES[name]) for name in VALUES))
OPERATORS = ("=", "!=", "<", "<=", ">", ">=")

_rows = st.lists(
    st.fixed_dictionaries({name: st.none() | st.sampled_from(values) for name, values in VALUES.items()}),
    min_size=1,
    max_size=6,
)


@st.composite
def leaves(draw: st.DrawFn) -> Node:
    name = draw(st.sampled_from(sorted(VALUES)))
    literal = st.sampled_from(VALUES[name] + EXTRA.get(name, [])).map(lambda v: value_of(v, TYPES[name], name))
    kinds = (
        ["compare", "in", "null", "constant"]
        + (["starts", "like"] if name == "s" else [])
        + ["columns"] * (name in "id")
    )
    match draw(st.sampled_from(kinds)):
        case "compare":
            return Compare((name,), draw(st.sampled_from(OPERATORS)), draw(literal))
        case "in":
            return IsIn((name,), tuple(draw(st.lists(literal, min_size=1, max_size=3))), draw(st.booleans()))
        case "null":
            return IsNull((name,), draw(st.booleans()))
        case "constant":
            return Constant(draw(st.sampled_from([True, False, None])))
        case "starts":
            return StartsWith((name,), draw(st.sampled_from(VALUES["s"])), draw(st.booleans()))
        case "like":
            return Like(
                (name,), draw(st.sampled_from(["%b", "a_", "%", "A%"])), draw(st.booleans()), draw(st.booleans())
            )
        case _:
            return CompareColumns((name,), draw(st.sampled_from(OPERATORS)), (draw(st.sampled_from("idf")),))


_nodes = st.recursive(
    leaves(),
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda p: And(tuple(p))),
        st.lists(parts, min_size=1, max_size=3).map(lambda p: Or(tuple(p))),
        parts.map(negate),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(_nodes, _rows)
def test_rows_are_filtered_as_the_model_does(node: Node, rows: list[dict[str, Any]]) -> None:
    """The Arrow filter keeps exactly the rows for which the condition is true; NOT keeps those for which it is false."""
    table = pa.Table.from_pylist(
        [{**row, "n": n} for n, row in enumerate(rows)], schema=arrow_schema(SCHEMA).append(pa.field("n", pa.int64()))
    )
    condition = Condition(node, SCHEMA)

    kept = table.filter(condition.expression())["n"].to_pylist()
    refused = table.filter(Condition(negate(node), SCHEMA).expression())["n"].to_pylist()

    assert kept == [n for n, row in enumerate(rows) if _truth(node, row) is True]
    assert refused == [n for n, row in enumerate(rows) if _truth(node, row) is False]


@settings(max_examples=200, deadline=None)
@given(_nodes, _rows)
def test_read_sets_are_never_narrower(node: Node, rows: list[dict[str, Any]]) -> None:
    """Every row that matches is covered by the read set, evaluated from its terms alone."""
    predicate = Condition(node, SCHEMA).read_predicate()

    for row in rows:
        if _truth(node, row) is True:
            assert _covered(predicate, row) is True


@settings(max_examples=300, deadline=None)
@given(_nodes, _rows, st.just(set(VALUES)) | st.sets(st.sampled_from(sorted(VALUES))))
def test_the_committer_finds_every_file_that_was_read(node: Node, rows: list[dict[str, Any]], by: set[str]) -> None:
    """Of the partition values alone: a file with a row that matches may match, whatever columns partition the table.

    Nothing else may match where they all do and readers agree on how values compare.
    """
    predicate = Condition(node, SCHEMA).read_predicate()
    assert is_postfix(predicate)

    for row in rows:
        row |= {"s": row["s"] or None}  # an empty text is NULL in a partition
        found = may_match(predicate, {name: PartitionColumn(name, TYPES[name]) for name in by}, _texts(row, by))
        assert found or _covered(predicate, row) is not True
        if by == set(VALUES) and _compares_alike(predicate):
            assert found is (_covered(predicate, row) is True)


@pytest.mark.parametrize(
    "terms",
    [(), ("and",), ("true", "true"), ("true", "and"), ("true", "true", "true", "or"), ("not",), ("sum",), ("=",)],
)
def test_what_is_no_condition_is_no_predicate(terms: tuple[str, ...]) -> None:
    """Operands missing or left over, and connectives that nobody knows."""
    assert not is_postfix(Predicate(tuple(map(Term, terms))))


def _texts(row: dict[str, Any], by: set[str]) -> dict[str, str | None]:
    return {name: None if row[name] is None else value_of(row[name], TYPES[name], name).literal.text for name in by}


def _compares_alike(predicate: Predicate) -> bool:
    """Whether no exact number is compared with a double, on which readers differ."""
    return all(
        (literal.type == "double") == (term.column == ("f",)) for term in predicate.terms for literal in term.literals
    )


@settings(max_examples=150, deadline=None)
@given(_nodes, _rows)
def test_pruning_never_loses_a_row(node: Node, rows: list[dict[str, Any]]) -> None:
    """A file with a matching row is kept by its partition values, its slots and its statistics."""
    condition = Condition(node, SCHEMA)
    keep = condition.partition_filter(BY)
    ranges = condition.slot_ranges()
    columns = slot_columns(SCHEMA, BY)
    slots = SlotReader(SCHEMA, columns)
    table = pa.Table.from_pylist(rows, schema=arrow_schema(SCHEMA))
    with tempfile.TemporaryDirectory() as folder:
        writer = TableWriter(
            STORES.open(f"file://{folder}"),
            TableShape(SCHEMA, BY),
            stem="s",
            numbers=itertools.count(),
            target_bytes=1 << 27,
        )
        writer.write(table.to_reader())
        written = writer.finish()
    for w in written:
        inside = [r for r in rows if tuple(r[name] for name in BY) == _values(w.add.partition_values)]
        if not any(_truth(node, row) is True for row in inside):
            continue
        stats = json.loads(w.add.stats or "")
        file_slots = slots.read(stats.get("minValues"), stats.get("maxValues"))
        assert keep is None or keep(w.add.partition_values)
        assert all(_within(r, file_slots, columns) for r in ranges)
        assert condition.may_match(stats)


def _values(texts: dict[str, str | None]) -> tuple[Any, ...]:
    flag, day = texts["b"], texts["t"]
    return (None if flag is None else flag == "true", None if day is None else dt.date.fromisoformat(day))


def _within(wanted: SlotRange, slots: Any, columns: tuple[tuple[str, ...], ...]) -> bool:
    if wanted.column not in columns:
        return True
    place = 2 * columns.index(wanted.column)
    low, high = slots[place], slots[place + 1]
    return not (
        (wanted.upper is not None and low is not None and low > wanted.upper)
        or (wanted.lower is not None and high is not None and high < wanted.lower)
    )


# The model: three-valued logic over Python values.


def _truth(node: Node, row: dict[str, Any]) -> bool | None:
    match node:
        case And(parts):
            found = [_truth(part, row) for part in parts]
            return False if False in found else None if None in found else True
        case Or(parts):
            found = [_truth(part, row) for part in parts]
            return True if True in found else None if None in found else False
        case Constant(value):
            return value
        case IsNull(column, negated):
            return (row[column[0]] is None) != negated
        case CompareColumns(left, op, right):
            one, other = row[left[0]], row[right[0]]
            return None if one is None or other is None else _compare(op, one, other)
        case _:
            value = row[node.column[0]]
            return None if value is None else _leaf(node, value)


def _leaf(node: Compare | IsIn | StartsWith | Like, value: Any) -> bool:
    match node:
        case Compare(_, op, wanted):
            return _compare(op, value, wanted.python)
        case IsIn(_, wanted_values, negated):
            return any(_compare("=", value, wanted.python) for wanted in wanted_values) != negated
        case StartsWith(_, prefix, negated):
            return bool(value.startswith(prefix)) != negated
        case Like(_, pattern, negated, ignore_case):
            text, pattern = (value.lower(), pattern.lower()) if ignore_case else (value, pattern)
            found = {"%b": text.endswith("b"), "a_": len(text) == 2 and text[0] == "a", "%": True}
            return bool(found.get(pattern, text.startswith(pattern[0]))) != negated


def _compare(op: str, one: Any, other: Any) -> bool:
    a, b = _key(one), _key(other)
    return bool({"=": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op])


def _key(value: Any) -> Any:
    if isinstance(value, float):
        return (math.isnan(value), 0 if math.isnan(value) else value)
    return (False, value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def _covered(predicate: Predicate, row: dict[str, Any]) -> bool | None:
    stack: list[bool | None] = []
    for term in predicate.terms:
        match term.op:
            case "true":
                stack.append(True)
            case "not":
                top = stack.pop()
                stack.append(None if top is None else not top)
            case "and" | "or":
                pair = (stack.pop(), stack.pop())
                strong = term.op == "or"
                stack.append(strong if strong in pair else None if None in pair else not strong)
            case "is-null" | "is-not-null":
                stack.append((row[term.column[0]] is None) == (term.op == "is-null"))
            case _:
                stack.append(_asked(term.op, row[term.column[0]], term.literals))
    (result,) = stack
    return result


def _asked(op: str, value: Any, literals: tuple[Literal, ...]) -> bool | None:
    if value is None:
        return None
    wanted = [_parsed(literal) for literal in literals]
    if op == "in":
        return any(_compare("=", value, w) for w in wanted)
    if op == "starts-with":
        return bool(value.startswith(wanted[0]))
    return _compare(op, value, wanted[0])


def _parsed(literal: Literal) -> Any:
    text = literal.text or ""
    match literal.type:
        case "string":
            return text
        case "boolean":
            return text == "true"
        case "date":
            return dt.date.fromisoformat(text)
        case "timestamp":
            return dt.datetime.fromisoformat(text)
        case "double":
            return float(text)
        case kind:
            return Decimal(text) if kind.startswith("decimal") else int(text)
