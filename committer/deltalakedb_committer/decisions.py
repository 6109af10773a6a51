"""What `decide` answers: decisions as plain data, complete enough to become rows and events without looking back."""

from __future__ import annotations

from dataclasses import dataclass

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
from deltalakedb.delta_types import StructType
from deltalakedb.events import AppTransaction, Outcome

from .state import LiveFile, StagedChunk, TableState


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """One new version of one table."""

    table: TableState
    """The table before the change (a fresh one, version -1, where this creates it). Not to be changed."""
    version: int
    operation: str
    operation_parameters: dict[str, str]
    operation_metrics: dict[str, str]
    read_version: int | None
    isolation_level: str
    is_blind_append: bool
    adds: tuple[AddFile, ...] = ()
    """As they will be stored: row ids and commit versions assigned."""
    removes: tuple[RemoveFile, ...] = ()
    """With deletion timestamp, and partition values and size from the live row."""
    cdc: tuple[CdcFile, ...] = ()
    metadata: Metadata | None = None
    schema: StructType | None = None
    """Of `metadata`, where that is given."""
    protocol: Protocol | None = None
    txns: tuple[SetTransaction, ...] = ()
    domains: tuple[DomainMetadata, ...] = ()
    others: tuple[OtherAction, ...] = ()
    superseded: tuple[LiveFile, ...] = ()
    """Live rows that end with this version: removed, or added again under the same identity."""

    @property
    def changes_data(self) -> bool:
        """Whether a reader of the change feed sees anything of this version."""
        return any(f.data_change for f in self.adds) or any(f.data_change for f in self.removes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A new commit of the lake: a transaction committed, in every table it changes."""

    commit_seq: int
    time_ms: int
    """T: in-commit timestamp of every version in it."""
    position: int
    txn_id: str
    client_id: str
    digest: bytes
    event_time_ms: int
    """Append time of the record that completed the transaction."""
    apps: tuple[AppTransaction, ...]
    user_metadata: str | None
    engine_info: str
    changes: tuple[TableChange, ...]
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A decision against a transaction: recorded for ever under its id."""

    position: int
    txn_id: str
    """`position-<n>` where the record's own id cannot be trusted or read."""
    client_id: str
    digest: bytes | None
    event_time_ms: int
    outcome: Outcome
    claimed_txn_id: str | None = None
    event_hash: bytes | None = None
    dead_letter: bool = False
    """Whether the record itself goes to the dead-letter stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An earlier decision, told again to who asked: nothing changes."""

    position: int
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A chunk of a transaction that is not complete yet: kept, nobody is answered."""

    position: int
    txn_id: str
    event_time_ms: int
    chunk: StagedChunk


@dataclass(frozen=True, slots=True)
class Nothing:
    """A record without effect (a tick, a chunk that is there already)."""

    position: int


Decision = Commit | Rejection | Answer | Staged | Nothing
