"""The SQL stores that the contract suites run on. A further adapter registers itself in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.database.schema import migrate
from deltalakedb.uri import StoreUri, parse_uri


def _sqlite(request: pytest.FixtureRequest) -> StoreAddress:
    folder: Path = request.getfixturevalue("tmp_path")
    return StoreAddress(engine="sqlite", path=str(folder / "store.db"))


def _duckdb(request: pytest.FixtureRequest) -> StoreAddress:
    folder: Path = request.getfixturevalue("tmp_path")
    return StoreAddress(engine="duckdb", path=str(folder / "store.duckdb"))


def _postgres(request: pytest.FixtureRequest) -> StoreAddress:
    url: str = request.getfixturevalue("postgres_url")
    return postgres_address(url)


ENGINES: dict[str, Callable[[pytest.FixtureRequest], StoreAddress]] = {
    "sqlite": _sqlite,
    "duckdb": _duckdb,
    "postgres": _postgres,
}
"""How to get the address of a store that is not there yet, by engine."""


def postgres_address(url: str, schema: str = "lake") -> StoreAddress:
    """The address of a schema in the database at a libpq URL."""
    parsed = parse_uri(f"{url}?schema={schema}")
    assert isinstance(parsed, StoreUri)
    return parsed.address


def migrated(address: StoreAddress) -> Database:
    """A connection to the store, which is made and brought up to date first."""
    database = open_database(address, create=True)
    migrate(database)
    return database


@pytest.fixture(params=list(ENGINES))
def address(request: pytest.FixtureRequest) -> StoreAddress:
    """Where a store may be made, on every engine in turn."""
    return ENGINES[request.param](request)


@pytest.fixture
def database(address: StoreAddress) -> Iterator[Database]:
    """A connection to a store with all migrations, on every engine in turn."""
    database = migrated(address)
    yield database
    database.close()
