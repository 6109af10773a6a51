"""Tables that were imported, as a store keeps them and the catalog tells of them, on every engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltalakedb.actions import as_json
from deltalakedb.catalog import Catalog
from deltalakedb.database import Database
from deltalakedb.errors import TxnLogTableNotFoundError, TxnLogValidationError
from deltalakedb.events import Control, LakeAction, TableWork
from deltalakedb_committer.deciding.decisions import Imported, Rejection
from deltalakedb_committer.storing.store import SqlCommitStore
from deltalakedb_mirror_worker import status
from tests import direct, imports
from tests.direct import ROOT, START_MS, DirectCommitter, dump, made, txn
from tests.imports import BEGIN_MS, LOCATION, PROTOCOL, Body, add, info, metadata, remove
from tests.properties.strategies import FOUND
from tests.stores import address, database

__all__ = ["address", "database"]


@pytest.fixture
def store(database: Database) -> SqlCommitStore:
    return made(database)


@pytest.fixture
def committer(store: SqlCommitStore) -> DirectCommitter:
    return DirectCommitter(store)


def version(number: int, *chunks: Sequence[Body], **more: Any) -> list[Any]:
    """A version of the table, which takes every chunk."""
    return list(imports.version(number, *chunks, root=ROOT, **more))


def take(committer: DirectCommitter, *events: Any) -> None:
    """Have events decided as one batch; each is taken."""
    for decision in committer.apply(events):
        assert isinstance(decision, Imported), decision


def whole(committer: DirectCommitter) -> None:
    """Versions 0 to 2, and the adoption as version 3."""
    take(
        committer,
        *version(0, [info("CREATE"), PROTOCOL, metadata(), add("a"), add("b")]),
        *version(1, [info("DELETE"), remove("a", size=100)]),
        *version(2, [info("WRITE"), add("c")]),
        *version(3, [info("ADOPT"), PROTOCOL], kind="ADOPTION"),
    )


def paths(database: Database, **at: Any) -> list[str]:
    """Live paths of the table at a version."""
    catalog = Catalog(database)
    with database.snapshot():
        batches = list(catalog.files(catalog.table("old", **at), names=("path",)))
    return paths_in(batches)


def paths_in(batches: Sequence[pa.RecordBatch]) -> list[str]:
    """The column of paths."""
    return sorted(str(path) for batch in batches for path in batch.column("path").to_pylist())


def test_what_was_imported_is_given_back(database: Database, committer: DirectCommitter) -> None:
    """Every action with every field, of each kind, in chunks or not; what a version took back itself is no part of it."""
    vector = {"storageType": "i", "pathOrInlineDv": "wi5b=000010000siXQKl0rr", "sizeInBytes": 40, "cardinality": 6}
    bodies: list[Body] = [
        ("commitInfo", {"operation": "WRITE", "timestamp": 7, "own": {"a": [1]}}),
        ("protocol", {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["appendOnly"], "new": 1}),
        metadata(name="n", description="d", createdTime=4, configuration={"k": "v"}, later=[2]),
        ("txn", {"appId": "app", "version": 3, "lastUpdated": 9, "t": None}),
        ("domainMetadata", {"domain": "d", "configuration": "{}", "removed": False, "e": True}),
        add("a", tags={"k": None}, baseRowId=0, defaultRowCommitVersion=0, clusteringProvider="c", unknown={"x": 1}),
        add("b%20c", deletionVector={**vector, "maxRowIndex": 3}),
        add("again"),
        add("again", size=5),
        remove("gone", partitionValues={}, size=3, extendedFileMetadata=True, tags={}, stats="{}", other=1),
        ("cdc", {"path": "_change_data/c", "partitionValues": {}, "size": 5, "dataChange": False, "z": "z"}),
        ("someday", {"any": ["thing"]}),
    ]
    take(committer, *version(0, bodies[:6], bodies[6:9], bodies[9:]))

    with database.snapshot():
        (found,) = Catalog(database).versions([(1, 0, 0)])
        streamed = list(Catalog(database).adds(1, 0))

    expected = [(kind, body) for kind, body in bodies if body != add("again")[1]]
    given: dict[str, Sequence[Any]] = {
        "protocol": [found.protocol],
        "metaData": [found.metadata],
        "txn": found.txns,
        "domainMetadata": found.domains,
        "add": found.adds,
        "remove": found.removes,
        "cdc": found.cdc,
    }
    for kind, actions in given.items():
        bare = [json.loads(msgspec.json.encode(as_json(kind, action))) for action in actions]
        assert bare == [body for of, body in expected if of == kind], kind
    assert tuple(streamed) == found.adds
    assert [(other.kind, json.loads(other.json)) for other in found.others] == [("someday", {"any": ["thing"]})]
    assert json.loads(found.row.commit_info or "") == {"timestamp": 7, "own": {"a": [1]}}
    assert (found.row.origin, found.row.operation, found.row.added_files) == ("IMPORTED", "WRITE", 4)


def test_an_import_goes_on_where_it_stopped(database: Database, store: SqlCommitStore) -> None:
    """Whoever leads next: the chunks that came are there, seen by nobody, and the next one follows them."""
    chunks = [[info(), PROTOCOL, metadata(), add("a")], [add("b"), remove("a")], [add("c"), remove("b")]]
    for event in version(0, *chunks):
        with pytest.raises(TxnLogTableNotFoundError):
            Catalog(database).table("old")
        take(DirectCommitter(store), event)
        assert DirectCommitter(store).apply([event])[0].position  # once more, by yet another one: nothing happens

    apart = dump(database)
    assert paths(database) == ["c"]
    assert database.query("SELECT * FROM dl_imports") == []
    assert {name for name, rows in apart.items() if not rows} >= {"dl_imports", "dl_staged_chunks", "dl_commits"}


def test_batches_do_not_show(database: Database, committer: DirectCommitter) -> None:
    """Files that come and go within a batch end up where they end up one by one."""
    whole(committer)

    assert paths(database) == ["b", "c"]
    assert [paths(database, version=n) for n in range(4)] == [["a", "b"], ["b"], ["b", "c"], ["b", "c"]]


def test_an_imported_table_is_read_at_its_versions_and_times(database: Database, committer: DirectCommitter) -> None:
    """Also those before the lake knew it; by its own times, and at commits of the lake from its adoption on."""
    committer.commit(direct.create("mine"))
    whole(committer)
    committer.commit(TableWork(name="old", read_version=3, adds=(direct.add("d"),)))
    catalog = Catalog(database)

    def at(**when: Any) -> int:
        return catalog.table("old", **when).version

    assert [at(timestamp_ms=BEGIN_MS + 1000 * n + ms) for n, ms in ((0, 0), (0, 999), (1, 0), (3, 0), (3, 10))] == [
        *(0, 0, 1, 3, 3)
    ]
    assert (at(timestamp_ms=START_MS + 10**6), at(commit_seq=3), at(commit_seq=2), at()) == (4, 4, 3, 4)
    assert catalog.table("old", version=1).commit_seq is None
    assert [info.name for info in catalog.tables(commit_seq=1)] == ["mine"]
    assert [info.name for info in catalog.tables(commit_seq=2)] == ["mine", "old"]
    with pytest.raises(TxnLogValidationError, match="begins at"):
        at(timestamp_ms=BEGIN_MS - 1)
    with pytest.raises(TxnLogTableNotFoundError, match="made by commit 2"):
        at(commit_seq=1)


def test_a_table_that_is_being_imported_is_read_by_itself(database: Database, committer: DirectCommitter) -> None:
    """It is part of no commit, so of no snapshot but the newest, which asks for it by name and version."""
    committer.commit(direct.create("mine"))
    take(committer, *version(0, [PROTOCOL, metadata(), add("a")]))
    catalog = Catalog(database)

    assert paths(database) == ["a"]
    assert catalog.importing() == {"old": (imports.IMPORT_ID, 0)}
    assert [info.name for info in catalog.tables()] == ["mine", "old"]
    assert [info.name for info in catalog.tables(commit_seq=1)] == ["mine"]
    with pytest.raises(TxnLogTableNotFoundError, match="being imported"):
        catalog.table("old", commit_seq=1)
    take(committer, *version(1, [info()], kind="ADOPTION"))
    assert catalog.importing() == {}


def test_history_is_told_and_never_read(database: Database, committer: DirectCommitter) -> None:
    """Versions below the baseline are refused by name, and nothing of them is in force above it."""
    later = {"deletionTimestamp": START_MS}
    take(
        committer,
        *version(3, [add("a"), ("txn", {"appId": "h", "version": 1})], kind="HISTORY"),
        *version(4, [remove("a", **later), ("domainMetadata", {"domain": "h", "configuration": ""})], kind="HISTORY"),
    )
    catalog = Catalog(database)
    assert catalog.tables() == []
    assert catalog.importing() == {}
    assert catalog.progress("in-place") == []
    with pytest.raises(TxnLogTableNotFoundError, match="no version of it can be read yet"):
        catalog.table("old")

    take(
        committer,
        *version(5, [PROTOCOL, metadata(), add("b"), remove("a", **later), remove("z", **later)], kind="BASELINE"),
        *version(6, [remove("z", **later), remove("b", **later), add("z")]),
        *version(7, [remove("z", **later), remove("z", **later), remove("y", **later), add("y"), add("q")]),
    )

    table = catalog.table("old")
    assert (table.first_version, catalog.oldest_version(1)) == (5, 5)
    assert (catalog.txns(1, 7), catalog.domains(1, 7)) == ([], [])
    for number in (3, 4):
        with pytest.raises(TxnLogValidationError, match=f"version {number} .*history only.*is 5"):
            catalog.table("old", version=number)
    with pytest.raises(TxnLogValidationError, match="versions 5 to 7"):
        catalog.table("old", version=2)
    with pytest.raises(TxnLogValidationError, match="begins at"):
        catalog.table("old", timestamp_ms=BEGIN_MS + 4500)
    assert [row.origin for row in catalog.history(1)] == ["IMPORTED", "IMPORTED", "BASELINE", "HISTORY", "HISTORY"]
    with database.snapshot():
        batches = list(catalog.tombstones(table, after_ms=START_MS - 1))
    assert paths_in(batches) == ["a", "b", "z"]
    assert paths(database) == ["q", "y"]


def test_a_mirror_begins_with_what_is_ours_or_can_be_told(database: Database, committer: DirectCommitter) -> None:
    """In the table's own place with the adopted version, elsewhere with the oldest one that can be read."""
    take(
        committer,
        *version(4, [add("a")], kind="HISTORY"),
        *version(5, [PROTOCOL, metadata(), add("b")], kind="BASELINE"),
        *version(6, [info()], kind="ADOPTION"),
    )
    with database.transaction():
        status.add_missing(database, "in-place", in_place=True, now_ms=1)
        status.add_missing(database, "copy", in_place=False, now_ms=1)

    first = {
        target: [row.status.publish_from for row in Catalog(database).progress(target) if row.status is not None]
        for target in ("in-place", "copy")
    }
    assert first == {"in-place": [6], "copy": [5]}


