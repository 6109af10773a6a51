"""The port's subset of SQL, taken apart: which parameters a statement has, and where an engine writes them its own way."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

VALUE: Final = 0
"""A parameter that is one value."""
LIST: Final = -1
"""A parameter of `= ANY(?)`; one of `ROWS(?)` has its number of columns instead."""

Columns = list[tuple[str, str]]
"""Names and types of the columns that a `ROWS(?)` declares."""

_TOKEN = re.compile(r"ROWS\(\?\) AS (\w+) \(([^)]*)\)|= ANY\(\?\)|\?|%")


class Statement(NamedTuple):
    """A statement as the engine takes it, and the kind of each of its parameters in order."""

    text: str
    kinds: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether the parameters go to the driver as they are."""
        return not any(self.kinds)


def translated(
    sql: str, *, value: str, any_of: str, rows: Callable[[str, Columns], str], percent: str = "%"
) -> Statement:
    """`sql` with each of its parameters written the way an engine wants it."""
    kinds: list[int] = []

    def replace(match: re.Match[str]) -> str:
        token = match.group()
        if token == "%":
            return percent
        if token == "?":
            kinds.append(VALUE)
            return value
        if match.group(1) is None:
            kinds.append(LIST)
            return any_of
        columns = [(name, kind) for name, kind in (column.split() for column in match.group(2).split(","))]
        kinds.append(len(columns))
        return rows(match.group(1), columns)

    text = _TOKEN.sub(replace, sql)
    return Statement(text, tuple(kinds))
