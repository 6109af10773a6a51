from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deltalakedb.actions import RemoveFile
from deltalakedb.delta_types import parse_schema
from deltalakedb.errors import Reason, TxnLogHaltedError
from deltalakedb.eventlog.port import Record
from deltalakedb.events import (
    AddColumn,
    AppTransaction,
    Cancel,
    Completion,
    Content,
    LakeAction,
    Literal,
    Predicate,
    ReadSet,
    SetProperties,
    SetRules,
    StagedTransaction,
    TableWork,
    Term,
    Tick,
    WrittenAgainst,
)
from deltalakedb_committer.deciding.decide import Undecodable, advance, decide, isolated
from deltalakedb_committer.deciding.decisions import Accepted, Answer, Commit, Expired, Nothing, Rejection, Staged
from deltalakedb_committer.deciding.needs import Needs, TableNeeds, add_needs
from deltalakedb_committer.deciding.rules import Rules, rules
from tests.model_lake import (
    LAKE_ID,
    ROOT,
    START_MS,
    ModelLake,
    cancel,
    chunked,
    control,
    record,
    rejected,
    staged,
    txn,
)
from tests.works import ID, add, append, create, field, other, reading, relaxed, remove, schema


def rules_with(**limits: int) -> Rules:
    return replace(rules(1), **limits)  # type: ignore[arg-type]


def property_set(name: str, value: str) -> TableWork:
    return TableWork(name="orders", intents=(SetProperties(set={name: value}),))


def column(name: str, data_type: str) -> TableWork:
    return TableWork(name="orders", intents=(AddColumn(field=json.dumps(field(name, data_type))),))


def two_tables() -> ModelLake:
    lake = ModelLake()
    lake.commit(relaxed("orders"), relaxed("items"))
    return lake


class TestCommits:
    def test_a_transaction_takes_one_commit_and_one_version_of_each_table(self) -> None:
        """Every table of a transaction goes up by one, at one commit_seq and one time."""
        lake = two_tables()

        commit = lake.commit(append("a"), append("a", name="items"))

        assert commit.commit_seq == 2
        assert [(c.table.name, c.version) for c in commit.changes] == [("orders", 1), ("items", 1)]
        assert commit.outcome.committed is not None
        assert [(t.name, t.version) for t in commit.outcome.committed.tables] == [("orders", 1), ("items", 1)]

    def test_blind_appends_never_conflict(self) -> None:
        """Appends prepared against one version all commit, whatever came in between."""
        lake = two_tables()
        lake.commit(append("a"))
        lake.commit(remove("a"))

        commits = [lake.commit(append(f"b{n}")) for n in range(5)]

        assert [c.changes[0].version for c in commits] == [3, 4, 5, 6, 7]
        assert all(c.changes[0].is_blind_append for c in commits)

    def test_a_table_that_is_only_read_takes_no_version(self) -> None:
        """Reading is part of a transaction and changes nothing."""
        lake = two_tables()

        commit = lake.commit(append("a"), TableWork(name="items", read_version=0, read_set=ReadSet(whole_table=True)))

        assert [c.table.name for c in commit.changes] == ["orders"]
        assert not commit.changes[0].is_blind_append

    def test_a_transaction_that_changes_nothing_is_committed_without_a_commit(self) -> None:
        """It gets the newest commit as its answer, is recorded, and leaves every table where it was."""
        lake = two_tables()

        committed = lake.accept(TableWork(name="orders", read_version=0, read_set=ReadSet(whole_table=True)))

        assert (committed.commit_seq, committed.tables, lake.commit_seq) == (1, (), 1)
        assert len(lake.rows["dl_transactions"]) == 2
        assert len(lake.rows["dl_commits"]) == 1

    def test_a_transaction_without_tables_is_committed(self) -> None:
        """Nothing asked is nothing refused."""
        assert two_tables().accept().commit_seq == 1

    def test_time_never_stands_still(self) -> None:
        """T is at least the record's time, T of the commit before, and one above the table's newest."""
        lake = two_tables()

        ahead = lake.commit(append("a"), at=START_MS + 500).time_ms
        behind = lake.commit(append("b"), at=START_MS).time_ms
        elsewhere = lake.commit(append("a", name="items"), at=START_MS).time_ms

        assert (ahead, behind, elsewhere) == (START_MS + 500, START_MS + 501, START_MS + 501)

    def test_a_table_is_named_by_id_as_well(self) -> None:
        """The id made from the creating transaction finds the table; another id finds none."""
        lake = two_tables()
        table_id = lake.table("orders").table_id

        commit = lake.commit(append("a", name=None, id=table_id))
        refused = lake.reject(append("b", name=None, id=txn(7)))

        assert commit.changes[0].table.name == "orders"
        assert refused.reason == Reason.UNKNOWN_TABLE

    def test_unknown_tables_are_refused(self) -> None:
        """A transaction cannot change, nor have read, what is not there."""
        lake = two_tables()

        assert lake.reject(append("a", name="nowhere")).reason == Reason.UNKNOWN_TABLE
        assert lake.reject(TableWork(name="nowhere", read_version=1)).reason == Reason.UNKNOWN_TABLE
        assert lake.reject(TableWork()).reason == Reason.INVALID_ACTION

    def test_a_table_named_by_id_and_by_name_is_refused(self) -> None:
        """One version cannot be made twice."""
        lake = two_tables()

        refused = lake.reject(append("a"), append("b", name=None, id=lake.table("orders").table_id))

        assert refused.reason == Reason.INVALID_ACTION

    def test_a_released_table_is_read_only(self) -> None:
        """It can be read; every change is refused by name of its state."""
        lake = two_tables()
        lake.rows["dl_tables"][0]["state"] = "RELEASED"

        refused = lake.reject(append("a"))
        lake.accept(TableWork(name="orders", read_version=0))

        assert refused.reason == Reason.TABLE_READ_ONLY
        assert "released" in refused.message

    def test_a_dropped_table_is_unknown(self) -> None:
        """By name it is not there, by id it was dropped."""
        lake = two_tables()
        table_id = lake.table("orders").table_id
        lake.rows["dl_tables"][0] |= {"state": "DROPPED", "dropped_seq": 1}

        by_name, by_id = lake.reject(append("a")), lake.reject(append("a", name=None, id=table_id))

        assert by_name.reason == by_id.reason == Reason.UNKNOWN_TABLE
        assert "dropped" in by_id.message


