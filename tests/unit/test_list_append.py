"""The checker of list-append histories finds what is wrong with them, and nothing in those of the committer's own rules."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pytest

from deltalakedb.actions import AddFile
from deltalakedb.events import Content, TableWork
from deltalakedb_committer.deciding import transactions
from deltalakedb_committer.deciding.conflicts import Level, check_conflicts, level_of, reads
from deltalakedb_committer.deciding.decisions import Commit
from deltalakedb_committer.deciding.facts import SNAPSHOT_ISOLATION
from deltalakedb_committer.deciding.state import TableState
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
            under_way.append((txn, [_work(lake, txn, name) for name in dict.fromkeys((*wanted, *writes))]))
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


def blind_per_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version is a blind append because its own table was not read: two that read each other's both pass."""
    change = transactions._change

    def per_table(draft: transactions.Draft, apps: Any, level: Level, at: int) -> Any:
        return change(draft, apps, level._replace(blind=not reads(draft.work)), at)

    monkeypatch.setattr(transactions, "_change", per_table)


def one_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first version after the one that was read stands against nobody."""

    def later(work: TableWork, files: Any, table: TableState, *more: Any, **named: Any) -> None:
        version = None if work.read_version is None else min(work.read_version + 1, table.version)
        check_conflicts(msgspec.structs.replace(work, read_version=version), files, table, *more, **named)

    monkeypatch.setattr(transactions, "check_conflicts", later)


def first_table_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of further tables is not looked at."""
    drafts = transactions._drafts
    first: list[TableWork] = []

    def remembered(content: Content, *more: Any) -> Any:
        first[:] = content.tables[:1]
        return drafts(content, *more)

    def of_first(work: TableWork, *more: Any, **named: Any) -> None:
        if work is first[0]:
            check_conflicts(work, *more, **named)

    monkeypatch.setattr(transactions, "_drafts", remembered)
    monkeypatch.setattr(transactions, "check_conflicts", of_first)


def snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is judged under snapshot isolation, under which what others add stands against nobody."""
    monkeypatch.setattr(
        transactions, "level_of", lambda *given: level_of(*given)._replace(isolation=SNAPSHOT_ISOLATION)
    )


@pytest.mark.parametrize("weaken", [blind_per_table, one_too_late, first_table_only, snapshots])
def test_weaker_rules_are_found_out(
    weaken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were any of these the committer's rules, most histories would have no order."""
    weaken(monkeypatch)

    found = [violations(*decided(seed, relaxed)) for seed in SEEDS]

    assert sum(any(text.startswith("circle") for text in texts) for texts in found) > len(SEEDS) / 2


@cache
def _sound(seed: int) -> tuple[Order, list[Txn]]:
    return decided(seed, create)


def sound(seed: int) -> tuple[Order, list[Txn]]:
    """A history in which nothing is wrong, to be changed."""
    order, txns = _sound(seed)
    return {name: list(elements) for name, elements in order.items()}, list(txns)


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
    """It saw one table with a transaction, and the other without (G-single; a torn read of two tables)."""
    one, two = txn.writes
    with_it = order[one].index(txn.txn_id) + 1
    without = order[two].index(txn.txn_id)
    reads = {one: _first(order[one], with_it), two: _first(order[two], without)}
    txns.append(Txn(txn_id="between", began=0, ended=101, reads=reads))


def overlook(order: Order, txns: list[Txn], txn: Txn) -> None:
    """It appended to what it had read before the one before it came: that one's update is lost on it."""
    for name in txn.writes:
        if at := order[name].index(txn.txn_id):
            txns[txns.index(txn)] = replace(txn, reads={**txn.reads, name: _first(order[name], at - 1)})
            return
    raise LookupError("it is the first in each of its tables")


def see_aborted(order: Order, txns: list[Txn], txn: Txn) -> None:
    """Somebody saw what a rejected one would have appended (G1a)."""
    gone = next(each for each in txns if not each.committed)
    name = gone.writes[0]
    reads = {name: _first([*order[name], gone.txn_id], len(order[name]) + 1)}
    txns.append(Txn(txn_id="reader", began=100, ended=101, reads=reads))


def see_each_other(order: Order, txns: list[Txn], txn: Txn) -> None:
    """Two have seen what the other appended (G1c)."""
    one, two = txn.writes
    for mine, seen in ((one, two), (two, one)):
        after = {seen: _first([*order[seen], f"of {seen}"], len(order[seen]) + 1)}
        txns.append(Txn(txn_id=f"of {mine}", began=100, ended=101, reads=after, writes=(mine,)))
    for name in txn.writes:
        order[name].append(f"of {name}")


def overlook_each_other(order: Order, txns: list[Txn], txn: Txn) -> None:
    """Each has read what the other appends to, and neither saw the other: write skew (G2)."""
    one, two = txn.writes
    for mine, seen in ((one, two), (two, one)):
        before = {seen: _first(order[seen], len(order[seen]))}
        txns.append(Txn(txn_id=f"of {mine}", began=100, ended=101, reads=before, writes=(mine,)))
    for name in txn.writes:
        order[name].append(f"of {name}")


def antedate(order: Order, txns: list[Txn], txn: Txn) -> None:
    """It comes first in all of its tables, as everybody agrees, and others had ended before it began."""
    if all(each.ended >= txn.began for each in txns if each.committed and set(each.writes) & set(txn.writes)):
        raise LookupError("nobody had ended")
    for name in txn.writes:
        order[name].remove(txn.txn_id)
        order[name].insert(0, txn.txn_id)
        _read_anew(order, txns, name)


def forget(order: Order, txns: list[Txn], txn: Txn) -> None:
    """Nobody ever appended what is there."""
    txns.remove(txn)


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
        (overlook, "circle"),
        (see_aborted, "misread"),
        (see_each_other, "circle"),
        (overlook_each_other, "circle"),
        (antedate, "circle"),
        (forget, "made up"),
    ],
)
def test_harm_is_found(harm: Callable[[Order, list[Txn], Txn], None], kind: str) -> None:
    """Each kind of anomaly, put into histories that have none, is called by its name, wherever it is put."""
    tried = 0
    for seed in range(3 * len(SEEDS)):
        txns = sound(seed)[1]
        double = [txn for txn in txns if txn.committed and len(txn.writes) == 2]
        for txn in random.Random(seed).sample(double, min(3, len(double))):
            order, txns = sound(seed)
            try:
                harm(order, txns, txn)
            except LookupError:
                continue
            tried += 1
            found = violations(order, txns)
            assert any(text.startswith(kind) for text in found), (seed, txn, found)

    assert tried > len(SEEDS)
