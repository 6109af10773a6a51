"""A mirror in a process that is ended at any point: forked, in milliseconds, from one that has everything loaded.

`python -m tests.mirror.mortal` is that process: it reads one line of JSON for each mirror, forks it and prints its id;
given an id it waits for the end of that one and prints how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as _pandas  # noqa: F401 - pyarrow imports it at first use

from deltalakedb import failpoints
from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool, StoreAddress, open_database
from deltalakedb.errors import TxnLogError
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker import checkpoint as _checkpoint  # noqa: F401 - loaded before anybody forks
from deltalakedb_mirror_worker import cleanup, portions, step, upkeep, wide
from deltalakedb_mirror_worker.reconcile import Reconciler

WIDE = 3
"""A version with more files than this is wide."""
LATER_MS = 31 * cleanup.DAY_MS
"""How far ahead of now the log is cleaned up: everything has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one mirror does before it ends by itself, if it is let."""

    store: str
    """Path of a SQLite store."""
    kill_at: str | None = None
    """The failpoint at which it ends; None: it does not."""
    passes: int = 0
    """How often it passes there before."""
    lose: str | None = None
    """Path of a file to delete once everything is published, so that it has to be put back."""
    forever: bool = False
    """Whether it goes on when nothing is left to do."""


class Mortuary:
    """The process that forks mirrors."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.mirror.mortal"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def places(self) -> list[str]:
        """Every failpoint that such a mirror has."""
        return self._ask("places").split()

    def start(self, work: Work) -> int:
        """Start a mirror; its process id."""
        return int(self._ask(json.dumps(asdict(work))))

    def wait(self, pid: int) -> int:
        """How the mirror ended: its exit code, or minus the signal."""
        return int(self._ask(str(pid)))

    def kill(self, pid: int) -> int:
        """End a mirror, if it has not ended; how it did."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def run(self, work: Work) -> int:
        """A mirror from its start to its end; how it ended."""
        return self.wait(self.start(work))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its input ends, and so does it.
        with self._server:
            pass

    def _ask(self, line: str) -> str:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the process that forks mirrors ended"
        return answer.strip()


def _serve() -> None:
    for line in sys.stdin:
        if line.strip() == "places":
            _answer(" ".join(sorted(failpoints.places())))
        elif line.strip().isdecimal():
            _, status = os.waitpid(int(line), 0)
            _answer(str(os.waitstatus_to_exitcode(status)))
        elif pid := os.fork():
            _answer(str(pid))
        else:
            code = 1
            try:
                _mirror(Work(**json.loads(line)))
                code = 0
            finally:
                # Nothing of the parent's is flushed or closed here.
                os._exit(code)


def _answer(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _mirror(work: Work) -> None:
    for module in (step, portions, wide):
        module.WIDE_ACTIONS = WIDE  # type: ignore[attr-defined]
    upkeep.QUIET_SECONDS = upkeep.WATERMARK_SECONDS = 0.0
    if work.kill_at is not None:
        left = [work.passes]

        def end() -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.arm(work.kill_at, end)
    address = StoreAddress(engine="sqlite", path=work.store)
    pool = Pool(lambda: open_database(address))
    mirror = step.Mirror(
        pool, open_object_store, threads=2, max_pause=0.001, on_published=lambda versions: keeper.tell(versions)
    )
    keeper = upkeep.Upkeep(pool, lambda: mirror.places)
    keeper.tell({})
    reconciler = Reconciler(pool)
    done = False
    while work.forever or not done:
        try:
            progress = mirror.step()
            keeper.round()
            if not progress.versions_behind and not progress.more:
                if work.lose is not None:
                    Path(work.lose).unlink(missing_ok=True)
                reconciler.round(mirror.places)
                for _ in range(4):
                    keeper.round()
                _clean_up(pool, mirror)
                keeper.round(stopping=True)
                done = True
        except TxnLogError:
            time.sleep(0.01)


def _clean_up(pool: Pool, mirror: step.Mirror) -> None:
    with pool.connection() as db:
        tables = Catalog(db).progress("in-place")
    now = int(time.time() * 1000) + LATER_MS
    for table in tables:
        place = mirror.places.of(table.location)
        cleanup.clean(pool, mirror.places.root, place, table.table_id, "in-place", now)


if __name__ == "__main__":
    _serve()
