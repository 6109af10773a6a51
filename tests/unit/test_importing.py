"""The importer's decisions: which versions, when they were, what stands against them, and what takes a table over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalakedb.actions import Metadata, Protocol, from_json
from deltalakedb.codec import content_digest, decode, encode_imported_chunk
from deltalakedb.deltalog.listing import LogListing, listing_of
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError, TxnLogImportError, TxnLogUriError
from deltalakedb.events import Envelope, ImportedAction, ImportedContent, ImportedVersion
from deltalakedb.features import FENCE_FEATURE, ICT
from deltalakedb.importing.adoption import Taken, adoption, fenced, log_file
from deltalakedb.importing.chunks import cut
from deltalakedb.importing.plan import Done, Kind, Step, plan, until
from deltalakedb.importing.roots import Roots
from deltalakedb.importing.survey import Survey
from deltalakedb.importing.times import Stamp, version_times
from deltalakedb.objectstore import ObjectInfo
from deltalakedb.publishing import MAX_CHUNK_BYTES


def listing(commits: Sequence[int], checkpoints: Sequence[int] = ()) -> LogListing:
    names = [f"_delta_log/{version:020}.json" for version in commits]
    names += [f"_delta_log/{version:020}.checkpoint.parquet" for version in checkpoints]
    return listing_of([ObjectInfo(name, 10, 1_000) for name in sorted(names)], place="file:///t/_delta_log", folder="")


def steps(found: Sequence[Step]) -> list[str]:
    return [f"{step.kind.value[0]}{step.version}" for step in found]


class TestPlan:
    def test_a_whole_log(self) -> None:
        """Where every commit is there, commits are all it takes, whatever checkpoints there are."""
        planned = plan(listing(range(4), [2]), None)

        assert (steps(planned.steps), planned.baseline, planned.newest) == (["C0", "C1", "C2", "C3"], 0, 3)

    def test_a_cleaned_up_log(self) -> None:
        """A log without its beginning starts with the oldest state that it tells; older commits are history."""
        planned = plan(listing([7, 8, 9, 10, 11, 12], [10, 12]), None)

        assert steps(planned.steps) == ["H7", "H8", "H9", "B10", "C11", "C12"]
        assert planned.baseline == 10

    def test_history_reaches_down_without_a_gap(self) -> None:
        """Older commits behind a gap belong to nothing."""
        assert steps(plan(listing([3, 4, 7, 8, 9, 10], [9]), None).steps) == ["H7", "H8", "B9", "C10"]

    def test_a_checkpoint_without_its_commit(self) -> None:
        """What follows a checkpoint is enough."""
        assert steps(plan(listing([6], [5]), None).steps) == ["B5", "C6"]

    def test_a_gap(self) -> None:
        """A commit that is missing, and that no checkpoint bridges, is named."""
        with pytest.raises(TxnLogDeltaLogError, match=r"00000000000000000002\.json") as raised:
            plan(listing([0, 1, 3]), None)

        assert (raised.value.problem, raised.value.version) == (LogProblem.GAP, 2)

    def test_no_table(self) -> None:
        """An empty log is no table."""
        with pytest.raises(TxnLogDeltaLogError, match="NO_TABLE"):
            plan(listing([]), None)

    @pytest.mark.parametrize(
        ("done", "left"),
        [
            (Done(8, Kind.HISTORY), ["H9", "B10", "C11"]),
            (Done(9, Kind.HISTORY), ["B10", "C11"]),
            (Done(10, Kind.BASELINE), ["C11"]),
            (Done(11, Kind.COMMIT), []),
        ],
    )
    def test_going_on(self, done: Done, left: list[str]) -> None:
        """An import goes on behind what SQL has."""
        assert steps(plan(listing([7, 8, 9, 10, 11], [10]), done).open) == left

    @pytest.mark.parametrize("done", [Done(5, Kind.COMMIT), Done(5, Kind.HISTORY), Done(3, Kind.BASELINE)])
    def test_cleaned_up_meanwhile(self, done: Done) -> None:
        """If the version after those in SQL is gone, the import cannot go on, and says so."""
        with pytest.raises(TxnLogImportError, match="no longer tells version"):
            plan(listing([8, 9, 10], [10]), done)

    def test_history_grows_while_no_state_is_told(self) -> None:
        """As long as only history was imported, the baseline may have moved up."""
        assert steps(plan(listing([6, 7, 8], [8]), Done(5, Kind.HISTORY)).open) == ["H6", "H7", "B8"]

    def test_until(self) -> None:
        """A log can be taken as it was, and never as it was not."""
        shorter = until(listing(range(5), [4]), 2)

        assert steps(plan(shorter, None).steps) == ["C0", "C1", "C2"]
        with pytest.raises(TxnLogImportError, match="newest one is 4"):
            until(listing(range(5)), 5)


def stamp(version: int, file_ms: int, in_commit_ms: int | None = None) -> Stamp:
    return Stamp(version=version, in_commit_ms=in_commit_ms, file_ms=file_ms)


class TestTimes:
    def test_file_times_are_made_to_rise(self) -> None:
        """Equal and falling file times become one more than the time before."""
        found = version_times(
            [stamp(0, 100), stamp(1, 100), stamp(2, 50), stamp(3, 500)], after_ms=None, started_ms=900, now_ms=1_000
        )

        assert found == {0: 100, 1: 101, 2: 102, 3: 500}

    def test_a_copied_table_with_in_commit_timestamps(self) -> None:
        """Files copied later than the first in-commit timestamp lie before it all the same."""
        found = version_times(
            [stamp(0, 900), stamp(1, 900), stamp(2, 900, 300), stamp(3, 900, 400)],
            after_ms=None,
            started_ms=950,
            now_ms=1_000,
        )

        assert found == {0: 298, 1: 299, 2: 300, 3: 400}

    def test_a_file_from_the_future(self) -> None:
        """A file time beyond now counts as the time when the import began."""
        found = version_times([stamp(0, 100), stamp(1, 9_999)], after_ms=None, started_ms=900, now_ms=1_000)

        assert found == {0: 100, 1: 900}

    def test_going_on(self) -> None:
        """What is in SQL already is not gone behind."""
        assert version_times([stamp(4, 100)], after_ms=700, started_ms=900, now_ms=1_000) == {4: 701}

    def test_falling_in_commit_timestamps(self) -> None:
        """In-commit timestamps that do not rise, as a writer's defect leaves them, are made to."""
        found = version_times([stamp(0, 1, 300), stamp(1, 1, 200)], after_ms=None, started_ms=900, now_ms=1_000)

        assert found == {0: 300, 1: 301}

    @given(
        st.lists(st.tuples(st.integers(0, 2_000), st.booleans()), max_size=30),
        st.integers(0, 1_000),
    )
    def test_always_rising(self, files: list[tuple[int, bool]], gap: int) -> None:
        """Whatever the file times are: times rise, and in-commit timestamps are what they are."""
        stamps = [
            stamp(n, file_ms, 10_000 + n * (gap + 1) if timed else None) for n, (file_ms, timed) in enumerate(files)
        ]
        found = version_times(stamps, after_ms=None, started_ms=500, now_ms=1_000)
        times = list(found.values())

        assert times == sorted(set(times))
        assert all(found[s.version] == s.in_commit_ms for s in stamps if s.in_commit_ms is not None)


