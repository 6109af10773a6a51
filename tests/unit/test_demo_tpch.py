"""The TPC-H workload: what is sent, and checks that see what is wrong."""

from __future__ import annotations

from pathlib import Path

import deltalake
import pytest

from deltalakedb.demo import engine
from deltalakedb.demo.batches import read
from deltalakedb.demo.checks import Check, Pin
from deltalakedb.demo.plan import Done, Insert, Remove
from deltalakedb.demo.tpch import KEYS, Refreshes
from deltalakedb.storage_options import StorageOptions

READERS = (engine.DuckDbReader(StorageOptions()), engine.DeltaRsReader(StorageOptions()))


class Written:
    """A workload, and its first three batches as Delta tables that delta-rs wrote."""

    def __init__(self, folder: Path) -> None:
        self.workload = Refreshes(folder, scale=0.001, transactions=40)
        self.locations = {table: str(folder / "lake" / table) for table in KEYS}
        for batch in range(3):
            for table in KEYS:
                self.append(table, batch)
        self.done = [Done(client=0, kind="insert", status="committed", batch=batch) for batch in range(3)]

    def append(self, table: str, batch: int) -> None:
        rows = read(Path(self.locations[table]).parents[1], table, batch)
        assert rows is not None
        deltalake.write_deltalake(self.locations[table], rows, mode="append")

    def check(
        self, reader: engine.Reader, *, done: list[Done] | None = None, orders: int = 2, lineitem: int = 2
    ) -> list[Check]:
        pin = Pin(commit_seq=1, versions={"orders": orders, "lineitem": lineitem}, locations=self.locations)
        return self.workload.check(reader, [pin], self.done if done is None else done)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("tpch"))


def test_plans(written: Written) -> None:
    """Every batch is inserted exactly once, a quarter of all transactions are removals, and no client starts with one."""
    plans = written.workload.steps(4)

    steps = [step for plan in plans for step in plan]
    assert sorted(step.batch for step in steps if isinstance(step, Insert)) == list(range(30))
    assert sum(isinstance(step, Remove) for step in steps) == 10
    assert not any(isinstance(plan[0], Remove) for plan in plans)


def test_batches_hold_whole_orders(written: Written) -> None:
    """A batch of line items belongs to exactly the orders of the same batch."""
    assert written.workload.keys is not None
    folder = Path(written.locations["orders"]).parents[1]

    for batch, first in enumerate(written.workload.keys.first):
        orders, items = read(folder, "orders", batch), read(folder, "lineitem", batch)
        assert orders is not None
        assert items is not None
        assert set(orders["o_orderkey"].to_pylist()) == set(items["l_orderkey"].to_pylist())
        assert orders["o_orderkey"][0].as_py() == first


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_checks_pass_for_what_was_acknowledged(written: Written, reader: engine.Reader) -> None:
    """Both readers find every order whole and the rows of the batches acknowledged."""
    checks = written.check(reader)

    assert len(checks) == 3
    assert all(check.ok and check.seen > 100 for check in checks), checks


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_checks_see_a_transaction_that_is_in_one_table_only(written: Written, reader: engine.Reader) -> None:
    """Orders without their line items, and line items without their orders, are counted."""
    items_missing, *_ = written.check(reader, lineitem=1)
    orders_missing, *_ = written.check(reader, orders=1)

    assert (items_missing.seen, items_missing.wrong, items_missing.ok) == (150, 50, False)
    assert (orders_missing.seen, orders_missing.wrong, orders_missing.ok) == (150, 50, False)


def test_checks_see_what_was_lost_and_what_is_too_much(written: Written) -> None:
    """Rows that were acknowledged and are not there, or are there and were not, fail the check of both tables."""
    lost = written.check(READERS[0], done=[*written.done, Done(client=0, kind="insert", status="committed", batch=3)])
    extra = written.check(READERS[0], done=written.done[:2])
    removed = written.check(
        READERS[0], done=[*written.done, Done(client=1, kind="remove", status="committed", batch=0)]
    )
    rejected = written.check(
        READERS[0], done=[*written.done, Done(client=1, kind="remove", status="rejected", batch=0)]
    )

    assert [check.ok for check in lost] == [True, False, False]
    assert [check.ok for check in extra] == [True, False, False]
    assert [check.ok for check in removed] == [True, False, False]
    assert all(check.ok for check in rejected)


def test_checks_of_nothing_fail(written: Written) -> None:
    """A check that saw no rows is not a check that passed."""
    assert not Check.of("nothing", "duckdb", 0, 0).ok
