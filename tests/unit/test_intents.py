from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deltalakedb.actions import AddFile, Metadata, Protocol
from deltalakedb.delta_types import StructType, parse_schema
from deltalakedb.errors import Reason
from deltalakedb.events import (
    AddColumn,
    DropColumn,
    Intent,
    RenameColumn,
    SetProperties,
    TableWork,
    WidenColumn,
)
from deltalakedb.features import FENCE_FEATURE
from deltalakedb.ids import table_id
from deltalakedb_committer.deciding.given_schema import check_given_schema
from deltalakedb_committer.deciding.refusal import Refused
from deltalakedb_committer.deciding.rules import rules
from deltalakedb_committer.deciding.schema_changes import widen_column
from tests.model_lake import ROOT, ModelLake
from tests.works import ID, ID_DAY, add, append, create, field, relaxed, schema

NESTED = schema(
    ("id", "long"),
    field("s", {"type": "struct", "fields": [field("a", "integer"), field("b", "string")]}),
    field("xs", {"type": "array", "elementType": "integer", "containsNull": True}),
    field("m", {"type": "map", "keyType": "string", "valueType": "short", "valueContainsNull": True}),
)
MAPPED = {"delta.columnMapping.mode": "name"}


def want(*intents: Intent) -> TableWork:
    return TableWork(name="orders", intents=intents)


def new_column(name: str, data_type: object = "string", **more: object) -> AddColumn:
    after = more.pop("after", None)
    parent = more.pop("parent", ())
    return AddColumn(field=json.dumps(field(name, data_type, **more)), after=after, parent=parent)  # type: ignore[arg-type]


def made(lake: ModelLake, *args: object, **kwargs: object) -> tuple[Metadata, Protocol]:
    """Create `orders`; its first metadata and protocol."""
    change = lake.commit(create("orders", *args, **kwargs)).changes[0]  # type: ignore[arg-type]
    assert change.metadata is not None
    assert change.protocol is not None
    return change.metadata, change.protocol


def day_file(path: str) -> AddFile:
    return add(path, partition_values={"day": "2024-01-01"})


def names(lake: ModelLake) -> list[str]:
    found = lake.table("orders").schema
    assert found is not None
    return [column.name for column in found.fields]


def current(lake: ModelLake) -> tuple[StructType, Metadata, Protocol]:
    table = lake.table("orders")
    assert table.schema is not None
    assert table.metadata is not None
    assert table.protocol is not None
    return table.schema, table.metadata, table.protocol


