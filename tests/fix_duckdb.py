"""DuckDB for tests: a reader of Delta tables by path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import pytest

from tests.fix_s3 import S3Bucket
from tests.services import duck
from tests.services.process import ServiceUnavailable


def pytest_report_header() -> str:
    try:
        duck.extension("delta")
        return f"duckdb: {duckdb.__version__} with its delta extension"
    except ServiceUnavailable as missing:
        return f"duckdb: {missing}"


@pytest.fixture
def duckdb_connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own with ``delta_scan``, also of ``s3://`` after ``duckdb_s3``."""
    with duck.connect("delta", "httpfs") as connection:
        yield connection


@pytest.fixture
def duckdb_s3(duckdb_connection: duckdb.DuckDBPyConnection) -> Callable[[S3Bucket], None]:
    """Lets ``duckdb_connection`` read a bucket."""

    def grant(bucket: S3Bucket) -> None:
        duck.create_secret(duckdb_connection, bucket, scope=bucket.uri())

    return grant
