"""What the committer tells of where a lake stands, on every engine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from deltalakedb.database import Database
from deltalakedb.eventlog import open_event_log
from deltalakedb.metrics import COMMIT_SEQ, LIVE_BYTES, LIVE_FILES, SNAPSHOT_SECONDS, TABLES, Measurements
from deltalakedb_committer.measuring import SIZE_SECONDS, LakeWatch
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
