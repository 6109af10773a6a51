"""Spark for tests: one session per process, with Delta and S3; and Sail, which reads Delta by a make of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from tests.services import spark as local_spark
from tests.services.process import ServiceUnavailable
from tests.services.readers import ReaderProcess
from tests.services.run import Addresses


def pytest_report_header() -> str:
    try:
        return f"spark: {local_spark.version()}, started on first use"
    except ServiceUnavailable as missing:
        return f"spark: {missing}"


@pytest.fixture(scope="session")
def spark(servers: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session that reads Delta tables by path, local or ``s3a://`` in any ``s3_bucket``.

    Its tests have Spark in their names and so share one process.  It must not write a table that others write.
    """
    session = local_spark.session(tmp_path_factory.mktemp("spark"), servers.s3())
    yield session
    session.stop()


@pytest.fixture(scope="session")
def sail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReaderProcess]:
    """Sail, one for all tests of a process."""
    with ReaderProcess("sail", tmp_path_factory.mktemp("sail") / "sail.log") as sail:
        yield sail
