"""Reads checkpoints back from where they were published: what they hold, and which sidecars they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.log_names import SIDECARS, log_folder
from deltalakedb_mirror_worker.places import Place

_READ_ROWS = 65_536


class LiveFiles(NamedTuple):
    """How many files a table has, and of what size together."""

    files: int
    size: int
    """Bytes."""


def counted(place: Place, name: str, folder: Path) -> LiveFiles | None:
    """The live files that the checkpoint `name` holds, every page of all its files read; None if it is not whole.

    The main file lies in `folder` afterwards. Raises `TxnLogObjectStoreError` if it cannot be had.
    """
    log = log_folder(place.folder)
    place.store.download(log + name, folder / name)
    try:
        total = _live(folder / name)
        for sidecar in _sidecars_in(folder / name):
            file = folder / "sidecar.parquet"
            place.store.download(f"{log}{SIDECARS}/{sidecar}", file)
            found = _live(file)
            total = LiveFiles(total.files + found.files, total.size + found.size)
    except (TxnLogObjectStoreError, pa.ArrowException, OSError, KeyError):
        return None
    return total


def sidecars_of(place: Place, name: str, folder: Path) -> set[str] | None:
    """The file names of the sidecars that the checkpoint `name` rests on; None if it cannot be read."""
    file = folder / name
    place.store.download(log_folder(place.folder) + name, file)
    try:
        return set(_sidecars_in(file))
    except (pa.ArrowException, OSError, msgspec.MsgspecError):
        return None


def _live(file: Path) -> LiveFiles:
    files = size = 0
    with pq.ParquetFile(file) as parquet:
        for rows in parquet.iter_batches(batch_size=_READ_ROWS):
            adds = rows["add"]
            files += len(adds) - adds.null_count
            size += pc.sum(pc.struct_field(adds, "size")).as_py() or 0
    return LiveFiles(files, size)


def _sidecars_in(file: Path) -> Iterator[str]:
    if file.suffix == ".json":
        for line in file.read_bytes().splitlines():
            action = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            if "sidecar" in action:
                yield unquote(msgspec.json.decode(action["sidecar"], type=_Sidecar).path)
        return
    with pq.ParquetFile(file) as parquet:
        if "sidecar" not in parquet.schema_arrow.names:
            return
        for rows in parquet.iter_batches(columns=["sidecar"]):
            for path in pc.struct_field(rows["sidecar"], "path").to_pylist():
                if path is not None:
                    yield unquote(path)


class _Sidecar(msgspec.Struct):
    path: str
