"""Loads the fixtures, which have a file per service."""

from __future__ import annotations

pytest_plugins = [
    "tests.fix_servers",
    "tests.fix_kafka",
    "tests.fix_network",
    "tests.fix_postgres",
    "tests.fix_s3",
    "tests.fix_spark",
    "tests.fix_duckdb",
    "tests.fix_golden",
]
