"""The committer's heart: `decide` says what becomes of an event, `advance` (re-exported) moves the state on.

Both are pure. A decision depends on the event, its place and time in the log, and on decisions before it (the state): on no clock,
no chance and nothing outside. So every replay of the log gives the same history, whatever the batches are. Whatever
can be decoded gets a decision; the only error raised is `TxnLogHaltedError`, for a rule set that this release does not
know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

import msgspec

from deltalakedb.codec import HEADER_OUTCOME, HEADER_TXN
from deltalakedb.errors import Reason
from deltalakedb.eventlog.port import Record
from deltalakedb.events import (
    AppTransaction,
    Cancel,
    Committed,
    Completion,
    Content,
    Control,
    ImportedVersion,
    LakeAction,
    SetRules,
    StagedTransaction,
    TableVersion,
    Tick,
)
from deltalakedb.ids import is_txn_id

from .advance import advance
from .answers import Asker, accepted, answer, asked_by, commit, is_client_id, rejection
from .appends import plain_append
from .assembly import assemble, assembled
from .big import checked_so_far, decides, files_of
from .chunks import StagedChunk, StagedChunks
from .decisions import (
    Accepted,
    Chunk,
    Commit,
    DeadLetter,
    Decision,
    Entry,
    Expired,
    Imported,
    Nothing,
    Rejection,
    Staged,
)
from .files import Files, GivenFiles
from .imports import decide_chunk
from .lake_actions import decide_action
from .needs import Isolated, StagedEvent, Undecodable, Unread
from .quotas import Claim, claim_of, over_quota
from .refusal import Refused, shown
from .rules import rules
from .staged_files import StagedWork, stage
from .state import State
from .transactions import Changed, change_tables

__all__ = ["Undecodable", "advance", "decide", "isolated"]


def decide(state: State, event: StagedEvent, *, position: int, time_ms: int) -> Decision:
    """What becomes of `event`, the record at `position` with the log's append time `time_ms`. Changes nothing."""
    match event:
        case StagedTransaction():
            return _decide_transaction(state, event, position, time_ms)
        case Completion():
            return _decide_completion(state, event, position, time_ms)
        case Control():
            return _decide_control(state, event, position, time_ms)
        case ImportedVersion():
            return _decide_import(state, event, position, time_ms)
        case Unread():
            return _unread(state, event, position, time_ms)
        case Undecodable(record=record):
            # The same decision as if nobody had tried to decode it.
            claimed = claim_of(record)
            if claimed is not None and (over := over_quota(claimed, state.incomplete, state.rules)) is not None:
                return _over_quota(state, claimed, over, position, time_ms)
            return _set_aside(
                state,
                event,
                time_ms,
                Reason.UNDECODABLE_EVENT,
                "the record is no event that can be decided: it is kept in the dead-letter stream",
            )
        case Isolated(record=record, isolated=row, completes=txn_id):
            message = (
                f"the record is not decided, because {row.reason}: it is kept in the dead-letter stream. Do the same in "
                "new and smaller transactions, and report it"
            )
            unseen = Undecodable(record=record, hash=row.event_hash, error=row.reason)
            found = _set_aside(state, unseen, time_ms, Reason.ISOLATED, message)
            return found if txn_id is None else _with_transaction(state, found, txn_id, message)


def isolated(state: State, record: Record, event: StagedEvent, error: str) -> Rejection:
    """The rejection of a record that no decision could be found for; of a big transaction, if it is what completes one."""
    message = "deciding it failed: the record is kept in the dead-letter stream, and the committer's log says why"
    found = _set_aside(state, Undecodable.of(record, error), record.time_ms, Reason.ISOLATED, message)
    return _with_transaction(state, found, event.txn_id, message) if isinstance(event, Completion) else found


def _with_transaction(state: State, found: Rejection, txn_id: str, message: str) -> Rejection:
    """The rejection of a record as that of the big transaction which it was to decide: nothing else would, ever."""
    chunks = state.chunks.get(txn_id)
    if chunks is None or not chunks.is_complete or txn_id in state.decided:
        return found
    asker = _asker_of(state, txn_id, chunks, found.position, found.event_time_ms)
    refusal = rejection(asker, Refused(Reason.ISOLATED, message), chunks[0].digest, chunked=True)
    return msgspec.structs.replace(refusal, event_hash=found.event_hash, dead_letter=found.dead_letter)


def _unread(state: State, event: Unread, position: int, time_ms: int) -> Decision:
    record, claim = event.record, event.claim
    if claim is None:
        return _set_aside(
            state,
            Undecodable.of(record, "too large"),
            time_ms,
            Reason.LIMIT_EXCEEDED,
            f"the record has {len(record.value)} bytes; {state.rules.max_event_bytes} are allowed (max_event_bytes): do the "
            "same in smaller transactions, or in more chunks",
        )
    refused = over_quota(claim, state.incomplete, state.rules)
    if refused is None:
        raise TypeError(f"record {position} is within its quota and was not decoded")
    return _over_quota(state, claim, refused, position, time_ms)


