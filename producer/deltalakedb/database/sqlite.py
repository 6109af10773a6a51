"""SQLite behind the SQL port: standard library only, several processes on one host."""

from __future__ import annotations

import functools
import json
import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deltalakedb.errors import TxnLogCommitUnknownError, TxnLogConfigError, TxnLogDatabaseError

from .arrow import batches_of
from .moving import copy_and_delete
from .port import Row
from .subset import VALUE, Columns, Statement, translated

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

BUSY_SECONDS = 30.0
"""How long a statement waits for another process's write."""
CACHED_STATEMENTS = 256
PAGE_CACHE_KIB = 65_536

_WRITE = "BEGIN IMMEDIATE"
_READ = "BEGIN"
_POLL_SECONDS = 0.0002
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class SqliteDatabase:
    """One connection to one file in WAL mode; a commit is on disk (synchronous=FULL) when it returns."""

    dialect = "sqlite"

    def __init__(self, path: str, *, create: bool = False, busy_seconds: float = BUSY_SECONDS) -> None:
        """Raises `TxnLogConfigError` if there is no such file and it is not to be created."""
        self._path = path
        self._busy_seconds = busy_seconds
        self._in_block = False
        self._failed = False
        if not create and not Path(path).is_file():
            raise TxnLogConfigError(
                f"there is no store at {path}: correct the path, or make a lake there: `deltalakedb migrate`"
            )
        mode = "rwc" if create else "rw"
        with self._errors(f"cannot open {path}"):
            self._connection = sqlite3.connect(
                f"file:{quote(path)}?mode={mode}",
                uri=True,
                timeout=busy_seconds,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=CACHED_STATEMENTS,
            )
        self.alive = True
        try:
            with self._errors(f"cannot open {path}"):
                self._prepare()
                self._flags = self._boolean_columns()
        except BaseException:
            self.close()
            raise

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a statement. Raises `TxnLogDatabaseError`."""
        with self._errors("a query failed"):
            cursor = self._run(sql, parameters)
            return self._typed(cursor, cursor.fetchall())

    def query_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """All rows of each statement. Raises `TxnLogDatabaseError`."""
        return [self.query(sql, parameters) for sql, parameters in statements]

    def stream(self, sql: str, parameters: Sequence[Any] = (), *, batch: int = 10_000) -> Iterator[list[Row]]:
        """Rows in batches. Raises `TxnLogDatabaseError`."""
        self._require_block()
        with self._errors("a query failed"):
            cursor = self._run(sql, parameters)
            while rows := cursor.fetchmany(batch):
                yield self._typed(cursor, rows)

    def stream_arrow(
        self, sql: str, parameters: Sequence[Any] = (), *, schema: pa.Schema, batch: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """Rows in Arrow batches. Raises `TxnLogDatabaseError`."""
        yield from batches_of(self.stream(sql, parameters, batch=batch), schema)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows it touched. Raises `TxnLogDatabaseError`."""
        if not self._in_block:
            with self.transaction():
                return self.execute(sql, parameters)
        with self._errors("a statement failed"):
            return self._run(sql, parameters).rowcount

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
        bound = rows if statement.plain else [_bound(statement, row) for row in rows]
        with self._errors("a statement failed"):
            self._connection.executemany(statement.text, bound)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows. Raises `TxnLogDatabaseError`."""
        places = ", ".join("?" * len(columns))
        self.execute_many(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)

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
        """A read-write transaction, which takes the one write lock at its beginning."""
        with self._block(_WRITE):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A read-only transaction; writers go on beside it."""
        self._check_usable()
        self._connection.execute("PRAGMA query_only = 1")
        try:
            with self._block(_READ):
                yield
        finally:
            if self.alive:
                self._connection.execute("PRAGMA query_only = 0")

    def script(self, sql: str) -> None:
        """Run several statements in the transaction under way (`executescript` of the driver would commit it)."""
        self._require_block()
        with self._errors("a migration failed"):
            for statement in _split(sql):
                self._connection.execute(statement)
            self._flags = self._boolean_columns()

    def cancel(self) -> None:
        """Have the statement that another thread is running fail."""
        if self.alive:
            self._connection.interrupt()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.alive = False
        self._connection.close()

    def _prepare(self) -> None:
        deadline = time.monotonic() + self._busy_seconds
        execute = self._connection.execute
        while execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                # Two processes that make the file at once: the change of mode does not wait for the other's lock.
                if error.sqlite_errorcode not in _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA foreign_keys = ON")
        execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")

    def _boolean_columns(self) -> frozenset[str]:
        """Names of columns declared BOOLEAN: the engine itself keeps them as 0 and 1."""
        found = self._connection.execute(
            "SELECT DISTINCT c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c "
            "WHERE t.type = 'table' AND upper(c.type) = 'BOOLEAN'"
        )
        return frozenset(name for (name,) in found)

    def _typed(self, cursor: sqlite3.Cursor, rows: list[Row]) -> list[Row]:
        flags = [n for n, column in enumerate(cursor.description or ()) if column[0] in self._flags]
        if not flags or not rows:
            return rows
        typed = []
        for row in rows:
            values = list(row)
            for n in flags:
                if values[n] is not None:
                    values[n] = bool(values[n])
            typed.append(tuple(values))
        return typed

    def _run(self, sql: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        self._check_usable()
        statement = _translated(sql)
        return self._connection.execute(
            statement.text, parameters if statement.plain else _bound(statement, parameters)
        )

    @contextmanager
    def _block(self, begin: str) -> Iterator[None]:
        self._check_usable()
        if self._in_block:
            raise TxnLogDatabaseError("a transaction is under way on this connection already")
        self._in_block = True
        try:
            with self._errors("a transaction could not begin"):
                if begin == _WRITE:
                    self._wait_to_write()
                else:
                    self._connection.execute(begin)
                    # The state is fixed by the first read, not by BEGIN.
                    self._connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
            yield
            if self._failed:
                raise TxnLogDatabaseError("the transaction is rolled back: one of its statements failed")
        except BaseException:
            self._roll_back()
            raise
        self._in_block = False
        self._commit()

    def _wait_to_write(self) -> None:
        """Take the write lock. The engine's own waiting backs off to 100 ms, which starves whoever meets a busy writer."""
        execute = self._connection.execute
        deadline = time.monotonic() + self._busy_seconds
        execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    execute(_WRITE)
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                        raise
                time.sleep(_POLL_SECONDS)
        finally:
            execute(f"PRAGMA busy_timeout = {int(self._busy_seconds * 1000)}")

    def _commit(self) -> None:
        self._check_usable()
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._roll_back()
                raise _error("a COMMIT failed", error) from error
            raise TxnLogCommitUnknownError(f"the disk failed during a COMMIT: {error}") from error

    def _roll_back(self) -> None:
        """End the transaction; an error in that never hides the one that is under way."""
        self._failed = self._in_block = False
        while self.alive and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                # Interrupted: that was meant for the statement before.
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    logger.warning("a ROLLBACK failed; the connection is closed instead", exc_info=True)
                    self.close()

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
        except sqlite3.Error as error:
            self._failed = self._in_block
            raise _error(what, error) from error


def _error(what: str, error: sqlite3.Error) -> TxnLogDatabaseError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = f"{what}: {error}"
    if code in _BUSY:
        text += " (another process holds the write lock for long; see which one writes to this file)"
    elif "no such table: dl_" in text:
        text += " (the store is not of this release: run `deltalakedb migrate`)"
    refuses_rows = isinstance(error, sqlite3.DataError | sqlite3.IntegrityError)
    return TxnLogDatabaseError(text, transient=code in _BUSY, refuses_rows=refuses_rows)


@functools.lru_cache(maxsize=1024)
def _translated(sql: str) -> Statement:
    return translated(sql, value="?", any_of="IN (SELECT value FROM json_each(?))", rows=_rows)


def _rows(alias: str, columns: Columns) -> str:
    fields = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, (name, _) in enumerate(columns))
    return f"(SELECT {fields} FROM json_each(?)) AS {alias}"


def _bound(statement: Statement, parameters: Sequence[Any]) -> list[Any]:
    return [
        value if kind == VALUE else json.dumps(list(value), separators=(",", ":"))
        for kind, value in zip(statement.kinds, parameters, strict=True)
    ]


def _split(sql: str) -> Iterator[str]:
    """The statements of a script, by the engine's own idea of where one ends."""
    statement = ""
    for part in sql.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
