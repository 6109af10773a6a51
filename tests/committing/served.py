"""A lake on Kafka and Postgres that committers of a `Mortuary` serve, and the events that tests put on its log."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from deltalakedb.codec import encode, encode_chunk
from deltalakedb.codec import headers as headers_of
from deltalakedb.database import Database, open_database
from deltalakedb.errors import TxnLogDatabaseError, TxnLogEventLogError
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb.events import SetProperties, SetRules, StagedTransaction, TableWork
from deltalakedb_committer.deciding.needs import Isolated, StagedEvent, Undecodable, Unread
from deltalakedb_committer.deciding.rules import Rules
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.committing.invariants import WATCH, check_everything
from tests.committing.mortal import Work
from tests.history import Historian
from tests.model_lake import LAKE_ID, ROOT, ModelLake, chunked, control, staged, txn
from tests.mortuary import Mortuary
from tests.stores import migrated, postgres_address
from tests.works import append, relaxed

HISTORY = 300
"""Events of a random history at most: to follow one costs more and more."""
AHEAD = 500
"""Records that wait for their decision at most while events come: how many there are is not for a clock to say."""
PATIENCE = 120.0
"""Seconds that a lake may take to decide what is there: servers come back, sessions run out, the machine is busy."""


class ServedLake:
    """The lake, with connections of the test's own that no fault meets but those of the servers."""

    def __init__(self, mortuary: Mortuary, url: str, bootstrap: str, prefix: str, folder: Path) -> None:
        self._mortuary = mortuary
        self._folder = folder
        self.move(url)
        self.log: EventLog = open_event_log(f"kafka://{bootstrap}/{prefix}")
        self.log.create()
        self._started: list[int] = []
        self._ends: dict[int, int] = {}
        self._historian = Historian(ModelLake(), random.Random(1))
        self._pairs = 0
        with closing(migrated(self.address)) as database:
            SqlCommitStore(database).init_lake(
                lake_id=LAKE_ID,
                root=ROOT,
                log_address=self.log.address,
                stream_identity=self.log.identity(Stream.STAGED),
                position=0,
                fence=True,
                created_ms=1,
            )
            for statement in WATCH:
                database.execute(statement)
        self.publish([staged(relaxed("left"), relaxed("right"))])
        # Its second chunk never comes: ticks ask whether to give it up.
        first, _ = chunked([part for n in "ab" for part in [staged(append(n, name="left")).content]], txn_id=txn(7))
        self.publish([first])

    # What is on the log.

    def publish(self, events: Iterable[StagedEvent]) -> None:
        """Append events, durably."""
        self._append([_message(event) for event in events])

    def publish_pairs(self, count: int) -> None:
        """Blind appends to two tables each, now and then one of them twice."""
        events = []
        for _ in range(count):
            self._pairs += 1
            events.append(staged(*(append(f"p{self._pairs}", name=name) for name in ("left", "right"))))
            if self._pairs % 7 == 0:
                events.append(events[-1])
        self.publish(events)

    def publish_big(self, *, changed_meanwhile: bool = False) -> None:
        """A transaction in more chunks than are held whole; one of its tables may change before the last one comes."""
        self._pairs += 1
        names = [(f"b{self._pairs}-{n}", ("left", "right")[n % 2]) for n in range(Rules(number=1).whole_chunks + 2)]
        *chunks, last = chunked([staged(append(path, name=name)).content for path, name in names])
        properties = SetProperties(set={"test.pairs": str(self._pairs)})
        change = [staged(TableWork(name="left", intents=(properties,)))] if changed_meanwhile else []
        self.publish([*chunks, *change, last])

    def fold(self) -> None:
        """From here on blind appends within 20 ms share a commit."""
        self.publish([control(SetRules(rule_set=3))])

    def publish_history(self, count: int) -> None:
        """At least so many events of a random history, junk among them."""
        sent = 0
        while sent < count:
            events = self._historian.events()
            for event in events:
                self._historian.follow(event)
            self.publish(events)
            sent += len(events)
        self._append([Message(b"junk")])

    def _append(self, messages: Sequence[Message]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                for appended in [self.log.append(Stream.STAGED, [message]) for message in messages]:
                    appended.result(PATIENCE)
            except TxnLogEventLogError:
                # Any of them may be there or not: all of them again, as a client would.
                assert time.monotonic() < deadline
            else:
                return

    @contextmanager
    def busy(self, *, folds: bool = False) -> Iterator[None]:
        """All the while, events come, as long as not too many wait: a random history first, then pairs. What is not
        acknowledged is sent again."""
        over = threading.Event()

        def send() -> None:
            sent = 0
            while not over.wait(0.05):
                if self._waiting() > AHEAD:
                    continue
                if folds:
                    self.fold()
                if sent < HISTORY:
                    self.publish_history(6)
                self.publish_pairs(10)
                self.publish_big()
                self.publish_pairs(2)
                sent += 18

        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(send)
            try:
                yield
            finally:
                over.set()
                sending.result(2 * PATIENCE)

    # Who decides it.

    def start(self, at: str | None = None, **work_: Any) -> int:
        """Start a committer; its process id."""
        work = Work(store=self.store_uri, log=str(self.output), at=at, **work_)
        pid = self._mortuary.start(work)
        self._started.append(pid)
        return pid

    def running(self, pid: int) -> bool:
        """Whether a committer goes on, has neither ended nor stopped."""
        if pid not in self._ends and (end := self._mortuary.poll(pid)) is not None:
            self._ends[pid] = end
        return pid not in self._ends

    def wait(self, pid: int) -> int:
        """How a committer ended: its exit code, or minus the signal that killed or stopped it."""
        self.until(lambda: not self.running(pid), f"the end of committer {pid}")
        return self._ends[pid]

    def go_on(self, pid: int) -> None:
        """Let a committer that is stopped go on."""
        del self._ends[pid]
        os.kill(pid, signal.SIGCONT)

    def kill(self, pid: int) -> int:
        """SIGKILL, and wait until the process is gone."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def stop(self, pid: int) -> int:
        """SIGTERM; how it ended."""
        os.kill(pid, signal.SIGTERM)
        return self.wait(pid)

    def settle(self) -> None:
        """Have one more committer decide and tell all there is, and stop by itself."""
        before, _ = self.position()
        pid = self.start()
        self.until(lambda: self.is_decided() and self.position()[0] > before, "a new committer with nothing left to do")
        assert self.stop(pid) == 0, self.tail()

    def _waiting(self) -> float:
        """How many records wait for their decision; without end while that cannot be told."""
        try:
            return self.log.end(Stream.STAGED) - self.position()[1]
        except (TxnLogDatabaseError, TxnLogEventLogError):
            return math.inf

    def is_decided(self) -> bool:
        """Whether the position is at the end of the log and nothing waits for its decision, as far as servers that may
        just come back can tell."""
        try:
            with self.database() as database:
                seen = SqlCommitStore(database).observe()
            return not seen.undecided and seen.position == self.log.end(Stream.STAGED)
        except (TxnLogDatabaseError, TxnLogEventLogError):
            return False

    def move(self, url: str) -> None:
        """The lake's database is on another server from here on."""
        self.address = postgres_address(url)
        self.store_uri = f"{url}?schema=lake"

    # What is there now.

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The store."""
        with closing(open_database(self.address)) as database:
            yield database

    def position(self) -> tuple[int, int]:
        """Epoch and position."""
        with self.database() as database:
            epoch, position = database.query("SELECT epoch, position FROM dl_committer_position")[0]
        return epoch, position

    def isolated(self) -> list[tuple[int, bool, int]]:
        """Position, whether it was rejected, and attempts of each event that was isolated."""
        with self.database() as database:
            return sorted(database.query("SELECT position, rejected, attempts FROM dl_isolated_events"))

    def check(self) -> dict[str, int]:
        """Check every invariant, once all is decided and told."""
        with self.database() as database:
            found = check_everything(database, self.log, self._folder)
        (self._folder / "checked.json").write_text(json.dumps(found))
        return found

    @property
    def output(self) -> Path:
        """What committers have said."""
        return self._folder / "committers.log"

    def tail(self) -> str:
        """The end of it."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-20:]) if self.output.exists() else ""

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s:\n{self.tail()}"
            time.sleep(0.02)

    def close(self) -> None:
        """End every committer that is left."""
        for pid in self._started:
            if self.running(pid) or self._ends[pid] == -signal.SIGSTOP:
                self._ends.pop(pid, None)
                self.kill(pid)
        self.log.close()


def _message(event: StagedEvent) -> Message:
    assert not isinstance(event, Undecodable | Isolated | Unread)
    if isinstance(event, StagedTransaction):
        return Message(encode_chunk(event.envelope, event.content_bytes), headers_of(event.envelope))
    return Message(encode(event))
