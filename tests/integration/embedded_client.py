"""A client process of the embedded tests: `python -m tests.integration.embedded_client DIRECTORY NUMBER COUNT` commits
COUNT two-table transactions to the lake, one after the other, and prints the key of each once it is acknowledged."""

from __future__ import annotations

import sys

import pyarrow as pa

import deltalakedb

TABLES = ("left", "right")


def main(directory: str, number: int, count: int) -> None:
    with deltalakedb.connect(directory) as lake:
        for turn in range(count):
            key = f"{number}-{turn}"
            with lake.begin() as tx:
                for table in TABLES:
                    tx.stage_table(table, pa.table({"key": [key], "client": [number]}))
            sys.stdout.write(f"{key}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