class TestIdempotency:
    def test_the_same_transaction_again_is_answered_and_not_repeated(self) -> None:
        """The first decision goes to whoever asks, at the address in that event."""
        lake = two_tables()
        (first,) = chunked([Content(tables=(append("a"),))], txn_id=txn(5))
        (again,) = chunked([Content(tables=(append("a"),))], txn_id=txn(5), client_id="other", outcome_partition=3)
        commit = lake.decide(first)

        answer = lake.decide(again)

        assert isinstance(commit, Commit)
        assert isinstance(answer, Answer)
        assert answer.outcome_partition == 3
        assert answer.outcome.client_id == "other"
        assert answer.outcome.committed == commit.outcome.committed
        assert lake.commit_seq == 2

    def test_another_content_under_the_same_id_is_refused_to_that_asker_only(self) -> None:
        """The first decision stays recorded and is what the first asker hears again."""
        lake = two_tables()
        lake.decide(staged(append("a"), txn_id=txn(5)))

        wrong = lake.decide(staged(append("b"), txn_id=txn(5)))
        right = lake.decide(staged(append("a"), txn_id=txn(5)))

        assert rejected(wrong).reason == Reason.CONTENT_MISMATCH
        assert isinstance(right, Answer)
        assert right.outcome.committed is not None

    def test_a_rejection_is_final(self) -> None:
        """What was refused once is refused for ever, even if it would pass now."""
        lake = two_tables()
        event = staged(append("a", name="late"), txn_id=txn(5))
        lake.decide(event)
        lake.commit(create("late"))

        again = lake.decide(event)

        assert isinstance(again, Answer)
        assert rejected(again).reason == Reason.UNKNOWN_TABLE

    def test_application_transactions_are_committed_once_in_the_lake(self) -> None:
        """A version at or below the newest gives the first result again, marked, whatever is sent with it."""
        lake = two_tables()
        first = lake.commit(append("a"), apps=(AppTransaction("job", 7),))
        lake.commit(append("b"), apps=(AppTransaction("job", 9),))

        same = lake.accept(append("c"), apps=(AppTransaction("job", 7),))
        below = lake.accept(append("d", name="items"), apps=(AppTransaction("job", 8),))

        assert same.already_committed
        assert below.already_committed
        assert (same.commit_seq, below.commit_seq) == (first.commit_seq, first.commit_seq + 1)
        assert lake.live("orders") == {("a", ""), ("b", "")}
        assert lake.commit(append("e"), apps=(AppTransaction("job", 10),)).commit_seq == 4

    def test_application_transactions_are_written_to_every_table_that_changes(self) -> None:
        """Each of them has the version, at the commit's time."""
        lake = two_tables()

        commit = lake.commit(append("a"), append("a", name="items"), apps=(AppTransaction("job", 7),))

        assert [c.txns[0].version for c in commit.changes] == [7, 7]
        assert {c.txns[0].last_updated for c in commit.changes} == {commit.time_ms}

    def test_an_application_transaction_without_changes_is_kept(self) -> None:
        """It commits nothing and is committed: the next try hears so."""
        lake = two_tables()

        first = lake.accept(apps=(AppTransaction("job", 7),))
        again = lake.accept(append("a"), apps=(AppTransaction("job", 7),))

        assert (first.already_committed, again.already_committed) == (False, True)

    def test_applications_that_are_committed_in_part_are_refused(self) -> None:
        """Neither answer would be true for both."""
        lake = two_tables()
        first = lake.commit(append("a"), apps=(AppTransaction("job", 7),))

        refused = lake.reject(append("b"), apps=(AppTransaction("job", 7), AppTransaction("new", 1)))

        assert (refused.reason, refused.other_txn) == (Reason.CONCURRENT_TRANSACTION, first.txn_id)

    def test_an_application_twice_is_refused(self) -> None:
        """Which of the two versions would it be?"""
        refused = two_tables().reject(append("a"), apps=(AppTransaction("job", 7), AppTransaction("job", 8)))

        assert refused.reason == Reason.INVALID_ACTION


class TestReadVersions:
    @pytest.mark.parametrize("version", [-1, 1, 2**62])
    def test_a_version_that_is_not_there_cannot_have_been_read(self, version: int) -> None:
        """Negative or in the future: refused, also where nothing would be checked against it."""
        refused = two_tables().reject(append("a", read_version=version))

        assert refused.reason == Reason.READ_VERSION_INVALID
        assert refused.versions == (version, 0)

    def test_a_read_set_needs_its_version(self) -> None:
        """Without it nothing could be checked."""
        refused = two_tables().reject(append("a", read_set=ReadSet(whole_table=True)))

        assert refused.reason == Reason.READ_VERSION_INVALID

    def test_a_version_too_far_back_is_refused(self) -> None:
        """The rule set bounds how many winners a decision looks at."""
        lake = ModelLake(limits=rules_with(read_distance=2))
        lake.commit(relaxed())
        for n in range(3):
            lake.commit(append(f"a{n}"))

        refused = lake.reject(reading(0, "b"))

        assert (refused.reason, refused.versions) == (Reason.READ_TOO_OLD, (0, 3))
        assert lake.commit(reading(1, "c")).commit_seq == 5

    def test_what_takes_too_long_to_compare_is_refused(self) -> None:
        """Terms and literals of predicates times the different partitions that others wrote to, in all tables together:
        else one event would hold up the lake. Partitions that come again cost nothing, nor does what a fresh read leaves."""
        lake = ModelLake(limits=rules_with(max_comparisons=11))
        for name in ("orders", "items"):
            lake.commit(relaxed(name, schema(("id", "long"), ("p", "string")), by=("p",)))
            for n, value in enumerate("aba"):
                lake.commit(append(add(str(n), partition_values={"p": value}), name=name))
        condition = Predicate((Term("in", ("p",), (Literal("string", "x"), Literal("string", "y"))),))

        def asking(version: int, *names: str) -> list[TableWork]:
            return [TableWork(name=n, read_version=version, read_set=ReadSet(predicates=(condition,))) for n in names]

        refused = lake.reject(*asking(0, "orders", "items"), isolation="Serializable")
        lake.accept(*asking(0, "orders"), isolation="Serializable")
        lake.accept(*asking(2, "orders", "items"), isolation="Serializable")

        assert (refused.reason, refused.table, refused.versions) == (Reason.READ_TOO_OLD, "items", (0, 2))

    def test_a_table_that_is_created_has_no_version_to_be_read(self) -> None:
        """What is not there yet cannot have been read."""
        lake = ModelLake()
        work = TableWork(name="orders", read_version=0, intents=create().intents)

        assert lake.reject(work).reason == Reason.READ_VERSION_INVALID


