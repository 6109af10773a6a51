"""Decisions to rows: what one batch writes to each SQL table, pure and independent of the engine.

Times are milliseconds since the epoch, JSON is compact text. What a decision does not know is the store's to fill in:
a live file's row carries its partition values (`PARTITION_TEXT`), and the store puts their number in `dl_partitions`
in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from deltalakedb.codec import HEADER_ERROR, HEADER_ISOLATED, HEADER_POSITION, encode_told
from deltalakedb.eventlog.port import MAX_RECORD_BYTES, Stream
from deltalakedb.events import Commit as CommitEvent
from deltalakedb.events import CommittedTable, Outcome
from deltalakedb.folded import FOLDED, folded_text
from deltalakedb_committer.deciding.commit_info import read_commit_info
from deltalakedb_committer.deciding.decisions import (
    Accepted,
    Actions,
    Answer,
    Commit,
    DeadLetter,
    Decision,
    Entry,
    Expired,
    Imported,
    Nothing,
    Rejection,
    Staged,
    TableChange,
)
from deltalakedb_committer.deciding.file_rest import as_json
from deltalakedb_committer.deciding.files import StagedChange
from deltalakedb_committer.deciding.state import TableState, Target, UnderWay

from .columns import COLUMNS
from .file_rows import cdc_row, live_row, remove_row, staged_rows

RENDER_VERSION = 1
"""Which renderer of the mirror gives the bytes of the versions written now."""

_HEADER_BYTES = 500


class OutboxRow(NamedTuple):
    """A record to be told with: of many commits, of many outcomes, or a dead letter."""

    position: int
    """Of the newest staged record that its batch tells something of: once that is told, all of the batch is."""
    n: int
    """Place among the rows of its batch."""
    stream: str
    stream_partition: int
    headers: dict[str, bytes]
    payload: bytes


class Placed(NamedTuple):
    """The files of one table in a big transaction: where the rows come from, and where they go."""

    txn_id: str
    table_no: int
    version: int
    time_ms: int
    partitioned: bool
    """Whether the table has partition columns."""
    change: StagedChange


_OVER = frozenset({"dl_tables", "dl_table_heads", "dl_imports", "dl_mirror_targets"})


@dataclass(slots=True)
class Batch:
    """All effects of a batch of records; the store writes it in one SQL transaction, in the order of the fields."""

    tables: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """By table_no the entry of every table that changes in the directory, columns as in `COLUMNS["dl_tables"]`."""
    new_tables: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """As `tables`, of those that are new there."""
    inserts: dict[str, list[tuple[Any, ...]]] = field(
        default_factory=lambda: {name: [] for name in COLUMNS if name not in _OVER}
    )
    """New rows per SQL table, columns as in `COLUMNS`; tables in the order to write them."""
    superseded: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(table_no, version, n, removed_version): rows that move from live to past files, rows of this batch included."""
    heads: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """The newest head of every table that changed, by table_no, columns as in `COLUMNS["dl_table_heads"]`."""
    imports: dict[int, tuple[Any, ...] | None] = field(default_factory=dict)
    """By table_no the version of which a part is imported, columns as in `COLUMNS["dl_imports"]`; None: no more."""
    targets: dict[str, Target] = field(default_factory=dict)
    """Mirror targets that are new or change."""
    placed: list[Placed] = field(default_factory=list)
    """Adds and removes of big transactions that come from `dl_staged_files`. Of tables that nothing else in the batch
    changes."""
    finished_chunks: list[str] = field(default_factory=list)
    """Transactions whose staged chunks are not needed any more, those of this batch included."""
    commits: list[CommitEvent] = field(default_factory=list)
    """To be told to everybody, in order."""
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)
    """To be told, in order, by the partition that those who asked listen to."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    """What `seal` makes of the three before."""


def add_decision(batch: Batch, decision: Decision, *, lag_events: int = 0, decided_ms: int | None = None) -> None:
    """Add what `decision` writes and tells to `batch`.

    `lag_events` and `decided_ms` (the committer's clock) are told to clients and never stored with the decision.
    """
    match decision:
        case Commit():
            _add_commit(batch, decision, [_add_change(batch, decision, change) for change in decision.changes])
            for one in decision.transactions:
                _tell(batch, one, lag_events=lag_events, decided_ms=decided_ms)
            return
        case Imported():
            decided, imported = decision.decided, _add_chunk(batch, decision)
            if decided is None:
                return
            if isinstance(decided, Commit):
                _add_commit(batch, decided, [imported])
            else:
                _add_transaction(batch, decided, commit_seq=None)
            decision = decided
        case Accepted():
            _add_transaction(batch, decision, commit_seq=None)
            for app in decision.apps:
                batch.inserts["dl_app_transactions"].append((app.app_id, app.version, decision.txn_id))
            for entry in decision.entries:
                _add_entry(batch, entry)
            if decision.target is not None:
                batch.targets[decision.target.target] = decision.target
        case Rejection():
            _add_transaction(batch, decision, commit_seq=None)
            if decision.dead_letter is not None:
                batch.dead_letters.append(decision.dead_letter)
        case Expired():
            for rejection in decision.rejections:
                _add_transaction(batch, rejection, commit_seq=None)
            return
        case Staged():
            chunk = decision.chunk
            batch.inserts["dl_staged_chunks"].append(
                (
                    *(decision.txn_id, chunk.index, chunk.count, chunk.digest, chunk.chunk_digest),
                    *(decision.position, decision.event_time_ms, chunk.content, chunk.size, chunk.head),
                    None if chunk.parts is None else msgspec.json.encode(chunk.parts).decode(),
                    *(decision.client_id, chunk.outcome_partition),
                )
            )
            for work in decision.works:
                batch.inserts["dl_staged_files"] += staged_rows(decision.txn_id, chunk.index, work)
            return
        case Nothing():
            return
        case Answer():
            pass
    _tell(batch, decision, lag_events=lag_events, decided_ms=decided_ms)


def seal(batch: Batch) -> None:
    """Put together what the decisions of the batch tell; once, after all of them were added."""
    told = [(Stream.DEAD_LETTER, 0, *_dead_letter(letter)) for letter in batch.dead_letters]
    isolated = batch.inserts["dl_isolated_events"]
    told += [(Stream.DEAD_LETTER, 0, _isolated(row), b"") for row in isolated]
    told += [(Stream.COMMITS, 0, {}, payload) for payload in encode_told(batch.commits)]
    positions = [letter.record.position for letter in batch.dead_letters] + [one.position for one in batch.commits]
    positions += [row[0] for row in isolated]
    for partition, outcomes in batch.outcomes.items():
        told += [(Stream.OUTCOMES, partition, {}, payload) for payload in encode_told(outcomes)]
        positions.append(outcomes[-1].position)
    newest = max(positions, default=-1)
    batch.outbox = [
        OutboxRow(newest, n, stream.value, partition, headers, payload)
        for n, (stream, partition, headers, payload) in enumerate(told)
    ]


def _tell(
    batch: Batch, decision: Commit | Accepted | Rejection | Answer, *, lag_events: int, decided_ms: int | None
) -> None:
    if decision.outcome_partition >= 0:
        outcome = decision.outcome
        lag_ms = 0 if decided_ms is None else max(0, decided_ms - decision.event_time_ms)
        told = Outcome(
            lake_id=outcome.lake_id,
            txn_id=outcome.txn_id,
            client_id=outcome.client_id,
            position=outcome.position,
            committed=outcome.committed,
            rejected=outcome.rejected,
            lag_events=lag_events,
            lag_ms=lag_ms,
        )
        batch.outcomes.setdefault(decision.outcome_partition, []).append(told)


def _add_commit(batch: Batch, commit: Commit, tables: Sequence[CommittedTable]) -> None:
    inserts = batch.inserts
    for entry in commit.entries:
        _add_entry(batch, entry)
    txn_ids = tuple([one.txn_id for one in commit.transactions])
    inserts["dl_commits"].append((commit.commit_seq, commit.completed_at, commit.time_ms, as_json(txn_ids)))
    for one in commit.transactions:
        _add_transaction(batch, one, commit_seq=commit.commit_seq)
        for app in one.apps:
            inserts["dl_app_transactions"].append((app.app_id, app.version, one.txn_id))
    event = CommitEvent(
        lake_id=commit.outcome.lake_id,
        commit_seq=commit.commit_seq,
        position=commit.completed_at,
        time_ms=commit.time_ms,
        txn_ids=txn_ids,
        tables=tuple(tables),
    )
    batch.commits.append(event)


def _add_transaction(batch: Batch, decision: Commit | Accepted | Rejection, *, commit_seq: int | None) -> None:
    claimed = event_hash = None
    if isinstance(decision, Rejection):
        claimed, event_hash = decision.claimed_txn_id, decision.event_hash
    batch.inserts["dl_transactions"].append(
        (
            decision.txn_id,
            decision.position,
            decision.event_time_ms,
            decision.client_id,
            decision.digest,
            not isinstance(decision, Rejection),
            commit_seq,
            msgspec.json.encode(decision.outcome).decode(),
            claimed,
            event_hash,
        )
    )
    if decision.chunked:
        batch.finished_chunks.append(decision.txn_id)


def _add_change(batch: Batch, commit: Commit, change: TableChange) -> CommittedTable:
    table, version = change.table, change.version
    added_bytes, removed_bytes = _add_actions(batch, table, version, change)
    added_files, removed_files = len(change.adds), len(change.removes)
    if change.staged is not None:
        _, added_files, added_bytes, removed_files, removed_bytes, _ = change.staged
        metadata = table.metadata if change.metadata is None else change.metadata
        partitioned = metadata is not None and bool(metadata.partition_columns)
        batch.placed.append(Placed(commit.txn_id, table.table_no, version, commit.time_ms, partitioned, change.staged))
    batch.inserts["dl_table_versions"].append(
        (
            table.table_no,
            version,
            commit.commit_seq,
            commit.time_ms,
            commit.txn_of(change),
            change.operation,
            as_json(change.operation_parameters),
            as_json(change.operation_metrics),
            change.read_version,
            change.isolation_level,
            change.is_blind_append,
            commit.user_metadata,
            commit.engine_info,
            _tags(commit, change),
            None,
            RENDER_VERSION,
            change.changes_data,
            change.metadata is not None,
            change.protocol is not None,
            added_files,
            added_bytes,
            removed_files,
            removed_bytes,
            None,
            None,
        )
    )
    batch.heads[table.table_no] = (
        table.table_no,
        version,
        commit.commit_seq,
        commit.time_ms,
        change.metadata_version,
        change.protocol_version,
        change.live_files,
        change.live_bytes,
        *change.widths,
    )
    return CommittedTable(
        table_id=table.table_id,
        name=table.name,
        old_version=version - 1,
        new_version=version,
        added_files=added_files,
        added_bytes=added_bytes,
        removed_files=removed_files,
        removed_bytes=removed_bytes,
    )


def _tags(commit: Commit, change: TableChange) -> str:
    if len(change.parts) < 2:
        return f'{{"commit_seq":"{commit.commit_seq}"}}'
    return as_json({"commit_seq": str(commit.commit_seq), FOLDED: folded_text(change.parts)})


ORIGINS = {"COMMIT": "IMPORTED", "BASELINE": "BASELINE", "HISTORY": "HISTORY", "ADOPTION": "ADOPTED"}
"""Where an imported version comes from, as SQL says it, by the kind of its event."""


def _add_chunk(batch: Batch, imported: Imported) -> CommittedTable:
    """Rows of a chunk, and of its version once that is complete."""
    chunk, way = imported.chunk, imported.chunk.after
    table, version = chunk.table, way.version
    if chunk.entry is not None:
        _add_entry(batch, chunk.entry)
    _add_actions(batch, table, version, chunk.actions, after=chunk.before)
    if not chunk.complete:
        progress = msgspec.json.encode(way).decode()
        batch.imports[table.table_no] = (table.table_no, version, len(way.chunks), way.chunk_count, progress)
    else:
        if way.chunk_count > 1:
            batch.imports[table.table_no] = None
        commit_seq = imported.decided.commit_seq if isinstance(imported.decided, Commit) else None
        info = read_commit_info(way.commit_info)
        batch.inserts["dl_table_versions"].append(
            (
                *(table.table_no, version, commit_seq, way.time_ms, *info, RENDER_VERSION),
                *(way.changes_data, way.metadata, way.protocol),
                *(way.adds, way.added_bytes, way.removes, way.removed_bytes),
                *(ORIGINS[way.kind], way.file_time_ms),
            )
        )
        batch.heads[table.table_no] = (
            *(table.table_no, version, commit_seq, way.time_ms, chunk.metadata_version, chunk.protocol_version),
            *(way.live_files, way.live_bytes, *way.widths),
        )
    return CommittedTable(
        table_id=table.table_id,
        name=table.name,
        old_version=version - 1,
        new_version=version,
        added_files=way.adds,
        added_bytes=way.added_bytes,
        removed_files=way.removes,
        removed_bytes=way.removed_bytes,
    )


def _add_entry(batch: Batch, entry: Entry) -> None:
    table = entry.table
    if entry.state == "DROPPED":
        batch.imports[table.table_no] = None
    entries = batch.new_tables if entry.new or table.table_no in batch.new_tables else batch.tables
    entries[table.table_no] = (
        *(table.table_no, table.table_id, table.name, table.location, entry.state, entry.created_seq),
        *(entry.dropped_seq, entry.first_version, as_json(entry.slot_columns)),
    )


def _add_actions(
    batch: Batch, table: TableState, version: int, actions: Actions, after: UnderWay | None = None
) -> tuple[int, int]:
    """Rows of everything but the version itself, numbered on from those `after` which they come; bytes added and
    removed."""
    inserts = batch.inserts
    table_no = table.table_no
    adds, removes, cdcs, others = (
        (0, 0, 0, 0) if after is None else (after.adds, after.removes, after.cdc, after.others)
    )
    added_bytes = removed_bytes = 0
    live = inserts["dl_live_files"]
    for n, (add, records, slots) in enumerate(zip(actions.adds, actions.num_records, actions.slots, strict=True), adds):
        added_bytes += add.size
        live.append(live_row(table, version, n, add, records, slots))
    for n, remove in enumerate(actions.removes, removes):
        removed_bytes += remove.size or 0
        inserts["dl_remove_files"].append(remove_row(table_no, version, n, remove))
    for n, cdc in enumerate(actions.cdc, cdcs):
        inserts["dl_cdc_files"].append(cdc_row(table_no, version, n, cdc))
    for n, other in enumerate(actions.others, others):
        inserts["dl_other_actions"].append((table_no, version, n, other.kind, other.json))
    for old in actions.superseded:
        batch.superseded.append((table_no, old.version, old.n, version))
    _add_rest(batch, table_no, version, actions)
    return added_bytes, removed_bytes


def _add_rest(batch: Batch, table_no: int, version: int, change: Actions) -> None:
    """Rows of what a version says once: of the table, of an application, of a domain."""
    inserts = batch.inserts
    at = (table_no, version)
    if change.metadata is not None:
        data = change.metadata
        inserts["dl_metadata_updates"].append(
            (
                *(*at, data.id, data.name, data.description, data.format_provider, as_json(data.format_options)),
                *(data.schema_string, as_json(data.partition_columns), as_json(data.configuration)),
                *(data.created_time, data.rest),
            )
        )
    if change.protocol is not None:
        protocol = change.protocol
        inserts["dl_protocol_updates"].append(
            (
                *(*at, protocol.min_reader_version, protocol.min_writer_version),
                None if protocol.reader_features is None else as_json(protocol.reader_features),
                None if protocol.writer_features is None else as_json(protocol.writer_features),
                protocol.rest,
            )
        )
    for txn in change.txns:
        inserts["dl_txn_actions"].append((*at, txn.app_id, txn.version, txn.last_updated, txn.rest))
    for domain in change.domains:
        inserts["dl_domain_metadata"].append((*at, domain.domain, domain.configuration, domain.removed, domain.rest))


def _isolated(row: tuple[Any, ...]) -> dict[str, bytes]:
    """A row of `dl_isolated_events`, for the committer of an older store to find."""
    return {HEADER_POSITION: b"%d" % row[0], HEADER_ISOLATED: msgspec.json.encode(row)}


def _dead_letter(letter: DeadLetter) -> tuple[dict[str, bytes], bytes]:
    """Headers and value of the record as it came, cut where the log would not take it back, with our headers and what is
    wrong with it."""
    record = letter.record
    kept = {name: value for name, value in record.headers if name.startswith("dl-") and len(value) <= _HEADER_BYTES}
    error = letter.error.encode("utf-8", "replace")[:_HEADER_BYTES]
    headers = {**kept, HEADER_POSITION: b"%d" % record.position, HEADER_ERROR: error}
    return headers, record.value[:MAX_RECORD_BYTES]
