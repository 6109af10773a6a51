"""Cutting input into batches."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from deltalakedb.demo.batches import cut, even_counts, read, read_schema
from deltalakedb.errors import TxnLogValidationError

FIELDS: dict[str, pa.DataType] = {"n": pa.int64(), "s": pa.string()}
SCHEMA = pa.schema(FIELDS)


def source(*sizes: int) -> list[pa.RecordBatch]:
    """Record batches of these sizes, numbered through."""
    batches, first = [], 0
    for size in sizes:
        numbers = list(range(first, first + size))
        batches.append(pa.record_batch([numbers, [str(n) for n in numbers]], schema=SCHEMA))
        first += size
    return batches


@pytest.mark.parametrize(("rows", "batches"), [(0, 3), (1, 50), (7, 3), (50, 50), (1000, 7)])
def test_even_counts(rows: int, batches: int) -> None:
    """Counts add up to all rows and differ by at most one."""
    counts = even_counts(rows, batches)

    assert len(counts) == batches
    assert sum(counts) == rows
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("sizes", [(10,), (1, 2, 3, 4), (0, 5, 0, 5), (3, 7)])
def test_cut_keeps_every_row_in_order(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """Whatever the batches of the source, the cut ones have the counts asked for and the rows in order."""
    counts = [4, 0, 1, 5]

    cut(tmp_path, "t", SCHEMA, source(*sizes), counts)

    found = [read(tmp_path, "t", batch) for batch in range(len(counts))]
    assert [None if part is None else part.num_rows for part in found] == [4, None, 1, 5]
    assert [n for part in found if part is not None for n in part["n"].to_pylist()] == list(range(10))
    assert read_schema(tmp_path, "t") == SCHEMA


@pytest.mark.parametrize(("rows", "says"), [(9, "shrank"), (11, "grew")])
def test_cut_refuses_a_source_that_changed(tmp_path: Path, rows: int, says: str) -> None:
    """A source with more or fewer rows than counted is an error, never a silent loss."""
    with pytest.raises(TxnLogValidationError, match=says):
        cut(tmp_path, "t", SCHEMA, source(rows), [5, 5])
