from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deltalakedb.actions import CdcFile, RemoveFile
from deltalakedb.errors import Reason
from deltalakedb.events import AppTransaction, Content, Predicate, ReadSet, SetProperties, TableWork, Term
from deltalakedb_committer.deciding.decisions import Rejection
from deltalakedb_committer.deciding.rules import Rules, rules
from tests.model_lake import ModelLake, staged
from tests.works import ID, ZERO, add, append, create, field, relaxed, remove, schema, vector

VECTORS = {"delta.enableDeletionVectors": "true"}
FEED = {"delta.enableChangeDataFeed": "true"}
STATS = '{"numRecords":10}'


def limits(**changed: int) -> Rules:
    return replace(rules(1), **changed)  # type: ignore[arg-type]


def lake_of(work: TableWork, used: Rules | None = None) -> ModelLake:
    lake = ModelLake(limits=used)
    lake.commit(work)
    return lake


def plain() -> ModelLake:
    return lake_of(relaxed())


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        ["../x", "%2e%2e/x", "/etc/x", "file:///x", "s3://other/x", "_delta_log/0.json", "..\\x", "a\n", "a//b", ""],
    )
    def test_a_path_that_leaves_the_table_is_refused(self, path: str) -> None:
        """In adds and change data files; the path is shown shortened and quoted."""
        lake = lake_of(relaxed(properties=FEED))
        change_data = CdcFile(path=path, partition_values={}, size=1)

        refused = lake.reject(append(path))
        in_cdc = lake.reject(append("a", cdc=(change_data,)))

        assert refused.reason == in_cdc.reason == Reason.INVALID_PATH
        assert repr(path) in refused.message

    def test_a_partition_folder_may_be_named_after_a_hidden_column(self) -> None:
        """`_p=1/` is a partition, `_x=1/` is hidden."""
        lake = lake_of(create("orders", schema(("id", "long"), ("_p", "string")), by=("_p",)))

        lake.commit(append(add("_p=1/a", partition_values={"_p": "1"})))

        assert lake.reject(append(add("_x=1/a", partition_values={"_p": "1"}))).reason == Reason.INVALID_PATH


