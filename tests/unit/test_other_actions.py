from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from deltalakedb.actions import RemoveFile
from deltalakedb.errors import Reason
from deltalakedb.events import AppTransaction, ReadSet, SetProperties, TableWork, WrittenAgainst
from deltalakedb.features import FENCE_FEATURE, ICT
from deltalakedb_committer.deciding.rules import rules
from tests.model_lake import ModelLake
from tests.works import ID, ID_DAY, add, append, create, field, other, relaxed, schema

DOMAINS = {"delta.feature.domainMetadata": "supported"}
CHANGE_FEED = "delta.enableChangeDataFeed"
WIDE = [
    field("id", "integer"),
    field("list", {"type": "array", "elementType": "integer", "containsNull": True}),
    field("day", "date"),
]
FEATURES = ["appendOnly", FENCE_FEATURE, "inCommitTimestamp", "invariants"]


def noted(at: str | None = None, old: str = "integer", new: str = "long") -> dict[str, Any]:
    """Metadata of a column that was widened."""
    change = {"fromType": old, "toType": new, **({} if at is None else {"fieldPath": at})}
    return {"delta.typeChanges": [change]}


def widened(name: str, old: str, new: str, at: str | None = None) -> dict[str, Any]:
    """A field that says that it was widened."""
    return field(name, new, metadata=noted(at, old, new))


def with_others(*actions: Any, **more: Any) -> TableWork:
    return TableWork(name="orders", others=tuple(actions), **more)


def metadata_of(lake: ModelLake, **changed: Any) -> dict[str, Any]:
    found = lake.table("orders").metadata
    assert found is not None
    return {
        "id": found.id,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": found.schema_string,
        "partitionColumns": list(found.partition_columns),
        "configuration": found.configuration,
        **changed,
    }


def protocol(features: list[str], **changed: Any) -> dict[str, Any]:
    return {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features, **changed}


def plain(**more: Any) -> ModelLake:
    lake = ModelLake()
    lake.commit(relaxed(**more))
    return lake


class TestKinds:
    @pytest.mark.parametrize(
        "action",
        [
            other("add", {}),
            other("remove", {}),
            other("cdc", {}),
            other("commitInfo", {}),
            other("sidecar", {"path": "../x"}),
            other("checkpointMetadata", {}),
            other("no kind", {}),
            other("", {}),
            other("x" * 65, {}),
            other("later", "[]"),
            other("later", "junk"),
            other("later", '{"a":1,"a":2}'),
            other("txn", {"appId": "a"}),
            other("txn", {"appId": "a", "version": "1"}),
            other("txn", {"appId": "a", "version": 2**63}),
            other("txn", {"appId": "", "version": 1}),
            other("txn", {"appId": "a\0", "version": 1}),
            other("txn", {"appId": "a" * 256, "version": 1}),
            other("domainMetadata", {"domain": "x"}),
            other("protocol", {}),
            other("metaData", {"id": 5}),
            other("metaData", {"format": {"provider": 5}}),
            other("metaData", {"format": []}),
        ],
    )
    def test_what_is_no_action_of_its_kind_is_refused(self, action: Any) -> None:
        """Or has its own place, or is the committer's to write."""
        assert plain().reject(with_others(action)).reason == Reason.INVALID_ACTION

    def test_unknown_actions_are_kept(self) -> None:
        """Verbatim, for readers that know them."""
        lake = plain()

        lake.commit(with_others(other("later", '{"b" : [1, 2]}')))

        assert lake.rows["dl_other_actions"][0]["kind"] == "later"
        assert lake.rows["dl_other_actions"][0]["body"] == '{"b" : [1, 2]}'

    def test_their_size_and_depth_are_bounded(self) -> None:
        """Before they are parsed."""
        lake = plain()

        assert lake.reject(with_others(other("later", '{"a":"' + "x" * 70_000 + '"}'))).reason == Reason.LIMIT_EXCEEDED
        assert lake.reject(with_others(other("txn", '{"a":' * 70 + "1" + "}" * 70))).reason == Reason.LIMIT_EXCEEDED


