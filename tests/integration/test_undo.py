"""Undoing committed transactions: all tables go back, history keeps both, and what stands on it is never pulled away."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import deltalake
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb import Lake, RemoveFile

WRITE_SERIALIZABLE = {"delta.isolationLevel": "WriteSerializable"}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with deltalakedb.connect(tmp_path / "lake") as lake:
        for name in ("orders", "items"):
            lake.create_table(name, rows().schema, properties=WRITE_SERIALIZABLE)
        yield lake


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


def ids(lake: Lake, name: str) -> list[Any]:
    return sorted(lake.table(name).to_arrow()["id"].to_pylist())


def paths(lake: Lake, name: str) -> list[str]:
    return [str(row["path"]) for batch in lake.table(name).files(columns=["path"]) for row in batch.to_pylist()]


def removal(lake: Lake, name: str) -> list[RemoveFile]:
    return [RemoveFile(path=path) for path in paths(lake, name)]


def both(lake: Lake, *numbers: int) -> deltalakedb.Transaction:
    with lake.begin() as tx:
        for name in ("orders", "items"):
            tx.stage_table(name, rows(*numbers))
    return tx


def test_all_tables_go_back(lake: Lake) -> None:
    """Rows that came go, in every table at one commit; readers by path see it, and history tells what it was."""
    both(lake, 1)
    wrong = both(lake, 2, 3)
    both(lake, 4)

    undone = lake.undo(wrong.txn_id, user_metadata={"why": "wrong day"})

    assert undone.versions == {"orders": 4, "items": 4}
    assert ids(lake, "orders") == ids(lake, "items") == [1, 4]
    assert lake.snapshot(commit_seq=undone.commit_seq - 1).table("orders").to_arrow().num_rows == 4
    table = deltalake.DeltaTable(lake.table("items").location)
    assert sorted(map(str, table.to_pyarrow_table()["id"].to_pylist())) == ["1", "4"]
    (newest, *_) = table.history(1)
    assert newest["operation"] == "UNDO"
    assert newest["operationParameters"]["txnId"] == wrong.txn_id
    assert newest["userMetadata"] == '{"why": "wrong day"}'


def test_what_was_removed_comes_back_as_it_was(lake: Lake) -> None:
    """The very same files, with statistics and row counts; undoing that again takes them away again."""
    both(lake, 1, 2)
    before = [batch.to_pylist() for batch in lake.table("orders").files()]
    with lake.begin() as emptied:
        emptied.stage_table("orders", actions=removal(lake, "orders"))
        emptied.stage_table("items", rows(9))

    restored = lake.undo(emptied.txn_id)
    after = [batch.to_pylist() for batch in lake.table("orders").files()]
    again = lake.undo(restored.txn_id)

    assert [{**row, "version": 0} for part in after for row in part] == [
        {**row, "version": 0} for part in before for row in part
    ]
    assert (ids(lake, "orders"), ids(lake, "items")) == ([], [1, 2, 9])
    assert again.commit_seq == restored.commit_seq + 1


def test_what_something_later_stands_on_stays(lake: Lake) -> None:
    """Its files removed, or rewritten, or brought back: named by table and version, and nothing happens."""
    added = both(lake, 1)
    with lake.begin() as removed:
        removed.stage_table("items", actions=removal(lake, "items"))
    head = lake.snapshot().commit_seq

    with pytest.raises(deltalakedb.TxnLogUndoError, match="undo what came later first") as caught:
        lake.undo(added.txn_id)

    assert [(each.table, each.version) for each in caught.value.dependents] == [("items", 2)]
    assert lake.snapshot().commit_seq == head
    lake.undo(removed.txn_id)
    with pytest.raises(deltalakedb.TxnLogUndoError):
        lake.undo(removed.txn_id)
    lake.undo(added.txn_id)
    assert (ids(lake, "orders"), ids(lake, "items")) == ([], [])


def test_what_has_no_inverse_is_refused(lake: Lake) -> None:
    """A table made, a schema changed, a file that is gone; and what was never committed, or is no transaction."""
    with lake.begin() as made:
        made.stage_table("new", rows(1))
    with lake.begin() as tx:
        tx.stage_table("orders", actions=[RemoveFile(path="never.parquet")])
        with pytest.raises(deltalakedb.TxnLogRejectedError):
            tx.commit()
    kept = both(lake, 1)
    with lake.begin() as removed:
        removed.stage_table("orders", actions=removal(lake, "orders"))
    folder = Path(unquote(urlsplit(lake.table("orders").location).path))
    for file in folder.glob("*.parquet"):
        file.unlink()

    for txn_id, what in (
        (made.txn_id, "drop the table"),
        (removed.txn_id, "vacuumed"),
    ):
        with pytest.raises(deltalakedb.TxnLogUndoError, match=what):
            lake.undo(txn_id)
    for txn_id, what in ((tx.txn_id, "rejected"), (kept.txn_id[:-1], "not a transaction id")):
        with pytest.raises(deltalakedb.TxnLogValidationError, match=what):
            lake.undo(txn_id)
    with pytest.raises(deltalakedb.TxnLogValidationError, match="not decided"):
        lake.undo(deltalakedb.Transaction(lake, lake._open_session()).txn_id)


def test_it_goes_on_while_others_commit(tmp_path: Path) -> None:
    """Under Serializable every append in between stands against removing files: then it looks again."""
    with deltalakedb.connect(tmp_path / "lake") as lake:
        wrong = lake.append("orders", rows(1)), lake.append("orders", rows(2))
        stop = threading.Event()

        def append() -> None:
            while not stop.wait(0.05):
                lake.append("orders", rows(3))

        other = threading.Thread(target=append)
        other.start()
        try:
            lake.undo(wrong[1].txn_id)
        finally:
            stop.set()
            other.join()

        assert set(ids(lake, "orders")) <= {1, 3}


def test_the_verb(lake: Lake, tmp_path: Path) -> None:
    """`deltalakedb undo TXN` says what it committed, or why not, by its exit code."""
    wrong = both(lake, 1)
    command = [sys.executable, "-m", "deltalakedb", "undo", wrong.txn_id, "--store", str(tmp_path / "lake")]

    first, second = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))

    assert first.returncode == 0, first.stderr
    assert "orders version 2" in first.stdout
    assert second.returncode == 1
    assert "cannot be undone" in second.stderr
    assert ids(lake, "orders") == []
