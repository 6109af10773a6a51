"""Puts back published files that are gone: SQL knows their bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from deltalakedb.database import Pool
from deltalakedb.log_names import commit_version, log_folder, log_path

from .places import Place
from .portions import publish_versions

logger = logging.getLogger(__name__)


def repair(pool: Pool, place: Place, table_no: int, first: int, last: int) -> int:
    """Publish again what is missing of the versions `first` to `last`, in order; how many were.

    They must all have been published before. Raises `TxnLogTableFencedError` if somebody else's commit came into a
    gap meanwhile, and the errors of store and database.
    """
    missing = list(_missing(place, first, last))
    publish_versions(pool, place, table_no, missing)
    if missing:
        logger.warning(
            "%s published versions of %s/%s were gone (the first is %s) and are there again",
            *(len(missing), place.store.root, place.folder, missing[0]),
            extra={"table_no": table_no},
        )
    return len(missing)


def _missing(place: Place, first: int, last: int) -> Iterator[int]:
    """Versions from `first` to `last` that a listing does not show. Putting them is safe where a listing is stale."""
    expected = first
    start_after = log_path(place.folder, first - 1) if first > 0 else ""
    for found in place.store.list(log_folder(place.folder), start_after=start_after):
        version = commit_version(found.path)
        if version is None:
            if found.path > log_path(place.folder, last):
                break
            continue
        yield from range(expected, min(version, last + 1))
        expected = max(expected, version + 1)
        if version >= last:
            break
    yield from range(expected, last + 1)