def _over_quota(state: State, claim: Claim, refused: Refused, position: int, time_ms: int) -> Decision:
    """One chunk too many is the end of its transaction, under its own id: other chunks of it may come, and must not
    complete what its client was told is rejected."""
    asker = asked_by(state, claim.txn_id, claim.client_id, claim.outcome_partition, position, time_ms)
    first = state.decided.get(claim.txn_id)
    return rejection(asker, refused, None, chunked=True) if first is None else answer(asker, first, None)


def _decide_transaction(state: State, event: StagedTransaction, position: int, time_ms: int) -> Decision:
    envelope = event.envelope
    if envelope.chunk_count != 1:
        claim = Claim.of(envelope)
        over = over_quota(claim, state.incomplete, state.rules)
        if over is not None:
            return _over_quota(state, claim, over, position, time_ms)
    asker = asked_by(state, envelope.txn_id, envelope.client_id, envelope.outcome_partition, position, time_ms)
    first = state.decided.get(envelope.txn_id)
    if first is not None:
        return answer(asker, first, envelope.digest)
    chunked = envelope.chunk_count != 1
    try:
        check_envelope(state, envelope.txn_id, envelope.client_id, envelope.lake_id, envelope.root)
        before = state.chunks.get(envelope.txn_id) or StagedChunks()
        whole = assemble(event, before, state.rules, position=position)
        if whole is None:
            return Nothing(position)
        if isinstance(whole, StagedChunk):
            return _staged(state, event, whole, position, time_ms)
        plain = plain_append(whole, time_ms, state)
        if plain is not None:
            return _committed(state, whole, plain, envelope.digest, asker, chunked=chunked)
        files = [GivenFiles(work) for work in whole.tables]
        return _decide_content(state, whole, files, envelope.digest, asker, chunked=chunked)
    except Refused as refused:
        return rejection(asker, refused, envelope.digest, chunked=chunked)


def _decide_completion(state: State, event: Completion, position: int, time_ms: int) -> Decision:
    """A big transaction is decided, if it can be."""
    if not decides(event, state):
        return Nothing(position)
    txn_id = event.txn_id
    chunks = state.chunks[txn_id]
    asker = _asker_of(state, txn_id, chunks, position, time_ms)
    digest = chunks[0].digest
    try:
        whole = assembled(chunks)
        return _decide_content(state, whole, files_of(txn_id, whole, state), digest, asker, chunked=True)
    except Refused as refused:
        return rejection(asker, refused, digest, chunked=True)


def _asker_of(state: State, txn_id: str, chunks: Mapping[int, StagedChunk], position: int, time_ms: int) -> Asker:
    """Who sent the chunk that completed a transaction."""
    last = max(chunks.values(), key=attrgetter("position"))
    return asked_by(state, txn_id, last.client_id, last.outcome_partition, position, time_ms)


def _staged(state: State, event: StagedTransaction, chunk: StagedChunk, position: int, time_ms: int) -> Staged:
    """The chunk is kept; of a big transaction its files as rows, checked already against what is known so far."""
    txn_id = event.envelope.txn_id
    works: tuple[StagedWork, ...] = ()
    completes = False
    if chunk.head is not None:
        before = state.chunks.get(txn_id) or StagedChunks()
        checked = checked_so_far(event.content, before, txn_id, state)
        parts, works = stage(event.content, checked, state.rules)
        chunk = replace(chunk, parts=parts)
        completes = len(before) + 1 == chunk.count
    return Staged(
        position=position,
        txn_id=txn_id,
        client_id=event.envelope.client_id,
        event_time_ms=time_ms,
        chunk=chunk,
        works=works,
        completes=completes,
    )


def _decide_content(
    state: State, content: Content, files: Sequence[Files], digest: bytes, asker: Asker, *, chunked: bool
) -> Commit | Accepted:
    again = _committed_app(state, content.apps)
    if again is not None:
        committed = msgspec.structs.replace(again, already_committed=True)
        return accepted(asker, committed, digest, chunked=chunked)
    changed = change_tables(content, files, asker.txn_id, asker.time_ms, state)
    if not changed.changes:
        newest = Committed(commit_seq=state.commit_seq, time_ms=state.time_ms, tables=())
        return accepted(asker, newest, digest, chunked=chunked, apps=content.apps)
    return _committed(state, content, changed, digest, asker, chunked=chunked)


