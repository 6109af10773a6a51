"""The committer's heart: `decide` says what becomes of an event, `advance` (re-exported) moves the state on.

Both are pure. A decision depends on the event, its place and time in the log, and on decisions before it (the state): on no clock,
no chance and nothing outside. So every replay of the log gives the same history, whatever the batches are. Whatever
can be decoded gets a decision; the only error raised is `TxnLogHaltedError`, for a rule set that this release does not
know.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from deltalakedb.codec import HEADER_OUTCOME, HEADER_TXN
from deltalakedb.errors import Reason
from deltalakedb.eventlog.port import Record
from deltalakedb.events import (
    AppTransaction,
    Cancel,
    Committed,
    Content,
    Control,
    ImportedVersion,
    LakeAction,
    Outcome,
    Rejected,
    SetRules,
    StagedTransaction,
    TableVersion,
    Tick,
)
from deltalakedb.ids import is_txn_id

from .advance import advance
from .assembly import assemble
from .decisions import Accepted, Answer, Commit, DeadLetter, Decision, Nothing, Rejection, Staged
from .needs import StagedEvent, Undecodable
from .refusal import Refused, shown
from .rules import Rules, rules
from .state import Decided, StagedChunk, State
from .transactions import change_tables

__all__ = ["Undecodable", "advance", "decide", "isolated"]

_MESSAGE = 1_000  # characters of a recorded message


class _Asker(NamedTuple):
    """Who asks, where in the log, and where the answer goes."""

    txn_id: str
    client_id: str
    partition: int
    position: int
    time_ms: int
    lake_id: str


def decide(state: State, event: StagedEvent, *, position: int, time_ms: int) -> Decision:
    """What becomes of `event`, the record at `position` with the log's append time `time_ms`. Changes nothing."""
    match event:
        case StagedTransaction():
            return _decide_transaction(state, event, position, time_ms)
        case Control():
            return _decide_control(state, event, position, time_ms)
        case ImportedVersion():
            return _decide_import(state, event, position, time_ms)
        case Undecodable():
            return _set_aside(
                state,
                event,
                time_ms,
                Reason.UNDECODABLE_EVENT,
                "the record is no event that can be decided: it is kept in the dead-letter stream",
            )


def isolated(state: State, record: Record, error: str) -> Rejection:
    """The rejection of a record that no decision could be found for."""
    return _set_aside(
        state,
        Undecodable.of(record, error),
        record.time_ms,
        Reason.ISOLATED,
        "deciding it failed: the record is kept in the dead-letter stream, and the committer's log says why",
    )


def _decide_transaction(state: State, event: StagedTransaction, position: int, time_ms: int) -> Decision:
    envelope = event.envelope
    asker = _asker(state, envelope.txn_id, envelope.client_id, envelope.outcome_partition, position, time_ms)
    first = state.decided.get(envelope.txn_id)
    if first is not None:
        return _answer(asker, first, envelope.digest)
    chunked = envelope.chunk_count != 1
    try:
        _check_envelope(state, envelope.txn_id, envelope.client_id, envelope.lake_id, envelope.root)
        whole = assemble(event, state.chunks.get(envelope.txn_id, {}) if chunked else {}, state.rules)
        if whole is None:
            return Nothing(position)
        if isinstance(whole, StagedChunk):
            return Staged(position=position, txn_id=envelope.txn_id, event_time_ms=time_ms, chunk=whole)
        return _decide_content(state, whole, envelope.digest, asker, chunked=chunked)
    except Refused as refused:
        return _rejection(asker, refused, envelope.digest, chunked=chunked)


