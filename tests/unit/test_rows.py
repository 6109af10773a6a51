from __future__ import annotations

import sqlite3
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from deltalakedb.actions import CdcFile, RemoveFile
from deltalakedb.codec import decode_told
from deltalakedb.eventlog.port import MAX_RECORD_BYTES, Record
from deltalakedb.events import AppTransaction, Commit, Content, Outcome
from deltalakedb_committer.deciding.decide import advance, decide
from deltalakedb_committer.deciding.decisions import Decision
from deltalakedb_committer.deciding.needs import Needs, StagedEvent, Undecodable, add_needs
from deltalakedb_committer.storing.columns import COLUMNS, PARTITION_TEXT
from deltalakedb_committer.storing.file_rows import partition_text
from deltalakedb_committer.storing.rows import Batch, add_decision, seal
from tests.model_lake import START_MS, ModelLake, cancel, chunked, staged, txn
from tests.works import ID_DAY, add, append, create, other, relaxed, vector

DAY: dict[str, str | None] = {"day": "2024-01-01"}


def the_only(lake: ModelLake, table: str) -> dict[str, Any]:
    (row,) = lake.rows[table]
    return row


def batch_of(lake: ModelLake, event: StagedEvent, **told: int) -> tuple[Batch, Decision]:
    """What one event writes; the lake stays where it was."""
    needs = Needs()
    add_needs(needs, event)
    state = lake.load(needs)
    decision = decide(state, event, position=lake.position, time_ms=START_MS + lake.position)
    advance(state, decision)
    batch = Batch()
    add_decision(batch, decision, **told)
    seal(batch)
    return batch, decision


def test_columns_are_those_of_the_schema() -> None:
    """Every column the committer writes is in SQL, and of its tables it writes every column."""
    database = sqlite3.connect(":memory:")
    script = files("deltalakedb_migrations").joinpath("sqlite", "0001_lake.sql").read_text(encoding="utf-8")
    database.executescript(script)

    for table, columns in COLUMNS.items():
        found = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        written = ["partition_no" if table == "dl_live_files" and c == PARTITION_TEXT else c for c in columns]
        assert set(written) == set(found), table
        assert len(set(columns)) == len(columns), table
    database.close()


class TestFiles:
    def test_an_add_has_a_column_for_everything(self) -> None:
        """What has a column goes there, all else stays verbatim in one."""
        lake = ModelLake()
        lake.commit(relaxed("orders", ID_DAY, by=("day",), properties={"delta.enableDeletionVectors": "true"}))
        rest = '{"later":{"a" : [1,2]},"tags":{"k":"v","n":null},"clusteringProvider":"liquid","baseRowId":7,"z":1.50}'
        stats = '{"numRecords":10, "minValues":{"id":-1},"maxValues":{"id":5}}'
        lake.commit(
            append(
                add("a", partition_values=DAY, size=9, modification_time=8, data_change=False, stats=stats, rest=rest),
                add("b", partition_values={"day": None}, stats=stats, deletion_vector=vector(max_row_index=5)),
            )
        )

        first, second = lake.rows["dl_live_files"]

        assert first == {
            **dict.fromkeys(COLUMNS["dl_live_files"]),
            "table_no": 1,
            "version": 1,
            "n": 0,
            "path": "a",
            "dv_id": "",
            PARTITION_TEXT: '{"day":"2024-01-01"}',
            "size": 9,
            "modification_time": 8,
            "data_change": False,
            "stats": stats,
            "num_records": 10,
            "tags": '{"k":"v","n":null}',
            "base_row_id": 7,
            "clustering_provider": "liquid",
            "extra": '{"later":{"a" : [1,2]},"z":1.50}',
            "min1": -1,
            "max1": 5,
        }
        assert (second["n"], second["dv_id"], second["dv_size"]) == (1, vector().unique_id, 44)
        assert (second["dv_cardinality"], second["dv_max_row_index"], second["dv_offset"]) == (2, 5, None)
        assert second[PARTITION_TEXT] == '{"day":null}'

    def test_removes_and_change_data_have_theirs(self) -> None:
        """What is known of the removed file comes from its live row."""
        lake = ModelLake()
        lake.commit(
            relaxed(
                "orders",
                ID_DAY,
                add("a", partition_values=DAY, size=9),
                by=("day",),
                properties={"delta.enableChangeDataFeed": "true"},
            )
        )
        gone = RemoveFile(path="a", size=1, partition_values={"x": "y"}, rest='{"stats":"{}","later":1}')
        change = CdcFile(path="_change_data/c", partition_values=DAY, size=3, rest='{"tags":{"t":"u"},"later":2}')

        commit = lake.commit(append(removes=(gone,), cdc=(change,)))

        assert the_only(lake, "dl_remove_files") == {
            **dict.fromkeys(COLUMNS["dl_remove_files"]),
            "table_no": 1,
            "version": 1,
            "n": 0,
            "path": "a",
            "dv_id": "",
            "data_change": True,
            "deletion_timestamp": commit.time_ms,
            "extended_file_metadata": True,
            "partition_values": '{"day":"2024-01-01"}',
            "size": 9,
            "stats": "{}",
            "extra": '{"later":1}',
        }
        assert the_only(lake, "dl_cdc_files") == {
            "table_no": 1,
            "version": 1,
            "n": 0,
            "path": "_change_data/c",
            "partition_values": '{"day":"2024-01-01"}',
            "size": 3,
            "data_change": False,
            "tags": '{"t":"u"}',
            "extra": '{"later":2}',
        }
        assert [row["removed_version"] for row in lake.past] == [1]

    def test_a_file_may_come_and_go_in_one_batch(self) -> None:
        """Its row is written and moved to the past, in that order."""
        lake = ModelLake()
        lake.commit(relaxed())

        lake.run([staged(append("a")), staged(append(removes=(RemoveFile(path="a"),)))])

        assert lake.rows["dl_live_files"] == []
        assert [(row["path"], row["version"], row["removed_version"]) for row in lake.past] == [("a", 1, 2)]

    def test_partition_values_are_one_text_per_set(self) -> None:
        """Whatever the order of keys."""
        assert partition_text({"b": "1", "a": None}) == partition_text({"a": None, "b": "1"}) == '{"a":null,"b":"1"}'
        assert partition_text({}) == "{}"
        assert partition_text({"ü": 'q"\u0000'}) == '{"ü":"q\\"\\u0000"}'


