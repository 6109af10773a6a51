"""Watches `_delta_log` on local disk from outside: versions published, how late, and how long a backlog takes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL_SECONDS = 0.02


class PublishedProbe:
    """Sees every version that appears in the tables' `_delta_log` and how long after its commit time.

    A version's modification time is the time of its commit (that of its record in the log), so a lag includes the
    waiting for the committer. It is seen up to `POLL_SECONDS` late.
    """

    def __init__(self, root: Path, heads: Callable[[], Mapping[str, int]]) -> None:
        self._heads = heads
        self._logs = {table: f"{root}/{table}/_delta_log" for table in heads()}
        self._next = dict.fromkeys(self._logs, 0)
        self._lags: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch-mirror", daemon=True)
        self.versions = 0
        """Versions, of all tables, that appeared within the window; complete after `end`."""
        self.behind = 0
        """Versions that were committed and not published when the window ended."""

    def begin(self, clients: Sequence[int]) -> None:
        self._look()
        self._lags.clear()
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self.versions = len(self._lags)
        self.behind = self.missing()

    def lag(self, share: float) -> float:
        """The lag (seconds) that `share` of the versions seen within the window did not exceed."""
        lags = sorted(self._lags)
        return lags[min(len(lags) - 1, int(share * len(lags)))] if lags else float("nan")

    def missing(self) -> int:
        """Versions that are committed and not published yet."""
        heads = self._heads()
        self._look()
        return sum(max(0, heads[table] + 1 - following) for table, following in self._next.items())

    def drain(self, timeout: float) -> float:
        """Seconds until everything that is committed is published.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
        """
        begun = time.monotonic()
        while missing := self.missing():
            if time.monotonic() - begun > timeout:
                raise TimeoutError(f"{missing} versions are not published after {timeout:.0f} s")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - begun

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        now = time.time()
        for table, log in self._logs.items():
            while True:
                try:
                    # A path object for each would cost as much as a tenth of what the mirror does for it.
                    committed = os.stat(f"{log}/{self._next[table]:020}.json").st_mtime
                except FileNotFoundError:
                    break
                self._lags.append(now - committed)
                self._next[table] += 1