class TestCreate:
    def test_a_new_table_is_readable_by_everybody_and_written_by_us_alone(self) -> None:
        """Reader 1, writer 7 with three harmless features and the fence; in-commit timestamps from version 0 on."""
        lake = ModelLake()

        metadata, protocol = made(lake)

        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 7)
        assert protocol.reader_features is None
        assert protocol.writer_features == ("appendOnly", FENCE_FEATURE, "inCommitTimestamp", "invariants")
        assert metadata.configuration == {"delta.enableInCommitTimestamps": "true"}
        assert metadata.created_time == lake.time_ms
        assert metadata.name == "orders"

    def test_a_lake_without_fence_gives_none(self) -> None:
        """`--no-fence`."""
        _, protocol = made(ModelLake(fence=False))

        assert FENCE_FEATURE not in (protocol.writer_features or ())

    def test_ids_come_from_the_transaction(self) -> None:
        """Every replay gives the table the same ids, and its place in the directory."""
        lake = ModelLake()

        commit = lake.commit(create("orders"), create("a.items"))

        tables = [change.table for change in commit.changes]
        assert [t.table_id for t in tables] == [table_id(commit.txn_id, n) for n in ("orders", "a.items")]
        assert [t.table_no for t in tables] == [1, 2]
        assert [t.location for t in tables] == [f"{ROOT}/orders", f"{ROOT}/a.items"]
        assert [c.version for c in commit.changes] == [0, 0]

    def test_the_first_version_has_the_first_files(self) -> None:
        """Create by first append is one version."""
        lake = ModelLake()

        change = lake.commit(create("orders", ID_DAY, day_file("a"), by=("day",))).changes[0]

        assert (change.version, change.live_files, change.metadata is not None) == (0, 1, True)
        assert change.is_blind_append

    @pytest.mark.parametrize(("data_type", "feature"), [("timestamp_ntz", "timestampNtz"), ("variant", "variantType")])
    def test_a_type_that_readers_have_to_know_takes_reader_3(self, data_type: str, feature: str) -> None:
        """Listed for readers and for writers; deep inside as well."""
        array = {"type": "array", "elementType": data_type, "containsNull": True}

        _, protocol = made(ModelLake(), schema(("id", "long"), field("xs", array)))

        assert protocol.min_reader_version == 3
        assert protocol.reader_features == (feature,)
        assert feature in (protocol.writer_features or ())

    @pytest.mark.parametrize(
        ("name", "reader", "writer"),
        [
            ("delta.enableDeletionVectors", ("deletionVectors",), ("deletionVectors",)),
            ("delta.enableTypeWidening", ("typeWidening",), ("typeWidening",)),
            ("delta.enableChangeDataFeed", None, ("changeDataFeed",)),
            ("delta.enableRowTracking", None, ("rowTracking", "domainMetadata")),
            ("delta.appendOnly", None, ()),
        ],
    )
    def test_a_property_brings_its_feature(
        self, name: str, reader: tuple[str, ...] | None, writer: tuple[str, ...]
    ) -> None:
        """And what the feature depends on."""
        metadata, protocol = made(ModelLake(), properties={name: "true"})

        assert metadata.configuration[name] == "true"
        assert protocol.reader_features == reader
        assert set(writer) <= set(protocol.writer_features or ())

    def test_a_feature_can_be_asked_for_by_name(self) -> None:
        """It is listed, and is no property of the table."""
        metadata, protocol = made(ModelLake(), properties={"delta.feature.domainMetadata": "supported"})

        assert "domainMetadata" in (protocol.writer_features or ())
        assert list(metadata.configuration) == ["delta.enableInCommitTimestamps"]

    @pytest.mark.parametrize(
        ("properties", "feature"),
        [
            ({"delta.feature.catalogManaged": "supported"}, "catalogManaged"),
            ({"delta.feature.nobodysFeature": "supported"}, "nobodysFeature"),
            ({"delta.enableIcebergCompatV2": "true"}, "icebergCompatV2"),
            ({"delta.constraints.positive": "id > 0"}, "checkConstraints"),
            ({"delta.columnMapping.mode": "id"}, "columnMapping"),
        ],
    )
    def test_features_that_we_cannot_write_are_refused_by_name(self, properties: dict[str, str], feature: str) -> None:
        """At creation, where it can still be helped."""
        refused = ModelLake().reject(create(properties=properties))

        assert refused.reason == Reason.FEATURE_UNSUPPORTED
        assert feature in refused.message

    @pytest.mark.parametrize(
        ("metadata", "feature"),
        [
            ({"delta.invariants": "{}"}, "invariants"),
            ({"delta.generationExpression": "1"}, "generatedColumns"),
            ({"delta.identity.start": 1}, "identityColumns"),
            ({"CURRENT_DEFAULT": "1"}, "allowColumnDefaults"),
        ],
    )
    def test_expressions_in_columns_are_refused_by_feature(self, metadata: dict[str, object], feature: str) -> None:
        """Nobody here evaluates them for every row."""
        refused = ModelLake().reject(create(schema_string=schema(field("id", "long", metadata=metadata))))

        assert (refused.reason, feature in refused.message) == (Reason.FEATURE_UNSUPPORTED, True)

    @pytest.mark.parametrize(
        ("text", "by"),
        [
            ("not json", ()),
            ('{"type":"struct","fields":[]}', ()),
            ('"long"', ()),
            (schema(("id", "void")), ()),
            (schema(("a b", "long")), ()),
            (schema(("a", "long"), ("A", "long")), ()),
            (schema(field("a", "long", metadata={"delta.columnMapping.id": 1})), ()),
            (schema(field("a", "long", metadata={"delta.typeChanges": []})), ()),
            (ID, ("day",)),
            (ID, ("id",)),
            (ID_DAY, ("day", "day")),
            (schema(("id", "long"), ("b", "binary")), ("b",)),
            (schema(("id", "long"), field("s", json.loads(ID))), ("s",)),
        ],
    )
    def test_a_schema_that_makes_no_table_is_refused(self, text: str, by: tuple[str, ...]) -> None:
        """Not Delta's, not readable by all, or not to be partitioned like this."""
        assert ModelLake().reject(create(schema_string=text, by=by)).reason == Reason.INVALID_SCHEMA

    def test_columns_of_the_change_feed_are_refused_with_it(self) -> None:
        """`_change_type` belongs to the feed."""
        text = schema(("id", "long"), ("_change_type", "string"))

        assert (
            ModelLake().reject(create(schema_string=text, properties={"delta.enableChangeDataFeed": "true"})).reason
            == Reason.INVALID_SCHEMA
        )
        assert ModelLake().commit(create(schema_string=text)).commit_seq == 1

    @pytest.mark.parametrize(
        "properties",
        [
            {"delta.enableInCommitTimestamps": "false"},
            {"delta.appendOnly": "yes"},
            {"delta.isolationLevel": "Chaos"},
            {"delta.checkpointInterval": "0"},
            {"delta.feature.domainMetadata": "enabled"},
            {"delta.columnMapping.maxColumnId": "7"},
            {"delta.minReaderVersion": "3"},
            {"delta.rowTracking.materializedRowIdColumnName": "x"},
        ],
    )
    def test_properties_that_cannot_be_are_refused(self, properties: dict[str, str]) -> None:
        """Wrong values, and what only the committer sets."""
        assert ModelLake().reject(create(properties=properties)).reason == Reason.INVALID_ACTION

    @pytest.mark.parametrize(
        "name", ["", "a/b", "..", "a.b.c", "a b", "_deltalakedb", "_deltalakedb.json", "é", "x" * 256]
    )
    def test_a_name_that_is_no_folder_is_refused(self, name: str) -> None:
        """Nor one that the lake itself uses."""
        refused = ModelLake().reject(create(name))

        assert refused.reason == Reason.INVALID_ACTION

    def test_a_description_is_kept(self) -> None:
        """As metaData has it; NUL has no place in SQL."""
        metadata, _ = made(ModelLake(), description="All orders")

        assert metadata.description == "All orders"
        assert ModelLake().reject(create(description="a\0b")).reason == Reason.INVALID_ACTION

    def test_limits(self) -> None:
        """Of schema, properties and partition columns."""
        lake = ModelLake(
            limits=replace(
                rules(1), max_schema_bytes=300, max_properties=1, max_property_bytes=20, max_partition_columns=1
            )
        )
        wide = schema(*[(f"c{n}", "long") for n in range(20)])

        for work in (
            create(schema_string=wide),
            create(properties={"a": "1", "b": "2"}),
            create(properties={"a": "x" * 30}),
            create(schema_string=ID_DAY, by=("id", "day")),
        ):
            assert lake.reject(work).reason == Reason.LIMIT_EXCEEDED

    def test_deep_json_is_refused_before_it_is_parsed(self) -> None:
        """Whatever the machine's stack allows."""
        deep = '{"type":"array","containsNull":true,"elementType":' * 200 + '"long"' + "}" * 200

        assert ModelLake().reject(create(schema_string=deep)).reason == Reason.LIMIT_EXCEEDED


