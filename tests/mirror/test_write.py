"""`mirror write`: the whole log of a table, from SQL alone, beside a copy of its data files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError, TxnLogTableFencedError
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import NewObject
from deltalakedb.program import app
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.step import Mirror
from deltalakedb_mirror_worker.writing import Written, write_log
from tests.lakes import FilledLake, add, append, create, local_path, remove
from tests.mirror.readers import fill
from tests.mirrors import Root, publish_all


def beside(lake: FilledLake, table: str) -> Place:
    """An empty log beside a copy of the data files of `table`."""
    for found in list(lake.objects.list(f"{table}/")):
        data = lake.objects.get(found.path)
        if "/_delta_log/" not in found.path and data is not None:
            lake.objects.put_if_absent([NewObject(f"elsewhere/{found.path}", data.data)])
    return Place(lake.objects, f"elsewhere/{table}")


def write(lake: FilledLake, pool: Pool, table: str, place: Place) -> Written:
    with pool.connection() as db:
        info = Catalog(db).table(table)
    return write_log(pool, info, place)


def rows_of(location: str, root: Root, version: int | None = None) -> list[dict[str, Any]]:
    table = DeltaTable(location, version=version, storage_options=dict(root.options))
    found: list[dict[str, Any]] = table.to_pyarrow_table().sort_by("id").to_pylist()
    return found


def test_the_log_is_that_of_the_table(lake: FilledLake, mirror: Mirror, pool: Pool, root: Root) -> None:
    """Every version has the bytes, and on local disk the time, that the mirror gives it; readers read the same."""
    expected = fill(lake)
    publish_all(mirror)
    written = {name: write(lake, pool, name, beside(lake, name)) for name in expected}
    here = {found.path: found for name in expected for found in lake.objects.list(f"{name}/_delta_log/")}
    there = {found.path: found for found in lake.objects.list("elsewhere/") if "/_delta_log/" in found.path}
    commits = [path for path in here if path.endswith(".json")]

    assert {name: (w.first, w.last, w.checkpoints) for name, w in written.items()} == {
        "plain": (0, 13, (13,)),
        "days": (0, 1, (1,)),
        "odd": (0, 0, ()),
    }
    for path in commits:
        copy = lake.objects.get(f"elsewhere/{path}")
        mine = lake.objects.get(path)
        assert copy is not None
        assert mine is not None
        assert copy.data == mine.data
        assert root.options or there[f"elsewhere/{path}"].time_ms == here[path].time_ms
    assert {name: rows_of(f"{lake.root}/elsewhere/{name}", root) for name in expected} == expected
    assert rows_of(f"{lake.root}/elsewhere/plain", root, 0) == [{"id": n, "text": f"row {n}"} for n in (1, 2)]


def test_writing_needs_no_other_log(lake: FilledLake, pool: Pool) -> None:
    """Nothing was ever published: SQL alone gives the log, and nothing appears in the table's own folder."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")))
    write(lake, pool, "t", Place(lake.objects, "copy"))
    hint = lake.objects.get("copy/_delta_log/_last_checkpoint")

    assert hint is not None
    assert json.loads(hint.data)["version"] == 1
    assert list(lake.objects.list("t/")) == []


def test_writing_again_completes_what_is_there(lake: FilledLake, pool: Pool) -> None:
    """After an end in the middle, and after further commits, the same call writes what is missing and no more."""
    lake.commit(create("t", add("a")))
    for n in range(5):
        lake.commit(append("t", add(f"{n}")))
    place = Place(lake.objects, "copy")
    write(lake, pool, "t", place)
    whole = {found.path: found for found in lake.objects.list("copy/")}
    lake.objects.delete([log_path("copy", 4), log_path("copy", 5), "copy/_delta_log/_last_checkpoint"])
    write(lake, pool, "t", place)
    again = {found.path: found for found in lake.objects.list("copy/")}
    lake.commit(remove("t", add("a")))
    written = write(lake, pool, "t", place)

    assert {path: found.size for path, found in again.items()} == {path: found.size for path, found in whole.items()}
    assert (written.first, written.last, written.checkpoints) == (0, 6, (6,))


def test_another_log_is_left_alone(lake: FilledLake, pool: Pool) -> None:
    """A folder with somebody else's log, one that goes further, and the table's own folder are refused."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")))
    lake.objects.put_if_absent([NewObject(log_path("late", 7), b"{}")])
    lake.objects.put_if_absent([NewObject(log_path("other", 0), b'{"commitInfo":{"txnId":"theirs"}}\n')])
    lake.objects.put_if_absent([NewObject(log_path("beyond", 0), b"{}"), NewObject(log_path("beyond", 2), b"{}")])

    with pytest.raises(TxnLogTableFencedError, match="has a log with a version 7"):
        write(lake, pool, "t", Place(lake.objects, "late"))
    with pytest.raises(TxnLogTableFencedError, match="txnId theirs"):
        write(lake, pool, "t", Place(lake.objects, "other"))
    with pytest.raises(TxnLogTableFencedError, match="has a log with a version 2"):
        write(lake, pool, "t", Place(lake.objects, "beyond"))
    with pytest.raises(TxnLogMirrorError, match="the table's own location"):
        write(lake, pool, "t", Place(lake.objects, "t"))
    assert len(list(lake.objects.list("other/"))) == 1


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_the_verb_tells_what_it_wrote(lake: FilledLake, root: Root) -> None:
    """`deltalakedb mirror write` takes a table's URI, or its name and --store."""
    lake.commit(create("t", add("a")))
    lake.commit(append("t", add("b")))
    folder = local_path(root.uri)
    uri = f"deltasql://sqlite/{lake.address.path}?table=t"
    text = CliRunner().invoke(app, ["mirror", "write", uri, "--to", str(folder / "copy")])
    store = ["--store", f"deltasql://sqlite/{lake.address.path}"]
    again = CliRunner().invoke(app, ["mirror", "write", "t", *store, "--to", str(folder / "copy"), "--output", "json"])
    wrong = CliRunner().invoke(app, ["mirror", "write", str(folder), "--to", str(folder / "copy")])

    assert (text.exit_code, text.stdout) == (
        0,
        f"{lake.root}/copy has versions 0 to 1 of t, and checkpoints of 1\n",
    )
    assert json.loads(again.stdout) == {"location": f"{lake.root}/copy", "first": 0, "last": 1, "checkpoints": [1]}
    assert wrong.exit_code == 1
    assert "a table of a lake is meant" in wrong.stderr
