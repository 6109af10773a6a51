"""Folds: which transactions share a commit, and what each of them is told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from deltalakedb.codec import decode_told
from deltalakedb.errors import Reason
from deltalakedb.events import AppTransaction, Cancel, Committed, Content, ReadSet, Tick
from deltalakedb.events import Commit as CommitEvent
from deltalakedb.folded import files_of
from deltalakedb_committer.deciding.decisions import Accepted, Answer, Commit, Decision, Nothing, Rejection
from deltalakedb_committer.deciding.needs import StagedEvent
from deltalakedb_committer.deciding.rules import Rules
from tests.model_lake import ModelLake, chunked, control, rejected, staged, txn
from tests.works import ID, add, append, create, other, reading, relaxed, remove

WINDOW_MS = 10
AT = 1_800_000_000_000


@pytest.fixture
def lake() -> ModelLake:
    """Two tables, and ten milliseconds in which appends share a commit."""
    lake = ModelLake(limits=Rules(number=1, fold_window_ms=WINDOW_MS, max_fold_transactions=5, max_fold_bytes=100))
    lake.commit(relaxed(), create("items", ID, properties={"delta.enableRowTracking": "true"}))
    return lake


def commits(decisions: list[Decision]) -> list[Commit]:
    return [decision for decision in decisions if isinstance(decision, Commit)]


def together(decisions: list[Decision]) -> list[int]:
    """How many transactions each commit has."""
    return [1 + len(commit.folded) for commit in commits(decisions)]


def told(decision: Commit | Accepted) -> Committed:
    assert decision.outcome.committed is not None
    return decision.outcome.committed


def one(path: str, number: int | None = None, **content: Any) -> StagedEvent:
    return staged(append(path), txn_id=None if number is None else txn(number), **content)


def test_appends_share_a_commit(lake: ModelLake) -> None:
    """One version per table, one T, and every transaction is recorded and told what it did itself."""
    both = staged(append("a"), append(add("a", stats='{"numRecords":3}'), name="items"), txn_id=txn(1))
    apps = (AppTransaction("nightly", 7),)
    decisions = lake.fold(both, one("b", 2, apps=apps), one("c", 3), at=AT)

    (commit,) = commits(decisions)
    assert decisions == [commit]
    assert [(one.txn_id, one.position) for one in commit.transactions] == [(txn(n), n) for n in (1, 2, 3)]
    assert [(change.table.name, change.version, len(change.adds)) for change in commit.changes] == [
        ("orders", 1, 3),
        ("items", 1, 1),
    ]
    # T is no earlier than any of them.
    assert commit.time_ms == AT + 2
    assert {told(one).time_ms for one in commit.transactions} == {AT + 2}
    assert {told(one).commit_seq for one in commit.transactions} == {2}
    names = [[(table.name, table.version) for table in told(one).tables] for one in commit.transactions]
    assert names == [[("orders", 1), ("items", 1)], [("orders", 1)], [("orders", 1)]]
    (row,) = [row for row in lake.rows["dl_commits"] if row["commit_seq"] == 2]
    assert (json.loads(row["txn_ids"]), row["position"]) == ([txn(1), txn(2), txn(3)], 3)
    assert [(row["txn_id"], row["commit_seq"]) for row in lake.rows["dl_transactions"][-3:]] == [
        (txn(n), 2) for n in (1, 2, 3)
    ]
    assert [row["txn_id"] for row in lake.rows["dl_app_transactions"]] == [txn(2)]
    assert [(row["app_id"], row["last_updated"]) for row in lake.rows["dl_txn_actions"]] == [("nightly", AT + 2)]
    # Each is answered by itself, the world hears of one commit.
    *_, heard, answered = [decode_told(row.payload) for row in lake.outbox]
    assert [(commit.commit_seq, commit.position) for commit in heard if isinstance(commit, CommitEvent)] == [(2, 3)]
    assert [one.position for one in answered] == [1, 2, 3]


def test_a_version_says_whose_its_files_are(lake: ModelLake) -> None:
    """Its first transaction stands for it, the tags have all; what they say in common stays, numbers add up."""
    ten = add("c", stats='{"numRecords":10}')
    texts: dict[str, Any]
    texts = {"operation_parameters": {"mode": "Append"}, "operation_metrics": {"numFiles": "2", "x": "-"}}
    first = staged(append("a", "b", **texts), txn_id=txn(1))
    texts = {"operation_parameters": {"mode": "Append", "n": "1"}, "operation_metrics": {"numFiles": "1", "x": "1"}}
    lake.fold(first, staged(append("c", **texts), append(ten, name="items"), txn_id=txn(2)), one("d", 3))

    versions = {row["table_no"]: row for row in lake.rows["dl_table_versions"] if row["version"] == 1}
    orders = versions[1]
    assert (orders["txn_id"], orders["is_blind_append"], orders["read_version"]) == (txn(1), True, None)
    assert json.loads(orders["tags"]) == {"commit_seq": "2", "folded": f"{txn(1)}:2,{txn(2)}:1,{txn(3)}:1"}
    files = [(row["n"], row["path"]) for row in lake.rows["dl_live_files"] if row["table_no"] == 1]
    paths = [path for _, path in sorted(files)]
    assert [paths[files_of(txn(n), orders["tags"]) or slice(0)] for n in (1, 2, 3)] == [["a", "b"], ["c"], ["d"]]
    # The last one says neither, so neither is said of all.
    assert (orders["operation_parameters"], orders["operation_metrics"]) == ("{}", "{}")

    texts = {"operation_parameters": {"mode": "Append", "n": "2"}, "operation_metrics": {"numFiles": "1", "x": "1"}}
    lake.fold(
        staged(append("e", **texts), txn_id=txn(4)),
        staged(append("f", operation="STREAMING UPDATE", **{**texts, "operation_parameters": {"mode": "Append"}})),
    )
    row = lake.rows["dl_table_versions"][-1]
    assert (row["operation"], row["operation_parameters"]) == ("WRITE", '{"mode":"Append"}')
    assert json.loads(row["operation_metrics"]) == {"numFiles": "2", "x": "2"}


def test_a_table_of_one_transaction_is_its_own(lake: ModelLake) -> None:
    """Where only one of them has a part in a table, its version says nothing of the others."""
    lake.fold(one("a", 1), staged(append(add("b", stats='{"numRecords":1}'), name="items"), txn_id=txn(2)))

    rows = lake.rows["dl_table_versions"][-2:]
    assert [(row["txn_id"], row["tags"]) for row in rows] == [(txn(n), '{"commit_seq":"2"}') for n in (1, 2)]


def test_the_window_goes_by_the_logs_time(lake: ModelLake) -> None:
    """From its first record on, and up to but not including the end of the window."""
    items = [*lake.items([one("a"), one("b")], at=AT), *lake.items([one("c"), one("d")], at=AT + WINDOW_MS - 1)]
    records = [record._replace(position=n) for n, (record, _) in enumerate(items)]

    assert together(lake.fold(*[event for _, event in items], at=[record.time_ms for record in records])) == [3, 1]


@pytest.mark.parametrize(
    ("between", "found"),
    [
        (control(Tick()), [1, 2]),
        (control(Cancel(txn_id=txn(77))), [1, 2]),
        (one("b", 1), [1, 2]),
        (one("a"), [1, 3]),
        (one("x", user_metadata="mine"), [1, 1, 2]),
        (one("x", engine_info="another"), [1, 1, 2]),
        (one("x", isolation="Serializable"), [1, 1, 2]),
        (staged(append("x", read_version=1)), [1, 1, 2]),
        (staged(reading(0, "x")), [1, 1, 2]),
        (staged(append("x", read_version=0, read_set=ReadSet())), [1, 1, 2]),
        (staged(create("new", ID, add("x"))), [1, 1, 2]),
        (staged(append("x", others=(other("txn", {"appId": "own", "version": 1}),))), [1, 1, 2]),
        (staged(remove("first")), [1, 1, 2]),
        (chunked([Content(tables=(append("x"),)), Content(tables=(append("y"),))])[0], [1, 2]),
        (staged(), [1, 2]),
    ],
)
def test_what_is_no_plain_append_ends_a_fold(lake: ModelLake, between: StagedEvent, found: list[int]) -> None:
    """Ticks, cancels, chunks, readers, new tables, repetitions, files that are there twice, words of its own."""
    lake.commit(append("first"))

    decisions = lake.fold(one("a", 1), between, one("c"), one("d"))

    assert together(decisions) == found


def test_application_versions_are_new_to_a_fold(lake: ModelLake) -> None:
    """A second transaction of an application begins the next one; others do not mind."""
    apps = [(AppTransaction("p", 1),), (AppTransaction("q", 1),), (AppTransaction("p", 2),)]

    decisions = lake.fold(*[one(str(n), apps=app) for n, app in enumerate(apps)])

    assert together(decisions) == [2, 1]


def test_folds_are_bounded(lake: ModelLake) -> None:
    """By number and by bytes."""
    assert together(lake.fold(*[one(str(n)) for n in range(12)], at=[AT] * 12)) == [5, 5, 2]
    assert together(lake.fold(*[one(f"x{n}") for n in range(4)], at=[AT] * 4, value=b"x" * 40)) == [2, 2]


def test_only_the_one_that_is_wrong_is_rejected(lake: ModelLake) -> None:
    """In all its tables, and without a trace in what the others do."""
    good = add("a", stats='{"numRecords":5}')
    wrong = staged(append("w"), append(add("no-records"), name="items"), txn_id=txn(2))
    decisions = lake.fold(
        staged(append(good, name="items"), txn_id=txn(1)), wrong, staged(append(good, "b"), append(good, name="items"))
    )

    # The path of the last one is there already, which begins another fold.
    rejection, first, last = decisions
    assert isinstance(rejection, Rejection)
    assert rejected(rejection).reason == Reason.INVALID_ACTION
    assert together([first, last]) == [1, 1]
    assert lake.live("orders") == {("a", ""), ("b", "")}
    assert not any("no-records" in row["path"] for row in lake.rows["dl_live_files"])


def test_row_ids_run_on(lake: ModelLake) -> None:
    """From one transaction of a fold to the next, past those that are rejected, and from fold to fold."""

    def rows(path: str, count: int) -> StagedEvent:
        return staged(append(add(path, stats=f'{{"numRecords":{count}}}'), name="items"))

    lake.fold(rows("a", 5), staged(append(add("w"), name="items")), rows("b", 7), rows("c", 1))
    lake.fold(rows("d", 1), rows("e", 1))

    live = {row["path"]: row for row in lake.rows["dl_live_files"]}
    assert {path: row["base_row_id"] for path, row in live.items()} == {"a": 0, "b": 5, "c": 12, "d": 13, "e": 14}
    assert {path: row["default_row_commit_version"] for path, row in live.items()} == dict.fromkeys("abc", 1) | {
        "d": 2,
        "e": 2,
    }
    marks = [(row["version"], row["configuration"]) for row in lake.rows["dl_domain_metadata"]]
    assert marks == [(1, '{"rowIdHighWaterMark":12}'), (2, '{"rowIdHighWaterMark":14}')]


def test_what_was_decided_before_is_told_again(lake: ModelLake) -> None:
    """A repetition, a version of an application that is there, and an id that was cancelled change no fold."""
    apps = (AppTransaction("p", 3),)
    lake.fold(one("a", 1, apps=apps), one("b", 2))
    lake.decide(control(Cancel(txn_id=txn(3))))

    decisions = lake.fold(one("b", 2), one("c", 3), one("d", 4, apps=apps), one("e", 5), one("f", 6))

    again, cancelled, accepted, commit = decisions
    assert isinstance(again, Answer)
    assert again.outcome.committed is not None
    assert again.outcome.committed.commit_seq == 2
    assert rejected(cancelled).reason == Reason.CANCELLED
    assert isinstance(accepted, Accepted)
    assert told(accepted).already_committed
    assert together([commit]) == [2]


def test_a_file_that_is_added_again_takes_the_place_of_itself(lake: ModelLake) -> None:
    """As it does alone."""
    lake.commit(append("a", "b"))

    lake.fold(one("c"), staged(append(add("a", size=9))), one("d"))

    assert lake.live("orders") == {(path, "") for path in "abcd"}
    assert [(row["path"], row["removed_version"]) for row in lake.past] == [("a", 2)]
    assert lake.table("orders").live_bytes == 309


def test_a_fold_is_a_blind_append_to_those_who_read(lake: ModelLake) -> None:
    """Under WriteSerializable it stands against nobody, under Serializable it does, and its first one is named."""
    lake.fold(one("a", 1), one("b", 2), staged(append(add("c", stats='{"numRecords":1}'), name="items"), txn_id=txn(3)))

    lake.commit(reading(0, "x"))
    refused = lake.reject(reading(0, add("y", stats='{"numRecords":1}'), name="items"))
    assert (refused.reason, refused.other_txn) == (Reason.CONCURRENT_APPEND, txn(3))


def test_a_fold_in_which_all_are_rejected_is_no_commit(lake: ModelLake) -> None:
    """Neither a version nor a number is used up."""
    decisions = lake.fold(one("../a"), one("../b"))

    assert [type(decision) for decision in decisions] == [Rejection, Rejection]
    assert lake.commit_seq == 1


def test_a_tick_has_no_effect_of_its_own(lake: ModelLake) -> None:
    """It only says that the fold before it is complete."""
    assert isinstance(lake.fold(one("a"), one("b"), control(Tick()))[-1], Nothing)


def test_whose_files_are_told_by_tags() -> None:
    """All of them where nobody shares the version; a transaction that has no part in it is an error of the caller's."""
    assert files_of("x", None) is None
    assert files_of("x", '{"commit_seq":"1"}') is None
    tags = msgspec.json.encode({"folded": "x:2,y:0,z:3"}).decode()
    assert [files_of(name, tags) for name in "xyz"] == [slice(0, 2), slice(2, 2), slice(2, 5)]
    with pytest.raises(KeyError):
        files_of("w", tags)
