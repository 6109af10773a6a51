"""One committer process serves several lakes, and none of them suffers from another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka.admin import AdminClient

from deltalakedb import Lake
from deltalakedb.eventlog import Stream, open_event_log
from deltalakedb.events import Content, TableWork
from deltalakedb.ids import new_txn_id
from deltalakedb.process import EXIT_HALTED
from deltalakedb.publishing import messages
from tests.pipeline import LakeAddress, on_servers
from tests.processes import Service
from tests.services.run import Addresses
from tests.works import add

BACKLOG = 10_000
"""Transactions that wait on the log of the busy lake: seconds of a committer's work."""
ROWS = pa.table({"id": [1]})


@pytest.fixture(scope="module")
def addresses(servers: Addresses, tmp_path_factory: pytest.TempPathFactory) -> list[LakeAddress]:
    """Two lakes without services, on one database server and one broker."""
    return [on_servers(servers, tmp_path_factory.mktemp(name)).address for name in ("busy", "quiet")]


@pytest.fixture
def committer(addresses: list[LakeAddress], tmp_path: Path) -> Iterator[Service]:
    """One committer for both lakes, not started yet."""
    stores = [argument for address in addresses for argument in ("--store", address.store)]
    service = Service("committer", "run", *stores, "--takeover-after", "1", environment={}, log=tmp_path / "committer")
    try:
        yield service
    finally:
        if service.running:
            service.kill()


@pytest.fixture
def lakes(addresses: list[LakeAddress]) -> Iterator[list[Lake]]:
    """Clients of the two lakes."""
    with ExitStack() as stack:
        yield [stack.enter_context(address.connect()) for address in addresses]


def test_a_busy_lake_does_not_hold_up_another(
    addresses: list[LakeAddress], lakes: list[Lake], committer: Service
) -> None:
    """While thousands of transactions wait on one lake's log, the other lake's clients are answered between them, and
    after a SIGKILL both go on where they stood."""
    busy, quiet = lakes
    committer.start()
    for lake in lakes:
        lake.append("orders", ROWS)
    assert committer.stop() == 0
    _pile_up(addresses[0], busy)

    committer.start()
    for _ in range(3):
        quiet.append("orders", ROWS)
    behind = BACKLOG - addresses[0].heads()["orders"]

    assert behind > 0, "the quiet lake waited for the busy one"
    committer.kill()
    committer.start()
    quiet.append("orders", ROWS)
    busy.append("orders", ROWS)
    assert addresses[0].heads() == {"orders": BACKLOG + 1}, "what waited was decided before what came later"
    assert addresses[1].heads() == {"orders": 4}
    assert committer.stop() == 0


def test_a_halted_lake_halts_no_other(
    addresses: list[LakeAddress], lakes: list[Lake], committer: Service, kafka_bootstrap: str
) -> None:
    """A lake whose topic was made again is halted and named in the log; the other goes on. With every lake halted,
    the process ends, with the exit code that says so."""
    committer.start()
    for lake in lakes:
        lake.append("orders", ROWS)
    assert committer.stop() == 0
    _recreate_log(addresses[0], kafka_bootstrap)

    committer.start()
    lakes[1].append("orders", ROWS)
    _wait_for(lambda: "LOG_RECREATED" in committer.log.read_text())
    lakes[1].append("orders", ROWS)

    assert committer.stop() == 0
    _recreate_log(addresses[1], kafka_bootstrap)
    for _ in range(2):  # halted still after a restart, and not standing by for the halted one before it
        committer.start()
        _wait_for(lambda: not committer.running)
        assert committer.stop() == EXIT_HALTED


def _pile_up(address: LakeAddress, lake: Lake) -> None:
    """Publish blind appends without waiting for what becomes of them."""
    sender = lake._open_session().sender
    staged = [
        message
        for number in range(BACKLOG)
        for message in messages(
            new_txn_id(), Content(tables=(TableWork(name="orders", adds=(add(f"{number}.parquet"),)),)), sender
        )
    ]
    assert address.log is not None
    with closing(open_event_log(address.log)) as log:
        log.append(Stream.STAGED, staged).result()


def _recreate_log(address: LakeAddress, bootstrap: str) -> None:
    """Delete the topic of staged transactions and make it again, as a careless operator might."""
    assert address.log is not None
    topic = f"{address.log.rsplit('/', 1)[1]}.staged"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    _wait_for(lambda: topic not in admin.list_topics(timeout=10).topics)
    with closing(open_event_log(address.log)) as log:
        log.create()


def _wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
