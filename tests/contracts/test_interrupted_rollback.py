"""An interrupt that comes no sooner than the ROLLBACK, at the engines that notice it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import duckdb
import pytest

from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.database.duckdb import DuckdbDatabase
from deltalakedb.database.sqlite import SqliteDatabase
from deltalakedb.errors import TxnLogDatabaseError

Arming = Callable[[Database], Iterator[None]]
"""Has the next ROLLBACK interrupted, once; what is returned is used up by then."""


def in_sqlite(database: Database) -> Iterator[None]:
    """The engine tells of each statement as it begins, and from there on it can be interrupted."""
    connection = cast(SqliteDatabase, database)._connection
    coming = iter([None])

    def begins(statement: str) -> None:
        if statement == "ROLLBACK":
            for _ in coming:
                connection.interrupt()

    connection.set_trace_callback(begins)
    return coming


def before_duckdb_has_ended_it(database: Database) -> Iterator[None]:
    """What the engine then does is nothing; what the driver raises, it raises here."""
    return _in_duckdb(database, first=False)


def after_duckdb_has_ended_it(database: Database) -> Iterator[None]:
    """The driver tells of an interrupt, and of the next ROLLBACK that there is nothing to end."""
    return _in_duckdb(database, first=True)


def _in_duckdb(database: Database, *, first: bool) -> Iterator[None]:
    opened = cast(DuckdbDatabase, database)
    connection, coming = opened._connection, iter([None])

    class Connection:
        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        def execute(self, statement: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
            if statement == "ROLLBACK":
                for _ in coming:
                    if first:
                        connection.execute(statement)
                    raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")
            return connection.execute(statement, parameters)

    opened._connection = cast(duckdb.DuckDBPyConnection, Connection())
    return coming


@pytest.mark.parametrize(
    ("engine", "interrupted"),
    [
        ("sqlite", in_sqlite),
        ("duckdb", before_duckdb_has_ended_it),
        ("duckdb", after_duckdb_has_ended_it),
    ],
)
def test_an_interrupted_rollback_is_tried_again(
    tmp_path: Path, engine: Literal["sqlite", "duckdb"], interrupted: Arming
) -> None:
    """The interrupt was meant for the statement before: its error is the one raised, and the connection lives on."""
    database = open_database(StoreAddress(engine=engine, path=str(tmp_path / "store")), create=True)
    try:
        database.execute("CREATE TABLE things (id BIGINT PRIMARY KEY)")
        coming = interrupted(database)

        with pytest.raises(TxnLogDatabaseError, match=r"(?i)constraint"):
            database.insert("things", ["id"], [[1], [1]])

        assert not list(coming)
        database.execute("INSERT INTO things VALUES (2)")
        assert database.query("SELECT id FROM things") == [(2,)]
    finally:
        database.close()
