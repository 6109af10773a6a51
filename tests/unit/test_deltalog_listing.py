"""Which versions a listing of a `_delta_log` can tell."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from deltalakedb.deltalog.listing import LogListing, listing_of
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.log_names import LogFile
from deltalakedb.objectstore import ObjectInfo

_UUID = "80a083e8-7026-4e79-81be-64bd76c43a11"


def listing(commits: Iterable[int] = (), checkpoints: Iterable[int] = (), *, others: Iterable[str] = ()) -> LogListing:
    """Of a log with these commits, classic checkpoints and other files."""
    names = [f"{v:020}.json" for v in commits]
    names += [f"{v:020}.checkpoint.parquet" for v in checkpoints]
    names += others
    files = [ObjectInfo(f"t/_delta_log/{name}", 10, 1_000) for name in sorted(names)]
    return listing_of(files, place="file:///lake/t/_delta_log", folder="t")


@pytest.mark.parametrize(
    ("commits", "checkpoints", "spans", "baseline"),
    [
        (range(3), [], [range(3)], 0),
        (range(3), [2], [range(3)], 0),
        ([2, 3, 4], [2], [range(2, 5)], 2),
        ([3, 4], [2], [range(2, 5)], 2),
        ([], [7], [range(7, 8)], 7),
        ([0, 1, *range(5, 9)], [4], [range(2), range(4, 9)], 4),
        ([0, 1, 2, 4, 5, 6], [3, 6], [range(7)], 3),
        ([*range(14), 9_999], [10, 9_999], [range(14), range(9_999, 10_000)], 9_999),
        ([*range(7), *range(8, 14)], [10], [range(7), range(10, 14)], 10),
        (range(5, 13), [5, 10], [range(5, 13)], 5),
        (range(4, 13), [5, 10], [range(5, 13)], 5),
    ],
)
def test_versions_that_can_be_told(
    commits: Iterable[int], checkpoints: list[int], spans: list[range], baseline: int
) -> None:
    """A version needs a checkpoint, or commit 0, and every commit from there; a baseline needs them up to the newest."""
    log = listing(commits, checkpoints)

    assert log.reconstructible() == tuple(spans)
    assert log.baseline() == baseline
    for version in (v for span in spans for v in span):
        assert list(log.bases(version))


@pytest.mark.parametrize(
    ("commits", "checkpoints", "version", "missing"),
    [
        ([*range(12), 13], [10], 13, 12),
        ([0, 2], [], 2, 1),
        ([1, 2], [], 2, 0),
        ([0, 1, 3, 5], [1], 5, 4),
    ],
)
def test_a_gap_below_the_newest_version_is_named(
    commits: Iterable[int], checkpoints: list[int], version: int, missing: int
) -> None:
    """The commit that is missing is named with its file: without it the table has no present."""
    log = listing(commits, checkpoints)

    for ask in (log.baseline, lambda: list(log.bases(version))):
        with pytest.raises(TxnLogDeltaLogError, match=f"{missing:020}.json") as caught:
            ask()
        assert caught.value.problem is LogProblem.GAP
        assert (caught.value.version, caught.value.path) == (missing, f"t/_delta_log/{missing:020}.json")


@pytest.mark.parametrize("version", [3, 8, 9, 14])
def test_a_version_that_is_gone_is_told_apart_from_a_gap(version: int) -> None:
    """Where the newest version can be told, an older one that cannot is only no longer (or not yet) there."""
    log = listing([0, 1, 2, *range(8, 14)], [10])

    with pytest.raises(TxnLogDeltaLogError) as caught:
        list(log.bases(version))
    assert caught.value.problem is LogProblem.NOT_RECONSTRUCTIBLE


def test_no_table() -> None:
    """Junk and checksums make no table."""
    log = listing(others=[f"{0:020}.crc", "_last_checkpoint", f"{1:020}.checkpoint.0000000001.0000000002.parquet"])

    with pytest.raises(TxnLogDeltaLogError, match="lake/t/_delta_log") as caught:
        log.baseline()
    assert caught.value.problem is LogProblem.NO_TABLE


def test_only_complete_checkpoints_count_and_the_simplest_comes_first() -> None:
    """Parts of different sets are never mixed, an empty file is no checkpoint, and one file goes before several."""
    log = listing(
        range(4),
        [1],
        others=[
            *(f"{1:020}.checkpoint.{part:010}.0000000002.parquet" for part in (1, 2)),
            f"{1:020}.checkpoint.{_UUID}.json",
            *(f"{2:020}.checkpoint.{part:010}.0000000003.parquet" for part in (1, 3)),
            f"{2:020}.checkpoint.0000000002.0000000002.parquet",
            f"{0:020}.{3:020}.compacted.json",
            f"_sidecars/{3:020}.checkpoint.parquet",
        ],
    )
    empty = listing_of([ObjectInfo(f"t/_delta_log/{3:020}.checkpoint.parquet", 0, 1)], place="", folder="t")

    assert list(log.checkpoints) == [1]
    assert [c.kind for c in log.checkpoints[1]] == [LogFile.CLASSIC, LogFile.UNIQUE, LogFile.PART]
    assert len(log.checkpoints[1][2].files) == 2
    assert [None if c is None else (c.version, c.kind) for c in log.bases(3)] == [
        (1, LogFile.CLASSIC),
        (1, LogFile.UNIQUE),
        (1, LogFile.PART),
        None,
    ]
    assert not empty.checkpoints
