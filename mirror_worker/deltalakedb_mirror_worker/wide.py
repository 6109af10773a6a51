"""Versions with more actions than should be held at once: rendered into a file, and published from there.

A million adds are more than a gigabyte as objects, and rendering them takes a good part of a minute. So they are read as a
stream, on a connection and in a thread of their own, while other tables go on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.failpoints import Failpoint
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import Put

from .places import Place
from .publish import foreign_commit, listed_version, same_commit
from .render import lines
from .scratch import scratch

WIDE_ACTIONS = 20_000
"""A version with more file actions than this is wide."""
_CHUNK = 1 << 20

_RENDERED = Failpoint("wide.rendered")


def publish_wide(pool: Pool, place: Place, table_no: int, version: int) -> None:
    """Publish one version, or see that it is there and ours.

    Raises `TxnLogTableFencedError` for a foreign commit in its place, `TxnLogObjectStoreError` if the store gave no
    trustworthy answer and it is not there, `TxnLogMirrorError` if it cannot be rendered, and the errors of the database.
    """
    with _rendered(pool, table_no, version) as (ours, txn_id):
        _RENDERED.reached()
        path = log_path(place.folder, version)
        if place.store.put_file_if_absent(path, ours) is not Put.CREATED:
            _compare(place, path, ours, txn_id)


def is_wide_there(pool: Pool, place: Place, table_no: int, version: int) -> bool:
    """Whether a version is in its place, as far as a listing shows. Raises `TxnLogTableFencedError` if another is."""
    if listed_version(place.store, place.folder, version) != version:
        return False
    with _rendered(pool, table_no, version) as (ours, txn_id):
        _compare(place, log_path(place.folder, version), ours, txn_id)
    return True


@contextmanager
def _rendered(pool: Pool, table_no: int, version: int) -> Iterator[tuple[Path, str | None]]:
    """A file with the bytes of a version, for the time of the block, and the id of its transaction."""
    with scratch("version") as folder:
        file = folder / "version.json"
        with pool.connection() as db, db.snapshot():
            catalog = Catalog(db)
            found = catalog.versions([(table_no, version, version)], files=False)
            if not found:
                raise TxnLogMirrorError(f"SQL has no version {version} of this table")
            with file.open("wb", buffering=_CHUNK) as out:
                out.writelines(lines(found[0], catalog.removes(table_no, version), catalog.adds(table_no, version)))
        os.utime(file, ns=(found[0].row.time_ms * 1_000_000,) * 2)
        yield file, found[0].row.txn_id


def _compare(place: Place, path: str, ours: Path, txn_id: str | None) -> None:
    """Raise `TxnLogTableFencedError` unless the object at `path` is `ours`, `TxnLogObjectStoreError` if it is not there."""
    theirs = ours.with_name("there.json")
    place.store.download(path, theirs)
    if same_bytes(theirs, ours):
        return
    # So rare (another renderer made it, or a stranger) that it may take the memory.
    data = theirs.read_bytes()
    if not same_commit(data, ours.read_bytes()):
        raise foreign_commit(f"{place.store.root}/{path}", data, f"transaction {txn_id}")


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(_CHUNK):
            if chunk != right.read(len(chunk)):
                return False
    return True
