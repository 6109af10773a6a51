"""The checker of list-append histories finds what is wrong with them, and nothing in those of the committer's own rules."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from deltalakedb.actions import AddFile
from deltalakedb.events import TableWork
from deltalakedb_committer.deciding import transactions
from deltalakedb_committer.deciding.conflicts import Level, reads
from deltalakedb_committer.deciding.decisions import Commit
from tests.list_append import Seen, Txn, violations
from tests.model_lake import ModelLake, staged
from tests.works import ZERO, create, reading, relaxed

TABLES = ("a", "b", "c")
SEEDS = range(15)
Order = dict[str, list[str]]


def decided(seed: int, make: Callable[..., TableWork]) -> tuple[Order, list[Txn]]:
    """A history of transactions that read before others have ended, decided in memory by the real rules."""
    chance = random.Random(seed)
    lake = ModelLake()
    lake.commit(*(make(name) for name in TABLES))
    order: Order = {name: [] for name in TABLES}
    seen = {name: Seen() for name in TABLES}
    under_way: list[tuple[Txn, list[TableWork]]] = []
    txns: list[Txn] = []
    for now in range(60):
        if len(under_way) < 3:
            wanted = {name: seen[name] for name in chance.sample(TABLES, chance.choice([1, 1, 2]))}
            writes = tuple(chance.sample(TABLES, chance.choice([1, 1, 2])))
            txn = Txn(txn_id=f"t{now}", began=now, reads=wanted, writes=writes)
            under_way.append((txn, [_work(lake, txn, name) for name in {*wanted, *writes}]))
        else:
            txn, works = under_way.pop(chance.randrange(3))
            committed = isinstance(lake.decide(staged(*works)), Commit)
            for name in txn.writes if committed else ():
                order[name].append(txn.txn_id)
                seen[name] = seen[name].then(txn.txn_id)
            txns.append(replace(txn, ended=now + 0.5, committed=committed))
    return order, txns


def _work(lake: ModelLake, txn: Txn, name: str) -> TableWork:
    file = AddFile(path=txn.txn_id, partition_values={}, size=1, modification_time=1)
    files = (file,) if name in txn.writes else ()
    if name not in txn.reads:
        return TableWork(name=name, adds=files, written_against=ZERO)
    return reading(lake.heads[TABLES.index(name) + 1]["version"], *files, name=name)


@pytest.mark.parametrize("make", [create, relaxed])
def test_the_rules_let_nothing_through(make: Callable[..., TableWork]) -> None:
    """Under either level, transactions of which each has read something have one order; not because none commits."""
    histories = [decided(seed, make) for seed in SEEDS]

    assert [violations(order, txns) for order, txns in histories] == [[]] * len(SEEDS)
    assert sum(bool(txn.committed) for _, txns in histories for txn in txns) > 5 * len(SEEDS)
    assert sum(not txn.committed for _, txns in histories for txn in txns) > 5 * len(SEEDS)


def test_blindness_per_table_is_write_skew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a version a blind append because its own table was not read, two that read each other's would both pass."""
    change = transactions._change

    def per_table(draft: transactions.Draft, apps: Any, level: Level, at: int) -> Any:
        return change(draft, apps, level._replace(blind=not reads(draft.work)), at)

    monkeypatch.setattr(transactions, "_change", per_table)

    found = [violations(*decided(seed, relaxed)) for seed in SEEDS]

    assert sum(any(text.startswith("circle") for text in texts) for texts in found) > len(SEEDS) / 2


def lose(order: Order, txns: list[Txn], txn: Txn) -> None:
    for name in txn.writes:
        order[name].remove(txn.txn_id)


def tear(order: Order, txns: list[Txn], txn: Txn) -> None:
    order[txn.writes[0]].remove(txn.txn_id)


def repeat(order: Order, txns: list[Txn], txn: Txn) -> None:
    order[txn.writes[0]].append(txn.txn_id)


def abort(order: Order, txns: list[Txn], txn: Txn) -> None:
    txns[txns.index(txn)] = replace(txn, committed=False)


def reorder(order: Order, txns: list[Txn], txn: Txn) -> None:
    """In one of its tables, but not in the other, it comes before the one before it."""
    for name in txn.writes:
        at = order[name].index(txn.txn_id)
        other = order[name][at - 1]
        shared = next(t for t in txns if t.txn_id == other).writes
        if at and len(set(txn.writes) & set(shared)) == 2:
            order[name][at - 1 : at + 1] = [txn.txn_id, other]
            _read_anew(order, txns, name)
            return
    raise LookupError("no two neighbours share two tables here")


def read_stale(order: Order, txns: list[Txn], txn: Txn) -> None:
    """It saw a table as it was long before it began."""
    name = txn.writes[0]
    txns.append(Txn(txn_id="late", began=100, ended=101, reads={name: Seen()}))


def read_between(order: Order, txns: list[Txn], txn: Txn) -> None:
    """It saw one table with a transaction, and the other without."""
    one, two = txn.writes
    with_it = order[one].index(txn.txn_id) + 1
    without = order[two].index(txn.txn_id)
    reads = {one: _first(order[one], with_it), two: _first(order[two], without)}
    txns.append(Txn(txn_id="between", began=0, ended=101, reads=reads))


def _first(elements: list[str], count: int) -> Seen:
    seen = Seen()
    for element in elements[:count]:
        seen = seen.then(element)
    return seen


def _read_anew(order: Order, txns: list[Txn], name: str) -> None:
    """Everybody saw the elements in the order they now have: only the other table tells."""
    for n, txn in enumerate(txns):
        if name in txn.reads:
            txns[n] = replace(txn, reads={**txn.reads, name: _first(order[name], txn.reads[name].count)})


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (lose, "lost"),
        (tear, "torn"),
        (repeat, "duplicate"),
        (abort, "aborted"),
        (reorder, "circle"),
        (read_stale, "circle"),
        (read_between, "circle"),
    ],
)
def test_harm_is_found(harm: Callable[[Order, list[Txn], Txn], None], kind: str) -> None:
    """Each kind of anomaly, put into histories that have none, is called by its name, wherever it is put."""
    tried = 0
    for seed in SEEDS:
        order, txns = decided(seed, create)
        double = [txn for txn in txns if txn.committed and len(txn.writes) == 2]
        if not double:
            continue
        try:
            harm(order, txns, random.Random(seed).choice(double))
        except LookupError:
            continue
        tried += 1
        found = violations(order, txns)
        assert any(text.startswith(kind) for text in found), (seed, found)

    assert tried > 3