SCHEMA = '{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}'


def taken(protocol: Protocol, **configuration: str) -> Taken:
    metadata = Metadata(
        id="m",
        schema_string=SCHEMA,
        configuration={name.replace("_", "."): value for name, value in configuration.items()},
        created_time=1,
        rest='{"unknown":{"kept":1}}',
    )
    return Taken(name="t", version=6, time_ms=5_000, protocol=protocol, metadata=metadata)


def adopted(what: Taken) -> dict[str, Any]:
    actions = adoption(what, txn_id="x", lake_id="l", engine_info="e", now_ms=1_000)
    assert actions[0].kind == "commitInfo"
    return {action.kind: json.loads(action.json) for action in actions}


class TestAdoption:
    def test_what_it_says(self) -> None:
        """The version has the fence and in-commit timestamps with their enablement, above all times before."""
        found = adopted(taken(Protocol(min_reader_version=1, min_writer_version=2), delta_appendOnly="true"))

        assert found["commitInfo"]["inCommitTimestamp"] == 5_001
        assert found["commitInfo"]["txnId"] == "x"
        assert found["protocol"] == {
            "minReaderVersion": 1,
            "minWriterVersion": 7,
            "writerFeatures": sorted(["appendOnly", "invariants", FENCE_FEATURE, "inCommitTimestamp"]),
        }
        assert found["metaData"]["configuration"] == {
            "delta.appendOnly": "true",
            ICT: "true",
            "delta.inCommitTimestampEnablementVersion": "7",
            "delta.inCommitTimestampEnablementTimestamp": "5001",
        }
        assert found["metaData"]["unknown"] == {"kept": 1}

    def test_timestamps_that_are_on(self) -> None:
        """A table that has in-commit timestamps keeps its metadata as it is."""
        protocol = Protocol(min_reader_version=1, min_writer_version=7, writer_features=("inCommitTimestamp",))

        assert "metaData" not in adopted(taken(protocol, **{ICT: "true"}))

    @pytest.mark.parametrize(
        ("reader", "writer", "implied"),
        [
            (1, 1, set()),
            (1, 3, {"appendOnly", "invariants", "checkConstraints"}),
            (1, 4, {"appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns"}),
            (
                2,
                5,
                {
                    *("appendOnly", "invariants", "checkConstraints", "changeDataFeed"),
                    *("generatedColumns", "columnMapping"),
                },
            ),
            (
                1,
                6,
                {
                    *("appendOnly", "invariants", "checkConstraints", "changeDataFeed"),
                    *("generatedColumns", "identityColumns"),
                },
            ),
        ],
    )
    def test_implied_features_are_listed(self, reader: int, writer: int, implied: set[str]) -> None:
        """Every feature that an old writer version stood for is listed; readers need to know no more than before."""
        found = fenced(Protocol(min_reader_version=reader, min_writer_version=writer))

        assert found.min_reader_version == reader
        assert found.reader_features is None
        assert set(found.writer_features or ()) == implied | {FENCE_FEATURE, "inCommitTimestamp"}

    def test_the_mirror_would_write_the_same(self) -> None:
        """Parsing what is put and writing it again gives the same actions, so that a mirror finds it to be its own."""
        before = taken(Protocol(min_reader_version=1, min_writer_version=2, rest='{"more":[1,{"a":null}]}'))
        actions = adoption(before, txn_id="x", lake_id="l", engine_info="e", now_ms=1_000)
        lines = log_file(actions).decode().splitlines()

        from deltalakedb.actions import as_json

        for line, action in zip(lines[1:], actions[1:], strict=True):
            again = as_json(action.kind, from_json(action.kind, action.json))
            assert json.loads(line) == {action.kind: json.loads(msgspec.json.encode(again))}


