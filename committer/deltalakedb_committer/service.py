"""The committer as a service: stand by, take over, step until told to stop; ride out what passes by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from deltalakedb.errors import TxnLogCommitUnknownError, TxnLogDatabaseError, TxnLogEventLogError
from deltalakedb.eventlog import EventLog
from deltalakedb.health import Health, State

from .attempting import Attempting
from .leadership import Leadership
from .measuring import BatchMeter
from .step import Committer
from .storing.aside import Aside
from .storing.store import SqlCommitStore

logger = logging.getLogger(__name__)

BATCH_RECORDS = 1_000
"""Records per SQL transaction at most: enough to amortise it, few enough to keep its latency in milliseconds."""
GATHER_SECONDS = 0.006
"""How long a batch waits for clients that are expected: about the time that the next batch would take (measured)."""
IDLE_SECONDS = 0.5
"""How long an idle loop waits for a record before it looks whether it should stop."""
FIRST_BACKOFF = 0.1
MAX_BACKOFF = 5.0


def serve(
    open_store: Callable[[], SqlCommitStore],
    log: EventLog,
    leadership: Leadership,
    *,
    holder: str,
    health: Health,
    stop: threading.Event,
    attempting: Attempting,
    open_aside: Callable[[], Aside | None] = lambda: None,
) -> None:
    """Step until `stop` is set. Errors that pass by themselves are ridden out, with pauses that grow until a step comes
    to its end; `attempting` outlives them, and earlier calls for the same lake.

    Raises `TxnLogFencedError` (another committer took over: exit, and come back as standby) and `TxnLogHaltedError`
    (an operator has to look), and an error of the store that would only come again; all leave nothing half done.
    """
    backoff = FIRST_BACKOFF
    stepped = threading.Event()
    try:
        while not stop.is_set():
            stepped.clear()
            try:
                health.becomes(State.STANDBY)
                if leadership.acquire(stop):
                    _lead(
                        *(open_store, log, leadership),
                        holder=holder,
                        health=health,
                        stop=stop,
                        stepped=stepped,
                        attempting=attempting,
                        open_aside=open_aside,
                    )
            except (TxnLogDatabaseError, TxnLogEventLogError) as error:
                if isinstance(error, TxnLogDatabaseError) and not _passes(error):
                    raise
                if stepped.is_set():
                    backoff = FIRST_BACKOFF
                logger.warning("the committer pauses for %.1f s: %s", backoff, error)
                health.paused(error)
                stop.wait(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF)
    finally:
        leadership.release()


def _lead(
    open_store: Callable[[], SqlCommitStore],
    log: EventLog,
    leadership: Leadership,
    *,
    holder: str,
    health: Health,
    stop: threading.Event,
    stepped: threading.Event,
    attempting: Attempting,
    open_aside: Callable[[], Aside | None],
) -> None:
    store, aside = open_store(), open_aside()
    try:
        meter = BatchMeter(health.measurements)
        with Committer(
            store,
            log,
            holder=holder,
            attempting=attempting,
            aside=aside,
            gather_seconds=GATHER_SECONDS,
            wait=stop.wait,
            on_batch=meter,
        ) as committer:
            leadership.began(committer.cursor.epoch)
            while not stop.is_set():
                health.becomes(State.CATCHING_UP if committer.is_catching_up else State.WORKING)
                committer.step(BATCH_RECORDS, IDLE_SECONDS)
                stepped.set()
                leadership.progressed()
    finally:
        if aside is not None:
            aside.close()
        store.close()


def _passes(error: TxnLogDatabaseError) -> bool:
    """Whether taking over again from the stored cursor goes on: also when only that tells if a COMMIT happened, and when
    an event is at fault, which is found and isolated after a few times."""
    return error.transient or error.refuses_rows or isinstance(error, TxnLogCommitUnknownError)