class TestConflicts:
    def test_a_reader_passes_blind_appends_under_write_serializable(self) -> None:
        """Appended rows may come before or after what was read."""
        lake = two_tables()
        lake.commit(append("a"))

        assert lake.commit(reading(0, "b")).changes[0].version == 2

    def test_a_reader_does_not_pass_blind_appends_under_serializable(self) -> None:
        """There the appended rows would have been read."""
        lake = ModelLake()
        lake.commit(create())
        winner = lake.commit(append("a"))

        refused = lake.reject(reading(0, "b"))

        assert (refused.reason, refused.table, refused.versions, refused.other_txn) == (
            Reason.CONCURRENT_APPEND,
            "orders",
            (0, 1),
            winner.txn_id,
        )

    def test_a_reader_does_not_pass_an_append_that_read(self) -> None:
        """An append that is not blind stands against it at every level but snapshot isolation."""
        lake = two_tables()
        winner = lake.commit(reading(0, "a"))

        refused = lake.reject(reading(0, "b"))

        assert (refused.reason, refused.other_txn) == (Reason.CONCURRENT_APPEND, winner.txn_id)
        assert lake.commit(reading(1, "c")).changes[0].version == 2

    def test_a_reader_does_not_pass_removed_files(self) -> None:
        """What it read is not there any more."""
        lake = two_tables()
        lake.commit(append("a"))
        lake.commit(remove("a"))

        refused = lake.reject(reading(1, "b"))

        assert (refused.reason, refused.versions) == (Reason.CONCURRENT_DELETE_READ, (1, 2))

    def test_a_reader_does_not_pass_changed_metadata(self) -> None:
        """Rows may mean something else."""
        lake = two_tables()
        lake.commit(property_set("x", "y"))

        refused = lake.reject(reading(0, "b"))

        assert refused.reason == Reason.METADATA_CHANGED

    def test_a_reader_does_not_pass_a_changed_protocol(self) -> None:
        """The winner's new feature may concern what was read."""
        lake = two_tables()
        lake.commit(property_set("delta.feature.domainMetadata", "supported"))
        for row in lake.rows["dl_table_versions"]:
            row["changes_metadata"] = False

        refused = lake.reject(reading(0, "b"))

        assert refused.reason == Reason.PROTOCOL_CHANGED

    def test_only_winners_above_the_version_that_was_read_count(self) -> None:
        """Also where another transaction of the batch read an older one."""
        lake = two_tables()
        lake.commit(append("a"))
        lake.commit(remove("a"))

        old, new = lake.run([staged(reading(0, "b")), staged(reading(2, "c"))])

        assert rejected(old).reason == Reason.CONCURRENT_DELETE_READ
        assert isinstance(new, Commit)

    def test_what_an_application_had_is_checked_where_it_was_asked_for(self) -> None:
        """A transaction that looked at an application's version loses against one that sets it."""
        lake = two_tables()
        winner = lake.commit(append("a"), apps=(AppTransaction("job", 1),))
        looked = ReadSet(app_ids=("job",))

        refused = lake.reject(append("b", read_version=0, read_set=looked))

        assert (refused.reason, refused.other_txn) == (Reason.CONCURRENT_TRANSACTION, winner.txn_id)
        assert lake.commit(append("b", read_version=1, read_set=looked)).changes[0].is_blind_append

    def test_one_table_in_conflict_rejects_the_whole_transaction(self) -> None:
        """All tables or none."""
        lake = two_tables()
        lake.commit(reading(0, "a", name="items"))

        refused = lake.reject(append("b"), reading(0, "b", name="items"))

        assert refused.table == "items"
        assert lake.live("orders") == set()

    def test_reading_one_table_and_writing_another_is_no_blind_append(self) -> None:
        """Else two transactions that each read what the other writes would both pass: write skew."""
        lake = two_tables()
        read_items = TableWork(name="items", read_version=0, read_set=ReadSet(whole_table=True))
        read_orders = TableWork(name="orders", read_version=0, read_set=ReadSet(whole_table=True))

        first = lake.commit(append("a"), read_items)
        second = lake.reject(append("b", name="items"), read_orders)

        assert not first.changes[0].is_blind_append
        assert second.reason == Reason.CONCURRENT_APPEND

    def test_the_strictest_level_holds_for_all_tables(self) -> None:
        """One Serializable table makes the whole transaction serializable, as does the transaction's own wish."""
        lake = ModelLake()
        lake.commit(relaxed("orders"), create("strict"))
        lake.commit(append("a"))

        with_strict = lake.reject(reading(0, "b"), append("b", name="strict"))
        by_wish = lake.reject(reading(0, "b"), isolation="Serializable")

        assert with_strict.reason == by_wish.reason == Reason.CONCURRENT_APPEND
        assert lake.commit(reading(0, "b")).changes[0].isolation_level == "WriteSerializable"

    def test_rearranging_files_is_judged_by_snapshot_isolation(self) -> None:
        """A compaction conflicts with nothing but the loss of its files; changing data in one table ends that."""
        lake = ModelLake()
        lake.commit(create("orders", ID, add("a")), create("items"))
        lake.commit(append("b"))
        compact = TableWork(
            name="orders",
            read_version=0,
            read_set=ReadSet(files=("a",)),
            written_against=WrittenAgainst(0, 0),
            adds=(add("c", data_change=False),),
            removes=(RemoveFile(path="a", data_change=False),),
        )

        with_data = lake.reject(compact, append("d", name="items"))
        alone = lake.commit(compact)
        twice = lake.reject(compact)

        assert with_data.reason == Reason.CONCURRENT_APPEND
        assert alone.changes[0].isolation_level == "SnapshotIsolation"
        assert not alone.changes[0].changes_data
        assert twice.reason == Reason.CONCURRENT_DELETE_READ

    def test_an_unknown_isolation_is_refused(self) -> None:
        """A wish that nobody can grant is not granted silently."""
        assert two_tables().reject(append("a"), isolation="Chaos").reason == Reason.INVALID_ACTION


