"""Decisions to rows: what one batch writes to each SQL table, pure and independent of the engine.

Times are milliseconds since the epoch, JSON is compact text. What a decision does not know is the store's to fill in:
a live file's row carries its partition values (`PARTITION_TEXT`), and the store puts their number in `dl_partitions`
in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from deltalakedb.codec import HEADER_COMMIT, HEADER_ERROR, HEADER_POSITION, HEADER_TXN, encode
from deltalakedb.eventlog.port import MAX_RECORD_BYTES, Stream
from deltalakedb.events import Commit as CommitEvent
from deltalakedb.events import CommittedTable, Outcome

from .decisions import Accepted, Answer, Commit, DeadLetter, Decision, Nothing, Rejection, Staged, TableChange
from .file_rows import as_json, cdc_row, live_row, remove_row

RENDER_VERSION = 1
"""Which renderer of the mirror gives the bytes of the versions written now."""

_HEADER_BYTES = 500

PARTITION_TEXT = "partition_values"
"""Stands in the rows of `dl_live_files` where the table has `partition_no`: a JSON object, keys in order of name."""


class OutboxRow(NamedTuple):
    """Something to be told, by the staged record that caused it."""

    position: int
    n: int
    stream: str
    stream_partition: int
    headers: dict[str, bytes]
    payload: bytes


_VECTOR = ("dv_storage_type", "dv_path", "dv_offset", "dv_size", "dv_cardinality", "dv_max_row_index")

COLUMNS: dict[str, tuple[str, ...]] = {
    "dl_tables": (
        *("table_no", "table_id", "name", "location", "state", "created_seq", "dropped_seq"),
        "slot_columns",
    ),
    "dl_table_heads": (
        *("table_no", "version", "commit_seq", "time_ms", "metadata_version", "protocol_version"),
        *("live_files", "live_bytes", "width1", "width2", "width3", "width4"),
    ),
    "dl_commits": ("commit_seq", "position", "time_ms", "txn_ids"),
    "dl_transactions": (
        *("txn_id", "position", "time_ms", "client_id", "digest", "committed", "commit_seq", "outcome"),
        *("claimed_txn_id", "event_hash"),
    ),
    "dl_app_transactions": ("app_id", "app_version", "txn_id"),
    "dl_table_versions": (
        *("table_no", "version", "commit_seq", "time_ms", "txn_id", "operation", "operation_parameters"),
        *("operation_metrics", "read_version", "isolation_level", "is_blind_append", "user_metadata"),
        *("engine_info", "tags", "commit_info", "render_version", "changes_data", "changes_metadata"),
        *("changes_protocol", "added_files", "added_bytes", "removed_files", "removed_bytes"),
    ),
    "dl_live_files": (
        *("table_no", "version", "n", "path", "dv_id", PARTITION_TEXT, "size", "modification_time"),
        *("data_change", "stats", "num_records", "tags", *_VECTOR),
        *("base_row_id", "default_row_commit_version", "clustering_provider", "extra"),
        *("min1", "max1", "min2", "max2", "min3", "max3", "min4", "max4"),
    ),
    "dl_remove_files": (
        *("table_no", "version", "n", "path", "dv_id", "data_change", "deletion_timestamp"),
        *("extended_file_metadata", "partition_values", "size", "stats", "tags", *_VECTOR),
        *("base_row_id", "default_row_commit_version", "extra"),
    ),
    "dl_cdc_files": (
        *("table_no", "version", "n", "path", "partition_values", "size", "data_change", "tags", "extra"),
    ),
    "dl_metadata_updates": (
        *("table_no", "version", "metadata_id", "name", "description", "format_provider", "format_options"),
        *("schema_string", "partition_columns", "configuration", "created_time", "extra"),
    ),
    "dl_protocol_updates": (
        *("table_no", "version", "min_reader_version", "min_writer_version", "reader_features"),
        *("writer_features", "extra"),
    ),
    "dl_txn_actions": ("table_no", "version", "app_id", "app_version", "last_updated", "extra"),
    "dl_domain_metadata": ("table_no", "version", "domain", "configuration", "removed", "extra"),
    "dl_other_actions": ("table_no", "version", "n", "kind", "body"),
    "dl_staged_chunks": (
        *("txn_id", "chunk_index", "chunk_count", "digest", "chunk_digest", "position", "time_ms", "content"),
    ),
}
"""Columns that the committer writes, per SQL table, in the order in which rows carry them. The rows of
`dl_table_heads` are in `Batch.heads`, all others in `Batch.inserts`."""


@dataclass(slots=True)
class Batch:
    """All effects of a batch of records; the store writes it in one SQL transaction, in the order of the fields."""

    inserts: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    """New rows per SQL table, columns as in `COLUMNS`; tables in the order to write them."""
    superseded: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(table_no, version, n, removed_version): rows that move from live to past files, rows of this batch included."""
    heads: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """The newest head of every table that changed, by table_no, columns as in `COLUMNS["dl_table_heads"]`."""
    finished_chunks: list[str] = field(default_factory=list)
    """Transactions whose staged chunks are not needed any more, those of this batch included."""
    outbox: list[OutboxRow] = field(default_factory=list)


