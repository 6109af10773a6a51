"""Publishes checkpoints: put if absent, read back from where readers will find it, and only then named.

A bad checkpoint makes a table unreadable for every reader, so nothing is named that was not verified, and one that lies
there already and is not byte for byte ours is left alone and not named.
"""

from __future__ import annotations

import logging
from pathlib import Path

from deltalakedb.database import Database
from deltalakedb.deltalog import last_checkpoint
from deltalakedb.errors import TxnLogMirrorError, TxnLogObjectStoreError
from deltalakedb.failpoints import Failpoint
from deltalakedb.log_names import LAST_CHECKPOINT, SIDECARS, log_folder, log_path
from deltalakedb.objectstore import Put
from deltalakedb_mirror_worker import version_checksum
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.scratch import scratch
from deltalakedb_mirror_worker.wide import same_bytes

from .building import Built, build

logger = logging.getLogger(__name__)

_ATTEMPTS = 5

_BUILT = Failpoint("checkpoint.built")
_PUT = Failpoint("checkpoint.put")
_NAMED = Failpoint("checkpoint.named")


def checkpoint(db: Database, place: Place, table_id: str, version: int) -> bool:
    """Publish the checkpoint of a published version, and name it in `_last_checkpoint` unless that is further already.

    Whether it is named now. Raises `TxnLogMirrorError`, `TxnLogObjectStoreError` or `TxnLogDatabaseError`; all that is
    left behind then is a checkpoint without a name, which is as good as any.
    """
    if place.store.get(log_path(place.folder, version)) is None:
        raise TxnLogMirrorError(f"version {version} is not published, so it gets no checkpoint")
    with scratch("checkpoint") as folder:
        built = build(db, table_id, version, folder)
        _BUILT.reached()
        version_checksum.put(place, built.table, built.adds, built.add_bytes, built.txns, built.domains)
        log = log_folder(place.folder)
        # The sidecars first: whoever finds the main file finds all of it.
        for path, file in [(f"{log}{SIDECARS}/{file.name}", file) for file in built.sidecars] + [
            (log + built.main.name, built.main)
        ]:
            if not _put(place, path, file):
                logger.warning(
                    "%s/%s is there already and not what SQL says; it is left unnamed", place.store.root, path
                )
                return False
            _PUT.reached()
        named = _name(place, built)
        _NAMED.reached()
    return named


def _put(place: Place, path: str, file: Path) -> bool:
    """Whether the file is at its path now: put there, or there already with the same bytes."""
    answer = place.store.put_file_if_absent(path, file)
    there = file.with_name("there.parquet")
    try:
        place.store.download(path, there)
    except TxnLogObjectStoreError:
        if answer is not Put.UNKNOWN:
            raise
        # The answer was lost and so, it seems, was the put.
        raise TxnLogObjectStoreError(
            f"no trustworthy answer to putting {path!r} in {place.store.root}, and it is not there"
        ) from None
    same = same_bytes(there, file)
    there.unlink()
    return same


def _name(place: Place, built: Built) -> bool:
    """Move `_last_checkpoint` forward. One that cannot be read is replaced, one that is as far or further stays."""
    path = log_folder(place.folder) + LAST_CHECKPOINT
    data = _hint(built)
    for _ in range(_ATTEMPTS):
        found = place.store.get(path)
        if found is not None:
            named = last_checkpoint.named_version(found.data)
            if named is not None and named >= built.version:
                # Of a version's V2 checkpoints one is as good as another.
                return found.data == data or (built.v2 and named == built.version)
        if place.store.put_if_match(path, data, None if found is None else found.tag) is Put.CREATED:
            return True
    raise TxnLogObjectStoreError(f"{path!r} in {place.store.root} could not be replaced in {_ATTEMPTS} attempts")


def _hint(built: Built) -> bytes:
    status = built.main.stat()
    main = (
        last_checkpoint.MainFile(built.main.name, status.st_size, status.st_mtime_ns // 1_000_000) if built.v2 else None
    )
    return last_checkpoint.render(
        version=built.version, actions=built.actions, size=built.size, adds=built.adds, main=main
    )
