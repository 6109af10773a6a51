"""Input cut into batches: one Arrow file per table and batch, so that a client reads its share without looking further."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from deltalakedb.errors import TxnLogValidationError


def even_counts(rows: int, batches: int) -> list[int]:
    """How many of `rows` each of `batches` gets: sizes differ by one at most, empty ones where there are too few."""
    return [rows * (i + 1) // batches - rows * i // batches for i in range(batches)]


def cut(folder: Path, table: str, schema: pa.Schema, source: Iterable[pa.RecordBatch], counts: Sequence[int]) -> None:
    """Write the rows of `source`, in order, as `len(counts)` files of `counts[i]` rows; an empty batch has no file.

    Holds one record batch of the source at a time. Raises `TxnLogValidationError` unless the source has exactly
    `sum(counts)` rows.
    """
    (folder / table).mkdir(parents=True)
    rows = _Rows(iter(source))
    for batch, count in enumerate(counts):
        if count:
            with pa.ipc.new_file(str(_path(folder, table, batch)), schema) as writer:
                for piece in rows.take(count):
                    writer.write_batch(piece)
    if not rows.ended():
        raise TxnLogValidationError(f"the input of table {table!r} grew while it was read: start again")


def read(folder: Path, table: str, batch: int) -> pa.Table | None:
    """Batch `batch` of `table`, or None if it is empty."""
    path = _path(folder, table, batch)
    if not path.exists():
        return None
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def read_schema(folder: Path, table: str) -> pa.Schema:
    """The schema of `table`'s batches."""
    first = min((folder / table).iterdir())
    with pa.memory_map(str(first)) as source:
        return pa.ipc.open_file(source).schema


def _path(folder: Path, table: str, batch: int) -> Path:
    return folder / table / f"{batch:06d}.arrow"


class _Rows:
    """A stream of record batches from which any number of rows can be taken."""

    def __init__(self, source: Iterable[pa.RecordBatch]) -> None:
        self._source = iter(source)
        self._rest: pa.RecordBatch | None = None

    def take(self, count: int) -> Iterable[pa.RecordBatch]:
        while count:
            rest = self._next()
            if rest is None:
                raise TxnLogValidationError("the input shrank while it was read: start again")
            piece = rest.slice(0, count)
            count -= piece.num_rows
            self._rest = rest.slice(piece.num_rows)
            yield piece

    def ended(self) -> bool:
        return self._next() is None

    def _next(self) -> pa.RecordBatch | None:
        while self._rest is None or not self._rest.num_rows:
            self._rest = next(self._source, None)
            if self._rest is None:
                return None
        return self._rest