class TestCreateAgain:
    def test_an_equal_table_is_fine(self) -> None:
        """Nothing happens, and that is committed."""
        lake = ModelLake()
        lake.commit(create("orders", ID_DAY, by=("day",), properties={"delta.appendOnly": "true"}))

        assert lake.accept(create("orders", ID_DAY, by=("day",), properties={"delta.appendOnly": "true"})).tables == ()

    def test_two_first_appends_both_succeed(self) -> None:
        """The second is an append to the first one's table."""
        lake = ModelLake()
        lake.commit(create("orders", ID, add("a")))

        commit = lake.commit(create("orders", ID, add("b")))

        assert commit.changes[0].version == 1
        assert commit.changes[0].metadata is None
        assert lake.live("orders") == {("a", ""), ("b", "")}

    def test_a_first_append_whose_files_fit_succeeds(self) -> None:
        """The table has a column more, which may be null."""
        lake = ModelLake()
        lake.commit(create("orders", schema(("id", "long"), ("more", "string"))))

        assert lake.commit(create("orders", ID, add("b"))).changes[0].version == 1

    @pytest.mark.parametrize(
        "again",
        [
            create("orders", ID_DAY, if_absent=False),
            create("orders", ID),
            create("orders", schema(("id", "string"), ("day", "date"))),
            create("orders", schema(("id", "string"), ("day", "date")), add("b")),
            create("orders", ID_DAY, by=("day",)),
            create("orders", ID_DAY, properties={"x": "y"}),
            create("orders", ID_DAY, properties={"delta.feature.domainMetadata": "supported"}),
            create("orders", schema(("id", "long"), field("day", "date", nullable=False))),
        ],
    )
    def test_another_table_of_that_name_is_refused(self, again: TableWork) -> None:
        """Another schema, partitioning or property, files that do not fit; or any table, if it must be new."""
        lake = ModelLake()
        lake.commit(create("orders", ID_DAY))

        assert lake.reject(again).reason == Reason.TABLE_EXISTS

    def test_a_table_that_maps_columns_takes_no_first_append(self) -> None:
        """Its files have names that a writer who took it for absent cannot know."""
        lake = ModelLake()
        lake.commit(create(properties=MAPPED))

        assert lake.reject(create("orders", ID, add("a"))).reason == Reason.TABLE_EXISTS
        assert lake.accept(create("orders", ID)).tables == ()

    def test_another_location_is_refused(self) -> None:
        """The files would be looked for where the table is."""
        lake = ModelLake()
        lake.commit(create("orders", ID, location=f"{ROOT}/here"))

        elsewhere = lake.reject(create("orders", ID, location=f"{ROOT}/there"))
        thought_default = lake.reject(create("orders", ID, add("a")))

        assert elsewhere.reason == thought_default.reason == Reason.LOCATION_CHANGED
        assert f"{ROOT}/here" in elsewhere.message
        assert lake.commit(create("orders", ID, add("a"), location=f"{ROOT}/here/")).changes[0].version == 1
        assert lake.accept(create("orders", ID)).tables == ()

    def test_create_is_the_first_wish_and_the_only_one_of_its_kind(self) -> None:
        """A table is not created half-way through its changes."""
        lake = ModelLake()
        intents = create().intents

        twice = lake.reject(TableWork(name="orders", intents=intents * 2))
        late = lake.reject(TableWork(name="orders", intents=(SetProperties(set={"a": "b"}), *intents)))

        assert twice.reason == Reason.INVALID_ACTION
        assert late.reason == Reason.UNKNOWN_TABLE

    def test_a_table_is_created_and_changed_in_one_transaction(self) -> None:
        """Later wishes see earlier ones."""
        lake = ModelLake()

        lake.commit(TableWork(name="orders", intents=(*create().intents, new_column("more"))))

        assert names(lake) == ["id", "more"]


