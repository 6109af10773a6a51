"""How the data files of a version come to a target before its log file does: not at all, copied, or brought by others.

A version must not be readable before its files are. Only files that a newer version has removed may be missing: VACUUM
takes them away, and nobody could ever bring them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import msgspec

from deltalakedb.catalog import MirrorProgress
from deltalakedb.database import Database, Pool
from deltalakedb.errors import TxnLogMirrorError, TxnLogObjectStoreError
from deltalakedb.objectstore import Put

from . import properties
from .data_files import DataFile
from .places import Place, Places
from .scratch import scratch

_THREADS = 16
_AT_ONCE = 1_000
_SHOWN = 3
"""Missing files that a message names."""


class FilesAwaited(TxnLogMirrorError):
    """A version of a replica whose data files are not all there yet. Nothing is wrong: others bring them."""


class Delivery(Protocol):
    """Sees to the data files of one target's versions. Thread-safe."""

    def deliver(self, table: MirrorProgress, version: int, files: Iterable[DataFile]) -> None:
        """Return once the files that a version names are at the target.

        Raises `FilesAwaited`, `TxnLogMirrorError` naming a file that cannot be had, and the errors of the stores.
        """
        ...


class Copy:
    """Copies what is missing from where the table lies."""

    def __init__(self, pool: Pool, places: Places) -> None:
        self._pool = pool
        self._places = places

    def deliver(self, table: MirrorProgress, version: int, files: Iterable[DataFile]) -> None:
        source, target = self._places.source(table.location), self._places.of(table.location)
        gone = _missing(files, lambda file: _is_there(target, file) or _copied(source, target, file))
        for some in _portions(gone):
            left = _wanted(self._pool, table, version, some, removed_ms=None)
            if left:
                raise TxnLogMirrorError(
                    f"version {version} cannot be copied: {_named(left)} not in {source.uri}, where the table has its files"
                )


class Replica:
    """Waits for files that somebody else brings."""

    def __init__(self, pool: Pool, places: Places) -> None:
        self._pool = pool
        self._places = places

    def deliver(self, table: MirrorProgress, version: int, files: Iterable[DataFile]) -> None:
        target = self._places.of(table.location)
        missing = _missing(files, lambda file: _is_there(target, file))
        for some in _portions(missing):
            left = _wanted(self._pool, table, version, some, removed_ms=int(time.time() * 1000))
            if left:
                raise FilesAwaited(
                    f"version {version} waits for its data files: {_named(left)} not in {target.uri} yet"
                )


def _missing(files: Iterable[DataFile], settled: Callable[[DataFile], bool]) -> Iterator[DataFile]:
    """The files that are not settled, several of them being asked for side by side."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mirror-files") as threads:
        for some in _portions(files):
            # Several deletion vectors may lie in one file: the one that reaches furthest says how much must be there.
            furthest = {file.path: file for file in sorted(some, key=lambda file: file.size)}
            for file, there in zip(furthest.values(), threads.map(settled, furthest.values()), strict=True):
                if not there:
                    yield file


def _portions(files: Iterable[DataFile]) -> Iterator[list[DataFile]]:
    iterator = iter(files)
    while some := list(islice(iterator, _AT_ONCE)):
        yield some


def _is_there(place: Place, file: DataFile) -> bool:
    """Whether the file is there whole. One of another size is on its way, or no file of this table."""
    found = place.store.info(_object(place, file))
    return found is not None and (found.size == file.size if file.whole else found.size >= file.size)


def _copied(source: Place, target: Place, file: DataFile) -> bool:
    """Copy a file; False if the source does not have it."""
    path = _object(source, file)
    if source.store.info(path) is None:
        return False
    with scratch("copy") as folder:
        local = folder / "file"
        source.store.download(path, local)
        size = local.stat().st_size
        if size != file.size if file.whole else size < file.size:
            raise TxnLogMirrorError(f"{source.store.root}/{path} has {size} bytes, and its version says {file.size}")
        answer = target.store.put_file_if_absent(_object(target, file), local)
    if answer is not Put.CREATED and not _is_there(target, file):
        raise TxnLogObjectStoreError(
            f"{_object(target, file)!r} in {target.store.root} could not be copied: "
            + ("another file is there" if answer is Put.EXISTS else "the store gave no trustworthy answer")
        )
    return True


def _object(place: Place, file: DataFile) -> str:
    return f"{place.folder}/{file.path}" if place.folder else file.path


def _wanted(
    pool: Pool, table: MirrorProgress, version: int, missing: Sequence[DataFile], *, removed_ms: int | None
) -> list[DataFile]:
    """Those of the missing files that have to be there. `removed_ms`: now, where a file that was removed lately has to."""
    with pool.connection() as db, db.snapshot():
        removed = _removal_times(db, table.table_no, version, [file.action for file in missing])
        if removed_ms is None:
            return [file for file in missing if file.action not in removed and not file.change_data]
        kept = removed_ms - _retention(db, table.table_no)
        of_version = _time(db, table.table_no, version)
    return [file for file in missing if (of_version if file.change_data else removed.get(file.action, kept + 1)) > kept]


def _removal_times(db: Database, table_no: int, version: int, paths: Sequence[str]) -> dict[str, int]:
    """By path, of the adds of a version: when a newer version removed it. Those that are live are left out."""
    return dict(
        db.query(
            "SELECT f.path, v.time_ms FROM dl_past_files f JOIN dl_table_versions v "
            "ON v.table_no = f.table_no AND v.version = f.removed_version "
            "WHERE f.table_no = ? AND f.version = ? AND f.path = ANY(?)",
            [table_no, version, list(paths)],
        )
    )


def _retention(db: Database, table_no: int) -> int:
    ((configuration,),) = db.query(
        "SELECT m.configuration FROM dl_table_heads h JOIN dl_metadata_updates m "
        "ON m.table_no = h.table_no AND m.version = h.metadata_version WHERE h.table_no = ?",
        [table_no],
    )
    return properties.deleted_file_retention_ms(msgspec.json.decode(configuration, type=dict[str, str]))


def _time(db: Database, table_no: int, version: int) -> int:
    ((time_ms,),) = db.query(
        "SELECT time_ms FROM dl_table_versions WHERE table_no = ? AND version = ?", [table_no, version]
    )
    return int(time_ms)


def _named(files: Sequence[DataFile]) -> str:
    shown = ", ".join(repr(file.path) for file in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"{shown}{more} {'is' if len(files) == 1 else 'are'}"


DELIVERIES: dict[str, Callable[[Pool, Places], Delivery]] = {"copy": Copy, "replica": Replica}
"""By kind of target; at an in-place target the files are there already."""
