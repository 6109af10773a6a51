"""The demo's child processes: the services with a log each, the clients with their results, and a clean end of them all."""

from __future__ import annotations

import ctypes
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from deltalakedb.errors import TxnLogError

from .plan import Done, Failed, Job

GRACE = 10.0
"""Seconds between asking a process to end and killing it."""

_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class Services:
    """The lake's committer and mirror as processes of their own, for as long as the `with` block lasts."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for name in ("committer", "mirror"):
            with self._log(name).open("wb") as log:
                self._running[name] = _start(["deltalakedb", name, "run"], self._environment, out=log, err=log)
        return self

    def check(self) -> None:
        """Raise `TxnLogError` with the end of its log if a service has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                lines = self._log(name).read_text(errors="replace").splitlines()[-10:]
                raise TxnLogError(
                    f"the {name} ended with exit code {process.returncode}; its log ends with\n" + "\n".join(lines)
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._running.values())

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


class Clients:
    """Client processes, for as long as the `with` block lasts: started early, given work when it is there."""

    def __init__(self, environment: Mapping[str, str], count: int) -> None:
        self._environment = environment
        self._count = count
        self._running: list[subprocess.Popen[bytes]] = []
        self._attending: list[threading.Thread] = []
        self._told: queue.SimpleQueue[Done | Failed | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        for _ in range(self._count):
            process = _start(["deltalakedb.demo.client"], self._environment, out=subprocess.PIPE, feed=subprocess.PIPE)
            self._running.append(process)
        return self

    def do(self, jobs: Sequence[Job], every: float) -> Iterator[Done | None]:
        """Give each process its job, and yield what they tell as it comes; None whenever `every` seconds passed.

        Ends when all have ended. Raises `TxnLogError` if one could not go on.
        """
        for job, process in zip(jobs, self._running, strict=True):
            thread = threading.Thread(
                target=self._attend, args=(job, process), name=f"client-{job.client}", daemon=True
            )
            self._attending.append(thread)
            thread.start()
        working = len(self._running)
        tick = time.monotonic() + every
        while working:
            patience = tick - time.monotonic()
            if patience <= 0:
                tick += every - patience
                yield None
                continue
            try:
                told = self._told.get(timeout=patience)
            except queue.Empty:
                continue
            if told is None:
                working -= 1
            elif isinstance(told, Failed):
                raise TxnLogError(f"a client process could not go on: {told.message}")
            else:
                yield told

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._running)
        for thread in self._attending:
            thread.join()
        for process in self._running:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not sent has nobody left to read it
                        pipe.close()

    def _attend(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as feed:
                feed.write(msgspec.json.encode(job))
            steps = 0
            with process.stdout as out:
                for line in out:
                    told = msgspec.json.decode(line, type=Done | Failed)
                    steps += isinstance(told, Done)
                    self._told.put(told)
            if process.wait() or steps != len(job.steps):
                what = f"ended with exit code {process.returncode} after {steps} of {len(job.steps)} steps"
                self._told.put(Failed(message=f"client {job.client} {what}"))
        except (OSError, ValueError) as error:
            self._told.put(Failed(message=f"client {job.client}: {error}"))
        self._told.put(None)


def _start(
    module: Sequence[str],
    environment: Mapping[str, str],
    *,
    out: int | IO[bytes],
    err: int | IO[bytes] | None = None,
    feed: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    # A group of its own: Ctrl-C in the terminal is for the demo alone, which then ends its children in order.
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        env=dict(environment),
        process_group=0,
        preexec_fn=None if _PRCTL is None else _end_with_parent,
        stdin=feed,
        stdout=out,
        stderr=err,
    )


def _end_with_parent() -> None:
    """In the child: a SIGTERM when the demo is gone without having stopped it. Nothing is imported or opened here."""
    assert _PRCTL is not None
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """End processes: ask all, then kill those that are still there after `GRACE` seconds."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
