"""The SQL port: one connection, and the subset of SQL that all our stores speak the same way.

The subset. Statements are written once, with `?` for parameters and `= ANY(?)` for "is one of this list"; an adapter
translates where its engine differs. Integers are 64 bit, times are integers (milliseconds since the epoch), flags are
booleans (an adapter gives back `bool` where a column is declared BOOLEAN), JSON and statistics are text, binary is
`bytes`. No statement relies on session state.

Outside a transaction each statement stands for itself. A driver's errors leave an adapter as `TxnLogDatabaseError`
with the cause kept and credentials removed; a connection lost while a COMMIT was under way as
`TxnLogCommitUnknownError`, because then only reading again tells what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]


class Database(Protocol):
    """One connection to one store. Used by one thread at a time; not used across a fork."""

    @property
    def dialect(self) -> str:
        """`postgres`, `sqlite` or `duckdb`: which migrations apply."""
        ...

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a statement. Lists among the parameters belong to `= ANY(?)`."""
        ...

    def stream(self, sql: str, parameters: Sequence[Any] = (), *, batch: int = 10_000) -> Iterator[list[Row]]:
        """Rows in batches, without ever holding all of them. Inside a `snapshot()` or `transaction()` only."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that changes something; the number of rows it touched."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for every row of parameters, with as few round trips as the engine allows."""
        ...

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows by the engine's fastest way for their number (COPY, multi-row insert, appender)."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """A read-write transaction: commits when the block ends, rolls back when it raises."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """A read-only transaction: every query in it sees the same state."""
        ...

    def script(self, sql: str) -> None:
        """Run a migration: several statements without parameters, in the transaction under way."""
        ...

    def close(self) -> None: ...
