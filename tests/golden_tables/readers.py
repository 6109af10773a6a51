"""What every reader at hand gives of a table by its path, in a form that two tables are compared by."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import deltalake
import duckdb as duckdb_library
import polars
import pyarrow as pa

from tests.golden_tables.replay import read_log
from tests.services import duck
from tests.services.readers import ReaderLost

Reader = Callable[[Path], "pa.Table"]


def delta_rs(table: Path) -> pa.Table:
    """Through DataFusion, which reads more than its pyarrow path does."""
    builder = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(str(table)))
    return pa.table(builder.execute("select * from t").read_all())


def duckdb(table: Path) -> pa.Table:
    """One connection for all; an internal error makes one useless."""
    connection = _connection()
    try:
        relation = connection.execute("SELECT * FROM delta_scan(?)", [str(table)])
        names = [column[0] for column in relation.description or ()]
        rows = relation.fetchall()
    except Exception:
        _connection.cache_clear()
        connection.close()
        raise
    return pa.table({name: pa.array([repr(row[n]) for row in rows]) for n, name in enumerate(names)})


@functools.cache
def _connection() -> duckdb_library.DuckDBPyConnection:
    return duck.connect("delta")


def polars_scan(table: Path) -> pa.Table:
    return polars.scan_delta(str(table)).collect().to_arrow()


READERS: Mapping[str, Reader] = {"delta-rs": delta_rs, "duckdb": duckdb, "polars": polars_scan}
"""Readers in this process, by name."""


def digest(rows: pa.Table) -> str:
    """Of rows in any order."""
    lines = sorted(f"{_plain(row)!r}" for row in rows.to_pylist())
    return f"{len(lines)} rows {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}"


def differing(original: Path, copy: Path, readers: Mapping[str, Callable[[Path], str]]) -> list[str]:
    """What a reader gives of the copy and not of the original, for every reader that reads the original.

    Raises `ReaderLost` where one ended over either of them.
    """
    log = read_log(original)
    if log.contradicts_itself():
        return []  # nobody can say what it should be
    found = []
    for name, read in readers.items():
        if name == "sail" and log.compacted:
            continue  # it believes compacted logs, also those that are wrong, and no import reads them
        try:
            wanted = read(original)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | ReaderLost):
                raise
            continue
        try:
            got = read(copy)
        except ReaderLost:
            raise
        except Exception as error:
            got = f"{type(error).__name__}: {str(error)[:300]}"
        if got != wanted:
            found.append(f"{name} gives {wanted} of the original and {got} of the copy")
    return found


def in_process() -> dict[str, Callable[[Path], str]]:
    """The readers of this process, as digests."""

    def through(read: Reader) -> Callable[[Path], str]:
        return lambda table: digest(read(table))

    return {name: through(read) for name, read in READERS.items()}


def _plain(value: Any) -> Any:
    """A value that is equal to itself, whatever it holds, and printed in one way."""
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return value
