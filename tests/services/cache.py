"""Where the fetched services lie on this machine: one folder per version, shared by every clone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.services.process import ServiceUnavailable

VERSITYGW = "v1.8.0"
JAVA = Path(__file__).parent / "java"
POMS = ("pom.xml", "delta/pom.xml", "kafka/pom.xml", "s3a/pom.xml")


def root() -> Path:
    """The project's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltalakedb"


def folder() -> Path:
    """The folder of exactly these versions; it is there if and only if it is complete."""
    versions = hashlib.sha256(VERSITYGW.encode())
    for pom in POMS:
        versions.update((JAVA / pom).read_bytes())
    return root() / f"services-{versions.hexdigest()[:16]}"


def fetched(name: str) -> Path:
    """A file or folder of the cache, such as ``bin/versitygw``.

    Raises:
        ServiceUnavailable: nothing was fetched for these versions yet.
    """
    found = folder() / name
    if not found.exists():
        raise ServiceUnavailable(f"{found} is not there: run `make services` to fetch the test services.")
    return found


def jars(module: str) -> list[str]:
    """The jars of one Maven module (kafka, delta, s3a), in a fixed order.

    Raises:
        ServiceUnavailable: nothing was fetched for these versions yet.
    """
    return sorted(str(jar) for jar in fetched(f"jars/{module}").glob("*.jar"))
