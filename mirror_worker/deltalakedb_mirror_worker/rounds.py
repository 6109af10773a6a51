"""Work that a thread of its own does in rounds: whenever it is woken, and when its last round said so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from deltalakedb.errors import TxnLogError

logger = logging.getLogger(__name__)

ERROR_SECONDS = 1.0
"""Pause after a round that failed, whoever wakes."""


class Rounds:
    """One such thread. It never holds up the end of the process."""

    def __init__(self, name: str, work: Callable[[bool], float]) -> None:
        """`work` does what is due, and gives the seconds until there may be more though nobody wakes. It is told
        whether this round is the last one. What it raises is logged under `name`, and the next round comes a moment later.
        """
        self._name = name
        self._work = work
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Ask for a round. The first call starts the thread. Called by one thread at a time."""
        self._woken.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask for a last round."""
        self._stop.set()
        self._woken.set()

    def join(self, seconds: float) -> None:
        """Wait for the last round, at most that long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stop.is_set()
            try:
                pause = self._work(last)
                if not last:
                    self._woken.wait(pause)
            except TxnLogError as error:
                logger.warning("%s pauses: %s", self._name, error)
                self._stop.wait(ERROR_SECONDS)
            except Exception:
                logger.exception("%s failed", self._name)
                self._stop.wait(ERROR_SECONDS)
            self._woken.clear()
