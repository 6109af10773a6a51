"""Loads the fixtures, which have a file per service; properties are tried on the same examples in every run, however
long a busy machine takes over one."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", _PATIENT, derandomize=True)
settings.register_profile("new", _PATIENT)
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