class TestLocations:
    @pytest.mark.parametrize(
        "location",
        [
            "s3://elsewhere/orders",
            f"{ROOT}",
            f"{ROOT}/",
            f"{ROOT}-evil/orders",
            f"{ROOT}/../orders",
            f"{ROOT}/a//b",
            f"{ROOT}/.hidden/x",
            f"{ROOT}/%2e%2e/x",
            f"{ROOT}/a?b",
            f"{ROOT}/_deltalakedb.json",
            "/etc",
            "",
        ],
    )
    def test_a_table_lies_below_the_root(self, location: str) -> None:
        """Anything else is an operator's to allow."""
        assert ModelLake().reject(create(location=location)).reason == Reason.INVALID_PATH

    @pytest.mark.parametrize("location", [f"{ROOT}/a/b", f"{ROOT}/a", f"{ROOT}/a/b/c", f"{ROOT}/a/b/"])
    def test_no_table_lies_in_another(self, location: str) -> None:
        """Nor at the same place, nor around one."""
        lake = ModelLake()
        lake.commit(create("first", ID, location=f"{ROOT}/a/b"))

        refused = lake.reject(create("second", ID, location=location))

        assert refused.reason == Reason.INVALID_PATH
        assert "first" in refused.message
        assert lake.commit(create("third", ID, location=f"{ROOT}/a/bc")).commit_seq == 2

    def test_tables_of_one_transaction_do_not_share_a_place(self) -> None:
        """The second is checked against the first."""
        one, two = create("one", ID, location=f"{ROOT}/x"), create("two", ID, location=f"{ROOT}/x/y")

        assert ModelLake().reject(one, two).reason == Reason.INVALID_PATH

    def test_after_a_drop_the_name_gets_another_folder(self) -> None:
        """The default location carries the commit that dropped the last table of that name."""
        lake = ModelLake()
        lake.commit(create("orders"))
        lake.rows["dl_tables"][0] |= {"state": "DROPPED", "dropped_seq": 17}

        commit = lake.commit(create("orders", ID, add("a")))

        assert commit.changes[0].table.location == f"{ROOT}/orders-17"
        assert lake.commit(create("orders", ID, add("b"))).changes[0].version == 1


