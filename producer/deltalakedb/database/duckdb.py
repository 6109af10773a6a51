"""DuckDB behind the SQL port: one process, whose threads share one instance; many rows travel as Arrow."""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakSet

import duckdb
import pyarrow as pa

from deltalakedb.errors import (
    TxnLogCommitUnknownError,
    TxnLogConfigError,
    TxnLogDatabaseError,
    TxnLogStoreInUseError,
)

from .moving import copy_and_delete
from .port import Row
from .subset import LIST, VALUE, Columns, Statement, translated

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

BUSY_SECONDS = 30.0
"""How long a writer waits for another thread's transaction."""
ARROW_ROWS: Final = 32
"""From here on rows go in as one Arrow table, which takes a millisecond before the first of them (measured)."""

AT_ONCE: Final = 50_000
"""Rows that are held a second time, as Arrow."""

# A guest in somebody's process: no threads of its own, and memory for the sorting and hashing that our statements do.
# All connections to a file share its instance and therefore its settings.
_SETTINGS: Final[dict[str, Any]] = {
    "threads": 1,
    "memory_limit": "1GB",
    # Of the write-ahead log. A checkpoint writes whole groups of rows anew, which at the engine's 16 MB takes longer
    # than the inserts themselves, and at 64 MB still a third of the time (measured); after a crash a log of this size is
    # read back within two seconds, and its rows take no more memory meanwhile.
    "checkpoint_threshold": "256MB",
    # A snapshot begins where it says so, and not with its first query.
    "immediate_transaction_mode": True,
    # Names mean tables, whatever variables the caller has.
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_WRITE = "BEGIN TRANSACTION"
_READ = "BEGIN TRANSACTION READ ONLY"
_READS = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)
_ROWS = "dl_inserted_rows"
_LOCKED = re.compile(r"Could not set lock on file.*?(?:\(PID (\d+)\)|$)", re.DOTALL)


