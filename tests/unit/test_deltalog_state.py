"""What a table is at a version, where writers were careless or files are broken."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from deltalakedb.deltalog.log import DeltaLog
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.log_names import checkpoint_path, log_path
from deltalakedb.objectstore import NewObject, ObjectStore, open_object_store

_PROTOCOL = ("protocol", {"minReaderVersion": 1, "minWriterVersion": 2})
_METADATA = ("metaData", {"id": "m", "schemaString": "{}"})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty folder whose name has to be escaped."""
    return open_object_store(str(tmp_path / "my table"))


def write(store: ObjectStore, version: int, *actions: tuple[str, Any]) -> None:
    """A commit with these actions, of the table in the folder `t 1%41`."""
    text = "".join(json.dumps({kind: body}) + "\n" for kind, body in actions)
    store.put_if_absent([NewObject(log_path("t 1%41", version), text.encode())])


def live(store: ObjectStore, version: int | None = None) -> Iterable[str]:
    """Paths of the live files, as they are written."""
    with DeltaLog(store, "t 1%41").state(version) as state:
        return sorted(json.loads(action.json)["path"] for action in state.files() if action.kind == "add")


def problem(store: ObjectStore, version: int | None = None) -> tuple[LogProblem, int | None]:
    """What keeps a version from being told, and where."""
    with pytest.raises(TxnLogDeltaLogError) as caught:
        live(store, version)
    return caught.value.problem, caught.value.version


def test_the_last_word_of_a_commit_counts(store: ObjectStore) -> None:
    """Added and removed in one commit, and the other way round: the order in the file decides, as for Spark."""
    write(store, 0, _PROTOCOL, _METADATA, ("add", {"path": "a"}), ("remove", {"path": "a"}))
    write(store, 1, ("remove", {"path": "b"}), ("add", {"path": "b", "size": 1}), ("add", {"path": "b", "size": 2}))

    assert live(store, 0) == []
    assert live(store) == ["b"]


def test_a_remove_ends_the_file_however_it_spells_the_path(store: ObjectStore) -> None:
    """Escaped or not, relative or absolute: it is the same object. A deletion vector makes it another file."""
    vector = {"storageType": "u", "pathOrInlineDv": "v"}
    spelled = ["a%20b", "p=1/%41", "./c", f"{store.root}/t%201%2541/d", "e", "f"]
    write(store, 0, _PROTOCOL, _METADATA, *(("add", {"path": path}) for path in spelled))
    assert len(list(live(store))) == 6
    absolute = f"{store.root.removeprefix('file://')}/t%201%2541/e"
    write(store, 1, *(("remove", {"path": path}) for path in ("a b", "p=1/A", "c", "d", absolute)))
    write(store, 2, ("remove", {"path": "f", "deletionVector": vector}))

    assert live(store) == ["f"]


def test_a_table_needs_protocol_and_metadata(store: ObjectStore) -> None:
    """They may come late; until then there is no table, and the error says which of them is missing."""
    write(store, 0, ("add", {"path": "a"}))
    write(store, 1, _METADATA)
    write(store, 2, _PROTOCOL)

    assert problem(store, 0) == (LogProblem.NO_PROTOCOL, 0)
    assert problem(store, 1) == (LogProblem.NO_PROTOCOL, 1)
    assert live(store) == ["a"]
    (path,) = [found.path for found in store.list("") if found.path.endswith("1.json")]
    store.delete([path])
    write(store, 1, ("add", {"path": "b"}))
    assert problem(store) == (LogProblem.NO_METADATA, 2)


@pytest.mark.parametrize(
    "protocol",
    [
        {"minReaderVersion": 4, "minWriterVersion": 7},
        {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors", "tomorrow"]},
        {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["catalogManaged"]},
    ],
)
def test_what_readers_must_know_is_refused_from_its_version_on(store: ObjectStore, protocol: dict[str, Any]) -> None:
    """Unknown to us, or decided by a catalog: refused where it comes, and not before. Writers' features are no matter."""
    tomorrow = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["the day after tomorrow"]}
    write(store, 0, _PROTOCOL, _METADATA, ("add", {"path": "a"}))
    write(store, 1, ("protocol", tomorrow))
    write(store, 2, ("protocol", protocol))
    write(store, 3, ("add", {"path": "b"}))

    assert live(store, 1) == ["a"]
    assert problem(store, 2) == (LogProblem.UNSUPPORTED_FEATURE, 2)
    assert problem(store) == (LogProblem.UNSUPPORTED_FEATURE, 2)


def test_a_broken_checkpoint_is_no_loss_while_the_commits_are_there(store: ObjectStore) -> None:
    """It says nothing that they do not say. Without them, it is what is broken, by name."""
    write(store, 0, _PROTOCOL, _METADATA, ("add", {"path": "a"}))
    write(store, 1, ("add", {"path": "b"}))
    write(store, 2, ("add", {"path": "c"}))
    store.put_if_absent([NewObject(checkpoint_path("t 1%41", 1), b"PAR1 no more than this PAR1")])
    with_commits = live(store)
    store.delete([log_path("t 1%41", 0)])

    assert with_commits == ["a", "b", "c"]
    with pytest.raises(TxnLogDeltaLogError, match=r"0001\.checkpoint\.parquet: it cannot be read") as caught:
        live(store)
    assert caught.value.problem is LogProblem.CORRUPT


def test_a_broken_commit_is_never_passed_over(store: ObjectStore) -> None:
    """What is no action of its kind names its file and version, whatever it is told from."""
    write(store, 0, _PROTOCOL, _METADATA)
    write(store, 1, ("add", {"size": 1}))
    assert problem(store) == (LogProblem.CORRUPT, 1)
    assert live(store, 0) == []
    for version, action in ((2, ("txn", {"version": 1})), (3, ("domainMetadata", {})), (4, ("protocol", {"x": 1}))):
        store.delete([log_path("t 1%41", n) for n in range(1, version)])
        for between in range(1, version):
            write(store, between)
        write(store, version, action)
        assert problem(store) == (LogProblem.CORRUPT, version)
