"""What the demo checks at the end, and how a result is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from . import engine
from .plan import Done, Keys, Step


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: `seen` of it, of which `wrong` were not as they must be."""

    what: str
    reader: str
    seen: int
    wrong: int
    ok: bool

    @classmethod
    def of(cls, what: str, reader: str, seen: int, wrong: int) -> Check:
        """A check that passes if there was something to see and nothing of it was wrong."""
        return cls(what=what, reader=reader, seen=seen, wrong=wrong, ok=seen > 0 and wrong == 0)


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A watermark: where every table lies, and its version at one commit of the lake."""

    commit_seq: int
    versions: dict[str, int]
    locations: dict[str, str]


class Workload(Protocol):
    """What is sent, and what must be found afterwards."""

    title: str
    tables: Mapping[str, str]
    """Per table of the lake, the folder of its batches."""
    keys: Keys | None
    properties: Mapping[str, str] | None
    """Properties of the tables, which are then made by a transaction of their own; None: by the first append."""

    def steps(self, clients: int) -> list[list[Step]]:
        """What each of `clients` processes does."""
        ...

    def check(self, reader: engine.Reader, pins: Sequence[Pin], done: Sequence[Done]) -> list[Check]:
        """Read the tables by path at `pins` (the last one is final) and compare them with what was acknowledged."""
        ...


def same_rows(connection: engine.Connection, what: str, reader: str, found: str, expected: str) -> Check:
    """Whether two relations of the same columns have the same rows, duplicates counted."""
    seen, wrong = engine.integers(
        connection,
        f"SELECT (SELECT count(*) FROM {expected}), "
        f"(SELECT count(*) FROM ((FROM {found}) EXCEPT ALL (FROM {expected}))) + "
        f"(SELECT count(*) FROM ((FROM {expected}) EXCEPT ALL (FROM {found})))",
    )
    return Check.of(what, reader, seen, wrong)
