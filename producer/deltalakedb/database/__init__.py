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

    Raises `TxnLogConfigError` if there is no such store or no adapter for it, `TxnLogMissingExtraError` if the engine's
    library is not installed, `TxnLogDatabaseError` if it cannot be reached.
    """
    if address.engine == "sqlite":
        from .sqlite import SqliteDatabase

        if address.path is None:
            raise TxnLogConfigError("the address of a SQLite store has no path")
        return SqliteDatabase(address.path, create=create)
    if address.engine == "postgres":
        try:
            from .postgres import PostgresDatabase
        except ImportError as error:
            raise TxnLogMissingExtraError("a Postgres store", "postgres") from error
        return PostgresDatabase(address, create=create, by_key=by_key)
    raise TxnLogConfigError(f"stores in {address.engine} are not available in this release: use postgres or sqlite")
