"""The committer's step: read a batch, load what it needs, decide in log order, write once, tell.

The loop around it is `service` in production and `embedded` in the client's process; both call the same `Committer`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Self

from deltalakedb.codec import HEADER_COMPLETES, encode
from deltalakedb.errors import TxnLogHaltedError
from deltalakedb.eventlog import EventLog, LogReader, Message, Record, Stream
from deltalakedb.events import Completion, Control, StagedTransaction, Tick
from deltalakedb.failpoints import Failpoint
from deltalakedb.ids import new_txn_id
from deltalakedb.lake_log import verify_stream

from .applying import Applier
from .attempting import Attempting
from .batching import Batching, may_change_rules
from .careful import Isolating
from .catching_up import ToldCommits, told_isolated
from .deciding.big import is_big
from .deciding.decisions import Commit, Decision, Imported
from .deciding.folding import Fold, Unit
from .deciding.needs import StagedEvent
from .gathering import Gathering
from .outbox import Outbox
from .placing import Placing
from .storing.aside import Aside
from .storing.rows import Batch
from .storing.store import Cursor, SqlCommitStore

logger = logging.getLogger(__name__)

CLOCK_TOLERANCE_MS = 3_600_000
"""A record from further in the future than this means a wrong clock somewhere, not a slow one."""
DRAIN_SECONDS = 5.0
TICK_SECONDS = 60.0
"""Least time between two ticks."""
IDLE_SECONDS = 0.005
"""How long a log that has brought nothing is waited for before a fold is closed by a tick."""
CLOSING_SECONDS = 1.0
"""How long that tick is waited for before the step returns without it."""
LOOK_SECONDS = 0.02
"""How long an idle loop waits for a record while something is done beside it."""
PACE_MS = 1_000
"""How far T may run ahead of our clock before the loop waits instead of writing."""

_TAKEN_OVER = Failpoint("committer.taken-over")
_LOG_VERIFIED = Failpoint("committer.log-verified")
_TOLD_AGAIN = Failpoint("committer.told-again")
_TICKED = Failpoint("committer.ticked")
_READ = Failpoint("committer.read")
_READ_ON = Failpoint("committer.read-on")
_TOLD = Failpoint("committer.told")


class Committer:
    """The one writer of a lake, from taking over until it is fenced, fails or is closed. Used by one thread.

    Any error leaves SQL as it was before or after a whole batch, a lost answer to COMMIT included; the object is then
    of no more use, and another one takes over from the stored cursor, which tells which of the two it was.
    """

    def __init__(
        self,
        store: SqlCommitStore,
        log: EventLog,
        *,
        holder: str,
        attempting: Attempting | None = None,
        aside: Aside | None = None,
        gather_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], object] = time.sleep,
        on_batch: Callable[[Sequence[Record], Batch, float], None] | None = None,
    ) -> None:
        """Takes over. `attempting` knows what earlier ones of this process have begun. A batch may wait `gather_seconds`
        for the clients it expects, see `gathering`, and a fold for what may come into it; with 0 neither waits for what
        is not on the log. What takes long about big transactions is done `aside`, if there is such a connection; it
        stays open. `wait` is asked to let seconds pass where commits would run ahead of the `clock`, and may do with
        less. `on_batch` is told the records of each batch that was written, what came of them, and the seconds that
        it took."""
        self._store = store
        self._log = log
        self._clock = clock
        self._wait = wait
        self._on_batch = on_batch
        self._holder = holder
        self._ticked = 0.0
        self._applier = Applier(store, store.take_over(holder), clears=aside is None)
        _TAKEN_OVER.reached()
        self._outbox = Outbox(log)
        self._batching = Batching(self._event)
        self._placing = Placing(self._applier, aside, self._append_completion, self._may_look)
        self._closing: tuple[Fold, Future[list[int]]] | None = None
        self._waits = gather_seconds > 0
        self._gathering = Gathering(gather_seconds)
        cursor = self.cursor
        self._end = cursor.position
        self._end_asked = 0.0
        try:
            self._verify_log(cursor)
            _LOG_VERIFIED.reached()
            self._told = ToldCommits.after(log, cursor.commit_seq)
        except TxnLogHaltedError:
            store.release(cursor.epoch)  # or the next one would stand by for this one, and say nothing
            raise
        self._outbox.publish(store.outbox(), cursor.position)
        _TOLD_AGAIN.reached()
        self._attempting = attempting or Attempting()
        told = {} if self._told is None else told_isolated(log, cursor.position)
        self._isolating = Isolating(store, self._attempting, told=told, clock=clock)
        self._begins = True
        """Whether nothing was decided since the takeover."""
        self._reader: LogReader = log.reader(Stream.STAGED, cursor.position)
        logger.info(
            "took over the lake at position %s, commit %s",
            *(cursor.position, cursor.commit_seq),
            extra={"epoch": cursor.epoch, "lake": self._applier.lake_id},
        )

    @property
    def cursor(self) -> Cursor:
        """Where this committer stands; equal to the stored row as long as it is not fenced."""
        return self._applier.cursor

    @property
    def is_catching_up(self) -> bool:
        """Whether it decides again what was told before, because its store is older than that."""
        return self._told is not None

    def step(self, limit: int, timeout: float) -> int:
        """Decide about `limit` records, waiting up to `timeout` seconds for the first. The number decided; 0: none came.

        A fold is decided as a whole: where the log ends within one, the step goes on until its window has passed.

        Raises `TxnLogFencedError` if another committer took over, `TxnLogHaltedError` for a named halted state, and
        the errors of store and log; in none of these cases is anything told that is not durable.
        """
        try:
            decided = self._step(limit, timeout)
        except BaseException as error:
            self._isolating.close()
            self._attempting.failed(self._store, self.cursor, error)
            raise
        self._attempting.ended(self._store, self.cursor, moved=decided > 0)
        return decided

    def _step(self, limit: int, timeout: float) -> int:
        self._tick()
        self._place()
        units = self._next_units(limit, min(timeout, LOOK_SECONDS) if self._placing.is_busy else timeout)
        if not units:
            self._outbox.published_position()
            return 0
        _READ.reached()
        began = time.monotonic()
        batch = self._applier.apply(
            units,
            published_position=self._outbox.published_position(),
            lag_events=self._log_lag(units[-1][-1][0]),
            decided_ms=int(self._clock() * 1000),
            isolated=self._isolating.events,
            on_decision=self._pace,
            before_write=self._before_write,
            known=self._placing.known,
        )
        self._begins = False
        self._isolating.moved(self.cursor)
        self._outbox.publish(batch.outbox, self.cursor.position)
        _TOLD.reached()
        self._place()
        if self._on_batch is not None:
            self._on_batch([record for unit in units for record, _ in unit], batch, time.monotonic() - began)
        return sum(map(len, units))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Let go of the reader; after a clean end wait until everything decided is told. Store and log stay open."""
        self._placing.close()
        self._reader.close()
        self._isolating.close()
        if self._told is not None:
            self._told.close()
        if kind is None:
            self._outbox.drain(DRAIN_SECONDS)

    def _next_units(self, limit: int, timeout: float) -> list[Unit]:
        """A batch: what is there, and what comes while it is worth waiting for."""
        rules, batching = self._applier.rules, self._batching
        if not batching.waits and batching.fold is None:
            batching.put(self._reader.read(limit, timeout))
        if self._begins and batching.read_until is not None:
            self._isolating.begin(self.cursor, batching.read_until)
        batching.alone = self._isolating.alone
        if self._isolating.is_careful:
            return batching.take(1, rules)
        units = batching.take(limit, rules)
        while not units and batching.fold is not None and self._read_on(batching.fold, limit):
            units = batching.take(limit, rules)
        return units if rules.fold_window_ms else self._gathered(units, limit)

    def _read_on(self, fold: Fold, limit: int) -> bool:
        """Read what may come into the fold or complete it. Whether to go on: not if its tick is long in coming."""
        left = 0.0
        if self._waits:
            # What the window is goes by the log's clock. Ours only says how long to wait: wrong, it costs time.
            ahead_ms = fold.until_ms - self._clock() * 1000
            left = min(max(0.0, ahead_ms), self._applier.rules.fold_window_ms) / 1000
        records = self._reader.read(limit, max(left, IDLE_SECONDS if self._waits else 0.0))
        if not records and left == 0:
            if self._closing is None or self._closing[0] is not fold:
                self._closing = fold, self._append_tick()
            records = self._reader.read(limit, CLOSING_SECONDS)
            if not records:
                ticked = self._closing[1]
                if ticked.done():
                    ticked.result()
                return False
        self._batching.put(records)
        _READ_ON.reached()
        return True

    def _gathered(self, units: list[Unit], limit: int) -> list[Unit]:
        """The batch, with what clients that are expected send in a moment."""
        clients = _clients(units)
        if not clients or may_change_rules(units) or is_big(units[0][0][1], self._applier.rules):
            return units
        deadline = time.monotonic() + self._gathering.patience()
        waited = came = False
        while self._gathering.waits_for(clients) and not self._batching.waits and len(units) < limit:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            waited = True
            self._batching.put(self._reader.read(limit - len(units), left))
            more = self._batching.take(limit - len(units), self._applier.rules, begun=True)
            came = came or bool(more)
            clients |= _clients(more)
            units += more
            if may_change_rules(more):
                break
        self._gathering.done(clients, waited=waited, came=came)
        return units

    def _event(self, record: Record) -> StagedEvent:
        if record.time_ms > self._clock() * 1000 + CLOCK_TOLERANCE_MS:
            raise TxnLogHaltedError(
                "CLOCK_AHEAD",
                f"record {record.position} of the staged stream carries a time more than an hour ahead of this "
                "machine's clock: set the clocks of the log's servers and of this machine right, then start again",
            )
        return self._isolating.event_of(record, self._applier.event_of, self.cursor, self._applier.rules)

    def _pace(self, decision: Decision) -> None:
        """Times of commits rise by a millisecond at least, whatever the clock says: it must not be left behind."""
        commit = decision.decided if isinstance(decision, Imported) else decision
        if isinstance(commit, Commit):
            ahead = commit.time_ms - self._clock() * 1000 - PACE_MS
            if ahead > 0:
                self._wait(ahead / 1000)

    def _tick(self) -> None:
        """Put a tick on the log when one could give up an incomplete transaction: when it does is for its time to say."""
        expires_ms, now = self._applier.expires_ms, self._clock()
        if expires_ms is None or now * 1000 < expires_ms or now - self._ticked < TICK_SECONDS:
            return
        self._ticked = now
        self._append_tick()

    def _place(self) -> None:
        """Whoever catches up finds on the log where big transactions were decided."""
        if self._told is None:
            self._placing.go_on()

    def _may_look(self) -> bool:
        """Before a big transaction's content is looked at, which may be the death of the process: right after a takeover
        that is noted, and after deaths it is left for the decision, which can be isolated."""
        if self._begins:
            self._isolating.begin(self.cursor, self._log.end(Stream.STAGED) + 1)
        return not self._isolating.is_careful

    def _append_completion(self, txn_id: str, heads: dict[str, int]) -> Future[list[int]]:
        event = Completion(lake_id=self._applier.lake_id, client_id=self._holder, txn_id=txn_id, heads=heads)
        return self._log.append(Stream.STAGED, [Message(encode(event), ((HEADER_COMPLETES, txn_id.encode()),))])

    def _append_tick(self) -> Future[list[int]]:
        tick = Control(control_id=new_txn_id(), lake_id=self._applier.lake_id, client_id=self._holder, command=Tick())
        appended = self._log.append(Stream.STAGED, [Message(encode(tick))])
        _TICKED.reached()
        return appended

    def _before_write(self, batch: Batch) -> Aside | None:
        if self._told is not None and not self._told.check(batch.commits):
            self._told.close()
            self._told = None
        return self._placing.write_with(batch)

    def _log_lag(self, last: Record) -> int:
        """About how many records wait behind this batch; the end of the log is asked for once a second."""
        now = self._clock()
        if now - self._end_asked >= 1.0:
            self._end_asked = now
            self._end = self._log.end(Stream.STAGED)
        return max(0, self._end - last.next_position)

    def _verify_log(self, cursor: Cursor) -> None:
        """Halt unless the log is the one that the cursor was written against, up to the record before it."""
        verify_stream(self._log, cursor.stream_identity)
        if cursor.last_event_hash is None:
            return
        reader = self._log.reader(Stream.STAGED, cursor.position - 1)
        try:
            found = reader.read(1, 10.0)
        finally:
            reader.close()
        if not found or found[0].position != cursor.position - 1:
            raise TxnLogHaltedError(
                "LOG_TRUNCATED",
                f"record {cursor.position - 1}, the last one decided, is no longer in the staged stream of "
                f"{self._log.address}: the log lost its end or its beginning. Restore it before anything is written",
            )
        if hashlib.sha256(found[0].value).digest() != cursor.last_event_hash:
            raise TxnLogHaltedError(
                "LOG_DIVERGED",
                f"record {cursor.position - 1} of the staged stream of {self._log.address} is not the one that was "
                "decided: the log was changed behind our back. Restore it before anything is written",
            )


def _clients(units: Iterable[Unit]) -> set[str]:
    return {event.envelope.client_id for unit in units for _, event in unit if isinstance(event, StagedTransaction)}
