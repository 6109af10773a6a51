"""What the catalog answers: lakes, tables, versions and mirror rows as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from deltalakedb.actions import (
    AddFile,
    CdcFile,
    DomainMetadata,
    Metadata,
    OtherAction,
    Protocol,
    RemoveFile,
    SetTransaction,
)

IN_PLACE: Final = "in-place"
"""The mirror target that every lake has, and its kind: the tables' own locations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeInfo:
    """What the store remembers about its lake."""

    lake_id: str
    root: str
    """Root URI for new tables."""
    log_address: str
    """The event log, without credentials."""
    created_ms: int
    fence: bool
    """Whether new tables get the writer fence."""


class CommitPoint(NamedTuple):
    """A place in the lake's one order of commits. Before the first one both are 0."""

    commit_seq: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """One table at one version."""

    table_no: int
    """Its short name in every SQL table."""
    table_id: str
    name: str
    location: str
    state: str
    """As it is now: ACTIVE, DROPPED, IMPORTING, RELEASED."""
    slot_columns: tuple[tuple[str, ...], ...]
    """Column paths (physical names) whose minimum and maximum fill slots 1 to 4."""
    first_version: int = 0
    """Oldest version that can be read: where an import began that found no older state."""

    version: int
    commit_seq: int | None
    """Of `version`; None where it was imported."""
    time_ms: int
    """In-commit timestamp of `version`."""
    metadata: Metadata
    metadata_version: int
    """The version that set `metadata`."""
    protocol: Protocol
    protocol_version: int
    live_files: int | None
    """Counted for the newest version only, as is the next."""
    live_bytes: int | None


class VersionRow(NamedTuple):
    """One version of one table without its actions: a row of SQL as it is, since there is one for everything that is
    mirrored. The texts are JSON objects as the protocol has them, verbatim."""

    table_no: int
    version: int
    commit_seq: int | None
    """None: imported."""
    time_ms: int
    """In-commit timestamp."""
    txn_id: str | None
    operation: str | None
    operation_parameters: str | None
    operation_metrics: str | None
    read_version: int | None
    isolation_level: str | None
    is_blind_append: bool | None
    user_metadata: str | None
    """Text of the user's own, not JSON."""
    engine_info: str | None
    tags: str | None
    commit_info: str | None
    """All other fields of commitInfo."""
    render_version: int
    """Which renderer gives the bytes of the log file."""
    changes_data: bool
    changes_metadata: bool
    changes_protocol: bool
    added_files: int
    added_bytes: int
    removed_files: int
    removed_bytes: int
    origin: str | None
    """IMPORTED, BASELINE, HISTORY, ADOPTED; None: decided here."""
    file_time_ms: int | None
    """Modification time of the log file that was imported."""


class VersionActions(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one table with every action, in the order in which they were staged."""

    row: VersionRow
    protocol: Protocol | None = None
    metadata: Metadata | None = None
    txns: tuple[SetTransaction, ...] = ()
    """By app id."""
    domains: tuple[DomainMetadata, ...] = ()
    """By domain."""
    removes: tuple[RemoveFile, ...] = ()
    adds: tuple[AddFile, ...] = ()
    cdc: tuple[CdcFile, ...] = ()
    others: tuple[OtherAction, ...] = ()
    """Actions of kinds unknown to this release."""


class SlotRange(NamedTuple):
    """Keep files that may hold a value of `column` from `lower` to `upper` (slot form; None: no bound)."""

    column: tuple[str, ...]
    lower: int | None
    upper: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorTarget:
    """A place that receives `_delta_log` files."""

    target: str
    kind: str
    """in-place, copy, replica."""
    root: str | None
    """None: the tables' own locations."""
    state: str
    """ACTIVE, PAUSED, REMOVED."""
    added_seq: int
    """The newest commit when it was added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorStatus:
    """How far one table is on one target, as its mirror wrote it."""

    state: str
    """PENDING, IN_FLIGHT, SUCCEEDED, FAILED, FENCED."""
    publish_from: int
    """The first version that we write there."""
    mirrored_version: int
    """The newest one there; -1: none."""
    checkpoint_version: int
    """-1: none."""
    log_start: int
    """Versions below were cleaned up there."""
    attempts: int
    last_error: str | None
    fenced_by: str | None
    updated_ms: int

    @property
    def first_kept(self) -> int:
        """The first version whose log file we keep there."""
        return max(self.publish_from, self.log_start)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorProgress:
    """One table beside its status on one target."""

    table_no: int
    table_id: str
    name: str
    location: str
    state: str
    """Of the table: ACTIVE, DROPPED, IMPORTING, RELEASED."""
    version: int
    """The newest in SQL; `commit_seq` and `time_ms` are its."""
    commit_seq: int | None
    time_ms: int
    status: MirrorStatus | None
    """None: no mirror has touched it yet."""
    next_commit_seq: int | None
    """Of the first version that is not mirrored, as is `next_time_ms`; None where all are."""
    next_time_ms: int | None
