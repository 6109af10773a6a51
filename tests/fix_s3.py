"""S3 for tests: a fresh bucket on the run's endpoint, or an endpoint of one's own to kill."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from mypy_boto3_s3 import S3Client

from tests.services import s3
from tests.services.process import ServiceUnavailable
from tests.services.run import Addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Bucket(s3.S3Address):
    """A bucket and what a client needs to reach it."""

    name: str

    def uri(self, path: str = "") -> str:
        """``s3://`` URI of a path in the bucket."""
        return f"s3://{self.name}/{path}"

    @property
    def storage_options(self) -> dict[str, str]:
        """The same for delta-rs and Polars."""
        return {**self.environment, "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true"}

    @property
    def environment(self) -> dict[str, str]:
        """The same as AWS's own environment variables, for a child process."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
        }


def pytest_report_header(config: pytest.Config) -> str:
    if given := os.environ.get(s3.ENVIRONMENT):
        return f"s3: {s3.ENVIRONMENT}={s3.shown(given)}"
    if config.getoption("--services") == "containers":
        return "s3: in a container, started on first use"
    try:
        return f"s3: native versitygw {s3.version()}, started on first use"
    except ServiceUnavailable as missing:
        return f"s3: {missing} Or set {s3.ENVIRONMENT}."


@pytest.fixture(scope="session")
def s3_client(servers: Addresses) -> S3Client:
    """A boto3 client of the run's endpoint."""
    return servers.s3().client()


@pytest.fixture
def s3_bucket(servers: Addresses, s3_client: S3Client) -> Iterator[S3Bucket]:
    """An empty bucket that only this test uses."""
    address = servers.s3()
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    yield S3Bucket(
        name=name,
        endpoint=address.endpoint,
        access_key=address.access_key,
        secret_key=address.secret_key,
        region=address.region,
    )
    # Our own gateway is thrown away with all its buckets.
    if os.environ.get(s3.ENVIRONMENT):
        for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for found in page.get("Contents", ()):
                s3_client.delete_object(Bucket=name, Key=found["Key"])
        s3_client.delete_bucket(Bucket=name)


@pytest.fixture
def s3_server() -> Iterator[s3.VersityGateway]:
    """A running endpoint that only this test uses and may ``kill()`` and ``start()`` again."""
    with s3.VersityGateway() as server:
        yield server