def _decide_content(
    state: State, content: Content, digest: bytes, asker: _Asker, *, chunked: bool
) -> Commit | Accepted:
    again = _committed_app(state, content.apps)
    if again is not None:
        committed = msgspec.structs.replace(again, already_committed=True)
        return _accepted(asker, committed, digest, chunked=chunked)
    time_ms, changes = change_tables(content, asker.txn_id, asker.time_ms, state)
    if not changes:
        newest = Committed(commit_seq=state.commit_seq, time_ms=state.time_ms, tables=())
        return _accepted(asker, newest, digest, chunked=chunked, apps=content.apps)
    commit_seq = state.commit_seq + 1
    versions = [
        TableVersion(name=change.table.name, table_id=change.table.table_id, version=change.version)
        for change in changes
    ]
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
        outcome=_outcome(asker, Committed(commit_seq=commit_seq, time_ms=time_ms, tables=tuple(versions))),
        outcome_partition=asker.partition,
    )


def _committed_app(state: State, apps: tuple[AppTransaction, ...]) -> Committed | None:
    """The outcome of the transaction that committed these application versions before; None if none is committed.

    A version below the newest one counts as committed by the next one above it. Raises `Refused` if only some are.
    """
    earlier: list[tuple[AppTransaction, str]] = []
    for app in apps:
        versions = [version for version in state.apps.get(app.app_id, ()) if version >= app.version]
        if versions:
            earlier.append((app, state.apps[app.app_id][min(versions)]))
    if not earlier:
        return None
    app, txn_id = earlier[0]
    if len(earlier) < len(apps):
        raise Refused(
            Reason.CONCURRENT_TRANSACTION,
            f"transaction {app.version} of application {shown(app.app_id)} is committed already, and others of this "
            "transaction's are not: send them apart",
            other_txn=txn_id,
        )
    committed = state.decided[txn_id].outcome.committed
    if committed is None:
        raise TypeError(f"transaction {txn_id} of application {app.app_id} is not committed")
    return committed


def _decide_control(state: State, event: Control, position: int, time_ms: int) -> Decision:
    asker = _asker(state, event.control_id, event.client_id, event.outcome_partition, position, time_ms)
    command = event.command
    if isinstance(command, Tick):
        return Nothing(position)
    first = state.decided.get(event.control_id)
    if first is not None:
        return _answer(asker, first, None)
    try:
        _check_envelope(state, event.control_id, event.client_id, event.lake_id, state.lake.root)
        match command:
            case Cancel():
                return _cancel(state, command, asker)
            case SetRules():
                if command.parameters:
                    raise Refused(
                        Reason.NOT_SUPPORTED,
                        f"a rule set has no parameters, such as {shown(min(command.parameters))}: choose another number",
                    )
                changed = rules(command.rule_set)
                committed = Committed(commit_seq=state.commit_seq, time_ms=state.time_ms, tables=())
                return _accepted(asker, committed, None, rules=changed)
            case LakeAction():
                raise Refused(
                    Reason.NOT_SUPPORTED,
                    f"rule set {state.rules.number} knows no lake action {shown(command.action)}",
                    table=command.table,
                )
    except Refused as refused:
        return _rejection(asker, refused, None)


def _cancel(state: State, command: Cancel, asker: _Asker) -> Decision:
    """An undecided transaction becomes rejected for ever; of a decided one its decision is told."""
    if not is_txn_id(command.txn_id):
        raise Refused(Reason.INVALID_ACTION, f"{shown(command.txn_id)} is not a transaction id")
    asker = asker._replace(txn_id=command.txn_id)
    first = state.decided.get(command.txn_id)
    if first is not None:
        return _answer(asker, first, None)
    cancelled = Refused(Reason.CANCELLED, f"cancelled by {shown(asker.client_id)} before it was decided")
    return _rejection(asker, cancelled, None, chunked=True)


def _decide_import(state: State, event: ImportedVersion, position: int, time_ms: int) -> Decision:
    envelope = event.envelope
    asker = _asker(state, envelope.txn_id, envelope.client_id, envelope.outcome_partition, position, time_ms)
    first = state.decided.get(envelope.txn_id)
    if first is not None:
        return _answer(asker, first, envelope.digest)
    try:
        _check_envelope(state, envelope.txn_id, envelope.client_id, envelope.lake_id, envelope.root)
        raise Refused(
            Reason.NOT_SUPPORTED,
            f"rule set {state.rules.number} does not import tables",
            table=event.content.table_name,
        )
    except Refused as refused:
        return _rejection(asker, refused, envelope.digest)


