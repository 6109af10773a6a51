"""What a commit costs in a lake that holds little and in one that holds much: by the committer's store, on Postgres."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import NamedTuple

import msgspec

from deltalakedb.actions import RemoveFile
from deltalakedb.database import Database, StoreAddress
from deltalakedb.events import StagedTransaction, TableWork, WrittenAgainst
from deltalakedb.ids import new_txn_id
from deltalakedb_committer.deciding.decisions import Commit
from tests.direct import DirectCommitter, add, create, made, staged
from tests.stores import migrated

from . import data

VERSIONS = (1_000, 1_000_000)
"""Of both tables together, in the small lake and in the large one."""
FILES = (10, 10_000_000)
BATCHES = 150
BATCH = 20
"""Transactions per SQL transaction."""
_WARM_UP = 10
_PAIR = data.Pair("orders", "items")
_STATS = """'{"numRecords":10,"minValues":{"id":0,"text":"a"},"maxValues":{"id":9,"text":"z"}}'"""

Fill = Callable[[Database, int], None]
"""Makes a lake of the two tables larger by so many versions, or files, of both together."""


class Costs(NamedTuple):
    """Seconds per transaction, medians over batches."""

    small: float
    large: float

    @property
    def growth(self) -> float:
        """How many times as much a transaction costs in the large lake."""
        return self.large / self.small


def measured(small: tuple[StoreAddress, int], large: tuple[StoreAddress, int], fill: Fill) -> Costs:
    """Costs in two new stores, each filled to its size; by turns, so that whatever else the machine does hits both."""
    with ExitStack() as stack:
        lakes = []
        for address, size in (small, large):
            database = stack.enter_context(closing(migrated(address)))
            lakes.append(_Lake(database, size, fill))
        for _ in range(_WARM_UP + BATCHES):
            for lake in lakes:
                lake.step()
    return Costs(*(statistics.median(lake.seconds[_WARM_UP:]) / BATCH for lake in lakes))


class _Lake:
    """Each transaction adds a file to both tables and removes the one that came to the first table before."""

    def __init__(self, database: Database, size: int, fill: Fill) -> None:
        store = made(database)
        DirectCommitter(store).commit(*(create(table, add(f"{table}.parquet")) for table in _PAIR.tables))
        fill(database, size)
        for table in ("commits", "transactions", "table_versions", "live_files", "past_files"):
            database.execute(f"VACUUM (ANALYZE) dl_{table}")
        database.execute("CHECKPOINT")
        self._committer = DirectCommitter(store)
        self._newest = f"{_PAIR.orders}.parquet"
        self._number = 0
        self.seconds: list[float] = []
        """Of every batch."""

    def step(self) -> None:
        """Commit one batch."""
        events = [self._transaction() for _ in range(BATCH)]
        published = self._committer.cursor.position
        began = time.perf_counter()
        decisions = self._committer.apply(events, published=published)
        self.seconds.append(time.perf_counter() - began)
        assert all(isinstance(decision, Commit) for decision in decisions), decisions

    def _transaction(self) -> StagedTransaction:
        self._number += 1
        paths = [f"part-{self._number:05}-{new_txn_id()}.parquet" for _ in _PAIR.tables]
        works = [
            TableWork(name=table, written_against=WrittenAgainst(0, 0), adds=(add(path),))
            for table, path in zip(_PAIR.tables, paths, strict=True)
        ]
        works[0] = msgspec.structs.replace(works[0], removes=(RemoveFile(path=self._newest),))
        self._newest = paths[0]
        return staged(*works, txn_id=new_txn_id())


def versions(database: Database, count: int) -> None:
    """`count` versions of both tables together: each has added a file and removed the one of the version before."""
    commits = count // 2
    _run(
        database,
        "INSERT INTO dl_commits SELECT i + 1, i, 1700000000000 + i, '[]' FROM generate_series(1, {n}) AS i",
        "INSERT INTO dl_transactions (txn_id, position, time_ms, client_id, digest, committed, commit_seq, outcome) "
        "SELECT '01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'), i, 1700000000000 + i, 'client', "
        "decode(md5(i::TEXT), 'hex'), TRUE, i + 1, '{}' FROM generate_series(1, {n}) AS i",
        "INSERT INTO dl_table_versions (table_no, version, commit_seq, time_ms, txn_id, operation, "
        "operation_parameters, operation_metrics, is_blind_append, render_version, changes_data, changes_metadata, "
        "changes_protocol, added_files, added_bytes, removed_files, removed_bytes) SELECT t, i, i + 1, "
        "1700000000000 + i, '01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'), 'WRITE', '{}', '{}', FALSE, 1, "
        "TRUE, FALSE, FALSE, 1, 1000, 1, 1000 FROM generate_series(1, {n}) AS i CROSS JOIN generate_series(1, 2) AS t",
        "INSERT INTO dl_past_files (table_no, version, n, path, dv_id, partition_no, size, modification_time, "
        f"data_change, stats, num_records, removed_version) SELECT t, i, 0, md5(t * 1e9 + i || '') || '.parquet', '', "
        f"0, 1000, 0, TRUE, {_STATS}, 10, i + 1 "
        "FROM generate_series(1, {n}) AS i CROSS JOIN generate_series(1, 2) AS t",
        "UPDATE dl_table_heads SET version = {n}, commit_seq = {n} + 1, time_ms = 1700000000000 + {n}",
        "UPDATE dl_committer_position SET position = {n} + 1, published_position = {n} + 1, commit_seq = {n} + 1, "
        "time_ms = 1700000000000 + {n}",
        n=commits,
    )


def files(database: Database, count: int) -> None:
    """`count` live files of both tables together, all of one version."""
    _run(
        database,
        "INSERT INTO dl_live_files (table_no, version, n, path, dv_id, partition_no, size, modification_time, "
        f"data_change, stats, num_records, min1, max1) SELECT t, 0, i, md5(t * 1e9 + i || '') || '.parquet', '', 0, "
        f"1000, 0, TRUE, {_STATS}, 10, 0, 9 "
        "FROM generate_series(1, {n}) AS i CROSS JOIN generate_series(1, 2) AS t",
        "UPDATE dl_table_heads SET live_files = live_files + {n}, live_bytes = live_bytes + {n} * 1000::BIGINT",
        n=count // 2,
    )


def _run(database: Database, *statements: str, n: int) -> None:
    """Run statements that write much: indexes that no key rests on are made when the rows are there."""
    tables = [statement.split()[2] for statement in statements if statement.startswith("INSERT")]
    indexes = database.query(
        "SELECT i.indexname, i.indexdef FROM pg_indexes i WHERE i.schemaname = current_schema() "
        "AND i.tablename = ANY(?) AND i.indexname NOT LIKE '%_pkey'",
        [tables],
    )
    with database.transaction():
        database.submit("SET LOCAL statement_timeout = 0")
        database.submit("SET LOCAL maintenance_work_mem = '256MB'")
        database.script(";".join(f"DROP INDEX {name}" for name, _ in indexes))
        for statement in statements:
            database.script(statement.replace("{n}", str(n)))
        database.script(";".join(definition for _, definition in indexes))