def imported(version: int = 3) -> ImportedContent:
    return ImportedContent(import_id="i", table_name="t", location="file:///t", version=version, time_ms=1)


def add(path: str, size: int = 1, **more: Any) -> ImportedAction:
    return ImportedAction("add", json.dumps({"path": path, "size": size, **more}))


class TestChunks:
    @pytest.mark.parametrize("count", [0, 1, 5_000])
    def test_every_action_in_order(self, count: int) -> None:
        """However many events a version takes, their actions are its actions, and their digest is that of all."""
        actions = [add(f"{n:0500}") for n in range(count)]
        with cut(imported(), actions) as chunks:
            contents = list(chunks.contents())
            again = list(chunks.contents(1))
            digest = chunks.digest

        assert contents[1:] == again
        assert digest == content_digest(contents)
        found: list[ImportedAction] = []
        for content in contents:
            assert len(content) <= MAX_CHUNK_BYTES
            envelope = Envelope(txn_id="t", digest=digest, lake_id="l", root="r", client_id="c")
            event = decode(encode_imported_chunk(envelope, content))
            assert isinstance(event, ImportedVersion)
            found += event.content.actions
        assert found == actions

    def test_an_action_that_no_event_takes(self) -> None:
        """It is refused with its version and size."""
        with pytest.raises(TxnLogImportError, match=r"version 3 .* one metaData action of 900,0"):
            cut(imported(), [ImportedAction("metaData", '"' + "x" * 900_000 + '"')])


class TestRoots:
    @pytest.mark.parametrize(
        "path",
        [
            "a.parquet",
            "p=a%20b/x.parquet",
            "./a.parquet",
            "_hidden/a.parquet",
            "b/../a.parquet",
            "file:///data/t/a.parquet",
            "file:/data/t/a.parquet",
            "/data/t/p=1/a.parquet",
            "p=a%253Ab/x",
        ],
    )
    def test_inside(self, path: str) -> None:
        """Paths within the table's folder, however they are spelled."""
        assert Roots("file:///data/t").leads_out(path) is None

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ("../x.parquet", "file:///data/x.parquet"),
            ("a/../../x", "file:///data/x"),
            ("%2e%2e/x", "file:///data/x"),
            ("/data/t2/x", "file:///data/t2/x"),
            ("/data/t/../t2/x", "file:///data/t2/x"),
            ("file:///etc/passwd", "file:///etc/passwd"),
            ("s3a://other/x", "s3://other/x"),
        ],
    )
    def test_outside(self, path: str, place: str) -> None:
        """Paths that lead elsewhere are told with the place that they name; an allowed root makes them right."""
        assert Roots("file:///data/t").leads_out(path) == place
        assert Roots("file:///data/t", [place.rsplit("/", 1)[0]]).leads_out(path) is None

    def test_on_s3(self) -> None:
        """A bucket is named in one way, and another bucket is elsewhere."""
        roots = Roots("s3://b/t")

        assert roots.leads_out("s3a://b/t/x") is None
        assert roots.leads_out("/t/x") is None
        assert roots.leads_out("s3://b/tt/x") == "s3://b/tt/x"
        assert roots.leads_out("../x") == "s3://b/x"

    def test_vectors(self) -> None:
        """A deletion vector lies in the table too, unless it is inline."""
        roots = Roots("file:///data/t")

        assert roots.vector_leads_out("i", "../../anything") is None
        assert roots.vector_leads_out("u", "ab^-aqEH.-t@S}K{vb[*k^") is None
        assert roots.vector_leads_out("u", "../../ab" + "x" * 20) == "file:///ab"
        assert roots.vector_leads_out("p", "file:///other/dv.bin") == "file:///other/dv.bin"

    def test_a_relative_root(self) -> None:
        """A root that depends on where one stands is refused."""
        with pytest.raises(TxnLogUriError):
            Roots("file:///data/t", ["other"])


