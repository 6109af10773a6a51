"""What a version says of its operation, where several transactions have a part in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deltalakedb.events import TableWork

from .decisions import TableChange

_DIGITS = 18  # of a number that can be added up
_PLAIN = "WRITE"


class Operation(NamedTuple):
    """As in `commitInfo`."""

    name: str
    parameters: dict[str, str]
    metrics: dict[str, str]


def operation_of(parts: Sequence[TableWork] | Sequence[TableChange]) -> Operation:
    """What all parts say, numbers added up."""
    names = {part.operation for part in parts}
    return Operation(
        parts[0].operation if len(names) == 1 else _PLAIN,
        _shared([part.operation_parameters for part in parts]),
        _sums([part.operation_metrics for part in parts]),
    )


def _shared(given: Sequence[dict[str, str]]) -> dict[str, str]:
    """What all of them say."""
    first, *others = given
    if all(other == first for other in others):
        return first
    return {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}


def _sums(given: Sequence[dict[str, str]]) -> dict[str, str]:
    """Every number that all of them have, added up."""
    names: Iterable[str] = given[0] if all(given) else ()
    sums: dict[str, str] = {}
    for name in names:
        texts = [metrics.get(name, "") for metrics in given]
        if all(text.isascii() and text.isdigit() and len(text) <= _DIGITS for text in texts):
            sums[name] = str(sum(map(int, texts)))
    return sums
