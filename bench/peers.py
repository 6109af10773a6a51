"""The peers doing the same two-table append: DuckLake on Postgres, and two delta-rs appends.

DuckLake keeps small inserts in its catalog when inlining is on (beside our `commit`, which writes no data file either)
and writes Parquet when it is off (beside our `append`). delta-rs has no transaction over two tables: a failure between
its two appends leaves the first one committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from tests.services import duck

from . import data

INLINED_ROWS = 100
# What serves eight writers best: shorter waits cost throughput, the default backoff of 1.5 costs the tail more, and with
# the default of 10 retries transactions fail.
DUCKLAKE_RETRIES = {"ducklake_max_retry_count": 1000, "ducklake_retry_wait_ms": 100, "ducklake_retry_backoff": 1.0}
DELTA_RS_RETRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckLake:
    """A DuckLake whose catalog lies in a Postgres database, the data on local disk."""

    postgres_url: str
    folder: Path
    inlined: bool
    pair: data.Pair

    def create(self) -> None:
        """Makes the lake and its two tables."""
        connection = self._connect()
        for table in self.pair.tables:
            connection.execute(f"CREATE TABLE lake.{table} ({data.COLUMNS_SQL})")
        connection.close()

    def open(self, number: int) -> _DuckLakeClient:
        return _DuckLakeClient(self._connect(), self.pair, number)

    def count(self) -> list[int]:
        """Rows of the two tables, as DuckLake reads them."""
        connection = self._connect()
        counts = [connection.execute(f"SELECT count(*) FROM lake.{table}").fetchone() for table in self.pair.tables]
        connection.close()
        return [row[0] for row in counts if row is not None]

    def _connect(self) -> duckdb.DuckDBPyConnection:
        # One thread: ten rows give more threads nothing to do, and their idling costs the other writers.
        connection = duckdb.connect(config={"threads": 1})
        connection.execute("SET enable_progress_bar = false")
        for name in ("ducklake", "postgres_scanner"):
            connection.execute(f"LOAD '{duck.extension(name)}'")
        for name, value in DUCKLAKE_RETRIES.items():
            connection.execute(f"SET {name} = {value}")
        connection.execute(
            f"ATTACH 'ducklake:postgres:{_libpq(self.postgres_url)}' AS lake "
            f"(DATA_PATH '{self.folder}/', DATA_INLINING_ROW_LIMIT {INLINED_ROWS if self.inlined else 0})"
        )
        return connection


class _DuckLakeClient:
    def __init__(self, connection: duckdb.DuckDBPyConnection, pair: data.Pair, number: int) -> None:
        self._connection = connection
        self._pair = pair
        self._rows = data.many_rows(number)

    def transact(self, number: int) -> None:
        batch = self._rows[number % data.SAMPLES]
        connection = self._connection
        connection.register("batch", batch)
        connection.execute("BEGIN")
        try:
            for table in self._pair.tables:
                connection.execute(f"INSERT INTO lake.{table} SELECT * FROM batch")
            connection.execute("COMMIT")
        except duckdb.Error:
            _roll_back(connection)
            raise
        finally:
            connection.unregister("batch")

    def submit(self, number: int) -> Future[Any]:
        raise NotImplementedError("DuckLake commits one transaction of a connection at a time")

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRs:
    """Two Delta tables on local disk, appended to one after the other by delta-rs."""

    folder: Path
    pair: data.Pair

    def create(self) -> None:
        """Makes the two tables, empty."""
        for uri in self._uris():
            write_deltalake(uri, pa.table(data.SCHEMA.empty_table()))

    def open(self, number: int) -> _DeltaRsClient:
        # Tables that are kept open commit twice as fast as tables that are opened for each append.
        return _DeltaRsClient([DeltaTable(uri) for uri in self._uris()], number)

    def count(self) -> list[int]:
        """Versions of the two tables."""
        return [DeltaTable(uri).version() for uri in self._uris()]

    def _uris(self) -> list[str]:
        return [str(self.folder / table) for table in self.pair.tables]


class _DeltaRsClient:
    def __init__(self, tables: Sequence[DeltaTable], number: int) -> None:
        self._tables = tables
        self._rows = data.many_rows(number)
        self._properties = CommitProperties(max_commit_retries=DELTA_RS_RETRIES)

    def transact(self, number: int) -> None:
        batch = self._rows[number % data.SAMPLES]
        for table in self._tables:
            write_deltalake(table, batch, mode="append", commit_properties=self._properties)

    def submit(self, number: int) -> Future[Any]:
        raise NotImplementedError("delta-rs appends one batch at a time")

    def close(self) -> None:
        return


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        return  # a failed COMMIT has ended the transaction already


def _libpq(url: str) -> str:
    parts = urlsplit(url)
    values = {
        "host": parts.hostname or "127.0.0.1",
        "port": str(parts.port or 5432),
        "user": unquote(parts.username or "postgres"),
        "password": unquote(parts.password or ""),
        "dbname": parts.path.lstrip("/"),
    }
    return " ".join(f"{key}={value}" for key, value in values.items())
