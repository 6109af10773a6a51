"""Many rows from Postgres as Arrow, by ADBC: COPY, decoded without an object per value. The one module that imports it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_postgresql import StatementOptions, dbapi

BATCH_BYTES = 8 * 1024 * 1024


def stream(
    conninfo: str, snapshot: str, statement: str, schema: pa.Schema, error: Callable[[str, Exception], Exception]
) -> Generator[pa.RecordBatch]:
    """The rows of a statement without parameters, over a connection of its own that sees an exported snapshot.

    `error` makes what is raised when the driver fails.
    """
    try:
        with dbapi.connect(conninfo) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            cursor.adbc_statement.set_options(
                **{StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(BATCH_BYTES)},
            )
            cursor.execute(statement)
            with cursor.fetch_record_batch() as reader:
                for batch in reader:
                    arrays = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as cause:
        raise error("a query failed", cause) from None
