"""Version checksums: exact or absent, and believed by those who read them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from deltalakedb.database import Pool, StoreAddress, open_database
from deltalakedb.events import AppTransaction
from deltalakedb.objectstore import NewObject, open_object_store
from deltalakedb_mirror_worker import checkpoint as checkpoints
from deltalakedb_mirror_worker import upkeep, version_checksum
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from deltalakedb_mirror_worker.upkeep import Upkeep
from tests.lakes import FilledLake, add, append, create, local_root, remove
from tests.mirror.readers import rows
from tests.mirrors import log_files, progress_of, publish_all


def checksum(lake: FilledLake, version: int, table: str = "t") -> dict[str, Any] | None:
    found = lake.objects.get(f"{table}/_delta_log/{version:020}.crc")
    parsed: dict[str, Any] | None = None if found is None else json.loads(found.data)
    return parsed


def put_newest(lake: FilledLake, pool: Pool, version: int) -> bool:
    with pool.connection() as db:
        place = Place(lake.objects, "t")
        return version_checksum.put_newest(db, place, progress_of(pool, "t").table_id, version)


def test_a_checksum_says_what_the_log_says(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """Files and bytes that are live, protocol and metadata as they stand in the log, transactions, the time."""
    lake.commit(create("t", add("a", size=10), add("b", size=20)), apps=(AppTransaction("job", 1),))
    lake.commit(append("t", add("c", size=40)), apps=(AppTransaction("job", 2),))
    last = lake.commit(remove("t", add("b", size=20)))
    publish_all(mirror)
    put = put_newest(lake, pool, 2)
    first = lake.objects.get(f"t/_delta_log/{0:020}.json")
    assert first is not None
    actions: dict[str, Any] = {}
    for line in first.data.splitlines():
        actions |= json.loads(line)
    found = checksum(lake, 2)

    assert put
    assert found is not None
    assert {name: found[name] for name in ("numFiles", "tableSizeBytes", "numMetadata", "numProtocol")} == {
        "numFiles": 2,
        "tableSizeBytes": 50,
        "numMetadata": 1,
        "numProtocol": 1,
    }
    assert found["metadata"] == actions["metaData"]
    assert found["protocol"] == actions["protocol"]
    assert found["inCommitTimestampOpt"] == last.time_ms
    assert [(txn["appId"], txn["version"]) for txn in found["setTransactions"]] == [("job", 2)]
    assert found["domainMetadata"] == []


def test_only_the_newest_version_is_known_without_counting(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """SQL keeps the size of the newest version; for one that was overtaken there is none, except beside a checkpoint."""
    lake.commit(create("t", add("a", size=10)))
    publish_all(mirror)
    lake.commit(append("t", add("b", size=10)))
    late = put_newest(lake, pool, 0)
    before = checksum(lake, 0)
    with pool.connection() as db:
        checkpoints.checkpoint(db, Place(lake.objects, "t"), progress_of(pool, "t").table_id, 0)
    counted = checksum(lake, 0)

    assert not late
    assert before is None
    assert counted is not None
    assert (counted["numFiles"], counted["tableSizeBytes"]) == (1, 10)


def test_a_checksum_is_never_written_over_another(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """What lies there stays, whatever it says."""
    lake.commit(create("t"))
    publish_all(mirror)
    lake.objects.put_if_absent([NewObject(f"t/_delta_log/{0:020}.crc", b'{"numFiles":7}')])
    put_newest(lake, pool, 0)

    assert checksum(lake, 0) == {"numFiles": 7}


def test_what_may_expire_is_left_to_readers(lake: FilledLake, mirror: Mirror, pool: Pool) -> None:
    """With a retention of transactions every reader counts at its own hour, so that nothing exact can be said."""
    lake.commit(create("t", setTransactionRetentionDuration="interval 1 day"), apps=(AppTransaction("job", 1),))
    publish_all(mirror)
    put_newest(lake, pool, 0)
    found = checksum(lake, 0)

    assert found is not None
    assert "setTransactions" not in found


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_table_that_is_left_in_peace_gets_a_checksum(
    lake: FilledLake, mirror: Mirror, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment after its last version; versions that are overtaken at once get none; a fenced table gets none."""
    monkeypatch.setattr(upkeep, "QUIET_SECONDS", 0.1)
    keeper = Upkeep(pool, lambda: mirror.places)
    lake.commit(create("t"), create("u"))
    publish_all(mirror)
    with pool.connection() as db:
        db.execute("UPDATE dl_mirror_status SET state = 'FENCED' WHERE table_no = 2")
    keeper.published({1: 0, 2: 0})
    lake.commit(append("t", add("a")))
    publish_all(mirror)
    keeper.published({1: 1})
    deadline = time.monotonic() + 30
    while checksum(lake, 1) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    keeper.close()

    assert log_files(lake.objects, "t") == [f"{0:020}.json", f"{1:020}.crc", f"{1:020}.json"]
    assert log_files(lake.objects, "u") == [f"{0:020}.json"]


def test_spark_goes_on_from_our_checksum(tmp_path: Path, spark: Any) -> None:
    """Spark compares a checksum with the state that it read, and fails if they differ; its next one counts on."""
    address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
    with FilledLake(address, tmp_path, local_root(tmp_path), fence=False) as lake:
        files = [lake.write("t", f"{n}.parquet", rows(n)) for n in range(3)]
        lake.commit(create("t", files[0]), apps=(AppTransaction("job", 1),))
        lake.commit(append("t", files[1]))
        lake.commit(append("t", files[2]))
        lake.commit(remove("t", files[0]))
        pool = Pool(lambda: open_database(address))
        mirror = Mirror(pool, open_object_store)
        publish_all(mirror)
        put_newest(lake, pool, 3)
        mirror.close()
        pool.close()
        spark.sql(f"INSERT INTO delta.`{lake.root}/t` VALUES (10, 'ten')")
        ours, theirs = checksum(lake, 3), checksum(lake, 4)

    assert ours is not None
    assert theirs is not None
    assert (ours["numFiles"], theirs["numFiles"]) == (2, 3)
    assert theirs["setTransactions"] == ours["setTransactions"]
    assert theirs["protocol"] == ours["protocol"]
