"""A service is ready when it does its work and reaches what it must, and lives until only a new start can help."""

from __future__ import annotations

import json

import pytest

from deltalakedb.errors import TxnLogConfigError, TxnLogDatabaseError, TxnLogHaltedError
from deltalakedb.health import ANSWER_SECONDS, DEAD_SECONDS, STUCK_SECONDS, Health, ServiceHealth, State
from deltalakedb.metrics import PAUSES
from deltalakedb.monitoring import Monitor
from tests.http import get


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_working_and_standing_by_are_ready() -> None:
    """Of all states two are ready, and in each of them the process lives."""
    for state in State:
        health = Health("lake")
        health.becomes(state)

        assert health.report().ready == (state in (State.WORKING, State.CATCHING_UP, State.STANDBY))
        assert health.report().live


def test_a_loop_that_stands_still_is_neither_ready_nor_in_the_end_alive() -> None:
    """Without progress a working loop is not ready after half a minute and dead after five; a standby may wait for ever."""
    clock = Clock()
    health = Health("lake", clock=clock)
    health.becomes(State.WORKING)
    clock.now += STUCK_SECONDS + 1
    stuck = health.report()
    clock.now += DEAD_SECONDS
    dead = health.report()
    health.progressed()
    again = health.report()
    health.becomes(State.STANDBY)
    clock.now += 10 * DEAD_SECONDS
    waiting = health.report()

    assert [(each.live, each.ready) for each in (stuck, dead, again, waiting)] == [
        (True, False),
        (False, False),
        (True, True),
        (True, True),
    ]


def test_what_cannot_be_reached_is_named_without_secrets() -> None:
    """A failed check and one that never comes back make it not ready; what is told shows no credential."""
    clock = Clock()
    health = Health("lake", secrets={"password": "c4n4ry"}, clock=clock)
    health.becomes(State.WORKING)
    away = [True]

    def reach() -> None:
        if away[0]:
            raise TxnLogDatabaseError("cannot connect to postgresql://mirror:c4n4ry@db/lakes")

    health.check("store", reach)
    before = health.report()
    health.look()
    failed = health.report()
    away[0] = False
    health.look()
    reached = health.report()
    clock.now += ANSWER_SECONDS + 1
    health.progressed()
    silent = health.report()

    assert [each.ready for each in (before, failed, reached, silent)] == [False, False, True, False]
    assert "cannot connect" in failed.checks["store"]
    assert "c4n4ry" not in str(failed)
    assert "no answer" in silent.checks["store"]


def test_each_lake_has_its_own_health_and_a_halted_one_its_name() -> None:
    """A service is ready if all its lakes are, and lives with one that is halted; what ended all of them is said of all."""
    service = ServiceHealth("committer")
    nothing = Monitor(service, "127.0.0.1:0")
    first, second = service.of("first"), service.of("second")
    first.paused(TxnLogDatabaseError("the server is away"))
    first.halted(TxnLogHaltedError("LOG_TRUNCATED", "the log lost its end"))
    second.becomes(State.WORKING)

    with nothing as monitor:
        status, body = get(monitor.port, "/ready")
        live, _ = get(monitor.port, "/health")
        missing, _ = get(monitor.port, "/")
        _, metrics = get(monitor.port, "/metrics")
    service.halted(TxnLogHaltedError("LOG_MISSING", "there is no log"))

    told = json.loads(body)
    assert (status, live, missing) == (503, 200, 404)
    assert {lake["lake"]: (lake["state"], lake["halted"], lake["ready"]) for lake in told["lakes"]} == {
        "first": ("HALTED", "LOG_TRUNCATED", False),
        "second": ("WORKING", "", True),
    }
    assert 'deltalakedb_state{halted="LOG_TRUNCATED",lake="first",state="HALTED"} 1.0' in metrics
    assert first.measurements.numbers(PAUSES) == {(): 1.0}
    assert [lake.report().halted for lake in service.lakes] == ["LOG_TRUNCATED", "LOG_MISSING"]


@pytest.mark.parametrize("address", ["9600", "127.0.0.1:", "127.0.0.1:http", ":99999"])
def test_an_address_that_is_none_is_a_settings_error(address: str) -> None:
    """It is said before the service begins."""
    with pytest.raises(TxnLogConfigError, match="listen"):
        Monitor(ServiceHealth("committer"), address)


def test_an_address_that_is_taken_is_a_settings_error() -> None:
    """Two services never share one port unnoticed."""
    with (
        Monitor(ServiceHealth("committer"), "127.0.0.1:0") as monitor,
        pytest.raises(TxnLogConfigError, match="cannot listen"),
    ):
        Monitor(ServiceHealth("mirror"), f"127.0.0.1:{monitor.port}")
