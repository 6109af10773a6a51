"""DuckDB and delta-rs as the demo uses them: one makes data and compares it, both read our tables by path.

The only place that imports either of them. DuckDB's extensions come from their packages, loaded by file, so nothing
is fetched while the demo runs.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol

import duckdb
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from deltalakedb.storage_options import StorageOptions

Connection = duckdb.DuckDBPyConnection
EngineError = (duckdb.Error, DeltaError, OSError)
"""What either of them raises for input or tables that it cannot read."""


def connect(database: Path, *, memory_limit: str = "1GB", threads: int = 2) -> Connection:
    """A connection to a new DuckDB file: it installs nothing, and spills beside that file rather than fill the machine."""
    connection = duckdb.connect(str(database), config={"autoinstall_known_extensions": "false"})
    connection.execute(f"SET memory_limit = {literal(memory_limit)}")
    connection.execute(f"SET threads = {threads:d}")
    return connection


def integers(connection: Connection, query: str) -> tuple[int, ...]:
    """The one row of integers that `query` gives (NULL is 0)."""
    (row,) = rows(connection, query)
    return tuple(int(value or 0) for value in row)


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    """All rows that `query` gives."""
    return connection.execute(query).fetchall()


def load_extension(connection: Connection, name: str) -> None:
    """Load an extension from its package `duckdb-extension-<name>`."""
    resource = files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    with as_file(resource) as path:
        connection.execute(f"LOAD {literal(str(path))}")


def literal(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Reader(Protocol):
    """An engine that reads a Delta table by path, without knowing anything of ours."""

    name: str

    def view(self, connection: Connection, view: str, location: str, version: int) -> None:
        """Make the rows of the table at `location` in `version` readable in `connection` under the name `view`."""
        ...


class DuckDbReader:
    """DuckDB's `delta_scan`."""

    name = "duckdb"

    def __init__(self, storage: StorageOptions) -> None:
        self._storage = storage

    def view(self, connection: Connection, view: str, location: str, version: int) -> None:
        load_extension(connection, "delta")
        if location.startswith("s3://"):
            load_extension(connection, "httpfs")
            connection.execute(self._storage.duckdb())
        scan = f"delta_scan({literal(location)}, version => {version:d})"
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS FROM {scan}")


class DeltaRsReader:
    """delta-rs (`deltalake`), its own scan; what it returns is copied, because a stream can be read only once."""

    name = "delta-rs"

    def __init__(self, storage: StorageOptions) -> None:
        self._storage = storage

    def view(self, connection: Connection, view: str, location: str, version: int) -> None:
        options = self._storage.deltalake() if location.startswith("s3://") else None
        table = DeltaTable(location, version=version, storage_options=options)
        scanned: Any = QueryBuilder().register("source", table).execute("SELECT * FROM source")
        copy = identifier(f"{view}_copy")
        connection.register("delta_rs_rows", scanned)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {copy} AS FROM delta_rs_rows")
        connection.unregister("delta_rs_rows")
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS FROM {copy}")
