"""Serving lakes: what a committer is told to serve is looked at before anything is opened, and what fails is paced."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from deltalakedb import failpoints
from deltalakedb.database import StoreAddress, open_database
from deltalakedb.errors import TxnLogConfigError, TxnLogDatabaseError
from deltalakedb.eventlog import Stream, open_event_log
from deltalakedb.health import ServiceHealth
from deltalakedb.settings import load_settings
from deltalakedb_committer.attempting import Attempting
from deltalakedb_committer.lakes import serve_lakes
from deltalakedb_committer.leadership import LockFile
from deltalakedb_committer.service import serve
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.logged import made, publish
from tests.model_lake import staged
from tests.stores import migrated
from tests.works import relaxed

NOWHERE = "postgresql://nobody@127.0.0.1:1/{}?schema=lake"
"""A server that is not there: to ask it anything would be an error of another kind."""


def test_a_lake_is_served_once() -> None:
    """The same lake named twice is refused: its two halves would wait for one another for ever."""
    lakes = [load_settings(store=NOWHERE.format(name)) for name in ("one", "two", "one")]

    with pytest.raises(TxnLogConfigError, match="named twice"):
        serve_lakes(lakes, takeover_after=1.0, health=ServiceHealth("committer"), stop=threading.Event())


def test_every_lake_can_be_served() -> None:
    """One lake that services cannot serve keeps the others from being begun."""
    lakes = [load_settings(store=store) for store in (NOWHERE.format("one"), "deltasql://duckdb//nowhere/lake.duckdb")]

    with pytest.raises(TxnLogConfigError, match="DuckDB"):
        serve_lakes(lakes, takeover_after=1.0, health=ServiceHealth("committer"), stop=threading.Event())


def test_pauses_grow_until_a_step_succeeds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However long what fails has taken; after a step that came to its end the next pause is a short one."""
    stop = threading.Event()
    log = open_event_log(f"sqlite://{tmp_path / 'log.db'}")
    log.create()
    address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
    with closing(migrated(address)) as database:
        made(database, log)
    failures = iter([True] * 3 + [False, True])

    class Leads(LockFile):
        def progressed(self) -> None:
            """The step after this one fails, or the last one was enough."""
            publish(log, staged(relaxed()))
            if log.end(Stream.STAGED) > 1:
                stop.set()

    def fail() -> None:
        if next(failures, False):
            raise TxnLogDatabaseError("failed", transient=True)

    failpoints.arm("committer.taken-over", fail)
    failpoints.arm("committer.read", fail)
    with closing(log):
        serve(
            lambda: SqlCommitStore(open_database(address)),
            log,
            Leads(tmp_path / "lock"),
            holder="test",
            health=ServiceHealth("committer").of("lake"),
            stop=stop,
            attempting=Attempting(),
        )
    failpoints.disarm()

    pauses = [record.message for record in caplog.records if "pauses" in record.message]
    assert [message.split(" s:")[0].split()[-1] for message in pauses] == ["0.1", "0.2", "0.4", "0.1"]