class TestVersions:
    def test_a_version_says_what_its_commit_info_needs(self) -> None:
        """Operation, who and how, counts, and the commit it belongs to."""
        lake = ModelLake()
        lake.commit(relaxed("orders", ID_DAY, add("a", partition_values=DAY, size=9), by=("day",)))
        work = append(
            add("b", partition_values=DAY, size=5),
            read_version=0,
            operation="MERGE",
            operation_parameters={"predicate": "[]"},
            operation_metrics={"numFiles": "1"},
            removes=(RemoveFile(path="a"),),
        )

        commit = lake.commit(work, user_metadata="me", engine_info="deltalakedb/1")

        assert lake.rows["dl_table_versions"][1] == {
            "table_no": 1,
            "version": 1,
            "commit_seq": 2,
            "time_ms": commit.time_ms,
            "txn_id": commit.txn_id,
            "operation": "MERGE",
            "operation_parameters": '{"predicate":"[]"}',
            "operation_metrics": '{"numFiles":"1"}',
            "read_version": 0,
            "isolation_level": "WriteSerializable",
            "is_blind_append": False,
            "user_metadata": "me",
            "engine_info": "deltalakedb/1",
            "tags": '{"commit_seq":"2"}',
            "commit_info": None,
            "render_version": 1,
            "changes_data": True,
            "changes_metadata": False,
            "changes_protocol": False,
            "added_files": 1,
            "added_bytes": 5,
            "removed_files": 1,
            "removed_bytes": 9,
            "origin": None,
            "file_time_ms": None,
        }

    def test_the_head_is_the_newest_of_the_batch(self) -> None:
        """With counts, and the versions whose metadata and protocol hold."""
        lake = ModelLake()

        lake.run([staged(relaxed()), staged(append(add("a", stats='{"minValues":{"id":1},"maxValues":{"id":9}}')))])

        assert lake.heads == {
            1: {
                "table_no": 1,
                "version": 1,
                "commit_seq": 2,
                "time_ms": lake.time_ms,
                "metadata_version": 0,
                "protocol_version": 0,
                "live_files": 1,
                "live_bytes": 100,
                "width1": 8,
                "width2": 0,
                "width3": 0,
                "width4": 0,
            }
        }

    def test_a_new_table_has_its_rows(self) -> None:
        """Directory, metadata, protocol."""
        lake = ModelLake()

        commit = lake.commit(create("orders", ID_DAY, by=("day",), properties={"k": "v"}, description="all"))

        table = commit.changes[0].table
        assert the_only(lake, "dl_tables") == {
            "table_no": 1,
            "table_id": table.table_id,
            "name": "orders",
            "location": table.location,
            "state": "ACTIVE",
            "created_seq": 1,
            "dropped_seq": None,
            "first_version": 0,
            "slot_columns": '[["id"]]',
        }
        metadata = the_only(lake, "dl_metadata_updates")
        assert metadata["partition_columns"] == '["day"]'
        assert metadata["configuration"] == '{"k":"v","delta.enableInCommitTimestamps":"true"}'
        assert (metadata["format_provider"], metadata["format_options"], metadata["extra"]) == ("parquet", "{}", None)
        protocol = the_only(lake, "dl_protocol_updates")
        assert protocol["reader_features"] is None
        assert protocol["writer_features"].startswith('["appendOnly",')

    def test_other_actions_have_rows(self) -> None:
        """Applications and domains, with what we do not know of them."""
        lake = ModelLake()
        lake.commit(create(properties={"delta.feature.domainMetadata": "supported"}))
        domain = other("domainMetadata", {"domain": "d", "configuration": "c", "removed": False, "x": 1})

        commit = lake.commit(
            append(others=(domain, other("txn", {"appId": "a", "version": 3, "x": 1}))), apps=(AppTransaction("b", 4),)
        )

        assert [tuple(row.values()) for row in lake.rows["dl_txn_actions"]] == [
            (1, 1, "a", 3, commit.time_ms, '{"x":1}'),
            (1, 1, "b", 4, commit.time_ms, None),
        ]
        assert tuple(the_only(lake, "dl_domain_metadata").values()) == (1, 1, "d", "c", False, '{"x":1}')
        assert tuple(the_only(lake, "dl_app_transactions").values()) == ("b", 4, commit.txn_id)