class TestTxn:
    def test_a_table_keeps_its_applications(self) -> None:
        """Each version above the last one of its application, in this table; the time is the commit's."""
        lake = plain()
        job = other("txn", {"appId": "job", "version": 5, "lastUpdated": 1, "later": True})

        commit = lake.commit(with_others(job))
        again, below = (
            lake.reject(with_others(job)),
            lake.reject(with_others(other("txn", {"appId": "job", "version": 4}))),
        )

        (txn,) = commit.changes[0].txns
        assert (txn.version, txn.last_updated, txn.rest) == (5, commit.time_ms, '{"later":true}')
        assert again.reason == below.reason == Reason.CONCURRENT_TRANSACTION
        assert lake.commit(with_others(other("txn", {"appId": "job", "version": 6}))).changes[0].version == 2
        assert lake.accept(apps=(AppTransaction("job", 1),)).already_committed is False

    def test_one_application_once(self) -> None:
        """In the table's own actions, and together with those of the whole transaction."""
        lake = plain()
        five, six = (other("txn", {"appId": "job", "version": v}) for v in (5, 6))

        twice = lake.reject(with_others(five, six))
        mixed = lake.reject(with_others(five), apps=(AppTransaction("job", 6),))
        same = lake.commit(with_others(five), apps=(AppTransaction("job", 5),))

        assert twice.reason == mixed.reason == Reason.INVALID_ACTION
        assert [t.version for t in same.changes[0].txns] == [5]


class TestDomains:
    def test_domains_are_kept(self) -> None:
        """The newest configuration of each, removal included."""
        lake = plain(properties=DOMAINS)

        lake.commit(with_others(other("domainMetadata", {"domain": "a", "configuration": "{}", "removed": False})))
        before = dict(lake.table("orders").domains)
        lake.commit(with_others(other("domainMetadata", {"domain": "a", "configuration": "{}", "removed": True})))

        assert list(before) == ["a"]
        assert lake.table("orders").domains == {}

    @pytest.mark.parametrize("domain", ["delta.rowTracking", "delta.clustering", "", "a\0"])
    def test_the_systems_domains_are_the_systems(self, domain: str) -> None:
        """Clients have their own."""
        action = other("domainMetadata", {"domain": domain, "configuration": "{}", "removed": False})

        assert plain(properties=DOMAINS).reject(with_others(action)).reason == Reason.INVALID_ACTION

    def test_a_domain_once(self) -> None:
        """Which of the two would hold?"""
        action = other("domainMetadata", {"domain": "a", "configuration": "{}", "removed": False})

        assert plain(properties=DOMAINS).reject(with_others(action, action)).reason == Reason.INVALID_ACTION

    def test_the_feature_has_to_be_there(self) -> None:
        """By name."""
        action = other("domainMetadata", {"domain": "a", "configuration": "{}", "removed": False})

        refused = plain().reject(with_others(action))

        assert refused.reason == Reason.FEATURE_UNSUPPORTED
        assert "domainMetadata" in refused.message


