"""What the committer's store promises (`committer/store.py`), on every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from deltalakedb.actions import AddFile, DeletionVector, OtherAction, RemoveFile
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import (
    TxnLogConfigError,
    TxnLogDatabaseError,
    TxnLogFencedError,
    TxnLogHaltedError,
)
from deltalakedb.events import (
    AppTransaction,
    Content,
    Control,
    Predicate,
    ReadSet,
    StagedTransaction,
    TableWork,
    Term,
    Tick,
)
from deltalakedb_committer.deciding.decisions import Accepted, Answer, Commit, Expired, Rejection, Staged
from deltalakedb_committer.deciding.needs import Needs, add_needs
from deltalakedb_committer.deciding.state import Winner
from deltalakedb_committer.storing.partitions import Partitions
from deltalakedb_committer.storing.rows import Batch, OutboxRow
from deltalakedb_committer.storing.store import SqlCommitStore
from tests import works
from tests.direct import (
    LAKE_ID,
    LOG,
    ROOT,
    START_MS,
    DirectCommitter,
    add,
    chunked,
    create,
    dump,
    load_state,
    made,
    staged,
    txn,
)
from tests.stores import address, database, migrated

__all__ = ["address", "database"]

VECTOR = DeletionVector(
    storage_type="u", path_or_inline_dv="ab^-aqEH.-t@S}K{vb[*k^", offset=4, size_in_bytes=40, cardinality=6
)


@pytest.fixture
def store(database: Database) -> SqlCommitStore:
    return made(database)


@pytest.fixture
def committer(store: SqlCommitStore) -> DirectCommitter:
    return DirectCommitter(store)


def append(name: str, *adds: AddFile, **more: object) -> TableWork:
    return TableWork(name=name, adds=adds, **more)  # type: ignore[arg-type]


def remove(name: str, *paths: str, dv: DeletionVector | None = None) -> TableWork:
    return TableWork(name=name, removes=tuple(RemoveFile(path=path, deletion_vector=dv) for path in paths))


def one(database: Database, sql: str) -> object:
    return database.query(sql)[0][0]


# The lake.


def test_making_a_lake_again_changes_nothing(database: Database) -> None:
    """The same settings give the lake that is there, whatever id is offered."""
    store = made(database)
    DirectCommitter(store).commit(create("orders"))
    before = dump(database)
    again = store.init_lake(
        lake_id="another", root=ROOT, log_address=LOG, stream_identity="s", position=9, fence=False, created_ms=1
    )

    assert again == LAKE_ID
    assert dump(database) == before
    assert store.lake().fence
    assert store.remembered() == (LAKE_ID, ROOT, LOG)


@pytest.mark.parametrize(("root", "log", "what"), [("file:///other", LOG, "root"), (ROOT, "kafka://h/p", "log")])
def test_another_lakes_root_or_log_is_refused(database: Database, root: str, log: str, what: str) -> None:
    """A store belongs to one root and one log; the message names what is different."""
    store = made(database)

    with pytest.raises(TxnLogConfigError, match=what):
        store.init_lake(
            lake_id="x", root=root, log_address=log, stream_identity="s", position=0, fence=True, created_ms=1
        )


def test_many_make_one_lake(address: StoreAddress) -> None:
    """Processes that make the lake at once end up with the same one, and with one row of everything."""
    migrated(address).close()
    ids: list[str] = []

    def make(number: int) -> None:
        with closing(open_database(address)) as own:
            ids.append(
                SqlCommitStore(own).init_lake(
                    lake_id=f"lake-{number}",
                    root=ROOT,
                    log_address=LOG,
                    stream_identity="s",
                    position=0,
                    fence=True,
                    created_ms=number,
                )
            )

    run_together(6, make)
    with closing(open_database(address)) as database:
        counts = [
            one(database, f"SELECT count(*) FROM {table}")
            for table in ("dl_lake", "dl_committer_position", "dl_committer_heartbeat", "dl_mirror_targets")
        ]

    assert len(ids) == 6
    assert len(set(ids)) == 1
    assert counts == [1, 1, 1, 1]


def test_a_store_without_a_lake_says_so(database: Database) -> None:
    """Nothing is remembered, and who needs the lake is told the next step."""
    store = SqlCommitStore(database)

    assert store.remembered() is None
    with pytest.raises(TxnLogConfigError, match="deltalakedb migrate"):
        store.lake()


def test_a_new_lake_has_a_mirror_target(store: SqlCommitStore, database: Database) -> None:
    """The tables' own locations are mirrored unless somebody says otherwise."""
    assert database.query("SELECT target, kind, root, state FROM dl_mirror_targets") == [
        ("in-place", "in-place", None, "ACTIVE")
    ]


