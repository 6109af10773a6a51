"""Existing tables come into an embedded lake, are taken over from writers that are at work, and are given back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb import Lake, TxnLogImportError, TxnLogRejectedError, TxnLogValidationError, failpoints
from deltalakedb.features import FENCE_FEATURE
from tests.golden_tables.replay import read_log
from tests.golden_tables.roundtrip import files_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An embedded lake."""
    with deltalakedb.connect(tmp_path / "lake") as lake:
        yield lake


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of delta-rs with three versions."""
    folder = tmp_path / "source"
    for n in range(3):
        write(folder, n)
    return folder


def write(table: Path, *ids: int) -> None:
    """Append rows as somebody else."""
    deltalake.write_deltalake(str(table), pa.table({"id": list(ids)}), mode="append")


def by_path(table: Path, version: int | None = None) -> list[int]:
    """Ids that delta-rs reads."""
    rows = deltalake.DeltaTable(str(table), version=version).to_pyarrow_table()
    return _ids(rows)


def in_lake(lake: Lake, name: str = "t", version: int | None = None) -> list[int]:
    """Ids that the lake reads."""
    return _ids(lake.table(name, version=version).to_arrow())


def _ids(rows: pa.Table) -> list[int]:
    found: list[int] = [row["id"] for row in rows.to_pylist()]
    return sorted(found)


def log_file(table: Path, version: int) -> Path:
    return table / "_delta_log" / f"{version:020}.json"


def test_a_table_becomes_the_lakes(lake: Lake, table: Path) -> None:
    """Its versions and their times are the lake's; the next one takes it over; from then on the lake writes it, where
    it lies, and nobody else can."""
    times = [log_file(table, version).stat().st_mtime_ns // 1_000_000 for version in range(3)]
    report = lake.import_table("t", table, grace=0)

    assert (report.state, report.newest, report.versions, report.adopted_version) == ("adopted", 2, 4, 3)
    assert [in_lake(lake, version=version) for version in range(4)] == [[0], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert [int(lake.table("t", version=n).timestamp.timestamp() * 1000) for n in range(3)] == times
    lake.append("t", pa.table({"id": [7]}))
    assert by_path(table) == [0, 1, 2, 7]
    assert lake.version("t") == 4
    with pytest.raises(Exception, match=FENCE_FEATURE):
        write(table, 9)


def test_again(lake: Lake, table: Path) -> None:
    """An import that is over says so and changes nothing."""
    first = lake.import_table("t", table, grace=0)
    before = files_of(table)
    again = lake.import_table("t", table, grace=0)

    assert (again.state, again.adopted_version, again.table_id) == ("adopted", 3, first.table_id)
    assert again.versions == 0
    assert files_of(table) == before


def test_without_cut_over(lake: Lake, table: Path) -> None:
    """The table stands in the lake read-only, nothing is written at its source, and a later import goes on."""
    before = files_of(table)
    report = lake.import_table("t", table, cutover=False)

    assert report.state == "imported"
    assert files_of(table) == before
    assert in_lake(lake) == [0, 1, 2]
    with pytest.raises(TxnLogRejectedError, match="TABLE_READ_ONLY"):
        lake.append("t", pa.table({"id": [7]}))
    write(table, 3)
    assert lake.import_table("t", table, cutover=False).versions == 1
    report = lake.import_table("t", table, grace=0)
    assert (report.already, report.adopted_version) == (4, 4)


def test_a_dry_run(lake: Lake, table: Path) -> None:
    """It says what would happen, and nothing does."""
    before = files_of(table)
    report = lake.import_table("t", table, dry_run=True)

    assert (report.state, report.versions, report.files, report.table_id) == ("planned", 3, 3, None)
    assert report.features == ("appendOnly", "invariants")
    assert [writer.engine.split(":")[0] for writer in report.writers] == ["delta-rs"]
    assert files_of(table) == before
    assert lake.tables() == []


def test_up_to_a_version(lake: Lake, table: Path) -> None:
    """Only what was asked for comes over; the rest may come later."""
    report = lake.import_table("t", table, up_to_version=1)

    assert (report.state, report.newest, in_lake(lake)) == ("imported", 1, [0, 1])
    assert lake.import_table("t", table, grace=0).adopted_version == 3


def test_a_log_without_its_beginning(lake: Lake, table: Path) -> None:
    """State is told from the oldest version that can be; older versions are refused by name."""
    deltalake.DeltaTable(str(table), version=1).create_checkpoint()
    write(table, 3)
    log_file(table, 0).unlink()
    log_file(table, 1).rename(log_file(table, 1).with_suffix(".gone"))
    report = lake.import_table("t", table, grace=0)

    assert (report.baseline, report.newest, report.history) == (1, 3, 0)
    assert [in_lake(lake, version=n) for n in (1, 2, 3)] == [[0, 1], [0, 1, 2], [0, 1, 2, 3]]
    with pytest.raises(TxnLogValidationError, match="1 to 4"):
        lake.table("t", version=0)


def test_history_is_kept_to_be_looked_at(lake: Lake, table: Path) -> None:
    """Commits from before the baseline are kept, and no state can be asked of them."""
    deltalake.DeltaTable(str(table), version=2).create_checkpoint()
    log_file(table, 0).unlink()
    report = lake.import_table("t", table, grace=0)

    assert (report.baseline, report.history) == (2, 1)
    with pytest.raises(TxnLogValidationError, match="version 1"):
        lake.table("t", version=1)


class TestRefused:
    """What stands against an import is named, before anything is published."""

    def refused(self, lake: Lake, table: Path, match: str) -> None:
        before = files_of(table)
        with pytest.raises(deltalakedb.TxnLogError, match=match):
            lake.import_table("t", table)
        assert files_of(table) == before
        assert lake.tables() == []

    def test_a_gap(self, lake: Lake, table: Path) -> None:
        """A commit that is missing."""
        log_file(table, 1).unlink()

        self.refused(lake, table, r"GAP.*00000000000000000001\.json")

    def test_corruption(self, lake: Lake, table: Path) -> None:
        """A commit that was cut off."""
        whole = log_file(table, 2).read_text()
        log_file(table, 2).write_text(whole[: len(whole) // 2])

        self.refused(lake, table, r"CORRUPT.*00000000000000000002\.json")

    def test_a_file_elsewhere(self, lake: Lake, table: Path) -> None:
        """A path that leads out of the table, unless its root is allowed."""
        elsewhere = table.parent / "elsewhere"
        elsewhere.mkdir()
        name = next(table.glob("*.parquet")).name
        (table / name).rename(elsewhere / name)
        for version in range(3):
            text = log_file(table, version).read_text()
            log_file(table, version).write_text(text.replace(f'"path":"{name}"', f'"path":"{elsewhere}/{name}"'))

        self.refused(lake, table, "--allow-root")
        assert lake.import_table("t", table, allow_roots=[str(elsewhere)], grace=0).state == "adopted"

    def test_a_reader_feature(self, lake: Lake, table: Path) -> None:
        """Something that readers must know and we do not."""
        protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["odd"], "writerFeatures": ["odd"]}
        log_file(table, 3).write_text(json.dumps({"protocol": protocol}) + "\n")

        self.refused(lake, table, "odd")

    def test_no_table(self, lake: Lake, tmp_path: Path) -> None:
        """A folder without a log."""
        (tmp_path / "nothing").mkdir()

        self.refused(lake, tmp_path / "nothing", "no _delta_log")

    def test_a_checksum(self, lake: Lake, table: Path) -> None:
        """A checksum that disagrees can be forced, and is then told."""
        checksum = log_file(table, 2).with_suffix(".crc")
        checksum.write_text(json.dumps({"numFiles": 9, "tableSizeBytes": 1}))

        self.refused(lake, table, r"checksum disagrees.*--force")
        assert "checksum" in lake.import_table("t", table, force=True, grace=0).forced[0]


def test_the_name_of_another_table(lake: Lake, table: Path, tmp_path: Path) -> None:
    """Two tables cannot have one name."""
    lake.import_table("t", table, cutover=False)
    write(tmp_path / "other", 1)

    with pytest.raises(TxnLogImportError, match="under another name"):
        lake.import_table("t", tmp_path / "other")


def test_another_lakes_table(lake: Lake, table: Path, tmp_path: Path) -> None:
    """A table with the fence of another lake is not taken from it, unless that is forced: the other lake is lost."""
    with deltalakedb.connect(tmp_path / "other") as other:
        other.import_table("t", table, grace=0)

    with pytest.raises(TxnLogImportError, match="writer fence of another lake"):
        lake.import_table("t", table, grace=0)
    assert lake.import_table("t", table, grace=0, force=True).adopted_version == 4


class TestRaces:
    """The object store decides who has the next version."""

    def test_somebody_was_faster(self, lake: Lake, table: Path) -> None:
        """What others commit while we import is imported, and we take the version after it."""
        seen = []

        def watch(progress: deltalakedb.importing.Progress) -> None:
            if progress.phase == "adopting":
                seen.append([writer.engine.split(":")[0] for writer in progress.writers])
                write(table, 10)

        report = lake.import_table("t", table, grace=0, watch=watch)

        assert (report.newest, report.adopted_version, seen) == (3, 4, [["delta-rs"]])
        assert in_lake(lake) == [0, 1, 2, 10]

    def test_everybody_is_faster(self, lake: Lake, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After so many attempts it gives up, everything is imported, and the next import takes the table over."""
        monkeypatch.setattr("deltalakedb.importing.cutover.ATTEMPTS", 3)
        failpoints.arm("cutover.claiming", lambda: write(table, 10))
        try:
            with pytest.raises(TxnLogImportError, match="in 3 attempts"):
                lake.import_table("t", table, grace=0)
        finally:
            failpoints.disarm()

        assert in_lake(lake) == [0, 1, 2, 10, 10, 10] == by_path(table)
        assert lake.import_table("t", table, grace=0).adopted_version == 6

    def test_a_writer_that_overwrites(self, lake: Lake, table: Path) -> None:
        """Our version does not count before the grace is over: if it is overwritten, it is that one that is imported."""
        ours = log_file(table, 3)

        def overwrite() -> None:
            while not ours.exists():
                time.sleep(0.01)
            ours.replace(ours.with_suffix(".lost"))
            write(table, 11)

        writer = threading.Thread(target=overwrite)
        writer.start()
        report = lake.import_table("t", table, grace=2)
        writer.join()

        assert (report.newest, report.adopted_version) == (3, 4)
        assert in_lake(lake) == [0, 1, 2, 11] == by_path(table)

    def test_a_live_writer(self, lake: Lake, table: Path) -> None:
        """Cut over from a writer that never pauses: nothing that it was told is committed is lost, nothing is twice."""
        committed: list[int] = []
        errors: list[str] = []

        def keep_writing() -> None:
            for n in range(100, 100_000):
                try:
                    write(table, n)
                except Exception as error:
                    errors.append(str(error))
                    return
                committed.append(n)

        writer = threading.Thread(target=keep_writing)
        writer.start()
        while len(committed) < 5:
            time.sleep(0.01)
        report = lake.import_table("t", table, grace=1)
        writer.join(60)

        assert report.adopted_version is not None
        assert FENCE_FEATURE in errors[0] or "Protocol changed" in errors[0]
        with pytest.raises(Exception, match=FENCE_FEATURE):
            write(table, 9)
        assert in_lake(lake) == [0, 1, 2, *committed] == by_path(table)