class TestAdds:
    @pytest.mark.parametrize(
        "file",
        [
            add("a", size=0),
            add("a", size=-1),
            add("a", modification_time=-1),
            add("a", stats="not json"),
            add("a", stats="[]"),
            add("a", stats='{"numRecords":-1}'),
            add("a", stats='{"numRecords":9223372036854775808}'),
            add("a", stats='{"numRecords":1.5}'),
            add("a", stats='{"numRecords":"1"}'),
            add("a", stats='{"numRecords":1,"numRecords":2}'),
            add("a", stats='{"numRecords":NaN}'),
            add("a", stats='{"numRecords":1,"maxValues":{"id":1e400}}'),
            add("a", stats='{"minValues":[]}'),
            add("a", stats='{"minValues":{"id":5},"maxValues":{"id":4}}'),
            add("a", stats='{"numRecords":1} '[:-2]),
            add("a", rest="[]"),
            add("a", rest="junk"),
            add("a", rest='{"path":"../x"}'),
            add("a", rest='{"stats":"{}"}'),
            add("a", rest='{"dataChange":false}'),
            add("a", rest='{"a":1,"a":2}'),
            add("a", rest='{"tags":[]}'),
            add("a", rest='{"tags":{"a":1}}'),
            add("a", rest='{"baseRowId":"1"}'),
            add("a", rest='{"baseRowId":9223372036854775808}'),
            add("a", rest='{"clusteringProvider":1}'),
        ],
    )
    def test_an_add_that_cannot_be_is_refused(self, file: Any) -> None:
        """Sizes, times, statistics that readers would trust, further fields that stand in for checked ones."""
        refused = plain().reject(append(file))

        assert (refused.reason, refused.table) == (Reason.INVALID_ACTION, "orders")
        assert "'a'" in refused.message

    @pytest.mark.parametrize(
        "stats",
        [
            '{"numRecords":0}',
            "{}",
            '{"numRecords":null,"nullCount":null}',
            '{"numRecords":3,"minValues":{"numRecords":1},"maxValues":{"numRecords":2},"later":{"x":[1]}}',
            '{"minValues":{"id":"text"},"maxValues":{"id":"a"}}',
        ],
    )
    def test_statistics_that_say_little_are_fine(self, stats: str) -> None:
        """A column may be named like a statistic; what is unknown stays verbatim."""
        commit = plain().commit(append(add("a", stats=stats)))

        assert commit.changes[0].adds[0].stats == stats

    def test_numbers_of_records_are_taken_from_statistics(self) -> None:
        """None where they do not say."""
        change = plain().commit(append(add("a", stats=STATS), add("b"))).changes[0]

        assert change.num_records == (10, None)

    def test_sizes_of_json_are_bounded(self) -> None:
        """Statistics and further fields, in bytes and in depth."""
        lake = lake_of(relaxed(), limits(max_stats_bytes=100, max_rest_bytes=100, max_json_depth=5))
        long, deep = json.dumps({"x": "é" * 60}), '{"x":' * 6 + "1" + "}" * 6

        for file in (add("a", stats=long), add("a", stats=deep), add("a", rest=long), add("a", rest=deep)):
            assert lake.reject(append(file)).reason == Reason.LIMIT_EXCEEDED
        assert lake.commit(append(add("a", stats='{"x":"{{{{{{{{{{"}'))).changes[0].version == 1

    def test_a_path_is_added_once(self) -> None:
        """Also with two deletion vectors."""
        lake = lake_of(relaxed(properties=VECTORS))

        again = lake.reject(append("a", "b", "a"))
        vectors = lake.reject(append(add("a", stats=STATS), add("a", stats=STATS, deletion_vector=vector())))

        assert again.reason == vectors.reason == Reason.INVALID_ACTION
        assert "'a'" in again.message

    def test_bytes_of_a_table_are_a_64_bit_number(self) -> None:
        """However large single files claim to be."""
        lake = plain()

        assert lake.reject(append(*[add(p, size=2**62) for p in "ab"])).reason == Reason.LIMIT_EXCEEDED

    def test_one_identity_is_not_added_and_removed(self) -> None:
        """Readers differ in what that would mean."""
        lake = lake_of(relaxed("orders", ID, add("a")))

        refused = lake.reject(append("a", removes=(RemoveFile(path="a"),)))

        assert refused.reason == Reason.INVALID_ACTION

    def test_a_path_is_removed_once(self) -> None:
        """One version has one remove per path."""
        lake = lake_of(relaxed("orders", ID, add("a")))

        assert lake.reject(remove("a", "a")).reason == Reason.INVALID_ACTION

    def test_further_fields_of_removes_are_checked_too(self) -> None:
        """They are merged into the action again."""
        lake = lake_of(relaxed("orders", ID, add("a")))
        given = RemoveFile(path="a", rest='{"size":1}')

        assert lake.reject(remove(given)).reason == Reason.INVALID_ACTION
        kept = lake.commit(remove(RemoveFile(path="a", rest='{"stats":"{}","x":1}')))
        assert kept.changes[0].removes[0].rest == '{"stats":"{}","x":1}'
        assert lake.rows["dl_remove_files"][0]["extra"] == '{"x":1}'


class TestPartitionValues:
    def partitioned(self) -> ModelLake:
        columns = schema(("id", "long"), ("day", "date"), field("region", "string", nullable=False))
        return lake_of(create("orders", columns, by=("day", "region")))

    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"day": "2024-01-01"},
            {"day": "2024-01-01", "region": "eu", "more": "x"},
            {"Day": "2024-01-01", "region": "eu"},
            {"day": "01.01.2024", "region": "eu"},
            {"day": "2024-02-30", "region": "eu"},
            {"day": "", "region": "eu"},
            {"day": "2024-01-01", "region": ""},
            {"day": "2024-01-01", "region": None},
            {"day": "2024-01-01", "region": "x" * 5000},
        ],
    )
    def test_values_that_do_not_fit_are_refused(self, values: dict[str, str | None]) -> None:
        """Keys are the partition columns, values parse for their type, NULL only where it may be."""
        refused = self.partitioned().reject(append(add("a", partition_values=values)))

        assert (refused.reason, refused.table) == (Reason.PARTITION_MISMATCH, "orders")

    def test_values_that_fit_are_kept(self) -> None:
        """By name in order, whatever the order they came in."""
        lake = self.partitioned()

        lake.commit(append(add("a", partition_values={"region": "eu/a=b", "day": None})))

        assert lake.rows["dl_live_files"][0]["partition_values"] == '{"day":null,"region":"eu/a=b"}'

    def test_an_unpartitioned_table_has_none(self) -> None:
        """Readers fail on keys that are no partition columns."""
        refused = plain().reject(append(add("a", partition_values={"day": "x"})))

        assert refused.reason == Reason.PARTITION_MISMATCH
        assert "nothing" in refused.message