def test_a_store_in_order_passes_its_checks(store: SqlCommitStore) -> None:
    """Durable settings and this release's schema."""
    store.verify()


def test_a_store_of_another_release_is_refused(store: SqlCommitStore, database: Database) -> None:
    """Older or newer than this release: a halt by name, with the next step, unless the newer one says that this may go on."""
    later = "INSERT INTO dl_migrations (name, text_hash, runs_with, applied_ms) VALUES (?, ?, ?, ?)"
    database.execute(later, ["9998_later", "x", "0001_lake", 1])
    store.verify()
    database.execute(later, ["9999_last", "x", "9998_later", 1])
    with pytest.raises(TxnLogHaltedError, match="upgrade") as newer:
        store.verify()
    database.execute("DELETE FROM dl_migrations")
    with pytest.raises(TxnLogHaltedError, match="deltalakedb migrate") as older:
        store.verify()

    assert newer.value.state == "SCHEMA_TOO_NEW"
    assert older.value.state == "SCHEMA_TOO_OLD"


# Who writes.


def test_taking_over_starts_an_epoch(store: SqlCommitStore) -> None:
    """Epochs only go up, and the rest of the cursor stays."""
    first = store.take_over("a")
    second = store.take_over("b")

    assert second == replace(first, epoch=first.epoch + 1)
    assert store.cursor() == second


def test_an_old_epoch_never_writes(address: StoreAddress, committer: DirectCommitter, database: Database) -> None:
    """INV9: once somebody took over, the one before can write nothing, not even an empty batch."""
    committer.commit(create("orders"))
    batch, cursor, _ = committer.prepare([staged(append("orders", add("late")))])
    with closing(open_database(address)) as other:
        SqlCommitStore(other).take_over("new")
        before = dump(database)
        with pytest.raises(TxnLogFencedError, match="took over"):
            committer.store.write(committer.cursor, batch, cursor)
        with pytest.raises(TxnLogFencedError):
            committer.store.write(committer.cursor, Batch(), cursor)
        after = dump(database)

    assert after == before


def test_an_old_position_never_writes(committer: DirectCommitter, database: Database) -> None:
    """INV9: what was written once is not written again from where the cursor stood before."""
    events = [staged(create("orders", add("a")))]
    start = committer.cursor
    batch, cursor, _ = committer.prepare(events)
    committer.store.write(start, batch, cursor)
    before = dump(database)
    with pytest.raises(TxnLogFencedError):
        committer.store.write(start, batch, cursor)

    assert dump(database) == before


def test_signs_of_life(store: SqlCommitStore) -> None:
    """A standby sees beats and a release of the newest epoch; an older epoch can give neither."""
    unled = store.observe()
    old = store.take_over("a").epoch
    epoch = store.take_over("b").epoch
    led = store.observe()
    store.heartbeat(epoch)
    beaten = store.observe()
    with pytest.raises(TxnLogFencedError):
        store.heartbeat(old)
    with pytest.raises(TxnLogFencedError):
        store.release(old)
    store.release(epoch)
    released = store.observe()

    assert unled.released
    assert (led.epoch, led.released) == (epoch, False)
    assert beaten == led._replace(beat=led.beat + 1)
    assert released == beaten._replace(released=True)


def test_of_several_that_would_lead_one_is_let_in(store: SqlCommitStore) -> None:
    """Who saw the same claims at the same time: the first one has it until it took over, and gives it back if it does not."""
    seen = store.observe()
    claims = [store.claim(seen) for _ in range(3)]
    rival = store.claim(store.observe())
    store.release(seen.epoch)
    again = store.claim(store.observe())
    led = store.take_over("a")
    late = store.claim(seen)

    assert claims == [True, False, False]
    assert rival, "a rival may, when it has seen this one stand still"
    assert again
    assert not late
    assert store.observe()[:4] == (led.epoch, led.position, 0, False)


