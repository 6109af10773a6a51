"""What every object store has to keep, on a local file system and on S3."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.objectstore import NewObject, ObjectStore, Put, open_object_store

spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Place:
    """An empty store's URI and options, for processes that open it themselves."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> ObjectStore:
        return open_object_store(self.uri, self.options)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "local":
        return Place((request.getfixturevalue("tmp_path") / "a root").as_uri())
    bucket = request.getfixturevalue("s3_bucket")
    return Place(bucket.uri("some/root"), bucket.storage_options)


@pytest.fixture
def store(place: Place) -> ObjectStore:
    return place.open()


def put(store: ObjectStore, path: str, data: bytes) -> Put:
    (answer,) = store.put_if_absent([NewObject(path, data)])
    return answer


def paths(store: ObjectStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [found.path for found in store.list(prefix, start_after=start_after)]


def run_processes(target: Callable[..., None], arguments: list[tuple[object, ...]]) -> None:
    """Run `target` in one new process per argument tuple, at once; all must end well."""
    processes = [spawn.Process(target=target, args=each, daemon=True) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)

    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_an_object_is_read_back_as_it_was_put(store: ObjectStore) -> None:
    """What was put is there, whole, under its path, with a tag and a plausible time."""
    answer = put(store, "t/_delta_log/00000000000000000000.json", b'{"a":1}\n')
    found = store.get("t/_delta_log/00000000000000000000.json")

    assert answer is Put.CREATED
    assert found is not None
    assert found.data == b'{"a":1}\n'
    assert found.tag
    assert abs(found.time_ms - os.stat(__file__).st_atime * 1000) < 10 * 365 * 86_400_000


def test_an_object_is_known_without_being_read(store: ObjectStore) -> None:
    """Size and time of one object are those that a listing shows; where nothing is, or only a folder, there is None."""
    put(store, "t/a file.parquet", b"12345")
    (listed,) = store.list("t/")

    assert store.info("t/a file.parquet") == listed
    assert [store.info(path) for path in ("t/another", "t", "t/a file.parquet/b")] == [None, None, None]


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    """Empty is not absent."""
    put(store, "empty", b"")
    found = store.get("empty")

    assert found is not None
    assert found.data == b""


def test_what_is_not_there_is_none(store: ObjectStore) -> None:
    """A missing object is no error, whether or not its folder is there."""
    put(store, "folder/there", b"x")

    assert store.get("folder/missing") is None
    assert store.get("nowhere/at/all") is None
    assert store.get("folder/there/below") is None


def test_an_object_is_never_overwritten_by_put_if_absent(store: ObjectStore) -> None:
    """The second put is told that something is there and changes nothing."""
    put(store, "x", b"first")
    answer = put(store, "x", b"second")
    found = store.get("x")

    assert answer is Put.EXISTS
    assert found is not None
    assert found.data == b"first"


def test_a_batch_stops_at_the_first_object_that_is_there(store: ObjectStore) -> None:
    """Nothing behind a taken name becomes visible, and the answers say how far it went."""
    put(store, "log/12", b"foreign")
    answers = store.put_if_absent([NewObject(f"log/{n}", b"ours") for n in range(10, 20)])

    assert answers == [Put.CREATED, Put.CREATED, Put.EXISTS]
    assert paths(store, "log/") == ["log/10", "log/11", "log/12"]


def test_a_batch_is_put_whole(store: ObjectStore) -> None:
    """A batch of more objects than one flush per file is worth is put in full."""
    answers = store.put_if_absent([NewObject(f"log/{n:03}", bytes([n])) for n in range(30)])

    assert answers == [Put.CREATED] * 30
    assert [store.get(f"log/{n:03}").data for n in range(30)] == [bytes([n]) for n in range(30)]  # type: ignore[union-attr]


def test_no_objects_are_no_work(store: ObjectStore) -> None:
    """An empty batch gives no answers."""
    assert store.put_if_absent([]) == []


def _race_to_put(place: Place, me: int, names: list[str], won: Path) -> None:
    store = place.open()
    mine = [name for name in names if put(store, name, b"%d" % me * 1000) is Put.CREATED]
    (won / str(me)).write_text("\n".join(mine))


def test_of_many_processes_exactly_one_creates_an_object(place: Place, tmp_path: Path) -> None:
    """Eight processes put the same names: each name has one winner, and holds the winner's bytes."""
    names = [f"race/{n:02}" for n in range(40)]
    won = tmp_path / "won"
    won.mkdir()
    run_processes(_race_to_put, [(place, me, random.sample(names, len(names)), won) for me in range(8)])
    winners = [(name, me) for me in range(8) for name in (won / str(me)).read_text().split()]
    store = place.open()

    assert sorted(name for name, _ in winners) == names
    assert [store.get(name).data for name, _ in winners] == [b"%d" % me * 1000 for _, me in winners]  # type: ignore[union-attr]


def test_replacing_needs_the_tag_of_what_is_there(store: ObjectStore) -> None:
    """Compare-and-swap: the current tag replaces, an old one does not, and none at all means "create"."""
    created = store.put_if_match("doc", b"1", None)
    again = store.put_if_match("doc", b"never", None)
    first = store.get("doc")
    assert first is not None
    replaced = store.put_if_match("doc", b"2", first.tag)
    stale = store.put_if_match("doc", b"never", first.tag)
    absent = store.put_if_match("other", b"never", first.tag)
    found = store.get("doc")

    assert (created, again, replaced, stale, absent) == (Put.CREATED, Put.EXISTS, Put.CREATED, Put.EXISTS, Put.EXISTS)
    assert found is not None
    assert found.data == b"2"
    assert store.get("other") is None


def _count_up(place: Place, times: int) -> None:
    store = place.open()
    for _ in range(times):
        while True:
            found = store.get("counter")
            assert found is not None
            if store.put_if_match("counter", b"%d" % (int(found.data) + 1), found.tag) is Put.CREATED:
                break


def test_no_replacement_is_lost_between_processes(place: Place) -> None:
    """Four processes count up by compare-and-swap: every success is counted once."""
    place.open().put_if_match("counter", b"0", None)
    run_processes(_count_up, [(place, 15)] * 4)
    found = place.open().get("counter")

    assert found is not None
    assert found.data == b"60"


def test_listing_is_in_byte_order_of_paths(store: ObjectStore) -> None:
    """Order is that of the paths' UTF-8 bytes, folders included, and starts behind `start_after`."""
    names = ["a", "a!b/x", "a/1", "a/2/z", "a/2!", "a0", "b/ä", "b/z", "Z/é", "é"]
    for name in random.sample([n for n in names if n != "a"], len(names) - 1):
        put(store, name, b"x")
    expected = sorted((n for n in names if n != "a"), key=str.encode)

    assert paths(store) == expected
    assert paths(store, "a/") == ["a/1", "a/2!", "a/2/z"]
    assert paths(store, "none/") == []
    for start in [*expected, "a/2", "a/2/", "a!", "b", ""]:
        assert paths(store, start_after=start) == [n for n in expected if n.encode() > start.encode()]


def test_listing_tells_sizes(store: ObjectStore) -> None:
    """A listed object carries its size in bytes."""
    put(store, "l/x", b"12345")

    assert [(found.path, found.size) for found in store.list("l/")] == [("l/x", 5)]


def test_listing_goes_on_over_pages(store: ObjectStore) -> None:
    """A folder of more objects than one answer holds is listed whole, and deleted whole."""
    names = [f"many/{n:05}" for n in range(1_030)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda part: store.put_if_absent([NewObject(n, b"") for n in part]), _parts(names, 16)))
    listed = paths(store, "many/")
    store.delete([*names, "many/not-there"])

    assert listed == names
    assert paths(store, "many/") == []


