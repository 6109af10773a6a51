"""What users of the library rely on, the same on an embedded lake and on one with Kafka, Postgres and services."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import deltalake
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb import AddFile, Lake, Reason, RemoveFile, State
from deltalakedb.delta_types import StructField, StructType, schema_json
from tests.pipeline import LakeAddress, embedded, on_servers
from tests.services.run import Addresses

UTC = dt.UTC
ROWS = pa.table({"id": [1, 2, 3], "name": ["one", None, "three"]})
WRITE_SERIALIZABLE = {"delta.isolationLevel": "WriteSerializable"}


@pytest.fixture(scope="module", params=["embedded", "servers"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeAddress]:
    """A new lake, embedded or with services of its own that run."""
    folder = tmp_path_factory.mktemp("lake")
    if request.param == "embedded":
        yield embedded(folder)
        return
    servers: Addresses = request.getfixturevalue("servers")
    with on_servers(servers, folder) as pipeline:
        yield pipeline.address


@pytest.fixture(scope="module")
def lake(address: LakeAddress) -> Iterator[Lake]:
    with address.connect() as lake:
        yield lake


@pytest.fixture
def name() -> str:
    """A table name that no other test uses."""
    return f"t_{uuid.uuid4().hex[:10]}"


def folder_of(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))


def data_files(lake: Lake, name: str) -> list[Path]:
    return sorted(folder_of(f"{lake.root}/{name}").rglob("*.parquet"))


def ids(table: Any) -> list[int]:
    return sorted(table.to_arrow(columns=["id"])["id"].to_pylist())


def add(path: str, **fields: Any) -> AddFile:
    return AddFile(path=path, partition_values={}, size=100, modification_time=1, stats='{"numRecords":1}', **fields)


# Several tables at once.


def test_two_tables_in_one_commit(lake: Lake, name: str) -> None:
    """A transaction gives each of its tables one new version, in one commit; first appends create the tables."""
    orders, lines = f"{name}.orders", f"{name}.lines"
    with lake.begin(user_metadata={"job": "nightly"}) as tx:
        tx.stage_table(orders, ROWS)
        tx.stage_table(lines, pl.DataFrame({"id": [1, 1], "n": [1, 2]}))
        tx.stage_table(lines, pd.DataFrame({"id": [2], "n": [1]}))
        assert not lake.has_table(orders), "nothing is visible before the commit"

    assert tx.state is State.COMMITTED
    assert tx.result.versions == {orders: 0, lines: 0}
    assert {orders, lines} <= set(lake.tables())
    snapshot = lake.snapshot(commit_seq=tx.result.commit_seq)
    assert snapshot.table(orders).to_arrow().to_pylist() == ROWS.to_pylist()
    assert snapshot.table(lines).to_arrow().sort_by([("id", "ascending"), ("n", "ascending")]).to_pylist() == [
        {"id": 1, "n": 1},
        {"id": 1, "n": 2},
        {"id": 2, "n": 1},
    ]
    assert snapshot.table(orders).timestamp == snapshot.timestamp == tx.result.timestamp


def test_all_readers_read_by_path(lake: Lake, name: str) -> None:
    """After `sync` the table's folder is an ordinary Delta table, with partition values, metadata and history."""
    rows = pa.table(
        {
            "id": [1, 2, 3],
            "day": [dt.date(2024, 1, 1), dt.date(2024, 1, 2), None],
            "at": pa.array([1_000_001, None, 3], pa.timestamp("us", "UTC")),
            "kind": ["a b", "ü/:", ""],
        }
    )
    with lake.begin(user_metadata="by hand") as tx:
        tx.stage_table(name, rows, partition_by=["kind", "day"])
    lake.sync(name)

    location = lake.table(name).location
    expected = [{**row, "kind": row["kind"] or None} for row in rows.to_pylist()]
    assert lake.table(name).to_arrow().sort_by("id").to_pylist() == expected
    by_delta_rs = deltalake.DeltaTable(location)
    assert by_delta_rs.to_pyarrow_table().sort_by("id").select(rows.schema.names).to_pylist() == expected
    assert by_delta_rs.history()[0]["userMetadata"] == "by hand"
    assert pl.scan_delta(location).collect().sort("id").select(rows.schema.names).rows(named=True) == expected


