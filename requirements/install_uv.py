"""Installs the pinned uv into a folder, for the Makefile: ``install_uv.py FOLDER`` makes FOLDER/bin/uv.

Knows the standard library only, and needs of Python's own installers whichever is there: ``venv`` or ``pip``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).with_name("uv.txt")


def install(folder: Path) -> None:
    """Makes the folder, or leaves it as another run made it meanwhile.

    Raises:
        SystemExit: there is no pip and no way to get it; the message says what to install.
        subprocess.CalledProcessError: pip failed, and said why.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="uv-") as scratch:
        done = Path(scratch) / "done"
        pip = _pip(Path(scratch) / "pip")
        subprocess.run(
            [*pip, "install", "-q", "--disable-pip-version-check", "--require-hashes", "--target", done, "-r", LOCK],
            check=True,
        )
        try:
            done.rename(folder)
        except OSError:
            # Two runs at once: a folder that is not empty is not replaced, and theirs is as good as ours.
            if not (folder / "bin" / "uv").exists():
                raise


def _pip(scratch: Path) -> list[str]:
    """A command line that is pip, in a throw-away environment where possible."""
    if _runs([sys.executable, "-m", "venv", str(scratch)]):
        return [str(scratch / "bin" / "python"), "-m", "pip"]
    if _runs([sys.executable, "-m", "pip", "--version"]):
        return [sys.executable, "-m", "pip"]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if shutil.which("apt-get") and os.geteuid() == 0:
        apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*apt, "update"], env=environment, stdout=sys.stderr)
        subprocess.run([*apt, "install", f"python{version}-venv"], env=environment, stdout=sys.stderr)
        if _runs([sys.executable, "-m", "venv", "--clear", str(scratch)]):
            return [str(scratch / "bin" / "python"), "-m", "pip"]
    raise SystemExit(
        f"{sys.executable} has neither venv nor pip. Install one of them, for example on Debian or Ubuntu: "
        f"sudo apt-get install python{version}-venv"
    )


def _runs(command: list[str]) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    install(Path(sys.argv[1]))