def _committed(
    state: State, content: Content, changed: Changed, digest: bytes, asker: Asker, *, chunked: bool
) -> Commit:
    time_ms, changes = changed
    versions = [
        TableVersion(name=change.table.name, table_id=change.table.table_id, version=change.version)
        for change in changes
    ]
    entries = [
        Entry(table=change.table, new=True, created_seq=state.commit_seq + 1, slot_columns=change.table.slot_columns)
        for change in changes
        if change.version == 0
    ]
    return commit(
        state,
        asker,
        digest,
        time_ms,
        versions,
        changes=changes,
        entries=tuple(entries),
        chunked=chunked,
        content=content,
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
    asker = asked_by(state, event.control_id, event.client_id, event.outcome_partition, position, time_ms)
    command = event.command
    if isinstance(command, Tick):
        return _tick(state, position, time_ms)
    first = state.decided.get(event.control_id)
    if first is not None:
        return answer(asker, first, None)
    try:
        check_envelope(state, event.control_id, event.client_id, event.lake_id, state.lake.root)
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
                return accepted(asker, committed, None, rules=changed)
            case LakeAction():
                return decide_action(state, command, asker)
    except Refused as refused:
        return rejection(asker, refused, None)


def _tick(state: State, position: int, time_ms: int) -> Expired | Nothing:
    """By the log's time, and at ticks only: what comes late but before one is decided as if it had come in time."""
    limits = state.rules
    due = sorted(state.incomplete.waiting_since(time_ms - limits.expire_ms))
    if not due:
        return Nothing(position)
    hours = limits.expire_ms / 3_600_000
    expired = Refused(Reason.EXPIRED, f"no further chunk came for {hours:g} h, and the transaction is not complete")
    askers = [asked_by(state, txn_id, "", -1, position, time_ms) for txn_id in due[: limits.max_expired]]
    return Expired(
        position=position, rejections=tuple([rejection(asker, expired, None, chunked=True) for asker in askers])
    )


def _cancel(state: State, command: Cancel, asker: Asker) -> Decision:
    """An undecided transaction becomes rejected for ever; of a decided one its decision is told."""
    if not is_txn_id(command.txn_id):
        raise Refused(Reason.INVALID_ACTION, f"{shown(command.txn_id)} is not a transaction id")
    asker = asker._replace(txn_id=command.txn_id)
    first = state.decided.get(command.txn_id)
    if first is not None:
        return answer(asker, first, None)
    cancelled = Refused(Reason.CANCELLED, f"cancelled by {shown(asker.client_id)} before it was decided")
    return rejection(asker, cancelled, None, chunked=True)


def _decide_import(state: State, event: ImportedVersion, position: int, time_ms: int) -> Decision:
    envelope = event.envelope
    asker = asked_by(state, envelope.txn_id, envelope.client_id, envelope.outcome_partition, position, time_ms)
    first = state.decided.get(envelope.txn_id)
    if first is not None:
        return answer(asker, first, envelope.digest)
    try:
        check_envelope(state, envelope.txn_id, envelope.client_id, envelope.lake_id, envelope.root)
        chunk = decide_chunk(event, state, time_ms)
        if chunk is None:
            return Nothing(position)
        decided = _imported(state, chunk, asker, envelope.digest) if chunk.complete else None
        return Imported(position=position, chunk=chunk, decided=decided)
    except Refused as refused:
        return rejection(asker, refused, envelope.digest)


def _imported(state: State, chunk: Chunk, asker: Asker, digest: bytes) -> Commit | Accepted:
    """What the last chunk of a version decides: a commit of the lake only if the version makes the table part of it."""
    table, way = chunk.table, chunk.after
    versions = (TableVersion(name=table.name, table_id=table.table_id, version=way.version),)
    if way.kind != "ADOPTION":
        newest = Committed(commit_seq=state.commit_seq, time_ms=state.time_ms, tables=versions)
        return accepted(asker, newest, digest)
    time_ms = max(asker.time_ms, state.time_ms, way.time_ms)
    return commit(state, asker, digest, time_ms, versions)


def check_envelope(state: State, txn_id: str, client_id: str, lake_id: str, root: str) -> None:
    """Check whether an event is one of this lake's, and says who sent it. Raises `Refused`."""
    lake = state.lake
    if not is_txn_id(txn_id):
        raise Refused(Reason.INVALID_ACTION, f"{shown(txn_id)} is not an id: a lower-case UUID")
    if lake_id != lake.lake_id or (root != lake.root and root.rstrip("/") != lake.root.rstrip("/")):
        ours, theirs = (lake.lake_id, lake_id) if lake_id != lake.lake_id else (lake.root, root)
        raise Refused(Reason.WRONG_LAKE, f"meant for lake {shown(theirs)}; this is {shown(ours)}: connect again")
    if not is_client_id(client_id, state.rules):
        raise Refused(
            Reason.LIMIT_EXCEEDED, f"client id {shown(client_id)} is not a text of {state.rules.max_name_bytes} bytes"
        )


def _set_aside(state: State, event: Undecodable, time_ms: int, reason: Reason, message: str) -> Rejection:
    """The rejection of a record, told to whom its headers name, under an id that no transaction has."""
    record = event.record
    headers = dict(record.headers)
    claimed = headers.get(HEADER_TXN, b"").decode("ascii", "replace")
    known = claimed if is_txn_id(claimed) else None
    partition = headers.get(HEADER_OUTCOME, b"")
    number = int(partition) if len(partition) <= 9 and partition.isdigit() else -1
    asker = asked_by(state, f"position-{record.position}", "", number, record.position, time_ms)
    refusal = rejection(asker, Refused(reason, message), None)
    return msgspec.structs.replace(
        refusal,
        outcome=refusal.outcome if known is None else msgspec.structs.replace(refusal.outcome, txn_id=known),
        claimed_txn_id=known,
        event_hash=event.hash,
        dead_letter=DeadLetter(record, event.error),
    )
