"""How imported versions are decided: kept as they were found, in their order, and seen only once they are whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from deltalakedb.errors import Reason
from deltalakedb.events import AppTransaction, LakeAction, ReadSet, TableWork
from deltalakedb.features import FENCE_FEATURE
from deltalakedb_committer.deciding.decisions import Accepted, Answer, Commit, Imported, Nothing
from tests import works
from tests.imports import BEGIN_MS, IMPORT_ID, LOCATION, PROTOCOL, add, first, info, metadata, one, remove, version
from tests.model_lake import START_MS, ModelLake, cancel, control, rejected, staged, txn
from tests.works import append, create, schema

NAME = "old"


def imported(*events: Any) -> ModelLake:
    """A lake into which these versions were imported, one event a batch."""
    lake = ModelLake()
    for event in events:
        decision = lake.decide(event)
        assert isinstance(decision, Imported), decision
    return lake


def adopted(*events: Any) -> ModelLake:
    """A lake with a table that was imported and adopted."""
    lake = imported(*(events or (first(add("a"), add("b")),)))
    last = lake.heads[1]["version"]
    decision = lake.decide(one(last + 1, PROTOCOL, kind="ADOPTION"))
    assert isinstance(decision, Imported)
    return lake


def row(lake: ModelLake, table: str, **where: Any) -> dict[str, Any]:
    """The one row like this."""
    (found,) = [r for r in lake.rows[table] if all(r[name] == value for name, value in where.items())]
    return found


def reason(lake: ModelLake, event: Any) -> Reason:
    """Why an event is refused."""
    return Reason(rejected(lake.decide(event)).reason)


class TestVersions:
    def test_a_version_is_kept_as_it_was(self) -> None:
        """Its number, its time, every field of every action; it is no commit of the lake."""
        more = {"tags": {"k": "v"}, "baseRowId": 4, "defaultRowCommitVersion": 2, "clusteringProvider": "liquid"}
        vector = {
            "storageType": "u",
            "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^",
            "offset": 4,
            "sizeInBytes": 40,
            "cardinality": 6,
            "maxRowIndex": 8,
        }
        lake = imported(
            first(
                add("p", **more, deletionVector=vector, unknown=[1], partitionValues={"b": "1", "a": None}),
                ("txn", {"appId": "app", "version": 3, "lastUpdated": 9, "x": 1}),
                ("domainMetadata", {"domain": "d", "configuration": "{}", "removed": False}),
                ("cdc", {"path": "_change_data/c", "partitionValues": {}, "size": 5, "dataChange": False, "tags": {}}),
                ("someday", {"any": ["thing"]}),
                ("protocol", {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["unheardOf"], "y": 1}),
            )
        )

        assert row(lake, "dl_tables") == {
            "table_no": 1,
            "table_id": IMPORT_ID,
            "name": NAME,
            "location": LOCATION,
            "state": "IMPORTING",
            "created_seq": None,
            "dropped_seq": None,
            "first_version": 0,
            "slot_columns": '[["id"]]',
        }
        file = row(lake, "dl_live_files")
        assert (file["tags"], file["base_row_id"], file["default_row_commit_version"]) == ('{"k":"v"}', 4, 2)
        assert (file["clustering_provider"], file["extra"]) == ("liquid", '{"unknown":[1]}')
        assert (file["partition_values"], file["num_records"]) == ('{"a":null,"b":"1"}', 10)
        assert (file["min1"], file["max1"]) == (1, 7)
        assert (file["dv_id"], file["dv_cardinality"]) == ("uab^-aqEH.-t@S}K{vb[*k^@4", 6)
        assert row(lake, "dl_txn_actions")["extra"] == '{"x":1}'
        assert row(lake, "dl_domain_metadata")["configuration"] == "{}"
        assert row(lake, "dl_cdc_files")["path"] == "_change_data/c"
        assert row(lake, "dl_other_actions")["body"] == '{"any": ["thing"]}'
        assert row(lake, "dl_protocol_updates")["extra"] == '{"y":1}'
        assert lake.rows["dl_commits"] == []
        assert (lake.heads[1]["version"], lake.heads[1]["commit_seq"]) == (0, None)

    def test_a_commit_info_goes_to_columns_and_the_rest_stays(self) -> None:
        """What has not the type of its column stays verbatim too; a version without one has none."""
        told = {
            "timestamp": 12,
            "inCommitTimestamp": 13,
            "operation": "MERGE",
            "operationParameters": {"predicate": "[]", "n": 1},
            "readVersion": "three",
            "isBlindAppend": True,
            "engineInfo": "Spark",
            "txnId": "t",
            "userMetadata": {"not": "text"},
            "clusterId": "c",
        }
        lake = imported(first(), version(1, [("commitInfo", told)])[0], version(2, [add("a")])[0])

        found = row(lake, "dl_table_versions", version=1)
        assert (found["operation"], found["txn_id"], found["is_blind_append"]) == ("MERGE", "t", True)
        assert msgspec.json.decode(found["operation_parameters"]) == told["operationParameters"]
        assert (found["read_version"], found["user_metadata"]) == (None, None)
        left = {"timestamp", "inCommitTimestamp", "readVersion", "userMetadata", "clusterId"}
        assert msgspec.json.decode(found["commit_info"]) == {name: told[name] for name in left}
        assert (found["time_ms"], found["file_time_ms"]) == (BEGIN_MS + 1000, BEGIN_MS)
        assert (found["origin"], found["commit_seq"]) == ("IMPORTED", None)
        assert row(lake, "dl_table_versions", version=2)["commit_info"] is None

    def test_numbers_that_are_too_large_stay_text(self) -> None:
        """Nobody's number stops the lake once it is decided."""
        body = '{"readVersion":1e400,"isBlindAppend":1e400,"operation":"W","later":1e400}'
        lake = imported(first(("add", '{"path":"a","x":1e400}')), version(1, [("commitInfo", body)])[0])

        found = row(lake, "dl_table_versions", version=1)
        assert (found["read_version"], found["is_blind_append"], found["operation"]) == (None, None, "W")
        assert found["commit_info"] == '{"readVersion":1e400,"isBlindAppend":1e400,"later":1e400}'
        assert row(lake, "dl_live_files")["extra"] == '{"x":1e400}'

    def test_every_version_is_answered_and_decided_once(self) -> None:
        """The same event again gives the first answer, another content under its id none at all."""
        lake = imported(first(add("a")))

        again = lake.decide(first(add("a")))
        other = lake.decide(first(add("b")))

        assert isinstance(again, Answer)
        assert again.outcome.committed is not None
        assert again.outcome.committed.tables[0].version == 0
        assert rejected(other).reason == Reason.CONTENT_MISMATCH
        assert lake.live(NAME) == {("a", "")}

    def test_versions_come_without_gaps_and_in_order(self) -> None:
        """What is not the next version is refused, and changes nothing."""
        lake = imported(first(), one(1))

        assert reason(lake, one(3)) == Reason.IMPORT_GAP
        assert reason(lake, one(1, attempt=1)) == Reason.IMPORT_GAP
        assert reason(lake, one(2, time_ms=BEGIN_MS + 1000)) == Reason.INVALID_ACTION
        assert reason(ModelLake(), one(1, PROTOCOL, metadata())) == Reason.IMPORT_GAP
        assert reason(ModelLake(), one(1, PROTOCOL, metadata(), kind="ADOPTION")) == Reason.IMPORT_GAP
        assert lake.heads[1]["version"] == 1

    def test_a_refused_version_can_be_sent_again_in_another_attempt(self) -> None:
        """What was refused for ever is the id, not the version."""
        lake = imported(first())
        ahead = {"time_ms": START_MS + 5000}
        assert reason(lake, one(1, **ahead)) == Reason.TIME_AHEAD

        again = lake.decide(one(1, **ahead, attempt=1), at=START_MS + 4000)

        assert isinstance(again, Imported)
        assert lake.heads[1]["version"] == 1

    @pytest.mark.parametrize("missing", [PROTOCOL, metadata()])
    def test_a_first_version_needs_protocol_and_metadata(self, missing: Any) -> None:
        """Without one of them there is no table that anybody could read."""
        lake = ModelLake()
        (event,) = version(0, [body for body in (PROTOCOL, metadata(), add("a")) if body != missing])

        assert reason(lake, event) == Reason.INVALID_ACTION
        assert lake.rows["dl_tables"] == []


