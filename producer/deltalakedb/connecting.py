"""From a URI, or nothing at all, to a lake, a transaction or a table: `connect`, `begin` and `open`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import TxnLogConfigError
from .lake import App, Lake
from .settings import Settings, load_settings
from .snapshot import TableSnapshot
from .transaction import Transaction, Wait
from .uri import DeltaTableUri, LakeDirectory, StoreUri, lake_uri, parse_uri

_said: set[str] = set()


def connect(
    uri: str | os.PathLike[str] | None = None,
    *,
    log: str | None = None,
    root: str | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> Lake:
    """Open a lake: a directory (an embedded lake, made if it is not there) or a store's URI.

    What is not given comes from the environment (`DELTALAKEDB_STORE`, ...) and then from what the store remembers;
    without any of it the lake is `./lake`. `log` and `root` need to be given only to say which they must be. `options`
    are further fields of `deltalakedb.settings.Settings`.

    Raises `TxnLogUriError`, `TxnLogConfigError` for wrong or incomplete settings (a lake on a server is made by
    `deltalakedb migrate`), `TxnLogMissingExtraError` if a library is missing, `TxnLogDatabaseError` if the store cannot be
    reached.
    """
    if settings is None:
        store = None if uri is None else os.fspath(uri)
        settings = load_settings(store=store, log=log, root=root, **options)
    elif uri is not None or log is not None or root is not None or options:
        raise TxnLogConfigError("connect() takes either settings= or single settings")
    if "store" not in settings.model_fields_set:
        _say_where(settings)
    return Lake(settings).connected()


def begin(
    uri: str | os.PathLike[str] | None = None,
    *,
    app: App | Iterable[App] | None = None,
    user_metadata: str | Mapping[str, Any] | None = None,
    isolation: str | None = None,
    wait: Wait | None = None,
    timeout: float | None = None,
    **options: Any,
) -> Transaction:
    """`connect` and `Lake.begin` in one call: the lake is closed when the `with` block of the transaction ends.

    A program with more than one transaction connects once and begins them there.
    """
    lake = connect(uri, **options)
    tx = lake.begin(app=app, user_metadata=user_metadata, isolation=isolation, wait=wait, timeout=timeout)
    return tx.owning_lake()


def open(uri: str | os.PathLike[str], **options: Any) -> Lake | TableSnapshot:
    """What a URI names: one table as it is now, or a whole lake. `options` as of `connect`.

    Raises `TxnLogUriError` for a URI that cannot be understood, `TxnLogTableNotFoundError` if there is no such table.
    """
    parsed = parse_uri(os.fspath(uri))
    match parsed:
        case DeltaTableUri(path):
            raise TxnLogConfigError(
                f"opening {path} by its path is not available yet: read it with deltalake, DuckDB, polars or Spark, or "
                "open it through its lake (deltasql://...)"
            )
        case LakeDirectory():
            return connect(uri, **options)
        case StoreUri(address=address, table=table):
            if table is None:
                return connect(uri, **options)
            return connect(lake_uri(address), **options).table(table)


def _say_where(settings: Settings) -> None:
    """Nobody chose the directory, so it is said where the lake lies: once."""
    where = str(settings.directory)
    if where not in _said:
        _said.add(where)
        sys.stderr.write(f"deltalakedb: the lake is {where}\n")