@pytest.mark.parametrize(
    "convert",
    [
        lambda rows: rows,
        lambda rows: rows.to_reader(),
        lambda rows: rows.to_batches()[0],
        lambda rows: rows.to_pandas(),
        lambda rows: pl.from_arrow(rows),
        lambda rows: duckdb.connect().from_arrow(rows),
    ],
    ids=["table", "reader", "batch", "pandas", "polars", "duckdb"],
)
def test_whatever_speaks_arrow_comes_in_and_goes_out(lake: Lake, name: str, convert: Any) -> None:
    """Rows come from any library, and go out to any."""
    lake.append(name, convert(ROWS))

    table = lake.table(name)
    assert table.to_arrow().to_pylist() == ROWS.to_pylist()
    assert table.to_polars().rows(named=True) == ROWS.to_pylist()
    assert table.to_pandas()["id"].tolist() == [1, 2, 3]
    with duckdb.connect() as connection:
        assert table.to_duckdb(connection).order("id").fetchall() == [(1, "one"), (2, None), (3, "three")]
    assert pl.DataFrame(table).rows(named=True) == ROWS.to_pylist()
    assert table.to_batches().read_all().to_pylist() == ROWS.to_pylist()


# The transaction as an object.


def test_an_exception_rolls_back(lake: Lake, name: str) -> None:
    """When the block raises, nothing is committed, what was written is deleted, and the exception comes through."""
    mine = ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught, lake.begin() as tx:  # noqa: PT012 - the block is what is tested
        tx.stage_table(name, ROWS)
        assert len(data_files(lake, name)) == 1
        raise mine

    assert caught.value is mine
    assert tx.state is State.ROLLED_BACK
    assert not lake.has_table(name)
    assert data_files(lake, name) == []
    assert lake.outcome(tx.txn_id) is None


def test_ctrl_c_rolls_back(lake: Lake, name: str) -> None:
    """Ctrl-C in the block is an exception like any other."""
    with pytest.raises(KeyboardInterrupt), lake.begin() as tx:  # noqa: PT012 - the block is what is tested
        tx.stage_table(name, ROWS)
        raise KeyboardInterrupt

    assert tx.state is State.ROLLED_BACK
    assert data_files(lake, name) == []


def test_a_misspelled_wish_is_refused_before_anything_is_sent(lake: Lake, name: str) -> None:
    """What to wait for, and whose outcome is asked for: nothing else is done instead, and the transaction goes on."""
    misspelled: Any = "mirorred"
    with pytest.raises(deltalakedb.TxnLogValidationError, match="'mirorred' is none of committed, mirrored"):
        lake.begin(wait=misspelled)
    with lake.begin() as tx:
        tx.stage_table(name, ROWS)
        with pytest.raises(deltalakedb.TxnLogValidationError, match="'mirorred' is none of committed, mirrored"):
            tx.commit(wait=misspelled)
        assert tx.state is State.ACTIVE
    assert tx.result.versions == {name: 0}
    with pytest.raises(deltalakedb.TxnLogValidationError, match="not a transaction id"):
        lake.outcome(tx.txn_id.upper())