class TestRemoves:
    def test_a_live_file_is_removed_without_a_read_set_under_write_serializable(self) -> None:
        """The remove carries what is known of the file, and the file is not live any more."""
        lake = two_tables()
        lake.commit(append(add("a", size=77, rest='{"tags":{"k":"v"}}')))

        commit = lake.commit(remove("a"))

        (removed,) = commit.changes[0].removes
        assert (removed.size, removed.partition_values, removed.deletion_timestamp) == (77, {}, commit.time_ms)
        assert removed.extended_file_metadata
        assert removed.rest == '{"tags":{"k":"v"}}'
        assert lake.live("orders") == set()
        assert not commit.changes[0].is_blind_append

    def test_a_file_that_is_not_live_cannot_be_removed(self) -> None:
        """Removed before, or never there."""
        lake = two_tables()
        lake.commit(append("a"))
        lake.commit(remove("a"))

        assert lake.reject(remove("a")).reason == Reason.FILE_NOT_LIVE
        assert lake.reject(remove("never")).reason == Reason.FILE_NOT_LIVE
        assert lake.reject(remove("../never")).reason == Reason.INVALID_PATH

    def test_under_serializable_a_remove_counts_as_having_read_the_table(self) -> None:
        """It needs the version that was read, and no winner since."""
        lake = ModelLake()
        lake.commit(create("orders", ID, add("a"), add("b")))
        lake.commit(append("c"))

        without = lake.reject(remove("a"))
        late = lake.reject(remove("a", read_version=0))
        commit = lake.commit(remove("a", read_version=1))

        assert without.reason == Reason.READ_VERSION_INVALID
        assert "WriteSerializable" in without.message
        assert late.reason == Reason.CONCURRENT_APPEND
        assert commit.changes[0].isolation_level == "Serializable"

    def test_the_level_is_the_one_that_the_transaction_found(self) -> None:
        """Lowering a table's level helps the next transaction, not the one that does it."""
        lake = ModelLake()
        lake.commit(create("orders", ID, add("a")))
        work = property_set("delta.isolationLevel", "WriteSerializable")

        refused = lake.reject(TableWork(name="orders", intents=work.intents, removes=(RemoveFile(path="a"),)))
        lake.commit(work)

        assert refused.reason == Reason.READ_VERSION_INVALID
        assert lake.commit(remove("a")).changes[0].version == 2

    def test_an_append_only_table_keeps_its_rows(self) -> None:
        """Removes that change data are refused; rearranging is allowed."""
        lake = ModelLake()
        lake.commit(relaxed("orders", ID, add("a"), properties={"delta.appendOnly": "true"}))
        again = TableWork(
            name="orders",
            written_against=WrittenAgainst(0, 0),
            adds=(add("b", data_change=False),),
            removes=(RemoveFile(path="a", data_change=False),),
        )

        assert lake.reject(remove("a")).reason == Reason.APPEND_ONLY
        assert lake.commit(again).changes[0].version == 1

    def test_an_add_of_a_live_file_takes_its_place(self) -> None:
        """New statistics for the same file: the old row ends, the file stays live, counts stay true."""
        lake = two_tables()
        lake.commit(append(add("a", size=100)))

        commit = lake.commit(append(add("a", size=100, stats='{"numRecords":3}', data_change=False)))

        assert [(old.version, old.n) for old in commit.changes[0].superseded] == [(1, 0)]
        assert (commit.changes[0].live_files, commit.changes[0].live_bytes) == (1, 100)
        assert lake.live("orders") == {("a", "")}


