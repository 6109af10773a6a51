"""Which files a version names, and where they lie in its table's folder."""

from __future__ import annotations

import pytest

from deltalakedb.actions import AddFile, CdcFile, DeletionVector
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb_mirror_worker.data_files import DataFile, files


def add(path: str, vector: DeletionVector | None = None) -> AddFile:
    return AddFile(path=path, partition_values={}, size=10, modification_time=0, deletion_vector=vector)


def vector(storage: str, path: str, offset: int | None = 4) -> DeletionVector:
    return DeletionVector(storage_type=storage, path_or_inline_dv=path, offset=offset, size_in_bytes=40, cardinality=6)


def test_paths_are_decoded_once() -> None:
    """As Delta has them: percent-encoded, so that %25 is a percent sign in the name."""
    found = [
        file.path
        for file in files(
            [add("day=a%20b%253A/c.parquet")], [CdcFile(path="_change_data/x", partition_values={}, size=3)]
        )
    ]

    assert found == ["day=a b%3A/c.parquet", "_change_data/x"]


def test_a_deletion_vector_names_its_file() -> None:
    """The protocol's own example, with a folder; without one; inline and absolute ones lie in no file of the table."""
    named = [
        *files([add("a", vector("u", "ab^-aqEH.-t@S}K{vb[*k^"))]),
        *files([add("b", vector("u", "^-aqEH.-t@S}K{vb[*k^", None))]),
        *files([add("c", vector("i", "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"))]),
        *files([add("d", vector("p", "s3://bucket/deletion_vector_x.bin"))]),
    ]
    file = "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"

    assert [each for each in named if each.path.endswith(".bin")] == [
        DataFile(f"ab/{file}", 52, False, "a"),
        DataFile(file, 48, False, "b"),
    ]
    assert [each.path for each in named if each.whole] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("path", ["file:///elsewhere/a", "/elsewhere/a", "s3://bucket/a"])
def test_absolute_paths_lie_in_no_tables_folder(path: str) -> None:
    """They are where they are, for every copy of the log."""
    assert list(files([add(path)])) == []


@pytest.mark.parametrize("path", ["../a", "a/%2E%2E/%2e%2e/b", "a//b", "./a"])
def test_no_path_leads_out_of_its_folder(path: str) -> None:
    """A mirror reads and writes what a path names."""
    with pytest.raises(TxnLogMirrorError, match="leads out of its table's folder"):
        list(files([add(path)]))


@pytest.mark.parametrize("text", ["", "too short", "~" * 20, "#" * 20])
def test_a_vector_without_a_uuid_is_refused(text: str) -> None:
    """What is not the protocol's form names no file."""
    with pytest.raises(TxnLogMirrorError, match="does not end with a UUID"):
        list(files([add("a", vector("u", text))]))
