"""One S3 endpoint: versitygw, a gateway to a folder, with AWS's own rules for conditional puts."""

from __future__ import annotations

import errno
import http.client
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_s3 import S3Client

from tests.services import cache
from tests.services.process import Server, ServiceUnavailable

ENVIRONMENT = "TEST_S3_ENDPOINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Address:
    """What a client needs to reach an S3 endpoint."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    def client(self) -> S3Client:
        """A boto3 client; one per thread of control, it is dear to make."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}),
        )


class VersityGateway(Server):
    """A versitygw on a folder of its own, with one root account."""

    name: ClassVar[str] = "s3"

    def __init__(self) -> None:
        super().__init__()
        self._access_key = secrets.token_hex(10)
        self._secret_key = secrets.token_hex(20)

    @property
    def address(self) -> S3Address:
        return S3Address(
            endpoint=f"http://127.0.0.1:{self.port}", access_key=self._access_key, secret_key=self._secret_key
        )

    def environment(self) -> dict[str, str]:
        # By environment, not by arguments, which every user of the machine can read.
        return {"ROOT_ACCESS_KEY": self._access_key, "ROOT_SECRET_KEY": self._secret_key}

    def command(self) -> Sequence[str]:
        buckets = self.folder / "buckets"
        buckets.mkdir(exist_ok=True)
        metadata = []
        if not _has_attributes(buckets):
            sidecar = self.folder / "metadata"
            sidecar.mkdir(exist_ok=True)
            metadata = ["--sidecar", str(sidecar)]
        gateway = str(cache.fetched("bin/versitygw"))
        return [gateway, "--port", f"127.0.0.1:{self.port}", "--quiet", "posix", *metadata, str(buckets)]

    def ready(self) -> bool:
        return answers(self.port)


def answers(port: int) -> bool:
    """Whether somebody speaks HTTP at a port of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def from_environment() -> S3Address | None:
    """The endpoint in TEST_S3_ENDPOINT with AWS's usual credential variables; None if it is not set.

    Raises:
        ServiceUnavailable: a credential is missing, or nothing answers, or it refuses the credentials.
    """
    endpoint = os.environ.get(ENVIRONMENT)
    if not endpoint:
        return None
    try:
        address = S3Address(
            endpoint=endpoint.rstrip("/"),
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            region=os.environ.get("AWS_REGION", "us-east-1"),
        )
    except KeyError as error:
        raise ServiceUnavailable(f"{ENVIRONMENT} is set and {error.args[0]} is not: set it too.") from error
    try:
        address.client().list_buckets()
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable(
            f"no S3 answers at {ENVIRONMENT}={shown(endpoint)}: start it, or unset the variable.\n{error}"
        ) from error
    return address


def shown(endpoint: str) -> str:
    """An endpoint without a user or password that its URL may carry."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def version() -> str:
    """The version of the fetched gateway.

    Raises:
        ServiceUnavailable: it was not fetched.
    """
    cache.fetched("bin/versitygw")
    return cache.VERSITYGW


def _has_attributes(folder: Path) -> bool:
    """Whether the file system keeps user attributes, where the gateway puts an object's metadata by default."""
    try:
        os.setxattr(folder, "user.deltalakedb", b"1")
        os.removexattr(folder, "user.deltalakedb")
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        return False
    return True
