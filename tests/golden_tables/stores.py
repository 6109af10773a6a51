"""A lake on each kind of store for round trips: its log is a file, and nothing is mirrored by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

import deltalakedb
from deltalakedb import Lake
from deltalakedb.settings import load_settings
from deltalakedb_committer.lake import make_lake
from tests.processes import Service
from tests.services.run import Addresses

STORES = ("sqlite", "postgres", "duckdb")


@contextmanager
def lake_on(store: str, folder: Path, servers: Addresses) -> Iterator[Lake]:
    """A new lake on that kind of store, with its files in `folder`. On a server a committer runs beside it."""
    if store == "postgres":
        with _on_postgres(folder, servers.postgres()) as lake:
            yield lake
        return
    where: str | Path = folder / "lake"
    if store == "duckdb":
        where = f"deltasql://duckdb/{folder}/lake.duckdb"
        make_lake(load_settings(store=where, log=f"sqlite://{folder}/log.db", root=str(folder / "tables")))
    with deltalakedb.connect(where, mirror="off") as lake:
        yield lake


@contextmanager
def _on_postgres(folder: Path, server: str) -> Iterator[Lake]:
    name = f"golden_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    store = urlunsplit(urlsplit(server)._replace(path=f"/{name}", query="schema=lake"))
    log, root = f"sqlite://{folder / 'log.db'}", (folder / "tables").as_uri()
    environment = {"DELTALAKEDB_STORE": store, "DELTALAKEDB_LOG": log, "DELTALAKEDB_ROOT": root}
    make_lake(load_settings(store=store, log=log, root=root))
    committer = Service("committer", "run", environment=environment, log=folder / "committer.log")
    with committer, deltalakedb.connect(store, mirror="off") as lake:
        yield lake
