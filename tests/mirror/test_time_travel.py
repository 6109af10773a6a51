"""Time travel by timestamp: SQL and every reader that offers it find the same version, however late the mirror was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars
import pytest
from deltalake import DeltaTable

from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from deltalakedb_mirror_worker.writing import write_log
from tests.lakes import FilledLake, append, create, local_path
from tests.mirror.readers import rows
from tests.mirrors import publish_all

Travel = Callable[[str, datetime], int]
"""How many rows the table at a location has at a time."""


def delta_rs(location: str, moment: datetime) -> int:
    table = DeltaTable(location)
    table.load_as_version(moment)
    return table.to_pyarrow_table().num_rows


def polars_rows(location: str, moment: datetime) -> int:
    return polars.scan_delta(location, version=moment).collect().height


@pytest.fixture
def travels(spark: Any) -> dict[str, Travel]:
    """By reader. DuckDB offers versions only."""

    def spark_rows(location: str, moment: datetime) -> int:
        # As text, which Spark takes in its session's zone.
        text = moment.strftime("%Y-%m-%d %H:%M:%S.%f")
        count: int = spark.read.format("delta").option("timestampAsOf", text).load(location).count()
        return count

    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    return {"delta-rs": delta_rs, "polars": polars_rows, "spark": spark_rows}


def moments(times: list[datetime]) -> list[datetime]:
    """Each time, and the last millisecond before the next."""
    return sorted({*times, *(moment - timedelta(milliseconds=1) for moment in times[1:])})


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_late_mirror_moves_no_commit_in_time(
    lake: FilledLake, mirror: Mirror, pool: Pool, travels: dict[str, Travel]
) -> None:
    """In place and in a log that was written elsewhere afterwards, a time leads where it leads in SQL."""
    commits = [lake.commit(create("t", lake.write("t", "0.parquet", rows(0))))]
    commits += [lake.commit(append("t", lake.write("t", f"{n}.parquet", rows(n)))) for n in (1, 2)]
    publish_all(mirror)
    with pool.connection() as db:
        info = Catalog(db).table("t")
    for n in range(3):
        lake.objects.put_file_if_absent(f"copy/{n}.parquet", local_path(f"{lake.root}/t/{n}.parquet"))
    write_log(pool, info, Place(lake.objects, "copy"))
    when = moments([datetime.fromtimestamp(commit.time_ms / 1000, UTC) for commit in commits])
    with pool.connection() as db:
        versions = [Catalog(db).table("t", timestamp_ms=round(m.timestamp() * 1000)).version for m in when]
    found = {
        (name, place): [travel(f"{lake.root}/{place}", moment) for moment in when]
        for name, travel in travels.items()
        for place in ("t", "copy")
    }

    assert sorted(set(versions)) == [0, 1, 2]
    assert found == {key: [version + 1 for version in versions] for key in found}