class TestFiles:
    def test_removes_end_files_and_are_kept_as_they_came(self) -> None:
        """One of a file that is not live is a row like any other, and ends nothing."""
        lake = imported(first(add("a"), add("b")), one(1, remove("a"), remove("nothing")))

        assert lake.live(NAME) == {("b", "")}
        assert [(r["path"], r["removed_version"]) for r in lake.past] == [("a", 1)]
        assert [r["path"] for r in lake.rows["dl_remove_files"]] == ["a", "nothing"]
        assert row(lake, "dl_remove_files", path="a")["deletion_timestamp"] == 3
        assert row(lake, "dl_remove_files", path="a")["size"] is None
        assert (lake.heads[1]["live_files"], lake.heads[1]["live_bytes"]) == (1, 100)

    @pytest.mark.parametrize(
        ("added", "removed"),
        [
            ("p=a%20b/f", "p=a b/f"),
            ("p=a b/f", "p=a%20b/f"),
            (f"{LOCATION}/f", "f"),
            ("f", f"{LOCATION}/f"),
            ("file:/x/f", "/x/f"),
            ("s3a://b/f", "s3://b/f"),
            ("./f", "f"),
        ],
    )
    def test_a_remove_finds_its_file_by_another_spelling(self, added: str, removed: str) -> None:
        """As Spark does: some writers encode a path in another way when they remove it."""
        apart = imported(first(add(added), add("other")), one(1, remove(removed)))
        together = imported(first(add(added), add("other"), remove(removed)))

        assert apart.live(NAME) == together.live(NAME) == {("other", "")}
        assert row(apart, "dl_remove_files")["path"] == removed

    def test_a_file_that_comes_again_takes_its_own_place(self) -> None:
        """Other statistics, another spelling: it is live once, with what came last."""
        lake = imported(first(add("a b")), one(1, add("a%20b", size=7)), one(2, add("a%20b", size=8)))

        assert [(r["path"], r["size"]) for r in lake.rows["dl_live_files"]] == [("a%20b", 8)]
        assert [(r["version"], r["removed_version"]) for r in lake.past] == [(0, 1), (1, 2)]
        assert (lake.heads[1]["live_files"], lake.heads[1]["live_bytes"]) == (1, 8)

    def test_the_last_action_of_a_version_counts(self) -> None:
        """In the order of the file, also where a version takes back what it did."""
        lake = imported(first(add("a"), remove("a"), add("b"), add("b", size=3), remove("c"), add("c")))

        assert lake.live(NAME) == {("b", ""), ("c", "")}
        assert [(r["n"], r["version"], r["removed_version"]) for r in lake.past] == [(0, 0, 0), (1, 0, 0)]
        assert row(lake, "dl_table_versions")["added_files"] == 4

    def test_what_others_left_out_or_wrote_otherwise_is_taken(self) -> None:
        """Missing fields have defaults, numbers may be texts, what does not fit its columns stays verbatim."""
        vector = {"storageType": "i", "pathOrInlineDv": "x", "sizeInBytes": "4", "cardinality": 1, "later": True}
        lake = imported(
            first(
                ("add", {"path": "bare"}),
                (
                    "add",
                    {"path": "texts", "size": "12", "modificationTime": "3", "partitionValues": None, "stats": "{"},
                ),
                ("add", {"path": "dv", "deletionVector": vector}),
                ("remove", {"path": "gone"}),
                metadata(id=None, format=None, configuration={"a": 1, "b": "two"}, partitionColumns=None),
            )
        )

        bare = row(lake, "dl_live_files", path="bare")
        assert (bare["size"], bare["partition_values"], bare["data_change"], bare["stats"]) == (0, "{}", True, None)
        texts = row(lake, "dl_live_files", path="texts")
        assert (texts["size"], texts["modification_time"], texts["stats"], texts["num_records"]) == (12, 3, "{", None)
        marked = row(lake, "dl_live_files", path="dv")
        assert marked["dv_size"] == 4
        assert msgspec.json.decode(marked["extra"])["deletionVector"] == vector
        assert row(lake, "dl_remove_files")["data_change"] is True
        data = row(lake, "dl_metadata_updates")
        assert msgspec.json.decode(data["configuration"]) == {"a": "1", "b": "two"}
        assert msgspec.json.decode(data["extra"])["configuration"] == {"a": 1, "b": "two"}

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (("add", {"size": 1}), Reason.INVALID_ACTION),
            (("add", {"path": "a", "stats": {"numRecords": 1}}), Reason.INVALID_ACTION),
            (("add", {"path": "a", "size": 2**63}), Reason.INVALID_ACTION),
            (("add", {"path": "a\0"}), Reason.INVALID_ACTION),
            (("add", {"path": ""}), Reason.INVALID_PATH),
            (("add", {"path": "../a"}), Reason.INVALID_PATH),
            (("remove", {"path": "x/%2e%2E/a"}), Reason.INVALID_PATH),
            (("add", {"path": "x" * 9_000}), Reason.INVALID_PATH),
            (("add", "[]"), Reason.INVALID_ACTION),
            (("add", '{"path":'), Reason.INVALID_ACTION),
            (("commitInfo", "7"), Reason.INVALID_ACTION),
            (("someday", "{"), Reason.INVALID_ACTION),
            (("someday", "[" * 100 + "]" * 100), Reason.INVALID_ACTION),
            (("add", '{"path":"a","x":' + "[" * 900 + "]" * 900 + "}"), Reason.INVALID_ACTION),
            (("commitInfo", '{"operation":' + "[" * 900 + "]" * 900 + "}"), Reason.INVALID_ACTION),
            (("txn", {"appId": "a" * 2_000, "version": 1}), Reason.INVALID_ACTION),
            (("domainMetadata", {"domain": "d\0", "configuration": ""}), Reason.INVALID_ACTION),
            (("metaData", {"id": "m", "schemaString": '{"type":"bigint"}'}), Reason.INVALID_SCHEMA),
            (("protocol", {"minReaderVersion": 4, "minWriterVersion": 7}), Reason.FEATURE_UNSUPPORTED),
        ],
    )
    def test_what_no_reader_takes_is_refused(self, body: Any, why: Reason) -> None:
        """The message names version and action; nothing is kept."""
        lake = imported(first())

        refused = rejected(lake.decide(one(1, body)))

        assert refused.reason == why
        assert "version 1" in refused.message
        assert refused.versions == (1,)
        assert lake.heads[1]["version"] == 0

    @pytest.mark.parametrize("feature", ["unheardOf", "catalogManaged", "geospatial"])
    def test_reader_features_that_we_do_not_know_are_refused(self, feature: str) -> None:
        """By name: what it means is not known, so nothing of the table can be read rightly."""
        body = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": [feature]}
        refused = rejected(ModelLake().decide(first(("protocol", body))))

        assert refused.reason == Reason.FEATURE_UNSUPPORTED
        assert feature in refused.message