class TestTransactions:
    def test_every_decision_is_one_row(self) -> None:
        """Committed or not; answers, ticks and chunks that wait are none."""
        lake = ModelLake()
        commit = lake.commit(create())
        refused = staged(append("a", name="nowhere"), txn_id=txn(5))
        lake.decide(refused)
        lake.decide(refused)
        lake.decide(cancel(txn(6)))

        first, second, third = lake.rows["dl_transactions"]

        assert first["outcome"] == msgspec.json.encode(commit.outcome).decode()
        assert (first["committed"], first["commit_seq"], first["digest"]) == (True, 1, commit.digest)
        assert (second["txn_id"], second["committed"], second["commit_seq"]) == (txn(5), False, None)
        assert (second["time_ms"], second["client_id"]) == (START_MS + 1, "client")
        assert (third["txn_id"], third["digest"]) == (txn(6), None)

    def test_a_chunk_that_waits_is_staged_with_its_bytes(self) -> None:
        """And gone with the decision."""
        lake = ModelLake()
        lake.commit(create())
        events = chunked([Content(tables=(append(p),)) for p in "ab"], txn_id=txn(5))

        batch, _ = batch_of(lake, events[0])
        lake.decide(events[0])
        done, _ = batch_of(lake, events[1])

        (row,) = batch.inserts["dl_staged_chunks"]
        assert row[:4] == (txn(5), 0, 2, events[0].envelope.digest)
        content = events[0].content_bytes
        assert row[5:] == (1, START_MS + 1, content, len(content), None, None, "client", 0)
        assert batch.outbox == []
        assert done.finished_chunks == [txn(5)]


class TestOutbox:
    def test_a_commit_is_told_to_everybody_and_to_its_client(self) -> None:
        """In this order, by the position of the record that it is about."""
        lake = ModelLake()
        lake.commit(relaxed("orders"))
        batch, decision = batch_of(
            lake, staged(append(add("a", size=7)), txn_id=txn(5)), lag_events=3, decided_ms=START_MS + 21
        )

        told, answered = batch.outbox

        assert (told.position, told.n, told.stream, told.stream_partition) == (1, 0, "commits", 0)
        (event,) = decode_told(told.payload)
        assert isinstance(event, Commit)
        assert (event.commit_seq, event.txn_ids, event.tables[0].added_bytes) == (2, (txn(5),), 7)
        assert (event.tables[0].old_version, event.tables[0].new_version) == (0, 1)
        assert (answered.position, answered.n, answered.stream, answered.stream_partition) == (1, 1, "outcomes", 0)
        (outcome,) = decode_told(answered.payload)
        assert isinstance(outcome, Outcome)
        assert (outcome.lag_events, outcome.lag_ms) == (3, 20)
        assert outcome.committed == getattr(decision, "outcome").committed  # noqa: B009

    def test_lag_is_told_and_not_stored(self) -> None:
        """A replay writes the same rows at another time."""
        lake = ModelLake()
        event = staged(create(), txn_id=txn(5))

        early, _ = batch_of(lake, event, lag_events=1, decided_ms=START_MS)
        late, _ = batch_of(lake, event, lag_events=9, decided_ms=START_MS + 10**6)

        assert early.inserts == late.inserts
        assert early.outbox != late.outbox

    @pytest.mark.parametrize("size", [10, MAX_RECORD_BYTES + 10_000])
    def test_a_dead_letter_fits_the_log_again(self, size: int) -> None:
        """Also one that other tooling put there, over our limit; only our own short headers go along."""
        headers = (("dl-txn", b"x" * 600), ("dl-chunk", b"0/1"), ("own", b"1"))
        record = Record(partition=0, position=4, time_ms=START_MS, value=b"j" * size, headers=headers)

        batch, _ = batch_of(ModelLake(), Undecodable.of(record, "é" * 1000))

        (letter,) = batch.outbox
        assert len(letter.payload) == min(size, MAX_RECORD_BYTES)
        assert set(letter.headers) == {"dl-chunk", "dl-position", "dl-error"}
        assert len(letter.headers["dl-error"]) <= 500
