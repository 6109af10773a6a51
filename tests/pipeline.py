"""A fresh lake: on real servers with committer and mirror as processes of their own, or embedded."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from deltalakedb.database import open_database
from deltalakedb.settings import Settings, load_settings
from deltalakedb_committer.lake import make_lake
from tests.processes import Service
from tests.services.run import Addresses

if TYPE_CHECKING:
    from deltalakedb import Lake

SCHEMA = "lake"


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeAddress:
    """Where a lake is, in plain values that travel to client processes."""

    store: str
    log: str | None = None
    root: str | None = None
    mirror: str = "on_commit"
    """On an embedded lake: whether the client that commits also publishes `_delta_log`."""

    def connect(self) -> Lake:
        """A client of the lake; an embedded one is made by the first that connects."""
        import deltalakedb

        return deltalakedb.connect(settings=self.settings)

    def fold(self, window_ms: int) -> None:
        """Have transactions share commits from here on; somebody has to decide that."""
        run_verb(self, "rules", "--fold-window-ms", str(window_ms))

    @property
    def environment(self) -> Mapping[str, str]:
        """The same for a service, which reads its settings there."""
        values = {"store": self.store, **self._options}
        return {f"DELTALAKEDB_{name.upper()}": value for name, value in values.items()}

    @property
    def tables_folder(self) -> Path:
        """The local folder that holds the tables."""
        root = self.settings.root_uri
        assert root is not None, "the lake's root is given here or follows from its directory"
        return Path(urlsplit(root).path)

    def heads(self) -> dict[str, int]:
        """The newest committed version of every table, straight from SQL."""
        database = open_database(self.settings.address)
        try:
            rows = database.query("SELECT t.name, h.version FROM dl_tables t JOIN dl_table_heads h USING (table_no)")
        finally:
            database.close()
        return dict(rows)

    @property
    def settings(self) -> Settings:
        """The same for this process."""
        return load_settings(store=self.store, **self._options)

    @property
    def _options(self) -> dict[str, str]:
        given = {"log": self.log, "root": self.root, "mirror": self.mirror}
        return {name: value for name, value in given.items() if value is not None}


class Pipeline:
    """A lake on Kafka and Postgres with its tables on local disk; the services are started one by one or by `with`."""

    def __init__(self, address: LakeAddress, folder: Path) -> None:
        self.address = address
        self.committer = Service("committer", "run", environment=address.environment, log=folder / "committer.log")
        self.mirror = Service("mirror", "run", environment=address.environment, log=folder / "mirror.log")
        self._stack = ExitStack()

    @property
    def services(self) -> dict[str, int]:
        """Process ids of the services that run."""
        running = {"committer": self.committer, "mirror": self.mirror}
        return {name: service.pid for name, service in running.items() if service.running}

    def start(self, service: Service) -> None:
        """Start one of the two services; it is stopped at the end."""
        self._stack.enter_context(service)

    def __enter__(self) -> Self:
        self.start(self.committer)
        self.start(self.mirror)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def on_servers(servers: Addresses, folder: Path) -> Pipeline:
    """A new lake in a database and under a topic prefix of its own; its tables lie in `folder`/tables."""
    name = f"lake_{uuid.uuid4().hex[:12]}"
    server = servers.postgres()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    database = urlunsplit(urlsplit(server)._replace(path=f"/{name}", query=f"schema={SCHEMA}"))
    address = LakeAddress(
        store=database, log=f"kafka://{servers.kafka()}/{name}", root=(folder / "tables").absolute().as_uri()
    )
    _make(address)
    return Pipeline(address, folder)


def embedded(folder: Path) -> LakeAddress:
    """A new embedded lake in `folder`/lake, whose clients decide and mirror by themselves."""
    return LakeAddress(store=str(folder / "lake"))


def in_duckdb(folder: Path) -> LakeAddress:
    """A new embedded lake whose store is DuckDB, for one process."""
    folder = folder.absolute()
    address = LakeAddress(
        store=f"deltasql://duckdb/{folder}/lake.duckdb",
        log=f"sqlite://{folder}/log.db",
        root=(folder / "tables").as_uri(),
    )
    _make(address)
    return address


def _make(address: LakeAddress) -> None:
    # What `deltalakedb migrate` does, without the seconds in which a process starts.
    make_lake(address.settings)


def run_verb(address: LakeAddress, *verb: str) -> None:
    """`deltalakedb <verb...>` on the lake; a failure fails the test."""
    subprocess.run(
        [sys.executable, "-m", "deltalakedb", *verb],
        check=True,
        timeout=60,
        env={**os.environ, **address.environment},
        stdout=subprocess.DEVNULL,
    )
