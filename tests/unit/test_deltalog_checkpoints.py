"""Checkpoints as streams of actions."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltalakedb.deltalog import checkpoints, commits
from deltalakedb.deltalog.arrow_values import values
from deltalakedb.deltalog.checkpoints import CheckpointReader
from deltalakedb.deltalog.listing import list_log
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.events import ImportedAction
from deltalakedb.log_names import checkpoint_path
from deltalakedb.objectstore import ObjectStore, open_object_store

_MAP = pa.map_(pa.string(), pa.string())
_UUID = "80a083e8-7026-4e79-81be-64bd76c43a11"
_PROTOCOL = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["x"], "writerFeatures": ["x"]}
_SCHEMA = json.dumps(
    {
        "type": "struct",
        "fields": [
            {"name": "wall", "type": "timestamp_ntz", "nullable": True, "metadata": {}},
            {"name": "at", "type": "timestamp", "nullable": True, "metadata": {}},
        ],
    }
)
_METADATA = {
    "id": "m",
    "format": {"provider": "parquet", "options": []},
    "schemaString": _SCHEMA,
    "partitionColumns": ["p"],
    "configuration": [("k", "v")],
}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A table's folder."""
    (tmp_path / "_delta_log" / "_sidecars").mkdir(parents=True)
    return open_object_store(str(tmp_path))


def write(store: ObjectStore, name: str, rows: Iterable[Any], **options: Any) -> None:
    """A Parquet file in the log of the table in `store`."""
    path = Path(store.root.removeprefix("file://")) / "_delta_log" / name
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=options.pop("schema", None))
    pq.write_table(table, path, **options)


def read(store: ObjectStore, version: int = 4) -> tuple[list[ImportedAction], list[ImportedAction]]:
    """Heading and files of the best checkpoint of a version."""
    with CheckpointReader(store, "", list_log(store, "").checkpoints[version][0]) as reader:
        return reader.heading(), list(reader.files())


def objects(actions: Iterable[ImportedAction]) -> list[tuple[str, Any]]:
    """Kind and JSON of actions."""
    return [(action.kind, json.loads(action.json)) for action in actions]


def add_type(**more: pa.DataType) -> pa.DataType:
    """The struct of an add, with some fields more."""
    fields = {"path": pa.string(), "partitionValues": _MAP, "size": pa.int64(), "dataChange": pa.bool_(), **more}
    return pa.struct(list(fields.items()))