class TestChunks:
    def test_the_last_chunk_completes_the_transaction(self) -> None:
        """In any order, in as many batches; only then is anything decided or told."""
        lake = two_tables()
        first, second, third = chunked([Content(tables=(append(p),), engine_info="e") for p in "abc"])

        kept = [lake.decide(third), lake.decide(first)]
        told = len(lake.outbox)
        commit = lake.decide(second)

        assert all(isinstance(decision, Staged) for decision in kept)
        assert told == 2
        assert isinstance(commit, Commit)
        assert [a.path for a in commit.changes[0].adds] == ["a", "b", "c"]
        assert lake.rows["dl_staged_chunks"] == []

    def test_a_chunk_again_is_ignored(self) -> None:
        """Also while the others are missing."""
        lake = two_tables()
        first, second = chunked([Content(tables=(append(p),)) for p in "ab"])
        lake.decide(first)

        again = lake.decide(first)
        commit = lake.decide(second)
        after = lake.decide(first)

        assert isinstance(again, Nothing)
        assert isinstance(commit, Commit)
        assert isinstance(after, Answer)

    def test_other_bytes_for_a_chunk_reject_the_whole(self) -> None:
        """Chunk 0 of another content under the same id and digest cannot be right."""
        lake = two_tables()
        first, second = chunked([Content(tables=(append(p),)) for p in "ab"], txn_id=txn(9))
        forged, _ = chunked([Content(tables=(append(p),)) for p in "xb"], txn_id=txn(9), digest=first.envelope.digest)
        lake.decide(first)

        decision = lake.decide(forged)
        later = lake.decide(second)

        assert rejected(decision).reason == Reason.CONTENT_MISMATCH
        assert rejected(later).reason == Reason.CONTENT_MISMATCH
        assert lake.rows["dl_staged_chunks"] == []
        assert lake.live("orders") == set()

    def test_chunks_of_two_contents_reject_the_whole(self) -> None:
        """Digest and number of chunks are the same in every chunk."""
        lake = two_tables()
        first, _ = chunked([Content(tables=(append(p),)) for p in "ab"], txn_id=txn(9))
        _, _, third = chunked([Content(tables=(append(p),)) for p in "abc"], txn_id=txn(9))
        lake.decide(first)

        assert rejected(lake.decide(third)).reason == Reason.CONTENT_MISMATCH

    @pytest.mark.parametrize("parts", [1, 2])
    def test_a_digest_that_is_not_of_the_bytes_rejects(self, parts: int) -> None:
        """Of one chunk and of several."""
        lake = two_tables()
        events = chunked([Content(tables=(append(str(n)),)) for n in range(parts)], digest=b"d" * 32)

        decisions = [lake.decide(event) for event in events]

        assert rejected(decisions[-1]).reason == Reason.CONTENT_MISMATCH

    @pytest.mark.parametrize(
        ("count", "reason"),
        [(0, Reason.LIMIT_EXCEEDED), (4_097, Reason.LIMIT_EXCEEDED), (-1, Reason.LIMIT_EXCEEDED)],
    )
    def test_the_number_of_chunks_is_bounded(self, count: int, reason: Reason) -> None:
        """From one to the rule set's limit."""
        (event,) = chunked([Content(tables=(append("a"),))], chunk_count=count)

        assert rejected(two_tables().decide(event)).reason == reason

    def test_a_chunk_number_that_is_not_there_is_refused(self) -> None:
        """Counted from 0 to one below the count."""
        _, second = chunked([Content(tables=(append(p),)) for p in "ab"], chunk_count=1)

        assert rejected(two_tables().decide(second)).reason == Reason.CONTENT_MISMATCH

    def test_the_bytes_of_a_chunk_and_of_a_transaction_are_bounded(self) -> None:
        """Before anything is staged."""
        first, second = chunked([Content(tables=(append("a" * 200),)) for _ in range(2)])
        small = ModelLake(limits=rules_with(max_chunk_bytes=100))
        tight = ModelLake(limits=rules_with(max_transaction_bytes=450))

        assert rejected(small.decide(first)).reason == Reason.LIMIT_EXCEEDED
        assert isinstance(tight.decide(first), Staged)
        assert rejected(tight.decide(second)).reason == Reason.LIMIT_EXCEEDED
        assert tight.rows["dl_staged_chunks"] == []

    def test_later_chunks_add_files_and_nothing_else(self) -> None:
        """Another operation, isolation or read version in a later chunk cannot be right."""
        lake = two_tables()
        first = Content(tables=(append("a"),))
        for later in (
            Content(tables=(append("b", operation="MERGE"),)),
            Content(tables=(append("b", read_version=0),)),
            Content(tables=(append("b"),), isolation="Serializable"),
        ):
            events = chunked([first, later])
            lake.decide(events[0])

            assert rejected(lake.decide(events[1])).reason == Reason.CONTENT_MISMATCH

    def test_read_files_of_all_chunks_are_one_read_set(self) -> None:
        """What was read in the second chunk is checked from the read version of the first."""
        lake = two_tables()
        lake.commit(append("x", "y"))
        lake.commit(remove("y"))
        first = Content(tables=(append("a", read_version=1, read_set=ReadSet(files=("x",))),))
        second = Content(tables=(TableWork(name="orders", read_set=ReadSet(files=("y",))),))
        events = chunked([first, second])
        lake.decide(events[0])

        assert rejected(lake.decide(events[1])).reason == Reason.CONCURRENT_DELETE_READ

    def test_removes_of_a_later_chunk_are_checked_from_the_read_version_of_the_first(self) -> None:
        """What a batch loads for the last chunk is enough for the whole."""
        lake = ModelLake()
        lake.commit(create("orders", ID, add("x")))
        lake.commit(append("y"))
        first = Content(tables=(append("a", read_version=0),))
        second = Content(tables=(remove("x"),))
        events = chunked([first, second])
        lake.decide(events[0])

        assert rejected(lake.decide(events[1])).reason == Reason.CONCURRENT_APPEND

    def test_chunks_bring_tables_and_files_in_any_mixture(self) -> None:
        """A table may be in one chunk only, or in all of them."""
        lake = two_tables()
        parts = [(append("a"), append("a", name="items")), (append("b"),), (append("c"),)]
        events = chunked([Content(tables=tables) for tables in parts])

        commit = lake.run(events)[-1]

        assert isinstance(commit, Commit)
        assert [[a.path for a in c.adds] for c in commit.changes] == [["a", "b", "c"], ["a"]]

    def test_one_content_may_name_a_table_in_several_places(self) -> None:
        """They are put together as chunks are."""
        lake = two_tables()

        commit = lake.commit(append("a"), append("b"))

        assert [a.path for a in commit.changes[0].adds] == ["a", "b"]


class TestEnvelopes:
    @pytest.mark.parametrize("wrong", [{"lake_id": txn(1)}, {"root": "s3://other/lake"}])
    def test_events_for_another_lake_are_refused(self, wrong: dict[str, str]) -> None:
        """By id or by root; a trailing slash makes no other root."""
        lake = two_tables()
        (event,) = chunked([Content(tables=(append("a"),))], **wrong)
        (slash,) = chunked([Content(tables=(append("a"),))], root=f"{ROOT}/")

        assert rejected(lake.decide(event)).reason == Reason.WRONG_LAKE
        assert isinstance(lake.decide(slash), Commit)

    def test_what_is_no_transaction_id_is_recorded_by_position(self) -> None:
        """Such a name is nobody's, and might be anybody's."""
        lake = two_tables()
        (event,) = chunked([Content(tables=(append("a"),))], txn_id="'; DROP TABLE dl_tables; --")

        decision = lake.decide(event)

        assert isinstance(decision, Rejection)
        assert decision.txn_id == "position-1"
        assert rejected(decision).reason == Reason.INVALID_ACTION

    @pytest.mark.parametrize("client_id", ["nul\0", "x" * 256])
    def test_a_client_id_that_cannot_be_kept_is_refused(self, client_id: str) -> None:
        """And not kept."""
        (event,) = chunked([Content(tables=(append("a"),))], client_id=client_id)

        decision = two_tables().decide(event)

        assert isinstance(decision, Rejection)
        assert decision.client_id == ""
        assert rejected(decision).reason == Reason.LIMIT_EXCEEDED

    @pytest.mark.parametrize("partition", [-5, 8, 2**31])
    def test_an_outcome_partition_that_is_not_there_is_answered_nowhere(self, partition: int) -> None:
        """The transaction is decided all the same, and the log is asked for no partition that it has not."""
        lake = two_tables()
        (event,) = chunked([Content(tables=(append("a"),))], outcome_partition=partition)

        decision = lake.decide(event)

        assert isinstance(decision, Commit)
        assert decision.outcome_partition == -1
        assert [row.stream for row in lake.outbox[2:]] == ["commits"]


