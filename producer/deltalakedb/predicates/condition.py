"""A parsed condition and what it is good for: a filter for rows, pruning for files, a read set for the committer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from deltalakedb.delta_types import StructField, StructType
from deltalakedb.events import Literal, Predicate, Term

from .nodes import And, Compare, Constant, IsIn, IsNull, Node, Or, StartsWith, columns_of

if TYPE_CHECKING:
    import pyarrow.compute as pc

    from deltalakedb.catalog import PartitionFilter, SlotRange

TRUE = (Term("true"),)


class Condition:
    """A condition on the rows of one table."""

    __slots__ = ("node", "schema")

    def __init__(self, node: Node, schema: StructType) -> None:
        self.node = node
        self.schema = schema

    @property
    def columns(self) -> frozenset[str]:
        """Top-level columns that it looks at."""
        return frozenset(path[0] for path in columns_of(self.node))

    def expression(self) -> pc.Expression:
        """The filter for rows of the table."""
        from .rows import expression

        found: pc.Expression = expression(self.node, self.schema)
        return found

    def read_predicate(self) -> Predicate:
        """What was read, in the words of events: the same condition, or a wider one where those have none for it."""
        terms = _terms(self.node)
        return Predicate(terms if terms is not None else TRUE)

    def partition_filter(self, partition_columns: Collection[str]) -> PartitionFilter | None:
        """Whether files with some partition values may have matching rows; None if it does not depend on them."""
        from .pruning import partition_test

        if not self.columns & set(partition_columns):
            return None
        keys = {name: _field(self.schema, name) for name in partition_columns}
        return partition_test(self.node, keys)

    def slot_ranges(self) -> list[SlotRange]:
        """Ranges outside of which no file has matching rows."""
        from .pruning import slot_ranges

        return slot_ranges(self.node, self.schema)

    def may_match(self, stats: Mapping[str, object]) -> bool:
        """Whether a file with these statistics may have matching rows."""
        from .pruning import may_match

        return may_match(self.node, stats, self.schema)


def _field(schema: StructType, name: str) -> StructField:
    field = schema.field(name)
    assert field is not None, "partition columns are columns of the table"
    return field


def _terms(node: Node) -> tuple[Term, ...] | None:
    """Postfix terms; None for TRUE. Wider is always right: negation is at the leaves only."""
    match node:
        case Compare(column, op, value) if value.literal.text is not None:
            return (Term(op, column, (value.literal,)),)
        case IsIn(column, values, negated) if all(value.literal.text is not None for value in values):
            term = Term("in", column, tuple(value.literal for value in values))
            return (term, Term("not")) if negated else (term,)
        case IsNull(column, negated):
            return (Term("is-not-null" if negated else "is-null", column),)
        case StartsWith(column, prefix, negated):
            term = Term("starts-with", column, (Literal("string", prefix),))
            return (term, Term("not")) if negated else (term,)
        case Constant(value) if value is not True:
            return (*TRUE, Term("not"))
        case And(parts):
            known = [terms for terms in map(_terms, parts) if terms is not None]
            return _joined(known, "and") if known else None
        case Or(parts):
            every = [_terms(part) for part in parts]
            return None if None in every else _joined([terms for terms in every if terms is not None], "or")
        case _:
            return None


def _joined(parts: list[tuple[Term, ...]], connective: str) -> tuple[Term, ...]:
    terms = list(parts[0])
    for part in parts[1:]:
        terms += [*part, Term(connective)]
    return tuple(terms)
