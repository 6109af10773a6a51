"""What the catalog answers, on every engine, about lakes that the real committer wrote."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from deltalakedb.actions import (
    AddFile,
    CdcFile,
    DeletionVector,
    DomainMetadata,
    OtherAction,
    RemoveFile,
    SetTransaction,
)
from deltalakedb.catalog import (
    FILE_COLUMNS,
    Catalog,
    CommitPoint,
    MirrorStatus,
    SlotRange,
    TableInfo,
    file_schema,
    tombstone_schema,
)
from deltalakedb.codec import HEADER_TXN
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogTableNotFoundError, TxnLogValidationError
from deltalakedb.eventlog.port import Record
from deltalakedb.events import AppTransaction, SetProperties, TableWork, WrittenAgainst
from deltalakedb_committer.deciding.needs import Undecodable
from deltalakedb_committer.storing.rows import Batch
from tests.direct import LAKE_ID, LOG, ROOT, SCHEMA, START_MS, DirectCommitter, add, create, made, staged, txn
from tests.stores import address, database

__all__ = ["address", "database"]

VECTOR = DeletionVector(
    storage_type="i",
    path_or_inline_dv="wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
    size_in_bytes=40,
    cardinality=6,
)


@pytest.fixture
def committer(database: Database) -> DirectCommitter:
    return DirectCommitter(made(database))


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


def append(name: str, *adds: AddFile) -> TableWork:
    return TableWork(name=name, adds=adds)


def remove(name: str, *paths: str) -> TableWork:
    return TableWork(name=name, removes=tuple(RemoveFile(path=path) for path in paths))


def paths(database: Database, table: TableInfo, **pruning: Any) -> list[str]:
    """Paths of the files of `table`, in order of name."""
    with database.snapshot():
        return sorted(paths_in(Catalog(database).files(table, **pruning)))


def paths_in(batches: Iterable[pa.RecordBatch]) -> list[str]:
    return [str(path) for batch in batches for path in batch.column("path").to_pylist()]


# The lake and its order of commits.


def test_a_store_without_a_lake(catalog: Catalog) -> None:
    """Nothing is there, and nothing is an error but asking for what is not there."""
    assert catalog.lake() is None
    assert catalog.head() == CommitPoint(0, 0)
    assert catalog.tables() == catalog.tables(commit_seq=7) == []
    assert catalog.commit(commit_seq=0) == CommitPoint(0, 0)
    with pytest.raises(TxnLogValidationError, match="no commit yet"):
        catalog.commit(timestamp_ms=START_MS)


def test_the_lake_is_remembered(catalog: Catalog, committer: DirectCommitter) -> None:
    """Id, root and log address are in the store."""
    lake = catalog.lake()

    assert lake is not None
    assert (lake.lake_id, lake.root, lake.log_address, lake.created_ms, lake.fence) == (
        LAKE_ID,
        ROOT,
        LOG,
        START_MS,
        True,
    )


def test_commits_are_found_by_number_and_time(catalog: Catalog, committer: DirectCommitter) -> None:
    """A time means the newest commit not after it; outside the history the error names what there is."""
    for n in range(4):
        committer.commit(create("orders", add(f"f{n}")))

    assert catalog.head() == CommitPoint(4, START_MS + 3)
    assert catalog.commit() == catalog.head()
    assert catalog.commit(commit_seq=2) == CommitPoint(2, START_MS + 1)
    assert catalog.commit(timestamp_ms=START_MS + 2) == CommitPoint(3, START_MS + 2)
    assert catalog.commit(timestamp_ms=START_MS + 10**9) == catalog.head()
    with pytest.raises(
        TxnLogValidationError, match=r"no commit 5: its commits are 1 \(2023-11-14T22:13:20\.000\+00:00\) to 4"
    ):
        catalog.commit(commit_seq=5)
    with pytest.raises(TxnLogValidationError, match=r"at or before 2023-11-14T22:13:19\.999"):
        catalog.commit(timestamp_ms=START_MS - 1)


def test_one_time_of_several_commits_means_the_last(
    catalog: Catalog, committer: DirectCommitter, database: Database
) -> None:
    """Commits that took the same T belong together: a time never cuts between them."""
    for n in range(3):
        committer.commit(create(f"t{n}"))
    database.execute("UPDATE dl_commits SET time_ms = ? WHERE commit_seq > 1", [START_MS + 1])

    assert catalog.commit(timestamp_ms=START_MS + 1).commit_seq == 3


# Tables.


def test_tables_are_told_whole(catalog: Catalog, committer: DirectCommitter) -> None:
    """Name, id, location, version, schema, partitioning, properties, protocol, counts, slots: in one statement."""
    done = committer.commit(
        create("ns.orders", add("day=1/a", day="1", size=70), partition_by=("day",), checkpointInterval="25")
    )
    committer.commit(append("ns.orders", add("day=2/b", day="2", size=30)))
    (table,) = catalog.tables()

    assert (table.name, table.table_id, table.location) == ("ns.orders", done.tables[0].table_id, f"{ROOT}/ns.orders")
    assert (table.version, table.commit_seq, table.time_ms, table.state) == (1, 2, START_MS + 1, "ACTIVE")
    assert msgspec.json.decode(table.metadata.schema_string) == msgspec.json.decode(SCHEMA)
    assert table.metadata.partition_columns == ("day",)
    assert table.metadata.configuration["delta.checkpointInterval"] == "25"
    assert (table.metadata_version, table.protocol_version) == (0, 0)
    assert table.protocol.writer_features is not None
    assert "inCommitTimestamp" in table.protocol.writer_features
    assert (table.live_files, table.live_bytes) == (2, 100)
    assert table.slot_columns == (("id",), ("text",))
    assert catalog.table("ns.orders") == catalog.table(table_id=table.table_id) == table


def test_a_table_is_found_as_it_was(catalog: Catalog, committer: DirectCommitter) -> None:
    """By commit, version or time: the version, and the metadata and protocol that held then."""
    committer.commit(create("other"))
    committer.commit(create("orders", add("a")))
    committer.commit(create("other", add("x")))
    committer.commit(TableWork(name="orders", intents=(SetProperties(set={"delta.checkpointInterval": "7"}),)))
    committer.commit(TableWork(name="orders", adds=(add("b"),), written_against=WrittenAgainst(1, 0)))
    versions = [catalog.table("orders", version=version) for version in range(3)]
    by_commit = [catalog.table("orders", commit_seq=seq).version for seq in (2, 3, 4, 5, 99)]
    by_time = [catalog.table("orders", timestamp_ms=START_MS + n).version for n in (1, 2, 3, 4, 10**6)]
    intervals = [table.metadata.configuration.get("delta.checkpointInterval") for table in versions]

    assert [table.version for table in versions] == [0, 1, 2]
    assert [table.commit_seq for table in versions] == [2, 4, 5]
    assert [table.metadata_version for table in versions] == [0, 1, 1]
    assert intervals == [None, "7", "7"]
    assert by_commit == by_time == [0, 0, 1, 2, 2]
    assert versions[2].live_files is None


def test_all_tables_at_a_commit_are_one_state(catalog: Catalog, committer: DirectCommitter) -> None:
    """INV7: what one commit changed is seen in all of its tables or in none, at every commit of the history."""
    chance = random.Random(3)
    expected: list[dict[str, int]] = [{}]
    for n in range(25):
        names = chance.sample([f"t{k}" for k in range(5)], chance.randint(1, 3))
        committer.commit(*(create(name, add(f"f{n}")) for name in names))
        now = dict(expected[-1])
        for name in names:
            now[name] = now.get(name, -1) + 1
        expected.append(now)
    found = [{table.name: table.version for table in catalog.tables(commit_seq=seq)} for seq in range(26)]

    assert found == expected
    assert {table.name: table.version for table in catalog.tables()} == expected[-1]


def test_a_name_that_no_table_has_tells_which_there_are(catalog: Catalog, committer: DirectCommitter) -> None:
    """Tables of nearly that name, or with it in another case or namespace; else what there is, a few of many."""

    def said(name: str) -> str:
        with pytest.raises(TxnLogTableNotFoundError) as missing:
            catalog.table(name)
        return str(missing.value)

    assert said("orders") == "the lake has no table 'orders': it has none yet"
    committer.commit(create("sales.orders"))
    assert said("nope") == "the lake has no table 'nope': it has sales.orders"
    for name in ("lineitem", *(f"t{number:02}" for number in range(20))):
        committer.commit(create(name))

    assert said("lineitems") == "the lake has no table 'lineitems': did you mean 'lineitem'?"
    assert said("LineItem") == "the lake has no table 'LineItem': did you mean 'lineitem'?"
    assert said("orders").startswith("the lake has no table 'orders': did you mean 'sales.orders'?")
    assert said("nope") == (
        "the lake has no table 'nope': it has lineitem, sales.orders, t00, t01, t02, t03, t04, t05, t06, t07 and 12 more"
    )


def test_what_is_not_there_is_said_precisely(catalog: Catalog, committer: DirectCommitter) -> None:
    """No such table, not yet, not that version, not at that time: each its own words, with the valid range."""
    committer.commit(create("first"))
    committer.commit(create("orders"))
    committer.commit(append("orders", add("a")))

    with pytest.raises(TxnLogTableNotFoundError, match="no table 'nowhere'"):
        catalog.table("nowhere")
    with pytest.raises(TxnLogTableNotFoundError, match="no table 'nowhere'"):
        catalog.table("nowhere", version=0)
    with pytest.raises(TxnLogTableNotFoundError, match="made by commit 2: it is not there at 1"):
        catalog.table("orders", commit_seq=1)
    with pytest.raises(TxnLogValidationError, match="versions 0 to 1, and no version 2"):
        catalog.table("orders", version=2)
    with pytest.raises(TxnLogValidationError, match="versions 0 to 1, and no version -1"):
        catalog.table("orders", version=-1)
    with pytest.raises(TxnLogValidationError, match=r"begins at 2023-11-14T22:13:20\.001\+00:00 \(version 0\)"):
        catalog.table("orders", timestamp_ms=START_MS)


def test_dropped_tables_live_on_in_the_past(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """Gone now, there at earlier commits, by the id too; a new table of the name is another one."""
    committer.commit(create("orders", add("a")))
    old = catalog.table("orders")
    committer.commit(create("other"))
    database.execute("UPDATE dl_tables SET state = 'DROPPED', dropped_seq = 2 WHERE name = 'orders'")
    before, after = catalog.tables(commit_seq=1), catalog.tables(commit_seq=2)
    with pytest.raises(TxnLogTableNotFoundError, match="dropped by commit 2"):
        catalog.table("orders")
    with pytest.raises(TxnLogTableNotFoundError, match="dropped by commit 2"):
        catalog.table(table_id=old.table_id)

    assert [table.name for table in before] == ["orders"]
    assert [table.name for table in after] == ["other"]
    assert catalog.table("orders", commit_seq=1).table_id == old.table_id
    assert [table.name for table in catalog.tables()] == ["other"]


def test_history_is_newest_first(catalog: Catalog, committer: DirectCommitter) -> None:
    """All of it, or a page of it; with who did what."""
    committer.commit(create("orders"))
    for n in range(5):
        committer.commit(append("orders", add(str(n))), user_metadata=f"run {n}", engine_info="test/1")
    newest, *_ = whole = catalog.history(1)
    page = catalog.history(1, limit=2, before=4)

    assert [row.version for row in whole] == [5, 4, 3, 2, 1, 0]
    assert [row.version for row in page] == [3, 2]
    assert (newest.user_metadata, newest.engine_info, newest.operation) == ("run 4", "test/1", "WRITE")
    assert (newest.added_files, newest.added_bytes, newest.removed_files) == (1, 1_000, 0)
    assert newest.is_blind_append is True
    assert newest.time_ms == START_MS + 5


# Files.


def test_files_of_every_version(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """INV7: at each version exactly the files added and not removed until then, wherever they lie now."""
    chance = random.Random(11)
    committer.commit(create("orders"), create("other", add("never")))
    live: set[str] = set()
    expected = [live]
    for n in range(30):
        gone = set(chance.sample(sorted(live), min(len(live), chance.randint(0, 4))))
        new = {f"{n}-{k}" for k in range(chance.randint(1, 4))}
        committer.commit(
            TableWork(
                name="orders",
                adds=tuple(add(path) for path in sorted(new)),
                removes=tuple(RemoveFile(path=path) for path in sorted(gone)),
            )
        )
        live = (live - gone) | new
        expected.append(live)
    found = [set(paths(database, catalog.table("orders", version=version))) for version in range(31)]

    assert found == expected
    assert set(paths(database, catalog.table("orders"))) == expected[-1]


def test_a_file_carries_every_field(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """All columns, typed as the schema of the batches says, live and past alike."""
    full = AddFile(
        path="day=%2525/a%20b.parquet",
        partition_values={"day": "ß\"'"},
        size=2**40,
        modification_time=START_MS - 5,
        data_change=False,
        stats='{"numRecords": 12,  "odd":"text ☃"}',
        deletion_vector=VECTOR,
        rest='{"tags":{"k":"v"},"clusteringProvider":"liquid","future":{"x":[1,null]}}',
    )
    committer.commit(create("orders", full, partition_by=("day",), enableDeletionVectors="true"))
    live = batches(catalog, database, catalog.table("orders"))
    committer.commit(
        TableWork(
            name="orders", removes=(RemoveFile(path=full.path, deletion_vector=VECTOR),), adds=(add("b", day=None),)
        )
    )
    past = batches(catalog, database, catalog.table("orders", version=0))
    newest = batches(catalog, database, catalog.table("orders"))

    assert live.schema == file_schema()
    assert past.to_pylist() == live.to_pylist()
    assert live.to_pylist() == [
        {
            "path": full.path,
            "partition_values": '{"day":"ß\\"\'"}',
            "size": 2**40,
            "modification_time": START_MS - 5,
            "data_change": False,
            "stats": full.stats,
            "num_records": 12,
            "dv_storage_type": "i",
            "dv_path": VECTOR.path_or_inline_dv,
            "dv_offset": None,
            "dv_size": 40,
            "dv_cardinality": 6,
            "dv_max_row_index": None,
            "tags": '{"k":"v"}',
            "base_row_id": None,
            "default_row_commit_version": None,
            "clustering_provider": "liquid",
            "extra": '{"future":{"x":[1,null]}}',
            "version": 0,
        }
    ]
    assert newest.column("partition_values").to_pylist() == ['{"day":null}']


def batches(catalog: Catalog, database: Database, table: TableInfo, **pruning: Any) -> pa.Table:
    names = pruning.get("names", FILE_COLUMNS)
    with database.snapshot():
        return pa.Table.from_batches(catalog.files(table, **pruning), schema=file_schema(names)).unify_dictionaries()


def test_batches_are_bounded_and_as_narrow_as_asked(
    catalog: Catalog, committer: DirectCommitter, database: Database
) -> None:
    """No batch has more rows than asked for, and only the columns asked for, in that order."""
    committer.commit(create("orders", *(add(f"{n:03}") for n in range(95))))
    table = catalog.table("orders")
    with database.snapshot():
        found = list(catalog.files(table, names=("size", "path"), batch=40))

    assert [batch.num_rows for batch in found] == [40, 40, 15]
    assert {tuple(batch.schema.names) for batch in found} == {("size", "path")}
    assert sorted(paths_in(found)) == [f"{n:03}" for n in range(95)]


def test_files_are_pruned_by_partition(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """The filter sees each distinct set of values once, NULL as None; files of the others are left out."""
    days = ["1", "2", None, "10"]
    committer.commit(create("orders", *(add(f"f{n}", day=days[n % 4]) for n in range(40)), partition_by=("day",)))
    table = catalog.table("orders")
    seen: list[str | None] = []

    def late(values: Any) -> bool:
        seen.append(values.get("day"))
        return values.get("day") is not None and int(values["day"]) >= 2

    found = paths(database, table, partitions=late)
    nulls = paths(database, table, partitions=lambda values: "day" in values and values["day"] is None)
    none = paths(database, table, partitions=lambda values: False)
    everything = paths(database, table, partitions=lambda values: True)

    assert found == sorted(f"f{n}" for n in range(40) if days[n % 4] in ("2", "10"))
    assert nulls == sorted(f"f{n}" for n in range(2, 40, 4))
    assert none == []
    assert len(everything) == 40
    assert sorted(seen, key=str) == sorted([*days, None], key=str)  # one for files without partition values


def test_files_are_pruned_by_slots(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """Only files whose range cannot meet the asked one are left out; no statistics, or no slot, means kept."""
    plain = AddFile(path="unknown", partition_values={}, size=1, modification_time=1)
    committer.commit(create("orders", *(add(f"f{n}", low=10 * n, high=10 * n + 9) for n in range(10)), plain))
    committer.commit(remove("orders", "f3"))
    older, table = catalog.table("orders", version=0), catalog.table("orders")

    def between(which: TableInfo, lower: int | None, upper: int | None, column: str = "id") -> list[str]:
        return paths(database, which, ranges=[SlotRange((column,), lower, upper)])

    assert between(table, 25, 45) == ["f2", "f4", "unknown"]
    assert between(older, 25, 45) == ["f2", "f3", "f4", "unknown"]
    assert between(table, 89, 90) == ["f8", "f9", "unknown"]
    assert between(table, None, 5) == ["f0", "unknown"]
    assert between(table, 95, None) == ["f9", "unknown"]
    assert between(table, 500, 600) == ["unknown"]
    assert len(between(table, 500, 600, column="day")) == 10
    assert paths(database, table, ranges=[SlotRange(("id",), 25, 45), SlotRange(("id",), 40, None)]) == [
        "f4",
        "unknown",
    ]


def test_a_moving_file_is_never_missed(address: StoreAddress, committer: DirectCommitter, catalog: Catalog) -> None:
    """While files move from live to past, a snapshot goes on seeing each of them exactly once."""
    committer.commit(create("orders", *(add(f"f{n}") for n in range(60))))
    with closing(open_database(address)) as other:
        reader = Catalog(other)
        with other.snapshot():
            table = reader.table("orders")
            found: list[str] = []
            for n, batch in enumerate(reader.files(table, names=("path",), batch=10)):
                found += paths_in([batch])
                committer.commit(remove("orders", *(f"f{k}" for k in range(10 * n, 10 * n + 10))))
        left = paths(other, reader.table("orders"))
        before = paths(other, reader.table("orders", version=0))

    assert sorted(found) == sorted(f"f{n}" for n in range(60))
    assert left == []
    assert before == sorted(found)


def test_tombstones_are_what_is_gone(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """Removed up to the version, after the given time, and not there again: once each, with the last removal."""
    committer.commit(create("orders", *(add(name) for name in "abcd")))
    committer.commit(remove("orders", "a"))
    committer.commit(remove("orders", "b", "c"))
    committer.commit(append("orders", add("b")))
    committer.commit(remove("orders", "d"))
    committer.commit(append("orders", add("a")))
    committer.commit(remove("orders", "a"))

    def gone(version: int, after: int = -1) -> list[tuple[str, int]]:
        table = catalog.table("orders", version=version)
        with database.snapshot():
            batches = catalog.tombstones(table, after_ms=START_MS + after)
            rows: Any = pa.Table.from_batches(batches, schema=tombstone_schema()).to_pylist()
        return sorted((row["path"], row["deletion_timestamp"] - START_MS) for row in rows)

    assert gone(0) == []
    assert gone(2) == [("a", 1), ("b", 2), ("c", 2)]
    assert gone(3) == [("a", 1), ("c", 2)]
    assert gone(5) == [("c", 2), ("d", 4)]
    assert gone(6) == [("a", 6), ("c", 2), ("d", 4)]
    assert gone(6, after=2) == [("a", 6), ("d", 4)]


# Whole versions.


def test_versions_come_back_with_every_action(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """Every kind of action, every field, in the order it was staged in: what went in comes out."""
    first = AddFile(
        path="a",
        partition_values={"day": None},
        size=5,
        modification_time=START_MS,
        stats='{"numRecords":3}',
        rest='{"tags":{"k":"v","n":null},"clusteringProvider":"li\\"quid","future":[1,{"x":"y"}]}',
    )
    vectored = AddFile(
        path="b",
        partition_values={"day": "1"},
        size=6,
        modification_time=7,
        stats='{"numRecords":9}',
        deletion_vector=VECTOR,
    )
    committer.commit(create("orders", first, vectored, partition_by=("day",), enableDeletionVectors="true"))
    removed = RemoveFile(
        path="b", deletion_vector=VECTOR, rest='{"stats":"{\\"numRecords\\":9}","tags":{"t":"u"},"more":7}'
    )
    committer.commit(
        TableWork(
            name="orders",
            operation="MERGE",
            operation_parameters={"matchedPredicates": '["x"]'},
            operation_metrics={"numTargetRowsInserted": "3"},
            adds=tuple(add(f"n{n}", day=str(n)) for n in (3, 1, 2)),
            removes=(removed, RemoveFile(path="a")),
            others=(
                OtherAction(kind="txn", json='{"appId":"z","version":4,"lastUpdated":9,"extra":1}'),
                OtherAction(kind="txn", json='{"appId":"a","version":5}'),
            ),
        ),
        user_metadata="me",
        engine_info="us/1",
    )
    rows: dict[str, list[tuple[Any, ...]]] = {
        "dl_cdc_files": [(1, 1, 0, "_change_data/c", '{"day":"1"}', 8, False, '{"a":"b"}', '{"x":1}')],
        "dl_domain_metadata": [(1, 1, "mine", "{}", False, None), (1, 1, "gone", "old", True, '{"y":2}')],
        "dl_other_actions": [(1, 1, 0, "futureAction", '{"a": 1}'), (1, 1, 1, "other", "{}")],
    }
    committer.store.write(committer.cursor, Batch(inserts=rows), committer.cursor)
    with database.snapshot():
        start, change = catalog.versions([(1, 0, 9)])
    table = catalog.table("orders")

    assert start.metadata == table.metadata
    assert start.protocol == table.protocol
    assert start.adds == (first, vectored)
    assert (start.row.operation, start.row.changes_metadata, start.row.changes_protocol) == (
        "CREATE TABLE AS SELECT",
        True,
        True,
    )
    assert change.metadata is None
    assert change.protocol is None
    assert change.adds == tuple(add(f"n{n}", day=str(n)) for n in (3, 1, 2))
    assert [(found.path, found.dv_id, found.deletion_timestamp, found.size) for found in change.removes] == [
        ("b", VECTOR.unique_id, START_MS + 1, 6),
        ("a", "", START_MS + 1, 5),
    ]
    assert change.removes[0].rest is not None
    assert msgspec.json.decode(change.removes[0].rest) == {"stats": '{"numRecords":9}', "tags": {"t": "u"}, "more": 7}
    assert change.removes[0].partition_values == {"day": "1"}
    assert change.cdc == (
        CdcFile(path="_change_data/c", partition_values={"day": "1"}, size=8, rest='{"tags":{"a":"b"},"x":1}'),
    )
    assert [(found.app_id, found.version) for found in change.txns] == [("a", 5), ("z", 4)]
    assert change.txns[1].rest == '{"extra":1}'
    assert change.domains == (
        DomainMetadata(domain="gone", configuration="old", removed=True, rest='{"y":2}'),
        DomainMetadata(domain="mine", configuration="{}"),
    )
    assert change.others == (OtherAction(kind="futureAction", json='{"a": 1}'), OtherAction(kind="other", json="{}"))
    assert (change.row.operation, change.row.user_metadata, change.row.engine_info) == ("MERGE", "me", "us/1")
    assert change.row.operation_parameters == '{"matchedPredicates":"[\\"x\\"]"}'
    assert change.row.operation_metrics == '{"numTargetRowsInserted":"3"}'
    assert (change.row.commit_seq, change.row.txn_id is not None, change.row.render_version) == (2, True, 1)


def test_versions_of_many_tables_at_once(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """Any ranges of any tables, in order of table and version; what is not committed is left out."""
    committer.commit(*(create(f"t{n}") for n in range(4)))
    for n in range(6):
        committer.commit(*(append(f"t{k}", add(f"{k}-{n}")) for k in range(n % 4 + 1)))
    committer.commit(remove("t0", "0-1", "0-5"))
    with database.snapshot():
        found = catalog.versions([(3, 1, 99), (1, 4, 7), (4, 5, 9), (9, 0, 9)])
        nothing = catalog.versions([])

    assert [(v.row.table_no, v.row.version, [add.path for add in v.adds], len(v.removes)) for v in found] == [
        (1, 4, ["0-3"], 0),
        (1, 5, ["0-4"], 0),
        (1, 6, ["0-5"], 0),
        (1, 7, [], 2),
        (3, 1, ["2-2"], 0),
        (3, 2, ["2-3"], 0),
    ]
    assert nothing == []


@pytest.mark.parametrize(("first", "last"), [(0, 6), (2, 4), (3, 3), (1, 2), (4, 6)])
def test_what_few_versions_have_is_found(
    catalog: Catalog, committer: DirectCommitter, database: Database, first: int, last: int
) -> None:
    """Actions of which most versions have none, wherever among those that are asked for, or beside them, one lies."""
    committer.commit(create("t"), create("u"))
    for n in range(6):
        committer.commit(append("t", add(f"t{n}")), append("u", add(f"u{n}")))
    rows: dict[str, list[tuple[Any, ...]]] = {
        "dl_cdc_files": [(1, 3, 0, "_change_data/c", "{}", 8, False, None, None)],
        "dl_txn_actions": [(2, 3, "app", 1, None, None), (2, 5, "app", 2, None, None)],
        "dl_domain_metadata": [(1, 3, "mine", "{}", False, None)],
        "dl_other_actions": [(1, 3, 0, "futureAction", "{}")],
    }
    committer.store.write(committer.cursor, Batch(inserts=rows), committer.cursor)
    with database.snapshot():
        found = catalog.versions([(1, first, last), (2, first, last)])

    assert [
        (v.row.table_no, v.row.version, len(v.adds), len(v.cdc), len(v.txns), len(v.domains), len(v.others))
        for v in found
    ] == [
        (table, n, n > 0, *((1, 0, 1, 1) if (table, n) == (1, 3) else (0, (table, n) in ((2, 3), (2, 5)), 0, 0)))
        for table in (1, 2)
        for n in range(first, last + 1)
    ]


def test_what_is_in_force(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """The newest `txn` of each application and the domains not removed, as of any version."""
    committer.commit(create("orders"))
    for version, app in ((3, "b"), (1, "a"), (4, "b")):
        committer.commit(append("orders", add(f"{app}{version}")), apps=(AppTransaction(app, version),))
    rows: dict[str, list[tuple[Any, ...]]] = {
        "dl_domain_metadata": [
            (1, 1, "x", "1", False, None),
            (1, 1, "y", "1", False, None),
            (1, 2, "x", "2", True, None),
            (1, 3, "x", "3", False, None),
        ]
    }
    committer.store.write(committer.cursor, Batch(inserts=rows), committer.cursor)
    txns = [{txn.app_id: txn.version for txn in catalog.txns(1, version)} for version in range(4)]
    domains = [{found.domain: found.configuration for found in catalog.domains(1, version)} for version in range(4)]
    one = catalog.txns(1, 3)[0]

    assert txns == [{}, {"b": 3}, {"a": 1, "b": 3}, {"a": 1, "b": 4}]
    assert domains == [{}, {"x": "1", "y": "1"}, {"y": "1"}, {"x": "3", "y": "1"}]
    assert one == SetTransaction(app_id="a", version=1, last_updated=START_MS + 2)
    assert catalog.txns(2, 9) == []


# Transactions and mirrors.


def test_outcomes_are_found_by_id(catalog: Catalog, committer: DirectCommitter) -> None:
    """Committed, rejected, unknown; and a record that could not be decoded answers for the id it claimed."""
    record = Record(0, 2, START_MS, b"no event", ((HEADER_TXN, txn(8).encode()),))
    committer.apply(
        [
            staged(create("orders"), txn_id=txn(1)),
            staged(append("nowhere", add("x")), txn_id=txn(2)),
            Undecodable.of(record, "nonsense"),
            Undecodable.of(record._replace(position=3), "nonsense"),
            Undecodable.of(record._replace(position=4, headers=((HEADER_TXN, txn(1).encode()),)), "nonsense"),
        ]
    )
    found = catalog.outcomes([txn(1), txn(2), txn(3), txn(8)])
    committed, rejected, claimed = found[txn(1)], found[txn(2)], found[txn(8)]

    assert set(found) == {txn(1), txn(2), txn(8)}
    assert committed.committed is not None
    assert committed.committed.commit_seq == 1
    assert rejected.rejected is not None
    assert rejected.rejected.reason == "UNKNOWN_TABLE"
    assert claimed.rejected is not None
    assert (claimed.rejected.reason, claimed.position) == ("UNDECODABLE_EVENT", 2)
    assert catalog.outcome(txn(1)) == committed
    assert catalog.outcome(txn(3)) is None


def test_mirror_progress(catalog: Catalog, committer: DirectCommitter, database: Database) -> None:
    """Each table beside its status, and the first commit that is not mirrored yet; only those behind, where asked."""
    committer.commit(*(create(f"t{n}") for n in range(3)))
    committer.commit(append("t0", add("a")), append("t1", add("b")))
    columns = ("table_no", "target", *MirrorStatus.__dataclass_fields__)
    database.insert(
        "dl_mirror_status",
        columns,
        [
            (1, "in-place", "SUCCEEDED", 0, 1, -1, 0, 0, None, None, 5),
            (2, "in-place", "FAILED", 0, 0, -1, 0, 3, "disk full", None, 6),
            (3, "copy", "SUCCEEDED", 0, 0, -1, 0, 0, None, None, 7),
        ],
    )
    (target,) = catalog.targets()
    first, second, third = catalog.progress("in-place")
    behind = catalog.progress("in-place", behind=True)

    assert (target.target, target.kind, target.root, target.state, target.added_seq) == (
        "in-place",
        "in-place",
        None,
        "ACTIVE",
        0,
    )
    assert (first.name, first.version, first.next_commit_seq, first.next_time_ms) == ("t0", 1, None, None)
    assert second.status == MirrorStatus(
        state="FAILED",
        publish_from=0,
        mirrored_version=0,
        checkpoint_version=-1,
        log_start=0,
        attempts=3,
        last_error="disk full",
        fenced_by=None,
        updated_ms=6,
    )
    assert (second.next_commit_seq, second.next_time_ms, second.commit_seq) == (2, START_MS + 1, 2)
    assert third.status is None
    assert (third.next_commit_seq, third.location, third.state) == (1, f"{ROOT}/t2", "ACTIVE")
    assert names(behind) == ["t1", "t2"]


def names(rows: Iterable[Any]) -> list[str]:
    return [row.name for row in rows]