class TestCompletions:
    """A big transaction is decided where the committer says so, once all of it is there."""

    def big(self) -> tuple[ModelLake, list[StagedTransaction]]:
        """A lake with a table, and a transaction that is big there."""
        lake = ModelLake(limits=Rules(number=1, whole_chunks=1))
        lake.commit(relaxed())
        return lake, chunked([Content(tables=(append(p),)) for p in "ab"], txn_id=txn(5), outcome_partition=3)

    def completion(self, **fields: Any) -> Completion:
        return Completion(**{"lake_id": LAKE_ID, "client_id": "committer", "txn_id": txn(5), **fields})

    def test_the_record_decides_and_the_last_sender_is_told(self) -> None:
        """Position and time are the record's; the answer goes to whoever sent the chunk that came last."""
        lake, (first, _) = self.big()
        _, second = chunked(
            [Content(tables=(append(p),)) for p in "ab"], txn_id=txn(5), client_id="another", outcome_partition=4
        )

        kept = [lake.decide(event) for event in (second, first, second)]
        commit = lake.decide(self.completion(), at=START_MS + 50)

        assert [type(decision) for decision in kept] == [Staged, Staged, Nothing]
        assert isinstance(commit, Commit)
        assert (commit.position, commit.time_ms, commit.client_id, commit.outcome_partition) == (
            4,
            START_MS + 50,
            "client",
            3,
        )
        assert lake.live("orders") == {("a", ""), ("b", "")}
        assert lake.rows["dl_staged_chunks"] == []
        assert isinstance(lake.decide(second), Answer)

    def test_what_is_not_kept_as_rows_is_bounded(self) -> None:
        """All but adds and removes is held in memory, so there is a limit of its own to it, over all chunks together."""
        works = [append(path, others=(other("later", {"text": "x" * 400}),)) for path in "ab"]
        chunks = chunked([Content(tables=(work,)) for work in works])
        for allowed, last in ((1_200, Staged), (900, Rejection)):
            lake = ModelLake(limits=Rules(number=1, whole_chunks=1, max_head_bytes=allowed))
            lake.commit(relaxed())

            decided = [lake.decide(event) for event in chunks]

            assert [type(decision) for decision in decided] == [Staged, last]
        assert isinstance(decided[1], Rejection)
        assert decided[1].outcome.rejected is not None
        assert decided[1].outcome.rejected.reason == Reason.LIMIT_EXCEEDED

    def test_without_effect(self) -> None:
        """A chunk is missing, the lake is another one, a table has moved on, it is decided already: nobody is told."""
        lake, (first, second) = self.big()
        table_id = lake.table("orders").table_id

        def nothing(**fields: Any) -> bool:
            return isinstance(lake.decide(self.completion(**fields)), Nothing)

        lake.decide(first)
        assert nothing()
        lake.decide(second)
        assert nothing(lake_id=txn(1))
        assert nothing(heads={table_id: 0, txn(99): 0})
        lake.commit(append("x"))
        assert nothing(heads={table_id: 0})
        told = len(lake.outbox)
        assert isinstance(lake.decide(self.completion(heads={table_id: 1})), Commit)
        assert len(lake.outbox) == told + 2
        assert nothing()
        assert nothing(txn_id="no id\0")

    def test_what_is_complete_does_not_expire(self) -> None:
        """However long it takes to decide it."""
        lake, events = self.big()
        lake.run(events)

        ticked = lake.decide(control(Tick()), at=START_MS + 10**9)

        assert isinstance(ticked, Nothing)
        assert isinstance(lake.decide(self.completion()), Commit)

    def test_what_is_complete_counts_until_it_is_decided(self) -> None:
        """For the quota of its client, who cannot have more and more of it staged by completing it."""
        lake, events = self.big()
        lake.limits = replace(lake.rules, max_open_per_client=1)
        lake.run(events)

        refused = lake.decide(chunked([Content(tables=(append(p),)) for p in "cd"])[0])
        lake.decide(self.completion())
        taken = lake.decide(chunked([Content(tables=(append(p),)) for p in "cd"])[0])

        assert rejected(refused).reason == Reason.QUOTA_EXCEEDED
        assert isinstance(taken, Staged)

    def test_what_comes_between_is_seen(self) -> None:
        """A cancel, another content under the same id, and whatever the decision depends on."""
        lake, (first, second) = self.big()
        lake.run([first, second])
        assert rejected(lake.decide(cancel(txn(5)))).reason == Reason.CANCELLED
        assert isinstance(lake.decide(self.completion()), Nothing)

        lake, (first, second) = self.big()
        forged, _ = chunked([Content(tables=(append(p),)) for p in "xb"], txn_id=txn(5), digest=first.envelope.digest)
        lake.run([first, second])
        assert rejected(lake.decide(forged)).reason == Reason.CONTENT_MISMATCH
        assert isinstance(lake.decide(self.completion()), Nothing)

        lake, (first, second) = self.big()
        lake.run([first, second, staged(append("a"))])
        lake.decide(control(LakeAction(action="drop", table="orders")))
        assert rejected(lake.decide(self.completion())).reason == Reason.UNKNOWN_TABLE

    def test_what_no_decision_was_found_for_is_rejected_as_a_whole(self) -> None:
        """Or the committer would say again and again that it is decided."""
        lake, events = self.big()
        lake.run(events)
        needs = Needs()
        add_needs(needs, self.completion())
        state = lake.load(needs)

        decision = isolated(state, record(3, START_MS), self.completion(), "ValueError")
        advance(state, decision)

        assert (decision.txn_id, decision.outcome_partition, decision.chunked) == (txn(5), 3, True)
        assert rejected(decision).reason == Reason.ISOLATED
        assert decision.dead_letter is not None
        assert not state.complete
        assert list(state.left) == [txn(5)]


