"""One transaction of a million adds to a hundred tables, while others commit: what it takes, and what they notice of it."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

from deltalakedb import Lake, connect
from deltalakedb.actions import AddFile
from deltalakedb.codec import encode
from deltalakedb.eventlog import Message, Stream, open_event_log
from deltalakedb.events import Control, SetRules
from deltalakedb.ids import new_txn_id
from deltalakedb.settings import load_settings
from tests.pipeline import LakeAddress

from . import data
from .workloads import TwoTableAppend

TABLES = 100
WIDE_RULES = 2
"""The rule set that allows so many tables in one transaction."""
OTHERS_RATE = 100.0
"""Two-table transactions per second of everybody else."""
LOOK_SECONDS = 0.05
DECIDED_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What one big transaction took."""

    seconds: float
    client_bytes: int
    """Resident memory of the client above what it had with all its actions made, where that was highest."""
    committer_bytes: int
    """Resident memory of the committer, where that was highest."""


def table_names() -> list[str]:
    """Of the tables that it adds to."""
    return [f"big_{n:03}" for n in range(TABLES)]


def create_tables(address: LakeAddress) -> None:
    """Makes them, under rules by which one transaction may write all of them."""
    assert address.log is not None, "big transactions are measured on servers"
    with _connect(address) as lake:
        rules = Control(
            control_id=new_txn_id(), lake_id=lake.lake_id, client_id="bench", command=SetRules(rule_set=WIDE_RULES)
        )
        log = open_event_log(address.log, client_id="bench")
        try:
            log.append(Stream.STAGED, [Message(encode(rules))]).result()
        finally:
            log.close()
        with lake.begin() as tx:
            for name in table_names():
                tx.create_table(name, data.SCHEMA)


class Others:
    """Two-table appends at a steady rate, from a thread of its own, from `with` to its end."""

    def __init__(self, address: LakeAddress, pair: data.Pair) -> None:
        self._client = TwoTableAppend(address=address, kind="commit", pairs=(pair,)).open(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._open: list[Future[Any]] = []
        self._found: list[float] = []

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        wait(self._open, DECIDED_SECONDS)
        self._client.close()

    @property
    def latencies(self) -> Sequence[float]:
        """Seconds, ascending, from when a transaction was due: all that had to wait for a stall have seen it."""
        return sorted(self._found)

    def _run(self) -> None:
        first, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, (due := first + number / OTHERS_RATE) - time.monotonic())):
            answer = self._client.submit(number)
            answer.add_done_callback(lambda done, due=due: self._note(done, due))  # type: ignore[misc]
            self._open.append(answer)
            number += 1

    def _note(self, answer: Future[Any], due: float) -> None:
        answer.result()
        self._found.append(time.monotonic() - due)


def commit(address: LakeAddress, committer: int, actions: int) -> Committed:
    """Commits it in a process of its own. `committer` is the process that decides it."""
    process = psutil.Process(committer)
    peak = process.memory_info().rss
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    client = context.Process(target=_commit, args=(address, actions, theirs))
    client.start()
    theirs.close()
    try:
        while client.is_alive():
            peak = max(peak, process.memory_info().rss)
            time.sleep(LOOK_SECONDS)
        seconds, client_bytes = ours.recv()
    finally:
        client.join()
    return Committed(seconds=seconds, client_bytes=client_bytes, committer_bytes=peak)


def _connect(address: LakeAddress) -> Lake:
    """A client that may write all of the tables in one transaction."""
    return connect(settings=load_settings(store=address.store, log=address.log, root=address.root, max_tables=TABLES))


def _commit(address: LakeAddress, actions: int, answer: Connection) -> None:
    names = table_names()
    statistics = data.many_statistics(0)
    prefix = uuid.uuid4()
    with _connect(address) as lake:
        tx = lake.begin(timeout=DECIDED_SECONDS)
        for number, name in enumerate(names):
            share = range(number, actions, TABLES)
            tx.stage_table(name, actions=[_add(f"{prefix}-{n}", statistics[n % len(statistics)]) for n in share])
        process = psutil.Process()
        before = peak = process.memory_info().rss
        stop = threading.Event()

        def look() -> None:
            nonlocal peak
            while not stop.wait(LOOK_SECONDS):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=look)
        watcher.start()
        began = time.monotonic()
        tx.commit()
        seconds = time.monotonic() - began
        stop.set()
        watcher.join()
    answer.send((seconds, peak - before))


def _add(name: str, statistics: str) -> AddFile:
    return AddFile(
        path=f"part-{name}.c000.snappy.parquet",
        partition_values={},
        size=100_000,
        modification_time=1_700_000_000_000,
        stats=statistics,
    )