def _check_envelope(state: State, txn_id: str, client_id: str, lake_id: str, root: str) -> None:
    lake = state.lake
    if not is_txn_id(txn_id):
        raise Refused(Reason.INVALID_ACTION, f"{shown(txn_id)} is not an id: a lower-case UUID")
    if lake_id != lake.lake_id or (root != lake.root and root.rstrip("/") != lake.root.rstrip("/")):
        ours, theirs = (lake.lake_id, lake_id) if lake_id != lake.lake_id else (lake.root, root)
        raise Refused(Reason.WRONG_LAKE, f"meant for lake {shown(theirs)}; this is {shown(ours)}: connect again")
    if not _is_client_id(client_id, state.rules):
        raise Refused(
            Reason.LIMIT_EXCEEDED, f"client id {shown(client_id)} is not a text of {state.rules.max_name_bytes} bytes"
        )


def _is_client_id(text: str, limits: Rules) -> bool:
    short = len(text) * 4 <= limits.max_name_bytes or len(text.encode()) <= limits.max_name_bytes
    return short and "\0" not in text


def _asker(state: State, txn_id: str, client_id: str, partition: int, position: int, time_ms: int) -> _Asker:
    limits = state.rules
    return _Asker(
        txn_id,
        client_id if _is_client_id(client_id, limits) else "",
        partition if 0 <= partition < limits.outcome_partitions else -1,
        position,
        time_ms,
        state.lake.lake_id,
    )


def _set_aside(state: State, event: Undecodable, time_ms: int, reason: Reason, message: str) -> Rejection:
    """The rejection of a record, told to whom its headers name, under an id that no transaction has."""
    record = event.record
    headers = dict(record.headers)
    claimed = headers.get(HEADER_TXN, b"").decode("ascii", "replace")
    known = claimed if is_txn_id(claimed) else None
    partition = headers.get(HEADER_OUTCOME, b"")
    number = int(partition) if len(partition) <= 9 and partition.isdigit() else -1
    asker = _asker(state, f"position-{record.position}", "", number, record.position, time_ms)
    rejection = _rejection(asker, Refused(reason, message), None)
    return msgspec.structs.replace(
        rejection,
        outcome=rejection.outcome if known is None else msgspec.structs.replace(rejection.outcome, txn_id=known),
        claimed_txn_id=known,
        event_hash=event.hash,
        dead_letter=DeadLetter(record, event.error),
    )


def _outcome(asker: _Asker, result: Committed | Rejected) -> Outcome:
    return Outcome(
        lake_id=asker.lake_id,
        txn_id=asker.txn_id,
        client_id=asker.client_id,
        position=asker.position,
        committed=result if isinstance(result, Committed) else None,
        rejected=result if isinstance(result, Rejected) else None,
    )


def _accepted(
    asker: _Asker,
    committed: Committed,
    digest: bytes | None,
    *,
    chunked: bool = False,
    apps: tuple[AppTransaction, ...] = (),
    rules: Rules | None = None,
) -> Accepted:
    return Accepted(
        position=asker.position,
        txn_id=asker.txn_id,
        client_id=asker.client_id,
        digest=digest,
        event_time_ms=asker.time_ms,
        chunked=chunked,
        apps=apps,
        rules=rules,
        outcome=_outcome(asker, committed),
        outcome_partition=asker.partition,
    )


def _rejected(refused: Refused) -> Rejected:
    return Rejected(
        reason=refused.reason.value,
        message=refused.message[:_MESSAGE],
        table=None if refused.table is None else refused.table[:255],
        versions=refused.versions,
        other_txn=refused.other_txn,
    )


def _rejection(asker: _Asker, refused: Refused, digest: bytes | None, *, chunked: bool = False) -> Rejection:
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


def _answer(asker: _Asker, first: Decided, digest: bytes | None) -> Answer:
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