class TestAddColumn:
    def test_a_column_is_added_where_it_is_wanted(self) -> None:
        """Last, first, or after another; equal wishes are no-ops."""
        lake = ModelLake()
        lake.commit(relaxed())

        lake.commit(want(new_column("z")))
        lake.commit(want(new_column("a", after=""), new_column("m", after="id")))

        assert names(lake) == ["a", "id", "m", "z"]
        assert lake.accept(want(new_column("m"))).tables == ()

    def test_a_field_is_added_inside_of_a_struct(self) -> None:
        """Also where lists lie between."""
        lake = ModelLake()
        inner = {"type": "array", "elementType": json.loads(ID), "containsNull": True}
        lake.commit(create("orders", schema(("id", "long"), field("xs", inner), field("s", json.loads(ID)))))

        lake.commit(want(new_column("b", parent=("s",)), new_column("c", parent=("xs", "element"))))

        found, _, _ = current(lake)
        assert [f.name for f in found.fields[2].type.fields] == ["id", "b"]  # type: ignore[union-attr]
        assert [f.name for f in found.fields[1].type.element_type.fields] == ["id", "c"]  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        "intent",
        [
            new_column("x", nullable=False),
            new_column("id", "string"),
            new_column("ID", "long"),
            new_column("x", "bigint"),
            new_column("x", "void"),
            new_column("a b"),
            new_column("x", after="nowhere"),
            new_column("x", parent=("nowhere",)),
            new_column("x", parent=("id",)),
            new_column("x", metadata={"delta.columnMapping.id": 5}),
            AddColumn(field="junk"),
        ],
    )
    def test_a_column_that_cannot_be_added_is_refused(self, intent: AddColumn) -> None:
        """Rows that are there have no value for it, or it is not one."""
        lake = ModelLake()
        lake.commit(create())

        assert lake.reject(want(intent)).reason == Reason.INVALID_SCHEMA

    def test_a_column_of_a_new_kind_raises_the_protocol(self) -> None:
        """The version that adds it lists the feature."""
        lake = ModelLake()
        lake.commit(create())

        change = lake.commit(want(new_column("t", "timestamp_ntz"))).changes[0]

        assert change.protocol is not None
        assert change.protocol.reader_features == ("timestampNtz",)
        assert FENCE_FEATURE in (change.protocol.writer_features or ())

    def test_an_expression_is_refused_by_feature(self) -> None:
        """A default is one."""
        lake = ModelLake()
        lake.commit(create())

        assert (
            lake.reject(want(new_column("x", metadata={"CURRENT_DEFAULT": "1"}))).reason == Reason.FEATURE_UNSUPPORTED
        )

    def test_the_schema_stays_within_its_limit(self) -> None:
        """However it grows."""
        lake = ModelLake(limits=replace(rules(1), max_schema_bytes=300))
        lake.commit(create())

        assert lake.reject(want(*[new_column(f"c{n}") for n in range(5)])).reason == Reason.LIMIT_EXCEEDED


