"""Any number of versions of one table straight from SQL, a bounded portion of them held at a time; and published so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from deltalakedb.catalog import Catalog, Range, VersionActions
from deltalakedb.database import Pool
from deltalakedb.errors import TxnLogMirrorError

from .places import Place
from .publish import Rendered, publish
from .render import render
from .wide import WIDE_ACTIONS, publish_wide

PORTION_VERSIONS = 64
"""Versions that are held at once at most."""
PORTION_ACTIONS = 20_000
"""File actions that are held at once at most, but at least one version."""


class Portion(NamedTuple):
    """Consecutive ones of the versions asked for; a version that is wide is one of its own, and not rendered."""

    versions: list[int]
    commits: list[Rendered] | None


def read_portions(pool: Pool, table_no: int, versions: Sequence[int]) -> Iterator[Portion]:
    """`versions` of a table, ascending, rendered from SQL.

    Raises `TxnLogMirrorError` for one that SQL does not have or that cannot be rendered, and the errors of the database.
    """
    for start in range(0, len(versions), PORTION_VERSIONS):
        some = versions[start : start + PORTION_VERSIONS]
        with pool.connection() as db, db.snapshot():
            bare = Catalog(db).versions(_ranges(table_no, some), files=False)
        sizes = {each.row.version: each.row.added_files + each.row.removed_files for each in bare}
        missing = next((version for version in some if version not in sizes), None)
        if missing is not None:
            raise TxnLogMirrorError(f"SQL has no version {missing} of the table with the number {table_no}")
        for portion in portions(sizes, actions=PORTION_ACTIONS, wide=WIDE_ACTIONS):
            if sizes[portion[0]] > WIDE_ACTIONS:
                yield Portion(portion, None)
                continue
            with pool.connection() as db, db.snapshot():
                whole = Catalog(db).versions(_ranges(table_no, portion))
            yield Portion(portion, [rendered(each) for each in whole])


def publish_versions(pool: Pool, place: Place, table_no: int, versions: Sequence[int]) -> None:
    """Publish `versions` of a table, in order, or see that they are there and ours.

    Raises `TxnLogTableFencedError` for somebody else's commit in the place of one, and as `read_portions` and the store
    do. What came before is published.
    """
    for portion in read_portions(pool, table_no, versions):
        if portion.commits is None:
            publish_wide(pool, place, table_no, portion.versions[0])
            continue
        published = publish(place.store, place.folder, portion.commits)
        if published.error is not None:
            raise published.error


def portions(sizes: Mapping[int, int], *, actions: int, wide: int) -> Iterator[list[int]]:
    """Versions, by their file actions, in groups of about so many actions at most; a wide version is alone. Pure."""
    portion: list[int] = []
    total = 0
    for version, size in sizes.items():
        if portion and (size > wide or total + size > actions):
            yield portion
            portion, total = [], 0
        portion.append(version)
        total += size
    if portion:
        yield portion


def rendered(version: VersionActions) -> Rendered:
    """A committed version as it is published. Raises what rendering it raises."""
    row = version.row
    return Rendered(version=row.version, txn_id=row.txn_id, time_ms=row.time_ms, data=render(version))


def _ranges(table_no: int, versions: Sequence[int]) -> list[Range]:
    """Ascending versions as few ranges."""
    ranges: list[Range] = []
    for version in versions:
        if ranges and version == ranges[-1][2] + 1:
            ranges[-1] = (table_no, ranges[-1][1], version)
        else:
            ranges.append((table_no, version, version))
    return ranges
