"""Cuts the log into batches of whole units: what one SQL transaction takes, and never a part of a fold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence

from deltalakedb.eventlog import Record
from deltalakedb.events import Control, SetRules, StagedTransaction

from .deciding.big import is_big
from .deciding.folding import Fold, Item, Unit, may_fold
from .deciding.needs import StagedEvent
from .deciding.rules import Rules

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of records that one SQL transaction takes at most, unless it is one unit; a fold begun before that is taken."""


def may_change_rules(units: Sequence[Unit]) -> bool:
    """Whether a batch ends with an event after which other rules may hold: what comes next is another batch's."""
    event = units[-1][-1][1] if units else None
    return isinstance(event, Control) and isinstance(event.command, SetRules)


class Batching:
    """Takes records as they are read and gives them back as units, in order. What it holds is not decided yet."""

    def __init__(self, event_of: Callable[[Record], StagedEvent]) -> None:
        self._event_of = event_of
        self._read: deque[Record] = deque()
        self._next: Item | None = None
        self._fold: Fold | None = None
        self.alone: Container[int] = ()
        """Positions of records that are in no fold, though they could."""

    @property
    def waits(self) -> bool:
        """Whether it holds records that no batch was made of yet, beside those of `fold`."""
        return bool(self._read) or self._next is not None

    @property
    def read_until(self) -> int | None:
        """The position after the last record that was put; None if there is none that is not decoded."""
        return self._read[-1].next_position if self._read else None

    @property
    def fold(self) -> Fold | None:
        """The fold that more may come into: only what is put next says when it is complete."""
        return self._fold

    def put(self, records: Iterable[Record]) -> None:
        """Add what was read next."""
        self._read.extend(records)

    def take(self, limit: int, rules: Rules, *, begun: bool = False) -> list[Unit]:
        """The next batch under `rules`, of about `limit` records, or more for one that is `begun`; empty if no unit is
        complete, or none may come to that one.

        It ends after an event that may bring other rules, and a chunk of a big transaction is one by itself.
        """
        units: list[Unit] = []
        count = size = 0
        while self._fold is not None or count < limit:
            item = self._next or self._decoded()
            if item is None:
                break
            record, event = item
            if self._fold is not None:
                belongs = record.position not in self.alone and self._fold.take(record, event)
                self._next = None if belongs else item
                if not belongs or self._fold.full:
                    units.append(self._fold.items)
                    count += len(self._fold.items)
                    size += self._fold.bytes
                    self._fold = None
                continue
            big = is_big(event, rules)
            if (units and size + len(record.value) > MAX_BATCH_BYTES) or ((units or begun) and big):
                self._next = item
                break
            self._next = None
            folds = rules.fold_window_ms and record.position not in self.alone
            if folds and isinstance(event, StagedTransaction) and may_fold(event):
                self._fold = Fold(record, event, rules)
                continue
            units.append((item,))
            count += 1
            size += len(record.value)
            if big or may_change_rules(units):
                break
        return units

    def rest(self) -> list[Unit]:
        """The fold, now that nothing more comes: whoever decided these records knew that it is complete."""
        fold, self._fold = self._fold, None
        return [] if fold is None else [fold.items]

    def _decoded(self) -> Item | None:
        if not self._read:
            return None
        record = self._read.popleft()
        return record, self._event_of(record)
