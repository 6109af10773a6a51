"""TPC-H refreshes: orders arrive with their line items, older ones leave again, and every order must stay whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from . import engine
from .batches import cut
from .checks import Check, Pin, same_rows
from .plan import Done, Insert, Keys, Remove, Step

KEYS = {"orders": "o_orderkey", "lineitem": "l_orderkey"}
INSERTS_PER_REMOVE = 3

_WHOLE = """
WITH items AS (
    SELECT l_orderkey AS key, count(*) AS items,
        sum(CAST(l_extendedprice * 100 AS BIGINT) * (100 - CAST(l_discount * 100 AS BIGINT)) // 100
            * (100 + CAST(l_tax * 100 AS BIGINT)) // 100) AS cents
    FROM lineitem_found GROUP BY l_orderkey
)
SELECT count(*), count(*) FILTER (
    o.o_orderkey IS NULL OR items IS DISTINCT FROM generated OR cents IS DISTINCT FROM CAST(o_totalprice * 100 AS BIGINT)
)
FROM orders_found o FULL JOIN items ON key = o.o_orderkey LEFT JOIN order_batches b ON b.o_orderkey = o.o_orderkey
"""
"""Orders seen, and those not whole: line items without an order, another number of items than generated (none at all
included), or a total price that is not the sum over the items, to the cent."""


class Refreshes:
    """Generated orders and line items, cut into batches of whole orders.

    RF1 inserts a batch into both tables, RF2 removes the files of an earlier batch from both.
    """

    properties: Mapping[str, str] | None = {"delta.isolationLevel": "WriteSerializable"}
    """Under it, removing files that are still there conflicts with nothing else, as RF2 needs."""

    def __init__(self, folder: Path, *, scale: float, transactions: int, prefix: str = "") -> None:
        self._connection = engine.connect(folder / "tpch.duckdb")
        engine.load_extension(self._connection, "tpch")
        self._connection.execute(f"CALL dbgen(sf={scale})")
        (orders,) = engine.integers(self._connection, "SELECT count(*) FROM orders")
        inserts = min(orders, transactions * INSERTS_PER_REMOVE // (INSERTS_PER_REMOVE + 1))
        self._removes = transactions - inserts
        self._connection.execute(
            f"CREATE TABLE order_batches AS SELECT o_orderkey, (row_number() OVER (ORDER BY o_orderkey) - 1) * {inserts} "
            f"// {orders} AS batch, (SELECT count(*) FROM lineitem WHERE l_orderkey = o_orderkey) AS generated FROM orders"
        )
        batches = self._connection.execute(
            "SELECT min(o_orderkey), count(*), sum(generated) FROM order_batches GROUP BY batch ORDER BY batch"
        ).fetchall()
        for column, (table, key) in enumerate(KEYS.items(), start=1):
            rows = self._connection.execute(f"FROM {table} ORDER BY {key}").to_arrow_reader(50_000)
            cut(folder, table, rows.schema, rows, [int(batch[column]) for batch in batches])
        items = sum(int(batch[2]) for batch in batches)
        self.title = f"TPC-H at scale {scale:g}: {orders:,} orders with {items:,} line items"
        self.tables: Mapping[str, str] = {f"{prefix}{table}": table for table in KEYS}
        self.keys: Keys | None = Keys(columns=dict(KEYS), first=[int(batch[0]) for batch in batches])

    def steps(self, clients: int) -> list[list[Step]]:
        """Batches dealt out in turn; after every few inserts a client removes something."""
        assert self.keys is not None
        inserts = len(self.keys.first)
        plans: list[list[Step]] = [[] for _ in range(clients)]
        removed = 0
        for batch in range(inserts):
            plan = plans[batch % clients]
            plan.append(Insert(batch))
            due = self._removes * (batch + 1) // inserts
            plan.extend(Remove() for _ in range(due - removed))
            removed = due
        return plans

    def check(self, reader: engine.Reader, pins: Sequence[Pin], done: Sequence[Done]) -> list[Check]:
        """Every order is whole at every pin; at the last one the rows are those of the batches that must be there."""
        checks = []
        for pin in pins:
            for table, location in pin.locations.items():
                reader.view(self._connection, f"{self.tables[table]}_found", location, pin.versions[table])
            seen, wrong = engine.integers(self._connection, _WHOLE)
            what = f"every order has all its line items and their total at commit {pin.commit_seq}"
            checks.append(Check.of(what, reader.name, seen, wrong))
        self._expect(done)
        for folder in KEYS:
            what = f"{folder}: the rows of what was acknowledged, and no others"
            checks.append(same_rows(self._connection, what, reader.name, f"{folder}_found", f"{folder}_expected"))
        return checks

    def _expect(self, done: Sequence[Done]) -> None:
        committed = [step for step in done if step.status == "committed"]
        there = {step.batch for step in committed if step.kind == "insert"}
        there -= {step.batch for step in committed if step.kind == "remove"}
        numbers = [batch for batch in there if batch is not None]
        keys = f"SELECT o_orderkey FROM order_batches WHERE list_contains({numbers}::BIGINT[], batch)"
        for folder, key in KEYS.items():
            self._connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {folder}_expected AS FROM {folder} WHERE {key} IN ({keys})"
            )
