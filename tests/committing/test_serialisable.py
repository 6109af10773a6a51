"""What many clients saw and were told, while committers and servers died, has one order: nothing but that is serialisable."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from deltalakedb.process import EXIT_FENCED
from tests.committing.appenders import appending
from tests.committing.served import ServedLake
from tests.list_append import Txn, violations
from tests.model_lake import staged
from tests.mortuary import Mortuary
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.works import create


def history(
    served: ServedLake, *, clients: int, each: int, tables: int, pause: float, harm: Callable[[], None]
) -> tuple[dict[str, list[str]], list[Txn]]:
    """What clients did while `harm` was done to the servers again and again, and what is in the tables then."""
    names = [f"list{n}" for n in range(tables)]
    for name in names:
        served.publish([staged(create(name))])
    with appending(served.address, served.log, served.publish, names, clients=clients, each=each) as work:
        # In this thread: a server ends with the thread that started it.
        while not all(done.done() for done in work):
            time.sleep(pause)
            harm()
        txns = [txn for done in work for txn in done.result()]
    order: dict[str, list[str]] = {name: [] for name in names}
    with served.database() as database:
        for name, path in database.query(
            "SELECT t.name, f.path FROM dl_add_files f JOIN dl_tables t USING (table_no) "
            "WHERE t.name LIKE 'list%' ORDER BY f.version, f.n"
        ):
            order[name].append(path)
    return order, txns


def check(served: ServedLake, order: dict[str, list[str]], txns: list[Txn], *, least: int) -> None:
    """Nothing is wrong with the history, and not because nothing happened."""
    assert violations(order, txns) == []
    assert len(txns) >= least
    assert sum(bool(txn.committed and txn.writes) for txn in txns) > least / 5
    assert sum(txn.committed is False for txn in txns) > 0
    served.settle()
    served.check()


class Committers:
    """Two committers, of which one is killed now and then."""

    def __init__(self, served: ServedLake, dice: random.Random) -> None:
        self._served = served
        self._dice = dice
        self.running = [served.start(), served.start()]

    def kill_one(self) -> None:
        """Either of them, and another one comes."""
        victim = self._dice.randrange(2)
        assert self._served.kill(self.running[victim]) in (-signal.SIGKILL, EXIT_FENCED), self._served.tail()
        self.running[victim] = self._served.start()

    def stop(self) -> None:
        """End both."""
        for pid in self.running:
            self._served.kill(pid)


def test_clients_see_one_order_while_committers_die(served: ServedLake) -> None:
    """Eight clients, a committer killed twice a second: strictly serialisable over several tables."""
    committers = Committers(served, random.Random(8))
    order, txns = history(served, clients=8, each=100, tables=8, pause=0.5, harm=committers.kill_one)
    committers.stop()

    check(served, order, txns, least=800)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_clients_see_one_order_while_everything_dies(
    mortuary: Mortuary, postgres_server: Postgres, kafka_server: Kafka, tmp_path: Path
) -> None:
    """32 clients and 50,000 transactions, while committers, Postgres and Kafka are killed."""
    dice = random.Random(32)
    with closing(ServedLake(mortuary, postgres_server.url, kafka_server.bootstrap, "own.", tmp_path)) as served:
        committers = Committers(served, dice)
        killed: Counter[str] = Counter()

        def harm() -> None:
            roll = dice.random()
            if roll < 0.1:
                postgres_server.kill()
                postgres_server.start()
                killed["Postgres"] += 1
            elif roll < 0.2:
                kafka_server.kill()
                kafka_server.start()
                killed["Kafka"] += 1
            else:
                committers.kill_one()
                killed["committer"] += 1

        began = time.monotonic()
        order, txns = history(served, clients=32, each=1_600, tables=40, pause=3, harm=harm)
        committers.stop()
        took = time.monotonic() - began

        check(served, order, txns, least=50_000)
        written = sum(bool(txn.committed and txn.writes) for txn in txns)
        assert set(killed) == {"committer", "Postgres", "Kafka"}
        deaths = ", ".join(f"{what} {times} times" for what, times in killed.items())
        told = f"{len(txns)} transactions, {written} commits in {took:.0f} s, killed meanwhile: {deaths}"
        (tmp_path / "figures").write_text(told)
