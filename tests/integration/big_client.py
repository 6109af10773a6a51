"""A client process that adds many files to many tables in one transaction.

Usage: `python -m tests.integration.big_client FILES TABLE...`. Every table gets its share; the lake is that of the
environment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import deltalakedb
from deltalakedb.actions import AddFile

PATIENCE = 300.0
"""Seconds that nothing may go on: a committer is killed meanwhile."""


def main(files: int, tables: Sequence[str]) -> None:
    with deltalakedb.connect() as lake:
        tx = lake.begin(timeout=PATIENCE)
        for number, table in enumerate(tables):
            tx.stage_table(table, actions=[_add(tx.txn_id, n) for n in range(number, files, len(tables))])
        tx.commit()


def _add(txn_id: str, number: int) -> AddFile:
    return AddFile(
        path=f"part-{txn_id}-{number:07}.c000.snappy.parquet",
        partition_values={},
        size=1_000,
        modification_time=1_700_000_000_000,
        stats=f'{{"numRecords":10,"minValues":{{"id":{number}}},"maxValues":{{"id":{number + 9}}},"nullCount":{{"id":0}}}}',
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
