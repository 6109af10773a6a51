"""What the client processes are to do, as plain data that travels to them as JSON."""

from __future__ import annotations

from typing import Literal

import msgspec


class Insert(msgspec.Struct, frozen=True, tag="insert"):
    """One transaction that stages batch `batch` of every table."""

    batch: int


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """One transaction that removes the files of an earlier insert from every table; the client picks which."""


Step = Insert | Remove


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """How files are told apart by the batch they came from: by the smallest value of a key column."""

    columns: dict[str, str]
    """Key column per table."""
    first: list[int]
    """Smallest key of every batch, ascending."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one client process does."""

    client: int
    folder: str
    """Where the batches lie."""
    tables: dict[str, str]
    """Name of the batches' folder per table of the lake."""
    steps: list[Step]
    keys: Keys | None = None
    seed: int = 1


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """What came of one step."""

    client: int
    kind: Literal["insert", "remove"]
    status: Literal["committed", "rejected", "unknown", "nothing"]
    """`nothing`: an empty batch, or nothing left to remove: no transaction was made."""
    batch: int | None = None
    txn_id: str | None = None
    commit_seq: int | None = None
    began: float = 0.0
    """Seconds since the epoch."""
    milliseconds: float = 0.0
    """From the first row read to the outcome known."""
    reason: str | None = None
    torn: bool = False
    """Whether the snapshot that a remove was planned from showed a batch in one table and not in the other."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The client cannot go on; `message` is what its user should read."""

    message: str
