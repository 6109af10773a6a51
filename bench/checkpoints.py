"""Checkpoints of a table with a million files: ours from SQL, and delta-rs's own of the log that we published.

Both work in a process of their own, whose peak memory is theirs alone.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from deltalakedb.actions import AddFile
from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool, StoreAddress, open_database
from deltalakedb.events import Content
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker.checkpoint import checkpoint
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from tests.lakes import FilledLake, append, create, local_path

from . import data

TABLE = "wide"
_SCHEMA = (
    '{"type":"struct","fields":['
    + ",".join(
        f'{{"name":"{name}","type":"{kind}","nullable":true,"metadata":{{}}}}'
        for name, kind in (
            ("id", "long"),
            ("customer", "string"),
            ("amount", "double"),
            ("at", "timestamp"),
            ("day", "string"),
        )
    )
    + "]}"
)
_PER_COMMIT = 1_500
_AT_ONCE = 20
_DAYS = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """What one checkpoint took."""

    seconds: float
    peak_bytes: int


def fill(address: StoreAddress, folder: Path, files: int) -> str:
    """Make a lake with one published table of that many files in a hundred partitions; the table's location."""
    root = (folder / "tables").as_uri()
    with FilledLake(address, folder, root) as lake:
        lake.commit(create(TABLE, schema=_SCHEMA, partition_by=("day",)))
        starts = range(0, files, _PER_COMMIT)
        contents = [
            Content(tables=(append(TABLE, *_adds(start, min(files, start + _PER_COMMIT))),)) for start in starts
        ]
        for begin in range(0, len(contents), _AT_ONCE):
            for outcome in lake.decide(contents[begin : begin + _AT_ONCE]):
                assert outcome.committed is not None, outcome.rejected
    pool = Pool(lambda: open_database(address))
    mirror = Mirror(pool, open_object_store)
    while mirror.step().versions_behind:
        pass
    mirror.close()
    pool.close()
    return f"{root}/{TABLE}"


def copied(location: str, folder: Path) -> str:
    """A copy of the table's log as it is now; its location."""
    copy = folder / "copy" / TABLE
    shutil.copytree(local_path(location), copy)
    return copy.as_uri()


def ours(address: StoreAddress, location: str) -> Cost:
    """A checkpoint as the mirror makes it: from SQL, verified, published, named."""
    return _alone(_ours, address, location)


def delta_rs(location: str) -> Cost:
    """delta-rs opens the table and makes a checkpoint of it. It opens it faster where one is there already."""
    return _alone(_delta_rs, str(local_path(location)))


def _ours(address: StoreAddress, location: str) -> None:
    pool = Pool(lambda: open_database(address, by_key=True))
    folder, name = location.rsplit("/", 1)
    with pool.connection() as db:
        table = Catalog(db).table(name)
        assert checkpoint(db, Place(open_object_store(folder), name), table.table_id, table.version)
    pool.close()


def _delta_rs(path: str) -> None:
    DeltaTable(path).create_checkpoint()


def _alone(work: Callable[..., None], *arguments: Any) -> Cost:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, work, *arguments))
    process.start()
    sender.close()
    try:
        cost = receiver.recv()
    finally:
        process.join()
    assert isinstance(cost, Cost)
    return cost


def _measured(sender: Any, work: Callable[..., None], *arguments: Any) -> None:
    began = time.monotonic()
    work(*arguments)
    seconds = time.monotonic() - began
    # Not getrusage, whose peak a process takes over from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    sender.send(Cost(seconds, int(peak.split()[1]) * 1024))
    sender.close()


def _adds(first: int, last: int) -> list[AddFile]:
    return [
        AddFile(
            path=f"day={n % _DAYS:03}/part-{n:08}-2f6f0a6e-7f0b-4a4e-8c0b-3d5f6a7b8c9d.c000.snappy.parquet",
            partition_values={"day": f"{n % _DAYS:03}"},
            size=1_500 + n,
            modification_time=1_700_000_000_000 + n,
            stats=data.statistics(0, n),
        )
        for n in range(first, last)
    ]
