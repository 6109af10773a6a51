"""PostgreSQL for tests: a fresh database on the run's server, or a server of one's own to kill."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from tests.services import postgres
from tests.services.process import ServiceUnavailable
from tests.services.run import Addresses


def pytest_report_header(config: pytest.Config) -> str:
    if given := os.environ.get(postgres.ENVIRONMENT):
        return f"postgres: {postgres.ENVIRONMENT}, {postgres.shown(given)}"
    if config.getoption("--services") == "containers":
        return "postgres: in a container, started on first use"
    try:
        return f"postgres: native {postgres.version()}, started on first use"
    except ServiceUnavailable as missing:
        return f"postgres: {missing}"


@pytest.fixture
def postgres_url(servers: Addresses) -> Iterator[str]:
    """URL (``postgresql://...``) of an empty database that only this test uses."""
    server = servers.postgres()
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    # Our own server is thrown away with all its databases.
    if os.environ.get(postgres.ENVIRONMENT):
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_server() -> Iterator[postgres.Postgres]:
    """A running server that only this test uses and may ``kill()`` and ``start()`` again."""
    with postgres.Postgres() as server:
        yield server
