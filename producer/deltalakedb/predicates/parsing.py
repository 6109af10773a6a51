"""SQL text and filter lists to conditions. Names are looked up in the table's schema, literals made its types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from deltalakedb.delta_types import DataType, StructType
from deltalakedb.errors import TxnLogValidationError

from .condition import Condition
from .literals import number_of, value_of
from .nodes import (
    TURNED,
    And,
    Compare,
    CompareColumns,
    Constant,
    IsIn,
    IsNull,
    Like,
    Node,
    Or,
    Path,
    StartsWith,
    Value,
    negate,
)

Filter = tuple[str, str, Any]
Predicate = str | Sequence[Filter] | Sequence[Sequence[Filter]]
"""SQL text, a list of (column, operator, value) that must all hold, or a list of such lists of which one must."""

_SUPPORTED = (
    "comparisons of a column with a literal or another column, IN, BETWEEN, IS [NOT] NULL, IS [NOT] TRUE or FALSE, "
    "LIKE, starts_with, AND, OR and NOT"
)
_OPERATORS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def parse_condition(predicate: Predicate, schema: StructType) -> Condition:
    """The condition that `predicate` is on rows of `schema`.

    Raises `TxnLogValidationError` for what cannot be understood or evaluated, naming it.
    """
    node = _from_sql(predicate, schema) if isinstance(predicate, str) else _from_filters(predicate, schema)
    return Condition(node, schema)


# Filter lists.


def _from_filters(filters: Sequence[Any], schema: StructType) -> Node:
    if not filters:
        return Constant(True)
    if all(isinstance(part, tuple) for part in filters):
        return And(tuple(_filter(part, schema) for part in filters))
    if all(isinstance(part, list) for part in filters):
        return Or(tuple(_from_filters(part, schema) for part in filters))
    raise TxnLogValidationError("a filter is a list of (column, operator, value), or a list of such lists")


def _filter(part: Any, schema: StructType) -> Node:
    if len(part) != 3 or not isinstance(part[0], str) or not isinstance(part[1], str):
        raise TxnLogValidationError(f"{part!r} is not (column, operator, value)")
    name, operator, given = part
    path = (name,) if schema.field(name) is not None else tuple(name.split("."))
    path, data_type = _resolve(path, schema)
    operator = operator.strip().lower()
    if operator in ("in", "not in"):
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise TxnLogValidationError(f"({name!r}, {operator!r}, ...) needs a list of values")
        return _is_in(path, data_type, list(given), operator == "not in")
    if operator not in _OPERATORS:
        raise TxnLogValidationError(f"operator {operator!r} is none of =, !=, <, <=, >, >=, in, not in")
    operator = _OPERATORS[operator]
    if given is None:
        if operator not in ("=", "!="):
            raise TxnLogValidationError(f"({name!r}, {operator!r}, None): only = and != are asked of None")
        return IsNull(path, operator == "!=")
    return Compare(path, operator, value_of(given, data_type, name))


# SQL.


@cache
def _dialect() -> Any:
    """SQL in which both "name" and `name` are names, and 'text' alone is text."""
    from sqlglot import Dialect, tokens

    class Names(Dialect):
        class Tokenizer(tokens.Tokenizer):
            IDENTIFIERS = ['"', "`"]  # noqa: RUF012 - as its base class declares it

    return Names


def _from_sql(text: str, schema: StructType) -> Node:
    from sqlglot import errors, parse_one

    try:
        tree = parse_one(text, dialect=_dialect())
    except errors.SqlglotError as error:
        reason = re.sub("\x1b[^m]*m", "", str(error)).split("\n")[0]
        raise TxnLogValidationError(f"the predicate {text!r} is not SQL: {reason}") from error
    return _Reader(text, schema).node(tree)


class _Reader:
    """Reads one SQL tree."""

    def __init__(self, text: str, schema: StructType) -> None:
        self._text = text
        self._schema = schema

    def node(self, tree: Any) -> Node:
        from sqlglot import exp

        found = self._plain(tree)
        if tree.args.get("negate"):
            return negate(found)
        if isinstance(tree, exp.NullSafeNEQ):
            return negate(found)
        return found

    def _plain(self, tree: Any) -> Node:
        from sqlglot import exp

        match tree:
            case exp.Paren():
                return self.node(tree.this)
            case exp.And():
                return And((self.node(tree.left), self.node(tree.right)))
            case exp.Or():
                return Or((self.node(tree.left), self.node(tree.right)))
            case exp.Not():
                return negate(self.node(tree.this))
            case exp.Boolean():
                return Constant(bool(tree.this))
            case exp.Null():
                return Constant(None)
            case exp.Column() | exp.Dot():
                return self._flag(tree)
            case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
                return self._compare(_SQL_OPERATORS[type(tree).__name__], tree.left, tree.right)
            case exp.NullSafeEQ() | exp.NullSafeNEQ():
                return self._same(tree)
            case exp.Is():
                return self._is(tree)
            case exp.In() if tree.expressions and not tree.args.get("query"):
                path, data_type = self._column(tree.this)
                return _is_in(path, data_type, [self._literal(item) for item in tree.expressions], False)
            case exp.Between():
                low = self._compare(">=", tree.this, tree.args["low"])
                return And((low, self._compare("<=", tree.this, tree.args["high"])))
            case exp.StartsWith():
                return StartsWith(self._string(tree.this), self._pattern(tree.expression))
            case exp.Like() | exp.ILike():
                return self._like(tree)
            case _:
                raise self._unsupported(tree)

    def _flag(self, tree: Any) -> Node:
        path, data_type = self._column(tree)
        if data_type != "boolean":
            raise TxnLogValidationError(f"column {'.'.join(path)} is not a condition: it is not boolean")
        return Compare(path, "=", value_of(True, "boolean", path[-1]))

    def _compare(self, operator: str, left: Any, right: Any) -> Node:
        if self._is_column(left) and self._is_column(right):
            (one, one_type), (other, other_type) = self._column(left), self._column(right)
            if one_type != other_type and not (_is_numeric(one_type) and _is_numeric(other_type)):
                raise TxnLogValidationError(f"columns {'.'.join(one)} and {'.'.join(other)} cannot be compared")
            return CompareColumns(one, operator, other)
        if self._is_column(right):
            left, right, operator = right, left, TURNED[operator]
        if not self._is_column(left):
            raise self._unsupported(left)
        path, data_type = self._column(left)
        given = self._literal(right)
        return Constant(None) if given is None else Compare(path, operator, value_of(given, data_type, ".".join(path)))

    def _same(self, tree: Any) -> Node:
        """`IS NOT DISTINCT FROM`: never NULL."""
        left, right = (tree.left, tree.right) if self._is_column(tree.left) else (tree.right, tree.left)
        path, data_type = self._column(left)
        given = self._literal(right)
        if given is None:
            return IsNull(path)
        return And((IsNull(path, negated=True), Compare(path, "=", value_of(given, data_type, ".".join(path)))))

    def _is(self, tree: Any) -> Node:
        from sqlglot import exp

        path, data_type = self._column(tree.this)
        if isinstance(tree.expression, exp.Null):
            return IsNull(path)
        if isinstance(tree.expression, exp.Boolean) and data_type == "boolean":
            wanted = value_of(bool(tree.expression.this), "boolean", path[-1])
            return And((IsNull(path, negated=True), Compare(path, "=", wanted)))
        raise self._unsupported(tree)

    def _like(self, tree: Any) -> Node:
        from sqlglot import exp

        pattern = self._pattern(tree.expression)
        if "\\" in pattern:
            raise self._unsupported(tree)
        path = self._string(tree.this)
        if isinstance(tree, exp.ILike):
            return Like(path, pattern, ignore_case=True)
        if re.fullmatch("[^%_]*%", pattern):
            return StartsWith(path, pattern[:-1])
        return Like(path, pattern)

    def _string(self, tree: Any) -> Path:
        path, data_type = self._column(tree)
        if data_type != "string":
            raise TxnLogValidationError(f"column {'.'.join(path)} is not text")
        return path

    def _pattern(self, tree: Any) -> str:
        pattern = self._literal(tree)
        if not isinstance(pattern, str):
            raise self._unsupported(tree)
        return pattern

    def _is_column(self, tree: Any) -> bool:
        from sqlglot import exp

        return isinstance(tree, exp.Column | exp.Dot)

    def _column(self, tree: Any) -> tuple[Path, DataType]:
        if not self._is_column(tree):
            raise self._unsupported(tree)
        return _resolve(tuple(part.name for part in tree.parts), self._schema)

    def _literal(self, tree: Any) -> Any:
        from sqlglot import exp

        match tree:
            case exp.Null():
                return None
            case exp.Boolean():
                return bool(tree.this)
            case exp.Literal():
                return tree.this if tree.is_string else number_of(tree.this)
            case exp.Neg() if isinstance(tree.this, exp.Literal) and not tree.this.is_string:
                return -number_of(tree.this.this)
            case exp.Paren():
                return self._literal(tree.this)
            case exp.Cast() if isinstance(tree.this, exp.Literal) and tree.to.this.name in _CASTS:
                return tree.this.this if tree.this.is_string else number_of(tree.this.this)
            case _:
                raise self._unsupported(tree)

    def _unsupported(self, tree: Any) -> TxnLogValidationError:
        return TxnLogValidationError(
            f"{tree.sql(dialect=_dialect())!r} in the predicate {self._text!r} cannot be evaluated here; {_SUPPORTED} can. "
            "Read without it and filter the rows"
        )


_SQL_OPERATORS = {"EQ": "=", "NEQ": "!=", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_CASTS = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPLTZ", "TIMESTAMPNTZ", "DATETIME"})
"""`DATE '2020-01-01'` and its like: the column says what the text is."""


def _is_in(path: Path, data_type: DataType, given: list[Any], negated: bool) -> Node:
    values: tuple[Value, ...] = tuple(value_of(g, data_type, ".".join(path)) for g in given if g is not None)
    found: Node = IsIn(path, values) if values else Constant(False)
    if len(values) < len(given):  # x IN (1, NULL) is never false
        found = Or((found, Constant(None)))
    return negate(found) if negated else found


def _resolve(names: Path, schema: StructType) -> tuple[Path, DataType]:
    """The column's exact path and type; case is ignored where it does not tell columns apart."""
    found: list[str] = []
    inside: DataType = schema
    for name in names:
        field = None
        if isinstance(inside, StructType):
            field = inside.field(name) or next((f for f in inside.fields if f.name.lower() == name.lower()), None)
        if field is None:
            known = ", ".join(f.name for f in schema.fields)
            raise TxnLogValidationError(f"the table has no column {'.'.join(names)}; its columns are {known}")
        found.append(field.name)
        inside = field.type
    return tuple(found), inside


def _is_numeric(data_type: DataType) -> bool:
    return data_type in ("byte", "short", "integer", "long", "float", "double") or (
        isinstance(data_type, str) and data_type.startswith("decimal")
    )
