"""Settings that name another log, and topics that are not the lake's: every program refuses them, and makes none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deltalakedb.errors import TxnLogConfigError, TxnLogHaltedError
from deltalakedb.ids import new_txn_id
from deltalakedb.process import EXIT_FAILED, EXIT_HALTED
from deltalakedb_committer.lake import make_lake
from tests.pipeline import LakeAddress
from tests.processes import Service
from tests.services.kafka import Kafka

SECONDS = 120.0
STREAMS = {"lake.staged", "lake.commits", "lake.outcomes", "lake.dead-letter"}


@pytest.fixture(scope="module")
def server() -> Iterator[Kafka]:
    """A broker that creates a topic for whoever asks for one."""
    with Kafka(creates_topics=True) as server:
        yield server


@pytest.fixture
def admin(server: Kafka) -> Iterator[AdminClient]:
    """What asks the broker; every topic is gone afterwards."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    yield admin
    delete(admin, *topics(admin))


@pytest.fixture
def address(server: Kafka, admin: AdminClient, postgres_url: str, tmp_path: Path) -> LakeAddress:
    """A lake that is made, and that nobody serves."""
    address = LakeAddress(
        store=f"{postgres_url}?schema=lake",
        log=f"kafka://{server.bootstrap}/lake",
        root=(tmp_path / "tables").as_uri(),
    )
    make_lake(address.settings)
    return address


def topics(admin: AdminClient) -> set[str]:
    return {name for name in admin.list_topics(timeout=SECONDS).topics if not name.startswith("__")}


def delete(admin: AdminClient, *names: str) -> None:
    if names:
        for deleted in admin.delete_topics(list(names)).values():
            deleted.result(SECONDS)
    wait_until(lambda: not topics(admin) & set(names))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(address: LakeAddress, verb: str, log: Path) -> tuple[int, str]:
    """How a service ends that is started on the lake, and what it says."""
    with Service(verb, "run", environment=address.environment, log=log) as service:
        wait_until(lambda: not service.running)
        return service.stop(), log.read_text()


def test_another_log_than_the_lakes_is_refused(
    address: LakeAddress, admin: AdminClient, server: Kafka, tmp_path: Path
) -> None:
    """A mistyped prefix is named beside the right one by client, services and `migrate`, and no topic comes of it."""
    typed = LakeAddress(store=address.store, log=f"kafka://{server.bootstrap}/lak", root=address.root)
    refusal = f"the settings name the log {typed.log}, but this lake is written through {address.log}"

    for use in (typed.connect, lambda: make_lake(typed.settings)):
        with pytest.raises(TxnLogConfigError, match=refusal):
            use()
    for verb in ("committer", "mirror"):
        code, said = ended(typed, verb, tmp_path / f"{verb}.log")
        assert (code, refusal in said) == (EXIT_FAILED, True), said
    assert topics(admin) == STREAMS


def test_a_topic_that_is_gone_is_made_again_by_nobody(address: LakeAddress, admin: AdminClient, tmp_path: Path) -> None:
    """Nor by a broker that creates what is asked for, nor by `migrate`, whose topic would be another one."""
    delete(admin, "lake.staged")

    with address.connect() as lake:
        for use in (lambda: lake.cancel(new_txn_id()), lambda: make_lake(address.settings)):
            with pytest.raises(TxnLogHaltedError, match=r"LOG_MISSING.*lake\.staged"):
                use()
    code, said = ended(address, "committer", tmp_path / "committer.log")
    assert (code, "LOG_MISSING" in said) == (EXIT_HALTED, True), said
    assert topics(admin) == STREAMS - {"lake.staged"}


def test_a_topic_of_somebody_else_is_not_written_to(address: LakeAddress, admin: AdminClient) -> None:
    """What another tool has made under the lake's name is no place for a transaction: nobody would decide it."""
    delete(admin, "lake.staged")
    admin.create_topics([NewTopic("lake.staged", 1, 1)])["lake.staged"].result(SECONDS)
    wait_until(lambda: "lake.staged" in topics(admin))

    with address.connect() as lake:
        for use in (lambda: lake.cancel(new_txn_id()), lambda: make_lake(address.settings)):
            with pytest.raises(TxnLogHaltedError, match="LOG_RECREATED"):
                use()
