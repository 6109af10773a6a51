"""The migration runner: names, order, idempotence, locks, and stores of other releases."""

from __future__ import annotations

import re
import threading
from contextlib import closing
from importlib.resources import files

import pytest

import deltalakedb_migrations
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.database.schema import migrate, pending, verify_schema
from deltalakedb.errors import TxnLogDatabaseError, TxnLogHaltedError
from deltalakedb_migrations import DIALECTS, Migration, MigrationError, migrations
from deltalakedb_migrations import runner as runner_module
from tests.stores import address, postgres_address

__all__ = ["address"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_names_are_numbers_in_order(dialect: str) -> None:
    """Files are numbered from 0001 on without gaps, and each says what it is about."""
    names = [migration.name for migration in migrations(dialect)]

    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", name) for name in names)


def test_dialects_have_the_same_migrations() -> None:
    """A change of the schema comes for every store at once."""
    names = {dialect: [migration.name for migration in migrations(dialect)] for dialect in DIALECTS}

    assert len({tuple(found) for found in names.values()}) == 1


def test_nothing_but_migrations_is_shipped() -> None:
    """Every `.sql` file of the package is one that the runner applies."""
    found = {entry.name for dialect in DIALECTS for entry in (files(deltalakedb_migrations) / dialect).iterdir()}

    assert found == {f"{migration.name}.sql" for migration in migrations("postgres")}


def test_unknown_dialects_are_refused() -> None:
    """By name, with those there are."""
    with pytest.raises(MigrationError, match="postgres, sqlite"):
        migrations("oracle")


def test_migrating_twice_changes_nothing(address: StoreAddress) -> None:
    """The first run applies everything, the second nothing; what is pending changes nothing either."""
    names = [migration.name for migration in migrations("postgres")]
    with closing(open_database(address, create=True)) as database:
        before = pending(database)
        again = pending(database)
        first = migrate(database)
        second = migrate(database)
        after = pending(database)
        verify_schema(database)

    assert (before, again, first, second, after) == (names, names, names, [], [])


def test_only_what_is_missing_is_applied(address: StoreAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of an earlier release gets the later migrations, in order, and the earlier release refuses it then."""
    with closing(open_database(address, create=True)) as database:
        migrate(database)
        second = Migration("0002_more", "CREATE TABLE dl_more (a INTEGER);\nINSERT INTO dl_more VALUES (1);")
        with monkeypatch.context() as newer:
            newer.setattr(runner_module, "migrations", lambda dialect: (*migrations(dialect), second))
            missing = pending(database)
            applied = migrate(database)
        with pytest.raises(TxnLogHaltedError, match="upgrade") as halted:
            verify_schema(database)
        with pytest.raises(TxnLogHaltedError):
            migrate(database)
        rows = database.query("SELECT a FROM dl_more")

    assert missing == applied == ["0002_more"]
    assert halted.value.state == "SCHEMA_TOO_NEW"
    assert rows == [(1,)]


def test_a_release_runs_on_what_the_next_one_made(address: StoreAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration may say whom it leaves running: they find nothing to do, and nothing wrong. Later ones may end that."""
    more = Migration("0002_more", "-- Runs with: 0001_lake\nCREATE TABLE dl_more (a INTEGER);")
    less = Migration("0003_less", "-- Runs with: 0002_more\nDROP TABLE dl_more;")
    with closing(open_database(address, create=True)) as database:
        migrate(database)
        with monkeypatch.context() as next_release:
            next_release.setattr(runner_module, "migrations", lambda dialect: (*migrations(dialect), more))
            migrate(database)
        verify_schema(database)
        applied = migrate(database)
        with monkeypatch.context() as the_one_after:
            the_one_after.setattr(runner_module, "migrations", lambda dialect: (*migrations(dialect), more, less))
            migrate(database)
        with pytest.raises(TxnLogHaltedError, match=r"does not know \(0003_less\)") as halted:
            verify_schema(database)

    assert applied == []
    assert halted.value.state == "SCHEMA_TOO_NEW"


def test_a_failed_migration_leaves_nothing(address: StoreAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statements and its record go together; those before it stay, and the next run goes on from there."""
    broken = Migration("0002_broken", "CREATE TABLE dl_more (a INTEGER);\nINSERT INTO dl_nowhere VALUES (1);")
    with closing(open_database(address, create=True)) as database:
        with monkeypatch.context() as newer:
            newer.setattr(runner_module, "migrations", lambda dialect: (*migrations(dialect), broken))
            with pytest.raises(TxnLogDatabaseError):
                migrate(database)
            left = pending(database)
        with pytest.raises(TxnLogDatabaseError):
            database.query("SELECT a FROM dl_more")
        verify_schema(database)

    assert left == ["0002_broken"]


def test_a_changed_migration_halts(address: StoreAddress) -> None:
    """One that was applied with another text: by name, and nothing is changed."""
    with closing(open_database(address, create=True)) as database:
        migrate(database)
        database.execute("UPDATE dl_migrations SET text_hash = 'other'")
        for act in (migrate, pending, verify_schema):
            with pytest.raises(TxnLogHaltedError, match="0001_lake") as halted:
                act(database)
            assert halted.value.state == "MIGRATION_CHANGED"
            assert isinstance(halted.value.__cause__, MigrationError)


def test_an_empty_store_is_too_old(address: StoreAddress) -> None:
    """The message names the command that helps, and what else may be wrong: that nothing is there is more than too old."""
    with (
        closing(open_database(address, create=True)) as database,
        pytest.raises(
            TxnLogHaltedError, match=r"no lake in this store.*correct its URI.*deltalakedb migrate"
        ) as halted,
    ):
        verify_schema(database)

    assert halted.value.state == "SCHEMA_TOO_OLD"


def test_many_migrate_at_once(address: StoreAddress) -> None:
    """Each migration is applied once, whoever comes first, the store's file or schema being made on the way."""
    applied: list[str] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(5)

    def run() -> None:
        try:
            barrier.wait(30)
            with closing(open_database(address, create=True)) as own:
                applied.extend(migrate(own))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert applied == [migration.name for migration in migrations("postgres")]


def test_stores_in_one_database_do_not_see_each_other(postgres_url: str) -> None:
    """Two schemas of one Postgres database are two stores."""
    databases: list[Database] = [
        open_database(postgres_address(postgres_url, name), create=True) for name in ("a", "B_2")
    ]
    first = migrate(databases[0])
    still_pending = pending(databases[1])
    second = migrate(databases[1])
    for database in databases:
        database.close()

    assert first == still_pending == second != []