class TestChunks:
    CHUNKS = (
        [info(), PROTOCOL, metadata(), add("a"), add("b")],
        [add("c"), remove("a"), ("txn", {"appId": "x", "version": 1})],
        [add("a"), ("someday", {}), remove("d")],
    )

    def test_chunks_make_the_version_that_one_chunk_makes(self) -> None:
        """Numbers go on, counts add up; files that a later chunk removes are gone."""
        whole = imported(*version(0, [body for chunk in self.CHUNKS for body in chunk]))
        parts = imported(*version(0, *self.CHUNKS))

        assert parts.live(NAME) == whole.live(NAME) == {("a", ""), ("b", ""), ("c", "")}
        for table in ("dl_tables", "dl_live_files", "dl_remove_files", "dl_table_versions", "dl_other_actions"):
            assert parts.rows[table] == whole.rows[table]
        assert parts.heads == whole.heads
        assert parts.past == whole.past
        assert parts.imports == {}

    def test_nobody_sees_a_version_before_its_last_chunk(self) -> None:
        """The head stays; its files are those whose version it has reached."""
        lake = imported(first(add("z")))
        begun = version(1, [add("a"), remove("z")], [info(), add("b")])
        lake.decide(begun[0])

        assert lake.heads[1]["version"] == 0
        assert [(r["path"], r["removed_version"]) for r in lake.past] == [("z", 1)]
        assert lake.imports[1]["chunks"] == 1
        assert len(lake.rows["dl_transactions"]) == 1

    def test_repeated_chunks_change_nothing_and_missing_ones_are_named(self) -> None:
        """An importer that was killed begins the version again."""
        lake = imported(*version(0, *self.CHUNKS)[:1])
        before = lake.digest()

        again = lake.decide(version(0, *self.CHUNKS)[0])
        early = rejected(lake.decide(version(0, *self.CHUNKS, attempt=1)[2]))

        assert isinstance(again, Nothing)
        assert (early.reason, "the next one is 1" in early.message) == (Reason.IMPORT_GAP, True)
        assert lake.digest()[:4] != before[:4]  # the refusal is recorded, and nothing else of it
        assert lake.imports[1]["chunks"] == 1
        rest = version(0, *self.CHUNKS)[1:]
        assert all(isinstance(lake.decide(event), Imported) for event in rest)
        assert lake.live(NAME) == {("a", ""), ("b", ""), ("c", "")}

    def test_chunks_of_another_content_are_refused(self) -> None:
        """Neither another chunk under the same number, nor bytes that the digest was not taken over."""
        lake = imported(*version(0, *self.CHUNKS)[:1])
        other = version(0, [*self.CHUNKS[0], add("more")], *self.CHUNKS[1:], attempt=1)
        assert reason(lake, other[1]) == Reason.CONTENT_MISMATCH

        forged = [
            msgspec.structs.replace(
                event,
                envelope=msgspec.structs.replace(event.envelope, digest=version(0, *self.CHUNKS)[0].envelope.digest),
            )
            for event in version(0, self.CHUNKS[0], [add("x")], self.CHUNKS[2], attempt=2)
        ]
        assert isinstance(lake.decide(forged[1]), Imported)
        assert reason(lake, forged[2]) == Reason.CONTENT_MISMATCH

    @pytest.mark.parametrize(
        "twice",
        [
            metadata(),
            PROTOCOL,
            ("txn", {"appId": "x", "version": 1}),
            ("domainMetadata", {"domain": "d", "configuration": "{}"}),
        ],
    )
    def test_a_version_says_once_what_has_one_row(self, twice: Any) -> None:
        """Of two in one chunk the last one counts, in two chunks they are refused."""
        (both,) = version(0, [PROTOCOL, metadata(), twice, twice])
        assert isinstance(ModelLake().decide(both), Imported)

        begun, rest = version(0, [PROTOCOL, metadata(), twice], [twice])
        assert reason(imported(begun), rest) == Reason.INVALID_ACTION

    def test_a_cancelled_version_goes_on_in_another_attempt(self) -> None:
        """From the chunk that it had come to."""
        events = version(0, *self.CHUNKS)
        lake = imported(events[0])
        lake.decide(cancel(events[0].envelope.txn_id))
        assert isinstance(lake.decide(events[1]), Answer)

        rest = version(0, *self.CHUNKS, attempt=1)
        assert isinstance(lake.decide(rest[0]), Nothing)
        assert all(isinstance(lake.decide(event), Imported) for event in rest[1:])


