"""From what was decided to decisions: complete, with the outcome for whoever asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from deltalakedb.errors import Reason
from deltalakedb.events import AppTransaction, Committed, Content, Outcome, Rejected, TableVersion
from deltalakedb.ids import is_txn_id

from .decisions import Accepted, Answer, Commit, Entry, Rejection, TableChange
from .refusal import Refused
from .rules import Rules
from .state import Decided, State

_MESSAGE = 1_000  # characters of a recorded message
_NO_CONTENT = Content(tables=())


class Asker(NamedTuple):
    """Who asks, where in the log, and where the answer goes."""

    txn_id: str
    client_id: str
    partition: int
    position: int
    time_ms: int
    lake_id: str


def is_client_id(text: str, limits: Rules) -> bool:
    """Whether `text` may be recorded as who asked."""
    short = len(text) * 4 <= limits.max_name_bytes or len(text.encode()) <= limits.max_name_bytes
    return short and "\0" not in text


def asked_by(state: State, txn_id: str, client_id: str, partition: int, position: int, time_ms: int) -> Asker:
    """Who asks with the record at `position`, as far as what it says of itself can be recorded."""
    limits = state.rules
    return Asker(
        txn_id,
        client_id if is_client_id(client_id, limits) else "",
        partition if 0 <= partition < limits.outcome_partitions else -1,
        position,
        time_ms,
        state.lake.lake_id,
    )


def commit(
    state: State,
    asker: Asker,
    digest: bytes | None,
    time_ms: int,
    versions: Sequence[TableVersion],
    *,
    changes: tuple[TableChange, ...] = (),
    entries: tuple[Entry, ...] = (),
    chunked: bool = False,
    content: Content = _NO_CONTENT,
    folded: tuple[Accepted, ...] = (),
) -> Commit:
    """The next commit of the lake."""
    commit_seq = state.commit_seq + 1
    return Commit(
        commit_seq=commit_seq,
        time_ms=time_ms,
        position=asker.position,
        txn_id=asker.txn_id,
        client_id=asker.client_id,
        digest=digest,
        event_time_ms=asker.time_ms,
        chunked=chunked,
        apps=content.apps,
        user_metadata=content.user_metadata,
        engine_info=content.engine_info,
        changes=changes,
        entries=entries,
        outcome=_outcome(asker, Committed(commit_seq=commit_seq, time_ms=time_ms, tables=tuple(versions))),
        outcome_partition=asker.partition,
        folded=folded,
    )


def _outcome(asker: Asker, result: Committed | Rejected) -> Outcome:
    return Outcome(
        lake_id=asker.lake_id,
        txn_id=asker.txn_id,
        client_id=asker.client_id,
        position=asker.position,
        committed=result if isinstance(result, Committed) else None,
        rejected=result if isinstance(result, Rejected) else None,
    )


def accepted(
    asker: Asker,
    committed: Committed,
    digest: bytes | None,
    *,
    chunked: bool = False,
    apps: tuple[AppTransaction, ...] = (),
    **more: Any,
) -> Accepted:
    """Decided in favour; `more` are further fields of the decision."""
    return Accepted(
        position=asker.position,
        txn_id=asker.txn_id,
        client_id=asker.client_id,
        digest=digest,
        event_time_ms=asker.time_ms,
        chunked=chunked,
        apps=apps,
        outcome=_outcome(asker, committed),
        outcome_partition=asker.partition,
        **more,
    )


def _rejected(refused: Refused) -> Rejected:
    return Rejected(
        reason=refused.reason.value,
        message=refused.message[:_MESSAGE],
        table=None if refused.table is None else refused.table[:255],
        versions=refused.versions,
        other_txn=refused.other_txn,
    )


def rejection(asker: Asker, refused: Refused, digest: bytes | None, *, chunked: bool = False) -> Rejection:
    """Recorded under the id it came with, if that is one; else under its position."""
    trusted = is_txn_id(asker.txn_id)
    return Rejection(
        position=asker.position,
        txn_id=asker.txn_id if trusted else f"position-{asker.position}",
        client_id=asker.client_id,
        digest=digest if trusted else None,
        event_time_ms=asker.time_ms,
        chunked=chunked and trusted,
        outcome=_outcome(asker, _rejected(refused)),
        outcome_partition=asker.partition,
    )


def answer(asker: Asker, first: Decided, digest: bytes | None) -> Answer:
    """The first decision, to who asks now; or that the same id came with another content, told to that asker alone."""
    outcome = first.outcome
    if digest is not None and first.digest is not None and digest != first.digest:
        mismatch = Refused(
            Reason.CONTENT_MISMATCH,
            "another content was decided under this id before; send every transaction under an id of its own",
            other_txn=first.txn_id,
        )
        told = _outcome(asker, _rejected(mismatch))
    else:
        told = msgspec.structs.replace(outcome, txn_id=asker.txn_id, client_id=asker.client_id, position=asker.position)
    return Answer(position=asker.position, event_time_ms=asker.time_ms, outcome=told, outcome_partition=asker.partition)
