"""Builds checkpoints from SQL as local files: one classic file, or a V2 checkpoint's main file and its sidecars.

A batch of rows is in memory at a time. A V2 checkpoint gets names that nobody else can have: whoever makes another one
of the same version makes another set of files, and each set is whole.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from deltalakedb.actions import DomainMetadata, SetTransaction
from deltalakedb.catalog import Catalog, TableInfo
from deltalakedb.database import Database
from deltalakedb.errors import TxnLogMirrorError

from .contents import Contents, contents
from .parts import Part
from .rows import Sidecar, sidecar_schema, v2_heading

SIDECAR_ACTIONS = 500_000
"""Actions from which on another sidecar is begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A checkpoint as local files, read back and found to be what was written."""

    table: TableInfo
    """At the version of the checkpoint."""
    txns: list[SetTransaction]
    """In force at that version, as are `domains`."""
    domains: list[DomainMetadata]
    v2: bool
    main: Path
    """The file that readers look for; its name is the one that it is to have."""
    sidecars: tuple[Path, ...]
    """What the main file names, likewise."""
    actions: int
    """Of all files together."""
    adds: int
    add_bytes: int
    """Size of the live files together."""

    @property
    def version(self) -> int:
        return self.table.version

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in (self.main, *self.sidecars))


def build(db: Database, table_id: str, version: int, folder: Path) -> Built:
    """Write the checkpoint of a table's `version` into new files in `folder`.

    Raises `TxnLogMirrorError` if they cannot be written, or what is read back differs from what was written.
    """
    try:
        with db.snapshot():
            catalog = Catalog(db)
            found = contents(catalog, catalog.table(table_id=table_id, version=version))
            return _v2(found, folder) if found.v2 else _classic(found, folder)
    except (OSError, pa.ArrowException) as error:
        raise TxnLogMirrorError(f"the checkpoint of version {version} could not be made: {error}") from error


def _classic(found: Contents, folder: Path) -> Built:
    with Part(folder / f"{found.table.version:020}.checkpoint.parquet", found.shape) as part:
        part.write(found.heading())
        for action, rows in found.files():
            part.write(rows, action)
    return _built(found, part, [])


def _v2(found: Contents, folder: Path) -> Built:
    version = found.table.version
    parts = list(_sidecars(found, folder))
    sidecars = [Sidecar(p.file.name, p.size, p.file.stat().st_mtime_ns // 1_000_000) for p in parts]
    with Part(folder / f"{version:020}.checkpoint.{uuid.uuid4()}.parquet", found.shape) as main:
        main.write(found.heading())
        main.write(v2_heading(found.shape, version, sidecars))
    return _built(found, main, parts)


def _sidecars(found: Contents, folder: Path) -> Iterator[Part]:
    """Write the file actions; each sidecar once it is whole."""
    shape = sidecar_schema(found.shape)
    files = found.files()
    batch = next(files, None)
    while batch is not None:
        with Part(folder / f"{uuid.uuid4()}.parquet", shape) as part:
            while batch is not None and part.actions.total() < SIDECAR_ACTIONS:
                action, rows = batch
                part.write(rows.select(shape.names), action)
                batch = next(files, None)
        yield part


def _built(found: Contents, main: Part, sidecars: list[Part]) -> Built:
    actions = sum((part.actions for part in sidecars), main.actions)
    if actions["protocol"] != 1 or actions["metaData"] != 1 or actions["add"] != found.live_files:
        raise TxnLogMirrorError(f"a checkpoint of {dict(actions)} actions is none")
    return Built(
        table=found.table,
        txns=found.txns,
        domains=found.domains,
        v2=found.v2,
        main=main.file,
        sidecars=tuple(part.file for part in sidecars),
        actions=actions.total(),
        adds=actions["add"],
        add_bytes=found.live_bytes,
    )
