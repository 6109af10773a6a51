"""The servers of one run, each started when it is first asked for: native, unless the environment has an address."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from tests.services import kafka, postgres, s3
from tests.services.process import Server
from tests.services.s3 import S3Address

S = TypeVar("S", bound=Server)
A = TypeVar("A")


class Addresses(Protocol):
    """Where the servers of the run are.  Each method starts its server if it does not run yet.

    Raises:
        ServiceUnavailable: from every method; the message says what to set, install or start.
    """

    def kafka(self) -> str:
        """Bootstrap servers of a Kafka."""

    def postgres(self) -> str:
        """URL of a PostgreSQL database whose user may create others."""

    def s3(self) -> S3Address:
        """An S3 endpoint with credentials that may create buckets."""


class ServerSet:
    """The servers themselves, owned by this process; ``close`` or ``with`` stops what was started.

    Safe to ask from many threads: two that ask for different servers start these side by side.
    """

    def __init__(self, *, broker_options: Sequence[str] = ()) -> None:
        """``broker_options`` go to the broker's Java, after those that make it start fast."""
        self._broker_options = broker_options
        # A server ends with the thread that started it, and these threads stay until close.
        self._starters = ThreadPoolExecutor(3, thread_name_prefix="start-server")
        self._lock = threading.Lock()
        self._addresses: dict[str, Future[Any]] = {}
        self._servers: list[Server] = []

    def kafka(self) -> str:
        return self._once("kafka", lambda: kafka.from_environment() or self._start_kafka())

    def postgres(self) -> str:
        return self._once("postgres", lambda: postgres.from_environment() or self._start(postgres.Postgres()).url)

    def s3(self) -> S3Address:
        return self._once("s3", lambda: s3.from_environment() or self._start(s3.VersityGateway()).address)

    def close(self) -> None:
        """Stops the servers that were started, last one first."""
        self._starters.shutdown()
        while self._servers:
            self._servers.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _once(self, name: str, address: Callable[[], A]) -> A:
        with self._lock:
            if name not in self._addresses:
                self._addresses[name] = self._starters.submit(address)
        found: A = self._addresses[name].result()
        return found

    def _start(self, server: S) -> S:
        self._servers.append(server)
        server.start()
        return server

    def _start_kafka(self) -> str:
        bootstrap = self._start(kafka.Kafka(*self._broker_options)).bootstrap
        kafka.warm_up(bootstrap)
        return bootstrap
