"""The lakes of one committer process: each with a thread, a position, an epoch and a leadership of its own."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence

from deltalakedb.errors import TxnLogConfigError, TxnLogError, TxnLogFencedError, TxnLogHaltedError
from deltalakedb.health import ServiceHealth
from deltalakedb.settings import Settings

from .attempting import Attempting
from .lake import holder, leadership, open_aside, open_log, open_store
from .measuring import LakeWatch
from .service import MAX_BACKOFF, serve

logger = logging.getLogger(__name__)


def serve_lakes(
    lakes: Sequence[Settings], *, takeover_after: float, health: ServiceHealth, stop: threading.Event
) -> None:
    """Serve one lake, or several side by side, until `stop` is set.

    What ends the service of a single lake ends the process: see `service.serve` for what it raises. Of several, one
    does not end the others: a lake that another committer took over comes back as standby, one that failed is tried
    again, and one that is halted stays so until this process is started anew. Raises `TxnLogConfigError` if a lake is
    named twice or cannot be served, `TxnLogHaltedError` once every lake is halted, and at once whatever is not an
    error of ours: it ends all of them, since nobody knows what it left behind.
    """
    for lake in lakes:
        lake.require_services("committer run")
    for address, times in Counter(str(lake.address) for lake in lakes).items():
        if times > 1:
            raise TxnLogConfigError(
                f"{address} is named twice: one committer serves a lake once; a standby is another process"
            )
    if len(lakes) == 1:
        _serve(lakes[0], Attempting(), takeover_after=takeover_after, health=health, stop=stop)
    else:
        _Several(lakes, takeover_after=takeover_after, health=health, stop=stop).run()


def _serve(
    lake: Settings, attempting: Attempting, *, takeover_after: float, health: ServiceHealth, stop: threading.Event
) -> None:
    seen = health.of(str(lake.address), secrets=lake.secrets)
    log = open_log(lake)
    watch = LakeWatch(lambda: open_store(lake), log, seen.measurements)
    try:
        log.verify()
        seen.check("store", watch.store)
        seen.check("log", watch.log)
        serve(
            lambda: open_store(lake),
            log,
            leadership(lake, log, takeover_after=takeover_after),
            holder=holder(lake),
            health=seen,
            stop=stop,
            attempting=attempting,
            open_aside=lambda: open_aside(lake),
        )
    finally:
        watch.close()
        log.close()


class _Several:
    """Threads of lakes, and what became of them."""

    def __init__(
        self, lakes: Sequence[Settings], *, takeover_after: float, health: ServiceHealth, stop: threading.Event
    ) -> None:
        self._takeover_after = takeover_after
        self._health = health
        self._stop = stop
        self._halted: list[TxnLogHaltedError] = []
        self._broken: list[BaseException] = []
        self._turn = threading.Lock()
        self._threads = [threading.Thread(target=self._keep, args=(lake,), name=str(lake.address)) for lake in lakes]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        if self._broken:
            raise self._broken[0]
        if len(self._halted) == len(self._threads):
            raise self._halted[0]

    def _keep(self, lake: Settings) -> None:
        attempting = Attempting(self._turn)
        try:
            while not self._stop.is_set():
                try:
                    _serve(lake, attempting, takeover_after=self._takeover_after, health=self._health, stop=self._stop)
                except TxnLogFencedError as error:
                    logger.error("%s is another committer's now, standing by: %s", lake.address, error)
                except TxnLogHaltedError as error:
                    logger.critical("%s is halted: %s", lake.address, error, extra={"state": error.state})
                    self._health.of(str(lake.address)).halted(error)
                    self._halted.append(error)
                    return
                except TxnLogError as error:
                    logger.error("%s failed, and is tried again: %s", lake.address, error, exc_info=error)
                    self._health.of(str(lake.address)).paused(error)
                self._stop.wait(MAX_BACKOFF)
        except BaseException as error:
            self._broken.append(error)
            self._stop.set()
