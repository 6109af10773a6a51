"""Which records lie in one fold: blind appends side by side in the log and close in its time, which share one commit.

What a fold is depends on the log and the rules in force alone. It begins with the first record that may be in one, and
ends before the first that may not be in it: one that is no blind append, that comes later than the window, or that
says something of its own that a version has room for only once.
"""

from __future__ import annotations

from collections.abc import Sequence

from deltalakedb.eventlog.port import Record
from deltalakedb.events import Content, StagedTransaction

from .needs import StagedEvent
from .rules import Rules

Item = tuple[Record, StagedEvent]
Unit = Sequence[Item]
"""What is decided and written together: a fold, or one record by itself."""


def may_fold(event: StagedEvent) -> bool:
    """Whether an event can be in a fold at all: a whole transaction that adds files and says nothing else of tables."""
    if not isinstance(event, StagedTransaction) or event.envelope.chunk_count != 1:
        return False
    for work in event.content.tables:
        if (
            not work.adds
            or work.read_version is not None
            or work.read_set is not None
            or work.intents
            or work.removes
            or work.cdc
            or work.others
        ):
            return False
    return bool(event.content.tables)


class Fold:
    """A fold, as far as the log has been read. `first` may be in one."""

    __slots__ = ("_apps", "_content", "_paths", "_rules", "_txns", "bytes", "items", "until_ms")

    def __init__(self, record: Record, first: StagedTransaction, rules: Rules) -> None:
        self._rules = rules
        self._content = first.content
        self._txns: set[str] = set()
        self._apps: set[str] = set()
        self._paths: set[str] = set()
        self.until_ms = record.time_ms + rules.fold_window_ms
        """The log time from which on nothing more can come into it."""
        self.items: list[Item] = []
        self.bytes = 0
        """Of its records."""
        self._add(record, first)

    @property
    def full(self) -> bool:
        """Whether nothing more can come into it, whatever the log brings."""
        return len(self.items) >= self._rules.max_fold_transactions

    def take(self, record: Record, event: StagedEvent) -> bool:
        """Take the next record of the log in, if it belongs here; otherwise the fold is complete."""
        if (
            record.time_ms >= self.until_ms
            or self.full
            or self.bytes + len(record.value) > self._rules.max_fold_bytes
            or not may_fold(event)
            or not isinstance(event, StagedTransaction)
        ):
            return False
        content = event.content
        if event.envelope.txn_id in self._txns or not _says_the_same(content, self._content):
            return False
        if not self._apps.isdisjoint([app.app_id for app in content.apps]):
            return False
        # Of every table: a table may be named by its name here and by its id there.
        if not self._paths.isdisjoint([add.path for work in content.tables for add in work.adds]):
            return False
        self._add(record, event)
        return True

    def _add(self, record: Record, event: StagedTransaction) -> None:
        content = event.content
        self.bytes += len(record.value)
        self._txns.add(event.envelope.txn_id)
        self._apps.update([app.app_id for app in content.apps])
        for work in content.tables:
            self._paths.update([add.path for add in work.adds])
        self.items.append((record, event))


def _says_the_same(content: Content, first: Content) -> bool:
    """What is said of a whole transaction, and stands once in every version of a commit."""
    return (
        content.user_metadata == first.user_metadata
        and content.engine_info == first.engine_info
        and content.isolation == first.isolation
    )