def importing(table: Path, lake: Path, *more: str) -> subprocess.Popen[bytes]:
    """The import as a process of its own."""
    target = f"deltasql://sqlite/{lake}/lake.db?table=t"
    verb = [sys.executable, "-m", "deltalakedb", "import", str(table), target, *more]
    return subprocess.Popen(verb, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class TestKilled:
    """An import that is killed goes on."""

    def test_before_it_has_won(self, tmp_path: Path, table: Path) -> None:
        """Killed within the grace, it finds the version that it wrote by its transaction id, and takes it as its own."""
        deltalakedb.connect(tmp_path / "lake").close()
        process = importing(table, tmp_path / "lake", "--grace", "60")
        while not log_file(table, 3).exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        written = log_file(table, 3).read_bytes()
        with deltalakedb.connect(tmp_path / "lake") as lake:
            with pytest.raises(TxnLogRejectedError, match="TABLE_READ_ONLY"):
                lake.append("t", pa.table({"id": [7]}))
            report = lake.import_table("t", table, grace=0)

            assert report.adopted_version == 3
            assert log_file(table, 3).read_bytes() == written
            lake.append("t", pa.table({"id": [7]}))
        assert by_path(table) == [0, 1, 2, 7]

    def test_at_any_time(self, tmp_path: Path) -> None:
        """Killed again and again, later each time, the table comes over whole."""
        table = tmp_path / "source"
        for n in range(40):
            write(table, n)
        deltalakedb.connect(tmp_path / "lake").close()
        patience, kills = 0.7, 0
        while True:
            process = importing(table, tmp_path / "lake", "--grace", "0.2", "--output", "json")
            try:
                out, err = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                patience, kills = patience * 1.5, kills + 1
                continue
            assert process.returncode == 0, err.decode()
            break

        assert json.loads(out)["adopted_version"] == 40
        assert kills
        with deltalakedb.connect(tmp_path / "lake") as lake:
            assert in_lake(lake) == list(range(40))
            assert [len(in_lake(lake, version=n)) for n in (0, 30, 39, 40)] == [1, 31, 40, 40]


def test_release(lake: Lake, table: Path) -> None:
    """The way back: a last version without the fence, read-only here, and in it everything that was committed."""
    lake.import_table("t", table, grace=0)
    lake.append("t", pa.table({"id": [7]}))
    lake.release("t")
    lake.sync("t")

    features = read_log(table).at(5).protocol["writerFeatures"]
    assert FENCE_FEATURE not in features
    assert by_path(table) == [0, 1, 2, 7]
    with pytest.raises(TxnLogRejectedError, match="TABLE_READ_ONLY"):
        lake.append("t", pa.table({"id": [8]}))


def test_given_up(lake: Lake, table: Path) -> None:
    """An import that is not wanted, and a table that was released, can be dropped; then it may be imported again."""
    lake.import_table("t", table, cutover=False)
    lake.act("drop", table="t")
    assert lake.tables() == []

    lake.import_table("t", table, grace=0)
    lake.release("t")
    lake.sync("t")
    with pytest.raises(TxnLogImportError, match="released"):
        lake.import_table("t", table, grace=0)
    lake.act("drop", table="t")
    report = lake.import_table("u", table, grace=0)
    assert (report.versions, report.adopted_version) == (6, 5)
    assert in_lake(lake, "u") == [0, 1, 2]


def test_the_verb(tmp_path: Path, table: Path) -> None:
    """The program says beforehand what would happen, does it, and says what is refused with exit code 1."""
    deltalakedb.connect(tmp_path / "lake").close()
    dry = importing(table, tmp_path / "lake", "--dry-run")
    out, err = dry.communicate(timeout=60)
    assert dry.returncode == 0, err.decode()
    assert b"would be imported" in out

    done = importing(table, tmp_path / "lake", "--grace", "0", "--output", "json")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err.decode()
    assert json.loads(out)["state"] == "adopted"

    os.unlink(log_file(table, 0))
    refused = importing(table, tmp_path / "lake2", "--dry-run")
    out, err = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert b"next" in err
