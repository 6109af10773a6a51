"""Events become rows: what they need is loaded, they are decided in log order, and all of it is written at once.

The part of the committer's step that a replay has in common with it: nothing is read from the log here and nobody is
told.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from deltalakedb.codec import decode
from deltalakedb.errors import TxnLogDecodeError, TxnLogError, TxnLogHaltedError
from deltalakedb.eventlog import Record
from deltalakedb.events import Cancel, Completion, Control, StagedTransaction, Tick
from deltalakedb.failpoints import Failpoint

from .completing import complete, questions, rehearse
from .deciding.big import decides
from .deciding.decide import advance, decide, isolated
from .deciding.decisions import Decision
from .deciding.folded import decide_fold
from .deciding.folding import Unit
from .deciding.isolation import IsolatedEvent
from .deciding.needs import Isolated, Needs, StagedEvent, Undecodable, Unread, add_needs
from .deciding.parts import Found
from .deciding.quotas import Admission, Claim, claim_of
from .deciding.rules import Rules, rules
from .deciding.state import State
from .storing.aside import Aside
from .storing.rows import Batch, Placed, add_decision, seal
from .storing.staged_files import Asked, Question
from .storing.store import Cursor, SqlCommitStore

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

NOTHING_KNOWN: Mapping[Question, Found] = MappingProxyType({})

_PREPARING = Failpoint("committer.preparing")
_COMPLETING = Failpoint("committer.completing")
_DECODING = Failpoint("committer.decoding")
_DECIDING = Failpoint("committer.deciding")
_LOADED = Failpoint("committer.loaded")
_DECIDED = Failpoint("committer.decided")
_WRITTEN = Failpoint("committer.written")


NONE_ISOLATED: Mapping[int, IsolatedEvent] = MappingProxyType({})


def event_of(record: Record, rules: Rules) -> StagedEvent:
    """What a record of the staged stream says; one that is too large, or has too many chunks, is not asked."""
    if len(record.value) > rules.max_event_bytes:
        return Unread(record=record, claim=None)
    claim = claim_of(record)
    if claim is not None and claim.chunk_count > rules.max_chunks:
        return Unread(record=record, claim=claim)
    _DECODING.reached(record)
    try:
        event = decode(record.value)
    except TxnLogDecodeError as error:
        return Undecodable.of(record, str(error), error.__cause__)
    if claim is not None and not (isinstance(event, StagedTransaction) and Claim.of(event.envelope) == claim):
        # Quotas go by the headers of what is not decoded.
        return Undecodable.of(record, "its headers are those of another chunk")
    return event


def isolated_event_of(record: Record, row: IsolatedEvent, read: Callable[[Record], StagedEvent]) -> StagedEvent:
    """What a record says that was isolated before; one that is a committer's death nobody looks at.

    Raises `TxnLogHaltedError` (`LOG_DIVERGED`) if the record is another one than was isolated there.
    """
    if hashlib.sha256(record.value).digest() != row.event_hash:
        raise TxnLogHaltedError(
            "LOG_DIVERGED",
            f"record {record.position} of the staged stream is not the one that was isolated there: the log was changed, "
            "or it is another lake's. Restore it",
        )
    return Isolated(record=record, isolated=row) if row.rejected else read(record)


class Applier:
    """Applies batches to a store, from a cursor on. After an error it is of no more use."""

    def __init__(self, store: SqlCommitStore, cursor: Cursor, *, clears: bool = True) -> None:
        """Unless it `clears`, what is staged of big transactions stays when they are decided, and is `left`."""
        self._store = store
        self._clears = clears
        self._cursor = cursor
        self._state = _load_state(store, cursor)
        self._admission = Admission(self._state.incomplete)
        self._seen_until = cursor.position

    @property
    def cursor(self) -> Cursor:
        """Where it stands; equal to the stored row as long as nobody else writes."""
        return self._cursor

    @property
    def rules(self) -> Rules:
        """The rule set in force: what records are taken by next."""
        return self._state.rules

    @property
    def expires_ms(self) -> int | None:
        """The log time from which on a tick gives up an incomplete transaction; None: there is none."""
        since = self._state.incomplete.oldest_ms()
        return None if since is None else since + self._state.rules.expire_ms

    @property
    def complete(self) -> Collection[str]:
        """Big transactions that are all there and not decided yet, in their order."""
        return self._state.complete.keys()

    @property
    def left(self) -> dict[str, None]:
        """Decided transactions of which something may still be staged. Whoever clears it away takes them out."""
        return self._state.left

    @property
    def lake_id(self) -> str:
        """The lake's id."""
        return self._state.lake.lake_id

    def event_of(self, record: Record) -> StagedEvent:
        """What the next record says; one that is over a quota, whatever comes of those before it, is not asked."""
        state, claim = self._state, claim_of(record)
        self._seen_until = record.next_position
        if claim is not None and self._admission.refuses(claim, state.rules):
            if claim.txn_id in state.incomplete:
                self._admission.saw(claim.txn_id)
            return Unread(record=record, claim=claim)
        event = event_of(record, state.rules)
        match event:
            case StagedTransaction():
                txn_id = event.envelope.txn_id
                if event.envelope.chunk_count != 1 or txn_id in state.incomplete:
                    self._admission.saw(txn_id)
            case Control(command=Cancel(txn_id=txn_id)) | Completion(txn_id=txn_id):
                self._admission.saw(txn_id)
            case Control(command=Tick()):
                self._admission.saw(None)
            case Undecodable() if claim is not None:
                self._admission.saw(claim.txn_id)
            case _:
                pass
        return event

    def apply(
        self,
        units: Sequence[Unit],
        *,
        published_position: int,
        lag_events: int = 0,
        decided_ms: int | None = None,
        isolated: Mapping[int, IsolatedEvent] = NONE_ISOLATED,
        on_decision: Callable[[Decision], None] | None = None,
        before_write: Callable[[Batch], Aside | None] | None = None,
        known: Mapping[Question, Found] = NOTHING_KNOWN,
    ) -> Batch:
        """Decide the next records of the log and write what comes of them; the batch, with what is to be told.

        `published_position` moves the outbox's mark, `lag_events` and `decided_ms` are told with outcomes. What is
        `isolated`, by position, is recorded with the records that it is about.
        `on_decision` sees each decision and may wait, `before_write` sees the batch, may refuse it, and says where it is
        written if not here. `known` is what was found out already about big transactions. Raises the errors of the
        store, `TxnLogFencedError` if another committer took over, and `TxnLogHaltedError` for a rule set that only a
        newer release knows.
        """
        needs = Needs()
        for unit in units:
            for _, event in unit:
                add_needs(needs, event)
        self._store.load(needs, self._state)
        event = units[0][0][1]
        if isinstance(event, Completion) and decides(event, self._state):
            _COMPLETING.reached(event)
            complete(event.txn_id, self._state, self._store, self._cursor, known)
        _LOADED.reached()
        batch = Batch()
        for unit in units:
            for decision in self._decide_unit(unit):
                if on_decision is not None:
                    on_decision(decision)
                advance(self._state, decision)
                add_decision(batch, decision, lag_events=lag_events, decided_ms=decided_ms)
        if isolated:
            positions = [record.position for unit in units for record, _ in unit]
            batch.inserts["dl_isolated_events"] += [isolated[found] for found in positions if found in isolated]
        seal(batch)
        self._state.forget()
        self._leave(batch)
        _DECIDED.reached()
        aside = None if before_write is None else before_write(batch)
        self._write(units[-1][-1][0], batch, published_position, aside)
        return batch

    def questions(self, txn_id: str) -> Sequence[Asked]:
        """What can be found out about a complete transaction before it is decided. Raises the errors of the store."""
        return self._beforehand(txn_id, lambda: questions(txn_id, self._state, self._store))

    def rehearse(self, txn_id: str, known: Mapping[Question, Found]) -> Sequence[Placed]:
        """What a complete transaction would place if it were decided now: nothing if it would be rejected, or if that
        cannot be told from what is `known`. Raises the errors of the store."""

        def placed() -> Sequence[Placed]:
            state, batch = self._state, Batch()
            if rehearse(txn_id, state, self._store, known):
                event = Completion(lake_id=self.lake_id, client_id="", txn_id=txn_id)
                add_decision(batch, decide(state, event, position=self._cursor.position, time_ms=state.time_ms))
            return batch.placed

        return self._beforehand(txn_id, placed)

    def version(self, table_no: int) -> tuple[str, int]:
        """Id and version of a table that was named lately."""
        table = self._state.tables[table_no]
        return table.table_id, table.version

    def _beforehand(self, txn_id: str, work: Callable[[], Sequence[_T]]) -> Sequence[_T]:
        needs, event = Needs(), Completion(lake_id=self.lake_id, client_id="", txn_id=txn_id)
        add_needs(needs, event)
        try:
            self._store.load(needs, self._state)
            _PREPARING.reached(event)
            return work()
        except TxnLogError:
            raise
        except Exception:
            # The decision meets it again, and that belongs to a record, which can be set aside.
            logger.exception("transaction %s cannot be prepared", txn_id)
            return ()
        finally:
            self._state.forget()

    def _leave(self, batch: Batch) -> None:
        """What is staged of decided transactions goes with this batch, unless somebody else clears it away."""
        left = self._state.left
        if self._clears:
            batch.finished_chunks += [txn_id for txn_id in left if txn_id not in batch.finished_chunks]
            left.clear()
        else:
            batch.finished_chunks = [txn_id for txn_id in batch.finished_chunks if txn_id not in left]

    def _decide_unit(self, unit: Unit) -> list[Decision]:
        for _, event in unit:
            _DECIDING.reached(event)
        if len(unit) > 1:
            return decide_fold(self._state, unit, self._decide)
        ((record, event),) = unit
        return [self._decide(self._state, record, event)]

    def _decide(self, state: State, record: Record, event: StagedEvent) -> Decision:
        try:
            return decide(state, event, position=record.position, time_ms=record.time_ms)
        except TxnLogHaltedError:
            raise  # a rule set that only a newer release knows
        except Exception as error:
            # One record must not stop the lake, and an error here is as deterministic as a decision: every replay
            # meets it again. It becomes a recorded rejection and the record itself a dead letter.
            logger.exception("record %s cannot be decided and is set aside", record.position)
            return isolated(state, record, event, f"{type(error).__name__} while it was decided")

    def _write(self, last: Record, batch: Batch, published_position: int, aside: Aside | None) -> None:
        cursor = replace(
            self._cursor,
            position=last.next_position,
            last_event_hash=hashlib.sha256(last.value).digest(),
            commit_seq=self._state.commit_seq,
            time_ms=self._state.time_ms,
            next_table_no=self._state.next_table_no,
            rule_set=self._state.rules.number,
            published_position=max(self._cursor.published_position, published_position),
        )
        if aside is None:
            self._store.write(self._cursor, batch, cursor)
        else:
            aside.write(self._cursor, batch, cursor)
            self._store.forget_partitions()
        _WRITTEN.reached()
        self._cursor = cursor
        if cursor.position >= self._seen_until:
            self._admission.restart()


def _load_state(store: SqlCommitStore, cursor: Cursor) -> State:
    state = State(
        lake=store.lake(),
        rules=rules(cursor.rule_set),
        commit_seq=cursor.commit_seq,
        time_ms=cursor.time_ms,
        next_table_no=cursor.next_table_no,
    )
    store.load_directory(state)
    return state
