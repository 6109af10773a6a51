"""Data files made durable beside their writers: in order, together, and never told as durable after a failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.parquet import DataFiles, DataFileStores, Flusher
from deltalakedb.parquet.files import flush_ahead
from deltalakedb.parquet.flushing import WAITING_BYTES
from deltalakedb.storage_options import StorageOptions

DATA = pa.py_buffer(b"some bytes")


@pytest.fixture
def stores() -> Iterator[DataFileStores]:
    stores = DataFileStores(StorageOptions())
    yield stores
    stores.close()


@pytest.fixture
def flusher() -> Iterator[Flusher]:
    flusher = Flusher()
    yield flusher
    flusher.close()


def written(stores: DataFileStores, folder: Path, names: str) -> DataFiles:
    files = stores.open(folder.as_uri())
    for name in names.split():
        files.put(name, DATA)
    return files


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("urgent", [False, True])
def test_all_are_told_in_order(
    stores: DataFileStores, flusher: Flusher, tmp_path: Path, count: int, urgent: bool
) -> None:
    """However many come at once, each is told once, in the order in which they came; then nothing is under way."""
    told: list[tuple[int, Exception | None]] = []
    for number in range(count):
        files = written(stores, tmp_path / str(number), "a/b=1/c.parquet d.parquet")
        flusher.flush([files], 20, lambda error, number=number: told.append((number, error)), urgent=urgent)  # type: ignore[misc]
    flusher.close()

    assert told == [(number, None) for number in range(count)]
    assert flusher.idle
    assert (tmp_path / "0/a/b=1/c.parquet").read_bytes() == b"some bytes"


def test_one_that_fails_fails_alone(stores: DataFileStores, flusher: Flusher, tmp_path: Path) -> None:
    """Of few files each is flushed by itself: whose is gone hears of it, each time it asks, the others are durable."""
    told: list[Exception | None] = []
    lost = written(stores, tmp_path / "lost", "a.parquet")
    (tmp_path / "lost/a.parquet").unlink()
    for files in (written(stores, tmp_path / "kept", "a.parquet"), lost, lost):
        flusher.flush([files], 10, told.append, urgent=True)
    flusher.close()

    assert told[0] is None
    assert all(isinstance(error, TxnLogObjectStoreError) for error in told[1:])
    # Even where the file is back: what failed may have lost something.
    (tmp_path / "lost/a.parquet").write_bytes(b"other bytes")
    with pytest.raises(TxnLogObjectStoreError, match="cannot flush"):
        lost.flush()


def test_a_failed_flush_of_a_disk_is_everybodys(
    stores: DataFileStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells an error of writing once; whoever had begun a file by then must not take the next flush for theirs."""
    many = [written(stores, tmp_path / str(number), "a.parquet") for number in range(8)]
    other = written(stores, tmp_path / "other", "a.parquet")
    # No disk here fails when told to: this is the answer of one that does.
    answers = iter([-1])
    monkeypatch.setattr("deltalakedb.parquet.files._syncfs", lambda descriptor: next(answers, 0))
    flush_ahead(many)

    for files in (*many, other):
        with pytest.raises(TxnLogObjectStoreError, match="cannot flush"):
            files.flush()
    late = written(stores, tmp_path / "late", "a b c d e f g h")
    late.flush()
    late.flush()


def test_too_much_waits(stores: DataFileStores, flusher: Flusher, tmp_path: Path) -> None:
    """Who gives more than may wait at once goes on only when what is before is done; nobody waits for room alone."""
    held = threading.Event()
    told: list[int] = []

    def first(error: Exception | None) -> None:
        assert held.wait(60)
        told.append(0)

    flusher.flush([written(stores, tmp_path, "a")], 2 * WAITING_BYTES, first, urgent=True)
    given = threading.Thread(
        target=lambda: flusher.flush([written(stores, tmp_path, "b")], 1, lambda _: told.append(1), urgent=False)
    )
    given.start()
    given.join(0.05)
    assert given.is_alive()
    held.set()
    given.join(60)
    flusher.close()

    assert told == [0, 1]


def test_what_comes_after_a_flush_may_fail(
    stores: DataFileStores, flusher: Flusher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of whoever is told is logged, and the next ones are told all the same."""
    told: list[Exception | None] = []

    def fail(error: Exception | None) -> None:
        raise ValueError("mine")

    flusher.flush([written(stores, tmp_path, "a")], 10, fail, urgent=True)
    flusher.flush([written(stores, tmp_path, "b")], 10, told.append, urgent=True)
    flusher.close()

    assert told == [None]
    assert "what comes after a flush failed" in caplog.text