PROTOCOL = ImportedAction("protocol", '{"minReaderVersion":1,"minWriterVersion":2}')
METADATA = ImportedAction("metaData", json.dumps({"id": "m", "schemaString": SCHEMA, "partitionColumns": []}))


def survey(*versions: Sequence[ImportedAction], roots: Sequence[str] = ()) -> Survey:
    found = Survey("file:///t", Roots("file:///t", roots))
    for number, actions in enumerate(versions):
        found.version(Step(Kind.COMMIT, number), actions, path=f"{number}.json", file_ms=number)
    return found


class TestSurvey:
    def test_totals(self) -> None:
        """Live files are counted as Spark has them: the last word on a path, in any spelling, counts."""
        found = survey(
            [PROTOCOL, METADATA, add("a%20b", 10), add("c", 5)],
            [ImportedAction("remove", '{"path":"a b"}'), add("c", 7), add("d", 1)],
        )

        assert (found.totals.files, found.totals.bytes) == (2, 8)
        assert found.problems == []

    def test_features_that_readers_must_know(self) -> None:
        """An unknown reader feature, or an unknown protocol version, is named with version and file."""
        unknown = ImportedAction(
            "protocol",
            '{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["odd"],"writerFeatures":["odd"]}',
        )
        later = ImportedAction("protocol", '{"minReaderVersion":4,"minWriterVersion":7}')

        assert [str(p) for p in survey([PROTOCOL, METADATA], [unknown], [later]).problems] == [
            "version 1 (1.json): readers must know odd, and this release does not",
            "version 2 (2.json): protocol versions (4, 7) are none that this release knows",
        ]

    def test_paths_that_lead_out(self) -> None:
        """A file elsewhere stands against the import unless its root is allowed."""
        actions = [PROTOCOL, METADATA, add("file:///other/x")]

        assert "file:///other/x" in str(survey(actions).problems[0])
        assert survey(actions, roots=["/other"]).problems == []

    def test_no_protocol(self) -> None:
        """A log that never says its protocol tells no table."""
        with pytest.raises(TxnLogDeltaLogError, match="NO_PROTOCOL"):
            survey([METADATA])

    @pytest.mark.parametrize(
        ("told", "what"),
        [
            ({"numFiles": 1, "tableSizeBytes": 10}, None),
            ({"numFiles": 2, "tableSizeBytes": 10}, "files 1, where it says 2"),
            ({"numFiles": 1, "tableSizeBytes": 9}, "bytes 10, where it says 9"),
            (
                {"numFiles": 1, "tableSizeBytes": 10, "protocol": {"minReaderVersion": 2, "minWriterVersion": 5}},
                "another protocol",
            ),
            ({"garbage": True}, None),
        ],
    )
    def test_checksums(self, told: dict[str, Any], what: str | None) -> None:
        """A checksum that disagrees is told, and can be forced; one that cannot be read says nothing."""
        found = survey([PROTOCOL, METADATA, add("a", 10)])
        found.checksum(0, json.dumps(told).encode(), path="0.crc")

        assert [p.forcible for p in found.problems] == ([True] if what else [])
        assert what is None or what in str(found.problems[0])

    def test_in_commit_timestamps_count_where_they_are_on(self) -> None:
        """What a commit says of its time counts only under the property."""
        info = ImportedAction("commitInfo", '{"inCommitTimestamp":77,"engineInfo":"E"}')
        on = ImportedAction("metaData", json.dumps({"id": "m", "schemaString": SCHEMA, "configuration": {ICT: "true"}}))
        found = survey([info, PROTOCOL, METADATA], [info, on])

        assert [stamp.in_commit_ms for stamp in found.stamps] == [None, 77]
        assert [(w.engine, w.commits, w.newest) for w in found.writers.values()] == [("E", 2, 1)]
