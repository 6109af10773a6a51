"""Brings a store's SQL schema up to this release: numbered files in order, each in one transaction, under a lock.

Applied migrations are recorded in `dl_migrations` with a hash of their text. A migration that was applied is never
changed; what is to be different comes as a new one. One whose result releases before it run on says so in its first line,
`-- Runs with: 0001_lake`, by the newest migration that they have to know; the store keeps it, for them to see.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

DIALECTS = ("postgres", "sqlite", "duckdb")

_RECORD = """CREATE TABLE IF NOT EXISTS dl_migrations (
        name        TEXT PRIMARY KEY,
        text_hash   TEXT NOT NULL,
        runs_with   TEXT NOT NULL,
        applied_ms  {integer} NOT NULL
    )"""
_RUNS_WITH = re.compile(r"-- Runs with: (\w+)\n")
_INTEGER = {"postgres": "BIGINT", "sqlite": "INTEGER", "duckdb": "BIGINT"}
_EXISTS = {
    "postgres": "SELECT 1 FROM pg_class WHERE oid = to_regclass('dl_migrations')",
    "sqlite": "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'dl_migrations'",
    "duckdb": "SELECT 1 FROM duckdb_tables() WHERE table_name = 'dl_migrations'",
}
_LOCK = {
    # Gone with the transaction, so that it works through a pooler and survives nothing it should not.
    "postgres": "SELECT pg_advisory_xact_lock(hashtext('deltalakedb migrations ' || current_schema()))",
    # The write transaction itself is the lock.
    "sqlite": "SELECT 1",
    "duckdb": "SELECT 1",
}


class Database(Protocol):
    """What the runner needs of a connection; `script` runs several statements in the transaction under way."""

    @property
    def dialect(self) -> str: ...

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int: ...

    def script(self, sql: str) -> None: ...

    def transaction(self) -> AbstractContextManager[None]: ...


class MigrationError(Exception):
    """The store's history of migrations is not one that this release continues.

    `state` is a stable name, `reason` says what happened and what to do next.
    """

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(f"{state}: {reason}")
        self.state = state
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    text: str

    @property
    def text_hash(self) -> str:
        """SHA-256 of its text, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def runs_with(self) -> str:
        """The newest migration that a release must know to run on the result; this one itself unless it says otherwise."""
        said = _RUNS_WITH.match(self.text)
        return said[1] if said else self.name


@cache
def migrations(dialect: str) -> tuple[Migration, ...]:
    """All migrations of a dialect, in order."""
    if dialect not in DIALECTS:
        raise MigrationError("UNKNOWN_DIALECT", f"there are no migrations for {dialect}: {', '.join(DIALECTS)}")
    folder = files(__package__) / dialect
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(Migration(name.removesuffix(".sql"), (folder / name).read_text("utf-8")) for name in names)


def pending(database: Database) -> list[str]:
    """Names of the migrations that the store lacks; changes nothing.

    Raises `MigrationError`: `SCHEMA_TOO_NEW` if the store has some that this release does not know and cannot run with,
    `MIGRATION_CHANGED` if one was applied with another text.
    """
    return [migration.name for migration in _missing(database)]


def migrate(database: Database) -> list[str]:
    """Apply what the store lacks; the names of what was applied. Safe to repeat and to run from many processes at once.

    Raises `MigrationError` as `pending` does, and the database's own errors; a migration that fails leaves nothing.
    """
    applied: list[str] = []
    while migration := _migrate_one(database):
        applied.append(migration)
    return applied


def _migrate_one(database: Database) -> str | None:
    if not _missing(database):
        return None
    with database.transaction():
        database.query(_LOCK[database.dialect])
        database.execute(_RECORD.format(integer=_INTEGER[database.dialect]))
        missing = _missing(database)
        if not missing:
            return None
        first = missing[0]
        database.script(first.text)
        database.execute(
            "INSERT INTO dl_migrations (name, text_hash, runs_with, applied_ms) VALUES (?, ?, ?, ?)",
            [first.name, first.text_hash, first.runs_with, int(time.time() * 1000)],
        )
        return first.name


def _missing(database: Database) -> list[Migration]:
    known = migrations(database.dialect)
    if not database.query(_EXISTS[database.dialect]):
        return list(known)
    rows = database.query("SELECT name, text_hash, runs_with FROM dl_migrations ORDER BY name")
    applied = {name: text_hash for name, text_hash, _ in rows}
    names = {migration.name for migration in known}
    unknown = [name for name, _, runs_with in rows if name not in names and runs_with not in names]
    if unknown:
        raise MigrationError(
            "SCHEMA_TOO_NEW",
            f"the store has migrations that this release does not know ({', '.join(unknown)}): "
            "upgrade deltalakedb here to the release that made them, or a newer one",
        )
    for migration in known:
        if applied.get(migration.name, migration.text_hash) != migration.text_hash:
            raise MigrationError(
                "MIGRATION_CHANGED",
                f"migration {migration.name} was applied to this store with another text than this release has: "
                "run the release that applied it, or restore its text; nothing was changed",
            )
    return [migration for migration in known if migration.name not in applied]
