"""Whatever valid sequence of actions a log holds, and in whatever form, it is read as what it says."""

from __future__ import annotations

import io
import json
import tempfile
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalakedb.deltalog import checkpoints, commits, state
from deltalakedb.deltalog.commits import parse_actions
from deltalakedb.deltalog.log import DeltaLog
from deltalakedb.deltalog.logical_files import TableRoot
from deltalakedb.events import ImportedAction
from deltalakedb.log_names import SIDECARS, checkpoint_path, log_folder, log_path
from deltalakedb.objectstore import NewObject, ObjectStore, open_object_store

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(_TEXTS, _JSON, max_size=4)
_KINDS = st.sampled_from(["add", "remove", "cdc", "metaData", "txn", "commitInfo", "domainMetadata"]) | _TEXTS
_LINE_ENDS = st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\r\n"])


@given(st.lists(st.tuples(_KINDS, _OBJECTS, st.booleans(), _LINE_ENDS), max_size=8), st.booleans(), st.data())
def test_actions_to_json_and_back_are_the_same(
    actions: list[tuple[str, dict[str, Any], bool, str]], mark: bool, data: st.DataObject
) -> None:
    """Any actions, in any spelling, one to a line or pretty-printed over several: each comes back byte for byte."""
    text, wanted = "\ufeff" if mark else "", []
    for kind, body, pretty, end in actions:
        ascii_only = data.draw(st.booleans())
        verbatim = json.dumps(body, indent=2 if pretty else None, ensure_ascii=ascii_only)
        wanted.append(ImportedAction(kind, verbatim))
        text += f"{{{json.dumps(kind)}:{verbatim}}}{end}"

    found = list(parse_actions(io.BytesIO(text.encode()), path="x", version=0))

    assert found == wanted


_PATHS = st.sampled_from(["a", "b", "p=1/c", "p=%C3%BC/d%20e", "f"])
_VECTORS = st.sampled_from([None, None, {"storageType": "u", "pathOrInlineDv": "v", "offset": 1}])
_FILES = st.builds(
    lambda kind, path, vector, size: (
        kind,
        {"path": path, "size": size, **({"deletionVector": vector} if vector else {})},
    ),
    st.sampled_from(["add", "add", "remove"]),
    _PATHS,
    _VECTORS,
    st.integers(0, 9),
)
_OTHERS = st.one_of(
    st.builds(lambda app, n: ("txn", {"appId": app, "version": n}), st.sampled_from(["x", "y"]), st.integers(0, 9)),
    st.builds(
        lambda name, text, removed: ("domainMetadata", {"domain": name, "configuration": text, "removed": removed}),
        st.sampled_from(["d", "e"]),
        _TEXTS,
        st.booleans(),
    ),
    st.builds(lambda text: ("metaData", {"id": text}), _TEXTS),
    st.builds(lambda n: ("protocol", {"minReaderVersion": 1, "minWriterVersion": n}), st.integers(2, 6)),
)
_COMMITS = st.lists(st.lists(_FILES | _FILES | _OTHERS, max_size=6), min_size=1, max_size=6)
_FIRST: list[tuple[str, Any]] = [
    ("protocol", {"minReaderVersion": 1, "minWriterVersion": 2}),
    ("metaData", {"id": "first"}),
]


def replayed(history: list[list[tuple[str, Any]]]) -> dict[str, Any]:
    """The state after `history`, by the book: forwards, with a map, the last word counts."""
    found: dict[str, Any] = {"files": {}, "txns": {}, "domains": {}}
    for commit in history:
        for kind, body in commit:
            match kind:
                case "add" | "remove":
                    found["files"][body["path"], "deletionVector" in body] = (kind, body)
                case "txn":
                    found["txns"][body["appId"]] = body
                case "domainMetadata":
                    found["domains"][body["domain"]] = body
                case _:
                    found[kind] = body
    found["domains"] = {name: body for name, body in found["domains"].items() if not body["removed"]}
    return found


def told(log: DeltaLog, version: int) -> dict[str, Any]:
    """The same, as the log tells it."""
    with log.state(version) as found:
        files: dict[Any, Any] = {}
        for action in found.files():
            body = json.loads(action.json)
            key = body["path"], "deletionVector" in body
            assert key not in files
            files[key] = (action.kind, body)
        return {
            "files": files,
            "txns": {name: json.loads(action.json) for name, action in found.txns.items()},
            "domains": {name: json.loads(action.json) for name, action in found.domains.items()},
            "protocol": json.loads(found.protocol.json),
            "metaData": json.loads(found.metadata.json),
        }


def put(store: ObjectStore, path: str, data: bytes) -> None:
    """An object with these bytes."""
    store.put_if_absent([NewObject(path, data)])