def test_two_committers_fight(address: StoreAddress) -> None:
    """INV2, INV4, INV9: two that take the lake from each other all the time decide every record once, in order."""
    with closing(migrated(address)) as database:
        DirectCommitter(made(database)).commit(create("orders"), create("lineitem"))
    events = [
        staged(append("orders", add(f"o{n}")), append("lineitem", add(f"l{n}")), txn_id=txn(n)) for n in range(60)
    ]

    def fight(_: int) -> None:
        with closing(open_database(address)) as own:
            while True:
                committer = DirectCommitter(SqlCommitStore(own))
                try:
                    while left := events[committer.cursor.position - 1 :][:5]:
                        committer.apply(left)
                except TxnLogFencedError:
                    continue
                return

    run_together(2, fight)
    with closing(open_database(address)) as database:
        commits = database.query("SELECT commit_seq, position FROM dl_commits ORDER BY commit_seq")
        versions = database.query("SELECT table_no, version FROM dl_table_versions ORDER BY table_no, version")

    assert commits == [(n + 1, n) for n in range(61)]
    assert versions == [(table, version) for table in (1, 2) for version in range(61)]


# Batches.


@pytest.mark.parametrize("number", [1, 3, 40])
def test_a_group_commit_writes_all_of_it(committer: DirectCommitter, database: Database, number: int) -> None:
    """INV1, INV2, INV4: every transaction of a batch is in both tables, at the next number, with one decision."""
    committer.commit(create("orders"), create("lineitem"))
    decisions = committer.apply(
        [staged(append("orders", add(f"o{n}")), append("lineitem", add(f"l{n}"))) for n in range(number)]
    )
    commits = database.query("SELECT commit_seq FROM dl_commits ORDER BY commit_seq")
    versions = database.query(
        "SELECT commit_seq, count(*), min(version), max(version) FROM dl_table_versions GROUP BY commit_seq ORDER BY 1"
    )
    heads = database.query("SELECT version, commit_seq, live_files, live_bytes FROM dl_table_heads")

    assert all(isinstance(decision, Commit) for decision in decisions)
    assert commits == [(n + 1,) for n in range(number + 1)]
    assert versions == [(n + 1, 2, n, n) for n in range(number + 1)]
    assert heads == [(number, number + 1, number, number * 1_000)] * 2
    assert one(database, "SELECT count(*) FROM dl_transactions") == number + 1
    assert one(database, "SELECT count(*) FROM dl_live_files") == 2 * number
    assert committer.store.cursor() == committer.cursor


@pytest.mark.parametrize("number", [1, 40])
def test_what_fails_leaves_nothing(committer: DirectCommitter, database: Database, number: int) -> None:
    """INV1, INV9: a batch of which SQL refuses one row changes nothing, and can be written right afterwards."""
    committer.commit(create("orders", partition_by=("day",)))
    before = dump(database)
    events = [staged(append("orders", add(f"o{n}", day=str(n)))) for n in range(number)]
    batch, cursor, _ = committer.prepare(events)
    batch.inserts["dl_other_actions"] = [(1, 1, 0, "kind", "{}")] * 2
    with pytest.raises(TxnLogDatabaseError):
        committer.store.write(committer.cursor, batch, cursor)
    failed = dump(database)
    batch.inserts["dl_other_actions"] = []
    committer.store.write(committer.cursor, batch, cursor)

    assert failed == before
    assert one(database, "SELECT count(*) FROM dl_live_files") == number
    assert database.query("SELECT partition_no FROM dl_partitions ORDER BY 1") == [(n + 1,) for n in range(number)]


