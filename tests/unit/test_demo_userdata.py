"""The user's own files as input: what is a table, what is not, and checks that see what is wrong."""

from __future__ import annotations

from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from deltalakedb.demo import engine
from deltalakedb.demo.batches import read
from deltalakedb.demo.checks import Pin
from deltalakedb.demo.userdata import UserData, input_files
from deltalakedb.errors import TxnLogValidationError
from deltalakedb.storage_options import StorageOptions

ROWS = pa.table({"n": list(range(10)), "s": [None if n % 3 else f"é{n}" for n in range(10)]})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table as Parquet, one as CSV, one as a folder, and things that are no tables."""
    folder = tmp_path / "data"
    (folder / "parts" / "day=1").mkdir(parents=True)
    (folder / "empty").mkdir()
    pyarrow.parquet.write_table(ROWS, folder / "numbers.parquet")
    pyarrow.csv.write_csv(ROWS, folder / "text.csv")
    pyarrow.parquet.write_table(ROWS.slice(0, 3), folder / "parts" / "a.parquet")
    pyarrow.parquet.write_table(ROWS.slice(3, 2), folder / "parts" / "b.parquet")
    (folder / "parts" / "_SUCCESS").touch()
    (folder / "README.md").write_text("about these files")
    (folder / ".hidden.csv").write_text("a\n1\n")
    return folder


def test_every_file_and_folder_of_data_is_a_table(data: Path) -> None:
    """Parquet and CSV files and folders of them are tables; markers, hidden files and others are not."""
    assert {table: [file.name for file in files] for table, files in input_files(data).items()} == {
        "numbers": ["numbers.parquet"],
        "parts": ["a.parquet", "b.parquet"],
        "text": ["text.csv"],
    }


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((), "no tables"),
        (("a.parquet", "a.csv"), "twice"),
        (("a b.csv",), "cannot be a table"),
        (("t/a.parquet", "t/a.csv"), "mixes"),
    ],
)
def test_folders_that_make_no_tables_are_refused(tmp_path: Path, files: tuple[str, ...], says: str) -> None:
    """Each mistake has its own message."""
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()

    with pytest.raises(TxnLogValidationError, match=says):
        input_files(tmp_path)


def test_rows_are_dealt_out_once(data: Path, tmp_path: Path) -> None:
    """All tables are cut into the same number of batches, rows in order; where there are too few, batches are empty."""
    workload = UserData(tmp_path, input_files(data), batches=4)

    assert dict(workload.tables) == {"numbers": "numbers", "parts": "parts", "text": "text"}
    assert sorted(step.batch for plan in workload.steps(3) for step in plan) == [0, 1, 2, 3]  # type: ignore[union-attr]
    for table, count in (("numbers", 10), ("text", 10), ("parts", 5)):
        batches = [read(tmp_path, table, batch) for batch in range(4)]
        rows = [n for batch in batches if batch is not None for n in batch["n"].to_pylist()]
        assert rows == list(range(count))


def test_a_table_without_rows_stages_nothing(data: Path, tmp_path: Path) -> None:
    """A table without rows is left out, and the others are not."""
    pyarrow.parquet.write_table(ROWS.slice(0, 0), data / "none.parquet")

    assert list(UserData(tmp_path, input_files(data), batches=2).tables) == ["numbers", "parts", "text"]


def test_only_tables_without_rows_are_refused(tmp_path: Path) -> None:
    """With nothing to stage there is nothing to do, and that is said."""
    data = tmp_path / "data"
    data.mkdir()
    pyarrow.parquet.write_table(ROWS.slice(0, 0), data / "none.parquet")

    with pytest.raises(TxnLogValidationError, match="no table has a row"):
        UserData(tmp_path, input_files(data), batches=2)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A file that is not what its name says is an error of ours that names the table."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "broken.parquet").write_bytes(b"PAR1 not really PAR1")

    with pytest.raises(TxnLogValidationError, match="'broken'"):
        UserData(tmp_path, input_files(data), batches=2)


def test_times_of_day_in_text_stay_text(tmp_path: Path) -> None:
    """What a CSV calls a time of day has no type in Delta, so it stays the text it was."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "shifts.csv").write_text("id,begins\n1,08:00:00\n2,16:30:00\n")

    UserData(tmp_path, input_files(data), batches=1)

    rows = read(tmp_path, "shifts", 0)
    assert rows is not None
    assert rows.to_pydict() == {"id": [1, 2], "begins": ["08:00:00", "16:30:00"]}


@pytest.mark.parametrize("name", ["duckdb", "delta-rs"])
def test_checks_compare_rows_with_the_input(data: Path, tmp_path: Path, name: str) -> None:
    """Equal rows pass; a row too few, too many, changed, or there twice instead of another fails."""
    reader = {r.name: r for r in (engine.DuckDbReader(StorageOptions()), engine.DeltaRsReader(StorageOptions()))}[name]
    workload = UserData(tmp_path, input_files(data), batches=4)
    locations = {"numbers": str(tmp_path / "lake" / "numbers")}
    changed = ROWS.set_column(1, "s", pa.array(["other", *ROWS["s"].to_pylist()[1:]]))
    twice = pa.concat_tables([ROWS.slice(0, 9), ROWS.slice(0, 1)])
    wrong = []
    for version, rows in enumerate((ROWS, ROWS.slice(1), pa.concat_tables([ROWS, ROWS.slice(0, 1)]), changed, twice)):
        deltalake.write_deltalake(locations["numbers"], rows, mode="overwrite")
        (check,) = workload.check(reader, [Pin(commit_seq=1, versions={"numbers": version}, locations=locations)], [])
        wrong.append(check.wrong)

    assert wrong == [0, 1, 1, 2, 2]
