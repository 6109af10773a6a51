"""What became of the transactions that this process has published: told by the log for speed, found in SQL for certainty.

One thread per lake object. On a lake with services of its own it reads the outcome partition that the events name,
from the end it had before the first of them was published, and asks SQL once in a while. On an embedded lake nobody
else may be there to decide, so the thread runs the committer's step itself and asks SQL what came of it.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from .codec import decode_told
from .errors import TxnLogDecodeError, TxnLogError, TxnLogFencedError, TxnLogHaltedError, TxnLogOutcomeUnknownError
from .eventlog import Appended, EventLog, LogReader, Message, Record, Stream
from .events import Outcome, Told
from .interrupting import TransactionFuture

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
"""How often SQL is asked about transactions that the log has told nothing of."""
_READ_SECONDS: Final = 0.2
_READ_RECORDS: Final = 1_000
_RESEND_SECONDS: Final = (0.2, 5.0)
_JOIN_SECONDS: Final = 10.0

Answer = Outcome | TxnLogOutcomeUnknownError
"""The decision, or that it is not known."""
Lookup = Callable[[Sequence[str]], dict[str, Outcome]]
"""Decisions there are in SQL about these transactions."""


@dataclass(slots=True)
class Question:
    """One transaction that somebody waits for."""

    txn_id: str
    messages: Sequence[Message]
    deadline: float
    """On the monotonic clock: afterwards the outcome is unknown."""
    answered: Callable[[Answer], None]
    asked: float
    """When SQL is to be asked next, on the monotonic clock."""
    attempts: int = 0
    resend_at: float | None = None
    cause: TxnLogError | None = None
    """What went wrong with publishing, if anything did."""


class Asked(TransactionFuture[Outcome]):
    """A question that somebody waits for."""

    def answered(self, answer: Answer) -> None:
        """Give it its answer."""
        if isinstance(answer, Outcome):
            self.set_result(answer)
        else:
            self.set_exception(answer)


class Deciding(Protocol):
    """How an embedded lake gets on: by whoever waits."""

    def step(self) -> bool | None:
        """Decide what the log has; whether there was anything, None if another process is stepping right now."""
        ...

    def mirror(self) -> None:
        """Publish what was committed. Never raises; what fails is retried with a later commit."""
        ...


class Outcomes:
    """Publishes transactions and finds out what became of them. Thread-safe; not used across a fork."""

    def __init__(self, log: EventLog, lookup: Lookup, *, client_id: str, deciding: Deciding | None = None) -> None:
        self._log = log
        self._lookup = lookup
        self._deciding = deciding
        self._client_id = client_id
        self._lock = threading.Condition()
        self._questions: dict[str, list[Question]] = {}
        self._closed = False
        self._partition = -1
        self._position = 0
        self._reader: LogReader | None = None
        if deciding is None:
            self._partition = zlib.crc32(client_id.encode()) % log.partitions(Stream.OUTCOMES)
            # Before anything is published: no answer can lie below.
            self._position = log.end(Stream.OUTCOMES, partition=self._partition)
            self._reader = log.reader(Stream.OUTCOMES, self._position, partition=self._partition)
        self._thread = threading.Thread(target=self._run, name="deltalakedb-outcomes", daemon=True)
        self._thread.start()

    @property
    def partition(self) -> int:
        """The partition that events have to name for this object to hear of them; -1: it does not listen."""
        return self._partition

    def ask(self, txn_id: str, messages: Sequence[Message], timeout: float) -> Future[Outcome]:
        """Publish a transaction and get its decision.

        The future fails with `TxnLogOutcomeUnknownError` if there is none in time. Publishing the same again is safe.
        Raises what the log raises for messages that it refuses at once: then nothing was published.
        """
        asked = Asked(txn_id)
        self.publish(txn_id, messages, timeout, asked.answered)
        return asked

    def publish(
        self, txn_id: str, messages: Sequence[Message], timeout: float, answered: Callable[[Answer], None]
    ) -> None:
        """As `ask`, for whoever has a future of its own: `answered` is told once, by another thread as a rule."""
        now = time.monotonic()
        question = Question(txn_id, messages, now + timeout, answered, now + POLL_SECONDS)
        with self._lock:
            if self._closed:
                raise TxnLogOutcomeUnknownError("the lake object was closed before publishing", txn_id=txn_id)
            self._questions.setdefault(txn_id, []).append(question)
        try:
            self._send(question)
        except BaseException:
            self._forget(question)
            raise

    def stage(self, messages: Sequence[Message]) -> Future[list[int]]:
        """Publish the first chunks of a transaction, whose last one is then asked about. As `EventLog.append`."""
        return self._log.append(Stream.STAGED, messages)

    def close(self) -> None:
        """Stop. What is still undecided gets `TxnLogOutcomeUnknownError`. Idempotent."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)
        for question in self._open_questions():
            self._give_up(question, "the lake object was closed before its outcome was known")

    def _send(self, question: Question) -> None:
        question.attempts += 1
        question.resend_at = None
        self._log.send(Stream.STAGED, question.messages, partial(self._sent, question))

    def _sent(self, question: Question, appended: Appended) -> None:
        sent = isinstance(appended, list)
        if sent and self._deciding is None:
            return  # nobody waits for this: the answer comes through the log
        with self._lock:
            if not sent:
                # Part of it may be in the log: sending the same again is the way to be sure.
                shortest, longest = _RESEND_SECONDS
                question.cause = appended if isinstance(appended, TxnLogError) else None
                question.resend_at = time.monotonic() + min(shortest * 2 ** (question.attempts - 1), longest)
            self._lock.notify_all()

    # The thread.

    def _run(self) -> None:
        look = self._read_log if self._deciding is None else self._decide
        while not self._closed:
            # Each by itself: while the log cannot be read, SQL and the deadline still tell everybody what to do.
            for part in (look, self._look_after):
                try:
                    part()
                except TxnLogError as error:
                    logger.warning("finding outcomes failed, trying again: %s", error)
                    self._pause(POLL_SECONDS)
                except Exception:
                    logger.exception("finding outcomes failed")
                    self._pause(POLL_SECONDS)
        if self._reader is not None:
            self._reader.close()

    def _read_log(self) -> None:
        if self._reader is None:
            self._reader = self._log.reader(Stream.OUTCOMES, self._position, partition=self._partition)
        try:
            records = self._reader.read(_READ_RECORDS, _READ_SECONDS)
        except TxnLogError as error:
            reader, self._reader = self._reader, None
            reader.close()
            if isinstance(error, TxnLogHaltedError):
                # Records are gone; what they told is found in SQL.
                self._position = self._log.end(Stream.OUTCOMES, partition=self._partition)
            raise
        if records:
            self._position = records[-1].next_position
        for record in records:
            for told in _told(record):
                # Another client may have asked about the same id, with a content of its own.
                if isinstance(told, Outcome) and told.client_id == self._client_id and told.txn_id in self._questions:
                    self._answer(told.txn_id, told)

    def _decide(self) -> None:
        assert self._deciding is not None
        if not self._questions:
            self._pause(POLL_SECONDS)
            return
        try:
            stepped = self._deciding.step()
        except TxnLogFencedError:
            return  # another process has taken over meanwhile: look again
        except TxnLogError as error:
            for question in self._open_questions():
                question.cause = error
                self._give_up(question, f"deciding it failed: {error}")
            return
        found = self._lookup([question.txn_id for question in self._open_questions()])
        if any(outcome.committed is not None for outcome in found.values()):
            self._deciding.mirror()
        for txn_id, outcome in found.items():
            self._answer(txn_id, outcome)
        if not found and stepped is not True:
            self._pause(self._patience())

    def _patience(self) -> float:
        """How long to wait for another process that decides, or for an append to become durable."""
        waited = min((POLL_SECONDS - (q.asked - time.monotonic()) for q in self._open_questions()), default=0.0)
        return min(max(waited / 8, 0.001), 0.02)

    def _look_after(self) -> None:
        """Send again what failed, ask SQL about what took long, give up what took too long."""
        now = time.monotonic()
        overdue = []
        for question in self._open_questions():
            if question.resend_at is not None and question.resend_at <= now:
                try:
                    self._send(question)
                except TxnLogError as error:
                    question.cause = error
                    question.resend_at = now + _RESEND_SECONDS[1]
            if question.asked <= now or question.deadline <= now:
                overdue.append(question)
        if not overdue:
            return
        found = self._lookup([question.txn_id for question in overdue])
        for question in overdue:
            question.asked = time.monotonic() + POLL_SECONDS
            if question.txn_id in found:
                self._answer(question.txn_id, found[question.txn_id])
            elif question.deadline <= now:
                self._give_up(question, "no answer came in time; is a committer running?")

    def _pause(self, seconds: float) -> None:
        with self._lock:
            if not self._closed:
                self._lock.wait(seconds)

    def _open_questions(self) -> list[Question]:
        with self._lock:
            return [question for questions in self._questions.values() for question in questions]

    def _forget(self, question: Question) -> bool:
        with self._lock:
            questions = self._questions.get(question.txn_id, [])
            if question not in questions:
                return False
            questions.remove(question)
            if not questions:
                del self._questions[question.txn_id]
            return True

    def _answer(self, txn_id: str, outcome: Outcome) -> None:
        with self._lock:
            questions = self._questions.pop(txn_id, [])
        for question in questions:
            question.answered(outcome)

    def _give_up(self, question: Question, why: str) -> None:
        if not self._forget(question):
            return
        error = TxnLogOutcomeUnknownError(
            f"the outcome of transaction {question.txn_id} is not known ({why}): it may be committed, now or later; "
            f"lake.outcome({question.txn_id!r}) asks again, lake.cancel({question.txn_id!r}) settles it",
            txn_id=question.txn_id,
        )
        error.__cause__ = question.cause
        question.answered(error)


def _told(record: Record) -> Told:
    """What a record tells; nothing if it cannot be read: then SQL tells."""
    try:
        return decode_told(record.value)
    except TxnLogDecodeError as error:
        logger.warning("record %s of the outcomes cannot be read: %s", record.position, error)
        return ()