class TestMetadata:
    def test_metadata_replaces_what_its_author_saw(self) -> None:
        """With the version it was made from; live files stay valid."""
        lake = plain(schema_string=ID)
        wider = schema(("id", "long"), ("more", "string"))
        action = other("metaData", metadata_of(lake, schemaString=wider, description="new", later=1))

        change = lake.commit(with_others(action, read_version=0)).changes[0]

        assert change.metadata is not None
        assert (change.metadata.schema_string, change.metadata.rest) == (wider, '{"later":1}')
        assert lake.commit(append("a")).changes[0].version == 2

    def test_an_older_base_is_a_conflict(self) -> None:
        """Somebody changed the metadata in between; without a base nothing can be said."""
        lake = plain()
        mine = other("metaData", metadata_of(lake, description="mine"))
        lake.commit(TableWork(name="orders", intents=(SetProperties(set={"a": "b"}),)))

        late = lake.reject(with_others(mine, read_version=0))
        by_files = lake.reject(with_others(mine, written_against=WrittenAgainst(0, 0)))
        baseless = lake.reject(with_others(mine))

        assert late.reason == by_files.reason == Reason.METADATA_CHANGED
        assert late.versions == (0, 1)
        assert baseless.reason == Reason.READ_VERSION_INVALID

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"id": "other"}, Reason.INVALID_ACTION),
            ({"format": {"provider": "orc", "options": {}}}, Reason.INVALID_ACTION),
            ({"format": {"provider": "parquet", "options": {"a": "b"}}}, Reason.INVALID_ACTION),
            ({"name": "a\0b"}, Reason.INVALID_ACTION),
            ({"description": "\0"}, Reason.INVALID_ACTION),
            ({"createdTime": 2**63}, Reason.INVALID_ACTION),
            ({"partitionColumns": []}, Reason.PARTITION_MISMATCH),
            ({"schemaString": "junk"}, Reason.INVALID_SCHEMA),
            ({"schemaString": schema(("id", "string"), ("day", "date"))}, Reason.INVALID_SCHEMA),
            ({"schemaString": schema(("day", "date"))}, Reason.INVALID_SCHEMA),
            ({"configuration": {}}, Reason.INVALID_ACTION),
            (
                {"configuration": {"delta.enableInCommitTimestamps": "true", "delta.appendOnly": "x"}},
                Reason.INVALID_ACTION,
            ),
            (
                {"configuration": {"delta.enableInCommitTimestamps": "true", "delta.enableDeletionVectors": "true"}},
                Reason.INVALID_ACTION,
            ),
            (
                {"configuration": {"delta.enableInCommitTimestamps": "true", "delta.enableIcebergCompatV2": "true"}},
                Reason.FEATURE_UNSUPPORTED,
            ),
            (
                {"configuration": {ICT: "true", "delta.enableIcebergWriterCompatV1": "true"}},
                Reason.FEATURE_UNSUPPORTED,
            ),
            (
                {"configuration": {"delta.enableInCommitTimestamps": "true", "delta.enableRowTracking": "true"}},
                Reason.FEATURE_UNSUPPORTED,
            ),
            ({"configuration": {"delta.columnMapping.mode": "name"}}, Reason.FEATURE_UNSUPPORTED),
        ],
    )
    def test_metadata_that_cannot_be_is_refused(self, changed: dict[str, Any], reason: Reason) -> None:
        """Nothing the table stands on is pulled away, and no feature comes unlisted."""
        lake = ModelLake()
        lake.commit(create("orders", ID_DAY, add("a", partition_values={"day": None}), by=("day",)))
        action = other("metaData", metadata_of(lake, **changed))

        assert lake.reject(with_others(action, read_version=0)).reason == reason

    @pytest.mark.parametrize(
        "changed",
        [
            {"delta.rowTrackingSuspended": "true"},
            {"delta.rowTracking.materializedRowIdColumnName": "id"},
            {"delta.columnMapping.maxColumnId": "9"},
            {"delta.inCommitTimestampEnablementVersion": "7"},
            {"delta.minReaderVersion": "3"},
            {"delta.feature.domainMetadata": "supported"},
        ],
    )
    def test_what_the_committer_sets_is_not_changed(self, changed: dict[str, str]) -> None:
        """Rows without ids where they are tracked, or readers sent to the wrong column: it is kept as it is, or refused;
        taken out it is no less changed."""
        lake = plain(properties={"delta.enableRowTracking": "true"})
        found = metadata_of(lake)["configuration"]
        without = {key: value for key, value in found.items() if not key.startswith("delta.rowTracking.")}

        for configuration in (found | changed, without):
            action = other("metaData", metadata_of(lake, configuration=configuration))
            refused = lake.reject(with_others(action, read_version=0))
            assert refused.reason == Reason.INVALID_ACTION
            assert min(configuration.keys() ^ found.keys(), default=min(changed)) in refused.message
        lake.commit(with_others(other("metaData", metadata_of(lake, description="new")), read_version=0))

    def test_an_emptied_table_may_get_another_schema(self) -> None:
        """All its files go with the same version."""
        lake = plain(schema_string=ID)
        lake.commit(append("a"))
        action = other("metaData", metadata_of(lake, schemaString=schema(("name", "string"))))

        kept = lake.reject(with_others(action, read_version=1))
        commit = lake.commit(with_others(action, read_version=1, removes=(RemoveFile(path="a"),)))

        assert kept.reason == Reason.INVALID_SCHEMA
        assert commit.changes[0].live_files == 0

    @pytest.mark.parametrize(
        ("column", "reason"),
        [
            (field("id", "long"), Reason.INVALID_SCHEMA),
            (widened("id", "integer", "long", at="element"), Reason.INVALID_SCHEMA),
            (field("id", "integer", metadata={"delta.columnMapping.physicalName": "x"}), Reason.INVALID_SCHEMA),
            (widened("id", "short", "integer"), Reason.INVALID_SCHEMA),
            (field("new", "long", metadata={"delta.columnMapping.id": 7}), Reason.INVALID_SCHEMA),
            (widened("new", "integer", "long"), Reason.INVALID_SCHEMA),
            (field("new", "void"), Reason.INVALID_SCHEMA),
            (field("new", {"type": "struct", "fields": [field("a;b", "long")]}), Reason.INVALID_SCHEMA),
            (field("_change_type", "string"), Reason.INVALID_SCHEMA),
            (field("list", {"type": "array", "elementType": "long", "containsNull": True}), Reason.INVALID_SCHEMA),
            (field("day", "timestamp_ntz"), Reason.PARTITION_MISMATCH),
        ],
    )
    def test_what_a_schema_says_of_files_is_true(self, column: dict[str, Any], reason: Reason) -> None:
        """Types, names and ids in files are what readers go by; new columns are what they would be by a wish of their own.
        Whether widening is enabled or not."""
        for enabled in ({}, {"delta.enableTypeWidening": "true"}):
            lake = plain(schema_string=schema(*WIDE), by=("day",), properties={CHANGE_FEED: "true", **enabled})
            lake.commit(append(add("a", partition_values={"day": None})))
            fields = [column if column["name"] == f["name"] else f for f in WIDE]
            changed = fields if column in fields else [*fields, column]
            action = other("metaData", metadata_of(lake, schemaString=schema(*changed)))

            assert lake.reject(with_others(action, read_version=1)).reason == reason

    def test_a_column_is_widened_as_by_a_wish(self) -> None:
        """Where that is enabled and noted, and the notes of earlier changes stay; without live files nothing needs to be."""
        wider = [
            widened("id", "integer", "long"),
            field("list", {"type": "array", "elementType": "long", "containsNull": True}, metadata=noted("element")),
            field("day", "date"),
        ]
        lake = plain(schema_string=schema(*WIDE), by=("day",), properties={"delta.enableTypeWidening": "true"})
        lake.commit(append(add("a", partition_values={"day": None})))
        action = other("metaData", metadata_of(lake, schemaString=schema(*wider)))

        commit = lake.commit(with_others(action, read_version=1))
        forgotten = schema(field("id", "long"), *wider[1:])
        late = lake.reject(with_others(other("metaData", metadata_of(lake, schemaString=forgotten)), read_version=2))
        emptied = lake.commit(
            with_others(
                other("metaData", metadata_of(lake, schemaString=forgotten)),
                removes=(RemoveFile(path="a"),),
                read_version=2,
            )
        )

        assert commit.changes[0].metadata is not None
        assert late.reason == Reason.INVALID_SCHEMA
        assert "delta.typeChanges" in late.message
        assert emptied.changes[0].live_files == 0

    def test_metadata_twice_or_beside_intents_is_refused(self) -> None:
        """One of them would be lost."""
        lake = plain()
        action = other("metaData", metadata_of(lake))
        intent = SetProperties(set={"a": "b"})

        twice = lake.reject(with_others(action, action, read_version=0))
        both = lake.reject(with_others(action, read_version=0, intents=(intent,)))
        created = lake.reject(TableWork(name="new", intents=create().intents, others=(action,)))

        assert twice.reason == both.reason == created.reason == Reason.INVALID_ACTION

    def test_limits(self) -> None:
        """Of schema and properties, as at creation."""
        lake = ModelLake(limits=replace(rules(1), max_schema_bytes=300, max_properties=2))
        lake.commit(create())
        many = {"delta.enableInCommitTimestamps": "true", "a": "", "b": ""}
        long = schema(*[(f"c{n}", "long") for n in range(9)])

        for changed in ({"configuration": many}, {"schemaString": long}):
            action = other("metaData", metadata_of(lake, **changed))
            assert lake.reject(with_others(action, read_version=0)).reason == Reason.LIMIT_EXCEEDED

    def test_a_mapped_table_is_changed_by_intents_only(self) -> None:
        """Ids and physical names are the committer's."""
        lake = plain(properties={"delta.columnMapping.mode": "name"})
        action = other("metaData", metadata_of(lake))

        assert lake.reject(with_others(action, read_version=0)).reason == Reason.FEATURE_UNSUPPORTED


