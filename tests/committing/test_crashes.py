"""Committers and servers die again and again while events come; what is on the log decides what must be there then."""

from __future__ import annotations

import random
import signal
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from deltalakedb.process import EXIT_FENCED
from tests.committing.served import ServedLake
from tests.mortuary import Mortuary
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres

SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("kills", "seed"), [(20, 1), *(pytest.param(250, n, marks=SOAK) for n in range(4))])
def test_killed_at_any_moment(served: ServedLake, kills: int, seed: int) -> None:
    """One leads and one stands by, and either may be killed: nothing is lost, torn, told in two ways or decided twice."""
    dice = random.Random(seed)
    running = [served.start(), served.start()]
    with served.busy(folds=seed % 2 == 1):
        decided = 0
        for number in range(kills):
            if number % 2:
                # However slow the machine is: every other one dies soon after something was decided.
                served.until(lambda: served.position()[1] > decided, "a decision between two deaths")  # noqa: B023
                decided = served.position()[1]
            time.sleep(dice.random() * (0.1 if number % 2 else 0.8))
            victim = dice.randrange(2)
            # It may have ended by itself: two that start at once may both take over, and one is fenced.
            assert served.kill(running[victim]) in (-signal.SIGKILL, EXIT_FENCED), served.tail()
            running[victim] = served.start()
    served.until(served.is_decided, "everything decided")
    for pid in running:
        served.kill(pid)
    served.settle()

    found = served.check()
    assert found["moves"] >= kills // 2
    assert found["epochs"] > kills / 8
    assert not [row for row in served.isolated() if row[1]], "an event that only was there"


TIMES = pytest.mark.parametrize("times", [2, pytest.param(20, marks=SOAK)])


@TIMES
def test_postgres_is_killed(
    mortuary: Mortuary, postgres_server: Postgres, kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path, times: int
) -> None:
    """The same committer rides it out, and whatever it was in the middle of happened as a whole or not at all."""
    dice = random.Random(times)
    with closing(ServedLake(mortuary, postgres_server.url, kafka_bootstrap, kafka_prefix, tmp_path)) as served:
        pid = served.start()
        with served.busy():
            for _ in range(times):
                time.sleep(dice.random())
                postgres_server.kill()
                postgres_server.start()
                before = served.position()[1]
                served.until(lambda: served.position()[1] > before, "progress after Postgres was killed")  # noqa: B023
        served.until(served.is_decided, "everything decided")
        assert served.stop(pid) == 0, served.tail()

        assert served.check()["moves"] > times
        assert served.isolated() == []


@TIMES
def test_kafka_is_killed(
    mortuary: Mortuary, postgres_url: str, kafka_server: Kafka, tmp_path: Path, times: int
) -> None:
    """The same committer rides it out; what was not told is told again, clients that send again lose nothing."""
    dice = random.Random(times)
    with closing(ServedLake(mortuary, postgres_url, kafka_server.bootstrap, "own.", tmp_path)) as served:
        pid = served.start()
        with served.busy():
            for _ in range(times):
                time.sleep(dice.random())
                kafka_server.kill()
                kafka_server.start()
                before = served.position()[1]
                served.until(lambda: served.position()[1] > before, "progress after Kafka was killed")  # noqa: B023
        served.until(served.is_decided, "everything decided")
        assert served.stop(pid) == 0, served.tail()

        assert served.check()["moves"] > times
        assert served.isolated() == []


def test_two_committers_fight_and_get_on(served: ServedLake) -> None:
    """Two that take the lake from each other whenever one is idle, and come back when fenced, decide all there is."""
    running: list[int] = []

    def come_back() -> None:
        for pid in running:
            if not served.running(pid):
                assert served.wait(pid) == EXIT_FENCED, served.tail()
        running[:] = [pid for pid in running if served.running(pid)]
        while len(running) < 2:
            running.append(served.start(takeover_after=0.1, gives_signs=False))

    for _ in range(10):
        epoch, _ = served.position()
        served.publish_pairs(5)

        def fought(epoch: int = epoch) -> bool:
            come_back()
            return served.position()[0] > epoch

        served.until(fought, f"another takeover after epoch {epoch}")
    served.until(served.is_decided, "everything decided")
    for pid in running:
        served.kill(pid)
    served.settle()

    assert served.check()["epochs"] > 10


def test_a_replica_two_hundred_commits_behind_is_promoted(
    mortuary: Mortuary, postgres_server: Postgres, kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path
) -> None:
    """It decides the log again, to the very same commits, and what anybody was told before is still so."""
    with (
        closing(ServedLake(mortuary, postgres_server.url, kafka_bootstrap, kafka_prefix, tmp_path)) as served,
        postgres_server.replica() as replica,
        psycopg.connect(replica.url, autocommit=True) as standby,
    ):
        served.publish_history(60)
        served.settle()
        with psycopg.connect(postgres_server.url) as primary:
            written = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        served.until(
            lambda: standby.execute("SELECT pg_last_wal_replay_lsn() >= %s", written).fetchone() == (True,),
            "the replica is up to date",
        )
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        standby.execute("SELECT pg_reload_conf()")
        served.until(
            lambda: standby.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone() is None,
            "the replica hears of nothing any more",
        )
        served.publish_pairs(200)
        served.publish_history(40)
        served.settle()
        before = served.check()
        postgres_server.kill()
        standby.execute("SELECT pg_promote()")
        served.move(replica.url)
        served.publish_pairs(1)
        served.settle()

        after = served.check()
        assert "caught up with commit" in served.output.read_text()
        assert after["commits"] == before["commits"] + 1
        assert after["commits told"] > after["commits"] + 200
