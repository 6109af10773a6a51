"""What the committer tells of where a lake stands, on every engine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from threading import Event, Thread

from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.eventlog import open_event_log
from deltalakedb.metrics import COMMIT_SEQ, LIVE_BYTES, LIVE_FILES, SNAPSHOT_SECONDS, TABLES, Measurements
from deltalakedb_committer.measuring import SIZE_SECONDS, LakeWatch
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.direct import DirectCommitter, add, create, made
from tests.stores import address, database

__all__ = ["address", "database"]


def test_the_size_of_a_lake_is_looked_at_now_and_then(database: Database, tmp_path: Path) -> None:
    """Tables, live files and their bytes are those of all heads, and how long SQL took for them is told; a look at many
    tables is not worth taking each time that the position is."""
    committer = DirectCommitter(made(database))
    now = 1_000.0
    shown = Measurements()

    def gauges() -> list[float]:
        return [shown.numbers(metric)[()] for metric in (COMMIT_SEQ, TABLES, LIVE_FILES, LIVE_BYTES)]

    with closing(open_event_log(f"sqlite://{tmp_path / 'log.db'}")) as log:
        watch = LakeWatch(lambda: committer.store, log, shown, clock=lambda: now)
        watch.store()
        assert gauges() == [0, 0, 0, 0]
        files = [add("a"), add("b"), add("c")]
        committer.commit(create("one", *files[:2]), create("two", files[2]))

        watch.store()
        assert gauges() == [1, 0, 0, 0]
        now += SIZE_SECONDS
        watch.store()
        assert gauges() == [1, 2, 3, sum(file.size for file in files)]
        assert shown.numbers(SNAPSHOT_SECONDS)[()] == 0, "the clock stood still meanwhile"


def test_a_watch_that_is_closed_leaves_no_connection(database: Database, address: StoreAddress, tmp_path: Path) -> None:
    """Nor does a look that was under way, for which nobody waits, or one that comes later."""
    made(database)
    opened: list[Database] = []
    looking, answered = Event(), Event()

    def open_store() -> SqlCommitStore:
        opened.append(open_database(address))
        return SqlCommitStore(opened[-1])

    def slowly() -> SqlCommitStore:
        looking.set()
        assert answered.wait(100)
        return open_store()

    with closing(open_event_log(f"sqlite://{tmp_path / 'log.db'}")) as log:
        watch = LakeWatch(open_store, log, Measurements())
        watch.store()
        assert [each.alive for each in opened] == [True]
        watch.close()
        assert [each.alive for each in opened] == [False]

        slow = LakeWatch(slowly, log, Measurements())
        thread = Thread(target=slow.store)
        thread.start()
        assert looking.wait(100)
        slow.close()
        answered.set()
        thread.join()
        slow.store()
        assert [each.alive for each in opened] == [False, False, False]
