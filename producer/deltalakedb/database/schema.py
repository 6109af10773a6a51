"""The store's SQL schema as the library sees it: the migrations, with errors of our own tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import deltalakedb_migrations
from deltalakedb.errors import TxnLogConfigError, TxnLogDatabaseError, TxnLogHaltedError
from deltalakedb_migrations import MigrationError

from .port import Database


def migrate(database: Database) -> list[str]:
    """Bring the store up to this release; the names of the migrations that were applied. Safe to repeat.

    Raises `TxnLogHaltedError` (`SCHEMA_TOO_NEW`, `MIGRATION_CHANGED`) if the store's history is not one that this
    release continues, `TxnLogDatabaseError` if a migration fails; what failed left nothing.
    """
    with _halting():
        return deltalakedb_migrations.migrate(database)


def pending(database: Database) -> list[str]:
    """Names of the migrations that the store lacks. Raises as `migrate` does, and changes nothing."""
    with _halting():
        return deltalakedb_migrations.pending(database)


def verify_schema(database: Database) -> None:
    """Raise `TxnLogHaltedError` unless the store has exactly the schema of this release."""
    missing = pending(database)
    if len(missing) == len(deltalakedb_migrations.migrations(database.dialect)):
        raise TxnLogHaltedError(
            "SCHEMA_TOO_OLD",
            "there is no lake in this store, nor anything that is older: correct its URI (the database, the schema), or "
            "make a lake there with `deltalakedb migrate`",
        )
    if missing:
        raise TxnLogHaltedError(
            "SCHEMA_TOO_OLD",
            f"the store lacks {', '.join(missing)}: run `deltalakedb migrate` with this release, then start again",
        )


def grant(database: Database, role: str, to: str) -> None:
    """Give the database role `to` the rights of `role` (committer, mirror, reader) and no others. Safe to repeat.

    Raises `TxnLogConfigError` for a role that is not known, or a store without roles; `TxnLogDatabaseError`.
    """
    try:
        deltalakedb_migrations.grant(database, role, to)
    except ValueError as error:
        raise TxnLogConfigError(str(error)) from error
    except TxnLogDatabaseError as error:
        raise TxnLogDatabaseError(
            f"giving {to!r} the rights of a {role} failed: {error.__cause__ or error}. Roles are made before (CREATE ROLE)",
            transient=error.transient,
        ) from error


@contextmanager
def _halting() -> Iterator[None]:
    try:
        yield
    except MigrationError as error:
        raise TxnLogHaltedError(error.state, error.reason) from error