class TestWidenColumn:
    def test_a_widened_column_says_what_it_was(self) -> None:
        """The feature is enabled and listed; the change is noted on the field, in lists and maps with its path."""
        lake = ModelLake()
        lake.commit(create("orders", NESTED))

        lake.commit(
            want(
                WidenColumn(column=("s", "a"), new_type="long"),
                WidenColumn(column=("xs", "element"), new_type="double"),
                WidenColumn(column=("m", "value"), new_type="integer"),
            )
        )

        found, metadata, protocol = current(lake)
        fields = {f.name: f for f in found.fields}
        assert fields["s"].type.fields[0].metadata == {  # type: ignore[union-attr]
            "delta.typeChanges": [{"toType": "long", "fromType": "integer"}]
        }
        assert fields["xs"].metadata["delta.typeChanges"] == [
            {"toType": "double", "fromType": "integer", "fieldPath": "element"}
        ]
        assert fields["m"].metadata["delta.typeChanges"] == [
            {"toType": "integer", "fromType": "short", "fieldPath": "value"}
        ]
        assert metadata.configuration["delta.enableTypeWidening"] == "true"
        assert protocol.reader_features == ("typeWidening",)

    def test_widening_twice_notes_both(self) -> None:
        """In order; the same wish again changes nothing."""
        lake = ModelLake()
        lake.commit(create("orders", schema(("a", "byte"))))
        lake.commit(want(WidenColumn(column=("a",), new_type="short")))

        lake.commit(want(WidenColumn(column=("a",), new_type="long")))

        found, _, _ = current(lake)
        assert [c["fromType"] for c in found.fields[0].metadata["delta.typeChanges"]] == ["byte", "short"]
        assert lake.accept(want(WidenColumn(column=("a",), new_type="long"))).tables == ()

    @pytest.mark.parametrize("notes", [5, "x", {"fromType": "byte"}, None])
    def test_notes_of_others_that_are_none_are_no_place_for_ours(self, notes: object) -> None:
        """Imported tables have in there what somebody wrote: the wish is refused, as is a ready-made schema."""
        old = parse_schema(schema(field("a", "short", metadata={"delta.typeChanges": notes})))
        new = parse_schema(schema(field("a", "integer", metadata={"delta.typeChanges": notes})))
        allowed = {"delta.enableTypeWidening": "true"}

        with pytest.raises(Refused, match=r"delta\.typeChanges"):
            widen_column(old, WidenColumn(column=("a",), new_type="integer"), "orders")
        with pytest.raises(Refused, match=r"delta\.typeChanges"):
            check_given_schema(old, new, allowed, "orders", files=True)

    @pytest.mark.parametrize(
        ("column", "new_type"),
        [
            (("id",), "integer"),
            (("id",), "string"),
            (("id",), "junk"),
            (("s",), "long"),
            (("nowhere",), "long"),
            (("day",), "timestamp_ntz"),
            ((), "long"),
        ],
    )
    def test_what_is_no_widening_is_refused(self, column: tuple[str, ...], new_type: str) -> None:
        """Narrower, of another kind, of a struct, of nothing, of a partition column."""
        lake = ModelLake()
        text = schema(("id", "long"), field("s", json.loads(ID)), ("day", "date"))
        lake.commit(create("orders", text, by=("day",)))

        assert lake.reject(want(WidenColumn(column=column, new_type=new_type))).reason == Reason.INVALID_SCHEMA

    def test_older_files_stay_valid(self) -> None:
        """An append written before is accepted after."""
        lake = ModelLake()
        lake.commit(create("orders", schema(("a", "integer"))))
        lake.commit(want(WidenColumn(column=("a",), new_type="long")))

        assert lake.commit(append("f")).changes[0].version == 2


