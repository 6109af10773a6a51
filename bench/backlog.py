"""Committer and mirror alone: what has to be done is there before they start, and they do it as fast as they can."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from deltalakedb import codec
from deltalakedb.actions import AddFile
from deltalakedb.database import open_database
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb.events import Content, Envelope, TableWork, WrittenAgainst
from deltalakedb.ids import new_txn_id
from deltalakedb.settings import load_settings
from tests.pipeline import LakeAddress, Pipeline

from . import data
from .cpu import CpuProbe
from .mirror import PublishedProbe

IN_FLIGHT = 1_000
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """How much was done, in what time: from the first result that was seen to the last."""

    count: int
    seconds: float
    cpu: CpuProbe


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Two-table appends put on the log and not waited for; who would answer does not run."""

    log: str
    lake_id: str
    root: str
    pairs: tuple[data.Pair, ...]

    @staticmethod
    def of(address: LakeAddress, pairs: tuple[data.Pair, ...]) -> Publish:
        """For the lake at `address`, whose tables are as they were made."""
        assert address.log is not None, "a backlog is for a lake on servers"
        database = open_database(load_settings(store=address.store).address)
        try:
            ((lake_id, root),) = database.query("SELECT lake_id, root FROM dl_lake")
        finally:
            database.close()
        return Publish(log=address.log, lake_id=lake_id, root=root, pairs=pairs)

    def open(self, number: int) -> _Publisher:
        return _Publisher(self, open_event_log(self.log, client_id=f"publisher-{number}"), number)


class _Publisher:
    def __init__(self, workload: Publish, log: EventLog, number: int) -> None:
        self._workload = workload
        self._log = log
        self._number = number
        self._partition = number % log.partitions(Stream.OUTCOMES)

    def transact(self, number: int) -> None:
        self.submit(number).result()

    def submit(self, number: int) -> Future[Any]:
        pair = self._workload.pairs[(self._number + number) % len(self._workload.pairs)]
        txn_id = new_txn_id()
        statistics = data.statistics(self._number, number)
        content = codec.encode_content(
            Content(tables=tuple(_work(table, f"{txn_id}.parquet", statistics) for table in pair.tables))
        )
        envelope = Envelope(
            txn_id=txn_id,
            digest=codec.content_digest([content]),
            lake_id=self._workload.lake_id,
            root=self._workload.root,
            client_id=f"publisher-{self._number}",
            outcome_partition=self._partition,
        )
        message = Message(codec.encode_chunk(envelope, content), codec.headers(envelope))
        return self._log.append(Stream.STAGED, [message])

    def close(self) -> None:
        self._log.close()


def committer(pipeline: Pipeline, timeout: float) -> Worked:
    """Starts the committer and waits until everything on the log is durable in SQL and told on the log.

    Raises:
        TimeoutError: it took longer than `timeout` seconds.
    """
    address = pipeline.address
    assert address.log is not None, "a backlog is for a lake on servers"
    log = open_event_log(address.log, client_id="watcher")
    database = open_database(load_settings(store=address.store).address)

    def position() -> int:
        ((found,),) = database.query("SELECT position FROM dl_committer_position")
        return int(found)

    partitions = range(log.partitions(Stream.OUTCOMES))
    outcomes = [log.reader(Stream.OUTCOMES, log.end(Stream.OUTCOMES, partition=n), partition=n) for n in partitions]
    left = 0

    def told() -> bool:
        nonlocal left
        for reader in outcomes:
            while records := reader.read(1_000, 0.1):
                left -= sum(len(codec.decode_told(record.value)) for record in records)
        return left <= 0

    try:
        before = position()
        left = log.end(Stream.STAGED) - before
        pipeline.start(pipeline.committer)
        _wait(lambda: position() > before, "the first batch", timeout)
        cpu = CpuProbe(pipeline.services)
        cpu.begin([])
        first, begun = position(), time.monotonic()
        end = log.end(Stream.STAGED)
        _wait(lambda: position() >= end, "deciding the backlog", timeout)
        _wait(told, "telling the outcomes", timeout)
        seconds = time.monotonic() - begun
        cpu.end()
    finally:
        for reader in outcomes:
            reader.close()
        database.close()
        log.close()
    return Worked(count=end - first, seconds=seconds, cpu=cpu)


def mirror(pipeline: Pipeline, timeout: float) -> Worked:
    """Starts the mirror and waits until everything that is committed is published.

    Raises:
        TimeoutError: it took longer than `timeout` seconds.
    """
    published = PublishedProbe(pipeline.address.tables_folder, pipeline.address.heads)
    before = published.missing()
    pipeline.start(pipeline.mirror)
    _wait(lambda: published.missing() < before, "the first version", timeout)
    cpu = CpuProbe(pipeline.services)
    cpu.begin([])
    count = published.missing()
    seconds = published.drain(timeout)
    cpu.end()
    return Worked(count=count, seconds=seconds, cpu=cpu)


def _work(table: str, path: str, statistics: str) -> TableWork:
    add = AddFile(
        path=path, partition_values={}, size=1500, modification_time=int(time.time() * 1000), stats=statistics
    )
    return TableWork(
        name=table,
        operation_parameters={"mode": "Append"},
        written_against=WrittenAgainst(metadata_version=0, protocol_version=0),
        adds=(add,),
    )


def _wait(condition: Callable[[], bool], what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took longer than {timeout:.0f} s")
        time.sleep(POLL_SECONDS)
