"""Committed rows to the bytes of a `_delta_log` file. Pure: the same rows give the same bytes for ever.

Each version carries the number of the renderer that gives its bytes. A released renderer never changes, or two mirrors
of different releases would call each other's files foreign: what should be written differently gets a new number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from deltalakedb.actions import AddFile, RemoveFile, as_json
from deltalakedb.catalog import VersionActions, VersionRow
from deltalakedb.errors import TxnLogMirrorError

_encode = msgspec.json.Encoder().encode


class _CommitInfo(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """`commitInfo` of a version that was decided here; what is None is left out."""

    in_commit_timestamp: int
    timestamp: int
    operation: str | None = None
    operation_parameters: msgspec.Raw = msgspec.Raw()
    read_version: int | None = None
    isolation_level: str | None = None
    is_blind_append: bool | None = None
    operation_metrics: msgspec.Raw | None = None
    engine_info: str | None = None
    txn_id: str | None = None
    user_metadata: str | None = None
    tags: msgspec.Raw | None = None


class _Add(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """`add` as most are."""

    path: str
    partition_values: dict[str, str | None]
    size: int
    modification_time: int
    data_change: bool
    stats: str | None = None


Renderer = Callable[[VersionActions, Iterable[RemoveFile], Iterable[AddFile]], Iterator[bytes]]
"""From a version, its removes and its adds to its lines, each with its line end."""


def render(version: VersionActions) -> bytes:
    """The log file of one version. Raises `TxnLogMirrorError` for a renderer that this release does not have."""
    return b"".join(lines(version, version.removes, version.adds))


def lines(version: VersionActions, removes: Iterable[RemoveFile], adds: Iterable[AddFile]) -> Iterator[bytes]:
    """The same line by line, with removes and adds from elsewhere: there may be more than should be held at once."""
    renderer = RENDERERS.get(version.row.render_version)
    if renderer is None:
        raise TxnLogMirrorError(
            f"version {version.row.version} is to be rendered by renderer {version.row.render_version}, which this "
            "release does not have: run a mirror worker of the release that committed it, or a newer one"
        )
    return renderer(version, removes, adds)


def _version_1(version: VersionActions, removes: Iterable[RemoveFile], adds: Iterable[AddFile]) -> Iterator[bytes]:
    """commitInfo, protocol, metaData, txn, domainMetadata, remove, add, cdc, others; absent fields are left out.

    Actions that have a number in SQL stay in its order; txns and domains have none and are sorted here, because
    databases do not agree on the order of texts.
    """
    info = _commit_info(version.row) if version.row.origin is None else _found_commit_info(version.row)
    if info is not None:
        yield _line("commitInfo", info)
    if version.protocol is not None:
        yield _line("protocol", as_json("protocol", version.protocol))
    if version.metadata is not None:
        yield _line("metaData", as_json("metaData", version.metadata))
    for txn in sorted(version.txns, key=lambda txn: txn.app_id):
        yield _line("txn", as_json("txn", txn))
    for domain in sorted(version.domains, key=lambda domain: domain.domain):
        yield _line("domainMetadata", as_json("domainMetadata", domain))
    for remove in removes:
        yield _line("remove", as_json("remove", remove))
    for add in adds:
        if add.deletion_vector is None and add.rest is None:
            body = _Add(add.path, add.partition_values, add.size, add.modification_time, add.data_change, add.stats)
            yield _line("add", body)
        else:
            yield _line("add", as_json("add", add))
    for cdc in version.cdc:
        yield _line("cdc", as_json("cdc", cdc))
    for other in version.others:
        yield _line(other.kind, msgspec.Raw(other.json))


def _commit_info(row: VersionRow) -> Any:
    info = _CommitInfo(
        row.time_ms,
        row.time_ms,
        row.operation,
        msgspec.Raw(row.operation_parameters or "{}"),
        row.read_version,
        row.isolation_level,
        row.is_blind_append,
        _object(row.operation_metrics),
        row.engine_info,
        row.txn_id,
        row.user_metadata,
        _object(row.tags),
    )
    if not row.commit_info:
        return info
    named = zip(_CommitInfo.__struct_encode_fields__, msgspec.structs.astuple(info), strict=True)
    known = {name: value for name, value in named if value is not None}
    return known | msgspec.json.decode(row.commit_info, type=dict[str, msgspec.Raw])


def _found_commit_info(row: VersionRow) -> dict[str, Any] | None:
    """What somebody else said of the version, and nothing more; None: nothing."""
    if row.commit_info is None:
        return None
    info: dict[str, Any] = {
        "operation": row.operation,
        "operationParameters": _raw(row.operation_parameters),
        "readVersion": row.read_version,
        "isolationLevel": row.isolation_level,
        "isBlindAppend": row.is_blind_append,
        "operationMetrics": _raw(row.operation_metrics),
        "engineInfo": row.engine_info,
        "txnId": row.txn_id,
        "userMetadata": row.user_metadata,
        "tags": _raw(row.tags),
    }
    # Its times are among the rest; with in-commit timestamps on, readers want commitInfo first, and it is.
    return msgspec.json.decode(row.commit_info, type=dict[str, msgspec.Raw]) | {
        name: value for name, value in info.items() if value is not None
    }


def _object(text: str | None) -> msgspec.Raw | None:
    return None if text == "{}" else _raw(text)


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text)


def _line(kind: str, body: Any) -> bytes:
    line = _encode({kind: body})
    # What came verbatim may be written over several lines; within JSON strings a line end is always escaped.
    if b"\n" in line or b"\r" in line:
        line = line.replace(b"\r", b"").replace(b"\n", b"")
    return line + b"\n"


RENDERERS: dict[int, Renderer] = {1: _version_1}
"""Every renderer that was ever released, by number."""
