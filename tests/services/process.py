"""One server process: reserved port, start, readiness, stop, SIGKILL; the servers themselves derive from it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServiceUnavailable(Exception):
    """A test service cannot be had; the message says what to set, install or start."""


def reserve_port() -> socket.socket:
    """A socket that holds a free loopback port without listening on it.

    A server that sets SO_REUSEADDR may listen on the port all the same, while the kernel gives it to nobody else.
    So the port is still the server's after a SIGKILL, when its clients keep connecting from ephemeral ports, one of
    which would sooner or later be this very port and connect to itself.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def port_of(holder: socket.socket) -> int:
    port = holder.getsockname()[1]
    assert isinstance(port, int)
    return port


class Server(ABC):
    """A server in a folder of its own, which may be killed and started again on the same port and data.

    The process ends with the thread that started it (where ``setpriv`` is at hand), so that not even a SIGKILL of
    the test run leaves it behind: start servers from a thread that lives as long as they are needed.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # Ends it for good, when its data are thrown away anyway.
    close_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"deltalakedb-{self.name}-"))
        self._port = reserve_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return port_of(self._port)

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The command line of the server; called at every start."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server answers a client; may take up to a second."""

    def environment(self) -> dict[str, str] | None:
        """The whole environment of the process; None inherits ours."""
        return None

    def user(self) -> int | None:
        """User and group id to run as; None is ours."""
        return None

    def start(self) -> None:
        """Starts the server and returns when it answers; a second call while it runs does nothing.

        Raises:
            ServiceUnavailable: it ended or did not answer within a minute; the message ends with its log.
        """
        if self._process is not None:
            return
        command = [*_end_with_parent(self.stop_signal), *self.command()]
        user = self.user()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                # Ctrl-C goes to the whole process group; the servers are stopped by us, after the tests.
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if (status := self._process.poll()) is not None:
                self._process = None
                raise ServiceUnavailable(f"{self.name} ended with status {status} at its start:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceUnavailable(
                    f"{self.name} did not answer within {START_SECONDS:.0f} s:\n{self._last_lines()}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends the server as an operator would; after 20 s with SIGKILL."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL to the server and to every process it started; returns when all are gone."""
        if self._process is None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.kill()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()
        self._process = None
        while any(_alive(child) for child in children):
            time.sleep(0.005)

    def close(self) -> None:
        """Stops the server for good, gives its port back and removes its folder."""
        self._end(self.close_signal)
        self._port.close()
        # Not awaited: where a disk discards what is deleted, it takes seconds.
        subprocess.run(["/bin/sh", "-c", 'rm -rf "$0" &', self.folder], check=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if how is signal.SIGKILL:
            self.kill()
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-30:]) or "(it logged nothing)"


def _alive(process: psutil.Process) -> bool:
    try:
        # An orphan stays a zombie until init cares for it, but holds nothing any more.
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end_with_parent(stop: signal.Signals) -> list[str]:
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", stop.name.removeprefix("SIG"), "--"] if setpriv else []
