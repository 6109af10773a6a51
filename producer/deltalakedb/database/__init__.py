"""SQL databases behind one small port. `open_database` picks the adapter."""

from __future__ import annotations

from deltalakedb.errors import TxnLogConfigError, TxnLogMissingExtraError

from .address import StoreAddress
from .pool import Pool
from .port import Database, Row

__all__ = ["Database", "Pool", "Row", "StoreAddress", "open_database"]


def open_database(address: StoreAddress, *, create: bool = False, by_key: bool = False) -> Database:
    """A new connection to the store at `address`; with `create`, its file or schema is made if it is not there.

    `by_key` is for who looks rows up by their keys again and again: no plan may then read a whole table.

    Raises `TxnLogConfigError` if there is no such store, `TxnLogMissingExtraError` if the engine's library is not
    installed, `TxnLogDatabaseError` if it cannot be reached, `TxnLogStoreInUseError` if it is another process's.
    """
    if address.engine == "postgres":
        try:
            from .postgres import PostgresDatabase
        except ImportError as error:
            raise TxnLogMissingExtraError("a Postgres store", "postgres") from error
        return PostgresDatabase(address, create=create, by_key=by_key)
    if address.path is None:
        raise TxnLogConfigError(f"the address of a store in {address.engine} has no path")
    if address.engine == "duckdb":
        try:
            from .duckdb import DuckdbDatabase
        except ImportError as error:
            raise TxnLogMissingExtraError("a DuckDB store", "duckdb") from error
        return DuckdbDatabase(address.path, create=create)
    from .sqlite import SqliteDatabase

    return SqliteDatabase(address.path, create=create)
