"""The importer is killed at every step that it has, while others write the table: it comes over whole, and once."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import deltalakedb
from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool, open_database
from deltalakedb.ids import import_txn_id
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.writing import write_log
from tests.golden_tables.roundtrip import compare
from tests.integration.mortal_import import Work
from tests.mortuary import Mortuary

BASELINE = 5
COMMITS = 9
RIVALS = {"rival-0.parquet": 100, "rival-1.parquet": 101}
"""Files of others, with the id in each."""
PLACES = ("import.", "cutover.", "local.written", "local.flushed", "local.linked", "local.named")
"""How the failpoints of an import begin."""


@pytest.fixture(scope="module")
def mortuary() -> Iterator[Mortuary]:
    """Forks importers."""
    with Mortuary("tests.integration.mortal_import") as mortuary:
        yield mortuary


def make_table(table: Path) -> None:
    """A table with history, a baseline of several events, and commits; and files that others are about to add."""
    for n in range(COMMITS):
        deltalake.write_deltalake(str(table), pa.table({"id": [n]}), mode="append")
        if n == BASELINE:
            deltalake.DeltaTable(str(table)).create_checkpoint()
    (table / "_delta_log" / f"{0:020}.json").unlink()
    for name, number in RIVALS.items():
        pq.write_table(pa.table({"id": [number]}), table / name)


def commits(table: Path) -> dict[int, bytes]:
    """What lies in the log."""
    return {int(file.stem): file.read_bytes() for file in (table / "_delta_log").glob("*.json") if file.stem.isdigit()}


def is_adoption(commit: bytes) -> bool:
    return bool(json.loads(commit.splitlines()[0]).get("commitInfo", {}).get("operation") == "ADOPT")


def check_whole(lake: deltalakedb.Lake, table: Path, copy: Path) -> None:
    """SQL has each version once, decided once, and tells the same table as the log at every version."""
    pool = Pool(lambda: open_database(lake.settings.address))
    with pool.connection() as database:
        info = Catalog(database).table("t")
        rows = database.query("SELECT version FROM dl_table_versions ORDER BY version")
        decided = database.query("SELECT txn_id, committed FROM dl_transactions")
    shutil.copytree(table, copy, ignore=shutil.ignore_patterns("_delta_log"))
    write_log(pool, info, Place(open_object_store(str(copy)), ""))
    pool.close()
    versions = sorted(commits(table))

    assert [version for (version,) in rows] == versions == list(range(1, versions[-1] + 1))
    assert sorted(decided) == sorted((import_txn_id(info.table_id, version), True) for version in versions)
    assert compare(table, copy) == []


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("passes", [0, 1, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3, 5, 8))])
def test_killed_at_every_step_it_goes_on_from_there(tmp_path: Path, mortuary: Mortuary, passes: int, part: int) -> None:
    """At each failpoint, after so many passes: the next import finishes. Nothing is lost, nothing comes twice, no
    version is written over, and a version of our own that stands is found again and is the one that takes over."""
    lake_folder, table = tmp_path / "lake", tmp_path / "table"
    deltalakedb.connect(lake_folder).close()
    make_table(table)
    for folder in (lake_folder, table):
        shutil.copytree(folder, tmp_path / f"fresh-{folder.name}")
    unreached = []
    places = [place for place in mortuary.places() if place.startswith(PLACES)]
    assert len(places) >= 15
    for place in places[part::2]:
        for folder in (lake_folder, table, tmp_path / "copy"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (lake_folder, table):
            shutil.copytree(tmp_path / f"fresh-{folder.name}", folder)
        work = Work(lake=str(lake_folder), table=str(table), report=str(tmp_path / "report"))
        ended = mortuary.run(replace(work, kill_at=place, passes=passes, rivals=tuple(RIVALS)))
        if ended == 0:
            unreached.append(place)
        assert ended in (0, -signal.SIGKILL), place
        before = commits(table)
        assert mortuary.run(work) == 0, place
        report = json.loads((tmp_path / "report").read_bytes())
        after = commits(table)
        ours = [version for version, commit in after.items() if is_adoption(commit)]

        assert {version: after[version] for version in before} == before, place
        assert ours == [report["adopted_version"]] == [max(after)], place
        assert not is_adoption(before[max(before)]) or max(before) == max(after), place
        with deltalakedb.connect(lake_folder) as lake:
            check_whole(lake, table, tmp_path / "copy")
            lake.append("t", pa.table({"id": [7_000]}))
        expected = {
            *range(COMMITS),
            *(n for file, n in RIVALS.items() if any(file.encode() in c for c in after.values())),
        }
        found = deltalake.DeltaTable(str(table)).to_pyarrow_table().sort_by("id")["id"].to_pylist()
        assert found == sorted({*expected, 7_000}), place

    assert passes > 0 or unreached == []
