"""Holds every published version of a table against what SQL gives, and looks for what SQL does not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from deltalakedb.database import Pool
from deltalakedb.deltalog.last_checkpoint import named_version
from deltalakedb.errors import TxnLogTableFencedError
from deltalakedb.log_names import LAST_CHECKPOINT, log_folder, log_path

from .places import Place
from .portions import read_portions
from .publish import Rendered, foreign_commit, is_there, listed_version
from .wide import is_wide_there

_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One version that is not as it should be."""

    version: int
    what: Literal["missing", "differs", "foreign"]
    """foreign: SQL has no such version."""
    told: str
    """In words; for what differs, whose the commit is."""


def inspect(pool: Pool, place: Place, table_no: int, versions: Sequence[int]) -> Iterator[Finding]:
    """What is wrong with these versions, in order. Raises the errors of store and database."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mirror-inspect") as threads:
        for portion in read_portions(pool, table_no, versions):
            if portion.commits is None:
                found = [_wide(pool, place, table_no, portion.versions[0])]
            else:
                found = list(threads.map(lambda commit: _narrow(place, commit), portion.commits))
            yield from (finding for finding in found if finding is not None)


def foreign_version(place: Place, head: int) -> Finding | None:
    """The first version there that lies above SQL's head."""
    version = listed_version(place.store, place.folder, head + 1)
    if version is None:
        return None
    path = log_path(place.folder, version)
    there = place.store.get(path)
    if there is None:
        return None
    told = foreign_commit(f"{place.store.root}/{path}", there.data, "no version of this lake")
    return Finding(version=version, what="foreign", told=str(told))


def named_checkpoint(place: Place) -> int:
    """The version that `_last_checkpoint` names; -1: none that can be read."""
    hint = place.store.get(log_folder(place.folder) + LAST_CHECKPOINT)
    named = None if hint is None else named_version(hint.data)
    return -1 if named is None else named


def _narrow(place: Place, ours: Rendered) -> Finding | None:
    try:
        return None if is_there(place.store, place.folder, ours) else _missing(place, ours.version)
    except TxnLogTableFencedError as error:
        return Finding(version=ours.version, what="differs", told=str(error))


def _wide(pool: Pool, place: Place, table_no: int, version: int) -> Finding | None:
    try:
        return None if is_wide_there(pool, place, table_no, version) else _missing(place, version)
    except TxnLogTableFencedError as error:
        return Finding(version=version, what="differs", told=str(error))


def _missing(place: Place, version: int) -> Finding:
    return Finding(
        version=version, what="missing", told=f"{place.store.root}/{log_path(place.folder, version)} is not there"
    )
