"""A store behind what was told already: a backup that was restored, a replica that was promoted.

Nothing is lost then, because the log has it all: it is decided again. Each commit has to come out as it was told to the
world; one that does not means that the store or the log is not the lake's any more, and nothing is written.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from deltalakedb.codec import HEADER_ISOLATED, decode_told
from deltalakedb.errors import TxnLogHaltedError
from deltalakedb.eventlog import EventLog, LogReader, Record, Stream
from deltalakedb.events import Commit

from .deciding.isolation import IsolatedEvent

logger = logging.getLogger(__name__)

READ_RECORDS = 500
READ_SECONDS = 5.0
BACKWARDS = 16
"""How much further back is looked each time, until a commit is found that the store has."""


class ToldCommits:
    """The commits that were told and that a store lacks, in order. Used by the committer's thread."""

    def __init__(self, log: EventLog, reader: LogReader, *, newest: int) -> None:
        self._log = log
        self._reader = reader
        self._newest = newest
        self._commits: deque[Commit] = deque()

    @classmethod
    def after(cls, log: EventLog, commit_seq: int) -> ToldCommits | None:
        """Those after `commit_seq`; None if it is the newest that was told."""
        beginning, end = log.beginning(Stream.COMMITS), log.end(Stream.COMMITS)
        newest: int | None = None
        back, position = 1, end
        while position > beginning:
            position = max(beginning, end - back)
            numbers = [commit.commit_seq for commit in _read(log, position, end)]
            if numbers:
                newest = max(newest or 0, *numbers)
                if newest <= commit_seq:
                    return None
                if numbers[0] <= commit_seq + 1:
                    break
            back *= BACKWARDS
        if newest is None:
            return None
        logger.warning("catching up: the store stands at commit %s, and commits up to %s were told", commit_seq, newest)
        return cls(log, log.reader(Stream.COMMITS, position), newest=newest)

    def check(self, commits: Sequence[Commit]) -> bool:
        """Compare `commits`, which are about to be written. Whether there are more to compare.

        Raises `TxnLogHaltedError` (`HISTORY_DIVERGED`) for one that was told otherwise, or never.
        """
        for commit in commits:
            number = commit.commit_seq
            if number > self._newest:
                return False
            told = self._told(number)
            if told != commit:
                what = "was never told, and later ones were" if told is None else "was told with another content"
                raise TxnLogHaltedError(
                    "HISTORY_DIVERGED",
                    f"deciding the staged stream of {self._log.address} again, from an older store, gives a commit "
                    f"{number} that {what}: store and log do not belong together. Nothing was written. Restore another "
                    "backup of this lake, or its log",
                )
            if number == self._newest:
                logger.warning("caught up with commit %s", number)
                return False
        return True

    def close(self) -> None:
        """Let go of the log."""
        self._reader.close()

    def _told(self, number: int) -> Commit | None:
        """What was told of a commit; None if nothing was. Repetitions of earlier ones are passed over."""
        while True:
            while self._commits:
                commit = self._commits[0]
                if commit.commit_seq > number:
                    return None
                self._commits.popleft()
                if commit.commit_seq == number:
                    return commit
            self._commits.extend(_commits(self._reader.read(READ_RECORDS, READ_SECONDS)))
            if not self._commits:
                return None


def told_isolated(log: EventLog, position: int) -> dict[int, IsolatedEvent]:
    """What was told of events that were isolated, from `position` on: no other store decides that anew."""
    found: dict[int, IsolatedEvent] = {}
    next_position, end = log.beginning(Stream.DEAD_LETTER), log.end(Stream.DEAD_LETTER)
    reader = log.reader(Stream.DEAD_LETTER, next_position)
    try:
        while next_position < end and (records := reader.read(READ_RECORDS, READ_SECONDS)):
            for record in records:
                row = dict(record.headers).get(HEADER_ISOLATED)
                if row is not None:
                    told = msgspec.json.decode(row, type=IsolatedEvent)
                    found[told.position] = told
            next_position = records[-1].next_position
    finally:
        reader.close()
    return {at: told for at, told in found.items() if at >= position}


def _read(log: EventLog, position: int, end: int) -> list[Commit]:
    """What the records from `position` on, below `end`, tell."""
    reader = log.reader(Stream.COMMITS, position)
    try:
        return _commits([record for record in reader.read(READ_RECORDS, READ_SECONDS) if record.position < end])
    finally:
        reader.close()


def _commits(records: Iterable[Record]) -> list[Commit]:
    return [commit for record in records for commit in decode_told(record.value) if isinstance(commit, Commit)]
