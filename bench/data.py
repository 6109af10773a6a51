"""The rows and add actions of the benchmark: the same for every system that is measured."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass

import pyarrow as pa

ROWS = 10
"""Rows that one transaction appends to each of its two tables."""

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("id", pa.int64()),
    ("customer", pa.string()),
    ("amount", pa.float64()),
    ("at", pa.timestamp("us", tz="UTC")),
]
SCHEMA = pa.schema(_COLUMNS)

SAMPLES = 64
"""Different rows, and statistics of their files, that a client has ready before it is measured."""
COLUMNS_SQL = '"id" BIGINT, "customer" VARCHAR, "amount" DOUBLE, "at" TIMESTAMPTZ'

_MORNING = dt.datetime(2026, 1, 1, 6, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two tables of a transaction."""

    orders: str
    items: str

    @property
    def tables(self) -> tuple[str, str]:
        return (self.orders, self.items)


def pairs(count: int) -> tuple[Pair, ...]:
    """That many pairs of tables, by name."""
    return tuple(Pair(f"orders_{n}", f"items_{n}") for n in range(count))


def rows(client: int, number: int) -> pa.Table:
    """The rows that transaction `number` of a client appends to one table, `ROWS` of `SCHEMA`."""
    first = (client << 40) + number * ROWS
    return pa.table(
        {
            "id": range(first, first + ROWS),
            "customer": [f"customer {(first + n) % 9973}" for n in range(ROWS)],
            "amount": [(first + n) % 100_000 / 100 for n in range(ROWS)],
            "at": [_MORNING + dt.timedelta(milliseconds=first % 86_400_000 + n) for n in range(ROWS)],
        },
        schema=SCHEMA,
    )


def statistics(client: int, number: int) -> str:
    """What a writer of `rows` would say about their file, in Delta's form."""
    first = (client << 40) + number * ROWS
    least = {
        "id": first,
        "customer": "customer 1",
        "amount": first % 100_000 / 100,
        "at": "2026-01-01T06:00:00.000Z",
    }
    most = {
        "id": first + ROWS - 1,
        "customer": "customer 9972",
        "amount": first % 100_000 / 100 + ROWS / 100,
        "at": "2026-01-02T06:00:00.000Z",
    }
    nulls = dict.fromkeys(SCHEMA.names, 0)
    body = {"numRecords": ROWS, "minValues": least, "maxValues": most, "nullCount": nulls}
    return json.dumps(body, separators=(",", ":"))


def many_rows(client: int) -> list[pa.Table]:
    """`SAMPLES` different rows of a client."""
    return [rows(client, number) for number in range(SAMPLES)]


def many_statistics(client: int) -> list[str]:
    """What a writer of `many_rows` would say about their files."""
    return [statistics(client, number) for number in range(SAMPLES)]
