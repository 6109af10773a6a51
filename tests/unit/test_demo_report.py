"""What the demo reports, and what it takes for a watermark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deltalakedb.demo.checks import Check, Pin
from deltalakedb.demo.plan import Done
from deltalakedb.demo.report import percentile, report, text
from deltalakedb.demo.run import snapshots_whole, spread
from deltalakedb.demo.watermarks import DOCUMENT, Watermarks
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.objectstore import open_object_store

PIN = Pin(commit_seq=9, versions={"orders": 8}, locations={"orders": "file:///lake/orders"})
GOOD = Check.of("rows", "duckdb", 10, 0)
DONE = [
    Done(client=0, kind="insert", status="committed", batch=0, commit_seq=2, began=100.0, milliseconds=10.0),
    Done(client=1, kind="insert", status="committed", batch=1, commit_seq=3, began=100.5, milliseconds=30.0),
    Done(client=0, kind="remove", status="rejected", batch=0, reason="FILE_NOT_LIVE", began=101.0, milliseconds=20.0),
    Done(
        client=1, kind="remove", status="committed", batch=0, commit_seq=4, began=101.9, milliseconds=100.0, torn=True
    ),
    Done(client=1, kind="insert", status="nothing", batch=2, began=102.0),
]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([7.0], 0.99, 7.0), ([3.0, 1.0, 2.0], 0.5, 2.0), (list(map(float, range(1, 101))), 0.99, 99.0)],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    """It is the smallest value that the share does not exceed."""
    assert percentile(values, share) == expected


def test_report_counts_every_step_once() -> None:
    """Committed ones by kind, rejected ones by reason, and the time from the first begin to the last outcome."""
    found = report(title="t", done=DONE, made=1, clients=2, pin=PIN, seconds=5.0, mirror_seconds=0.5, checks=[GOOD])

    assert (found.transactions, found.inserts, found.removes, found.rejected) == (4, 2, 1, {"FILE_NOT_LIVE": 1})
    assert found.load_seconds == 2.0
    assert found.transactions_per_second == 1.5
    assert found.ok
    assert "4 transactions over 1 tables" in "\n".join(text(found))


def test_one_check_that_fails_fails_the_report() -> None:
    """It is told in the text, with how many of what it saw were wrong."""
    bad = Check.of("rows", "delta-rs", 10, 3)
    found = report(
        title="t", done=DONE, made=0, clients=2, pin=PIN, seconds=5.0, mirror_seconds=0.5, checks=[GOOD, bad]
    )

    lines = list(text(found))
    assert not found.ok
    assert any(line.startswith("  FAILED delta-rs") and "3 wrong" in line for line in lines)
    assert "CHECKS FAILED" in lines[-1]


def test_torn_snapshots_are_counted() -> None:
    """One snapshot with half a transaction fails the check; a run that planned nothing from snapshots has none."""
    (check,) = snapshots_whole(DONE)

    assert (check.seen, check.wrong, check.ok) == (2, 1, False)
    assert snapshots_whole(DONE[:2]) == []


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (3, [0, 1, 2]), (8, [2, 4, 6])])
def test_spread(count: int, expected: list[int]) -> None:
    """At most three watermarks are taken, from all over the run."""
    pins = [Pin(commit_seq=n, versions={}, locations={}) for n in range(count)]

    assert [pin.commit_seq for pin in spread(pins, 3)] == expected


def write(root: Path, **document: Any) -> Watermarks:
    (root / DOCUMENT).write_text(json.dumps({"lake_id": "l", "target": "in-place", "excluded": {}, **document}))
    return Watermarks(open_object_store(str(root)), ["orders", "items"])


def test_a_watermark_pins_all_tables(tmp_path: Path) -> None:
    """Versions and locations come from the document; without it, or with a table missing, there is no pin yet."""
    tables = {name: {"id": name, "location": f"file:///lake/{name}", "version": 3} for name in ("orders", "items", "x")}
    missing = Watermarks(open_object_store(str(tmp_path)), ["orders"]).read()
    partly = write(tmp_path, commit_seq=1, tables={"orders": tables["orders"]}).read()
    whole = write(tmp_path, commit_seq=7, tables=tables).read()

    assert missing is None
    assert partly is None
    assert whole == Pin(
        commit_seq=7,
        versions={"orders": 3, "items": 3},
        locations={"orders": "file:///lake/orders", "items": "file:///lake/items"},
    )


def test_a_fenced_table_ends_the_wait(tmp_path: Path) -> None:
    """A table of ours that is fenced is an error at once; tables of others, and dropped ones, are not."""

    def excluded(name: str, reason: str) -> dict[str, dict[str, object]]:
        return {"id": {"id": "id", "location": f"file:///lake/{name}", "reason": reason, "version": 3}}

    assert write(tmp_path, commit_seq=1, tables={}, excluded=excluded("other", "FENCED")).read() is None
    assert write(tmp_path, commit_seq=1, tables={}, excluded=excluded("orders", "DROPPED")).read() is None
    with pytest.raises(TxnLogMirrorError, match="/lake/orders"):
        write(tmp_path, commit_seq=1, tables={}, excluded=excluded("orders", "FENCED")).read()