class TestMapping:
    def mapped_lake(self) -> ModelLake:
        lake = ModelLake()
        lake.commit(
            create("orders", schema(("id", "long"), ("b", "string"), ("day", "date")), by=("day",), properties=MAPPED)
        )
        return lake

    def test_ids_and_physical_names_are_given_at_creation(self) -> None:
        """Unique ids, physical names that say nothing, the highest id in the properties; nested fields too."""
        lake = ModelLake()
        lake.commit(create("orders", NESTED, properties=MAPPED))

        found, metadata, protocol = current(lake)

        columns = [*found.fields, *found.fields[1].type.fields]  # type: ignore[union-attr]
        assert sorted(c.metadata["delta.columnMapping.id"] for c in columns) == [1, 2, 3, 4, 5, 6]
        assert all(c.physical_name.startswith("col-") for c in columns)
        assert metadata.configuration["delta.columnMapping.maxColumnId"] == "6"
        assert protocol.reader_features == ("columnMapping",)

    def test_any_name_is_fine_under_mapping(self) -> None:
        """Files do not have it."""
        lake = ModelLake()
        lake.commit(create("orders", schema(("a b", "long")), properties=MAPPED))

        assert names(lake) == ["a b"]

    def test_columns_are_renamed_and_dropped(self) -> None:
        """Physical names stay, partitioning follows, and what is so already is a no-op."""
        lake = self.mapped_lake()
        before, _, _ = current(lake)

        lake.commit(want(RenameColumn(column=("day",), new_name="date"), DropColumn(column=("b",))))

        after, metadata, _ = current(lake)
        assert names(lake) == ["id", "date"]
        assert metadata.partition_columns == ("date",)
        assert after.fields[1].physical_name == before.fields[2].physical_name
        again = want(RenameColumn(column=("day",), new_name="date"), DropColumn(column=("b",)))
        assert lake.accept(again).tables == ()

    def test_files_written_before_a_rename_stay_valid(self) -> None:
        """They have physical names, also as keys of their partition values."""
        lake = self.mapped_lake()
        found, _, _ = current(lake)
        lake.commit(want(RenameColumn(column=("day",), new_name="date")))

        file = add("f", partition_values={found.fields[2].physical_name: "2024-01-01"})

        assert lake.commit(append(file)).changes[0].version == 2
        wrong = add("g", partition_values={"date": "2024-01-01"})
        assert lake.reject(append(wrong)).reason == Reason.PARTITION_MISMATCH

    def test_a_new_column_gets_an_id_of_its_own(self) -> None:
        """Never one that a dropped column had."""
        lake = self.mapped_lake()
        lake.commit(want(DropColumn(column=("b",))))

        lake.commit(want(new_column("c")))

        found, metadata, _ = current(lake)
        assert [c.metadata["delta.columnMapping.id"] for c in found.fields] == [1, 3, 4]
        assert metadata.configuration["delta.columnMapping.maxColumnId"] == "4"

    def test_mapping_can_be_turned_on_later(self) -> None:
        """Files that are there keep their names; it cannot be turned off."""
        lake = ModelLake()
        lake.commit(create("orders", ID_DAY, day_file("a"), by=("day",)))

        lake.commit(want(SetProperties(set=MAPPED)))

        found, _, protocol = current(lake)
        assert [c.physical_name for c in found.fields] == ["id", "day"]
        assert protocol.min_reader_version == 3
        assert lake.commit(append(day_file("b"))).changes[0].version == 2
        off = want(SetProperties(unset=("delta.columnMapping.mode",)))
        by_id = want(SetProperties(set={"delta.columnMapping.mode": "id"}))
        assert lake.reject(off).reason == lake.reject(by_id).reason == Reason.FEATURE_UNSUPPORTED

    @pytest.mark.parametrize("intent", [RenameColumn(column=("id",), new_name="x"), DropColumn(column=("id",))])
    def test_without_mapping_columns_are_not_renamed_or_dropped(self, intent: Intent) -> None:
        """Files have the names: the refusal says what to set."""
        lake = ModelLake()
        lake.commit(create())

        refused = lake.reject(want(intent))

        assert refused.reason == Reason.FEATURE_UNSUPPORTED
        assert "columnMapping" in refused.message

    @pytest.mark.parametrize(
        "intent",
        [
            RenameColumn(column=("id",), new_name="B"),
            RenameColumn(column=("id",), new_name=""),
            RenameColumn(column=("nowhere",), new_name="x"),
            RenameColumn(column=("id", "x"), new_name="y"),
            RenameColumn(column=(), new_name="y"),
            DropColumn(column=("day",)),
            DropColumn(column=("nowhere", "x")),
        ],
    )
    def test_what_cannot_be_renamed_or_dropped_is_refused(self, intent: Intent) -> None:
        """Names that are taken or none, columns that are not there, partition columns."""
        assert self.mapped_lake().reject(want(intent)).reason == Reason.INVALID_SCHEMA

    def test_the_last_column_stays(self) -> None:
        """A table of nothing is no table."""
        lake = ModelLake()
        lake.commit(create(properties=MAPPED))

        assert lake.reject(want(DropColumn(column=("id",)))).reason == Reason.INVALID_SCHEMA

    def test_files_and_new_physical_names_do_not_go_in_one_transaction(self) -> None:
        """Their author cannot have known the names."""
        lake = self.mapped_lake()
        found, _, _ = current(lake)
        file = add("f", partition_values={found.fields[2].physical_name: None})

        created = ModelLake().reject(create("orders", ID, add("a"), properties=MAPPED))
        changed = lake.reject(append(file, intents=(new_column("c"),)))

        assert created.reason == changed.reason == Reason.INVALID_ACTION


