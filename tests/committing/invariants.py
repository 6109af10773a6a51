"""What must hold of a lake after whatever has happened to it, checked over its log as read back and the rows in SQL.

The oracle is the log, not what anybody meant to write: what is on it is decided again, and held against each row and
against everything that was ever told.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from deltalakedb.codec import decode, decode_told
from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogDecodeError
from deltalakedb.eventlog import EventLog, Record, Stream
from deltalakedb.events import Commit, Outcome, StagedTransaction
from deltalakedb_committer.replay import replay

_T = TypeVar("_T")

WATCH = (
    """
    CREATE TABLE watched_moves (
        n bigserial PRIMARY KEY, old_epoch bigint, new_epoch bigint, old_position bigint, new_position bigint,
        xid bigint DEFAULT (pg_current_xact_id()::text::bigint % 4294967296)
    )
    """,
    """
    CREATE FUNCTION watch_moves() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
        INSERT INTO watched_moves (old_epoch, new_epoch, old_position, new_position)
        VALUES (OLD.epoch, NEW.epoch, OLD.position, NEW.position);
        RETURN NULL;
    END'
    """,
    "CREATE TRIGGER watch_moves AFTER UPDATE ON dl_committer_position FOR EACH ROW EXECUTE FUNCTION watch_moves()",
)
"""What records, in the transaction itself, each move of a lake's position on Postgres."""


def check_everything(database: Database, log: EventLog, folder: Path) -> dict[str, int]:
    """Check a lake on Postgres at rest, of which each move was watched. How much there was of what."""
    return {**check_rows_and_told(database, log, folder), "moves": _check_moves(database)}


def check_rows_and_told(database: Database, log: EventLog, folder: Path) -> dict[str, int]:
    """Check a lake at rest: all of its log is decided and all of it told. How much there was of what."""
    staged = read_all(log, Stream.STAGED)
    outcomes = [
        outcome
        for partition in range(log.partitions(Stream.OUTCOMES))
        for outcome in told(read_all(log, Stream.OUTCOMES, partition), Outcome)
    ]
    commits = told(read_all(log, Stream.COMMITS), Commit)
    _check_whole_transactions(database, staged)
    _check_no_gaps(database, len(staged))
    _check_told(database, outcomes)
    _check_commits_told(database, commits)
    _check_replay(database, log, folder)
    epochs = database.query("SELECT epoch FROM dl_committer_position")
    return {
        "records": len(staged),
        "commits": database.query("SELECT count(*) FROM dl_commits")[0][0],
        "commits told": len(commits),
        "outcomes told": len(outcomes),
        "epochs": epochs[0][0],
    }


def read_all(log: EventLog, stream: Stream, partition: int = 0) -> list[Record]:
    """Every record of a partition."""
    found: list[Record] = []
    end = log.end(stream, partition=partition)
    reader = log.reader(stream, log.beginning(stream, partition=partition), partition=partition)
    try:
        while not found or found[-1].next_position < end:
            if end == 0:
                break
            records = reader.read(10_000, 10.0)
            assert records, f"{stream} of {partition} ends before {end}"
            found += records
    finally:
        reader.close()
    return found


def _check_whole_transactions(database: Database, staged: Iterable[Record]) -> None:
    """INV1: of a committed transaction each table has exactly its files, at one commit_seq; of others, none has any."""
    wanted: dict[str, dict[int, StagedTransaction]] = defaultdict(dict)
    for record in staged:
        try:
            event = decode(record.value)
        except TxnLogDecodeError:
            continue
        if isinstance(event, StagedTransaction):
            wanted[event.envelope.txn_id].setdefault(event.envelope.chunk_index, event)
    ours: dict[str, tuple[int, dict[str, int]]] = {}
    for txn_ids, seq in database.query("SELECT txn_ids, commit_seq FROM dl_commits"):
        for txn_id in json.loads(txn_ids):
            assert txn_id not in ours, f"{txn_id} was committed twice"
            ours[txn_id] = (seq, {})
    committed: dict[str, int] = dict(
        database.query("SELECT txn_id, commit_seq FROM dl_transactions WHERE commit_seq IS NOT NULL")
    )
    assert {txn_id: seq for txn_id, (seq, _) in ours.items()}.items() <= committed.items()
    together: dict[int, list[str]] = defaultdict(list)
    for txn_id, (seq, _) in ours.items():
        together[seq].append(txn_id)
    added, removed = _files(database, "dl_add_files"), _files(database, "dl_remove_files")
    for seq, txn_ids in together.items():
        adds: set[tuple[str, str]] = set()
        removes: set[tuple[str, str]] = set()
        for txn_id in txn_ids:
            for event in wanted[txn_id].values():
                for work in event.content.tables:
                    name = work.name or ""
                    adds |= {(name, add.path) for add in work.adds}
                    removes |= {(name, gone.path) for gone in work.removes}
        assert added.pop(seq, set()) == adds, f"commit {seq}"
        assert removed.pop(seq, set()) >= removes, f"commit {seq}"
    assert not added, "files of no transaction"
    assert not removed


