"""Stores that can be saved and set back to what was saved, as from a backup, on every engine."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from deltalakedb.database import StoreAddress
from tests.stores import postgres_address


class SavedStore(Protocol):
    """Where a store lies. Nobody is connected to it while it is saved or set back."""

    address: StoreAddress

    def save(self) -> None:
        """Keep it as it is now."""

    def set_back(self) -> None:
        """Have it as it was kept."""

    def drop(self) -> None:
        """Forget both."""


class InFile:
    """A SQLite or DuckDB file."""

    def __init__(self, engine: Literal["sqlite", "duckdb"], folder: Path) -> None:
        self._files, self._saved = folder / "store", folder / "saved"
        self._files.mkdir()
        self.address = StoreAddress(engine=engine, path=str(self._files / "lake"))

    def save(self) -> None:
        _copy(self._files, self._saved)

    def set_back(self) -> None:
        _copy(self._saved, self._files)

    def drop(self) -> None:
        """Its folder is another's."""


class OnPostgres:
    """A database of its own on the server at a libpq URL."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._name = f"model_{uuid.uuid4().hex[:12]}"
        self._saved = f"{self._name}_saved"
        self._run("CREATE DATABASE {}", self._name)
        self.address = postgres_address(urlunsplit(urlsplit(server)._replace(path=f"/{self._name}")))

    def save(self) -> None:
        self._copy(self._name, self._saved)

    def set_back(self) -> None:
        self._copy(self._saved, self._name)

    def drop(self) -> None:
        for name in (self._name, self._saved):
            self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _copy(self, one: str, other: str) -> None:
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", other)
        self._run("CREATE DATABASE {} TEMPLATE {}", other, one)

    def _run(self, statement: Any, *names: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _copy(one: Path, other: Path) -> None:
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(one, other)