class TestSetProperties:
    def test_properties_are_set_and_unset(self) -> None:
        """And nothing happens where they are so already."""
        lake = ModelLake()
        lake.commit(create(properties={"a": "1", "b": "2"}))

        lake.commit(want(SetProperties(set={"c": "3"}, unset=("a",))))

        _, metadata, _ = current(lake)
        assert metadata.configuration == {"b": "2", "delta.enableInCommitTimestamps": "true", "c": "3"}
        assert lake.accept(want(SetProperties(set={"c": "3"}, unset=("a", "zzz")))).tables == ()

    def test_a_property_brings_its_feature(self) -> None:
        """Listed in the same version."""
        lake = ModelLake()
        lake.commit(create())

        change = lake.commit(want(SetProperties(set={"delta.enableDeletionVectors": "true"}))).changes[0]

        assert change.protocol is not None
        assert change.protocol.reader_features == ("deletionVectors",)

    @pytest.mark.parametrize(
        ("intent", "reason"),
        [
            (SetProperties(set={"delta.enableInCommitTimestamps": "false"}), Reason.INVALID_ACTION),
            (SetProperties(unset=("delta.enableInCommitTimestamps",)), Reason.INVALID_ACTION),
            (SetProperties(set={"delta.rowTrackingSuspended": "true"}), Reason.INVALID_ACTION),
            (SetProperties(set={"a": "1"}, unset=("a",)), Reason.INVALID_ACTION),
            (SetProperties(set={"delta.appendOnly": "1"}), Reason.INVALID_ACTION),
            (SetProperties(set={"a": "x" * 9000}), Reason.LIMIT_EXCEEDED),
            (SetProperties(set={f"k{n}": "" for n in range(1001)}), Reason.LIMIT_EXCEEDED),
            (SetProperties(set={"delta.enableRowTracking": "true"}), Reason.FEATURE_UNSUPPORTED),
            (SetProperties(set={"delta.enableIcebergCompatV2": "true"}), Reason.FEATURE_UNSUPPORTED),
            (SetProperties(set={"delta.constraints.c": "id > 0"}), Reason.FEATURE_UNSUPPORTED),
        ],
    )
    def test_properties_that_cannot_be_set_are_refused(self, intent: SetProperties, reason: Reason) -> None:
        """What the committer sets, wrong values, limits, features that we cannot write or not add later."""
        lake = ModelLake()
        lake.commit(create())

        assert lake.reject(want(intent)).reason == reason

    def test_setting_true_what_is_true_is_a_no_op(self) -> None:
        """In-commit timestamps are on from the start."""
        lake = ModelLake()
        lake.commit(create())

        assert lake.accept(want(SetProperties(set={"delta.enableInCommitTimestamps": "true"}))).tables == ()


def test_intents_only_for_tables_that_are_writable() -> None:
    """A table that carries a constraint is read-only, by name of the feature."""
    lake = ModelLake()
    lake.commit(create())
    row = lake.rows["dl_metadata_updates"][0]
    row["configuration"] = '{"delta.constraints.c":"id > 0"}'

    refused = lake.reject(append("a"))
    changed = lake.reject(want(SetProperties(set={"a": "b"})))

    assert refused.reason == changed.reason == Reason.FEATURE_UNSUPPORTED
    assert "checkConstraints" in refused.message
