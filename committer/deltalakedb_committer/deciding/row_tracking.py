"""Row tracking: row ids and commit versions that the committer gives to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from deltalakedb.actions import AddFile, DomainMetadata
from deltalakedb.errors import Reason

from .file_rest import FileRest, with_fields
from .refusal import Refused
from .state import LiveFile, TableState

DOMAIN = "delta.rowTracking"


class _HighWaterMark(msgspec.Struct):
    rowIdHighWaterMark: int  # noqa: N815 - the protocol's name


def assign_row_ids(
    adds: tuple[AddFile, ...],
    num_records: tuple[int | None, ...],
    replaced: Sequence[LiveFile | None],
    removed_paths: Mapping[str, LiveFile],
    table: TableState,
    version: int,
) -> tuple[tuple[AddFile, ...], DomainMetadata | None]:
    """`adds` with row ids and commit versions, and the table's new high-water mark if it rose.

    `replaced` has, per add or not at all, the live row whose place it takes.

    A file that is there already (its statistics or deletion vector change) keeps what it had. Raises `Refused`.
    """
    high = before = _high_water_mark(table)
    assigned: list[AddFile] = []
    for n, add in enumerate(adds):
        known = (replaced[n] if replaced else None) or removed_paths.get(add.path)
        if known is not None and known.base_row_id is not None:
            base, since = known.base_row_id, known.default_row_commit_version
        else:
            base, since = high + 1, version
            high += num_records[n] or 0
        given = FileRest(base_row_id=base, default_row_commit_version=since)
        assigned.append(msgspec.structs.replace(add, rest=with_fields(add.rest, given)))
    if high >= 2**63:
        raise Refused(Reason.LIMIT_EXCEEDED, "the table has no row ids left for so many rows", table=table.name)
    if high == before:
        return tuple(assigned), None
    return tuple(assigned), DomainMetadata(domain=DOMAIN, configuration=f'{{"rowIdHighWaterMark":{high}}}')


def _high_water_mark(table: TableState) -> int:
    domain = table.domains.get(DOMAIN)
    if domain is None or domain.removed:
        return -1
    try:
        return msgspec.json.decode(domain.configuration, type=_HighWaterMark).rowIdHighWaterMark
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Refused(
            Reason.INVALID_ACTION,
            f"domain {DOMAIN} of the table does not say which row ids are given: no row can get one",
            table=table.name,
        ) from error
