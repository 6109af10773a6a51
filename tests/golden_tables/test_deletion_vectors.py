"""Copies of tables whose rows are deleted by vectors, wherever these lie: in files of the table, inline, elsewhere."""

from __future__ import annotations

import json
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

import deltalakedb
from tests.golden_tables.readers import differing, digest, in_process
from tests.services.readers import ReaderProcess

ROWS = 10
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
SCHEMA = '{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}'


def bitmap(*positions: int) -> bytes:
    """Positions of deleted rows, as Delta keeps them: a 64-bit array of one Roaring bitmap with one array container."""
    container = struct.pack(f"<HHI{len(positions)}H", 0, len(positions) - 1, 16, *positions)
    return struct.pack("<IQI", 1681511377, 1, 0) + struct.pack("<II", 12346, 1) + container


def z85(data: bytes) -> str:
    """ZeroMQ's base 85, of bytes that are filled up to words."""
    words = struct.unpack(f">{-(-len(data) // 4)}I", data.ljust(-(-len(data) // 4) * 4, b"\0"))
    return "".join(Z85[word // 85**n % 85] for word in words for n in (4, 3, 2, 1, 0))


def vector_file(path: Path, *bitmaps: bytes) -> list[int]:
    """A file with these vectors; the offset of each."""
    data, offsets = b"\1", []
    for one in bitmaps:
        offsets.append(len(data))
        data += struct.pack(">I", len(one)) + one + struct.pack(">I", zlib.crc32(one))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return offsets


def make(table: Path, elsewhere: Path) -> list[int]:
    """A table of four files, each with another kind of vector, two of these in one file; the ids that are left."""
    (table / "_delta_log").mkdir(parents=True)
    for n in range(4):
        pq.write_table(pa.table({"id": range(n * ROWS, (n + 1) * ROWS)}), table / f"{n}.parquet")
    gone = [(1,), (2, 3), (4, 5, 6), (7, 9)]
    bitmaps = [bitmap(*positions) for positions in gone]
    name = uuid.uuid4()
    offsets = vector_file(table / "dv" / f"deletion_vector_{name}.bin", *bitmaps[:2])
    (far,) = vector_file(elsewhere / "far.bin", bitmaps[3])
    address = "dv" + z85(name.bytes)
    vectors: list[dict[str, Any]] = [
        {"storageType": "u", "pathOrInlineDv": address, "offset": offsets[0]},
        {"storageType": "u", "pathOrInlineDv": address, "offset": offsets[1]},
        {"storageType": "i", "pathOrInlineDv": z85(bitmaps[2])},
        {"storageType": "p", "pathOrInlineDv": (elsewhere / "far.bin").as_uri(), "offset": far},
    ]

    def file(n: int, **more: object) -> dict[str, Any]:
        size = (table / f"{n}.parquet").stat().st_size
        common = {"path": f"{n}.parquet", "partitionValues": {}, "size": size, "dataChange": True}
        return {**common, **more}

    features = ["deletionVectors"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    metadata = {"id": str(uuid.uuid4()), "format": {"provider": "parquet", "options": {}}, "schemaString": SCHEMA}
    stats = json.dumps({"numRecords": ROWS, "tightBounds": False})
    commits: list[list[dict[str, Any]]] = [
        [
            {"protocol": protocol},
            {"metaData": {**metadata, "partitionColumns": [], "configuration": {}, "createdTime": 1}},
            *({"add": file(n, modificationTime=1, stats=stats)} for n in range(4)),
        ],
        [],
    ]
    for n, (vector, positions, one) in enumerate(zip(vectors, gone, bitmaps, strict=True)):
        of = {**vector, "sizeInBytes": len(one), "cardinality": len(positions)}
        commits[1] += [
            {"remove": file(n, deletionTimestamp=2, extendedFileMetadata=True)},
            {"add": file(n, modificationTime=1, stats=stats, deletionVector=of)},
        ]
    for version, actions in enumerate(commits):
        lines = "".join(json.dumps(action) + "\n" for action in actions)
        (table / "_delta_log" / f"{version:020}.json").write_text(lines)
    deleted = {n * ROWS + position for n, positions in enumerate(gone) for position in positions}
    return [n for n in range(4 * ROWS) if n not in deleted]


def test_spark_and_the_others_read_copies_with_vectors_of_every_kind(
    spark: SparkSession, sail: ReaderProcess, tmp_path: Path
) -> None:
    """What the mirror copies to another root stands by itself: vectors in files of the table come with it, inline ones
    are in its log, and those at an absolute address stay there. Every reader of the original reads the same."""
    table, elsewhere, copies = tmp_path / "source", tmp_path / "elsewhere", tmp_path / "copies"
    left = pa.table({"id": make(table, elsewhere)})

    def through_spark(path: Path) -> str:
        return digest(spark.read.format("delta").load(str(path)).toArrow())

    readers: dict[str, Callable[[Path], str]] = {"spark": through_spark, "sail": sail.digest, **in_process()}
    with deltalakedb.connect(tmp_path / "lake") as lake:
        able = {name: read(table) for name, read in readers.items()}
        lake.import_table("t", table, cutover=False, allow_roots=[elsewhere.as_uri()])
        lake.act("target-add", target="copy", kind="copy", root=copies.as_uri())
        lake.sync("t", timeout=60)
        (copy,) = copies.glob("source-*")
        unequal = differing(table, copy, readers)
        shutil.rmtree(table)
        alone = {name: read(copy) for name, read in readers.items()}

    assert unequal == []
    assert able == alone
    as_text = pa.table({"id": [repr(n) for n in left["id"].to_pylist()]})
    assert able == {name: digest(as_text if name == "duckdb" else left) for name in readers}
