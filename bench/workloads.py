"""Our own clients doing the two-table append: with add actions ready (`commit`), or with rows (`append`)."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tests.pipeline import LakeAddress

from . import data

if TYPE_CHECKING:
    from deltalakedb import Lake, Transaction

Kind = Literal["commit", "append"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTableAppend:
    """One file, or its rows, to each table of a pair; transactions of one client go round the pairs."""

    address: LakeAddress
    kind: Kind
    pairs: tuple[data.Pair, ...]

    def open(self, number: int) -> _Client:
        return _Client(self, self.address.connect(), number)


class _Client:
    def __init__(self, workload: TwoTableAppend, lake: Lake, number: int) -> None:
        self._kind = workload.kind
        self._pairs = workload.pairs
        self._lake = lake
        self._number = number

    def transact(self, number: int) -> None:
        self._staged(number).commit()

    def submit(self, number: int) -> Future[Any]:
        return self._staged(number).commit_async()

    def close(self) -> None:
        self._lake.close()

    def _staged(self, number: int) -> Transaction:
        pair = self._pairs[(self._number + number) % len(self._pairs)]
        tx = self._lake.begin()
        if self._kind == "append":
            batch = data.rows(self._number, number)
            for table in pair.tables:
                tx.stage_table(table, batch)
        else:
            statistics = data.statistics(self._number, number)
            for table in pair.tables:
                tx.stage_table(table, actions=[_add(statistics)])
        return tx


def create_tables(lake: Lake, pairs: tuple[data.Pair, ...]) -> None:
    """Makes the tables of all pairs, empty, one transaction per pair."""
    for pair in pairs:
        with lake.begin() as tx:
            for table in pair.tables:
                tx.create_table(table, data.SCHEMA)


def _add(statistics: str) -> dict[str, Any]:
    return {
        "add": {
            "path": f"part-00000-{uuid.uuid4()}-c000.snappy.parquet",
            "partitionValues": {},
            "size": 1500,
            "modificationTime": int(time.time() * 1000),
            "dataChange": True,
            "stats": statistics,
        }
    }
