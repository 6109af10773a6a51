"""A client process of the embedded tests: `python -m tests.integration.embedded_client LAKE NUMBER COUNT [IN_FLIGHT]`
commits COUNT two-table transactions to the lake, so many at a time, and prints the key of each once it is acknowledged."""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import Future

import pyarrow as pa

import deltalakedb
from deltalakedb import Result

TABLES = ("left", "right")


def main(uri: str, number: int, count: int, in_flight: int = 1) -> None:
    under_way: deque[tuple[str, Future[Result]]] = deque()
    with deltalakedb.connect(uri) as lake:
        for turn in range(count):
            if len(under_way) == in_flight:
                _acknowledge(*under_way.popleft())
            key = f"{number}-{turn}"
            tx = lake.begin()
            for table in TABLES:
                tx.stage_table(table, pa.table({"key": [key], "client": [number]}))
            under_way.append((key, tx.commit_async()))
        while under_way:
            _acknowledge(*under_way.popleft())


def _acknowledge(key: str, future: Future[Result]) -> None:
    future.result()
    sys.stdout.write(f"{key}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