class TestBaseline:
    def test_a_baseline_is_the_oldest_version_that_can_be_read(self) -> None:
        """With all its state: live files, tombstones, transactions, domains."""
        lake = imported(
            one(
                7,
                *(PROTOCOL, metadata(), add("a"), remove("gone"), ("txn", {"appId": "x", "version": 2})),
                kind="BASELINE",
            ),
            one(8, add("b")),
        )

        assert row(lake, "dl_tables")["first_version"] == 7
        assert [r["origin"] for r in lake.rows["dl_table_versions"]] == ["BASELINE", "IMPORTED"]
        assert lake.live(NAME) == {("a", ""), ("b", "")}

    def test_history_is_kept_and_never_live(self) -> None:
        """What was before the baseline has its rows; no version of the table shows a file of it."""
        lake = imported(
            one(5, add("a"), ("txn", {"appId": "old", "version": 1}), kind="HISTORY"),
            one(6, remove("a"), metadata(schema(("x", "string"))), kind="HISTORY"),
        )
        assert lake.live(NAME) == set()
        assert row(lake, "dl_tables")["first_version"] == 7
        assert lake.heads[1]["metadata_version"] == -1

        baseline = one(7, PROTOCOL, metadata(), add("b"), kind="BASELINE")
        assert isinstance(lake.decide(baseline), Imported)
        lake.decide(one(8, add("a", stats=None)))

        assert [(r["path"], r["version"], r["removed_version"]) for r in lake.past] == [("a", 5, 5)]
        assert lake.live(NAME) == {("a", ""), ("b", "")}
        assert [r["origin"] for r in lake.rows["dl_table_versions"]] == ["HISTORY"] * 2 + ["BASELINE", "IMPORTED"]
        assert row(lake, "dl_tables")["first_version"] == 7
        assert row(lake, "dl_tables")["slot_columns"] == '[["id"]]'

    def test_a_baseline_comes_next_after_history_and_never_again(self) -> None:
        """Nor does history after it."""
        lake = imported(one(5, add("a"), kind="HISTORY"))
        full = (PROTOCOL, metadata())
        assert reason(lake, one(7, *full, kind="BASELINE")) == Reason.IMPORT_GAP
        assert reason(lake, one(6, *full)) == Reason.IMPORT_GAP
        lake.decide(one(6, *full, kind="BASELINE", attempt=1))
        assert reason(lake, one(7, *full, kind="BASELINE", attempt=1)) == Reason.IMPORT_GAP
        assert reason(lake, one(7, kind="HISTORY", attempt=2)) == Reason.IMPORT_GAP
        assert isinstance(lake.decide(one(7, attempt=3)), Imported)