class TestDeletionVectors:
    def lake(self) -> ModelLake:
        return lake_of(relaxed("orders", ID, add("a", stats=STATS), properties=VECTORS))

    def marked(self, **more: Any) -> Any:
        return add("a", stats=STATS, deletion_vector=vector(**more))

    def test_a_vector_replaces_the_file_without_one(self) -> None:
        """Add and remove name the same path with different identities."""
        lake = self.lake()

        change = lake.commit(append(self.marked(), removes=(RemoveFile(path="a"),))).changes[0]

        assert lake.live("orders") == {("a", vector().unique_id)}
        assert change.live_files == 1
        assert lake.rows["dl_live_files"][0]["dv_storage_type"] == "i"
        gone = lake.commit(remove(RemoveFile(path="a", deletion_vector=vector()))).changes[0]
        assert gone.live_files == 0

    def test_a_second_identity_needs_the_removal_of_the_first(self) -> None:
        """Two live files of one path would be read twice."""
        lake = self.lake()

        assert lake.reject(append(self.marked())).reason == Reason.INVALID_ACTION

    def test_a_remove_names_the_vector_that_is_live(self) -> None:
        """The path alone is not the file; the message says what is live."""
        lake = self.lake()
        lake.commit(append(self.marked(), removes=(RemoveFile(path="a"),)))

        refused = lake.reject(remove("a"))

        assert refused.reason == Reason.FILE_NOT_LIVE
        assert "deletion vector" in refused.message

    def test_the_feature_has_to_be_enabled(self) -> None:
        """A table without it gets no vector."""
        lake = lake_of(relaxed("orders", ID, add("a", stats=STATS)))

        refused = lake.reject(append(self.marked(), removes=(RemoveFile(path="a"),)))

        assert refused.reason == Reason.FEATURE_UNSUPPORTED
        assert "deletionVectors" in refused.message

    @pytest.mark.parametrize(
        ("more", "reason"),
        [
            ({"storage_type": "x"}, Reason.INVALID_ACTION),
            ({"size_in_bytes": 0}, Reason.INVALID_ACTION),
            ({"cardinality": -1}, Reason.INVALID_ACTION),
            ({"cardinality": 11}, Reason.INVALID_ACTION),
            ({"offset": 1}, Reason.INVALID_ACTION),
            ({"max_row_index": -1}, Reason.INVALID_ACTION),
            ({"text": "not z85: \n"}, Reason.INVALID_PATH),
            ({"text": ""}, Reason.INVALID_PATH),
            ({"storage_type": "u", "text": "short"}, Reason.INVALID_PATH),
            ({"storage_type": "u", "text": "../" + "a" * 20}, Reason.INVALID_PATH),
            ({"storage_type": "u", "text": "_delta_log" + "a" * 20}, Reason.INVALID_PATH),
            ({"storage_type": "u", "offset": -1, "text": "a" * 20}, Reason.INVALID_ACTION),
            ({"storage_type": "p", "text": "s3://other/dv.bin"}, Reason.INVALID_PATH),
            ({"storage_type": "p", "text": "s3://bucket/lake/orders-evil/dv.bin"}, Reason.INVALID_PATH),
            ({"storage_type": "p", "text": "s3://bucket/lake/orders/../items/dv.bin"}, Reason.INVALID_PATH),
        ],
    )
    def test_a_vector_that_cannot_be_is_refused(self, more: dict[str, Any], reason: Reason) -> None:
        """Its numbers, and where it lies: paths are confined as those of files are."""
        text = more.pop("text", vector().path_or_inline_dv)
        marked = add("a", stats=STATS, deletion_vector=vector(text, **more))

        assert self.lake().reject(append(marked, removes=(RemoveFile(path="a"),))).reason == reason

    @pytest.mark.parametrize(
        ("kind", "text"), [("u", "ab" + "a" * 20), ("u", "a" * 20), ("p", "s3://bucket/lake/orders/dv.bin")]
    )
    def test_a_vector_may_lie_in_the_table(self, kind: str, text: str) -> None:
        """By UUID with or without a folder, or by its whole address."""
        marked = add("a", stats=STATS, deletion_vector=vector(text, storage_type=kind, offset=1))

        assert self.lake().commit(append(marked, removes=(RemoveFile(path="a"),))).changes[0].version == 1

    def test_a_file_with_a_vector_says_how_many_rows_it_has(self) -> None:
        """Readers cannot do without."""
        marked = add("a", deletion_vector=vector())

        assert self.lake().reject(append(marked, removes=(RemoveFile(path="a"),))).reason == Reason.INVALID_ACTION

    def test_numbers_of_a_removed_vector_are_checked(self) -> None:
        """They are stored as well."""
        lake = self.lake()
        lake.commit(append(self.marked(), removes=(RemoveFile(path="a"),)))

        refused = lake.reject(remove(RemoveFile(path="a", deletion_vector=vector(size_in_bytes=0))))

        assert refused.reason == Reason.INVALID_ACTION


