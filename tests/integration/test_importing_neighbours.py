"""Imports of what a lake has already, of what lies in another table's place, and of what another lake has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import deltalakedb
from deltalakedb import Lake, TxnLogImportError
from deltalakedb.program import app
from tests.golden_tables.roundtrip import files_of


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An embedded lake."""
    with deltalakedb.connect(tmp_path / "lake") as lake:
        yield lake


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of delta-rs with three versions."""
    for n in range(3):
        deltalake.write_deltalake(str(tmp_path / "source"), pa.table({"id": [n]}), mode="append")
    return tmp_path / "source"


def verb(*arguments: object) -> tuple[int, str]:
    """Exit code and output of the program."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


class TestSpelling:
    """A table has one place, however that is written."""

    @pytest.mark.parametrize("spelled", ["file:{}", "file://localhost{}/", "{}/.", "{}/../source", "file:////{}"])
    def test_of_the_same_table(self, lake: Lake, table: Path, spelled: str) -> None:
        """An import goes on by another spelling, and no second one begins under another name."""
        lake.import_table("t", table, cutover=False)
        again = lake.import_table("t", spelled.format(table), cutover=False)

        assert (again.versions, again.already, again.source) == (0, 3, table.as_uri())
        with pytest.raises(TxnLogImportError, match=r"import as 't' .* has begun"):
            lake.import_table("u", spelled.format(table), cutover=False)

    def test_by_symbolic_links(self, lake: Lake, table: Path) -> None:
        """Through a link a table is the same table, and what lies in it lies in it; a dry run says so too."""
        lake.import_table("t", table, grace=0)
        link, above = table.parent / "link", table.parent / "above"
        link.symlink_to(table)
        above.symlink_to(table.parent)
        deltalake.write_deltalake(str(table / "inner"), pa.table({"id": [1]}))
        before = files_of(table)

        assert lake.import_table("t", link).state == "adopted"
        for place in (link, above / "source", link / "inner"):
            with pytest.raises(TxnLogImportError, match=r"symbolic links .*table 't' .* lies there"):
                lake.import_table("u", place, dry_run=True)
        assert files_of(table) == before

    def test_of_the_lakes_own_root(self, lake: Lake, tmp_path: Path) -> None:
        """A table around the lake is refused, by a link too."""
        deltalake.write_deltalake(str(tmp_path), pa.table({"id": [1]}))
        (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)

        for place in (tmp_path, tmp_path.parent / f"{tmp_path.name}-link"):
            with pytest.raises(TxnLogImportError, match="the lake's own root"):
                lake.import_table("u", place)

    def test_of_a_mirror_targets_root(self, lake: Lake, table: Path) -> None:
        """Nor is a table imported from where a mirror publishes."""
        lake.act("target-add", target="copies", kind="copy", root=table.as_uri())

        with pytest.raises(TxnLogImportError, match="mirror target 'copies' publishes"):
            lake.import_table("t", table)


def test_a_table_that_was_made_here(lake: Lake) -> None:
    """It is the lake's already, and is said to be; under another name it is refused."""
    lake.append("mine", pa.table({"id": [1]}))
    place = lake.table("mine").location
    report = lake.import_table("mine", place)

    assert (report.state, report.adopted_version, report.versions) == ("adopted", None, 0)
    with pytest.raises(TxnLogImportError, match=r"table 'mine' .* lies there"):
        lake.import_table("theirs", place)


def test_no_way_back_to_fewer_versions(lake: Lake, table: Path) -> None:
    """What was imported is not taken back by asking for less."""
    lake.import_table("t", table, cutover=False)

    with pytest.raises(TxnLogImportError, match="version 2 of 't' already"):
        lake.import_table("t", table, up_to_version=1)


class TestAnotherLakes:
    """A table with a writer fence on it belongs to somebody."""

    @pytest.fixture
    def other(self, table: Path, tmp_path: Path) -> Iterator[Lake]:
        """The lake that has it."""
        with deltalakedb.connect(tmp_path / "other") as other:
            other.import_table("theirs", table, grace=0)
            yield other

    def test_nothing_is_begun(self, lake: Lake, other: Lake, table: Path) -> None:
        """It is refused, named with the version that fenced it and the lake, before anything is published or written; a
        dry run says so beforehand, and with force what would be passed over."""
        before = files_of(table)
        planned = lake.import_table("t", table, dry_run=True)
        forced = lake.import_table("t", table, dry_run=True, force=True)

        with pytest.raises(TxnLogImportError, match="writer fence of another lake") as refused:
            lake.import_table("t", table, grace=0)
        assert len(planned.refused) == 1
        assert planned.refused[0] in str(refused.value)
        assert planned.refused[0].startswith(f"version 3 (_delta_log/{3:020}.json): ")
        assert re.search(r"another lake \([0-9a-f-]{36}\): `deltalakedb release` there", planned.refused[0])
        assert (forced.refused, forced.forced) == ((), planned.refused)
        assert lake.tables() == []
        assert files_of(table) == before
        assert lake.import_table("t", table, cutover=False).state == "imported"

    def test_released_there(self, lake: Lake, other: Lake, table: Path) -> None:
        """Once it is released there and that is published, it is anybody's."""
        other.release("theirs")
        other.sync("theirs")

        assert lake.import_table("t", table, grace=0).adopted_version == 5

    def test_dropped_without_release(self, other: Lake, table: Path) -> None:
        """The fence of the lake itself is told apart: its table was dropped and not released."""
        other.act("drop", table="theirs")

        with pytest.raises(TxnLogImportError, match="fence of this lake, from a table that was dropped"):
            other.import_table("again", table, grace=0)
        assert other.import_table("again", table, grace=0, force=True).adopted_version == 4


def test_two_importers_at_once(tmp_path: Path, table: Path) -> None:
    """Two processes import one table at the same time: it comes over once, whoever is told what."""
    deltalakedb.connect(tmp_path / "lake").close()
    target = f"deltasql://sqlite/{tmp_path}/lake/lake.db?table=t"
    command = [sys.executable, "-m", "deltalakedb", "import", str(table), target, "--grace", "0.5", "--output", "json"]

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    with ThreadPoolExecutor(3) as threads:
        ended = list(threads.map(run, range(3)))

    assert any(one.returncode == 0 for one in ended), ended
    for one in ended:
        if one.returncode:
            assert "IMPORT_UNDER_WAY" in one.stderr or "has begun" in one.stderr, one.stderr
        else:
            assert json.loads(one.stdout)["adopted_version"] == 3
    with deltalakedb.connect(tmp_path / "lake") as lake:
        assert lake.tables() == ["t"]
        assert lake.version("t") == 3
        lake.append("t", pa.table({"id": [3]}))
    rows = deltalake.DeltaTable(str(table)).to_pyarrow_table().sort_by("id")
    assert rows["id"].to_pylist() == [0, 1, 2, 3]


def test_releasing_again(tmp_path: Path, table: Path) -> None:
    """`deltalakedb release` may be said twice, and names the version both times."""
    with deltalakedb.connect(tmp_path / "lake") as lake:
        lake.import_table("t", table, grace=0)
    first, second = (verb("release", "t", "--store", tmp_path / "lake", "--output", "json") for _ in range(2))

    assert first[0] == second[0] == 0, second
    assert json.loads(first[1]) == json.loads(second[1]) == {"table": "t", "version": 4}
