"""Time travel by timestamp: SQL and every reader that offers it find the same version, however late the mirror was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.writing import write_log
from tests.lakes import FilledLake, append, create, local_path
from tests.mirror.readers import Travel, rows
from tests.mirrors import MakeMirror, publish_all


def moments(times: list[datetime]) -> list[datetime]:
    """Each time, and the last millisecond before the next."""
    return sorted({*times, *(moment - timedelta(milliseconds=1) for moment in times[1:])})


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_spark_and_the_others_travel_alike_after_a_late_mirror(
    lake: FilledLake,
    make_mirror: MakeMirror,
    pool: Pool,
    travels: dict[str, Travel],
    duckdb_connection: duckdb.DuckDBPyConnection,
) -> None:
    """In place, at a target that was added afterwards, and in a log that was written elsewhere, a time leads where it
    leads in SQL; with DuckDB, which has no times, SQL says which version that is."""
    commits = [lake.commit(create("t", lake.write("t", "0.parquet", rows(0))))]
    commits += [lake.commit(append("t", lake.write("t", f"{n}.parquet", rows(n)))) for n in (1,)]
    publish_all(make_mirror())
    target = f"{lake.root}-elsewhere"
    lake.act("target-add", target="late", parameters={"kind": "copy", "root": target})
    publish_all(make_mirror(target="late"))
    with pool.connection() as db:
        info = Catalog(db).table("t")
    for n in range(2):
        lake.objects.put_file_if_absent(f"copy/{n}.parquet", local_path(f"{lake.root}/t/{n}.parquet"))
    write_log(pool, info, Place(lake.objects, "copy"))
    when = moments([datetime.fromtimestamp(commit.time_ms / 1000, UTC) for commit in commits])
    with pool.connection() as db:
        versions = [Catalog(db).table("t", timestamp_ms=round(m.timestamp() * 1000)).version for m in when]
    places = (f"{lake.root}/t", f"{lake.root}/copy", f"{target}/t")
    found = {
        (name, place): [travel(place, moment) for moment in when]
        for name, travel in travels.items()
        for place in places
    }
    by_version = [
        duckdb_connection.execute("FROM delta_scan($1, version = $2)", [place, version]).fetchall()
        for place in places
        for version in versions
    ]

    assert versions == [0, 0, 1]
    assert found == {key: [version + 1 for version in versions] for key in found}
    assert [len(some) for some in by_version] == 3 * [version + 1 for version in versions]