class TestChangeData:
    def cdc(self, path: str = "_change_data/c", **more: Any) -> CdcFile:
        fields: dict[str, Any] = {"partition_values": {}, "size": 5, **more}
        return CdcFile(path=path, **fields)

    def test_change_data_files_go_with_the_changes(self) -> None:
        """They are kept, and the version is no blind append."""
        lake = lake_of(relaxed(properties=FEED))

        change = lake.commit(append("a", cdc=(self.cdc(),))).changes[0]

        assert [c.path for c in change.cdc] == ["_change_data/c"]
        assert not change.is_blind_append
        assert lake.rows["dl_cdc_files"][0]["data_change"] is False

    def test_only_where_the_feed_is_enabled(self) -> None:
        """A feed that nobody switched on is not read."""
        assert plain().reject(append("a", cdc=(self.cdc(),))).reason == Reason.INVALID_ACTION

    def test_change_data_without_changes_is_refused(self) -> None:
        """It would tell of rows that did not change."""
        lake = lake_of(relaxed(properties=FEED))
        rearranged = append(add("a", data_change=False), cdc=(self.cdc(),))
        alone = TableWork(name="orders", cdc=(self.cdc(),), written_against=ZERO)

        assert lake.reject(rearranged).reason == lake.reject(alone).reason == Reason.INVALID_ACTION

    def test_change_data_files_are_checked_like_others(self) -> None:
        """Size, further fields, partition values, and each once."""
        lake = lake_of(relaxed(properties=FEED))

        for cdc in (
            (self.cdc(size=0),),
            (self.cdc(rest='{"path":"x"}'),),
            (self.cdc(rest='{"dataChange":true}'),),
            (self.cdc(), self.cdc()),
        ):
            assert lake.reject(append("a", cdc=cdc)).reason == Reason.INVALID_ACTION
        wrong = self.cdc(partition_values={"x": "1"})
        assert lake.reject(append("a", cdc=(wrong,))).reason == Reason.PARTITION_MISMATCH


class TestLimits:
    @pytest.mark.parametrize(
        ("changed", "content"),
        [
            ({"max_actions": 1}, {"tables": (append("a", "b"),)}),
            ({"max_read_files": 1}, {"tables": (TableWork(name="t", read_set=ReadSet(files=("a", "b"))),)}),
            (
                {"max_predicate_terms": 1},
                {"tables": (TableWork(name="t", read_set=ReadSet(predicates=(Predicate((Term("true"),) * 2),))),)},
            ),
            ({"max_text_bytes": 40}, {"tables": (append("a", operation_parameters={"k": "v" * 40}),)}),
            ({"max_text_bytes": 40}, {"tables": (append("a", operation_metrics={"k": "v" * 40}),)}),
            ({"max_text_bytes": 40}, {"tables": (append("a"),), "user_metadata": "x" * 41}),
            ({"max_name_bytes": 40}, {"tables": (append("a", operation="x" * 41),)}),
            ({"max_name_bytes": 40}, {"tables": (append("a"),), "engine_info": "x" * 41}),
            ({"max_intents": 1}, {"tables": (TableWork(name="orders", intents=(SetProperties(set={"a": "b"}),) * 2),)}),
            ({"max_apps": 1}, {"tables": (append("a"),), "apps": (AppTransaction("a", 1), AppTransaction("b", 1))}),
        ],
    )
    def test_everything_is_bounded(self, changed: dict[str, int], content: dict[str, Any]) -> None:
        """By the numbered rule set, before anything else is looked at."""
        lake = ModelLake(limits=limits(**changed))

        decision = lake.decide(staged(*content.pop("tables"), **content))

        assert isinstance(decision, Rejection)
        assert decision.outcome.rejected is not None
        assert decision.outcome.rejected.reason == Reason.LIMIT_EXCEEDED

    @pytest.mark.parametrize(
        "content",
        [
            Content(tables=(append("a"),), user_metadata="a\0b"),
            Content(tables=(append("a"),), engine_info="\0"),
            Content(tables=(append("a", operation="a\0"),)),
        ],
    )
    def test_texts_without_a_place_in_sql_are_refused(self, content: Content) -> None:
        """PostgreSQL takes no NUL in a text: one such event must not stop the lake."""
        refused = plain().reject(*content.tables, user_metadata=content.user_metadata, engine_info=content.engine_info)

        assert refused.reason == Reason.INVALID_ACTION

    def test_messages_are_short_and_printable(self) -> None:
        """Whatever was sent: they are logged, stored, and sent to the client."""
        names = ["\n\x1b[31m" + "x" * 100_000, "x" * 300_000]

        for name in names:
            refused = plain().reject(append("a", name=name))
            assert len(refused.message) <= 1_000
            assert len(refused.table or "") <= 255
            assert "\n" not in refused.message