def _files(database: Database, table: str) -> dict[int, set[tuple[str, str]]]:
    """The files that a commit added or removed, with their tables' names."""
    found: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for seq, name, path in database.query(
        f"SELECT v.commit_seq, t.name, f.path FROM {table} f JOIN dl_table_versions v USING (table_no, version) "
        "JOIN dl_tables t USING (table_no)"
    ):
        found[seq].add((name, path))
    return found


def _check_no_gaps(database: Database, records: int) -> None:
    """INV2: versions and commit_seq have no gaps and rise with the log."""
    commits = database.query("SELECT commit_seq, position, time_ms FROM dl_commits ORDER BY commit_seq")
    assert [seq for seq, _, _ in commits] == list(range(1, len(commits) + 1))
    assert all(one[1] < two[1] and one[2] <= two[2] for one, two in pairwise(commits))
    assert all(position < records for _, position, _ in commits)
    versions: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for table_no, version, seq in database.query(
        "SELECT table_no, version, commit_seq FROM dl_table_versions ORDER BY table_no, version"
    ):
        versions[table_no].append((version, seq))
    for table_no, rows in versions.items():
        assert [version for version, _ in rows] == list(range(len(rows))), f"table {table_no}"
        assert all(one[1] < two[1] for one, two in pairwise(rows)), f"table {table_no}"


def _check_told(database: Database, outcomes: Iterable[Outcome]) -> None:
    """INV3 and INV4: whatever anybody was told of a transaction is what SQL has of it, and each was told its decision."""
    rows = database.query("SELECT txn_id, committed, commit_seq, position FROM dl_transactions")
    decided = {txn_id: (committed, seq) for txn_id, committed, seq, _ in rows}
    assert len(decided) == len(rows), "one decision for each id"
    asked: dict[tuple[str, int], set[object]] = defaultdict(set)
    for outcome in outcomes:
        committed, seq = decided.get(outcome.txn_id, (None, None))
        mismatch = outcome.rejected is not None and outcome.rejected.reason == "DUPLICATE_MISMATCH"
        if committed is not None and not mismatch:
            assert (outcome.committed is not None) == committed, outcome
            assert outcome.committed is None or seq in (None, outcome.committed.commit_seq), outcome
        asked[outcome.txn_id, outcome.position].add((outcome.committed, outcome.rejected))
    for txn_id, _, _, position in rows:
        assert (txn_id, position) in asked or txn_id.startswith("position-"), f"{txn_id} was never told its outcome"
    for question, answers in asked.items():
        assert len(answers) == 1, f"{question} was answered in two ways: {answers}"


def _check_commits_told(database: Database, commits: Iterable[Commit]) -> None:
    """INV3: every commit was told, the first time in order, and each time the same."""
    first: dict[int, Commit] = {}
    for commit in commits:
        number = commit.commit_seq
        if number not in first:
            assert number == len(first) + 1, "told before the one that comes before it"
            first[number] = commit
        assert first[number] == commit, f"commit {number} was told in two ways"
    rows = database.query("SELECT commit_seq, position, time_ms, txn_ids FROM dl_commits ORDER BY commit_seq")
    for seq, position, time_ms, txn_ids in rows:
        assert seq in first, f"commit {seq} was never told"
        commit = first[seq]
        assert (commit.position, commit.time_ms, list(commit.txn_ids)) == (position, time_ms, json.loads(txn_ids))
    assert len(first) == len(rows), "a commit was told that is not there"


def _check_moves(database: Database) -> int:
    """INV9: the position moves forwards, within its epoch, in the transaction that writes what it passes; how often."""
    rows = database.query("SELECT old_epoch, new_epoch, old_position, new_position, xid FROM watched_moves ORDER BY n")
    for one, two in pairwise(rows):
        assert (one[1], one[3]) == (two[0], two[2]), "nothing moves between two moves"
    writer: dict[int, int] = {}
    for old_epoch, new_epoch, old_position, new_position, xid in rows:
        if new_position == old_position:
            # A takeover; or rows of a big transaction are staged, by who still leads.
            assert new_epoch - old_epoch in (0, 1)
            continue
        assert new_epoch == old_epoch, "an old epoch wrote"
        assert new_position > old_position
        for position in range(old_position, new_position):
            writer[position] = xid
    for table in ("dl_transactions", "dl_commits"):
        for position, xid in database.query(f"SELECT position, xmin::text::bigint FROM {table}"):
            assert writer[position] == xid, f"{table}: {position} was written apart from the position"
    return sum(row[2] != row[3] for row in rows)


def _check_replay(database: Database, log: EventLog, folder: Path) -> None:
    """INV6: the log, decided again into an empty store, gives the same rows."""
    file = folder / "decided-again.db"
    file.unlink(missing_ok=True)
    again = open_database(StoreAddress(engine="sqlite", path=str(file)), create=True)
    try:
        found = replay(database, log, again)
    finally:
        again.close()
    assert found.equal, [table for table in found.tables if not table.equal]


def told(records: Iterable[Record], kind: type[_T]) -> list[_T]:
    """What records tell, all of one kind."""
    found: list[_T] = []
    for record in records:
        for event in decode_told(record.value):
            assert isinstance(event, kind)
            found.append(event)
    return found