class TestProtocol:
    def test_blind_appends_stand_against_a_reader_that_changes_the_metadata(self) -> None:
        """Also under WriteSerializable, as with Delta; against one that changes the protocol they do not."""
        lake = plain()
        read: dict[str, Any] = {"read_version": 0, "read_set": ReadSet(whole_table=True)}
        metadata = other("metaData", metadata_of(lake, description="new"))
        lake.commit(append("a"))

        refused = lake.reject(with_others(metadata, **read))
        commit = lake.commit(with_others(other("protocol", protocol([*FEATURES, "changeDataFeed"])), **read))

        assert refused.reason == Reason.CONCURRENT_APPEND
        assert commit.changes[0].protocol is not None

    def test_a_feature_is_added(self) -> None:
        """All that is there stays."""
        lake = plain()
        action = other("protocol", protocol([*FEATURES, "domainMetadata"]))

        change = lake.commit(with_others(action, read_version=0)).changes[0]

        assert change.protocol is not None
        assert change.protocol_version == 1
        assert "domainMetadata" in (change.protocol.writer_features or ())

    @pytest.mark.parametrize(
        ("action", "reason"),
        [
            (protocol(FEATURES, minReaderVersion=4), Reason.INVALID_ACTION),
            (protocol(FEATURES, minWriterVersion=8), Reason.INVALID_ACTION),
            (protocol(FEATURES, minReaderVersion=3), Reason.INVALID_ACTION),
            (protocol(FEATURES, readerFeatures=[]), Reason.INVALID_ACTION),
            ({"minReaderVersion": 3, "minWriterVersion": 2, "readerFeatures": []}, Reason.INVALID_ACTION),
            ({"minReaderVersion": 1, "minWriterVersion": 2, "writerFeatures": FEATURES}, Reason.INVALID_ACTION),
            ({"minReaderVersion": 1, "minWriterVersion": 2}, Reason.INVALID_ACTION),
            (protocol(FEATURES[1:]), Reason.INVALID_ACTION),
            (protocol([f for f in FEATURES if f != FENCE_FEATURE]), Reason.INVALID_ACTION),
            (protocol(FEATURES, minReaderVersion=3, readerFeatures=["deletionVectors"]), Reason.INVALID_ACTION),
            (protocol([*FEATURES, "deletionVectors"], minReaderVersion=3, readerFeatures=[]), Reason.INVALID_ACTION),
            (protocol([*FEATURES, "clustering"]), Reason.FEATURE_UNSUPPORTED),
            (
                protocol([*FEATURES, "catalogManaged"], minReaderVersion=3, readerFeatures=["catalogManaged"]),
                Reason.FEATURE_UNSUPPORTED,
            ),
        ],
    )
    def test_a_protocol_that_cannot_be_is_refused(self, action: dict[str, Any], reason: Reason) -> None:
        """Not one that exists, less than there is, or more than we can write."""
        assert plain().reject(with_others(other("protocol", action), read_version=0)).reason == reason

    def test_reader_versions_do_not_go_down(self) -> None:
        """Readers that needed to know something still do."""
        lake = plain()
        up = protocol(FEATURES, minReaderVersion=3, readerFeatures=[])
        lake.commit(with_others(other("protocol", up), read_version=0))

        refused = lake.reject(with_others(other("protocol", protocol(FEATURES)), read_version=1))

        assert refused.reason == Reason.INVALID_ACTION

    def test_an_older_base_is_a_conflict(self) -> None:
        """As with metadata."""
        lake = plain()
        action = other("protocol", protocol([*FEATURES, "domainMetadata"]))
        lake.commit(with_others(action, read_version=0))

        assert lake.reject(with_others(action, read_version=0)).reason == Reason.PROTOCOL_CHANGED
        assert lake.reject(with_others(action)).reason == Reason.READ_VERSION_INVALID
        assert lake.reject(with_others(action, action, read_version=1)).reason == Reason.INVALID_ACTION

    def test_an_old_protocol_implies_features(self) -> None:
        """A table that came with writer version 2 lists them once it is raised."""
        lake = plain()
        row = lake.rows["dl_protocol_updates"][0]
        row |= {"min_writer_version": 2, "writer_features": None}
        config = lake.rows["dl_metadata_updates"][0]
        config["configuration"] = "{}"

        change = lake.commit(
            TableWork(name="orders", intents=(SetProperties(set={"delta.enableChangeDataFeed": "true"}),))
        ).changes[0]

        assert change.protocol is not None
        assert change.protocol.writer_features == ("appendOnly", "changeDataFeed", "invariants")

    def test_a_table_with_a_feature_we_cannot_write_is_read_only(self) -> None:
        """By name of the feature; it can be read."""
        lake = plain()
        lake.rows["dl_protocol_updates"][0]["writer_features"] = json.dumps([*FEATURES, "icebergCompatV1"])

        refused = lake.reject(append("a"))
        lake.accept(TableWork(name="orders", read_version=0))

        assert refused.reason == Reason.FEATURE_UNSUPPORTED
        assert "icebergCompatV1" in refused.message


