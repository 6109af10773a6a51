"""What one process has begun on a lake: noted in SQL before it looks at an event, taken back if it outlives that.

So what stays noted tells of deaths. Only the first batch after a takeover is noted, and events that are decided alone;
a death later on is found out when that batch has become the first.
"""

from __future__ import annotations

import logging
import threading

from deltalakedb.errors import TxnLogDatabaseError, TxnLogError

from .deciding.isolation import Attempts, Begun
from .storing.store import Cursor, SqlCommitStore

logger = logging.getLogger(__name__)

TURN_SECONDS = 30.0
"""How long a lake waits for another one of its process that is in the middle of an attempt, before it goes on unnoted."""


class Attempting:
    """One lake's attempts in one process. Outlives its committers; used by one thread at a time."""

    def __init__(self, turn: threading.Lock | None = None) -> None:
        """Lakes of one process share a `turn`: as long as one has noted an attempt, no other one notes one, so that a
        death is not charged to a lake that only was there."""
        self._turn = turn
        self._has_turn = False
        self._begun: Begun | None = None

    def begin(self, store: SqlCommitStore, cursor: Cursor, what: Begun) -> Attempts:
        """Note that this is begun; what was noted before, without what this process itself could not take back.

        Raises `TxnLogFencedError` if another committer took over, and the errors of the store.
        """
        if self._turn is not None and not self._has_turn:
            self._has_turn = self._turn.acquire(timeout=TURN_SECONDS)
        notes = self._turn is None or self._has_turn
        known = self._begun
        before = Attempts()

        def change(noted: Attempts) -> Attempts:
            nonlocal before
            before = noted if known is None else noted.taking_back(known)
            return before.beginning(what) if notes else before

        store.note(cursor, change)
        self._begun = what if notes and before.beginning(what) != before else None
        return before

    def ended(self, store: SqlCommitStore, cursor: Cursor, *, moved: bool) -> None:
        """A step came to its end; `moved`: with the position, which makes what was noted void."""
        if self._begun is not None and not moved:
            self._take_back(store, cursor)
        self._begun = None
        self._pass_on()

    def failed(self, store: SqlCommitStore, cursor: Cursor, error: BaseException) -> None:
        """A step ended in an error. One of ours, or being told to stop, is not the event's doing; anything else may be,
        and counts as a death: it would come again. So does that the store refuses what came of it."""
        if self._begun is not None:
            refused = isinstance(error, TxnLogDatabaseError) and error.refuses_rows
            if isinstance(error, TxnLogError | KeyboardInterrupt | SystemExit) and not refused:
                try:
                    self._take_back(store, cursor)
                except TxnLogError:
                    # The store cannot be reached, or is another one's: the next attempt of this process takes it back.
                    logger.debug("an attempt could not be taken back", exc_info=True)
                else:
                    self._begun = None
            else:
                self._begun = None
        self._pass_on()

    def _take_back(self, store: SqlCommitStore, cursor: Cursor) -> None:
        begun = self._begun
        if begun is not None:
            store.note(cursor, lambda noted: noted.taking_back(begun))

    def _pass_on(self) -> None:
        if self._turn is not None and self._has_turn:
            self._has_turn = False
            self._turn.release()
