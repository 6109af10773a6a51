"""The system's own tools that fetching and running the services takes: Java, Maven, Go.

Runs before anything is installed (``python3 -m tests.services.tools``), so it knows the standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_JAVA = 17
OLDEST_GO = (1, 25)


def java() -> str | None:
    """The Java that Spark and Kafka will run on, JAVA_HOME's first; None if there is none or it is too old."""
    home = os.environ.get("JAVA_HOME")
    candidate = str(Path(home, "bin", "java")) if home else shutil.which("java")
    version = _output([candidate, "-version"]) if candidate else ""
    found = re.search(r'version "(\d+)', version)
    return candidate if found and int(found[1]) >= OLDEST_JAVA else None


def maven() -> str | None:
    """The ``mvn`` program, or None."""
    return shutil.which("mvn")


def go() -> str | None:
    """A Go toolchain that builds the S3 gateway, or None."""
    candidate = shutil.which("go")
    # GOTOOLCHAIN=local: what is installed, not what it would download.
    version = _output([candidate, "version"], GOTOOLCHAIN="local") if candidate else ""
    found = re.search(r"go(\d+)\.(\d+)", version)
    return candidate if found and (int(found[1]), int(found[2])) >= OLDEST_GO else None


def missing() -> list[str]:
    """What has to be installed by hand or by apt-get, in words."""
    wanted = {f"Java {OLDEST_JAVA} or newer": java(), "Maven (mvn)": maven()}
    return [what for what, found in wanted.items() if found is None]


def install() -> None:
    """Installs what is missing with apt-get, where there is one and we are root.

    Raises:
        SystemExit: something is still missing; the message says what.
    """
    if not missing():
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        print(f"installing with apt-get: {', '.join(missing())}", file=sys.stderr, flush=True)  # noqa: T201
        apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*apt, "update"], env=environment, stdout=sys.stderr)
        packages = ([] if java() else [_jre_package()]) + ([] if maven() else ["maven"])
        subprocess.run([*apt, "install", "--no-install-recommends", *packages], env=environment, stdout=sys.stderr)
    if still := missing():
        home = os.environ.get("JAVA_HOME")
        raise SystemExit(
            f"missing: {' and '.join(still)}. Install it"
            + (f" (JAVA_HOME is {home})" if home and java() is None else "")
            + ", for example on Debian or Ubuntu: sudo apt-get install openjdk-17-jre-headless maven"
        )


def _jre_package() -> str:
    """The oldest Java package that will do: newer ones are less tried with Spark."""
    for version in (17, 21):
        package = f"openjdk-{version}-jre-headless"
        if "Candidate: (none)" not in (policy := _output(["apt-cache", "policy", package])) and policy:
            return package
    return "default-jre-headless"


def _output(command: list[str], **environment: str) -> str:
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout + done.stderr


if __name__ == "__main__":
    install()
