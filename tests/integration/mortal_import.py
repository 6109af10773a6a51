"""An import in a process that is ended at any point: what the children of `Mortuary("tests.integration.mortal_import")`
do. Others write the table at the worst moments: right before the version that takes it over, and over that version."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as _pandas  # noqa: F401 - pyarrow imports it at first use

import deltalakedb
import deltalakedb_committer.embedded as _committer  # noqa: F401 - loaded before anybody forks, as are the next ones
import deltalakedb_mirror_worker.embedded as _mirror  # noqa: F401
from deltalakedb import failpoints
from deltalakedb.deltalog.listing import list_log
from deltalakedb.importing import chunks
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import local as _local  # noqa: F401
from deltalakedb.objectstore import open_object_store
from tests.mortuary import serve

CHUNK_BYTES = 1_500
"""Versions of more bytes than this go in several events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One import."""

    lake: str
    """Directory of an embedded lake."""
    table: str
    """Folder of the table to import, as `t`."""
    report: str
    """Where the report goes, as JSON, if the import ends by itself."""
    kill_at: str | None = None
    """The failpoint at which it ends; None: it does not."""
    passes: int = 0
    """How often it passes there before."""
    rivals: tuple[str, ...] = ()
    """Files that others add, each in a commit of its own: the first one just before ours, the second one over ours."""


def _import(given: dict[str, Any]) -> int:
    work = Work(**given)
    chunks.MAX_CHUNK_BYTES = CHUNK_BYTES  # type: ignore[attr-defined]
    table = Path(work.table)
    acts: dict[str, Callable[[], None]] = {}
    if work.rivals:
        acts["cutover.claiming"] = _once(lambda: _commit(table, 1, work.rivals[0]))
        acts["cutover.claimed"] = _once(lambda: _commit(table, 0, work.rivals[1]))
    if work.kill_at is not None:
        acts[work.kill_at] = _end_after(work.passes, acts.get(work.kill_at, lambda: None))
    for place, act in acts.items():
        failpoints.arm(place, act)
    with deltalakedb.connect(work.lake) as lake:
        report = lake.import_table("t", table, grace=0)
    Path(work.report).write_bytes(msgspec.json.encode(report))
    return 0


def _end_after(passes: int, act: Callable[[], None]) -> Callable[[], None]:
    left = [passes]

    def end() -> None:
        act()
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return end


def _once(act: Callable[[], None]) -> Callable[[], None]:
    left = [act]
    return lambda: left.pop()() if left else None


def _commit(table: Path, ahead: int, file: str) -> None:
    """Add a file as a writer does that does not ask: in so many versions after the newest one."""
    version = list_log(open_object_store(str(table)), "").newest + ahead
    add = {"path": file, "size": (table / file).stat().st_size, "partitionValues": {}, "modificationTime": 1}
    lines = [{"commitInfo": {"operation": "WRITE", "engineInfo": "rival"}}, {"add": {**add, "dataChange": True}}]
    commit = table / log_path("", version)
    fresh = commit.with_suffix(".rival")
    fresh.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.replace(fresh, commit)


if __name__ == "__main__":
    serve(_import)