_HEADING = pa.schema(
    [
        ("protocol", pa.struct([(n, pa.int64()) for n in ("minReaderVersion", "minWriterVersion")])),
        ("txn", pa.struct([("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())])),
        ("metaData", pa.struct([("id", pa.string()), ("schemaString", pa.string()), ("configuration", _MAP)])),
    ]
)


def test_rows_become_the_json_of_a_log_file(store: ObjectStore) -> None:
    """The protocol's names, null as absent, maps as objects with their nulls, text as it was; unknown fields too."""
    vector = pa.struct([("storageType", pa.string()), ("pathOrInlineDv", pa.string()), ("offset", pa.int32())])
    add = add_type(stats=pa.string(), deletionVector=vector, novelty=pa.list_(pa.struct([("a", pa.int8())])))
    stats = '{"numRecords": 1.0e0 ,"x":"ü\\u00fc"}'
    rows = [
        {"add": {"path": "p=%20/ü", "partitionValues": [("p", " "), ("q", None)], "size": 2**53 + 1, "stats": stats}},
        {"txn": {"appId": 'a"\\', "version": -1}},
        {"add": {"path": "b", "deletionVector": {"storageType": "u", "pathOrInlineDv": "x"}, "novelty": [{"a": 1}]}},
        {"add": {"path": "c", "partitionValues": [], "deletionVector": {}, "dataChange": False}},
        {"unheard": {"of": 1}},
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"flag": True},
    ]
    schema = pa.unify_schemas([_HEADING, pa.schema([("add", add), ("unheard", pa.struct([("of", pa.int32())]))])])
    write(store, f"{4:020}.checkpoint.parquet", rows, schema=schema.append(pa.field("flag", pa.bool_())))

    heading, files = read(store)

    assert objects(heading) == [
        ("protocol", {"minReaderVersion": 1, "minWriterVersion": 2}),
        ("txn", {"appId": 'a"\\', "version": -1}),
        ("unheard", {"of": 1}),
    ]
    assert objects(files) == [
        ("add", {"path": "p=%20/ü", "partitionValues": {"p": " ", "q": None}, "size": 2**53 + 1, "stats": stats}),
        ("add", {"path": "b", "deletionVector": {"storageType": "u", "pathOrInlineDv": "x"}, "novelty": [{"a": 1}]}),
        ("add", {"path": "c", "partitionValues": {}, "dataChange": False}),
    ]


def test_two_actions_in_one_row_are_two(store: ObjectStore) -> None:
    """Kernel readers take both, so both count."""
    both = {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}, "metaData": {"id": "m"}}
    write(store, f"{4:020}.checkpoint.parquet", [both], schema=_HEADING)

    assert [action.kind for action in read(store)[0]] == ["protocol", "metaData"]


@pytest.mark.parametrize("name", ["item", "array", "element"])
@pytest.mark.parametrize("large", [False, True])
def test_any_form_of_lists_and_numbers(store: ObjectStore, name: str, large: bool) -> None:
    """However a writer calls the elements of a list, whatever its text type and the width of version numbers."""
    text = pa.large_string() if large else pa.string()
    listed = pa.list_(pa.field(name, text))
    shape = [("minReaderVersion", pa.int64() if large else pa.int32()), ("minWriterVersion", pa.int16())]
    protocol = pa.struct([*shape, ("readerFeatures", listed), ("writerFeatures", listed)])
    write(
        store,
        f"{4:020}.checkpoint.parquet",
        [{"protocol": _PROTOCOL}],
        schema=pa.schema([("protocol", protocol)]),
        use_compliant_nested_type=name == "element",
        compression="zstd",
        data_page_version="2.0",
    )

    assert objects(read(store)[0]) == [("protocol", _PROTOCOL)]


def test_statistics_that_are_only_typed_become_exact_text(store: ObjectStore) -> None:
    """Every digit of decimals and microseconds; time zones by the table's schema; what JSON cannot say is left out."""
    bounds: dict[str, pa.DataType] = {
        "l": pa.int64(), "f": pa.float32(), "d": pa.float64(), "dec": pa.decimal128(38, 10), "z": pa.decimal128(5, 0),
        "s": pa.string(), "day": pa.date32(), "at": pa.timestamp("us", "UTC"), "wall": pa.timestamp("us"),
        "old": pa.timestamp("ns"), "b": pa.binary(), "n": pa.struct([("x", pa.int32())]), "nothing": pa.int32(),
    }  # fmt: skip
    utc, wall = datetime.datetime(2024, 2, 29, 1, 2, 3, 4_000, datetime.UTC), datetime.datetime(1, 1, 1, 0, 0, 0, 1)  # noqa: DTZ001
    low = {
        "l": -(2**63), "f": 0.5, "d": float("nan"), "dec": Decimal("-0.0000000001"), "z": Decimal(7), "s": 'a"\n',
        "day": datetime.date(9999, 12, 31), "at": utc, "wall": wall, "old": 1_500, "b": b"\xff", "n": {"x": 1},
    }  # fmt: skip
    high = {**low, "d": float("inf"), "dec": Decimal("1e20"), "n": {"x": None}}
    struct = pa.struct(list(bounds.items()))
    parsed = pa.struct(
        [("numRecords", pa.int64()), ("minValues", struct), ("maxValues", struct), ("tightBounds", pa.bool_())]
    )
    rows = [
        {"metaData": {"id": "m", "schemaString": _SCHEMA}},
        {"add": {"path": "a", "stats_parsed": {"numRecords": 3, "minValues": low, "maxValues": high}}},
        {"add": {"path": "b", "stats": "{ }", "stats_parsed": {"numRecords": 9}}},
        {"add": {"path": "c", "stats_parsed": {"numRecords": 1, "tightBounds": False}}},
        {"add": {"path": "d", "stats_parsed": {}}},
        {"add": {"path": "e"}},
    ]
    schema = _HEADING.append(pa.field("add", add_type(stats=pa.string(), stats_parsed=parsed)))
    write(store, f"{4:020}.checkpoint.parquet", rows, schema=schema)

    _, files = read(store)
    texts = [json.loads(action.json).get("stats") for action in files]

    common = '"l":-9223372036854775808,"f":0.5,"dec":%s,"z":7,"s":"a\\"\\n","day":"9999-12-31","at":"%s","wall":"%s","old":"%s"'
    wanted_low = common % (
        "-0.0000000001", "2024-02-29T01:02:03.004Z", "0001-01-01T00:00:00.000001", "1970-01-01T00:00:00.000001Z",
    )  # fmt: skip
    wanted_high = common % (
        "100000000000000000000.0000000000", "2024-02-29T01:02:03.004Z", "0001-01-01T00:00:00.000001",
        "1970-01-01T00:00:00.000002Z",
    )  # fmt: skip
    assert texts == [
        f'{{"numRecords":3,"minValues":{{{wanted_low},"n":{{"x":1}}}},"maxValues":{{{wanted_high},"n":{{}}}}}}',
        "{ }",
        '{"numRecords":1,"tightBounds":false}',
        None,
        None,
    ]


def test_times_beyond_iso_8601_are_left_out() -> None:
    """A bound that has no text of its own is none: never a wrong one, never a failure."""
    ticks = pa.array([2**63 - 1, -(2**63), 253_402_300_799_999_999, -62_135_596_800_000_000], pa.int64())
    array = ticks.cast(pa.timestamp("us", "UTC"))

    assert values(array) == [None, None, "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00.000Z"]


def test_typed_statistics_are_read_only_where_they_are_needed(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as every file has the text, the typed form is not even decoded; from where on one has not, it is."""
    asked: list[bool] = []
    read_columns = checkpoints._read

    def spy(parquet: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
        asked.append(any("parsed" in name for name in columns))
        return read_columns(parquet, columns)

    monkeypatch.setattr(checkpoints, "_read", spy)
    monkeypatch.setattr(checkpoints, "_BATCH_ROWS", 2)
    parsed = pa.struct([("numRecords", pa.int64())])
    schema = pa.schema([("add", add_type(stats=pa.string(), stats_parsed=parsed, partitionValues_parsed=parsed))])
    files = [{"add": {"path": f"f{n}", "stats": f"{{{n}}}", "stats_parsed": {"numRecords": n}}} for n in range(9)]
    rows: list[dict[str, Any]] = [*files[:3], {"add": None}, *files[3:]]
    without = {"add": {"path": "typed", "stats_parsed": {"numRecords": 77}}}
    write(store, f"{4:020}.checkpoint.parquet", rows, schema=schema)
    for version, place in enumerate((0, 3, 6, 10), 5):
        write(store, f"{version:020}.checkpoint.parquet", [*rows[:place], without, *rows[place:]], schema=schema)

    texts = {v: {a["path"]: a["stats"] for _, a in objects(read(store, v)[1])} for v in range(4, 9)}
    plain = {f"f{n}": f"{{{n}}}" for n in range(9)}
    assert texts == {4: plain, **dict.fromkeys(range(5, 9), plain | {"typed": '{"numRecords":77}'})}
    assert asked == [False, False, *[False, False, True] * 4]


@pytest.mark.parametrize("held", [commits.HELD_BYTES, 0])
@pytest.mark.parametrize("form", ["classic", "parts", "unique.parquet", "unique.json"])
def test_every_form_says_the_same(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, form: str, held: int) -> None:
    """One file, parts, a V2 file in Parquet or JSON with its files in sidecars: the same actions, held or copied."""
    for module in (commits, checkpoints):
        monkeypatch.setattr(module, "HELD_BYTES", held)
    protocol = {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    adds = [{"add": {"path": f"f{n}", "size": n}} for n in range(10)]
    schema = _HEADING.append(pa.field("add", add_type()))
    sidecar = pa.struct([("path", pa.string()), ("sizeInBytes", pa.int64())])
    v2 = pa.schema([*_HEADING, ("sidecar", sidecar), ("checkpointMetadata", pa.struct([("version", pa.int64())]))])
    sidecars = [{"sidecar": {"path": f"side%20{n}.parquet", "sizeInBytes": 1}} for n in (1, 2)]
    main = [protocol, {"checkpointMetadata": {"version": 4}}, *sidecars]
    if form == "classic":
        write(store, f"{4:020}.checkpoint.parquet", [protocol, *adds], schema=schema, row_group_size=3)
    elif form == "parts":
        write(store, f"{4:020}.checkpoint.{1:010}.{2:010}.parquet", adds[:4], schema=schema)
        write(store, f"{4:020}.checkpoint.{2:010}.{2:010}.parquet", [protocol, *adds[4:]], schema=schema)
    else:
        side = pa.schema([("add", add_type()), ("remove", pa.struct([("path", pa.string())]))])
        write(store, "_sidecars/side 1.parquet", adds[:4], schema=side)
        write(store, "_sidecars/side 2.parquet", adds[4:], schema=side)
        if form == "unique.parquet":
            write(store, f"{4:020}.checkpoint.{_UUID}.parquet", main, schema=v2)
        else:
            path = Path(store.root.removeprefix("file://")) / "_delta_log" / f"{4:020}.checkpoint.{_UUID}.json"
            path.write_text("\n".join(json.dumps(row) for row in main))

    heading, files = read(store)

    assert objects(heading) == list(protocol.items())
    assert objects(files) == [("add", row["add"]) for row in adds]


def test_corruption_and_absence_are_named(store: ObjectStore) -> None:
    """Garbage, a torn file, a lost sidecar, one outside of the log: version and file are in the error."""
    log = Path(store.root.removeprefix("file://")) / "_delta_log"
    write(store, f"{1:020}.checkpoint.parquet", [{"add": {"path": "x" * 99}}] * 99)
    whole = log / f"{1:020}.checkpoint.parquet"
    whole.write_bytes(whole.read_bytes()[:-100])
    (log / f"{2:020}.checkpoint.parquet").write_bytes(b"PAR1 is how it begins")
    (log / f"{3:020}.checkpoint.{_UUID}.json").write_text('{"sidecar":{"path":"lost.parquet","sizeInBytes":5}}')
    (log / f"{4:020}.checkpoint.{_UUID}.json").write_text('{"sidecar":{"path":"s3://other/x.parquet"}}')
    (log / f"{5:020}.checkpoint.{_UUID}.json").write_text('{"sidecar":{}}')
    (log / f"{6:020}.checkpoint.{_UUID}.json").write_text('{"add":{"pa')
    problems = {}
    for version in range(1, 7):
        with pytest.raises(TxnLogDeltaLogError, match=rf"{version:020}|lost\.parquet") as caught:
            read(store, version)
        assert caught.value.version == version
        problems[version] = caught.value.problem

    assert problems == {v: LogProblem.VANISHED if v == 3 else LogProblem.CORRUPT for v in range(1, 7)}
    assert store.get(checkpoint_path("", 1)) is not None
