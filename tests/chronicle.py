"""Random logs with all that one may hold: histories in folds and chunks, junk, time that passes, deaths, and every kind of
transaction that is refused."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from deltalakedb.codec import (
    HEADER_COMPLETES,
    encode,
    encode_chunk,
    encode_imported_chunk,
    headers,
    transaction_headers,
)
from deltalakedb.errors import Reason
from deltalakedb.eventlog import Message, Record, Stream
from deltalakedb.eventlog.sqlite import SqliteEventLog
from deltalakedb.events import (
    Cancel,
    Completion,
    Content,
    Control,
    ImportedVersion,
    Outcome,
    SetRules,
    StagedTransaction,
)
from deltalakedb_committer.applying import event_of, isolated_event_of
from deltalakedb_committer.batching import Batching
from deltalakedb_committer.deciding.decisions import Commit, Decision, Expired, Imported
from deltalakedb_committer.deciding.folding import Unit
from deltalakedb_committer.deciding.isolation import DEATHS, IsolatedEvent
from deltalakedb_committer.deciding.needs import Isolated, StagedEvent, Undecodable, Unread
from tests.history import Historian, dealt, records_in
from tests.model_lake import LAKE_ID, START_MS, ModelLake, control, txn

BIG = 9
"""From so many chunks on the adds and removes of a transaction are kept as rows."""

WINDOWS = (1, 2, 3, 4, 5, 6, 7, 7, 8, 8)
"""Rule sets from without a window to the widest, for few tables and for many."""


class Deadly(NamedTuple):
    """An event that was the death of committers."""

    event: StagedEvent
    rejected: bool
    """Unseen. Otherwise it was decided by itself."""


Happening = StagedEvent | Message | Deadly | int
"""An event, a record as it is, or so many milliseconds in which nothing comes."""


@dataclass(slots=True)
class Chronicle:
    """A log, and what a lake in memory made of it."""

    records: list[Record] = field(default_factory=list)
    isolated: dict[int, IsolatedEvent] = field(default_factory=dict)
    """By position."""
    outcomes: list[list[Outcome]] = field(default_factory=list)
    """Of every decision."""
    kinds: Counter[str] = field(default_factory=Counter)
    """What happened, and what was decided."""
    reasons: set[Reason] = field(default_factory=set)
    """Why something was rejected."""

    def write(self, path: Path) -> None:
        """Make the log in a file, with the times that its records have."""
        now_ms = 0
        log = SqliteEventLog(str(path), clock=lambda: now_ms * 1_000_000)
        log.create()
        for time_ms, together in groupby(self.records, key=lambda record: record.time_ms):
            now_ms = time_ms
            log.append(Stream.STAGED, [Message(record.value, record.headers) for record in together]).result()
        log.close()


class Chronicler(Historian):
    """Makes a log from `chance` alone, and follows it."""

    columns = (("id", "integer"), ("day", "date"), ("price", "decimal(18,2)"), ("weight", "double"), ("text", "string"))

    def __init__(self, chance: random.Random) -> None:
        self.lake = ModelLake()
        super().__init__(self.lake, chance, imports=True, folds=True)
        self.found = Chronicle()
        self._time_ms = START_MS
        self._big: list[str] = []
        self._batching = Batching(self._event)
        self._batching.alone = self.found.isolated

    # What happens.

    def happens(self, kind: str, scene: Sequence[Happening]) -> None:
        """Put it on the log, and have the lake decide what can be."""
        records = []
        for happening in scene:
            if isinstance(happening, int):
                self._time_ms += happening
                continue
            message = message_of(happening.event if isinstance(happening, Deadly) else happening)
            record = Record(0, len(self.found.records), self._time_ms, message.value, message.headers)
            if isinstance(happening, Deadly):
                self.found.isolated[record.position] = self._death(record, rejected=happening.rejected)
            self.found.records.append(record)
            records.append(record)
            self._time_ms += self._chance.choice([0, 0, 0, 1, 7])
        self.found.kinds[kind] += bool(records)
        self._batching.put(records)
        while units := self._batching.take(1_000, self.lake.rules):
            self._decide(units)

    def ends(self) -> Chronicle:
        """The log, of which nothing more comes."""
        if units := self._batching.rest():
            self._decide(units)
        return self.found

    def some(self) -> None:
        """The next few events of a history like others."""
        chance = self._chance
        self._folds = chance.random() < 0.4
        scene: list[Happening] = []
        for event in self.events():
            if isinstance(event, Control) and isinstance(event.command, Cancel):
                event = msgspec.structs.replace(event, control_id=txn(self._new_number()))
            if isinstance(event, StagedTransaction) and event.envelope.chunk_count >= BIG:
                self._big.append(event.envelope.txn_id)
            if chance.random() < 0.05:
                scene.append(chance.choice([20, 60, 300]))
            if chance.random() < 0.03:
                rules = SetRules(rule_set=chance.choice(WINDOWS))
                scene.append(control(rules, control_id=txn(self._new_number())))
            scene.append(event if chance.random() < 0.99 else Deadly(event, rejected=chance.random() < 0.5))
        if self._big and chance.random() < 0.4:
            scene.append(Completion(lake_id=LAKE_ID, client_id="committer", txn_id=chance.choice(self._big[-20:])))
        self.happens("history", scene)

    def _parts(self, whole: Content) -> list[Content]:
        if self._chance.random() < 0.15:
            return dealt(whole, self._chance.randint(BIG, BIG + 2), self._chance)
        return super()._parts(whole)

    def _event(self, record: Record) -> StagedEvent:
        def read(record: Record) -> StagedEvent:
            return event_of(record, self.lake.rules)

        row = self.found.isolated.get(record.position)
        return read(record) if row is None else isolated_event_of(record, row, read)

    def _decide(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self.found.kinds["fold"] += len(unit) > 1
            self.found.kinds.update(type(event).__name__ for _, event in unit)
        for decision in self.lake.apply(units):
            outcomes = told(decision)
            self.found.outcomes.append(outcomes)
            self.found.kinds[type(decision).__name__] += 1
            self.found.reasons |= {Reason(one.rejected.reason) for one in outcomes if one.rejected is not None}

    def _death(self, record: Record, *, rejected: bool) -> IsolatedEvent:
        return IsolatedEvent(
            position=record.position,
            event_hash=hashlib.sha256(record.value).digest(),
            size=len(record.value),
            rejected=rejected,
            attempts=DEATHS,
            reason="the committer died of it",
            time_ms=record.time_ms,
        )

    # In what ways texts and numbers can be written, and sorted.

    def _path(self, number: int) -> str:
        return ("f", "F", "fä", "e-", "e/", "É")[number % 6] + str(number)

    def _stats(self, path: str) -> str:
        n = records_in(path)
        least = {"id": n, "day": f"19{n}-01-31", "price": n / 100, "weight": n / 3, "text": path[:2]}
        most = {**least, "weight": n * 1e300, "price": n / 7, "text": path}
        return json.dumps({"numRecords": n, "minValues": least, "maxValues": most, "nullCount": {"text": n % 3}})


def message_of(happening: StagedEvent | Message) -> Message:
    """What a client, an importer or a committer would append."""
    assert not isinstance(happening, Undecodable | Isolated | Unread)
    match happening:
        case StagedTransaction(envelope=envelope):
            return Message(encode_chunk(envelope, happening.content_bytes), transaction_headers(envelope))
        case ImportedVersion(envelope=envelope):
            return Message(encode_imported_chunk(envelope, happening.content_bytes), headers(envelope))
        case Completion(txn_id=txn_id):
            return Message(encode(happening), ((HEADER_COMPLETES, txn_id.encode()),))
        case Control():
            return Message(encode(happening))
        case _:
            return happening


def told(decision: Decision) -> list[Outcome]:
    """Every outcome that a decision brings."""
    match decision:
        case Commit():
            return [one.outcome for one in decision.transactions]
        case Imported():
            return [] if decision.decided is None else told(decision.decided)
        case Expired():
            return [one.outcome for one in decision.rejections]
        case _:
            outcome: Outcome | None = getattr(decision, "outcome", None)
            return [] if outcome is None else [outcome]
