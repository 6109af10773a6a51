"""Local folders that do not outlive their process: one that is killed leaves them to the next, which removes them.

Who has a folder holds a lock on it, and the system gives that back however the process ends.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "deltalakedb-scratch-"


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """An empty folder of nobody else's for the time of the block, where the system has its temporary files.

    Raises `OSError`.
    """
    start = f"{tempfile.gettempdir()}/{_PREFIX}"
    _sweep_once(start)
    folder, descriptor = claim_folder(f"{start}{purpose}-", mode=0o700)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def claim_folder(start: str, *, mode: int = 0o777) -> tuple[str, int]:
    """A new folder whose path begins so, locked for as long as its descriptor is open here or in a process forked from
    here. Raises `OSError`."""
    while True:
        folder = f"{start}{uuid.uuid4().hex}"
        os.mkdir(folder, mode)
        # A sweeper may come before the lock.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.exists(folder):
                return folder, descriptor
            os.close(descriptor)


def sweep(start: str) -> None:
    """Remove the folders whose path begins so and whose owners are gone. Raises `OSError` if they cannot be listed."""
    base, _, name = start.rpartition("/")
    with os.scandir(base) as scan:
        folders = [entry.path for entry in scan if entry.name.startswith(name) and entry.is_dir(follow_symlinks=False)]
    for folder in folders:
        with suppress(OSError):  # another user's, or gone by now
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


_sweep_once = functools.cache(sweep)
