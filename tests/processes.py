"""The services as real processes: started, killed and started again by tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class Service:
    """One `deltalakedb <verb...>` process with its log in a file."""

    def __init__(self, *verb: str, environment: Mapping[str, str], log: Path) -> None:
        self.verb = verb
        self.log = log
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.verb} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there and has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; the one before it must have ended."""
        assert not self.running
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deltalakedb", *self.verb],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        assert self.running, f"{self.verb} ended by itself:\n{self.tail()}"
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(60)

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM; the exit code. Fails if the process takes longer than `timeout` seconds."""
        assert self._process is not None
        deadline = time.monotonic() + timeout
        # What has only just been started dies of a signal that it does not handle yet.
        while self.running and not self._handles(signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout)

    def _handles(self, number: signal.Signals) -> bool:
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except FileNotFoundError:
            return False
        (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
        return bool(int(mask, 16) >> (number - 1) & 1)

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            assert self._process is not None
            self._process.kill()
            self._process.wait(60)
