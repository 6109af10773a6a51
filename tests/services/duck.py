"""DuckDB connections with extensions from PyPI wheels, so that nothing is downloaded at run time."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import duckdb

from tests.services.process import ServiceUnavailable
from tests.services.s3 import S3Address


def connect(*extensions: str) -> duckdb.DuckDBPyConnection:
    """An in-memory database with these extensions (delta, httpfs, ducklake, ...) loaded.

    Raises:
        ServiceUnavailable: the wheel of an extension is missing, or is for another DuckDB.
    """
    files = [extension(name) for name in extensions]
    connection = duckdb.connect()
    # An extension that is not loaded is an error to see, not a download to wait for.
    connection.execute("SET autoinstall_known_extensions = false")
    for file in files:
        connection.execute(f"LOAD '{file}'")
    return connection


def create_secret(connection: duckdb.DuckDBPyConnection, s3: S3Address, scope: str) -> None:
    """Lets a connection with ``httpfs`` read what is under an ``s3://`` URI."""
    scheme, _, host = s3.endpoint.partition("://")
    name = "s3_" + hashlib.sha256(scope.encode()).hexdigest()[:12]
    connection.execute(
        f"""
        CREATE OR REPLACE SECRET {name} (
            TYPE s3, KEY_ID '{s3.access_key}', SECRET '{s3.secret_key}', REGION '{s3.region}',
            ENDPOINT '{host}', URL_STYLE 'path', USE_SSL {str(scheme == "https").lower()}, SCOPE '{scope}'
        )
        """
    )


def extension(name: str) -> Path:
    """The file of an extension for this DuckDB.

    Raises:
        ServiceUnavailable: its wheel is missing, or is for another DuckDB.
    """
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    if package is None or package.origin is None:
        raise ServiceUnavailable(f"duckdb-extension-{name.replace('_', '-')} is not installed: run `make services`.")
    folder = Path(package.origin).parent / "extensions" / f"v{duckdb.__version__}"
    file = folder / f"{name}.duckdb_extension"
    if not file.exists():
        raise ServiceUnavailable(f"{file} is not there: the wheel is not for DuckDB {duckdb.__version__}.")
    return file
