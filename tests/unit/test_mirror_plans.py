"""What the mirror decides without doing anything: slices, watermarks, properties, waits."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalakedb.catalog import MirrorProgress, MirrorStatus
from deltalakedb_mirror_worker import properties
from deltalakedb_mirror_worker.slices import wanted, within
from deltalakedb_mirror_worker.threads import Threads
from deltalakedb_mirror_worker.watermark import ceiling, document


def table(
    number: int, *, version: int, mirrored: int, next_seq: int | None = None, seq: int | None = 50, **more: Any
) -> MirrorProgress:
    """A table at `version` of which `mirrored` is published."""
    status = MirrorStatus(
        state=more.pop("mirror", "SUCCEEDED"),
        publish_from=more.pop("publish_from", 0),
        mirrored_version=mirrored,
        checkpoint_version=-1,
        log_start=0,
        attempts=0,
        last_error=None,
        fenced_by=None,
        updated_ms=0,
    )
    return MirrorProgress(
        table_no=number,
        table_id=f"id-{number}",
        name=f"t{number}",
        location=f"s3://b/t{number}",
        state=more.pop("state", "ACTIVE"),
        version=version,
        commit_seq=seq,
        time_ms=0,
        status=more.pop("status", status),
        next_commit_seq=next_seq,
        next_time_ms=None,
    )


def test_a_slice_begins_behind_what_is_published() -> None:
    """The version before the first is looked at unless this process has seen it, or there is none."""
    fresh = wanted(table(1, version=300, mirrored=9), None, 100)
    seen = wanted(table(1, version=300, mirrored=9), 20, 100)
    new = wanted(table(1, version=3, mirrored=-1), None, 100)
    imported = wanted(table(1, version=30, mirrored=19, publish_from=20), None, 100)

    assert (fresh.first, fresh.last, fresh.unseen, fresh.rows) == (10, 109, True, (1, 9, 109))
    assert (seen.first, seen.last, seen.unseen, seen.rows) == (21, 120, False, (1, 21, 120))
    assert (new.first, new.last, new.unseen) == (0, 3, False)
    assert (imported.first, imported.last, imported.unseen) == (20, 30, False)


def test_another_mirror_may_be_further_than_this_one() -> None:
    """What this process saw does not vouch for what another one published since."""
    slice_ = wanted(table(1, version=50, mirrored=40), 20, 100)

    assert (slice_.first, slice_.unseen) == (41, True)


def test_a_step_takes_at_least_one_version_and_never_much_more_than_it_may() -> None:
    """A huge version goes alone; small ones share a step until it is full."""
    slices = [wanted(table(n, version=5, mirrored=-1), None, 100) for n in (1, 2, 3)]
    sizes = {(n, v): 1 for n in (1, 2, 3) for v in range(6)} | {(1, 0): 1_000}
    alone = within(slices, sizes, actions=10, wide=5_000)
    shared = within(slices[1:], sizes, actions=8, wide=5_000)

    assert [(s.table.table_no, s.first, s.last) for s in alone] == [(1, 0, 0)]
    assert [(s.table.table_no, s.first, s.last) for s in shared] == [(2, 0, 5), (3, 0, 1)]


def test_a_wide_version_is_a_slice_of_its_own_and_takes_no_room() -> None:
    """It ends the slice before it, is never read as a whole, not even to be looked at, and others share the step."""
    tables = [table(1, version=9, mirrored=3), table(2, version=9, mirrored=3), table(3, version=9, mirrored=3)]
    slices = [wanted(each, None, 100) for each in tables]
    sizes = {(n, v): 1 for n in (1, 2, 3) for v in range(10)} | {(1, 4): 900, (2, 7): 900, (3, 3): 900}
    taken = within(slices, sizes, actions=100, wide=500)

    assert [(s.first, s.last, s.wide, s.before_wide) for s in taken] == [
        (4, 4, True, False),
        (4, 6, False, False),
        (4, 9, False, True),
    ]
    assert [s.rows for s in taken] == [(1, 3, 3), (2, 3, 6), (3, 4, 9)]
    assert [s.span for s in taken] == [(1, 3, 4), (2, 3, 6), (3, 3, 9)]


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(1, 60))
def test_steps_make_progress_within_their_bound(sizes: list[list[int]], actions: int) -> None:
    """Whatever the sizes: something is taken, in order, and more than the bound only if it is one version."""
    slices = [wanted(table(n, version=len(each) - 1, mirrored=-1), None, 100) for n, each in enumerate(sizes)]
    known = {(n, v): size for n, each in enumerate(sizes) for v, size in enumerate(each)}
    taken = within(slices, known, actions=actions, wide=1_000)
    versions = [(s.table.table_no, v) for s in taken for v in range(s.first, s.last + 1)]

    assert versions
    assert all(s.first == 0 for s in taken)
    assert sum(known[each] for each in versions) <= actions or len(versions) == 1


def test_a_watermark_stops_before_the_first_commit_that_is_not_whole() -> None:
    """The oldest missing version of any table that is waited for bounds the lake."""
    tables = [
        table(1, version=5, mirrored=5),
        table(2, version=9, mirrored=4, next_seq=31),
        table(3, version=9, mirrored=2, next_seq=40),
    ]

    assert ceiling(50, tables) == 30
    assert ceiling(50, tables[:1]) == 50
    assert ceiling(50, []) == 50


def test_a_watermark_does_not_wait_for_fenced_tables() -> None:
    """They are named with the last good version instead; a failed table is waited for."""
    fenced = table(2, version=9, mirrored=4, next_seq=31, mirror="FENCED")
    failed = table(3, version=9, mirrored=4, next_seq=45, mirror="FAILED")
    importing = table(4, version=9, mirrored=-1, next_seq=3, state="IMPORTING")
    tables = [table(1, version=5, mirrored=5), fenced, failed, importing]
    shown = document("lake", "in-place", 44, tables, {1: 5, 2: 7, 3: 4, 4: 9}, set())

    assert ceiling(50, tables) == 44
    assert {name: each.version for name, each in shown.tables.items()} == {"t1": 5, "t3": 4}
    assert {name: (each.name, each.reason, each.version) for name, each in shown.excluded.items()} == {
        "id-2": ("t2", "FENCED", 4),
        "id-4": ("t4", "IMPORTING", -1),
    }


def test_a_table_without_a_status_is_waited_for() -> None:
    """A table that no mirror has touched yet is not published."""
    assert ceiling(50, [table(1, version=0, mirrored=-1, next_seq=12, status=None)]) == 11


def test_dropped_tables_are_named_apart_once_the_watermark_has_passed_their_drop() -> None:
    """Before that they are tables like others; a table that came later is not mentioned."""
    tables = [table(1, version=5, mirrored=5, state="DROPPED"), table(2, version=0, mirrored=0)]
    before = document("lake", "in-place", 20, tables, {1: 4}, set())
    after = document("lake", "in-place", 30, tables, {1: 5, 2: 0}, {1})

    assert (list(before.tables), list(before.excluded)) == (["t1"], [])
    assert (list(after.tables), {e.reason for e in after.excluded.values()}) == (["t2"], {"DROPPED"})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("interval 1 week", 604_800_000),
        ("interval 30 days", 2_592_000_000),
        ("INTERVAL 1 HOUR 30 MINUTES", 5_400_000),
        ("2 seconds", 2_000),
        ("interval 0 days", 0),
        ("interval 1 month", 604_800_000),
        ("tomorrow", 604_800_000),
    ],
)
def test_intervals_are_understood_or_count_as_their_default(text: str, milliseconds: int) -> None:
    """Spark's spelling is understood; months, which have no length, and nonsense are not."""
    assert properties.deleted_file_retention_ms({"delta.deletedFileRetentionDuration": text}) == milliseconds


@pytest.mark.parametrize(("text", "interval"), [("25", 25), ("0", 10), ("-5", 10), ("ten", 10), (" 7 ", 7)])
def test_checkpoint_intervals_are_positive(text: str, interval: int) -> None:
    """What is no positive number counts as the default."""
    assert properties.checkpoint_interval({"delta.checkpointInterval": text}) == interval


def test_threads_run_what_they_are_given_and_tell_errors() -> None:
    """Tasks run side by side up to the number of threads; an error belongs to its task alone."""
    both = threading.Barrier(2, timeout=10)
    threads = Threads(2, "test")
    futures = [threads.submit(both.wait), threads.submit(both.wait)]
    failing = threads.submit(int, "x")
    after = threads.submit(int, "7")
    threads.close()

    assert {future.result(60) for future in futures} == {0, 1}
    assert isinstance(failing.exception(10), ValueError)
    assert after.result(60) == 7