def test_a_dropped_import_leaves_its_place(database: Database, committer: DirectCommitter) -> None:
    """Name and location are free again at once, also within the batch."""
    take(committer, *version(0, [PROTOCOL, metadata()], [add("a")])[:1])
    drop = Control(
        control_id=txn(5), lake_id=direct.LAKE_ID, client_id="c", command=LakeAction(action="drop", table="old")
    )
    again = version(0, [PROTOCOL, metadata(), add("b")], import_id=txn(6))
    committer.apply([drop, *again])

    assert database.query("SELECT * FROM dl_imports") == []
    assert [(state, place) for state, place in database.query("SELECT state, location FROM dl_tables ORDER BY 1")] == [
        ("DROPPED", LOCATION),
        ("IMPORTING", LOCATION),
    ]
    assert Catalog(database).table("old").table_id == txn(6)
    assert paths(database) == ["b"]


@given(st.lists(FOUND, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_found_can_be_written(committer: DirectCommitter, bodies: list[Body]) -> None:
    """Or it was refused: no row of somebody else's log stops the lake, in any store."""
    name = f"t{committer.cursor.position}"
    own: dict[str, Any] = {"import_id": txn(committer.cursor.position + 100), "table_name": name}
    own["location"] = f"file:///elsewhere/{name}"
    committer.apply(version(0, [PROTOCOL, metadata(), add("a")], **own))

    for decision in committer.apply(version(1, [info()], bodies, **own)):
        assert isinstance(decision, Imported | Rejection)


def test_targets_are_rows(database: Database, committer: DirectCommitter) -> None:
    """A later committer knows them."""

    def act(number: int, action: str, **parameters: str) -> None:
        command = LakeAction(action=action, target="t", parameters=parameters)
        DirectCommitter(committer.store).apply(
            [Control(control_id=txn(number), lake_id=direct.LAKE_ID, client_id="c", command=command)]
        )

    act(1, "target-add", kind="replica", root="s3://there")
    act(2, "target-pause")

    (target,) = [target for target in Catalog(database).targets() if target.target == "t"]
    assert (target.kind, target.root, target.state, target.added_seq) == ("replica", "s3://there", "PAUSED", 0)
