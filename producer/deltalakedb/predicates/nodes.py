"""Conditions as trees without NOT: negation is pushed down to the leaves, which is exact in three-valued logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deltalakedb.events import Literal

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A literal: as Python has it, and as an event and the log carry it."""

    python: Any
    literal: Literal


@dataclass(frozen=True, slots=True)
class Compare:
    """`column op value`, op one of = != < <= > >=."""

    column: Path
    op: str
    value: Value


@dataclass(frozen=True, slots=True)
class IsIn:
    """The column has one of the values, or (negated) has a value and none of these. No value is NULL."""

    column: Path
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsNull:
    """The column is NULL, or (negated) is not."""

    column: Path
    negated: bool = False


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The text begins with the prefix, or (negated) is a text that does not."""

    column: Path
    prefix: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Like:
    """The text matches the SQL pattern, or (negated) is a text that does not."""

    column: Path
    pattern: str
    negated: bool = False
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class CompareColumns:
    """`left op right` of two columns."""

    left: Path
    op: str
    right: Path


@dataclass(frozen=True, slots=True)
class Constant:
    """TRUE, FALSE or NULL."""

    value: bool | None


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Node, ...]


Node = Compare | IsIn | IsNull | StartsWith | Like | CompareColumns | Constant | And | Or

OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
TURNED = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


def negate(node: Node) -> Node:
    """NOT of a condition."""
    match node:
        case And(parts):
            return Or(tuple(map(negate, parts)))
        case Or(parts):
            return And(tuple(map(negate, parts)))
        case Compare(column, op, value):
            return Compare(column, OPPOSITE[op], value)
        case CompareColumns(left, op, right):
            return CompareColumns(left, OPPOSITE[op], right)
        case Constant(value):
            return Constant(None if value is None else not value)
        case IsIn(column, values, negated):
            return IsIn(column, values, not negated)
        case IsNull(column, negated):
            return IsNull(column, not negated)
        case StartsWith(column, prefix, negated):
            return StartsWith(column, prefix, not negated)
        case Like(column, pattern, negated, ignore_case):
            return Like(column, pattern, not negated, ignore_case)


def columns_of(node: Node) -> set[Path]:
    """The columns that a condition looks at."""
    match node:
        case And(parts) | Or(parts):
            return set().union(*map(columns_of, parts))
        case Constant():
            return set()
        case CompareColumns(left, _, right):
            return {left, right}
        case _:
            return {node.column}
