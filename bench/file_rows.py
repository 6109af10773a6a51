"""Rows of files into and out of each store, over the committer's one connection: what bounds imports and big transactions."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from deltalakedb.database import StoreAddress, open_database
from deltalakedb_committer.deciding.needs import Needs, TableNeeds
from deltalakedb_committer.storing.columns import COLUMNS
from deltalakedb_committer.storing.rows import Batch
from deltalakedb_committer.storing.store import Cursor, SqlCommitStore
from tests.direct import DirectCommitter, create, load_state, made
from tests.stores import migrated

from . import data

TABLE = "files"
INSERTED = 300_000
REMOVED = 50_000
BATCH = 10_000
"""Rows per SQL transaction."""
_DAYS = 100
_LIVE = COLUMNS["dl_live_files"]
_REMOVE = COLUMNS["dl_remove_files"]


class Rates(NamedTuple):
    """Rows per second."""

    inserted: float
    removed: float
    """By path: looked up, moved to the past, and a remove row for each."""


def measured(address: StoreAddress) -> Rates:
    """Both rates in a new store at `address`."""
    migrated(address).close()
    with closing(open_database(address, by_key=True)) as database:
        store = made(database)
        DirectCommitter(store).commit(create(TABLE, partition_by=("day",)))
        files = _files()
        gc.freeze()  # a committer never holds so many rows for the collector to walk over
        seconds = [_timed(store, batch) for batch in _inserts(files)]
        paths = [str(row[_LIVE.index("path")]) for row in random.Random(1).sample(files, REMOVED)]
        removing = [_remove(store, paths[start : start + BATCH], start) for start in range(0, REMOVED, BATCH)]
    return Rates(INSERTED / sum(seconds), REMOVED / sum(removing))


def _files() -> list[tuple[Any, ...]]:
    """Rows of `dl_live_files`, one version for each batch."""
    texts = data.many_statistics(0)
    rows = []
    for number in range(INSERTED):
        version, n = divmod(number, BATCH)
        row: dict[str, Any] = {
            "table_no": 1,
            "version": version + 1,
            "n": n,
            "path": f"part-{number:05}-{number * 7919 % 10**12:012}-c000.snappy.parquet",
            "dv_id": "",
            "partition_values": f'{{"day":"{number % _DAYS}"}}',
            "size": 1_000_000 + number,
            "modification_time": 1_700_000_000_000 + number,
            "data_change": True,
            "stats": texts[number % len(texts)],
            "num_records": 100,
            **{f"{end}{slot}": number * slot for slot in (1, 2) for end in ("min", "max")},
        }
        rows.append(tuple(map(row.get, _LIVE)))
    return rows


def _inserts(files: list[tuple[Any, ...]]) -> Iterator[Batch]:
    for start in range(0, INSERTED, BATCH):
        batch = Batch()
        batch.inserts["dl_live_files"] = files[start : start + BATCH]
        yield batch


def _timed(store: SqlCommitStore, batch: Batch) -> float:
    cursor = store.cursor()
    began = time.perf_counter()
    store.write(cursor, batch, _next(cursor))
    return time.perf_counter() - began


def _remove(store: SqlCommitStore, paths: list[str], version: int) -> float:
    """Seconds that one version with these removes takes."""
    cursor = store.cursor()
    state = load_state(store, cursor)
    needs = Needs(tables={(None, TABLE): TableNeeds(paths=set(paths))})
    removed_version = INSERTED + version
    batch = Batch()
    for n, path in enumerate(paths):
        row: dict[str, Any] = {
            "table_no": 1, "version": removed_version, "n": n, "path": path, "dv_id": "", "data_change": True,
            "deletion_timestamp": 1_700_000_000_000,
        }  # fmt: skip
        batch.inserts["dl_remove_files"].append(tuple(map(row.get, _REMOVE)))
    began = time.perf_counter()
    store.load(needs, state)
    files = state.tables[1].files
    batch.superseded = [(1, files[path, ""].version, files[path, ""].n, removed_version) for path in paths]
    store.write(cursor, batch, _next(cursor))
    return time.perf_counter() - began


def _next(cursor: Cursor) -> Cursor:
    return replace(cursor, position=cursor.position + 1)
