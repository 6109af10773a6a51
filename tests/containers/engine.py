"""A container engine for the tests: the machine's own, or one that is started here, beside it and on loopback only.

`python -m tests.containers.engine start` installs what is missing where it can, and leaves an engine running; `stop` ends
the one that was started, `remove` also deletes all that it kept. Everything lies in one folder of the project's cache.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.services import cache
from tests.services.process import ServiceUnavailable

_logger = logging.getLogger(__name__)

PACKAGES = {"dockerd": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}
PLUGINS = {"docker-compose": "docker-compose", "docker-buildx": "docker-buildx"}
"""Of the engine's client, by Debian's package. Debian 12 has neither; Debian 13's run there as they are."""
_PLUGIN_SUITE = "trixie"
START_SECONDS = 180.0
STOP_SECONDS = 60.0
_INSTEAD = "start one, with its compose and buildx plugins, and set DOCKER_HOST if it is not the default"


def folder() -> Path:
    """Where the engine that is started here has its socket, images and plugins."""
    return cache.root() / "containers"


def environment() -> dict[str, str]:
    """What the engine's clients need in their environment, beside what is in ours.

    Raises:
        ServiceUnavailable: no engine answers; the message says what to do.
    """
    if _answers(os.environ) and _has_plugins(os.environ):
        return {}
    own = _own_environment()
    if _answers({**os.environ, **own}):
        return own
    raise ServiceUnavailable("no container engine answers: run `make images`, which starts one, or start your own.")


def docker(*arguments: str | Path, **environment_too: str) -> str:
    """Output of a command of the engine's client.

    Raises:
        ServiceUnavailable: no engine answers.
        subprocess.CalledProcessError: the command failed; its own output has been shown.
    """
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        env={**os.environ, **environment(), **environment_too},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
    return done.stdout


def start() -> None:
    """Leaves an engine running that `environment` finds.

    Raises:
        SystemExit: there is none, and none can be had here.
    """
    try:
        environment()
    except ServiceUnavailable:
        _install()
        _start_own()


def stop() -> None:
    """Ends the engine that was started here, with all its containers; gives the network back as it was."""
    pid_file = folder() / "dockerd.pid"
    if not pid_file.exists():
        return
    # It ends its containers and their runtime with it. What it left behind when it was killed ends here.
    for program, file in (("dockerd", pid_file), ("containerd", folder() / "run" / "containerd" / "containerd.pid")):
        try:
            process = psutil.Process(int(file.read_text()))
            if process.name() != program:
                continue
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        except (OSError, psutil.NoSuchProcess):
            continue
    # The engine turns forwarding on and leaves it so, with a policy that drops what is not its own.
    subprocess.run(["iptables", "-P", "FORWARD", "ACCEPT"], stderr=subprocess.DEVNULL)
    forwarding = folder() / "ip_forward"
    if forwarding.exists():
        Path("/proc/sys/net/ipv4/ip_forward").write_text(forwarding.read_text())
    pid_file.unlink(missing_ok=True)


def remove() -> None:
    """Deletes the images and containers of the engine that was started here, and itself."""
    stop()
    shutil.rmtree(folder(), ignore_errors=True)


def _install() -> None:
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    apt = shutil.which("apt-get") is not None and os.geteuid() == 0
    if missing and apt:
        _logger.info("installing with apt-get: %s", ", ".join(missing))
        apt_get = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
        for words in (["update"], ["install", "--no-install-recommends", *missing]):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run([*apt_get, *words], env=quiet, stdout=sys.stderr)
    still = [program for program in PACKAGES if shutil.which(program) is None]
    if still or not apt:
        raise SystemExit(
            f"a container engine cannot be started here (missing: {', '.join(still) or 'root, or apt-get'}): {_INSTEAD}"
        )
    if not _has_plugins({**os.environ, **_own_environment()}):
        _fetch_plugins()


def _fetch_plugins() -> None:
    """Takes the client's plugins from the newer Debian's packages, without installing them or touching apt's sources."""
    scratch = folder() / "apt"
    plugins = folder() / "client" / "cli-plugins"
    for made in (scratch / "lists" / "partial", scratch / "archives" / "partial", plugins):
        made.mkdir(parents=True, exist_ok=True)
    sources = scratch / "sources.list"
    sources.write_text(f"deb [signed-by={_keyring()}] {mirror()} {_PLUGIN_SUITE} main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    subprocess.run([*apt, "update"], check=True, stdout=sys.stderr)
    subprocess.run([*apt, "download", *PLUGINS], check=True, stdout=sys.stderr, cwd=scratch)
    for package in scratch.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, scratch / "unpacked"], check=True)
    for program in PLUGINS.values():
        found = next(
            path for path in (scratch / "unpacked").rglob(program) if path.is_file() and os.access(path, os.X_OK)
        )
        shutil.copy2(found, plugins / program)
    shutil.rmtree(scratch)


def mirror() -> str:
    """The archive that this machine's apt uses for Debian. Raises `SystemExit` where it uses none."""
    listed = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in listed:
        for line in file.read_text().splitlines() if file.is_file() else ():
            words = line.replace("URIs:", "deb").split()
            found = [word for word in words if word.startswith("http") and word.rstrip("/").endswith("/debian")]
            if words and words[0] == "deb" and found:
                return found[0]
    raise SystemExit(
        "apt knows no archive of Debian here, from which the images' ingredients come: add one to its sources"
    )


def _keyring() -> str:
    return "/usr/share/keyrings/debian-archive-keyring.gpg"


def _start_own() -> None:
    here = folder()
    here.mkdir(parents=True, exist_ok=True)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    (here / "ip_forward").write_text(forwarding.read_text())
    command = [
        "dockerd",
        *(f"--data-root={here / 'data'}", f"--exec-root={here / 'run'}", f"--pidfile={here / 'dockerd.pid'}"),
        *("-H", f"unix://{here / 'docker.sock'}"),
        # What a container publishes is not to be seen from outside this machine.
        *("--ip", "127.0.0.1"),
    ]
    with (here / "dockerd.log").open("wb") as log:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while not _answers({**os.environ, **_own_environment()}):
        if engine.poll() is not None or time.monotonic() > deadline:
            said = (here / "dockerd.log").read_text()[-2000:]
            raise SystemExit(f"the container engine did not start here: {_INSTEAD}\n{said}")
        time.sleep(0.1)
    _logger.info("container engine in %s", here)


def _own_environment() -> dict[str, str]:
    here = folder()
    return {"DOCKER_HOST": f"unix://{here / 'docker.sock'}", "DOCKER_CONFIG": str(here / "client")}


def _answers(environment: Mapping[str, str]) -> bool:
    return _succeeds(["docker", "version"], environment)


def _has_plugins(environment: Mapping[str, str]) -> bool:
    return all(_succeeds(["docker", word, "version"], environment) for word in ("compose", "buildx"))


def _succeeds(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    try:
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0
    except OSError:
        return False


def inspect(name: str) -> dict[str, object]:
    """What the engine knows of a container or image.

    Raises:
        ServiceUnavailable: no engine answers.
        subprocess.CalledProcessError: there is none of that name.
    """
    (found,) = json.loads(docker("inspect", name))
    assert isinstance(found, dict)
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    {"start": start, "stop": stop, "remove": remove}[sys.argv[1]]()
