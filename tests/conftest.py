"""Loads the fixtures, which have a file per service; properties are tried on the same examples in every run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("new")
settings.load_profile("same")

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
