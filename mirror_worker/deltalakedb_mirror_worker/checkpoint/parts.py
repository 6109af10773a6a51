"""One Parquet file of a checkpoint: written a batch of rows at a time, then read back before anybody is told of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from deltalakedb.errors import TxnLogMirrorError

_VERIFY_ROWS = 20_000
# Dictionaries and statistics would cost time and serve nobody: paths and statistics are all different, and readers of a
# checkpoint read all of it.
_DICTIONARIES = ["add.partitionValues.key_value.key", "add.partitionValues.key_value.value"]


class Part:
    """A new file with rows of one shape; `with` closes it, and it is verified where the block ended well."""

    def __init__(self, file: Path, shape: pa.Schema) -> None:
        self.file = file
        self.shape = shape
        self.actions: Counter[str] = Counter()
        """How many rows of each action were written."""
        self._writer = pq.ParquetWriter(
            file,
            shape,
            compression="snappy",
            data_page_version="1.0",
            use_dictionary=_DICTIONARIES,  # type: ignore[arg-type]
            write_statistics=False,
            store_schema=False,
        )

    @property
    def size(self) -> int:
        """Bytes, once it is closed."""
        return self.file.stat().st_size

    def write(self, rows: pa.RecordBatch, action: str | None = None) -> None:
        """Add rows, which all hold `action` where one is given."""
        self._writer.write_batch(rows)
        if action is not None:
            self.actions[action] += rows.num_rows
        else:
            self.actions += count(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        if error is None:
            self._verify()

    def _verify(self) -> None:
        """Every page must decode, and every action be there in the number that was written."""
        found: Counter[str] = Counter()
        with pq.ParquetFile(self.file) as parquet:
            if parquet.schema_arrow.names != self.shape.names:
                raise TxnLogMirrorError(f"a checkpoint was read back with the columns {parquet.schema_arrow.names}")
            for rows in parquet.iter_batches(batch_size=_VERIFY_ROWS):
                found += count(rows)
        if found != self.actions:
            raise TxnLogMirrorError(f"a checkpoint was read back with {dict(found)} instead of {dict(self.actions)}")


def count(rows: pa.RecordBatch) -> Counter[str]:
    """How many rows hold each action."""
    return Counter({name: rows.num_rows - rows[name].null_count for name in rows.schema.names})