class TestControl:
    def test_cancel_makes_an_undecided_transaction_rejected_for_ever(self) -> None:
        """Also one of which chunks are staged; they are dropped."""
        lake = two_tables()
        first, second = chunked([Content(tables=(append(p),)) for p in "ab"], txn_id=txn(9))
        lake.decide(first)

        answer = lake.decide(cancel(txn(9)))
        late = lake.decide(second)

        assert isinstance(answer, Rejection)
        assert (answer.txn_id, rejected(answer).reason) == (txn(9), Reason.CANCELLED)
        assert rejected(late).reason == Reason.CANCELLED
        assert lake.rows["dl_staged_chunks"] == []

    def test_cancel_of_a_decided_transaction_tells_its_decision(self) -> None:
        """Under its id, to whom wanted to cancel."""
        lake = two_tables()
        lake.decide(staged(append("a"), txn_id=txn(9)))

        answer = lake.decide(cancel(txn(9)))

        assert isinstance(answer, Answer)
        assert answer.outcome.txn_id == txn(9)
        assert answer.outcome.committed is not None

    def test_cancel_of_what_is_no_id_is_refused(self) -> None:
        """And recorded under the id of the control event."""
        event = control(Cancel(txn_id="nobody"), control_id=txn(3))

        decision = two_tables().decide(event)

        assert isinstance(decision, Rejection)
        assert (decision.txn_id, rejected(decision).reason) == (txn(3), Reason.INVALID_ACTION)

    def test_a_tick_gives_up_what_stays_incomplete(self) -> None:
        """An hour after its newest chunk a transaction is rejected for ever: a repeated chunk does not renew it, and
        neither does one that comes after the tick complete it."""
        lake = two_tables()
        events = chunked([Content(tables=(append(path),)) for path in "abc"], txn_id=txn(5))
        hour = 3_600_000
        for event, at in ((events[0], 0), (events[1], hour - 1), (events[0], hour)):
            lake.decide(event, at=START_MS + at)

        early = lake.decide(control(Tick()), at=START_MS + 2 * hour - 2)
        due = lake.decide(control(Tick()), at=START_MS + 2 * hour - 1)
        late = lake.decide(events[2], at=START_MS + 2 * hour)

        assert isinstance(early, Nothing)
        assert isinstance(due, Expired)
        assert [each.txn_id for each in due.rejections] == [txn(5)]
        assert isinstance(late, Answer)
        assert rejected(late).reason == Reason.EXPIRED
        assert lake.rows["dl_staged_chunks"] == []
        assert lake.live("orders") == set()
        assert isinstance(lake.decide(control(Tick()), at=START_MS + 9 * hour), Nothing)

    def test_one_tick_gives_up_so_many_at_most(self) -> None:
        """Whoever leaves thousands of beginnings behind does not make one batch of them."""
        lake = ModelLake(limits=rules_with(max_expired=2, expire_ms=1))
        lake.commit(relaxed())
        for number in range(5):
            first, _ = chunked([Content(tables=(append("a"),)), Content(tables=(append("b"),))], txn_id=txn(number))
            lake.decide(first)

        given_up = [len(getattr(lake.decide(control(Tick()), at=START_MS + 99), "rejections", ())) for _ in range(4)]

        assert given_up == [2, 2, 1, 0]

    def test_a_tick_does_nothing(self) -> None:
        """Nobody asked, nobody is told."""
        lake = two_tables()
        before = lake.digest()

        assert isinstance(lake.decide(control(Tick())), Nothing)
        assert lake.digest() == before

    def test_another_rule_set_holds_from_the_next_record_on(self) -> None:
        """Rule set 2 allows a hundred tables; the event again does nothing more."""
        lake = ModelLake()
        tables = [create(f"t{n}") for n in range(11)]
        event = control(SetRules(rule_set=2), control_id=txn(3))

        before = lake.reject(*tables)
        changed, again = lake.decide(event), lake.decide(event)

        assert before.reason == Reason.LIMIT_EXCEEDED
        assert isinstance(changed, Accepted)
        assert isinstance(again, Answer)
        assert lake.rule_set == 2
        assert len(lake.commit(*tables).changes) == 11

    def test_a_rule_set_that_only_a_newer_release_knows_halts(self) -> None:
        """Deciding on by other rules would give another history."""
        with pytest.raises(TxnLogHaltedError, match="UNKNOWN_RULE_SET"):
            two_tables().decide(control(SetRules(rule_set=999)))

    def test_rule_sets_have_no_parameters(self) -> None:
        """What a number means never changes."""
        decision = two_tables().decide(control(SetRules(rule_set=2, parameters={"max_tables": "50"})))

        assert rejected(decision).reason == Reason.NOT_SUPPORTED

    def test_unknown_lake_actions_are_recorded_as_not_supported(self) -> None:
        """By this rule set; never an exception, never silence."""
        action = two_tables().decide(control(LakeAction(action="explode", table="orders")))

        assert rejected(action).reason == Reason.NOT_SUPPORTED

    @pytest.mark.parametrize("command", [Cancel(txn_id=txn(1)), SetRules(rule_set=1), LakeAction(action="x")])
    def test_control_events_of_another_lake_are_refused(self, command: Cancel | SetRules | LakeAction) -> None:
        """A cancel for another lake must not settle a transaction of this one."""
        lake = two_tables()

        decision = lake.decide(control(command, lake_id=txn(4)))

        assert rejected(decision).reason == Reason.WRONG_LAKE
        assert isinstance(lake.decide(staged(append("a"), txn_id=txn(1))), Commit)