class TestRowTracking:
    def tracked(self) -> ModelLake:
        return plain(properties={"delta.enableRowTracking": "true", "delta.enableDeletionVectors": "true"})

    def ids(self, lake: ModelLake) -> dict[str, tuple[int, int]]:
        return {
            row["path"]: (row["base_row_id"], row["default_row_commit_version"]) for row in lake.rows["dl_live_files"]
        }

    def test_every_file_gets_row_ids_and_its_version(self) -> None:
        """Ranges do not overlap, and the high-water mark is in the table's domain."""
        lake = self.tracked()

        lake.commit(append(add("a", stats='{"numRecords":10}'), add("b", stats='{"numRecords":5}')))
        change = lake.commit(append(add("c", stats='{"numRecords":1}', rest='{"baseRowId":3,"x":1}'))).changes[0]

        assert self.ids(lake) == {"a": (0, 1), "b": (10, 1), "c": (15, 2)}
        assert [d.configuration for d in change.domains] == ['{"rowIdHighWaterMark":15}']
        assert lake.rows["dl_live_files"][2]["extra"] == '{"x":1}'

    def test_a_file_that_is_there_already_keeps_them(self) -> None:
        """Statistics or a deletion vector change, its rows do not; its remove carries them too."""
        from tests.works import vector

        lake = self.tracked()
        lake.commit(append(add("a", stats='{"numRecords":10}'), add("b", stats='{"numRecords":10}')))
        marked = add("b", stats='{"numRecords":10}', deletion_vector=vector())

        again = lake.commit(append(add("a", stats='{"numRecords":10,"later":1}', data_change=False))).changes[0]
        change = lake.commit(append(marked, removes=(RemoveFile(path="b"),))).changes[0]

        assert self.ids(lake) == {"a": (0, 1), "b": (10, 1)}
        assert again.domains == change.domains == ()
        assert msgspec.json.decode(change.removes[0].rest or "") == {"baseRowId": 10, "defaultRowCommitVersion": 1}

    def test_a_file_without_a_number_of_rows_is_refused(self) -> None:
        """How many ids would it take?"""
        assert self.tracked().reject(append("a")).reason == Reason.INVALID_ACTION

    def test_ids_do_not_run_out_silently(self) -> None:
        """Nor go on from a mark that cannot be read."""
        lake = self.tracked()

        most = lake.reject(append(*[add(p, stats='{"numRecords":9223372036854775807}') for p in "ab"]))
        lake.commit(append(add("a", stats='{"numRecords":10}')))
        lake.rows["dl_domain_metadata"][0]["configuration"] = "junk"
        unreadable = lake.reject(append(add("b", stats='{"numRecords":10}')))

        assert most.reason == Reason.LIMIT_EXCEEDED
        assert unreadable.reason == Reason.INVALID_ACTION
