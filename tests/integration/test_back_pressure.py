"""Back-pressure on real services: what outcomes tell of the committer's lag reaches the client's window in flight."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb.eventlog import Stream, open_event_log
from deltalakedb.settings import load_settings
from deltalakedb.window import LAG_MS
from tests.pipeline import on_servers
from tests.services.run import Addresses

WINDOW = 8
ROWS = pa.table({"id": [1]})
PATIENCE = 120.0

pytestmark = pytest.mark.timeout(300)


def grown(lake: deltalakedb.Lake) -> list[int]:
    """Commit until as many may be in flight as the settings say; how many might be after each commit."""
    limits: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while not limits or limits[-1] < WINDOW:
        assert time.monotonic() < deadline, f"the window does not grow again: {limits}"
        lake.append("t", ROWS)
        limits.append(lake._open_session().window.limit)
    return limits


def test_a_lag_that_is_told_shrinks_the_window_until_it_is_gone(servers: Addresses, tmp_path: Path) -> None:
    """The committer stands still for longer than the window puts up with, a transaction in flight: half as many may be in
    flight from then on, and one by one as many as before while its answers come in time."""
    pipeline = on_servers(servers, tmp_path)
    assert pipeline.address.log is not None
    with (
        pipeline,
        deltalakedb.connect(settings=load_settings(store=pipeline.address.store, window=WINDOW)) as lake,
        closing(open_event_log(pipeline.address.log)) as log,
    ):
        # The first answers waited for the committer's start.
        grown(lake)
        end = log.end(Stream.STAGED)
        transaction = lake.begin()
        transaction.stage_table("t", ROWS)
        os.kill(pipeline.committer.pid, signal.SIGSTOP)
        try:
            answer = transaction.commit_async(timeout=PATIENCE)
            deadline = time.monotonic() + PATIENCE
            while log.end(Stream.STAGED) == end:
                assert time.monotonic() < deadline, "the transaction did not reach the log"
                time.sleep(0.02)
            # What is waited for is the lag itself.
            time.sleep(1.5 * LAG_MS / 1000)
        finally:
            os.kill(pipeline.committer.pid, signal.SIGCONT)
        answer.result(PATIENCE)
        shrunk = lake._open_session().window.limit
        limits = grown(lake)

    assert shrunk == WINDOW // 2
    assert {*range(shrunk, WINDOW + 1)} <= {*limits}
