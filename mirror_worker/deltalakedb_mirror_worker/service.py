"""The mirror as a service: step until told to stop; commit events only wake it, SQL says what is missing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from deltalakedb.errors import TxnLogDatabaseError, TxnLogError, TxnLogObjectStoreError
from deltalakedb.eventlog import EventLog, LogReader, Stream
from deltalakedb.health import Health, State
from deltalakedb.metrics import (
    MIRROR_FAILED,
    MIRROR_FENCED,
    MIRROR_LAG_SECONDS,
    MIRROR_LAG_VERSIONS,
    MIRROR_PUBLISHED,
    MIRROR_STEP_SECONDS,
    Measurements,
)

from .reconcile import Reconciler
from .step import Progress
from .worker import Worker

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often SQL is asked though no commit event came."""
PACE_SECONDS = (0.05, 0.2)
"""Least time from one step to the next where nothing waits, after steps with few versions and with many: a step costs its
queries and flushes whether it finds one version or a hundred, so that under a steady stream of commits it is cheaper to
publish those of a moment together."""
STREAM_VERSIONS = 400
"""Versions a second from which on a stream takes more and more of that time."""
LOCK_SECONDS = 1.0
RECONCILE_SECONDS = 30.0
FIRST_BACKOFF = 0.1
MAX_BACKOFF = 5.0
WARN_SECONDS = 60.0
CRITICAL_SECONDS = 300.0
"""Lags from which the log says so."""
SAY_SECONDS = 30.0
_HINTS = 10_000


def serve(worker: Worker, log: EventLog | None, *, target: str, health: Health, stop: threading.Event) -> None:
    """Step until `stop` is set. Errors of the database and the object store are ridden out with growing pauses.

    Raises `TxnLogMirrorError` if the root is another lake's or the target cannot be served.
    """
    woken = threading.Event()
    for name, body in (
        ("mirror-hints", lambda: _listen(log, woken, stop)),
        ("mirror-reconcile", lambda: _reconcile(worker, Reconciler(worker.pool, target=target), stop)),
    ):
        threading.Thread(target=body, name=name, daemon=True).start()
    lag = _LagReport()
    backoff = FIRST_BACKOFF
    health.becomes(State.WORKING)
    while not stop.is_set():
        began = time.monotonic()
        try:
            # Before the step: what wakes during it may be about what the step did not see.
            woken.clear()
            progress = worker.step(LOCK_SECONDS)
            backoff = FIRST_BACKOFF
        except (TxnLogDatabaseError, TxnLogObjectStoreError) as error:
            logger.warning("the mirror pauses for %.1f s: %s", backoff, error)
            health.paused(error)
            stop.wait(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF)
            health.becomes(State.WORKING)
            continue
        health.progressed()
        if progress is not None:
            _measure(health.measurements, target, progress, time.monotonic() - began)
            lag.tell(progress.versions_behind, progress.seconds_behind)
        if progress is None or not progress.more:
            _wait(woken, stop, POLL_SECONDS)
            pace = PACE_SECONDS[0] if progress is None else _pace(progress.published)
            stop.wait(max(0.0, began + pace - time.monotonic()))


def _measure(count: Measurements, target: str, progress: Progress, seconds: float) -> None:
    count.add(MIRROR_PUBLISHED, progress.published, target)
    count.set(MIRROR_LAG_VERSIONS, progress.versions_behind, target)
    count.set(MIRROR_LAG_SECONDS, progress.seconds_behind, target)
    count.set(MIRROR_FAILED, progress.failed, target)
    count.set(MIRROR_FENCED, progress.fenced, target)
    count.observe(MIRROR_STEP_SECONDS, (seconds,), target)


def _pace(published: int) -> float:
    """Least seconds from a step that published so many versions to the next one."""
    shortest, longest = PACE_SECONDS
    return min(max(shortest, published / STREAM_VERSIONS), longest)


def _wait(woken: threading.Event, stop: threading.Event, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
        if woken.wait(min(left, 0.25)):
            return


def _listen(log: EventLog | None, woken: threading.Event, stop: threading.Event) -> None:
    """Wake the loop at every commit event. Events that are missed, or a log that is away, cost latency only."""
    reader: LogReader | None = None
    while log is not None and not stop.is_set():
        try:
            if reader is None:
                reader = log.reader(Stream.COMMITS, log.end(Stream.COMMITS))
            if reader.read(_HINTS, 0.5):
                woken.set()
                stop.wait(PACE_SECONDS[0])  # what comes until then is the same step's
        except TxnLogError as error:
            logger.warning("no commit events for now, SQL is polled: %s", error)
            _close(reader)
            reader = None
            stop.wait(MAX_BACKOFF)
    _close(reader)


def _close(reader: LogReader | None) -> None:
    if reader is not None:
        reader.close()


def _reconcile(worker: Worker, reconciler: Reconciler, stop: threading.Event) -> None:
    while not stop.wait(RECONCILE_SECONDS):
        try:
            reconciler.round(worker.mirror.places)
        except TxnLogError as error:
            logger.warning("this round of reconciling failed: %s", error)
        except Exception:
            logger.exception("this round of reconciling failed")


class _LagReport:
    """Says in the log that the target is behind, now and then as long as it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = -SAY_SECONDS

    def tell(self, versions: int, seconds: float) -> None:
        now = self._clock()
        if seconds < WARN_SECONDS or now - self._said < SAY_SECONDS:
            return
        self._said = now
        level = logging.CRITICAL if seconds >= CRITICAL_SECONDS else logging.WARNING
        logger.log(level, "the mirror is %s versions and %.0f s behind", versions, seconds)
