"""A store behind what was told already: a backup that was restored, a replica that was promoted.

Nothing is lost then, because the log has it all: it is decided again. Each commit has to come out as it was told to the
world; one that does not means that the store or the log is not the lake's any more, and nothing is written.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from deltalakedb.codec import HEADER_COMMIT
from deltalakedb.errors import TxnLogHaltedError
from deltalakedb.eventlog import EventLog, LogReader, Record, Stream

from .storing.rows import OutboxRow

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
        self._records: deque[Record] = deque()

    @classmethod
    def after(cls, log: EventLog, commit_seq: int) -> ToldCommits | None:
        """Those after `commit_seq`; None if it is the newest that was told."""
        beginning, end = log.beginning(Stream.COMMITS), log.end(Stream.COMMITS)
        newest: int | None = None
        back, position = 1, end
        while position > beginning:
            position = max(beginning, end - back)
            records = _read(log, position, end)
            if records:
                newest = max(newest or 0, *map(_number, records))
                if newest <= commit_seq:
                    return None
                if _number(records[0]) <= commit_seq + 1:
                    break
            back *= BACKWARDS
        if newest is None:
            return None
        logger.warning("catching up: the store stands at commit %s, and commits up to %s were told", commit_seq, newest)
        return cls(log, log.reader(Stream.COMMITS, position), newest=newest)

    def check(self, rows: Sequence[OutboxRow]) -> bool:
        """Compare the commits among `rows`, which are about to be written. Whether there are more to compare.

        Raises `TxnLogHaltedError` (`HISTORY_DIVERGED`) for one that was told otherwise, or never.
        """
        for row in rows:
            if row.stream != Stream.COMMITS.value:
                continue
            number = int(row.headers[HEADER_COMMIT])
            if number > self._newest:
                return False
            told = self._told(number)
            if told != row.payload:
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

    def _told(self, number: int) -> bytes | None:
        """What was told of a commit; None if nothing was. Repetitions of earlier ones are passed over."""
        while True:
            while self._records:
                record = self._records[0]
                if _number(record) > number:
                    return None
                self._records.popleft()
                if _number(record) == number:
                    return record.value
            self._records.extend(self._reader.read(READ_RECORDS, READ_SECONDS))
            if not self._records:
                return None


def _read(log: EventLog, position: int, end: int) -> list[Record]:
    """The records from `position` on, below `end`."""
    reader = log.reader(Stream.COMMITS, position)
    try:
        return [record for record in reader.read(READ_RECORDS, READ_SECONDS) if record.position < end]
    finally:
        reader.close()


def _number(record: Record) -> int:
    """`commit_seq` of a commit that was told."""
    return int(dict(record.headers)[HEADER_COMMIT])