class _Stream:
    """What a statement under way has yet to give."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches


class _Instance:
    """What the connections of this process to one file have in common."""

    def __init__(self) -> None:
        self.writing = threading.Lock()
        self.broken = False
        """The engine refuses everything until the last connection is closed: then the file is opened anew."""


class DuckdbDatabase:
    """One connection to one file; a commit is on disk when it returns.

    Every thread has a connection of its own, and writers take turns, because two of them at once would not wait for
    each other but fail.
    """

    dialect = "duckdb"

    def __init__(self, path: str, *, create: bool = False, busy_seconds: float = BUSY_SECONDS) -> None:
        """Raises `TxnLogConfigError` if there is no such file and it is not to be created, `TxnLogStoreInUseError` if
        another process has it open."""
        # Under two names the engine would open one file twice, each with a memory of its own.
        self._path = os.path.realpath(path)
        self._busy_seconds = busy_seconds
        self._in_block = False
        self._failed = False
        self._stream: _Stream | None = None
        self._schemas: dict[tuple[str, tuple[str, ...]], pa.Schema] = {}
        if not create and not Path(self._path).is_file():
            raise TxnLogConfigError(
                f"there is no store at {path}: correct the path, or make a lake there: `deltalakedb migrate`"
            )
        if self._path in _inherited:
            raise _in_use(self._path, "the process that this one was forked from (start processes by spawn instead)")
        self._instance = _instances.setdefault(self._path, _Instance())
        self._closed = True
        with self._errors(f"cannot open {path}"):
            self._connection = duckdb.connect(self._path, config=_SETTINGS)
        self._closed = False
        _open.add(self)

    @property
    def alive(self) -> bool:
        """Whether the connection is open and its instance works."""
        return not (self._closed or self._instance.broken)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a statement. Raises `TxnLogDatabaseError`."""
        if not self._in_block and not _READS.match(sql):
            with self.transaction():
                return self.query(sql, parameters)
        with self._errors("a query failed"):
            return self._run(sql, parameters).fetchall()

    def query_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """All rows of each statement. Raises `TxnLogDatabaseError`."""
        return [self.query(sql, parameters) for sql, parameters in statements]

    def stream(self, sql: str, parameters: Sequence[Any] = (), *, batch: int = 10_000) -> Iterator[list[Row]]:
        """Rows in batches. Raises `TxnLogDatabaseError`."""
        self._require_block()
        with self._errors("a query failed"):
            running = self._run(sql, parameters)
            yield from self._streamed(iter(functools.partial(running.fetchmany, batch), []))

    def stream_arrow(
        self, sql: str, parameters: Sequence[Any] = (), *, schema: pa.Schema, batch: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """Rows in Arrow batches, as the engine makes them. Raises `TxnLogDatabaseError`."""
        self._require_block()
        with self._errors("a query failed"):
            reader = self._run(sql, parameters).to_arrow_reader(batch)
            for found in self._streamed(iter(reader)):
                arrays = [array.cast(field.type) for array, field in zip(found.columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows it touched. Raises `TxnLogDatabaseError`."""
        if not self._in_block:
            with self.transaction():
                return self.execute(sql, parameters)
        with self._errors("a statement failed"):
            counted = self._run(sql, parameters).fetchone()
            return int(counted[0]) if counted else 0

    def submit(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement. Raises `TxnLogDatabaseError`."""
        self.execute(sql, parameters)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for every row of parameters. Raises `TxnLogDatabaseError`."""
        if not rows:
            return
        if not self._in_block:
            with self.transaction():
                self.execute_many(sql, rows)
            return
        self._check_usable()
        statement = _translated(sql)
        with self._errors("a statement failed"):
            self._end_stream()
            self._connection.executemany(statement.text, [_bound(statement, row) for row in rows])

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows: few as parameters of one statement, many as an Arrow table. Raises `TxnLogDatabaseError`."""
        if not rows:
            return
        into = f"INSERT INTO {table} ({', '.join(columns)})"
        if len(rows) < ARROW_ROWS:
            places = f"({', '.join('?' * len(columns))})"
            self.execute(f"{into} VALUES {', '.join([places] * len(rows))}", list(itertools.chain.from_iterable(rows)))
            return
        if not self._in_block:
            with self.transaction():
                self.insert(table, columns, rows)
            return
        with self._errors(f"writing to {table} failed"):
            self._check_usable()
            self._end_stream()
            schema = self._schema(table, tuple(columns))
            for start in range(0, len(rows), AT_ONCE):
                values = zip(*rows[start : start + AT_ONCE], strict=True)
                arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
                self._connection.register(_ROWS, pa.Table.from_arrays(arrays, schema=schema))
                self._connection.execute(f"{into} SELECT * FROM {_ROWS}")
                self._connection.unregister(_ROWS)

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
        """Copy rows, then delete them. Raises `TxnLogDatabaseError`."""
        if not self._in_block:
            with self.transaction():
                return self.move(source, target, columns, rows, by=by, adding=adding)
        return copy_and_delete(self, source, target, columns, rows, by=by, adding=adding)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A read-write transaction, which waits for its turn at the beginning."""
        self._check_usable()
        if self._in_block:
            raise _nested()
        if not self._instance.writing.acquire(timeout=self._busy_seconds):
            raise TxnLogDatabaseError(
                f"another thread has been writing to {self._path} for {self._busy_seconds:.0f} s", transient=True
            )
        try:
            with self._block(_WRITE):
                yield
        finally:
            self._instance.writing.release()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A read-only transaction; writers go on beside it."""
        self._check_usable()
        if self._in_block:
            raise _nested()
        with self._block(_READ):
            yield

    def script(self, sql: str) -> None:
        """Run several statements in the transaction under way."""
        self._require_block()
        with self._errors("a migration failed"):
            self._end_stream()
            self._connection.execute(sql)

    def cancel(self) -> None:
        """Have the statement that another thread is running fail."""
        if not self._closed:
            self._connection.interrupt()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if not self._closed:
            self._closed = True
            _open.discard(self)
            self._connection.close()

    def _run(self, sql: str, parameters: Sequence[Any]) -> duckdb.DuckDBPyConnection:
        self._check_usable()
        self._end_stream()
        statement = _translated(sql)
        return self._connection.execute(statement.text, _bound(statement, parameters))

    def _schema(self, table: str, columns: tuple[str, ...]) -> pa.Schema:
        schema = self._schemas.get((table, columns))
        if schema is None:
            found = self._connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0").to_arrow_table()
            schema = self._schemas[table, columns] = found.schema
        return schema

    @contextmanager
    def _block(self, begin: str) -> Iterator[None]:
        try:
            with self._errors("a transaction could not begin"):
                self._connection.execute(begin)
            self._in_block = True
            yield
            self._end_stream()
            if self._failed:
                raise TxnLogDatabaseError("the transaction is rolled back: one of its statements failed")
        except BaseException:
            self._roll_back()
            raise
        self._in_block = False
        self._commit()

    def _commit(self) -> None:
        self._check_usable()
        try:
            self._connection.execute("COMMIT")
        except duckdb.Error as error:
            if self._breaks(error):
                raise TxnLogCommitUnknownError(f"the disk failed during a COMMIT: {error}") from error
            raise _error("a COMMIT failed", error) from error

    def _roll_back(self) -> None:
        """End the transaction; an error in that never hides the one that is under way."""
        began, self._in_block, self._failed, self._stream = self._in_block, False, False, None
        while self.alive and began:
            try:
                self._connection.execute("ROLLBACK")
                began = False
            except (duckdb.InterruptException, duckdb.TransactionException) as error:
                # Interrupted, which was meant for the statement before; it may have ended the transaction all the same.
                began = "no transaction is active" not in str(error)
            except duckdb.Error:
                logger.warning("a ROLLBACK failed; the connection is closed instead", exc_info=True)
                self.close()

    def _streamed(self, batches: Iterator[_T]) -> Iterator[_T]:
        """Batches of the statement under way, until the next one takes the connection from it."""
        stream = self._stream = _Stream(batches)
        try:
            while (batch := next(stream.batches, None)) is not None:
                yield batch
        finally:
            if self._stream is stream:
                self._stream = None

    def _end_stream(self) -> None:
        """What a stream has not given yet is fetched now."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.batches = iter(list(stream.batches))

    def _check_usable(self) -> None:
        if not self.alive:
            raise TxnLogDatabaseError(f"the connection to {self._path} is closed")
        if self._failed:
            raise TxnLogDatabaseError("an earlier statement of this transaction failed: it can only be rolled back")

    def _require_block(self) -> None:
        self._check_usable()
        if not self._in_block:
            raise TxnLogDatabaseError("this needs a snapshot() or transaction() around it")

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, pa.ArrowException) as error:
            self._failed = self._in_block
            locked = _LOCKED.search(str(error))
            if locked is not None:
                other = f"another process (PID {locked[1]})" if locked[1] else "another process"
                raise _in_use(self._path, other) from error
            self._breaks(error)
            raise _error(what, error) from error

    def _breaks(self, error: Exception) -> bool:
        """Whether the error ends the instance, for all of its connections."""
        if not isinstance(error, duckdb.FatalException | duckdb.InternalException):
            return False
        self._instance.broken = True
        if _instances.get(self._path) is self._instance:
            del _instances[self._path]
        self.close()
        return True


def _in_use(path: str, by: str) -> TxnLogStoreInUseError:
    return TxnLogStoreInUseError(
        f"the DuckDB store {path} is open in {by}, and DuckDB takes one process at a time: close the lake there, or "
        "keep it in SQLite or Postgres, which many processes can use at once"
    )


def _nested() -> TxnLogDatabaseError:
    return TxnLogDatabaseError("a transaction is under way on this connection already")


def _error(what: str, error: Exception) -> TxnLogDatabaseError:
    text = f"{what}: {error}"
    if isinstance(error, duckdb.CatalogException) and "Table with name dl_" in text:
        text += " (the store is not of this release: run `deltalakedb migrate`)"
    refuses_rows = isinstance(error, duckdb.DataError | duckdb.IntegrityError)
    transient = isinstance(error, duckdb.TransactionException)
    return TxnLogDatabaseError(text, transient=transient, refuses_rows=refuses_rows)


@functools.lru_cache(maxsize=1024)
def _translated(sql: str) -> Statement:
    return translated(sql, value="?", any_of="IN (SELECT unnest(?))", rows=_rows)


def _rows(alias: str, columns: Columns) -> str:
    fields = ", ".join(f"unnest(CAST(? AS {kind}[])) AS {name}" for name, kind in columns)
    return f"(SELECT {fields}) AS {alias}"


def _bound(statement: Statement, parameters: Sequence[Any]) -> list[Any]:
    bound: list[Any] = []
    for kind, value in zip(statement.kinds, parameters, strict=True):
        if kind == VALUE:
            bound.append(value)
        elif kind == LIST:
            bound.append(list(value))
        else:
            bound += map(list, zip(*value, strict=True)) if value else [[] for _ in range(kind)]
    return bound


_instances: dict[str, _Instance] = {}
"""By path."""
_open: WeakSet[DuckdbDatabase] = WeakSet()
_inherited: set[str] = set()
"""Files that were open when this process was forked: their instance here is a copy that must never touch them."""


def _after_fork_in_child() -> None:
    """Keep what was inherited from ever being closed, at the end of the interpreter too.

    Closing would write the parent's changes into its file once more and delete the write-ahead log that it goes on
    with; and closing the connection that the engine's module has by itself would wait for threads that are not here.
    """
    inherited = list(_open)
    for database in inherited:
        database._closed = True
        _inherited.add(database._path)
    for connection in (duckdb.default_connection(), *(database._connection for database in inherited)):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_after_fork_in_child)
