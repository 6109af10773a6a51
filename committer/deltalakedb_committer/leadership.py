"""Who may step: one process at a time, whatever happens to it.

Neither way is what correctness rests on (that is the epoch in the cursor row); they keep two committers from taking
the lake from each other all the time. An embedded lake has a lock file, which the kernel frees when its holder dies.
A lake on a server has a heartbeat row: a standby takes over when position and heartbeat both stood still for a while
though the log grew.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from deltalakedb.errors import TxnLogError, TxnLogFencedError
from deltalakedb.eventlog import EventLog, Stream
from deltalakedb.failpoints import Failpoint

from .storing.store import SqlCommitStore

logger = logging.getLogger(__name__)

HANG_SECONDS = 120.0
"""A loop that shows no progress for so long gives no more signs of life: longer than any write should take."""

_RELEASED = Failpoint("committer.released")


class Leadership(Protocol):
    """The right to step, as a service holds it."""

    def acquire(self, stop: threading.Event) -> bool:
        """Wait until this process may step; False if `stop` was set first.

        Raises `TxnLogFencedError` if it did, and lost the lake to another one that may.
        """
        ...

    def began(self, epoch: int) -> None:
        """The lake was taken over with this epoch."""
        ...

    def progressed(self) -> None:
        """The loop is alive."""
        ...

    def release(self) -> None:
        """Let others step at once. Idempotent."""
        ...


class LockFile:
    """The lock file of an embedded lake. Held by whoever steps; freed by the kernel when the holder dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it."""
        if self._file is not None:
            return True
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def acquire(self, stop: threading.Event) -> bool:
        """Wait for the lock; False if `stop` was set first."""
        while not self.try_acquire():
            if stop.wait(0.05):
                return False
        return True

    def began(self, epoch: int) -> None:
        """Nothing to do: the lock is held already."""

    def progressed(self) -> None:
        """Nothing to do: the kernel knows whether the holder lives."""

    def release(self) -> None:
        """Let others step at once. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Heartbeat:
    """Leadership by a heartbeat row, written each second over a connection of its own."""

    def __init__(
        self, open_store: Callable[[], SqlCommitStore], log: EventLog, *, takeover_after: float, interval: float = 1.0
    ) -> None:
        """A sign of life comes each `interval` seconds, or as often as a standby of that kind has to see one."""
        self._open_store = open_store
        self._log = log
        self._takeover_after = takeover_after
        self._interval = min(interval, takeover_after / 3)
        self._progress = time.monotonic()
        self._epoch: int | None = None
        self._led: int | None = None
        """Since the last `acquire` that came to something: with which epoch the lake was taken over."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, stop: threading.Event) -> bool:
        """Wait until nobody leads, or the leader stood still for `takeover_after` seconds though there is work to do: the
        log grew, what was decided last may not have been told, or a big transaction is all there. Of several that wait,
        one is let in.

        A log that ends before the leader's position is no reason to wait either: whoever takes over says what is wrong.
        Raises `TxnLogFencedError` if this process led, and another one does now.
        """
        store = self._open_store()
        try:
            seen = store.observe()
            if self._led is not None and seen.epoch != self._led:
                raise TxnLogFencedError(
                    f"another committer took over from epoch {self._led}: it leads with epoch {seen.epoch}"
                )
            since = time.monotonic()
            while not stop.is_set():
                stands_still = time.monotonic() - since >= self._takeover_after and (
                    seen.untold or seen.undecided or self._log.end(Stream.STAGED) != seen.position
                )
                if (seen.released or seen.epoch == self._epoch or stands_still) and store.claim(seen):
                    # Ours to take over again, or to give back, if it comes to nothing.
                    self._epoch, self._led = seen.epoch, None
                    if stands_still:
                        logger.warning("the committer of epoch %s stands still; taking over", seen.epoch)
                    if not seen.released:
                        # Not before: one that shows a sign of life after all goes on with what it writes.
                        store.end_writer()
                    return True
                stop.wait(min(0.1, self._takeover_after / 4))
                now = store.observe()
                if (now.epoch, now.position, now.beat) != (seen.epoch, seen.position, seen.beat) or now.released:
                    since = time.monotonic()
                seen = now
            return False
        finally:
            store.close()

    def began(self, epoch: int) -> None:
        """Give signs of life for this epoch until `release`."""
        self._epoch = self._led = epoch
        self._stop.clear()
        self.progressed()
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def progressed(self) -> None:
        """The loop is alive."""
        self._progress = time.monotonic()

    def release(self) -> None:
        """Say in SQL that nobody leads; a standby need not wait."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)
            self._thread = None
        if self._epoch is not None:
            try:
                store = self._open_store()
                try:
                    store.release(self._epoch)
                    _RELEASED.reached()
                finally:
                    store.close()
            except TxnLogFencedError:
                pass  # it is another one's already
            except TxnLogError:
                logger.warning("could not release the lake; a standby will wait before it takes over", exc_info=True)

    def _beat(self) -> None:
        store: SqlCommitStore | None = None
        warned = False
        while not self._stop.wait(self._interval):
            if time.monotonic() - self._progress > HANG_SECONDS or self._epoch is None:
                continue
            try:
                store = store or self._open_store()
                store.heartbeat(self._epoch)
            except TxnLogFencedError:
                continue  # its epoch is over: the loop finds out when it writes, or is taking over again already
            except TxnLogError:
                if not warned:
                    logger.warning("no heartbeat can be written", exc_info=True)
                warned = True
                if store is not None:
                    store.close()
                    store = None
            else:
                warned = False
        if store is not None:
            store.close()
