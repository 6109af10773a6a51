"""One Kafka node in KRaft mode, broker and controller in one process, from the fetched jars."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.services import cache, tools
from tests.services.process import Server, ServiceUnavailable, port_of, reserve_port

ENVIRONMENT = "TEST_KAFKA_BOOTSTRAP"
WARM_UP_TOPIC = "warm-up"

# Small and quick to start and to restart, but with every guarantee of a real broker.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log}
auto.create.topics.enable={creates}
unclean.leader.election.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# After a SIGKILL the old registration must expire before the broker is let in again; the default is 9 s.
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
"""

_LOGGING = """\
Configuration:
  Appenders:
    Console:
      name: C
      PatternLayout:
        pattern: "%d %p %c{1}: %m%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: C
"""

_CLASS_ARCHIVE = "kafka.jsa"
_FORMATTED_LOG = "kafka-log"


class Kafka(Server):
    """A Kafka of one node; topics are not created by use unless it is asked for."""

    name: ClassVar[str] = "kafka"

    def __init__(self, *java_options: str, creates_topics: bool = False) -> None:
        super().__init__()
        self._controller_port = reserve_port()
        self._java_options = java_options or _archived_classes()
        self._creates_topics = creates_topics

    @property
    def bootstrap(self) -> str:
        """``host:port`` for ``bootstrap.servers``."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        log = self.folder / "log"
        if not log.exists():
            shutil.copytree(cache.fetched(_FORMATTED_LOG), log)
        (self.folder / "log4j2.yaml").write_text(_LOGGING)
        properties = self.folder / "server.properties"
        properties.write_text(
            _PROPERTIES.format(
                broker=self.port,
                controller=port_of(self._controller_port),
                log=log,
                creates=str(self._creates_topics).lower(),
            )
        )
        return [
            _java(),
            "-Xms128m",
            "-Xmx192m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            *self._java_options,
            "-Dlog4j2.configurationFile=log4j2.yaml",
            "-cp",
            ":".join(cache.jars("kafka")),
            "kafka.Kafka",
            str(properties),
        ]

    def ready(self) -> bool:
        return answers(self.bootstrap, seconds=1)

    def close(self) -> None:
        super().close()
        self._controller_port.close()


def from_environment() -> str | None:
    """The bootstrap servers of TEST_KAFKA_BOOTSTRAP; None if it is not set.

    Raises:
        ServiceUnavailable: nothing answers there.
    """
    bootstrap = os.environ.get(ENVIRONMENT)
    if bootstrap and not answers(bootstrap, seconds=10):
        raise ServiceUnavailable(f"no Kafka answers at {ENVIRONMENT}={bootstrap}: start it, or unset the variable.")
    return bootstrap


def version() -> str:
    """The version of the fetched broker.

    Raises:
        ServiceUnavailable: it was not fetched.
    """
    names = " ".join(cache.jars("kafka"))
    found = re.search(r"kafka_[\d.]+-([\d.]+)\.jar", names)
    assert found is not None
    return found[1]


def warm_up(bootstrap: str) -> None:
    """Makes a fresh broker ready for idempotent producers, the first of which would wait a second otherwise.

    Raises:
        ServiceUnavailable: the broker takes no message.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})
    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "retry.backoff.ms": 20, "log_level": 3}
    )
    admin.create_topics([NewTopic(WARM_UP_TOPIC, 1)])[WARM_UP_TOPIC].result(30)
    producer.produce(WARM_UP_TOPIC, b"")
    if producer.flush(30):
        raise ServiceUnavailable(f"Kafka at {bootstrap} takes no message.")


def format_log(fetched: Path) -> None:
    """Leaves a formatted, empty log folder in a cache folder: every Kafka starts from a copy of it.

    Args:
        fetched: the cache folder, which has the jars already.

    Raises:
        subprocess.CalledProcessError: Kafka's own tool failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        properties = Path(scratch) / "server.properties"
        properties.write_text(_PROPERTIES.format(broker=1, controller=2, log=fetched / _FORMATTED_LOG, creates="false"))
        jars = ":".join(str(jar) for jar in (fetched / "jars" / "kafka").glob("*.jar"))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = [_java(), "-Xmx64m", "-cp", jars, "kafka.tools.StorageTool"]
        subprocess.run([*tool, "format", "-t", cluster, "-c", properties], check=True, stdout=subprocess.DEVNULL)


def archive_classes(fetched: Path) -> None:
    """Leaves an archive of the broker's loaded classes in the cache folder, which saves a second of every start."""
    archive = fetched / _CLASS_ARCHIVE
    unfinished = archive.with_suffix(".unfinished")
    with Kafka(f"-XX:ArchiveClassesAtExit={unfinished}", "-Xlog:disable") as server:
        warm_up(server.bootstrap)
        server.stop()
    if unfinished.exists():
        unfinished.rename(archive)


def _archived_classes() -> tuple[str, ...]:
    archive = cache.folder() / _CLASS_ARCHIVE
    # Without the log option, another Java than the one that made the archive complains before it goes on without it.
    return (f"-XX:SharedArchiveFile={archive}", "-Xlog:disable") if archive.exists() else ()


def limit(bootstrap: str, client_id: str, **quotas: int) -> None:
    """Gives clients that call themselves so a quota, such as `producer_byte_rate` (bytes a second), on a broker without users.

    Raises:
        subprocess.CalledProcessError: Kafka's own tool failed.
    """
    settings = ",".join(f"{name}={value}" for name, value in quotas.items())
    entity = ["--entity-type", "clients", "--entity-name", client_id]
    tool = [_java(), "-Xmx64m", "-cp", ":".join(cache.jars("kafka")), "kafka.admin.ConfigCommand"]
    subprocess.run(
        [*tool, "--bootstrap-server", bootstrap, "--alter", "--add-config", settings, *entity],
        check=True,
        capture_output=True,
        timeout=120,
    )


def answers(bootstrap: str, seconds: float) -> bool:
    """Whether a broker answers there."""
    admin = AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,
        }
    )
    try:
        return bool(admin.list_topics(timeout=seconds).brokers)
    except KafkaException:
        return False


def _java() -> str:
    found = tools.java()
    if found is None:
        raise ServiceUnavailable(
            f"Kafka needs Java {tools.OLDEST_JAVA} or newer: install openjdk-17-jre-headless, or set {ENVIRONMENT}."
        )
    return found
