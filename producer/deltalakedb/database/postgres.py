"""Postgres behind the SQL port: psycopg 3, COPY and pipelines. The one module that imports psycopg."""

from __future__ import annotations

import functools
import itertools
import logging
import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import psycopg
from psycopg import errors, pq, sql
from psycopg.conninfo import make_conninfo

from deltalakedb.errors import TxnLogCommitUnknownError, TxnLogConfigError, TxnLogDatabaseError, redacted

from .address import StoreAddress
from .ahead import ahead
from .arrow import batches_of
from .moving import given, matching, selected
from .port import Row
from .subset import LIST, VALUE, Columns, Statement, translated

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

COPY_ROWS: Final = 32
"""From here on COPY takes less of a processor than rows as JSON, although it takes round trips of its own (measured)."""
COPY_BYTES: Final = 262_144
"""The same for the size of few rows."""

_CONNECTION: Final = {
    "connect_timeout": "10",
    "application_name": "deltalakedb",
    "client_encoding": "UTF8",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SESSION: Final = {
    "statement_timeout": "100s",
    "lock_timeout": "10s",
    # Of readers, who may take their time between two batches of rows; a writer has less, see `transaction`.
    "idle_in_transaction_session_timeout": "600s",
}
# A plan is made once for a statement that comes again and again. Made while a table is small it would read all of the
# table, and go on to do so while the table grows, until autovacuum has it made anew.
_BY_KEY: Final = {
    "enable_seqscan": "off",
    # For questions about a million staged rows, which would go to disk otherwise; nothing else needs as much.
    "work_mem": "64MB",
}
_BINARY: Final = "bytea"
_CANCEL_SECONDS: Final = 5.0
_WRITER_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = '20s'"
_WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_TRANSIENT = ("08", "40", "55P03", "57P01", "57P02", "57P03", "53")
"""SQLSTATE (classes) after which the same may succeed: connection, rollback, lock, shutdown, resources."""
_TOO_MUCH = "54"
"""SQLSTATE class of a row, or a key, that is larger than Postgres can hold."""


class PostgresDatabase:
    """One connection to one schema.

    Within a `transaction()` statements that nobody asks a result of go through a pipeline: they are sent at once, and
    their answers are read with the next one that is asked for, so that a whole group commit costs few round trips.
    """

    dialect = "postgres"

    def __init__(self, address: StoreAddress, *, create: bool = False, by_key: bool = False) -> None:
        """Raises `TxnLogDatabaseError` if the server cannot be reached or refuses, `TxnLogConfigError` for parameters
        that libpq does not understand."""
        self._address = address
        self._secrets = {"password": address.password or ""}
        self._pipeline: AbstractContextManager[object] | None = None
        self._in_block = False
        self._cursors = itertools.count()
        self._types: dict[tuple[str, tuple[str, ...]], tuple[int, ...]] = {}
        with self._errors(f"cannot connect to {address}"):
            self._connection = psycopg.connect(
                self._conninfo(_SESSION | _BY_KEY if by_key else _SESSION), autocommit=True
            )
        if create and address.schema is not None:
            self._create_schema(address.schema)

    @property
    def alive(self) -> bool:
        """Whether the connection is open and the server has not ended it (an idle one hears nothing else)."""
        if self._connection.closed:
            return False
        readable, _, _ = select.select([self._connection.fileno()], [], [], 0)
        return self._in_block or not readable

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a statement. Raises `TxnLogDatabaseError`."""
        with self._errors("a query failed"):
            return self._run(sql, parameters).fetchall()

    def query_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """All rows of each statement, in a block through the pipeline. Raises `TxnLogDatabaseError`."""
        with self._errors("a query failed"):
            self._check_usable()
            self._enter_pipeline()
            cursors = [self._run(sql, parameters) for sql, parameters in statements]
            return [cursor.fetchall() for cursor in cursors]

    def stream(self, sql: str, parameters: Sequence[Any] = (), *, batch: int = 10_000) -> Iterator[list[Row]]:
        """Rows in batches, through a cursor on the server. Raises `TxnLogDatabaseError`."""
        self._require_block()
        statement = _translated(sql)
        with self._errors("a query failed"):
            self._leave_pipeline()
            with self._connection.cursor(name=f"dl_{next(self._cursors)}") as cursor:
                cursor.execute(statement.text, _bound(statement, parameters))
                while rows := cursor.fetchmany(batch):
                    yield rows

    def stream_arrow(
        self, sql: str, parameters: Sequence[Any] = (), *, schema: pa.Schema, batch: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """Rows in Arrow batches, over a connection of its own with the same snapshot. Raises `TxnLogDatabaseError`."""
        self._require_block()
        try:
            from . import postgres_arrow
        except ImportError:
            yield from batches_of(self.stream(sql, parameters, batch=batch), schema)
            return
        statement = _translated(sql)
        ((snapshot,),) = self.query("SELECT pg_export_snapshot()")
        with self._errors("a query failed"):
            self._leave_pipeline()
            text = psycopg.ClientCursor(self._connection).mogrify(statement.text, _bound(statement, parameters))
        yield from ahead(postgres_arrow.stream(self._conninfo(_SESSION), snapshot, text, schema, self._lost))

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows it touched. Raises `TxnLogDatabaseError`."""
        with self._errors("a statement failed"):
            cursor = self._run(sql, parameters)
            self._leave_pipeline()
            return cursor.rowcount

    def submit(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement, in a transaction without waiting for it. Raises `TxnLogDatabaseError`."""
        with self._errors("a statement failed"):
            self._enter_pipeline()
            self._run(sql, parameters)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for every row of parameters in one pipeline. Raises `TxnLogDatabaseError`."""
        if not rows:
            return
        statement = _translated(sql)
        bound = rows if statement.plain else [_bound(statement, row) for row in rows]
        with self._errors("a statement failed"):
            self._check_usable()
            self._enter_pipeline()
            self._connection.cursor().executemany(statement.text, bound)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows: few in one statement through the pipeline, many by binary COPY. Raises `TxnLogDatabaseError`."""
        if not rows:
            return
        with self._errors(f"writing to {table} failed"):
            self._check_usable()
            types = self._column_types(table, tuple(columns))
            if len(rows) < COPY_ROWS and len(few := _as_json(columns, rows)) < COPY_BYTES:
                self._enter_pipeline()
                self._connection.execute(_insert(table, tuple(columns), types), [few])
                return
            self._leave_pipeline()
            copy = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
            with self._connection.cursor() as cursor, cursor.copy(copy) as out:
                out.set_types(types)
                for row in rows:
                    out.write_row(row)

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
        """Delete rows and insert them in one statement, so that each is looked for once. Raises `TxnLogDatabaseError`."""
        return self.execute(
            f"WITH gone AS (DELETE FROM {source} f USING {given(by, adding)} WHERE {matching(by)} "
            f"RETURNING {selected(columns, adding)}) "
            f"INSERT INTO {target} ({', '.join([*columns, *adding])}) SELECT * FROM gone",
            [rows],
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A read-write transaction at READ COMMITTED: what a statement waits for, it sees."""
        self._begin(_WRITE)
        try:
            self.submit(_WRITER_IDLE)
            yield
        except BaseException:
            self._roll_back()
            raise
        self._end("COMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A read-only transaction at REPEATABLE READ."""
        self._begin(_READ)
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        self._end("COMMIT")

    def script(self, sql: str) -> None:
        """Run several statements in the transaction under way."""
        self._require_block()
        with self._errors("a migration failed"):
            self._leave_pipeline()
            self._connection.execute(cast(Any, sql))

    def cancel(self) -> None:
        """Have the statement that another thread is running fail."""
        try:
            self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
        except psycopg.Error:
            # Whoever asked finds it still running, and asks again.
            logger.debug("a statement could not be cancelled", exc_info=True)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.close()

    def _conninfo(self, session: Mapping[str, str]) -> str:
        settings = dict(session)
        if self._address.schema is not None:
            settings["search_path"] = f'"{self._address.schema}",pg_temp'
        given = dict(self._address.parameters)
        # What the address says comes later and wins.
        options = [f"-c {name}={value}" for name, value in settings.items()] + [given.pop("options", "")]
        try:
            return make_conninfo("", **{**_CONNECTION, **given, "options": " ".join(options).strip()})
        except psycopg.Error:
            # Without the cause, which may quote a part of a password.
            raise TxnLogConfigError(f"the connection parameters of {self._address} are not what libpq takes") from None

    def _create_schema(self, schema: str) -> None:
        with self.transaction():
            # IF NOT EXISTS alone does not survive two that create it at once.
            self.query("SELECT pg_advisory_xact_lock(hashtext(?))", [f"deltalakedb schema {schema}"])
            if not self.query("SELECT 1 FROM pg_namespace WHERE nspname = ?", [schema]):
                self.submit(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)).as_string(self._connection))

    def _run(self, statement: str, parameters: Sequence[Any]) -> psycopg.Cursor[Row]:
        self._check_usable()
        found = _translated(statement)
        return self._connection.execute(found.text, parameters if found.plain else _bound(found, parameters))

    def _begin(self, begin: str) -> None:
        self._check_usable()
        if self._in_block:
            raise TxnLogDatabaseError("a transaction is under way on this connection already")
        with self._errors("a transaction could not begin"):
            self._in_block = True
            try:
                self._enter_pipeline()
                self._connection.execute(cast(Any, begin))
            except BaseException:
                self._roll_back()
                raise

    def _end(self, how: str) -> None:
        try:
            cursor = self._connection.execute(cast(Any, how))
            self._leave_pipeline()
        except psycopg.Error as error:
            # Only an error that the server tells and outlives says that nothing was committed: a session that is ended
            # may have got as far as that, and then the driver may say no more than that it was in the middle of something.
            if how == "COMMIT" and error.diag.severity_nonlocalized != "ERROR":
                self._in_block = False
                self.close()
                text = redacted(f"the connection was lost during a COMMIT: {error}", self._secrets)
                raise TxnLogCommitUnknownError(text) from self._shown(error)
            self._roll_back()
            raise self._error("a transaction failed", error) from self._shown(error)
        except BaseException:
            # Interrupted while waiting for the answer: nobody could tell what the connection is in the middle of.
            self.close()
            raise
        self._in_block = False
        if cursor.statusmessage != how:
            # Postgres answers ROLLBACK, and no error, to the COMMIT of a transaction in which a statement failed.
            raise TxnLogDatabaseError("the transaction is rolled back: one of its statements failed")

    def _roll_back(self) -> None:
        """End the transaction; an error in that never hides the one that is under way."""
        self._in_block = False
        try:
            try:
                self._leave_pipeline()
            except psycopg.Error:
                logger.debug("statements under way failed too", exc_info=True)
            if self._connection.info.transaction_status != pq.TransactionStatus.IDLE:
                self._connection.execute("ROLLBACK")
        except psycopg.Error:
            logger.debug("a ROLLBACK failed; the connection is closed instead", exc_info=True)
            self.close()

    def _enter_pipeline(self) -> None:
        """In a transaction, send what follows without waiting for its answers."""
        if self._in_block and self._pipeline is None:
            pipeline = self._connection.pipeline()
            pipeline.__enter__()
            self._pipeline = pipeline

    def _leave_pipeline(self) -> None:
        """Wait for everything that was sent, and raise the first error there was."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.__exit__(None, None, None)

    def _column_types(self, table: str, columns: tuple[str, ...]) -> tuple[int, ...]:
        types = self._types.get((table, columns))
        if types is None:
            self._leave_pipeline()
            cursor = self._connection.execute(cast(Any, f"SELECT {', '.join(columns)} FROM {table} LIMIT 0"))
            types = tuple(column.type_code for column in cursor.description or ())
            self._types[table, columns] = types
        return types

    def _check_usable(self) -> None:
        if self._connection.closed:
            raise TxnLogDatabaseError(f"the connection to {self._address} is closed", transient=True)

    def _require_block(self) -> None:
        self._check_usable()
        if not self._in_block:
            raise TxnLogDatabaseError("this needs a snapshot() or transaction() around it")

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._error(what, error) from self._shown(error)

    def _error(self, what: str, error: psycopg.Error) -> TxnLogDatabaseError:
        state = error.sqlstate or ""
        text = redacted(f"{what}: {error}", self._secrets).strip()
        if isinstance(error, errors.UndefinedTable):
            text += " (the store is not of this release: run `deltalakedb migrate`)"
        lost = isinstance(error, psycopg.OperationalError) and not state
        refuses_rows = isinstance(error, errors.DataError | errors.IntegrityError) or state.startswith(_TOO_MUCH)
        return TxnLogDatabaseError(text, transient=lost or state.startswith(_TRANSIENT), refuses_rows=refuses_rows)

    def _lost(self, what: str, error: Exception) -> TxnLogDatabaseError:
        """An error of a connection that was made to read only: it may go well another time."""
        return TxnLogDatabaseError(redacted(f"{what}: {error}", self._secrets).strip(), transient=True)

    def _shown(self, error: psycopg.Error) -> psycopg.Error | None:
        """The error as a cause; None if it would show a password."""
        return error if redacted(str(error), self._secrets) == str(error) else None


@functools.lru_cache(maxsize=1024)
def _translated(statement: str) -> Statement:
    return translated(statement, value="%s", any_of="= ANY(%s)", rows=_rows, percent="%%")


@functools.lru_cache(maxsize=256)
def _insert(table: str, columns: tuple[str, ...], types: tuple[int, ...]) -> bytes:
    """A statement that inserts a list of rows, whatever their number: it is prepared once."""
    names = dict(zip(columns, (psycopg.adapters.types[oid].name for oid in types), strict=True))
    typed = ", ".join(f"{name} {'text' if kind == _BINARY else kind}" for name, kind in names.items())
    values = ", ".join(f"decode({name}, 'base64')" if kind == _BINARY else name for name, kind in names.items())
    into = f"INSERT INTO {table} ({', '.join(columns)})"
    return f"{into} SELECT {values} FROM json_to_recordset(%s) AS k ({typed})".encode()


def _as_json(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as `_insert` takes them."""
    named = [{name: value for name, value in zip(columns, row, strict=True) if value is not None} for row in rows]
    return msgspec.json.encode(named).decode()


def _rows(alias: str, columns: Columns) -> str:
    arrays = ", ".join(f"%s::{kind}[]" for _, kind in columns)
    return f"unnest({arrays}) AS {alias} ({', '.join(name for name, _ in columns)})"


def _bound(statement: Statement, parameters: Sequence[Any]) -> list[Any]:
    bound: list[Any] = []
    for kind, value in zip(statement.kinds, parameters, strict=True):
        if kind == VALUE:
            bound.append(value)
        elif kind == LIST:
            bound.append(_array(value))
        else:
            bound += map(_array, zip(*value, strict=True)) if value else ["{}"] * kind
    return bound


def _array(values: Sequence[Any]) -> str:
    """The text form of an array: some thirty times faster to make than the driver's own."""
    numbers = set(map(type, values)) == {int}
    return "{" + ",".join(map(str, values) if numbers else map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
