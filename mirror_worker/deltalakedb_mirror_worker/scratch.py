"""A local folder for files that are made or looked at before they count."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.scratch import scratch_folder


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """An empty folder for the time of the block.

    Raises `TxnLogMirrorError` where the system refuses, in the block too: a full disk passes, and others go on meanwhile.
    """
    try:
        with scratch_folder(purpose) as folder:
            yield folder
    except OSError as error:
        raise TxnLogMirrorError(
            f"no local files for a {purpose} in {tempfile.gettempdir()} (TMPDIR names another place): {error}"
        ) from error
