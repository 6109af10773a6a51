"""A committer in a process that is ended, stopped or failed at any point."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any

import structlog as _structlog  # noqa: F401 - loaded before anybody forks
import typer

from deltalakedb import failpoints
from deltalakedb.database import postgres as _postgres  # noqa: F401
from deltalakedb.errors import TxnLogDatabaseError
from deltalakedb.eventlog import Record
from deltalakedb.eventlog import kafka as _kafka  # noqa: F401
from deltalakedb.events import Completion, StagedTransaction
from deltalakedb_committer import commands, leadership, rehearsal
from deltalakedb_committer import lakes as _lakes  # noqa: F401
from deltalakedb_committer.applying import Applier
from deltalakedb_committer.storing.rows import Batch
from tests.mortuary import serve

SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "stop": signal.SIGSTOP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A committer as a service; it serves until SIGTERM, or until what is planned for it happens."""

    store: str
    """URI of the store."""
    log: str
    """Where its output goes: path of a file."""
    beside: str | None = None
    """URI of the store of a second lake that it serves."""
    at: str | None = None
    """The failpoint at which something happens to it; None: nothing does."""
    act: str = "kill"
    """What happens: it is killed, gets SIGSEGV, is stopped, or an error that passes is raised, once."""
    over: str | None = None
    """What happens, happens only where it is at work on that transaction, and to its child process too."""
    passes: int = 0
    """How often it passes there before."""
    takeover_after: float = 0.3
    gives_signs: bool = True
    """Whether it shows that it lives while it has nothing to do."""


def _committer(given: dict[str, Any]) -> int:
    work = Work(**given)
    out = os.open(work.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    if work.at is not None:
        arm(work.at, work.act, work.passes, work.over)
    if work.at is not None and work.over is not None:
        rehearsal.COMMAND = (sys.executable, "-m", "tests.committing.mortal_rehearsal", work.at, work.act, work.over)
    if not work.gives_signs:
        leadership.Heartbeat._beat = lambda self: None  # type: ignore[method-assign]
    if work.at == "committer.ticked":
        # Ticks come early. What they do is for the log's time to say: nothing.
        expires_ms: Any = Applier.__dict__["expires_ms"]
        Applier.expires_ms = property(lambda applier: expires_ms.fget(applier) and 0)  # type: ignore[method-assign, assignment]
    try:
        commands.run(store=[store for store in (work.store, work.beside) if store], takeover_after=work.takeover_after)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def arm(place: str, act: str, passes: int = 0, over: str | None = None) -> None:
    """Have something happen to this process."""
    left = [passes]

    def happen() -> None:
        left[0] -= 1
        if left[0] >= 0:
            return
        failpoints.disarm()
        if act == "error":
            raise TxnLogDatabaseError(f"failed at {place}", transient=True)
        # To this thread, which then does nothing more; to the process, another thread might take it.
        signal.pthread_kill(threading.get_ident(), SIGNALS[act])

    failpoints.arm(place, happen, over=lambda found: over is None or _is_about(found, over))


def _is_about(found: object, txn_id: str) -> bool:
    """Whether a step is at work on a transaction, rather than on its having been isolated."""
    if isinstance(found, Record):
        return txn_id.encode() in found.value
    if isinstance(found, Completion):
        return found.txn_id == txn_id
    if isinstance(found, StagedTransaction):
        return found.envelope.txn_id == txn_id and found.envelope.chunk_count == 1
    return isinstance(found, Batch) and any(row[0] == txn_id for row in found.inserts["dl_transactions"])


if __name__ == "__main__":
    serve(_committer)