class TestTables:
    def test_a_table_that_is_imported_takes_part_in_no_transaction(self) -> None:
        """Until it is adopted its versions have no place in the lake's order."""
        lake = imported(first(add("a")))
        assert lake.reject(append("b", name=NAME)).reason == Reason.TABLE_READ_ONLY
        assert lake.reject(TableWork(name=NAME, read_version=0)).reason == Reason.TABLE_READ_ONLY
        history = imported(one(5, add("a"), kind="HISTORY"))
        assert history.reject(append("b", name=NAME)).reason == Reason.TABLE_READ_ONLY
        assert history.reject(TableWork(name=NAME, read_version=5)).reason == Reason.TABLE_READ_ONLY

    def test_an_adoption_is_a_commit(self) -> None:
        """Of the lake, at its own T, while the version keeps the time that its bytes say; from then on anybody writes."""
        lake = imported(first(add("a"), add("b"), attempt=0))
        own = lake.decide(one(1, PROTOCOL, kind="ADOPTION", time_ms=START_MS + 900))

        assert isinstance(own, Imported)
        assert isinstance(own.decided, Commit)
        assert row(lake, "dl_tables")["state"] == "ACTIVE"
        assert row(lake, "dl_tables")["created_seq"] == 1
        assert row(lake, "dl_commits")["time_ms"] == START_MS + 900
        adopted = row(lake, "dl_table_versions", version=1)
        assert (adopted["commit_seq"], adopted["time_ms"], adopted["origin"]) == (1, START_MS + 900, "ADOPTED")
        assert [r.stream for r in lake.outbox if r.position == 1] == ["commits", "outcomes"]

        commit = lake.commit(
            TableWork(name=NAME, read_version=1, adds=(works.add("c"),), removes=works.remove("a").removes)
        )
        assert commit.changes[0].version == 2
        assert commit.time_ms > START_MS + 900
        assert lake.live(NAME) == {("b", ""), ("c", "")}

    def test_an_application_goes_on_from_what_it_had_written_elsewhere(self) -> None:
        """A transaction of it that the imported table has already is not done again."""
        lake = adopted(first(("txn", {"appId": "nightly", "version": 7})))

        refused = lake.reject(append("x", name=NAME), apps=(AppTransaction("nightly", 7),))
        lake.commit(append("x", name=NAME), apps=(AppTransaction("nightly", 8),))

        assert (refused.reason, refused.versions) == (Reason.CONCURRENT_TRANSACTION, (0,))

    def test_t_of_an_adoption_never_goes_back(self) -> None:
        """The lake's time rises, also where the version's own is long past."""
        lake = imported(first())
        lake.commit(create("mine"), at=START_MS + 50_000)
        lake.decide(one(1, kind="ADOPTION"))

        assert [r["time_ms"] for r in lake.rows["dl_commits"]] == [START_MS + 50_000, START_MS + 50_000]
        assert row(lake, "dl_table_versions", table_no=1, version=1)["time_ms"] == BEGIN_MS + 1000

    def test_a_finished_import_takes_no_more(self) -> None:
        """Only foreign commits are adopted later, each as the very next version with a commit of its own."""
        lake = adopted()
        assert reason(lake, one(2)) == Reason.IMPORT_FINISHED
        assert reason(lake, one(3, kind="ADOPTION")) == Reason.IMPORT_GAP

        later = lake.decide(one(2, add("c"), kind="ADOPTION", attempt=1))

        assert isinstance(later, Imported)
        assert isinstance(later.decided, Commit)
        assert (later.decided.commit_seq, row(lake, "dl_tables")["created_seq"]) == (2, 1)

    def test_a_foreign_commit_in_chunks_keeps_others_out_until_it_is_whole(self) -> None:
        """Nobody's version comes between its chunks."""
        lake = adopted()
        begun, rest = version(2, [info(), add("c")], [add("d")], kind="ADOPTION")
        lake.decide(begun)
        assert lake.reject(append("x", name=NAME)).reason == Reason.TABLE_READ_ONLY

        lake.decide(rest)

        assert lake.live(NAME) == {("a", ""), ("b", ""), ("c", ""), ("d", "")}
        assert isinstance(lake.decide(staged(append("x", name=NAME))), Commit)

    @pytest.mark.parametrize(
        ("other", "why"),
        [
            ({"location": "file:///elsewhere/other"}, Reason.IMPORT_UNDER_WAY),
            ({"table_name": "another"}, Reason.IMPORT_UNDER_WAY),
            ({"table_name": "another", "location": f"{LOCATION}/below"}, Reason.IMPORT_UNDER_WAY),
            ({"table_name": "another", "location": "file:///elsewhere"}, Reason.IMPORT_UNDER_WAY),
            ({"table_name": "another", "location": "file:///x/mine/y"}, None),
            ({"table_name": "mine", "location": "file:///x"}, Reason.TABLE_EXISTS),
            ({"table_name": "another", "location": "s3://bucket/lake/mine"}, Reason.INVALID_PATH),
            ({"table_name": "another", "location": "s3://bucket/lake"}, Reason.INVALID_PATH),
            ({"table_name": "another", "location": "s3://bucket"}, Reason.INVALID_PATH),
            ({"table_name": "another", "location": "data/x"}, Reason.INVALID_PATH),
            ({"table_name": "no name", "location": "file:///x"}, Reason.INVALID_ACTION),
        ],
    )
    def test_every_table_has_a_name_and_a_place_of_its_own(self, other: dict[str, str], why: Reason | None) -> None:
        """None inside another's, one import at a time."""
        lake = imported(first())
        lake.commit(create("mine"))
        event = first(import_id=txn(77), **other)

        if why is None:
            assert isinstance(lake.decide(event), Imported)
        else:
            assert reason(lake, event) == why

    @pytest.mark.parametrize(
        "location",
        [
            "s3a://bucket/lake/mine",
            "s3n://bucket/lake//mine/",
            "s3://bucket/lake/./mine",
            "S3://bucket/lake/%6dine/below",
            "s3://bucket/x/../lake",
            "s3a://bucket",
            "file://localhost/elsewhere/old",
            "file:////elsewhere//old/./below",
            "file:///elsewhere/other/../old",
            "file:///elsewher%65",
            "file:///elsewhere/old?x",
        ],
    )
    def test_no_spelling_makes_a_place_another_one(self, location: str) -> None:
        """A table does not come into another's folder, or around it, by a URI that is written otherwise."""
        lake = imported(first())
        lake.commit(create("mine"))

        assert reason(lake, first(import_id=txn(77), table_name="another", location=location)) in (
            Reason.IMPORT_UNDER_WAY,
            Reason.INVALID_PATH,
        )

    @pytest.mark.parametrize("location", ["s3://copies/lake/t", "s3a://copies", "s3n://copies//lake/"])
    def test_no_table_is_imported_from_where_a_mirror_publishes(self, location: str) -> None:
        """The mirror would write the log of one table into that of another; once the target is removed it may be, and
        then the target does not come back."""
        lake = ModelLake()
        copies = {"kind": "copy", "root": "s3://copies/lake"}
        lake.decide(control(LakeAction(action="target-add", target="c", parameters=copies)))

        assert reason(lake, first(location=location)) == Reason.INVALID_PATH

        lake.decide(control(LakeAction(action="target-remove", target="c")))
        assert isinstance(lake.decide(first(import_id=txn(78), location=location)), Imported)
        back = lake.decide(control(LakeAction(action="target-add", target="c", parameters=copies)))
        assert rejected(back).reason == Reason.INVALID_PATH

    def test_another_spelling_is_the_same_import(self) -> None:
        """The next version may name the place otherwise, as long as it is the place."""
        lake = imported(first())

        assert isinstance(lake.decide(one(1, add("b"), location="file://localhost/elsewhere/./old/")), Imported)

    def test_an_import_keeps_its_name_and_place(self) -> None:
        """Another one under the same id is a mistake of whoever sends it."""
        lake = imported(first())

        assert reason(lake, one(1, location="file:///moved")) == Reason.LOCATION_CHANGED
        assert reason(lake, one(1, table_name="renamed", attempt=1)) == Reason.LOCATION_CHANGED

    def test_features_that_we_cannot_write_make_it_read_only(self) -> None:
        """It is imported and adopted all the same."""
        body = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["unheardOf"]}
        lake = imported(first(("protocol", body)))
        lake.decide(one(1, kind="ADOPTION"))

        refused = lake.reject(append("x", name=NAME))

        assert (refused.reason, "unheardOf" in refused.message) == (Reason.FEATURE_UNSUPPORTED, True)

    def test_who_read_an_imported_version_is_checked_against_what_came(self) -> None:
        """What another log brought is taken to change everything: read again, then it goes."""
        lake = adopted()
        lake.decide(one(2, add("c"), kind="ADOPTION"))
        work = TableWork(name=NAME, read_version=1, read_set=ReadSet(whole_table=True), adds=(works.add("x"),))

        assert lake.reject(work).reason == Reason.READ_TOO_OLD
        again = TableWork(name=NAME, read_version=2, read_set=ReadSet(whole_table=True), adds=(works.add("x"),))
        assert isinstance(lake.decide(staged(again)), Commit)