def add_decision(batch: Batch, decision: Decision, *, lag_events: int = 0, decided_ms: int | None = None) -> None:
    """Add what `decision` writes and tells to `batch`.

    `lag_events` and `decided_ms` (the committer's clock) are told to clients and never stored with the decision.
    """
    match decision:
        case Commit():
            _add_commit(batch, decision)
        case Accepted():
            _add_transaction(batch, decision, commit_seq=None)
            for app in decision.apps:
                batch.inserts["dl_app_transactions"].append((app.app_id, app.version, decision.txn_id))
        case Rejection():
            _add_transaction(batch, decision, commit_seq=None)
            if decision.dead_letter is not None:
                batch.outbox.append(_dead_letter(decision.dead_letter))
        case Staged():
            chunk = decision.chunk
            batch.inserts["dl_staged_chunks"].append(
                (
                    *(decision.txn_id, chunk.index, chunk.count, chunk.digest, chunk.chunk_digest),
                    *(decision.position, decision.event_time_ms, chunk.content),
                )
            )
            return
        case Nothing():
            return
        case Answer():
            pass
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
        headers = {HEADER_TXN: outcome.txn_id.encode()}
        batch.outbox.append(
            OutboxRow(decision.position, 1, Stream.OUTCOMES.value, decision.outcome_partition, headers, encode(told))
        )


def _add_commit(batch: Batch, commit: Commit) -> None:
    inserts = batch.inserts
    inserts["dl_commits"].append((commit.commit_seq, commit.position, commit.time_ms, as_json([commit.txn_id])))
    _add_transaction(batch, commit, commit_seq=commit.commit_seq)
    for app in commit.apps:
        inserts["dl_app_transactions"].append((app.app_id, app.version, commit.txn_id))
    tables = tuple([_add_change(batch, commit, change) for change in commit.changes])
    event = CommitEvent(
        lake_id=commit.outcome.lake_id,
        commit_seq=commit.commit_seq,
        position=commit.position,
        time_ms=commit.time_ms,
        txn_ids=(commit.txn_id,),
        tables=tables,
    )
    headers = {HEADER_COMMIT: b"%d" % commit.commit_seq}
    batch.outbox.append(OutboxRow(commit.position, 0, Stream.COMMITS.value, 0, headers, encode(event)))


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
    inserts = batch.inserts
    table, version = change.table, change.version
    table_no = table.table_no
    if version == 0:
        inserts["dl_tables"].append(
            (
                *(table_no, table.table_id, table.name, table.location, "ACTIVE", commit.commit_seq, None),
                as_json(table.slot_columns),
            )
        )
    added_bytes = removed_bytes = 0
    live = inserts["dl_live_files"]
    for n, add in enumerate(change.adds):
        added_bytes += add.size
        live.append(live_row(table_no, version, n, add, change.num_records[n], change.slots[n]))
    for n, remove in enumerate(change.removes):
        removed_bytes += remove.size or 0
        inserts["dl_remove_files"].append(remove_row(table_no, version, n, remove))
    for n, cdc in enumerate(change.cdc):
        inserts["dl_cdc_files"].append(cdc_row(table_no, version, n, cdc))
    for old in change.superseded:
        batch.superseded.append((table_no, old.version, old.n, version))
    _add_rest(batch, change)
    inserts["dl_table_versions"].append(
        (
            table_no,
            version,
            commit.commit_seq,
            commit.time_ms,
            commit.txn_id,
            change.operation,
            as_json(change.operation_parameters),
            as_json(change.operation_metrics),
            change.read_version,
            change.isolation_level,
            change.is_blind_append,
            commit.user_metadata,
            commit.engine_info,
            f'{{"commit_seq":"{commit.commit_seq}"}}',
            None,
            RENDER_VERSION,
            change.changes_data,
            change.metadata is not None,
            change.protocol is not None,
            len(change.adds),
            added_bytes,
            len(change.removes),
            removed_bytes,
        )
    )
    batch.heads[table_no] = (
        table_no,
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
        added_files=len(change.adds),
        added_bytes=added_bytes,
        removed_files=len(change.removes),
        removed_bytes=removed_bytes,
    )


def _add_rest(batch: Batch, change: TableChange) -> None:
    """Rows of everything but file actions."""
    inserts = batch.inserts
    at = (change.table.table_no, change.version)
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
    for n, other in enumerate(change.others):
        inserts["dl_other_actions"].append((*at, n, other.kind, other.json))


def _dead_letter(letter: DeadLetter) -> OutboxRow:
    """The record as it came, cut where the log would not take it back, with our headers and what is wrong with it."""
    record = letter.record
    kept = {name: value for name, value in record.headers if name.startswith("dl-") and len(value) <= _HEADER_BYTES}
    error = letter.error.encode("utf-8", "replace")[:_HEADER_BYTES]
    headers = {**kept, HEADER_POSITION: b"%d" % record.position, HEADER_ERROR: error}
    return OutboxRow(record.position, 0, Stream.DEAD_LETTER.value, 0, headers, record.value[:MAX_RECORD_BYTES])
