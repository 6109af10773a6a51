"""What the parts cost alone, below everything that is measured: disk, one-row commit, there and back through the log.

A commit cannot be faster than a record to the committer, one durable SQL transaction, and a record back.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psycopg

from deltalakedb.eventlog import Message, Stream, open_event_log
from deltalakedb.ids import new_txn_id

from .harness import Load, run

PAGE = b"x" * 8192
EVENT = b"x" * 1000
"""About what a two-table append with its statistics takes."""
ANSWER = b"x" * 250
_KEY = "key"
_PARTITION = "partition"


@dataclass(frozen=True, slots=True)
class Sync:
    """`fdatasync` of 8 KiB, one after the other: what the disk takes for anything durable."""

    folder: Path

    def open(self, number: int) -> _Syncing:
        return _Syncing(self.folder / f"sync-{number}")


class _Syncing:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY)

    def transact(self, number: int) -> None:
        os.pwrite(self._file, PAGE, number % 1024 * len(PAGE))
        os.fdatasync(self._file)

    def submit(self, number: int) -> Future[Any]:
        raise NotImplementedError("a disk is asked one thing after the other")

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class OneRow:
    """A Postgres transaction that inserts one row."""

    url: str

    def create(self) -> None:
        """Makes the table."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE one_row (number BIGINT, body TEXT)")

    def open(self, number: int) -> _Inserting:
        return _Inserting(psycopg.connect(self.url, autocommit=True))


class _Inserting:
    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def transact(self, number: int) -> None:
        self._connection.execute("INSERT INTO one_row VALUES (%s, %s)", (number, "x" * 100))

    def submit(self, number: int) -> Future[Any]:
        raise NotImplementedError("a connection has one transaction at a time")

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Echo:
    """A record to another process and its answer back, both through the log, with nothing done in between."""

    log: str

    def create(self) -> None:
        """Makes the topics."""
        log = open_event_log(self.log, client_id="echo")
        log.create()
        log.close()

    def warm_up(self, seconds: float) -> None:
        """Keeps the broker busy for a while: its compiler needs that long to make of it what it is in service."""
        with self.answering():
            run(self, Load(clients=8, warm_up=0.0, seconds=seconds))

    @contextmanager
    def answering(self) -> Iterator[int]:
        """The process that answers; its id."""
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        process = context.Process(target=_answer, args=(self.log, stop), daemon=True)
        process.start()
        assert process.pid is not None
        try:
            yield process.pid
        finally:
            stop.set()
            process.join(10)

    def open(self, number: int) -> _Asking:
        return _Asking(self.log, number)


class _Asking:
    def __init__(self, address: str, number: int) -> None:
        self._log = open_event_log(address, client_id=f"echo-{number}")
        self._partition = number % self._log.partitions(Stream.OUTCOMES)
        self._waiting: dict[bytes, Future[Any]] = {}
        self._closing = threading.Event()
        end = self._log.end(Stream.OUTCOMES, partition=self._partition)
        self._reader = self._log.reader(Stream.OUTCOMES, end, partition=self._partition)
        self._thread = threading.Thread(target=self._read, name="read-answers", daemon=True)
        self._thread.start()

    def transact(self, number: int) -> None:
        self.submit(number).result(30)

    def submit(self, number: int) -> Future[Any]:
        key = new_txn_id().encode()
        future: Future[Any] = Future()
        self._waiting[key] = future
        headers = ((_KEY, key), (_PARTITION, str(self._partition).encode()))
        self._log.append(Stream.STAGED, [Message(EVENT, headers)])
        return future

    def close(self) -> None:
        self._closing.set()
        self._thread.join(10)
        self._log.close()

    def _read(self) -> None:
        while not self._closing.is_set():
            for record in self._reader.read(1_000, 0.2):
                future = self._waiting.pop(dict(record.headers)[_KEY], None)
                if future is not None:
                    future.set_result(None)
        self._reader.close()


def _answer(address: str, stop: Event) -> None:
    log = open_event_log(address, client_id="answer")
    reader = log.reader(Stream.STAGED, log.beginning(Stream.STAGED))
    while not stop.is_set():
        answers = []
        for record in reader.read(1_000, 0.2):
            headers = dict(record.headers)
            answers.append(Message(ANSWER, ((_KEY, headers[_KEY]),), int(headers[_PARTITION])))
        if answers:
            log.append(Stream.OUTCOMES, answers)
    reader.close()
    log.close()
