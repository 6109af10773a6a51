"""Checkpoints as streams of actions: classic, in parts, and V2 in Parquet or JSON with sidecars; some rows at a time.

What there are few of (protocol, metadata, transactions, domains) comes first, then the files.
"""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deltalakedb.events import ImportedAction
from deltalakedb.log_names import SIDECARS, log_folder
from deltalakedb.objectstore import ObjectStore
from deltalakedb.scratch import scratch_folder

from . import arrow_values
from .checkpoint_rows import FILES, NOT_STATE, PARTITION_VALUES_PARSED, STATS_PARSED, actions, local_timestamps
from .commits import HELD_BYTES, corrupt, parse_actions, vanished
from .listing import Checkpoint

_BATCH_ROWS = 4_096


class CheckpointReader:
    """One checkpoint, opened. Large files are copied to a local folder for as long as it is; close it, or use `with`.

    Every method raises `TxnLogDeltaLogError` (CORRUPT, VANISHED) with version and file, and `TxnLogObjectStoreError`.
    """

    def __init__(self, store: ObjectStore, folder: str, checkpoint: Checkpoint) -> None:
        self.version = checkpoint.version
        self.path = checkpoint.files[0].path
        """Of its first file, for messages."""
        self._store = store
        self._log = log_folder(folder)
        self._checkpoint = checkpoint
        self._copies: Path | None = None
        self._remove: Callable[[], object] = _nothing
        self._local: Collection[arrow_values.Path] = frozenset()
        self._sidecars: list[tuple[str, int]] = []

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the copies. Idempotent; what is not closed is removed with the reader."""
        self._remove()
        self._copies = None

    def heading(self) -> list[ImportedAction]:
        """Every action that is no file: protocol, metadata, transactions, domains, and of kinds that nobody knows."""
        found: list[ImportedAction] = []
        self._sidecars.clear()
        for file in self._checkpoint.files:
            for action in self._main(file.path, file.size, files=False):
                if action.kind == "sidecar":
                    self._sidecars.append(self._sidecar(file.path, action.json))
                else:
                    found.append(action)
        for action in found:
            if action.kind == "metaData":
                self._local = local_timestamps(_schema_of(action))
        return found

    def files(self) -> Iterator[ImportedAction]:
        """Every add and remove, those of sidecars included. To be read after `heading`."""
        for file in self._checkpoint.files:
            yield from self._main(file.path, file.size, files=True)
        for path, size in self._sidecars:
            yield from self._parquet(path, size, files=True)

    def _main(self, path: str, size: int, *, files: bool) -> Iterator[ImportedAction]:
        if not path.endswith(".json"):
            yield from self._parquet(path, size, files=files)
            return
        found = self._content(path, size)
        with io.BytesIO(found) if isinstance(found, bytes) else found.open("rb") as data:
            for action in parse_actions(data, path=path, version=self.version):
                if (action.kind in FILES) == files and action.kind not in NOT_STATE:
                    yield action

    def _parquet(self, path: str, size: int, *, files: bool) -> Iterator[ImportedAction]:
        found = self._content(path, size)
        try:
            with (
                pa.BufferReader(found) if isinstance(found, bytes) else pa.memory_map(str(found)) as data,
                pq.ParquetFile(data) as parquet,
            ):
                for batch in _batches(parquet, files=files):
                    yield from actions(batch, local=self._local)
        except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
            raise corrupt(path, self.version, f"it cannot be read as a checkpoint ({error})") from error

    def _content(self, path: str, size: int) -> bytes | Path:
        """An object's bytes; of a large one a local copy, made once."""
        if size <= HELD_BYTES:
            found = self._store.get(path)
            if found is None:
                raise vanished(self._store, path, self.version)
            return found.data
        if self._copies is None:
            held = ExitStack()
            self._copies = held.enter_context(scratch_folder("checkpoint"))
            self._remove = weakref.finalize(self, held.close)
        copy = self._copies / path.rpartition("/")[2]
        if not copy.exists():
            self._store.download(path, copy)
        return copy

    def _sidecar(self, path: str, body: str) -> tuple[str, int]:
        """Path and size of a sidecar. One that is not beside the others is named as what it is: not to be had here."""
        try:
            sidecar = msgspec.json.decode(body, type=_Sidecar)
        except msgspec.ValidationError as error:
            raise corrupt(path, self.version, f"a sidecar is not described ({error})") from error
        name = unquote(sidecar.path)
        folder, _, name = name.rpartition("/")
        if folder and not folder.endswith(f"_delta_log/{SIDECARS}"):
            raise corrupt(path, self.version, f"its sidecar {sidecar.path!r} lies outside of the log")
        return f"{self._log}{SIDECARS}/{name}", sidecar.size_in_bytes


def _nothing() -> None:
    """There are no copies."""


class _Sidecar(msgspec.Struct, rename="camel"):
    path: str
    size_in_bytes: int = 0


def _schema_of(metadata: ImportedAction) -> str:
    try:
        found: str = msgspec.json.decode(metadata.json).get("schemaString", "")
    except (msgspec.DecodeError, AttributeError):
        return ""
    return found


def _batches(parquet: pq.ParquetFile, *, files: bool) -> Iterator[pa.RecordBatch]:
    """Rows with the files, or with everything else; of files without what only repeats other columns.

    Typed statistics are read from where on a file has no text. A footer would say whether there is such a file, but
    pyarrow ends the process over one that is corrupt.
    """
    structs = {field.name: field.type for field in parquet.schema_arrow if pa.types.is_struct(field.type)}
    if not files:
        yield from _read(parquet, [name for name in structs if name not in FILES and name not in NOT_STATE])
        return
    fields = [(kind, field.name) for kind in FILES for field in structs.get(kind, ())]
    typed = [f"{kind}.{name}" for kind, name in fields if name == STATS_PARSED]
    columns = [f"{kind}.{name}" for kind, name in fields if name not in (STATS_PARSED, PARTITION_VALUES_PARSED)]
    done = 0
    for batch in _read(parquet, columns):
        if typed and _some_have_no_statistics(batch):
            break
        yield batch
        done += batch.num_rows
    else:
        return
    for batch in _read(parquet, [*columns, *typed]):
        if done < batch.num_rows:
            yield batch.slice(done)
        done = max(0, done - batch.num_rows)


def _read(parquet: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    if columns:
        yield from parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False)


def _some_have_no_statistics(batch: pa.RecordBatch) -> bool:
    adds: Any = batch.column("add") if "add" in batch.schema.names else None
    if adds is None or adds.type.get_field_index("stats") < 0:
        return True
    return bool(pc.struct_field(adds, "stats").null_count > adds.null_count)
