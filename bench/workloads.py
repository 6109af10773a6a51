"""Our own clients doing the two-table append: with add actions ready (`commit`), or with rows (`append`)."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from deltalakedb.actions import AddFile
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
    """What it stages is made beforehand, but for what no two transactions may share: what is measured is the library."""

    def __init__(self, workload: TwoTableAppend, lake: Lake, number: int) -> None:
        self._pairs = workload.pairs
        self._lake = lake
        self._number = number
        self._files = f"part-{number:05}-{uuid.uuid4()}"
        self._statistics = data.many_statistics(number) if workload.kind == "commit" else []
        self._rows = data.many_rows(number) if workload.kind == "append" else []

    def transact(self, number: int) -> None:
        self._staged(number).commit()

    def submit(self, number: int) -> Future[Any]:
        return self._staged(number).commit_async()

    def close(self) -> None:
        self._lake.close()

    def _staged(self, number: int) -> Transaction:
        pair = self._pairs[(self._number + number) % len(self._pairs)]
        tx = self._lake.begin()
        for table in pair.tables:
            if self._rows:
                tx.stage_table(table, self._rows[number % data.SAMPLES])
            else:
                tx.stage_table(table, actions=[self._add(number)])
        return tx

    def _add(self, number: int) -> AddFile:
        return AddFile(
            path=f"{self._files}-{number}.snappy.parquet",
            partition_values={},
            size=1500,
            modification_time=int(time.time() * 1000),
            stats=self._statistics[number % data.SAMPLES],
        )


def create_tables(lake: Lake, pairs: tuple[data.Pair, ...]) -> None:
    """Makes the tables of all pairs, empty, one transaction per pair."""
    for pair in pairs:
        with lake.begin() as tx:
            for table in pair.tables:
                tx.create_table(table, data.SCHEMA)