class TestLakeActions:
    def act(self, lake: ModelLake, action: str, **fields: Any) -> Any:
        return lake.decide(control(LakeAction(action=action, **fields)))

    def test_a_released_table_has_a_last_version_without_the_fence(self) -> None:
        """Others write it from there on; here it is read-only."""
        lake = ModelLake()
        lake.commit(create("orders", works.ID, works.add("a")))

        released = self.act(lake, "release", table="orders")

        assert isinstance(released, Commit)
        assert released.outcome.committed is not None
        assert released.outcome.committed.tables[0].version == 1
        protocol = released.changes[0].protocol
        assert protocol is not None
        assert protocol.writer_features is not None
        assert FENCE_FEATURE not in protocol.writer_features
        assert row(lake, "dl_tables")["state"] == "RELEASED"
        assert lake.reject(append("b")).reason == Reason.TABLE_READ_ONLY
        assert isinstance(self.act(lake, "release", table="orders"), Accepted)
        assert lake.commit_seq == 2

    def test_a_table_without_a_fence_is_released_too(self) -> None:
        """Its last version says nothing but that."""
        lake = adopted()
        released = self.act(lake, "release", table=NAME)

        assert isinstance(released, Commit)
        assert (released.changes[0].protocol, released.changes[0].version) == (None, 2)

    def test_a_table_that_is_imported_cannot_be_released(self) -> None:
        """There is nothing of ours in it yet."""
        refused = rejected(self.act(imported(first()), "release", table=NAME))
        assert refused.reason == Reason.TABLE_READ_ONLY

    def test_a_dropped_import_can_be_begun_again(self) -> None:
        """Under another id, at the same place; the old one is over."""
        lake = imported(*version(0, *TestChunks.CHUNKS)[:2])
        assert isinstance(self.act(lake, "drop", table=NAME), Accepted)

        assert lake.imports == {}
        assert reason(lake, version(0, *TestChunks.CHUNKS)[2]) == Reason.UNKNOWN_TABLE
        assert isinstance(lake.decide(first(import_id=txn(77))), Imported)

    def test_a_dropped_table_gives_its_name_away(self) -> None:
        """At a commit of the lake: snapshots before it have the table."""
        lake = ModelLake()
        lake.commit(create("orders"))
        dropped = self.act(lake, "drop", table="orders")

        assert isinstance(dropped, Commit)
        assert row(lake, "dl_tables")["dropped_seq"] == 2
        assert lake.reject(append("a")).reason == Reason.UNKNOWN_TABLE
        again = lake.commit(create("orders"))
        assert again.changes[0].table.location.endswith("/orders-2")

    def test_targets_come_pause_and_go(self) -> None:
        """The newest state of each is in SQL; what is so already changes nothing."""
        lake = ModelLake()
        copy = {"kind": "copy", "root": "s3://other/copy"}
        for action, state in (
            ("target-add", "ACTIVE"),
            ("target-pause", "PAUSED"),
            ("target-resume", "ACTIVE"),
            ("target-remove", "REMOVED"),
            ("target-add", "ACTIVE"),
            ("target-add", "ACTIVE"),
        ):
            decision = self.act(lake, action, target="c", parameters=copy if action == "target-add" else {})
            assert isinstance(decision, Accepted)
            assert lake.targets["c"] == ("c", "copy", "s3://other/copy", state, 0)

        paused = self.act(lake, "target-pause", target="in-place")
        assert isinstance(paused, Accepted)
        assert lake.targets["in-place"].state == "PAUSED"

    @pytest.mark.parametrize(
        ("name", "parameters", "why"),
        [
            ("c", {"kind": "in-place", "root": "s3://x/y"}, Reason.INVALID_ACTION),
            ("c", {"kind": "copy", "root": "s3://bucket/lake/copy"}, Reason.INVALID_PATH),
            ("c", {"kind": "copy", "root": "s3://bucket"}, Reason.INVALID_PATH),
            ("c", {"kind": "copy", "root": "folder"}, Reason.INVALID_PATH),
            ("c", {"kind": "copy"}, Reason.INVALID_PATH),
            ("c", {"kind": "copy", "root": "s3://x/y", "z": ""}, Reason.INVALID_ACTION),
            ("../c", {"kind": "copy", "root": "s3://x/y"}, Reason.INVALID_ACTION),
            ("there", {"kind": "copy", "root": "s3://x/y"}, Reason.TABLE_EXISTS),
            ("d", {"kind": "copy", "root": "s3://there/below"}, Reason.INVALID_PATH),
            ("d", {"kind": "copy", "root": "s3a://there//below"}, Reason.INVALID_PATH),
            ("d", {"kind": "copy", "root": "s3n://bucket/x/../lake"}, Reason.INVALID_PATH),
        ],
    )
    def test_targets_that_cannot_be_are_refused(self, name: str, parameters: dict[str, str], why: Reason) -> None:
        """A target has a name, a kind and a root of its own."""
        lake = ModelLake()
        self.act(lake, "target-add", target="there", parameters={"kind": "replica", "root": "s3://there"})

        assert rejected(self.act(lake, "target-add", target=name, parameters=parameters)).reason == why

    @pytest.mark.parametrize("action", ["target-pause", "target-resume", "target-remove", "release", "drop"])
    def test_actions_on_nothing_are_refused(self, action: str) -> None:
        """What is not there cannot change."""
        refused = rejected(self.act(ModelLake(), action, table="nothing", target="nothing"))
        assert refused.reason in (Reason.INVALID_ACTION, Reason.UNKNOWN_TABLE)
