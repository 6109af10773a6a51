"""Processes that are ended at any point: forked, in milliseconds, from one that has everything loaded.

A module that is run for this calls `serve` with what a forked process does; `Mortuary` starts it and has it fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deltalakedb import failpoints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_POLL_SECONDS = 0.01


class Mortuary:
    """The process that forks others."""

    def __init__(self, module: str) -> None:
        """`module` is run as the main one and calls `serve`."""
        self._module = module
        self._server = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def places(self) -> list[str]:
        """Every failpoint that a forked process has."""
        return self._ask("places").split()

    def start(self, work: DataclassInstance) -> int:
        """Fork a process that does this work; its id."""
        return int(self._ask(json.dumps(asdict(work))))

    def poll(self, pid: int) -> int | None:
        """How the process ended: its exit code, or minus the signal that killed or stopped it; None: it goes on.

        Each end and each stop is told once.
        """
        answer = self._ask(str(pid))
        return None if answer == "running" else int(answer)

    def wait(self, pid: int, timeout: float = 240.0) -> int:
        """The same, once it has."""
        deadline = time.monotonic() + timeout
        while (ended := self.poll(pid)) is None:
            assert time.monotonic() < deadline, f"the process {pid} of {self._module} neither ended nor stopped"
            time.sleep(_POLL_SECONDS)
        return ended

    def kill(self, pid: int) -> int:
        """End a process, if it has not ended; how it did."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def run(self, work: DataclassInstance) -> int:
        """A process from its start to its end; how it ended."""
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
        assert answer, "the process that forks others ended"
        return answer.strip()


def serve(act: Callable[[dict[str, Any]], int]) -> None:
    """Fork as told by a `Mortuary` until it goes; `act` does a process's work and gives its exit code."""
    for line in sys.stdin:
        if line.strip() == "places":
            _answer(" ".join(sorted(failpoints.places())))
        elif line.strip().isdecimal():
            _answer(_ended(int(line)))
        elif pid := os.fork():
            _answer(str(pid))
        else:
            code = 1
            try:
                code = act(json.loads(line))
            finally:
                # Nothing of the parent's is flushed or closed here.
                os._exit(code)


def _ended(pid: int) -> str:
    there, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
    if not there:
        return "running"
    return str(-os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status))


def _answer(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
