"""The names of files in a `_delta_log`."""

from __future__ import annotations

import pytest

from deltalakedb.log_names import LogFile, LogName, checkpoint_path, commit_version, log_path, parse_name

_V = "00000000000000000012"
_UUID = "80a083e8-7026-4e79-81be-64bd76c43a11"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (f"{_V}.json", LogName(LogFile.COMMIT, 12)),
        (f"{_V}.crc", LogName(LogFile.CHECKSUM, 12)),
        (f"{_V}.00000000000000000015.compacted.json", LogName(LogFile.COMPACTED, 12)),
        (f"{_V}.checkpoint.parquet", LogName(LogFile.CLASSIC, 12)),
        (f"{_V}.checkpoint.0000000002.0000000003.parquet", LogName(LogFile.PART, 12, 2, 3)),
        (f"{_V}.checkpoint.{_UUID}.parquet", LogName(LogFile.UNIQUE, 12)),
        (f"{_V}.checkpoint.{_UUID.upper()}.json", LogName(LogFile.UNIQUE, 12)),
        ("09223372036854775807.json", LogName(LogFile.COMMIT, 2**63 - 1)),
    ],
)
def test_every_kind_of_file_is_known(name: str, what: LogName) -> None:
    """All names of the protocol are told apart, with version and part."""
    assert parse_name(name) == what


@pytest.mark.parametrize(
    "name",
    [
        "12.json",
        f"{_V}.json.tmp",
        f".{_V}.json.crc",
        f"{_V}.JSON",
        f"{_V}.{_UUID}.json",
        f"{_V}.checkpoint.json",
        f"{_V}.checkpoint.x.parquet",
        f"{_V}.checkpoint.0000000004.0000000003.parquet",
        f"{_V}.checkpoint.0000000000.0000000003.parquet",
        f"_staged_commits/{_V}.json",
        "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠١٢.json",
        "99999999999999999999.json",
        f"{_V}.json\n",
        "_last_checkpoint",
        "",
    ],
)
def test_everything_else_is_ignored(name: str) -> None:
    """Temporary files, hidden checksums of Hadoop, staged commits and numbers that are no version are nobody's business."""
    assert parse_name(name) is None
    assert commit_version(name) is None or name.startswith(("_staged", "999"))


def test_paths_are_found_again() -> None:
    """What is written under a name is found under it; "" is a table at the root of its store."""
    assert log_path("", 12) == f"_delta_log/{_V}.json"
    assert commit_version(log_path("a/b", 12)) == 12
    assert commit_version(checkpoint_path("a/b", 12)) is None
    assert parse_name(checkpoint_path("", 12).rpartition("/")[2]) == LogName(LogFile.CLASSIC, 12)
