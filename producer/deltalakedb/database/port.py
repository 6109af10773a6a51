"""The SQL port: one connection, and the subset of SQL that all our stores speak the same way.

The subset. Statements are written once and an adapter translates where its engine differs:

    ?                                   a parameter
    column = ANY(?)                     a parameter that is a list of integers or of texts
    ROWS(?) AS k (a BIGINT, b TEXT)     a parameter that is a list of rows, to be read from like a table; beside it a
                                        table is joined by `CROSS JOIN` and `WHERE`, which reads the list first

A `?` or `%` stands in no literal. Integers are 64 bit, times are integers (milliseconds since the epoch), flags are
booleans (an adapter gives back `bool` where a column is declared BOOLEAN, known by the column's name), JSON and
statistics are text, binary is `bytes`. No statement relies on session state.

Outside a transaction each call stands for itself, all or nothing. In a transaction a statement that failed dooms it:
nothing but rolling back is left, and a block that swallows the error fails at its end. A driver's errors leave an
adapter as `TxnLogDatabaseError` with the cause kept and credentials removed; a connection lost while a COMMIT was
under way as `TxnLogCommitUnknownError`, because then only reading again tells what happened. A connection that broke,
or was closed, stays so and every call raises: reconnecting is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[Any, ...]


class Database(Protocol):
    """One connection to one store. Used by one thread at a time; not used across a fork."""

    @property
    def dialect(self) -> str:
        """`postgres`, `sqlite` or `duckdb`: which migrations apply."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the connection is open and looks unbroken, told without asking the server."""
        ...

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a statement; one that changes something gives rows by `RETURNING`."""
        ...

    def query_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """As `query` for each statement with its parameters; in a block with one round trip for all of them."""
        ...

    def stream(self, sql: str, parameters: Sequence[Any] = (), *, batch: int = 10_000) -> Iterator[list[Row]]:
        """Rows in batches, without ever holding all of them. Inside a `snapshot()` or `transaction()` only."""
        ...

    def stream_arrow(
        self, sql: str, parameters: Sequence[Any] = (), *, schema: pa.Schema, batch: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """As `stream`, the engine's fastest way for many rows: as record batches of `schema`, whose fields are the columns
        in their order. It takes a moment longer to begin, and the size of batches is a wish."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that changes something; the number of rows it touched."""
        ...

    def submit(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement whose result nobody needs. In a transaction it may be sent along with what comes next, so
        that its error, if it has one, shows there or at the end of the block."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """`submit` one statement for every row of parameters, with as few round trips as the engine allows."""
        ...

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """`submit` new rows by the engine's fastest way for their number (COPY, pipelined inserts, appender)."""
        ...

    def move(
        self,
        source: str,
        target: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[int]],
        *,
        by: Sequence[str],
        adding: Sequence[str],
    ) -> int:
        """Move rows to a table that has the same `columns`, and those of `adding` besides; how many were there to move.

        `rows` are integers: for each row that moves its values of `by`, a unique key, then those of `adding`. Many are
        moved faster in the order of the key.
        """
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """A read-write transaction: commits when the block ends, rolls back when it raises. Not nested."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """A read-only transaction: every query in it sees the same state. Not nested."""
        ...

    def script(self, sql: str) -> None:
        """Run a migration: several statements without parameters, in the transaction under way."""
        ...

    def cancel(self) -> None:
        """Have the statement that another thread is running fail, if there is one. Returns before it has."""
        ...

    def close(self) -> None:
        """Let go of the connection; what was not committed is lost. Idempotent."""
        ...
