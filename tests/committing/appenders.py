"""Clients that read several tables at one commit and append to several, and remember what they saw and were told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

from deltalakedb.codec import decode_told
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogDatabaseError, TxnLogEventLogError
from deltalakedb.eventlog import EventLog, Stream
from deltalakedb.events import Outcome, StagedTransaction, TableWork
from deltalakedb.ids import new_txn_id
from tests.committing.served import PATIENCE
from tests.list_append import Seen, Txn
from tests.model_lake import staged
from tests.works import append, reading

Publish = Callable[[Sequence[StagedTransaction]], None]


class Answers:
    """The outcomes that the log tells, by transaction. One thread reads for all clients."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._position = log.end(Stream.OUTCOMES)
        self._waiting: dict[str, Future[Outcome]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="answers", daemon=True)
        self._thread.start()

    def of(self, txn_id: str) -> Future[Outcome]:
        """The outcome of a transaction that is about to be published."""
        return self._waiting.setdefault(txn_id, Future())

    def close(self) -> None:
        self._closed.set()
        self._thread.join(PATIENCE)

    def _read(self) -> None:
        while not self._closed.is_set():
            # A broker that is killed takes its readers with it.
            with suppress(TxnLogEventLogError), closing(self._log.reader(Stream.OUTCOMES, self._position)) as reader:
                while not self._closed.is_set():
                    for record in reader.read(1_000, 0.2):
                        self._position = record.next_position
                        for outcome in decode_told(record.value):
                            assert isinstance(outcome, Outcome)
                            waiting = self._waiting.pop(outcome.txn_id, None)
                            if waiting is not None:
                                waiting.set_result(outcome)


class Appender:
    """One client: it does one transaction after the other. Used by one thread."""

    def __init__(
        self, address: StoreAddress, publish: Publish, answers: Answers, tables: Sequence[str], seed: int
    ) -> None:
        self._address = address
        self._publish = publish
        self._answers = answers
        self._tables = tables
        self._chance = random.Random(seed)
        self._seen: dict[str, tuple[int, Seen]] = dict.fromkeys(tables, (0, Seen()))
        self._database: Database | None = None

    def run(self, count: int, over: threading.Event) -> list[Txn]:
        """So many transactions, fewer if it is over before."""
        found: list[Txn] = []
        while len(found) < count and not over.is_set():
            found.append(self._one())
        if self._database is not None:
            self._database.close()
        return found

    def _one(self) -> Txn:
        chance = self._chance
        roll = chance.random()
        names = [] if roll < 0.15 else chance.sample(self._tables, chance.choice([1, 1, 2, 3]))
        # What is appended to was read as a rule, or else something else was.
        writes = [] if 0.15 < roll < 0.3 else chance.sample(self._tables, chance.choice([1, 2, 2, 3]))
        began = time.monotonic()
        versions = self._look(names)
        reads = {name: self._seen[name][1] for name in names}
        txn = Txn(txn_id=new_txn_id(), began=began, reads=reads, writes=tuple(writes))
        if not writes:
            return replace(txn, ended=time.monotonic())
        event = staged(*(_work(name, txn, versions) for name in {*names, *writes}), txn_id=txn.txn_id)
        answer = self._answers.of(txn.txn_id)
        self._publish([event])
        try:
            outcome = answer.result(PATIENCE)
        except Late:
            return replace(txn, committed=None)
        return replace(txn, ended=time.monotonic(), committed=outcome.committed is not None)

    def _look(self, names: Sequence[str]) -> dict[str, int]:
        """See what tables hold now, all of them at one commit; their versions."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._database = self._database or open_database(self._address)
                with self._database.snapshot():
                    return {name: self._see(self._database, name) for name in names}
            except TxnLogDatabaseError:
                assert time.monotonic() < deadline
                if self._database is not None:
                    self._database.close()
                self._database = None
                time.sleep(0.1)

    def _see(self, database: Database, name: str) -> int:
        version, seen = self._seen[name]
        rows = database.query(
            "SELECT f.version, f.path FROM dl_add_files f JOIN dl_tables t USING (table_no) "
            "WHERE t.name = ? AND f.version > ? ORDER BY f.version, f.n",
            [name, version],
        )
        for version, path in rows:  # noqa: B007
            seen = seen.then(path)
        self._seen[name] = (version, seen)
        return version


@contextmanager
def appending(
    address: StoreAddress, log: EventLog, publish: Publish, tables: Sequence[str], *, clients: int, each: int
) -> Iterator[Sequence[Future[list[Txn]]]]:
    """So many clients at work, while the body makes their life hard; what each of them will have done."""
    answers, over = Answers(log), threading.Event()
    with ThreadPoolExecutor(clients) as threads:
        work = [
            threads.submit(Appender(address, publish, answers, tables, seed).run, each, over) for seed in range(clients)
        ]
        try:
            yield work
        finally:
            over.set()
            for done in work:
                done.exception(2 * PATIENCE)
            answers.close()


def _work(name: str, txn: Txn, versions: dict[str, int]) -> TableWork:
    files = (txn.txn_id,) if name in txn.writes else ()
    return reading(versions[name], *files, name=name) if name in versions else append(*files, name=name)
