"""The dictionary of partition values per table: files name them by number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from deltalakedb.database import Database

from .columns import COLUMNS, PARTITION_TEXT

CACHED = 100_000
"""Numbers that are remembered between batches, over all tables."""
NO_COLUMNS = "{}"
"""Partition values of a table without partition columns."""
WITHOUT_PARTITIONS = 0
"""Their number, which has no entry."""

_Key = tuple[int, str]
_PLACE = COLUMNS["dl_live_files"].index(PARTITION_TEXT)


class Partitions:
    """Numbers partition values by first appearance. For one writer, until its first failed write."""

    def __init__(self, *, cached: int = CACHED) -> None:
        self._limit = cached
        self._numbers: OrderedDict[_Key, int] = OrderedDict()
        self._highest: dict[int, int] = {}

    def number(
        self, database: Database, files: Sequence[tuple[Any, ...]]
    ) -> tuple[list[tuple[Any, ...]], list[tuple[int, int, str]]]:
        """`files` (rows of `dl_live_files`) with numbers for their partition values, and the new rows of
        `dl_partitions`. Inside the transaction that writes both."""
        keys = dict.fromkeys((row[0], row[_PLACE]) for row in files if row[_PLACE] != NO_COLUMNS)
        known = self._known(database, keys) if keys else {}
        new: list[tuple[int, int, str]] = []
        for table_no, text in keys:
            if (table_no, text) not in known:
                number = self._highest[table_no] = self._highest[table_no] + 1
                known[table_no, text] = self._numbers[table_no, text] = number
                new.append((table_no, number, text))
        numbered = [
            (*row[:_PLACE], known.get((row[0], row[_PLACE]), WITHOUT_PARTITIONS), *row[_PLACE + 1 :]) for row in files
        ]
        while len(self._numbers) > self._limit:
            self._numbers.popitem(last=False)
        return numbered, new

    def _known(self, database: Database, keys: Iterable[_Key]) -> dict[_Key, int]:
        known: dict[_Key, int] = {}
        missing: list[_Key] = []
        for key in keys:
            number = self._numbers.get(key)
            if number is None:
                missing.append(key)
            else:
                known[key] = number
                self._numbers.move_to_end(key)
        if missing:
            found = database.query(
                "SELECT p.table_no, p.partition_values, p.partition_no "
                "FROM ROWS(?) AS k (table_no BIGINT, partition_values TEXT) CROSS JOIN dl_partitions p "
                "WHERE p.partition_values = k.partition_values AND p.table_no = k.table_no",
                [missing],
            )
            for table_no, text, number in found:
                known[table_no, text] = self._numbers[table_no, text] = number
            unknown = {table_no for table_no, _ in missing} - self._highest.keys()
            if unknown:
                self._highest |= dict(
                    database.query(
                        "SELECT k.table_no, "
                        "COALESCE((SELECT max(p.partition_no) FROM dl_partitions p WHERE p.table_no = k.table_no), 0) "
                        "FROM ROWS(?) AS k (table_no BIGINT)",
                        [[(table_no,) for table_no in sorted(unknown)]],
                    )
                )
        return known