class TestPoison:
    def record(self, headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
        return Record(partition=0, position=1, time_ms=START_MS, value=b"junk", headers=headers)

    def test_what_cannot_be_decoded_is_rejected_and_kept(self) -> None:
        """Recorded under its position, told to whom its headers name, and the record goes to the dead letters."""
        lake = two_tables()
        headers = (("dl-txn", txn(5).encode()), ("dl-outcome", b"2"), ("dl-chunk", b"0/1"), ("other", b"x"))

        decision = lake.decide(Undecodable.of(self.record(headers), "bad bytes"))

        assert isinstance(decision, Rejection)
        assert (decision.txn_id, decision.claimed_txn_id) == ("position-1", txn(5))
        assert (decision.outcome.txn_id, decision.outcome_partition) == (txn(5), 2)
        assert rejected(decision).reason == Reason.UNDECODABLE_EVENT
        letter, answer = lake.outbox[2:]
        assert (letter.stream, letter.payload) == ("dead-letter", b"junk")
        assert letter.headers == {
            "dl-txn": txn(5).encode(),
            "dl-outcome": b"2",
            "dl-chunk": b"0/1",
            "dl-position": b"1",
            "dl-error": b"bad bytes",
        }
        assert answer.stream_partition == 2

    @pytest.mark.parametrize("value", [b"\xff\xfe", b"not an id", b"", b"9" * 400])
    def test_headers_are_not_trusted(self, value: bytes) -> None:
        """Whatever they hold, there is a decision."""
        decision = two_tables().decide(
            Undecodable.of(self.record((("dl-txn", value), ("dl-outcome", value), ("dl-x", value))), "e")
        )

        assert isinstance(decision, Rejection)
        assert (decision.claimed_txn_id, decision.outcome.txn_id, decision.outcome_partition) == (
            None,
            "position-1",
            -1,
        )

    def test_the_claimed_transaction_can_still_be_committed(self) -> None:
        """Junk under somebody's id settles nothing for that id."""
        lake = two_tables()
        lake.decide(Undecodable.of(self.record((("dl-txn", txn(5).encode()),)), "e"))

        assert isinstance(lake.decide(staged(append("a"), txn_id=txn(5))), Commit)

    def test_what_no_decision_was_found_for_is_isolated(self) -> None:
        """As undecodable records are, with a reason of its own."""
        lake = two_tables()

        decision = isolated(lake.load(Needs()), self.record(), staged(append("a")), "ValueError")

        assert rejected(decision).reason == Reason.ISOLATED
        assert decision.dead_letter is not None


class TestWrittenAgainst:
    def test_files_written_before_a_column_was_added_are_valid(self) -> None:
        """Re-validated, not refused: the new column is null in them."""
        lake = two_tables()
        lake.commit(column("late", "string"))

        assert lake.commit(append("a")).changes[0].version == 2

    def test_files_that_are_not_valid_any_more_are_refused(self) -> None:
        """The reason says which column, and which transaction changed it."""
        lake = ModelLake()
        lake.commit(relaxed("orders", ID, properties={"delta.columnMapping.mode": "name"}))
        state = lake.table("orders")
        older = parse_schema(ID)
        assert state.schema is not None
        winner = lake.commit(column("late", "string"))
        # Somebody who wrote files for a table of other columns.
        row = next(r for r in lake.rows["dl_metadata_updates"] if r["version"] == 0)
        row["schema_string"] = row["schema_string"].replace('"type":"long"', '"type":"string"')

        refused = lake.reject(append("a", read_version=0))

        assert older.fields[0].type == "long"
        assert (refused.reason, refused.versions, refused.other_txn) == (
            Reason.SCHEMA_CHANGED,
            (0, 1),
            winner.txn_id,
        )

    def test_what_files_were_written_against_has_to_be_said_once_metadata_changed(self) -> None:
        """By written_against or read_version; until then there is but one metadata it can be."""
        lake = two_tables()
        before = lake.commit(append("a", written_against=None))
        lake.commit(column("late", "string"))

        refused = lake.reject(append("b", written_against=None))
        by_version = lake.commit(append("b", written_against=None, read_version=2))

        assert before.changes[0].version == 1
        assert refused.reason == Reason.SCHEMA_CHANGED
        assert by_version.changes[0].version == 3

    def test_files_under_mapped_names_are_not_valid_without_mapping(self) -> None:
        """Nobody can turn it off here; a table may still come to us like that."""
        lake = ModelLake()
        lake.commit(relaxed("orders", ID, properties={"delta.columnMapping.mode": "name"}))
        lake.commit(column("late", "string"))
        newest = lake.rows["dl_metadata_updates"][1]
        newest["configuration"] = "{}"

        assert lake.reject(append("a")).reason == Reason.SCHEMA_CHANGED

    @pytest.mark.parametrize("against", [(7, 0), (0, 7), (-1, 0), (1, 0)])
    def test_metadata_that_was_never_set_cannot_have_been_written_against(self, against: tuple[int, int]) -> None:
        """Versions above the head, below zero, or that set no metadata."""
        lake = two_tables()
        lake.commit(append("a"))
        lake.commit(column("late", "string"))

        refused = lake.reject(append("b", written_against=WrittenAgainst(*against)))

        assert refused.reason == Reason.READ_VERSION_INVALID


def test_deciding_changes_nothing() -> None:
    """`decide` is pure: the same state and event give the same decision any number of times."""
    lake = two_tables()
    event = staged(append("a"), create("new"), txn_id=txn(5))
    state = lake.load(Needs())
    for table in state.tables.values():
        lake._load_table(table, TableNeeds())

    decisions = [decide(state, event, position=3, time_ms=START_MS) for _ in range(3)]

    assert decisions[0] == decisions[1] == decisions[2]
    assert isinstance(decisions[0], Commit)
    assert state.by_name == {"orders": 1, "items": 2}
    assert (state.commit_seq, state.next_table_no, state.decided) == (1, 3, {})
