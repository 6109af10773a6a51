"""The mirror inside the client's process: whoever commits publishes (entry point)."""

from __future__ import annotations

import time

from deltalakedb.catalog import IN_PLACE
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.settings import Settings

from .worker import Worker

WAIT_SECONDS = 10.0
"""How long a step waits for another process that is publishing: it may have begun before our commit."""
LOOK_SECONDS = 0.005
"""How often it looks meanwhile whether that one has published everything: many that wait for one need no turn each."""


class Stepper:
    """Publishes an embedded lake from its clients' own processes. Thread-safe; not used across a fork."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def try_step(self) -> bool | None:
        """Publish what is missing; whether there is more to do, None if another process was at it all the time.

        Raises `TxnLogMirrorError` if the root is another lake's, and the errors of the database.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while (progress := self._worker.step(LOOK_SECONDS)) is None:
            if self._worker.idle():
                return False
            if time.monotonic() >= deadline:
                return None
        return progress.more

    def close(self) -> None:
        """Write the last watermark and free connections. Idempotent."""
        self._worker.close()


def open_stepper(settings: Settings, target: str = IN_PLACE) -> Stepper:
    """The stepper of one target of an embedded lake.

    Raises `TxnLogConfigError` for a lake on a server, whose mirror is a service of its own, `TxnLogMirrorError` if the
    lake has no such target.
    """
    if settings.address.path is None:
        raise TxnLogConfigError("only an embedded lake is mirrored by its clients; run `deltalakedb mirror run`")
    return Stepper(Worker(settings, target=target))
