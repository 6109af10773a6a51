"""A client process of the fault test: keeps two-table transactions in flight until told to stop, and never retries.

Usage: `python -m tests.integration.pipeline_client NUMBER IN_FLIGHT STOP_FILE LEDGER`. Each transaction appends one row
with the same key to two tables. The ledger gets one JSON line per transaction begun and one per answer.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa

import deltalakedb

TABLES = ("left", "right")
PATIENCE = 120.0
"""Seconds that an answer may take: the services are down for several of them, again and again."""


def main(number: int, in_flight: int, stop_file: Path, ledger: Path) -> None:
    with deltalakedb.connect() as lake, ledger.open("a", buffering=1) as out:
        under_way: deque[tuple[str, Future[deltalakedb.Result]]] = deque()

        def settle() -> None:
            key, future = under_way.popleft()
            result = future.result(PATIENCE)
            out.write(json.dumps({"committed": key, "seq": result.commit_seq, "versions": result.versions}) + "\n")

        count = 0
        while not stop_file.exists():
            key = f"{number}-{count}"
            out.write(json.dumps({"begun": key}) + "\n")
            tx = lake.begin(timeout=PATIENCE)
            for table in TABLES:
                tx.stage_table(table, pa.table({"key": [key], "client": [number], "count": [count]}))
            under_way.append((key, tx.commit_async()))
            count += 1
            if len(under_way) >= in_flight:
                settle()
        while under_way:
            settle()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
