"""One running stack of compose.yaml, with ports, secrets and names of its own; tests break it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.containers import engine, images
from tests.http import get
from tests.services.process import port_of, reserve_port

COMPOSE = Path(__file__).parents[2] / "compose"
PORTS = ("KAFKA_PORT", "POSTGRES_PORT", "S3_PORT", "COMMITTER_PORT", "STANDBY_PORT", "MIRROR_PORT")
UP_SECONDS = 300
SMALL_DEMO = ("--scale", "0.002", "--transactions", "40", "--clients", "2", "--namespace", "demo", "--output", "json")


class Stack:
    """The stack, from `with` to its end. Its images are inspected first and never pulled or built."""

    def __init__(self, name: str, folder: Path, *files: str) -> None:
        """`files` are those of the folder `compose`; `folder` gets the secrets."""
        self.name = name
        self.secrets = folder / "secrets"
        self._files = files
        self._environment: dict[str, str] = {}
        self._ports: dict[str, int] = {}
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        """Raises `ServiceUnavailable` if there is no engine or an image is missing."""
        subprocess.run([COMPOSE / "secrets.sh", self.secrets], check=True)
        for name in PORTS:
            # Held to the end: the engine may listen there all the same, and nobody else is given the port meanwhile.
            self._ports[name] = port_of(self._ending.enter_context(reserve_port()))
        self._environment = {
            **engine.environment(),
            **images.names(),
            **{name: str(port) for name, port in self._ports.items()},
            "SECRETS": str(self.secrets),
        }
        self._ending.callback(self.compose, "down", "--volumes", "--timeout", "5")
        try:
            self.compose("up", "--wait", "--wait-timeout", str(UP_SECONDS), "--pull", "never", "--no-build")
            for service in ("committer", "standby", "mirror"):
                assert self.inspect(service)["RestartCount"] == 0, f"{service} ended by itself"
        except (subprocess.CalledProcessError, AssertionError):
            sys.stderr.write(self.logs())
            self._ending.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stderr.write(self.logs("committer", "standby", "mirror", "migrate"))
        self._ending.close()

    def goes_on_with(self, file: Path, **environment: str) -> None:
        """Later commands also read a compose file of the tests; what runs stays as it is until it is made again."""
        self._files = (*self._files, str(file))
        self._environment |= environment

    def compose(self, *words: str) -> str:
        """Output of `docker compose` for this stack. Raises `subprocess.CalledProcessError`, its own output shown."""
        files = [word for name in self._files for word in ("-f", str(COMPOSE / name))]
        return engine.docker("compose", "-p", self.name, *files, *words, **self._environment)

    def settings(self) -> dict[str, str]:
        """What a client outside needs, as the stack itself prints it."""
        lines = self.compose("run", "--rm", "-T", "settings").splitlines()
        words = [shlex.split(line)[1] for line in lines if line.startswith("export ")]
        return dict(word.split("=", 1) for word in words)

    def program(self, *words: str) -> str:
        """Output of `deltalakedb`, run outside with what the stack prints for a client. Raises
        `subprocess.CalledProcessError`; what it says is shown."""
        command = [sys.executable, "-m", "deltalakedb", *words]
        done = subprocess.run(command, env={**os.environ, **self.settings()}, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.stderr.write(done.stdout)
            done.check_returncode()
        return done.stdout

    def secret(self, name: str) -> str:
        """One of the secrets."""
        return (self.secrets / name).read_text().strip()

    def store(self, role: str) -> str:
        """URL of the database for a role, from outside."""
        inside = self.secret(f"store-{role}").partition("?")[0]
        return inside.replace("@postgres:5432", f"@127.0.0.1:{self.port('POSTGRES_PORT')}")

    def port(self, variable: str) -> int:
        """The port on loopback that a variable of the compose file names."""
        return self._ports[variable]

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.name}-{service}-1"

    def logs(self, *services: str) -> str:
        """The end of what some services log, or all."""
        return self.compose("logs", "--no-color", "--tail", "30", *services)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        return engine.inspect(self.container(service))

    def leader(self) -> str:
        """Which of the two committers leads."""
        deadline = time.monotonic() + UP_SECONDS
        while time.monotonic() < deadline:
            for service, variable in (("committer", "COMMITTER_PORT"), ("standby", "STANDBY_PORT")):
                if 'state="WORKING"' in self.metrics(variable):
                    return service
            time.sleep(0.1)
        raise AssertionError("neither committer leads")

    def kill(self, service: str) -> None:
        """SIGKILL to the service's process, as a crash: `docker kill` would count as a stop that somebody wanted."""
        os.kill(int(self.inspect(service)["State"]["Pid"]), signal.SIGKILL)

    def stop(self, service: str) -> tuple[int, float]:
        """SIGTERM; the exit code, and the seconds that it took."""
        began = time.monotonic()
        engine.docker("stop", "--time", "30", self.container(service))
        return int(self.inspect(service)["State"]["ExitCode"]), time.monotonic() - began

    def cut(self, service: str) -> None:
        """Take the service off the network; `heal` brings it back."""
        engine.docker("network", "disconnect", f"{self.name}_default", self.container(service))

    def heal(self, service: str) -> None:
        """Bring a service back that was cut off."""
        engine.docker("network", "connect", "--alias", service, f"{self.name}_default", self.container(service))

    def metrics(self, variable: str) -> str:
        """What a service tells Prometheus; empty if it does not answer."""
        try:
            return get(self.port(variable), "/metrics")[1]
        except OSError:
            return ""