HISTORY: list[StagedTransaction] = [
    staged(
        create("orders", add("a", day="1"), add("b", day=None), partition_by=("day",)),
        create("lineitem"),
        txn_id=txn(1),
    ),
    staged(
        append("orders", add("c", day="2")),
        append("lineitem", add("x")),
        txn_id=txn(2),
        apps=(AppTransaction("app", 7),),
    ),
    staged(remove("orders", "a"), append("lineitem", add("y")), txn_id=txn(3)),
    *chunked([Content(tables=(append("lineitem", add(f"part-{n}")),)) for n in range(3)], txn_id=txn(4)),
    staged(append("orders", add("d", day="1"), add("e", day="3")), remove("lineitem", "x", "part-1"), txn_id=txn(5)),
    staged(append("nowhere", add("f")), txn_id=txn(6)),
    staged(
        append("lineitem", others=(OtherAction(kind="txn", json='{"appId":"other","version":3,"lastUpdated":5}'),)),
        txn_id=txn(7),
    ),
    staged(append("lineitem", add("z")), txn_id=txn(8), apps=(AppTransaction("app", 8),)),
    staged(append("lineitem", add("again")), txn_id=txn(9), apps=(AppTransaction("app", 7),)),
    staged(append("orders", add("c", day="2")), txn_id=txn(2), apps=(AppTransaction("app", 7),)),
    staged(remove("orders", "c", "d"), txn_id=txn(10)),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, len(HISTORY)])
def test_batch_boundaries_leave_no_trace(committer: DirectCommitter, database: Database, size: int) -> None:
    """INV6: a history gives the same rows whether it is written one record at a time, or all at once."""
    for start in range(0, len(HISTORY), size):
        committer.apply(HISTORY[start : start + size])
    found = dump(database)
    expected = _reference()

    assert {name: rows for name, rows in found.items() if rows != expected[name]} == {}


