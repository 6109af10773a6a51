"""Rows of a statement as Arrow record batches, where an engine has no faster way of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .port import Row

if TYPE_CHECKING:
    import pyarrow as pa


def batches_of(rows: Iterable[list[Row]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Each list of rows as a batch of `schema`, whose fields are the columns in their order."""
    import pyarrow as pa

    for some in rows:
        columns = zip(*some, strict=True)
        arrays = [pa.array(values, field.type) for field, values in zip(schema, columns, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
