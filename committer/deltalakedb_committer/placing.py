"""Between the last chunk of a big transaction and its decision: what takes long is done before, beside others' batches.

SQL is asked about its files, the decision is rehearsed, and the rows get the places that they would have; then the
committer itself says on the log that the transaction is decided, and the batch of that record commits what was placed.
All of it is as if nothing had been done before: the record alone decides. Where another transaction
changes one of its tables meanwhile, that comes first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from deltalakedb.errors import TxnLogError
from deltalakedb.failpoints import Failpoint

from .applying import NOTHING_KNOWN, Applier
from .deciding.parts import Found, TableKey
from .storing.aside import Aside
from .storing.rows import Batch, Placed
from .storing.staged_files import Asked, Question

logger = logging.getLogger(__name__)

WHOLE_TRIES: Final = 3
"""So often all of its tables are prepared; from then on those that others have written to are left for the decision."""
TRIES: Final = 8
"""So often it is prepared at all."""
PAUSE_SECONDS: Final = 1.0
"""After something failed."""

_SAID = Failpoint("committer.completed")

Say = Callable[[str, dict[str, int]], Future[list[int]]]
"""Puts on the log that a transaction is decided if these tables have these versions; the position."""


@dataclass(slots=True)
class _Work:
    """What is known of the transaction that is seen to."""

    txn_id: str
    tries: int = 0
    asked: Sequence[Asked] = ()
    known: Mapping[Question, Found] = field(default_factory=dict)
    ahead: set[Placed] = field(default_factory=set)
    """What is placed, or going to be, times apart."""
    is_placed: bool = False
    said: Future[list[int]] | None = None
    """Where the log has it that the transaction is decided."""
    tables: set[int] = field(default_factory=set)
    """table_no of its tables, as are the next two."""
    written: set[int] = field(default_factory=set)
    """Others wrote to them since they were asked about."""
    left: set[int] = field(default_factory=set)
    """They are left for the decision."""


class Placing:
    """Sees to the big transactions of a lake that are complete, one after the other. Used by the committer's thread."""

    def __init__(self, applier: Applier, aside: Aside | None, say: Say, may_look: Callable[[], bool]) -> None:
        """Without `aside` nothing is done before the decision, nor where `may_look`, asked before a transaction's content
        is looked at, says no."""
        self._applier = applier
        self._aside = aside
        self._say = say
        self._may_look = may_look
        self._work: _Work | None = None
        self._doing: Future[Any] | None = None
        self._then: Callable[[Any], object] = lambda _: None
        self._resume = 0.0

    @property
    def known(self) -> Mapping[Question, Found]:
        """What was found out about the transaction."""
        return NOTHING_KNOWN if self._work is None else self._work.known

    @property
    def is_busy(self) -> bool:
        """Whether something is being done, after which there is more to see to."""
        return self._doing is not None

    def go_on(self) -> None:
        """See to what is next; called between batches, and does not wait. Raises the errors of store and log."""
        work, complete = self._work, self._applier.complete
        if work is not None and work.txn_id not in complete:
            self._stop()
            work = self._work = None
        if work is None and complete:
            self._stop()  # clearing away can wait
            work = self._work = _Work(next(iter(complete)))
        if self._doing is not None:
            self._look(self._doing)
        elif time.monotonic() < self._resume:
            pass
        elif work is None:
            self._clear()
        elif work.said is None:
            self._begin(work)
        elif work.said.done() and work.said.result()[0] < self._applier.cursor.position:
            self._again(work)

    def write_with(self, batch: Batch) -> Aside | None:
        """With what the batch is written, which is about to be: where rows of it are placed already, these are taken
        out. What stands in its way is ended."""
        work = self._work
        if work is None:
            return None
        if work.is_placed and work.ahead <= {_timeless(one) for one in batch.placed}:
            batch.placed = [one for one in batch.placed if _timeless(one) not in work.ahead]
            work.is_placed = False
            return self._aside
        touched = work.tables & {*batch.heads, *batch.tables, *batch.new_tables, *batch.imports}
        work.written |= touched
        if touched and work.ahead:
            logger.info("transaction %s is placed again: its tables have changed", work.txn_id)
            self._again(work)
        return None

    def close(self) -> None:
        """End what is under way. Idempotent."""
        self._stop()

    # What comes after what.

    def _begin(self, work: _Work) -> None:
        if work.tries >= WHOLE_TRIES:
            work.left |= work.written
        work.written = set()
        if self._aside is not None and work.tries < TRIES and self._may_look():
            work.asked = self._applier.questions(work.txn_id)
            if work.asked:
                work.tables = {one.table_no for one in work.asked}
                unknown = [one for one in work.asked if one.question not in work.known]
                self._do(self._aside.find(work.txn_id, unknown), lambda found: self._found(work, found))
                return
        self._complete(work, {})

    def _found(self, work: _Work, found: Mapping[TableKey, Found]) -> None:
        work.known = {
            one.question: found[one.key] if one.key in found else work.known[one.question] for one in work.asked
        }
        if work.written and work.tries < WHOLE_TRIES:
            self._again(work)
            return
        placed = self._applier.rehearse(work.txn_id, work.known) if self._may_look() else ()
        ahead = [one for one in placed if _may_be_placed(one) and one.table_no not in work.left | work.written]
        if not ahead or self._aside is None:
            self._complete(work, {})
            return
        work.ahead = set(map(_timeless, ahead))
        work.tables |= {one.table_no for one in placed}
        self._do(self._aside.place(self._applier.cursor.epoch, ahead), lambda _: self._placed(work))

    def _placed(self, work: _Work) -> None:
        work.is_placed = True
        self._complete(work, dict(self._applier.version(one.table_no) for one in work.ahead if one.version > 0))

    def _complete(self, work: _Work, heads: dict[str, int]) -> None:
        work.said = self._say(work.txn_id, heads)
        _SAID.reached()

    def _clear(self) -> None:
        left = next(iter(self._applier.left), None)
        if left is not None and self._aside is not None:
            self._do(self._aside.clear(left), lambda _: self._applier.left.pop(left))

    # Waiting, and beginning again.

    def _do(self, doing: Future[Any], then: Callable[[Any], object]) -> None:
        self._doing, self._then = doing, then

    def _look(self, doing: Future[Any]) -> None:
        if not doing.done():
            return
        self._doing = None
        try:
            result = doing.result()
        except Exception as error:
            # Nothing depends on it: at worst the decision takes as long as if nothing had been done before, and meets
            # what is wrong again, where it can be isolated.
            unforeseen = None if isinstance(error, TxnLogError) else error
            logger.warning("what is done beside the batches failed, and is begun again: %s", error, exc_info=unforeseen)
            self._resume = time.monotonic() + PAUSE_SECONDS
            if self._work is not None:
                self._again(self._work)
        else:
            self._then(result)

    def _again(self, work: _Work) -> None:
        self._stop()
        work.ahead, work.is_placed, work.said = set(), False, None
        work.tries += 1

    def _stop(self) -> None:
        if self._aside is not None:
            self._aside.stop()
        self._doing = None


def _timeless(one: Placed) -> Placed:
    """When is for the decision to say."""
    return one._replace(time_ms=0)


def _may_be_placed(one: Placed) -> bool:
    """Removes say when, which only the decision knows, and end rows that others may want to end."""
    change = one.change
    return change.added_files > 0 and change.removed_files == 0 and change.ended_files == 0
