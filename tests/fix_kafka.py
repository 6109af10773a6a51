"""Kafka for tests: a fresh topic prefix on the run's broker, or a broker of one's own to kill."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from tests.services import kafka
from tests.services.process import ServiceUnavailable
from tests.services.run import Addresses


def pytest_report_header(config: pytest.Config) -> str:
    if given := os.environ.get(kafka.ENVIRONMENT):
        return f"kafka: {kafka.ENVIRONMENT}={given}"
    if config.getoption("--services") == "containers":
        return "kafka: in a container, started on first use"
    try:
        return f"kafka: native {kafka.version()}, started on first use"
    except ServiceUnavailable as missing:
        return f"kafka: {missing} Or set {kafka.ENVIRONMENT}."


@pytest.fixture(scope="session")
def kafka_bootstrap(servers: Addresses) -> str:
    """``bootstrap.servers`` of the run's broker, which many tests share."""
    return servers.kafka()


@pytest.fixture
def kafka_prefix(kafka_bootstrap: str) -> Iterator[str]:
    """What the names of this test's topics begin with; no topic of that kind exists yet."""
    prefix = f"test-{uuid.uuid4().hex[:12]}."
    yield prefix
    # Our own broker is thrown away with all its topics.
    if os.environ.get(kafka.ENVIRONMENT):
        admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
        topics = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(prefix)]
        for deleted in admin.delete_topics(topics).values() if topics else ():
            deleted.result(30)


@pytest.fixture
def kafka_server() -> Iterator[kafka.Kafka]:
    """A running broker that only this test uses and may ``kill()`` and ``start()`` again."""
    with kafka.Kafka() as server:
        yield server