_VECTOR = pa.struct([("storageType", pa.string()), ("pathOrInlineDv", pa.string()), ("offset", pa.int32())])
_FILE = pa.struct([("path", pa.string()), ("size", pa.int64()), ("deletionVector", _VECTOR)])
_SHAPE = pa.schema(
    [
        ("add", _FILE),
        ("remove", _FILE),
        ("txn", pa.struct([("appId", pa.string()), ("version", pa.int64())])),
        (
            "domainMetadata",
            pa.struct([("domain", pa.string()), ("configuration", pa.string()), ("removed", pa.bool_())]),
        ),
        ("metaData", pa.struct([("id", pa.string())])),
        ("protocol", pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32())])),
        ("sidecar", pa.struct([("path", pa.string()), ("sizeInBytes", pa.int64())])),
    ]
)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """A Parquet file of these rows."""
    target = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SHAPE), target, row_group_size=2)
    return target.getvalue()


def write_checkpoint(store: ObjectStore, version: int, content: dict[str, Any], form: str) -> None:
    """The checkpoint of a version that says `content`, in one of the protocol's forms."""
    files: list[dict[str, Any]] = [{kind: body} for kind, body in content["files"].values()]
    heading: list[dict[str, Any]] = [
        *({"txn": body} for body in content["txns"].values()),
        {"metaData": content["metaData"]},
        *({"domainMetadata": body} for body in content["domains"].values()),
        {"protocol": content["protocol"]},
    ]
    start = f"{log_folder('')}{version:020}.checkpoint"
    unique = "80a083e8-7026-4e79-81be-64bd76c43a11"
    if form == "classic":
        put(store, checkpoint_path("", version), parquet([*files, *heading]))
    elif form == "parts":
        for part, rows in enumerate((files, [], heading), 1):
            put(store, f"{start}.{part:010}.{3:010}.parquet", parquet(rows))
    else:
        for n in (0, 1):
            put(store, f"{log_folder('')}{SIDECARS}/{version}-{n}.parquet", parquet(files[n::2]))
        heading += [{"sidecar": {"path": f"{version}-{n}.parquet", "sizeInBytes": 1}} for n in (0, 1)]
        if form == "v2 parquet":
            put(store, f"{start}.{unique}.parquet", parquet(heading))
        else:
            put(store, f"{start}.{unique}.json", "\n".join(map(json.dumps, heading)).encode())


@settings(max_examples=60, deadline=None)
@given(
    _COMMITS,
    st.dictionaries(st.integers(0, 5), st.sampled_from(["classic", "parts", "v2 parquet", "v2 json"]), max_size=2),
    st.integers(0, 5),
    st.sampled_from([0, 1 << 20]),
    st.sampled_from([0, 60, 1 << 20]),
)
def test_checkpoint_and_later_commits_equal_a_full_replay(
    history: list[list[tuple[str, Any]]], forms: dict[int, str], cleaned: int, held: int, text: int
) -> None:
    """Every version that can still be told is the same, from whatever it is told and however little is held in memory."""
    history = [_FIRST, *history]
    newest = len(history) - 1
    forms = {version: form for version, form in forms.items() if version <= newest}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (commits, checkpoints, state):
            patch.setattr(module, "HELD_BYTES", held)
        patch.setattr(state, "_HELD_TEXT", text)
        store = open_object_store(folder)
        for version, commit in enumerate(history):
            data = "".join(json.dumps({kind: body}) + "\n" for kind, body in commit)
            put(store, log_path("", version), data.encode())
        oldest = max((version for version in forms if version <= cleaned), default=-1)
        for version, form in forms.items():
            if version >= oldest:
                write_checkpoint(store, version, replayed(history[: version + 1]), form)
        store.delete([log_path("", version) for version in range(oldest)])
        log = DeltaLog(store)

        assert log.listing.reconstructible() == (range(max(oldest, 0), newest + 1),)
        for version in range(max(oldest, 0), newest + 1):
            assert told(log, version) == replayed(history[: version + 1])


_SEGMENTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6
)


@given(
    st.lists(_SEGMENTS.filter(lambda text: text.strip(".") != ""), min_size=1, max_size=3),
    st.sampled_from(["file", "s3"]),
)
def test_one_object_has_one_canonical_path(segments: list[str], scheme: str) -> None:
    """However a path is spelled (escaped or not, relative or absolute, with dots), it is the same file."""
    root = "file:///lake/my%20table" if scheme == "file" else "s3://bucket/my%20table"
    others = {
        "file": ["file:/lake/my%20table/", "file://localhost/lake/my%20table/", "/lake/my%20table/"],
        "s3": ["s3a://bucket/my%20table/", "s3n://bucket/my%20table/", "s3://bucket/./my%20table/"],
    }[scheme]
    plain = "/".join(segments)
    escaped = quote(plain)
    every = "".join(f"%{byte:02x}" if byte != ord("/") else "/" for byte in plain.encode())
    canonical = TableRoot(root).canonical

    assert canonical(escaped) == plain
    assert canonical(every) == plain
    assert canonical(f"./{escaped}") == canonical(f"x/../{escaped}") == plain
    for other in others:
        assert canonical(other + escaped) == plain
    assert canonical(f"../{escaped}") != plain
    assert canonical(f"s3://elsewhere/my%20table/{escaped}") != plain