def test_rollback_that_fails_does_not_hide_the_exception(
    lake: Lake, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If deleting fails, the user's own exception still comes through, and the log says that files stay."""
    with pytest.raises(ValueError, match="mine"), lake.begin() as tx:  # noqa: PT012 - the block is what is tested
        tx.stage_table(name, ROWS)
        (file,) = data_files(lake, name)
        file.unlink()
        file.mkdir()  # what cannot be unlinked
        raise ValueError("mine")

    assert f"transaction {tx.txn_id} left files behind" in caplog.text


def test_rollback_by_hand(lake: Lake, name: str) -> None:
    """`rollback` in the block ends the transaction without an error; afterwards it cannot be used."""
    with lake.begin() as tx:
        tx.stage_table(name, ROWS)
        tx.rollback()
        tx.rollback()

    assert not lake.has_table(name)
    assert data_files(lake, name) == []
    for misuse in (tx.commit, lambda: tx.stage_table(name, ROWS), lambda: tx.table(name), lambda: tx.result):
        with pytest.raises(deltalakedb.TxnLogTransactionStateError, match="rolled back") as caught:
            misuse()
        assert caught.value.txn_id == tx.txn_id


def test_usable_once(lake: Lake, name: str) -> None:
    """A committed transaction has a result, and neither commits nor rolls back again."""
    tx = lake.begin()
    assert "active" in repr(tx)
    tx.stage_table(name, ROWS)
    result = tx.commit()

    assert tx.result is result
    assert "committed" in repr(tx)
    for misuse in (tx.commit, tx.commit_async, tx.rollback, tx.__enter__):
        with pytest.raises(deltalakedb.TxnLogTransactionStateError, match="committed"):
            misuse()
    assert lake.version(name) == 0


def test_futures(lake: Lake, name: str) -> None:
    """Many transactions in flight; each future gives its own result, and versions have no gap."""
    lake.create_table(name, ROWS.schema)
    futures = []
    for number in range(40):
        tx = lake.begin()
        tx.stage_table(name, actions=[add(f"{number}.parquet")])
        futures.append(tx.commit_async())

    versions = [future.result(60).versions[name] for future in futures]

    assert sorted(versions) == list(range(1, 41))


def test_futures_of_rows(lake: Lake, name: str) -> None:
    """Transactions with rows, whose files are made durable together meanwhile, and those without are published in the
    order in which one thread commits them."""
    lake.create_table(name, ROWS.schema)
    futures = []
    for number in range(30):
        tx = lake.begin()
        if number % 3 == 2:
            tx.stage_table(name, actions=[add(f"{number}.parquet")])
        else:
            tx.stage_table(name, ROWS)
        futures.append(tx.commit_async())
    with lake.begin() as last:
        last.stage_table(name, ROWS)

    assert [future.result(60).versions[name] for future in futures] == list(range(1, 31))
    assert last.result.versions[name] == 31


def test_files_that_cannot_be_made_durable(address: LakeAddress, name: str) -> None:
    """Nothing is published then: the transaction is still active and can be rolled back, others are not touched."""
    settings = deltalakedb.load_settings(store=address.store, log=address.log, root=address.root, window=1)
    with deltalakedb.connect(settings=settings) as lake:
        lake.append(name, ROWS)
        (kept,) = data_files(lake, name)
        tx = lake.begin()
        tx.stage_table(name, ROWS)
        (lost,) = set(data_files(lake, name)) - {kept}
        lost.unlink()

        for _ in range(2):
            with pytest.raises(deltalakedb.TxnLogObjectStoreError, match="cannot flush"):
                tx.commit()
            with pytest.raises(deltalakedb.TxnLogObjectStoreError, match="cannot flush"):
                tx.commit_async().result(60)
            assert tx.state is State.ACTIVE
        tx.rollback()
        lake.append(name, ROWS)

        assert lake.version(name) == 1
        assert lake.outcome(tx.txn_id) is None


def test_closing_publishes_what_is_under_way(address: LakeAddress, name: str) -> None:
    """A transaction whose files are not durable yet when its lake object is closed is published all the same."""
    settings = deltalakedb.load_settings(store=address.store, log=address.log, root=address.root)
    with deltalakedb.connect(settings=settings) as lake:
        lake.create_table(name, ROWS.schema)
        transactions = [lake.begin() for _ in range(10)]
        for tx in transactions:
            tx.stage_table(name, ROWS)
        for tx in transactions:
            tx.commit_async()
    with deltalakedb.connect(settings=settings) as lake:
        assert all(lake.cancel(tx.txn_id).committed is not None for tx in transactions)


def test_window(address: LakeAddress, name: str) -> None:
    """With a window of one, a second transaction is published only after the first was answered."""
    with deltalakedb.connect(
        settings=deltalakedb.load_settings(store=address.store, log=address.log, root=address.root, window=1)
    ) as lake:
        lake.create_table(name, ROWS.schema)
        futures: list[Future[deltalakedb.Result]] = []
        for number in range(5):
            tx = lake.begin()
            tx.stage_table(name, actions=[add(f"{number}.parquet")])
            assert sum(not future.done() for future in futures) <= 1
            futures.append(tx.commit_async())

        assert [future.result(60).versions[name] for future in futures] == [1, 2, 3, 4, 5]


def test_one_call(address: LakeAddress, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`deltalakedb.begin()` finds the lake in the environment, commits, and closes what it opened."""
    for variable, value in address.environment.items():
        monkeypatch.setenv(variable, value)

    with deltalakedb.begin(user_metadata="x") as tx:
        tx.stage_table(name, ROWS)

    assert tx.result.versions == {name: 0}
    assert "closed" in repr(tx._lake)


def test_nothing_to_do(lake: Lake, name: str) -> None:
    """A transaction that changes nothing commits without changing anything."""
    lake.append(name, ROWS)
    with lake.begin() as tx:
        rows = tx.table(name).to_arrow()
    with lake.begin() as empty:
        pass

    assert rows.num_rows == 3
    assert tx.result.versions == empty.result.versions == {}
    assert lake.version(name) == 0


# Wrong input.


@pytest.mark.parametrize(
    ("stage", "error", "part"),
    [
        (lambda tx, t: tx.stage_table(t, pa.table({"id": ["x"]})), deltalakedb.TxnLogSchemaError, "column id is long"),
        (lambda tx, t: tx.stage_table(t, pa.table({"idd": [1]})), deltalakedb.TxnLogSchemaError, "no column idd"),
        (lambda tx, t: tx.stage_table(t, ROWS, partition_by="id"), deltalakedb.TxnLogSchemaError, "partitioned by nothing"),
        (lambda tx, t: tx.stage_table(t, ROWS, mode="overwrite"), deltalakedb.TxnLogValidationError, "'overwrite' is not available"),
        (lambda tx, t: tx.stage_table(t), deltalakedb.TxnLogValidationError, "either data or actions"),
        (lambda tx, t: tx.stage_table(t, ROWS, actions=[]), deltalakedb.TxnLogValidationError, "either data or actions"),
        (lambda tx, t: tx.stage_table(t, [1, 2]), deltalakedb.TxnLogSchemaError, "Arrow stream protocol"),
        (lambda tx, t: tx.stage_table("no such", ROWS), deltalakedb.TxnLogValidationError, "not a table name"),
        (lambda tx, t: tx.stage_table("absent", actions=[]), deltalakedb.TxnLogTableNotFoundError, "no table 'absent'"),
        (lambda tx, t: tx.table("absent"), deltalakedb.TxnLogTableNotFoundError, "no table 'absent'"),
        (lambda tx, t: tx.stage_table("fresh", pa.table({"n": [None]})), deltalakedb.TxnLogSchemaError, "give schema="),
        (lambda tx, t: tx.stage_table("fresh", pa.table({"a b": [1]})), deltalakedb.TxnLogSchemaError, "column name 'a b'"),
        (lambda tx, t: tx.stage_table("fresh", ROWS, partition_by=["x"]), deltalakedb.TxnLogSchemaError, "partition column x"),
        (lambda tx, t: tx.table(t).to_arrow(predicate="nope = 1"), deltalakedb.TxnLogValidationError, "no column nope"),
        (lambda tx, t: tx.table(t).to_arrow(columns=["nope"]), deltalakedb.TxnLogValidationError, "no column nope"),
        (lambda tx, t: tx.table(t).to_arrow(columns=[]), deltalakedb.TxnLogValidationError, "at least one column"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_at_once(lake: Lake, name: str, stage: Any, error: Any, part: str) -> None:
    """Input that cannot be is refused where it is given; the transaction goes on without it."""
    lake.append(name, ROWS)

    with lake.begin() as tx:
        with pytest.raises(error) as caught:
            stage(tx, name)
        tx.stage_table(name, ROWS)

    assert part in str(caught.value)
    assert tx.result.versions == {name: 1}


def test_too_many_tables(lake: Lake, name: str) -> None:
    """The limit of tables is told when it is exceeded, with the setting that moves it."""
    with pytest.raises(deltalakedb.TxnLogValidationError, match=r"10 tables at most.*MAX_TABLES"), lake.begin() as tx:  # noqa: PT012 - the block is what is tested
        for number in range(11):
            tx.create_table(f"{name}_{number}", ROWS.schema)

    assert not lake.has_table(f"{name}_0")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (add("../outside.parquet"), Reason.INVALID_PATH),
        (AddFile(path="x", partition_values={"p": "1"}, size=1, modification_time=1), Reason.PARTITION_MISMATCH),
        (AddFile(path="x", partition_values={}, size=0, modification_time=1), Reason.INVALID_ACTION),
        (RemoveFile(path="never.parquet"), Reason.FILE_NOT_LIVE),
    ],
)
def test_bad_actions_are_rejected(lake: Lake, name: str, action: Any, reason: Reason) -> None:
    """What only the committer can judge comes back as a typed error with reason and table; nothing else is lost."""
    lake.create_table(name, ROWS.schema, properties=WRITE_SERIALIZABLE)
    other = f"{name}_other"

    with pytest.raises(deltalakedb.TxnLogRejectedError) as caught, lake.begin() as tx:  # noqa: PT012 - the block is what is tested
        tx.stage_table(other, ROWS, properties=WRITE_SERIALIZABLE)
        tx.stage_table(name, actions=[action])

    assert (caught.value.reason, caught.value.table, caught.value.txn_id) == (reason, name, tx.txn_id)
    assert tx.state is State.REJECTED
    assert not lake.has_table(other), "all or nothing"
    told = lake.outcome(tx.txn_id)
    assert told is not None
    assert told.rejected is not None
    assert told.rejected.reason == reason
    lake.append(name, ROWS)
    assert lake.version(name) == 1


# Creating.


def test_two_clients_create_the_same_table(address: LakeAddress, name: str) -> None:
    """Two clients whose first appends create one table both succeed, and no row is lost."""
    start = threading.Barrier(2)
    results: list[Any] = []

    def client(number: int) -> None:
        with address.connect() as lake:
            tx = lake.begin()
            tx.stage_table(name, pa.table({"id": [number]}))
            start.wait(30)
            results.append(tx.commit().versions[name])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(results) == [0, 1]
    with address.connect() as lake:
        assert ids(lake.table(name)) == [0, 1]


def test_create_table(lake: Lake, name: str) -> None:
    """A table is created with schema, partitioning and properties; the same again is fine, another one is rejected."""
    made = lake.create_table(name, ROWS.schema, partition_by="name", properties={"delta.appendOnly": "true"})

    assert (made.version, made.partition_columns) == (0, ("name",))
    assert made.properties["delta.appendOnly"] == "true"
    assert made.arrow_schema == ROWS.schema
    assert made.to_arrow().num_rows == 0
    assert (
        lake.create_table(name, ROWS.schema, partition_by="name", properties={"delta.appendOnly": "true"}).version == 0
    )
    for wrong in ({"partition_by": ()}, {"partition_by": "name", "if_absent": False}):
        with pytest.raises(deltalakedb.TxnLogRejectedError) as caught:
            lake.create_table(name, ROWS.schema, **wrong)
        assert caught.value.reason is Reason.TABLE_EXISTS


def test_create_and_fill(lake: Lake, name: str) -> None:
    """A table is created and filled in one transaction, and read in it before it is there for others."""
    with lake.begin() as tx:
        tx.create_table(name, ROWS.schema, properties=WRITE_SERIALIZABLE)
        tx.stage_table(name, ROWS)
        inside = tx.table(name).to_arrow(predicate="id > 1").to_pylist()

    assert inside == ROWS.to_pylist()[1:]
    assert tx.result.versions == {name: 0}
    assert ids(lake.table(name)) == [1, 2, 3]


def test_foreign_table_in_the_way(lake: Lake, name: str) -> None:
    """Where somebody else's Delta table lies, none of ours is created, and nothing is published or left behind."""
    folder = folder_of(f"{lake.root}/{name}")
    deltalake.write_deltalake(str(folder), ROWS)
    before = sorted(folder.rglob("*"))

    with pytest.raises(deltalakedb.TxnLogMirrorError, match=f"the table '{name}' cannot be made"), lake.begin() as tx:
        tx.stage_table(name, ROWS)

    assert sorted(folder.rglob("*")) == before
    assert lake.outcome(tx.txn_id) is None


def test_rows_for_a_newer_schema(address: LakeAddress, name: str) -> None:
    """A client that remembers an older schema asks again when the rows do not fit it."""
    with address.connect() as old, address.connect() as other:
        old.append(name, ROWS)
        add_column(other, name, StructField("more", "long"))

        old.append(name, pa.table({"id": [4], "more": [9]}))

        assert old.table(name).to_arrow(predicate="id in (1, 4)").to_pylist() == [
            {"id": 1, "name": "one", "more": None},
            {"id": 4, "name": None, "more": 9},
        ]


# Reading and conflicts.


def test_predicates_leave_out_files(lake: Lake, name: str) -> None:
    """Files that cannot match are not even listed: by partition, by slot, by statistics."""
    for number in range(4):
        lake.append(name, pa.table({"id": [number * 10, number * 10 + 9], "p": [f"p{number}"] * 2}), partition_by="p")
    table = lake.table(name)

    def listed(predicate: Any) -> int:
        return sum(batch.num_rows for batch in table.files(predicate))

    assert listed(None) == 4
    assert listed("p = 'p1'") == 1
    assert listed("id between 15 and 25") == 2
    assert listed([("id", "in", [5, 35]), ("p", "!=", "p3")]) == 1
    assert listed("id is null") == 0
    assert table.to_arrow(predicate="id > 5 and p < 'p2'", columns=["p", "id"]).sort_by("id").to_pylist() == [
        {"p": "p0", "id": 9},
        {"p": "p1", "id": 10},
        {"p": "p1", "id": 19},
    ]
    columns = next(iter(table.files(columns=["path", "size"]))).schema.names
    assert columns == ["path", "size"]


def test_snapshots(lake: Lake, name: str) -> None:
    """A snapshot shows all tables at one commit for ever; wrong points in time name the valid ones."""
    one, two = f"{name}_1", f"{name}_2"
    with lake.begin() as tx:
        tx.stage_table(one, ROWS)
        tx.stage_table(two, ROWS)
    before = lake.snapshot()
    with lake.begin() as later:
        later.stage_table(one, ROWS)
        later.stage_table(two, actions=[_remove(lake, two)], read_version=0)

    assert later.result.versions == {one: 1, two: 1}
    assert (ids(before.table(one)), ids(before.table(two))) == ([1, 2, 3], [1, 2, 3])
    now = lake.snapshot()
    assert (now.table(one).to_arrow().num_rows, now.table(two).to_arrow().num_rows) == (6, 0)
    by_time = lake.snapshot(timestamp=tx.result.timestamp)
    assert by_time.commit_seq == tx.result.commit_seq
    assert by_time.has_table(one)
    assert ids(lake.table(one, version=0)) == [1, 2, 3]
    assert lake.table(one, timestamp=tx.result.timestamp).version == 0
    with pytest.raises(deltalakedb.TxnLogValidationError, match="its commits are 1 "):
        lake.snapshot(commit_seq=10**9)
    with pytest.raises(deltalakedb.TxnLogValidationError, match="has versions 0 to 1, and no version 7"):
        lake.table(one, version=7)
    with pytest.raises(deltalakedb.TxnLogValidationError, match=r"lake has no commit|begins at"):
        lake.snapshot(timestamp=dt.datetime(2000, 1, 1, tzinfo=UTC))
    with pytest.raises(deltalakedb.TxnLogValidationError, match="no time zone"):
        lake.snapshot(timestamp=dt.datetime.fromisoformat("2024-01-01"))
    with pytest.raises(deltalakedb.TxnLogTableNotFoundError):
        lake.snapshot(commit_seq=0).table(one)


def test_reads_see_staged_rows(lake: Lake, name: str) -> None:
    """Reads in a transaction are at one commit, with its own rows and without the files it removes."""
    lake.append(name, ROWS)
    with lake.begin() as tx:
        assert ids(tx.table(name)) == [1, 2, 3]
        lake.append(f"{name}_x", ROWS)  # of somebody else, elsewhere
        tx.stage_table(name, pa.table({"id": [9], "name": ["mine"]}))
        assert ids(tx.table(name)) == [1, 2, 3, 9]
        tx.stage_table(name, actions=[_remove(lake, name)])
        assert ids(tx.table(name)) == [9]
        with pytest.raises(deltalakedb.TxnLogTableNotFoundError):
            tx.table(f"{name}_x")

    assert ids(lake.table(name)) == [9]


def test_conflicts(lake: Lake, name: str) -> None:
    """What was read and then changed by others rejects the transaction; its files stay until `rollback`."""
    lake.append(name, ROWS)
    tx = lake.begin()
    total = tx.table(name).to_arrow(predicate="id >= 2").num_rows
    tx.stage_table(f"{name}_totals", pa.table({"total": [total]}))
    with lake.begin() as winner:
        winner.stage_table(name, actions=[_remove(lake, name)], read_version=0)

    with pytest.raises(deltalakedb.TxnLogConflictError) as caught:
        tx.commit()

    assert caught.value.reason is Reason.CONCURRENT_DELETE_READ
    assert caught.value.rejection.versions == (0, 1)
    assert caught.value.rejection.other_txn == winner.txn_id
    assert len(data_files(lake, f"{name}_totals")) == 1
    tx.rollback()
    assert data_files(lake, f"{name}_totals") == []


def test_what_others_do_in_other_partitions_is_no_conflict(lake: Lake, name: str) -> None:
    """A predicate over a partition column protects its partitions and nothing else."""
    days = pa.table({"id": pa.array([1, 2], pa.int64()), "day": ["mon", "tue"]})
    lake.append(name, days, partition_by=["day"])
    mon, tue = lake.begin(), lake.begin()
    for tx, day in ((mon, "mon"), (tue, "tue")):
        total = tx.table(name).to_arrow(predicate=f"day = '{day}'").num_rows
        tx.stage_table(f"{name}_totals", pa.table({"day": [day], "total": [total]}))
    with lake.begin() as winner:
        winner.stage_table(name, days.slice(1))

    assert mon.commit().versions[f"{name}_totals"] == 0
    with pytest.raises(deltalakedb.TxnLogConflictError) as caught:
        tue.commit()
    assert caught.value.reason is Reason.CONCURRENT_APPEND
    assert caught.value.rejection.other_txn == winner.txn_id
    tue.rollback()


def test_deletion_vectors_are_refused_by_name(lake: Lake, name: str) -> None:
    """A table whose files have deletion vectors can be listed, and is never read without them."""
    vector = deltalakedb.DeletionVector(
        storage_type="i",
        path_or_inline_dv="wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
        size_in_bytes=40,
        cardinality=1,
    )
    lake.create_table(name, ROWS.schema, properties={"delta.enableDeletionVectors": "true"})
    with lake.begin() as tx:
        tx.stage_table(name, actions=[add("a.parquet", deletion_vector=vector)])

    assert sum(batch.num_rows for batch in lake.table(name).files()) == 1
    with pytest.raises(deltalakedb.TxnLogValidationError, match="deletion vectors"):
        lake.table(name).to_arrow()


def test_isolation(lake: Lake, name: str) -> None:
    """A transaction can ask for a stricter level than its tables have, and for no other word."""
    lake.create_table(name, ROWS.schema, properties=WRITE_SERIALIZABLE)
    lake.append(name, ROWS)

    def reads_while_another_appends(isolation: str | None) -> deltalakedb.Transaction:
        tx = lake.begin(isolation=isolation)
        tx.table(name).to_arrow()
        tx.stage_table(name, ROWS)
        lake.append(name, ROWS)
        return tx

    assert reads_while_another_appends(None).commit().versions[name] == 3
    with pytest.raises(deltalakedb.TxnLogConflictError) as caught:
        reads_while_another_appends("Serializable").commit()
    assert caught.value.reason is Reason.CONCURRENT_APPEND
    with pytest.raises(deltalakedb.TxnLogValidationError, match="isolation 'Strict' is none of"):
        lake.begin(isolation="Strict")


def test_app_transactions(lake: Lake, name: str) -> None:
    """An application's number that is committed already gives the first result and changes nothing."""
    app = (f"job-{name}", 7)
    lake.append(name, ROWS, app=app)
    again = lake.append(name, ROWS, app=app)
    with lake.begin(app=[app]) as older:
        older.stage_table(name, ROWS)

    assert again.already_committed
    assert older.result.already_committed
    assert again.versions == older.result.versions == {name: 0}
    assert lake.append(name, ROWS, app=(app[0], 8)).versions == {name: 1}
    with lake.begin() as tx:
        assert tx.table(name).app_version(app[0]) == 8
        assert tx.table(name).app_version("nobody") is None
    with pytest.raises(deltalakedb.TxnLogValidationError, match="app="):
        lake.begin(app=("x", "1"))  # type: ignore[arg-type]


# Outcomes.


def test_outcome_and_cancel(lake: Lake, name: str) -> None:
    """A decided transaction keeps its outcome; an undecided one can be cancelled for ever."""
    committed = lake.append(name, ROWS)
    tx = lake.begin()
    tx.stage_table(name, ROWS)

    told = lake.cancel(committed.txn_id)
    cancelled = lake.cancel(tx.txn_id)

    assert told.committed is not None
    assert told.committed.commit_seq == committed.commit_seq
    assert lake.outcome(committed.txn_id) is not None
    assert cancelled.rejected is not None
    assert cancelled.rejected.reason == Reason.CANCELLED
    with pytest.raises(deltalakedb.TxnLogRejectedError) as caught:
        tx.commit()
    assert caught.value.reason is Reason.CANCELLED
    with pytest.raises(deltalakedb.TxnLogValidationError, match="not a transaction id"):
        lake.cancel("nonsense")


def test_unknown_outcome(lake: Lake, name: str) -> None:
    """When no answer comes in time the outcome is unknown, nothing is deleted, and asking later tells it."""
    lake.create_table(name, ROWS.schema)
    tx = lake.begin(timeout=0.0)
    tx.stage_table(name, ROWS)
    try:
        tx.commit()
    except deltalakedb.TxnLogOutcomeUnknownError as unknown:
        assert unknown.txn_id == tx.txn_id  # noqa: PT017 - a fast committer may answer even so
        assert tx.state is State.UNKNOWN
        with pytest.raises(deltalakedb.TxnLogTransactionStateError):
            tx.rollback()

    deadline = time.monotonic() + 30
    while (told := lake.outcome(tx.txn_id)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert told.committed is not None
    assert ids(lake.table(name)) == [1, 2, 3]


# Mirror and addresses.


def test_mirrored(lake: Lake, name: str) -> None:
    """`wait="mirrored"` returns when readers by path see the commit."""
    with lake.begin(wait="mirrored") as tx:
        tx.stage_table(name, ROWS)

    assert deltalake.DeltaTable(lake.table(name).location).version() == tx.result.versions[name]


def test_fenced_table(lake: Lake, name: str) -> None:
    """A foreign commit in a table's log ends `sync` at once, naming table and target; the lake itself goes on."""
    lake.append(name, ROWS)
    lake.sync(name)
    log = folder_of(lake.table(name).location) / "_delta_log"
    (log / f"{1:020}.json").write_text('{"commitInfo":{"operation":"foreign","txnId":"x"}}\n')
    lake.append(name, ROWS)

    with pytest.raises(deltalakedb.TxnLogTableFencedError, match=name):
        lake.sync(name, timeout=30)
    assert lake.table(name).to_arrow().num_rows == 6
    with pytest.raises(deltalakedb.TxnLogTableNotFoundError):
        lake.sync("absent")
    with pytest.raises(deltalakedb.TxnLogValidationError, match="mirror target 'moon'"):
        lake.sync(name, targets="moon")


def test_open(lake: Lake, address: LakeAddress, name: str) -> None:
    """A URI opens a lake, or one table of it."""
    lake.append(name, ROWS)
    settings = lake.settings
    if settings.address.path is not None:
        uri, of_table = str(settings.address), f"{settings.address}?table={name}"
    else:
        uri, of_table = address.store, f"{address.store}&table={name}"

    opened = deltalakedb.open(uri)
    table = deltalakedb.open(of_table)

    assert isinstance(opened, Lake)
    assert opened.lake_id == lake.lake_id
    opened.close()
    assert isinstance(table, deltalakedb.TableSnapshot)
    assert ids(table) == [1, 2, 3]
    with pytest.raises(deltalakedb.TxnLogTableNotFoundError):
        deltalakedb.open(of_table.replace(name, "absent"))


def test_another_lakes_settings(lake: Lake, address: LakeAddress) -> None:
    """A store opened with another root or log than its own is refused."""
    with pytest.raises(deltalakedb.TxnLogConfigError, match="correct root"):
        deltalakedb.connect(address.store, root="file:///somewhere/else")
    with pytest.raises(deltalakedb.TxnLogConfigError, match="log"):
        deltalakedb.connect(address.store, log="sqlite:///somewhere/else.db")


def add_column(lake: Lake, name: str, column: StructField) -> None:
    """One more column, by a `metaData` action."""
    lake.sync(name)
    table = lake.table(name)
    metadata: dict[str, Any] = {
        "id": str(deltalake.DeltaTable(table.location).metadata().id),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema_json(StructType((*table.schema.fields, column))),
        "partitionColumns": table.partition_columns,
        "configuration": table.properties,
    }
    with lake.begin() as tx:
        tx.stage_table(name, actions=[{"metaData": metadata}])


def _remove(lake: Lake, name: str) -> RemoveFile:
    """The removal of a table's only file."""
    (path,) = [path for batch in lake.table(name).files() for path in batch.column("path").to_pylist()]
    return RemoveFile(path=str(path))


# The lake itself.


def test_a_released_table_keeps_nobody_out(lake: Lake, name: str) -> None:
    """Its last version does not name the feature that does; here it can be read, and not be written any more."""
    lake.append(name, ROWS)
    result = lake.release(name)
    lake.sync(name)

    location = lake.table(name).location
    assert result.versions == {name: 1}
    found = deltalake.DeltaTable(location)
    features = found.protocol().writer_features
    assert (found.version(), features) == (1, ["appendOnly", "inCommitTimestamp", "invariants"])
    assert lake.table(name).to_arrow().num_rows == 3
    with pytest.raises(deltalakedb.TxnLogRejectedError) as caught:
        lake.append(name, ROWS)
    assert caught.value.reason == Reason.TABLE_READ_ONLY
    assert lake.release(name).versions == {}


def test_targets_are_added_and_removed(lake: Lake, name: str, tmp_path: Path) -> None:
    """As actions of the lake, in the order of everything else; what cannot be is refused with a reason."""
    lake.act("target-add", target=name, kind="copy", root=tmp_path.as_uri())
    with pytest.raises(deltalakedb.TxnLogRejectedError, match="choose another name"):
        lake.act("target-add", target=name, kind="replica", root=tmp_path.as_uri())
    lake.act("target-remove", target=name)
