"""The servers of a test run as containers: what `tests.services.run` starts as processes, through testcontainers."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.containers import engine, images
from tests.services import kafka, postgres, s3
from tests.services.process import ServiceUnavailable, port_of, reserve_port
from tests.services.run import ServerSet
from tests.services.s3 import S3Address

_START_SECONDS = 180.0


def missing() -> str | None:
    """Why nothing can run in containers here; None if it can."""
    try:
        images.names()
    except ServiceUnavailable as error:
        return str(error)
    return None


class ContainerSet(ServerSet):
    """Servers in containers, each started when it is first asked for; `close` or `with` removes them."""

    def __init__(self) -> None:
        super().__init__()
        self._containers: list[Any] = []
        self._reserved = ExitStack()
        self._preparing = threading.Lock()
        self._images: dict[str, str] | None = None

    def kafka(self) -> str:
        return self._once("kafka", lambda: kafka.from_environment() or self._start_kafka())

    def postgres(self) -> str:
        return self._once("postgres", lambda: postgres.from_environment() or self._start_postgres())

    def s3(self) -> S3Address:
        return self._once("s3", lambda: s3.from_environment() or self._start_s3())

    def close(self) -> None:
        super().close()
        while self._containers:
            self._containers.pop().stop()
        self._reserved.close()

    def _start_kafka(self) -> str:
        # Its clients are told this port by the broker, so that it must be known before, and be nobody else's meanwhile.
        port = port_of(self._reserved.enter_context(reserve_port()))
        settings = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            # One for itself: at the one that is advertised to the outside it does not find itself.
            "KAFKA_INTER_BROKER_LISTENER_NAME": "ITSELF",
            "KAFKA_LISTENERS": "ITSELF://127.0.0.1:9094,OUTSIDE://:9092,CONTROLLER://127.0.0.1:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"ITSELF://127.0.0.1:9094,OUTSIDE://127.0.0.1:{port}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "ITSELF:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        }
        self._run("KAFKA_IMAGE", 9092, settings, port=port)
        bootstrap = f"127.0.0.1:{port}"
        _wait(lambda: kafka.answers(bootstrap, seconds=1), "Kafka")
        kafka.warm_up(bootstrap)
        return bootstrap

    def _start_postgres(self) -> str:
        password = secrets.token_hex(16)
        port = self._run("POSTGRES_IMAGE", 5432, {"POSTGRES_PASSWORD": password})
        url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        _wait(lambda: postgres.answers(url), "PostgreSQL")
        return url

    def _start_s3(self) -> S3Address:
        access, secret = secrets.token_hex(10), secrets.token_hex(20)
        keys = {"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}
        port = self._run("S3_IMAGE", 7070, keys, command="--port :7070 --quiet posix /data")
        address = S3Address(endpoint=f"http://127.0.0.1:{port}", access_key=access, secret_key=secret)
        _wait(lambda: s3.answers(port), "the S3 gateway")
        return address

    def _run(
        self,
        image: str,
        inside: int,
        environment: dict[str, str],
        *,
        port: int | None = None,
        command: str | None = None,
    ) -> int:
        """Start a container of an image that is there; the port on loopback where it is reached."""
        container = self._prepared(image)
        for name, value in environment.items():
            container.with_env(name, value)
        if port is None:
            container.with_exposed_ports(inside)
        else:
            container.with_bind_ports(inside, port)
        if command is not None:
            container.with_command(command)
        container.start()
        self._containers.append(container)
        return port or int(container.get_exposed_port(inside))

    def _prepared(self, image: str) -> Any:
        with self._preparing:
            if self._images is None:
                # Never a registry's: a sidecar of the library would be pulled, and a container's gateway be asked for.
                os.environ.update(engine.environment())
                os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
                os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
                os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
                self._images = images.names()
            from testcontainers.core.container import DockerContainer

            return DockerContainer(self._images[image])


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise ServiceUnavailable(f"{what} did not answer in its container within {_START_SECONDS:.0f} s.")
        time.sleep(0.05)