def _parts(names: list[str], count: int) -> list[list[str]]:
    return [names[start::count] for start in range(count)]


@pytest.mark.parametrize(
    "name",
    [
        "ä ö/ü.json",
        "100%.txt",
        "a%20b",
        "plus+sign",
        "hash#question?.x",
        "q'uote\"",
        "日本/語",
        "semi;colon=,&",
        "~tilde",
    ],
)
def test_paths_are_taken_as_they_are(store: ObjectStore, name: str) -> None:
    """No character of a path is decoded, encoded or cut on its way."""
    put(store, f"odd/{name}", b"x")
    found = store.get(f"odd/{name}")

    assert found is not None
    assert paths(store, "odd/") == [f"odd/{name}"]


def test_a_large_file_is_put_if_absent(store: ObjectStore, tmp_path: Path) -> None:
    """A file larger than one request goes up whole, once, and comes down as it was."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(1).randbytes(70 * 1024 * 1024))
    first = store.put_file_if_absent("big/file", source)
    second = store.put_file_if_absent("big/file", source)
    store.download("big/file", target)

    assert (first, second) == (Put.CREATED, Put.EXISTS)
    assert target.read_bytes() == source.read_bytes()


def test_a_small_file_is_put_if_absent(store: ObjectStore, tmp_path: Path) -> None:
    """The same for a file that one request can take."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"small")
    first = store.put_file_if_absent("small/file", source)
    second = store.put_file_if_absent("small/file", source)
    store.download("small/file", target)

    assert (first, second) == (Put.CREATED, Put.EXISTS)
    assert target.read_bytes() == b"small"


def test_downloading_what_is_not_there_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    """The error names the object and the root."""
    with pytest.raises(TxnLogObjectStoreError, match="no/such"):
        store.download("no/such", tmp_path / "target")


def test_a_probe_passes_and_leaves_nothing(store: ObjectStore) -> None:
    """The store keeps put-if-absent, and the trial objects are gone afterwards."""
    store.probe()

    assert paths(store) == []


def test_many_threads_share_a_store(store: ObjectStore) -> None:
    """A store is used by many threads at once."""
    begin = threading.Barrier(8)

    def work(me: int) -> list[Put]:
        begin.wait()
        return [put(store, f"thread-{me}/{n}", b"x" * n) for n in range(20)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(8)))

    assert answers == [[Put.CREATED] * 20] * 8
    assert len(paths(store)) == 160


FORKS = """
import json, os, sys
from deltalakedb.objectstore import NewObject, Put, open_object_store

def put(path):
    return store.put_if_absent([NewObject(path, b"x")]) == [Put.CREATED]

store = open_object_store(sys.argv[1], json.loads(sys.stdin.read()))
assert put("parent/1")
if not (child := os.fork()):
    os._exit(0 if put("child/1") and store.get("parent/1") is not None else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == 0, status
assert put("parent/2")
"""


def test_a_store_works_on_both_sides_of_a_fork(place: Place, store: ObjectStore) -> None:
    """A forked process shares no connection and no temporary file with its parent."""
    command = [sys.executable, "-c", FORKS, place.uri]

    ran = subprocess.run(command, input=json.dumps(dict(place.options)), text=True, capture_output=True, check=False)

    assert ran.returncode == 0, ran.stderr
    assert paths(store) == ["child/1", "parent/1", "parent/2"]


def test_a_root_shows_no_credentials(place: Place, store: ObjectStore) -> None:
    """The root is the URI it was opened with, and nothing of the options is in it."""
    assert store.root == place.uri
    assert all(value not in repr(store) for name, value in place.options.items() if "SECRET" in name)