def _reference() -> dict[str, list[tuple[object, ...]]]:
    """The rows of `HISTORY`, each record decided and written by a committer of its own."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        address = StoreAddress(engine="sqlite", path=f"{folder}/store.db")
        with closing(migrated(address)) as database:
            store = made(database)
            for event in HISTORY:
                DirectCommitter(store).apply([event])
            return dump(database)


def test_what_is_loaded_is_what_was_left(store: SqlCommitStore, database: Database) -> None:
    """A committer that takes over starts from the same tables, heads and domains as the one before ended with."""
    first = DirectCommitter(store)
    first.commit(create("tracked", add("a"), enableRowTracking="true"), create("orders"))
    first.commit(append("tracked", add("b")), append("orders", add("c", low=-5, high=70)))
    first.commit(TableWork(name="orders", removes=(RemoveFile(path="c"),)))
    second = DirectCommitter(store)
    needs = Needs()
    add_needs(needs, staged(append("tracked"), append("orders")))
    store.load(needs, second.state)
    loaded = second.state.tables

    for number, table in first.state.tables.items():
        table.facts = loaded[number].facts = None
    assert second.cursor == replace(first.cursor, epoch=first.cursor.epoch + 1)
    assert loaded == first.state.tables
    assert [domain.domain for domain in loaded[1].domains.values()] == ["delta.rowTracking"]
    assert loaded[2].widths[0] == 75


def test_named_things_are_loaded(store: SqlCommitStore) -> None:
    """Live files of named paths with every vector, winners, first decisions, apps, app rows of tables, old metadata."""
    committer = DirectCommitter(store)
    committer.apply(HISTORY)
    state = load_state(store, store.cursor())
    needs = Needs()
    work = append("orders", read_version=1, read_set=ReadSet(whole_table=True, app_ids=("app",)))
    add_needs(
        needs, staged(work, remove("lineitem", "y", "x", "absent"), txn_id=txn(6), apps=(AppTransaction("app", 3),))
    )
    store.load(needs, state)
    orders, lineitem = state.tables[1], state.tables[2]

    assert set(lineitem.files) == {("y", "")}
    assert lineitem.files["y", ""].version == 2
    assert lineitem.vectors == {"y": {""}}
    assert [winner.version for winner in orders.winners] == list(range(2, orders.version + 1))
    assert [(winner.txn_id, winner.removed_files) for winner in orders.winners[:1]] == [(txn(3), 1)]
    assert orders.winners_since == 1
    assert state.apps == {"app": {7: txn(2)}}
    assert state.decided[txn(6)].outcome.rejected is not None
    assert state.decided[txn(2)].outcome.committed is not None
    assert orders.txns["app"].txn.version == 7
    state.forget()
    assert [*lineitem.files, *orders.winners, *state.decided, *state.apps] == []


def test_what_stays_incomplete_is_given_up_by_whoever_leads_then(
    database: Database, store: SqlCommitStore, committer: DirectCommitter
) -> None:
    """The next committer knows of chunks that were staged before it; a tick rejects their transaction and frees them."""
    committer.commit(create("orders"))
    parts = chunked([Content(tables=(append("orders", add(path)),)) for path in "ab"], txn_id=txn(7))
    committer.apply(parts[:1])
    later = DirectCommitter(store)
    later.state.rules = replace(later.state.rules, expire_ms=1)

    (expired,) = later.apply([Control(control_id=txn(8), lake_id=LAKE_ID, client_id="test", command=Tick())])
    (late,) = later.apply(parts[1:])

    assert isinstance(expired, Expired)
    assert isinstance(late, Answer)
    assert len(load_state(store, store.cursor()).incomplete) == 0
    rows = dump(database)
    assert rows["dl_staged_chunks"] == rows["dl_live_files"] == []
    assert len(rows["dl_transactions"]) == 2


def test_what_winners_did_is_loaded_where_it_is_compared(store: SqlCommitStore) -> None:
    """Partition values for predicates, paths and domains that the batch names; nothing of it for who names nothing."""
    committer = DirectCommitter(store)
    properties = {"delta.isolationLevel": "WriteSerializable", "delta.feature.domainMetadata": "supported"}
    of_day = [works.add(path, partition_values={"day": day}) for path, day in (("a", "1"), ("b", None))]
    columns = works.schema(("id", "long"), ("day", "integer"))
    committer.commit(works.create("orders", columns, *of_day, by=("day",), properties=properties))
    committer.commit(works.append(*(works.add(str(n), partition_values={"day": str(n % 2)}) for n in range(4))))
    committer.commit(works.remove("a", "b", "1"))
    domain = works.other("domainMetadata", {"domain": "x", "configuration": "", "removed": False})
    committer.commit(TableWork(name="orders", others=(domain,)))

    def winners(**work: Any) -> list[Winner]:
        state = load_state(store, store.cursor())
        needs = Needs()
        add_needs(needs, staged(TableWork(name="orders", read_version=0, **work)))
        store.load(needs, state)
        return state.tables[1].winners

    appended, removed, described = winners(
        read_set=ReadSet(predicates=(Predicate((Term("true"),)),), files=("a", "z", "\0")),
        removes=(RemoveFile(path="1"),),
        others=(domain,),
    )
    plain = winners(read_set=ReadSet(whole_table=True))

    # The file that was removed since was added by the first of them, and lies in the past now.
    assert sorted(appended.added_to, key=str) == [{"day": "0"}, {"day": "1"}]
    assert sorted(removed.removed_from, key=str) == [{"day": "1"}, {"day": None}]
    assert removed.removed_paths == {"a", "1"}
    assert described.domains == {"x"}
    assert not any(w.added_to or w.removed_from or w.removed_paths or w.domains for w in plain)
    assert [(w.added_files, w.removed_files) for w in plain] == [(4, 0), (0, 3), (0, 0)]


def test_winners_are_bounded(store: SqlCommitStore) -> None:
    """However far back a read version lies, no more winners are loaded than the rules look at."""
    committer = DirectCommitter(store)
    committer.commit(create("orders"))
    committer.apply([staged(append("orders", add(str(n)))) for n in range(20)])
    state = load_state(store, store.cursor())
    state.rules = replace(state.rules, read_distance=5)
    needs = Needs()
    add_needs(needs, staged(append("orders", read_version=-(2**62), read_set=ReadSet(whole_table=True))))
    store.load(needs, state)

    assert [winner.version for winner in state.tables[1].winners] == [16, 17, 18, 19, 20]


def test_older_metadata_is_loaded_by_version(store: SqlCommitStore) -> None:
    """Only versions that set metadata and are not in force any more come with it."""
    committer = DirectCommitter(store)
    committer.commit(create("orders"))
    table = committer.state.tables[1]
    metadata = table.metadata
    committer.commit(create("orders", add("x")))
    committer.store._database.execute("UPDATE dl_table_heads SET metadata_version = version")  # as if it were changed
    committer.store._database.execute(
        "INSERT INTO dl_metadata_updates SELECT table_no, 1, metadata_id, 'new', description, format_provider, "
        "format_options, schema_string, partition_columns, configuration, created_time, extra FROM dl_metadata_updates"
    )
    state = load_state(store, store.cursor())
    needs = Needs()
    add_needs(needs, staged(append("orders")))
    needs.tables[None, "orders"].metadata_versions |= {0, 1, 7}
    store.load(needs, state)

    assert state.tables[1].past_metadata == {0: metadata}
    assert state.tables[1].metadata is not None
    assert state.tables[1].metadata.name == "new"


# Files that end.


@pytest.mark.parametrize("together", [True, False])
def test_files_that_end_become_past(committer: DirectCommitter, database: Database, together: bool) -> None:
    """A removed file keeps every field and gains the version that removed it, in its own batch too."""
    events = [
        staged(create("orders", *(add(f"f{n}", low=n, high=2 * n, size=n + 1) for n in range(12)))),
        staged(append("orders", *(add(f"g{n}") for n in range(3)))),
        staged(remove("orders", *(f"f{n}" for n in range(10)), "g1")),
        staged(remove("orders", "g0")),
    ]
    if together:
        committer.apply(events)
    else:
        for event in events:
            committer.apply([event])
    live = database.query("SELECT path FROM dl_live_files ORDER BY path")
    past = database.query("SELECT path, version, n, removed_version, size, min1, max1, num_records FROM dl_past_files")
    view = database.query("SELECT count(*), count(removed_version) FROM dl_add_files")

    assert live == [("f10",), ("f11",), ("g2",)]
    assert sorted(past) == sorted(
        [
            *((f"f{n}", 0, n, 2, n + 1, n, 2 * n, 10) for n in range(10)),
            ("g0", 1, 0, 3, 1_000, 0, 9, 10),
            ("g1", 1, 1, 2, 1_000, 0, 9, 10),
        ]
    )
    assert view == [(15, 12)]


def test_vectors_tell_files_of_one_path_apart(committer: DirectCommitter, database: Database) -> None:
    """Identity is (path, deletion vector): adding a vector ends the file without it, and both are told apart later."""
    committer.commit(create("orders", add("a"), enableDeletionVectors="true"))
    with_vector = AddFile(
        path="a",
        partition_values={},
        size=1_000,
        modification_time=1,
        stats='{"numRecords":10}',
        deletion_vector=VECTOR,
    )
    committer.commit(TableWork(name="orders", adds=(with_vector,), removes=(RemoveFile(path="a"),)))
    middle = database.query("SELECT path, dv_id, dv_offset, dv_cardinality FROM dl_live_files")
    committer.commit(remove("orders", "a", dv=VECTOR))

    assert middle == [("a", VECTOR.unique_id, 4, 6)]
    assert database.query("SELECT dv_id, version, removed_version FROM dl_past_files ORDER BY version") == [
        ("", 0, 1),
        (VECTOR.unique_id, 1, 2),
    ]
    assert database.query("SELECT dv_id, dv_storage_type FROM dl_remove_files ORDER BY version") == [
        ("", None),
        (VECTOR.unique_id, "u"),
    ]


def test_a_file_that_is_gone_halts(committer: DirectCommitter, database: Database) -> None:
    """Rows that somebody else deleted are noticed before anything is written, not papered over."""
    committer.commit(create("orders", add("a"), add("b")))
    batch, cursor, _ = committer.prepare([staged(remove("orders", "a"))])
    database.execute("DELETE FROM dl_live_files WHERE path = ?", ["a"])
    before = dump(database)
    with pytest.raises(TxnLogHaltedError, match="restore") as halted:
        committer.store.write(committer.cursor, batch, cursor)

    assert halted.value.state == "LIVE_FILE_MISSING"
    assert dump(database) == before


# Partition values.


def test_partition_values_are_numbered_by_first_appearance(committer: DirectCommitter, database: Database) -> None:
    """Per table from 1 on; 0 is a table without partition columns; a new committer goes on where the last one ended."""
    committer.commit(
        create("p", *(add(f"a{n}", day=day) for n, day in enumerate("bab")), partition_by=("day",)),
        create("q", add("x", day="b"), partition_by=("day",)),
        create("plain", add("y")),
    )
    DirectCommitter(committer.store).commit(append("p", add("c", day="c"), add("d", day="a"), add("e", day=None)))
    dictionary = database.query("SELECT table_no, partition_no, partition_values FROM dl_partitions ORDER BY 1, 2")
    files = database.query("SELECT path, partition_no FROM dl_live_files ORDER BY path")
    view = database.query(
        "SELECT path, partition_values FROM dl_add_files WHERE path = ANY(?) ORDER BY 1", [["e", "y"]]
    )

    assert dictionary == [
        (1, 1, '{"day":"b"}'),
        (1, 2, '{"day":"a"}'),
        (1, 3, '{"day":"c"}'),
        (1, 4, '{"day":null}'),
        (2, 1, '{"day":"b"}'),
    ]
    assert files == [("a0", 1), ("a1", 2), ("a2", 1), ("c", 3), ("d", 2), ("e", 4), ("x", 1), ("y", 0)]
    assert view == [("e", '{"day":null}'), ("y", "{}")]


def test_a_full_cache_forgets_nothing(committer: DirectCommitter, database: Database) -> None:
    """Numbers that are not remembered any more are looked up again."""
    committer.store._partitions = Partitions(cached=3)
    committer.commit(create("p", partition_by=("day",)))
    for start in (0, 5, 2):
        committer.commit(append("p", *(add(f"{start}-{n}", day=str(n)) for n in range(start, start + 6))))

    assert database.query("SELECT partition_values FROM dl_partitions ORDER BY partition_no") == [
        (f'{{"day":"{n}"}}',) for n in range(11)
    ]


def test_long_partition_values_are_no_limit(committer: DirectCommitter, database: Database) -> None:
    """Values longer than an index entry can be are kept, found again and told apart."""
    long = [letter * 4_000 + "ß\\\"'" for letter in "xyx"]
    committer.commit(create("p", partition_by=("day",)))
    for n, day in enumerate(long):
        committer.store._partitions = Partitions()
        committer.commit(append("p", add(str(n), day=day)))

    assert database.query("SELECT partition_no FROM dl_live_files ORDER BY path") == [(1,), (2,), (1,)]


# Chunks and outbox.


def test_chunks_are_kept_until_the_last_one_came(committer: DirectCommitter, database: Database) -> None:
    """A transaction in chunks is staged durably, found by the next committer, and leaves no chunk once decided."""
    events = chunked([Content(tables=(create("orders", add(f"f{n}")),)) for n in range(3)], txn_id=txn(1))
    (first,) = committer.apply(events[:1])
    second = DirectCommitter(committer.store)
    (repeated, middle) = second.apply([events[0], events[2]])
    staged_rows = database.query("SELECT chunk_index, chunk_count, content FROM dl_staged_chunks ORDER BY 1")
    third = DirectCommitter(committer.store)
    (last,) = third.apply([events[1]])

    assert isinstance(first, Staged)
    assert not isinstance(repeated, Staged)
    assert isinstance(middle, Staged)
    assert staged_rows == [(0, 3, events[0].content_bytes), (2, 3, events[2].content_bytes)]
    assert isinstance(last, Commit)
    assert one(database, "SELECT count(*) FROM dl_staged_chunks") == 0
    assert one(database, "SELECT count(*) FROM dl_live_files") == 3


def test_the_outbox_keeps_what_is_not_published(committer: DirectCommitter, database: Database) -> None:
    """Rows of a batch are there, with their bytes, until the mark has passed its records."""
    batch, cursor, _ = committer.prepare([staged(create("orders")), staged(append("nowhere", add("x")))])
    committer.store.write(committer.cursor, batch, cursor)
    committer.cursor = cursor
    kept = committer.store.outbox()
    committer.apply([staged(append("orders", add("a")))], published=1)
    after_one = committer.store.outbox()
    committer.apply([], published=2)
    after_two = committer.store.outbox()
    committer.apply([], published=3)

    assert kept == sorted(batch.outbox)
    assert {row.position for row in kept} == {1}
    assert {row.position for row in after_one} == {1, 2}
    assert {row.position for row in after_two} == {2}
    assert committer.store.outbox() == []
    assert committer.store.cursor().published_position == 3


def test_outbox_headers_are_bytes(committer: DirectCommitter) -> None:
    """Any bytes survive as a header."""
    row = OutboxRow(0, 0, "dead-letter", 0, {"raw": bytes(range(256)), "empty": b""}, b"\x00\xff")
    cursor = replace(committer.cursor, position=1)
    committer.store.write(committer.cursor, Batch(outbox=[row]), cursor)

    assert committer.store.outbox() == [row]


def test_answers_come_from_what_is_stored(committer: DirectCommitter) -> None:
    """INV4: a repeated transaction, and a repeated application version, get the first outcome from SQL."""
    committer.apply(HISTORY[:2])
    again = DirectCommitter(committer.store)
    (repeated, app) = again.apply(
        [HISTORY[1], staged(append("lineitem", add("other")), txn_id=txn(99), apps=(AppTransaction("app", 6),))]
    )

    assert isinstance(repeated, Answer)
    assert isinstance(app, Accepted)
    first = committer.store._database.query("SELECT outcome FROM dl_transactions WHERE txn_id = ?", [txn(2)])
    assert repeated.outcome.committed is not None
    assert app.outcome.committed is not None
    assert app.outcome.committed.already_committed
    assert app.outcome.committed.commit_seq == repeated.outcome.committed.commit_seq
    assert txn(2) in first[0][0]


def test_any_text_is_kept(committer: DirectCommitter, database: Database) -> None:
    """Texts of users come back byte for byte, and are no part of any statement."""
    awkward = '\';DROP TABLE dl_lake;-- \\N \t \r\n {"a"} % ? ß🦆 \u2028'
    committer.commit(create("orders"))
    committer.apply(
        [
            staged(append("orders", add(f"f{n}"), operation="O'" + awkward[:50]), user_metadata=awkward)
            for n in range(10)
        ]
    )
    found = database.query("SELECT DISTINCT operation, user_metadata FROM dl_table_versions WHERE version > 0")

    assert found == [("O'" + awkward[:50], awkward)]


NUL = "a\0b"


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        ("INVALID_ACTION", staged(append("orders", add("x")), txn_id=NUL)),
        ("INVALID_ACTION", staged(append("orders", add("x")), apps=(AppTransaction(NUL, 1),))),
        ("INVALID_PATH", staged(append("orders", add(NUL)))),
        ("INVALID_PATH", staged(remove("orders", NUL))),
        (
            "INVALID_ACTION",
            staged(append("orders", others=(OtherAction(kind="txn", json='{"appId":"\\u0000","version":1}'),))),
        ),
        (
            "INVALID_ACTION",
            staged(append("orders", msgspec.structs.replace(add("x"), rest='{"clusteringProvider":"\\u0000"}'))),
        ),
        (
            "INVALID_ACTION",
            staged(TableWork(name="orders", removes=(RemoveFile(path="a", rest='{"stats":"{\\"a\\":\\u0000}"}'),))),
        ),
        ("UNKNOWN_TABLE", staged(append(NUL, add("x")))),
        ("UNKNOWN_TABLE", staged(TableWork(id=NUL, adds=(add("x"),)))),
    ],
)
def test_what_sql_cannot_hold_is_rejected(committer: DirectCommitter, reason: str, event: StagedTransaction) -> None:
    """A NUL in a text is no text for Postgres: wherever it stands it ends in a rejection, and never stops the log."""
    committer.commit(create("orders", add("a")))
    (decision,) = committer.apply([event])

    assert isinstance(decision, Rejection)
    assert decision.outcome.rejected is not None
    assert decision.outcome.rejected.reason == reason


def test_rejections_are_rows(committer: DirectCommitter, database: Database) -> None:
    """A rejection is recorded and told, and touches no table."""
    (decision,) = committer.apply([staged(append("nowhere", add("x")), txn_id=txn(5))])
    row = database.query("SELECT txn_id, committed, commit_seq, time_ms FROM dl_transactions")

    assert isinstance(decision, Rejection)
    assert row == [(txn(5), False, None, START_MS)]
    assert one(database, "SELECT count(*) FROM dl_commits") == 0


def run_together(number: int, work: Callable[[int], None]) -> None:
    """Run `work` in that many threads at once; their first error fails the test."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(number)

    def run(n: int) -> None:
        try:
            barrier.wait(30)
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    if errors:
        raise errors[0]
