"""What `decide` answers: decisions as plain data, complete enough to become rows and events without looking back.

An outcome in a decision is the answer to whoever asked with the record at `position`; `outcome_partition` is where it
goes (-1: nobody listens).
"""

from __future__ import annotations

from typing import NamedTuple

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
from deltalakedb.delta_types import StructType
from deltalakedb.eventlog.port import Record
from deltalakedb.events import AppTransaction, Outcome
from deltalakedb.slots import Slots, Widths

from .chunks import StagedChunk
from .files import StagedChange
from .rules import Rules
from .staged_files import StagedWork
from .state import FileKey, LiveFile, TableState, Target, UnderWay


class Actions(msgspec.Struct, frozen=True, kw_only=True):
    """What a version, or a chunk of an imported one, does to a table."""

    adds: tuple[AddFile, ...] = ()
    """As they will be stored: row ids and commit versions assigned."""
    num_records: tuple[int | None, ...] = ()
    """Per add, from its statistics."""
    slots: tuple[Slots, ...] = ()
    """Per add, from its statistics."""
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


class Part(NamedTuple):
    """The files that one transaction of a fold adds to a version, which has them in the order of its parts."""

    txn_id: str
    adds: int


class TableChange(Actions, frozen=True, kw_only=True):
    """One new version of one table."""

    table: TableState
    """The table that is changed; a fresh one where this creates it. Its fields may have moved on since."""
    version: int
    operation: str
    operation_parameters: dict[str, str]
    operation_metrics: dict[str, str]
    read_version: int | None
    isolation_level: str
    is_blind_append: bool
    changes_data: bool
    """Whether a reader of the change feed sees anything of this version."""
    live_files: int
    """After the change, as are the next two."""
    live_bytes: int
    widths: Widths
    parts: tuple[Part, ...] = ()
    """Whose files these are, if the version comes out of a fold; else they are all the commit's one transaction's."""
    staged: StagedChange | None = None
    """Adds and removes that lie in SQL: then there are none above, and nothing that they supersede."""

    @property
    def metadata_version(self) -> int:
        """The version whose metadata holds after the change."""
        return self.table.metadata_version if self.metadata is None else self.version

    @property
    def protocol_version(self) -> int:
        """The version whose protocol holds after the change."""
        return self.table.protocol_version if self.protocol is None else self.version


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A table's entry in the directory, as a decision leaves it."""

    table: TableState
    new: bool = False
    """Whether the directory does not have it yet."""
    state: str = "ACTIVE"
    created_seq: int | None
    dropped_seq: int | None = None
    first_version: int = 0
    slot_columns: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(table: TableState) -> Entry:
        """The entry as it is."""
        return Entry(
            table=table,
            state=table.state,
            created_seq=table.created_seq,
            dropped_seq=table.dropped_seq,
            first_version=table.first_version,
            slot_columns=table.slot_columns,
        )


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A new commit of the lake: a transaction committed, or a fold of them, in every table it changes."""

    commit_seq: int
    time_ms: int
    """T: in-commit timestamp of every version in it."""
    position: int
    txn_id: str
    client_id: str
    digest: bytes | None
    event_time_ms: int
    """Append time of the record at which the transaction is decided."""
    chunked: bool = False
    """Whether it came in several chunks, which are staged in SQL."""
    apps: tuple[AppTransaction, ...]
    user_metadata: str | None
    engine_info: str
    changes: tuple[TableChange, ...]
    entries: tuple[Entry, ...] = ()
    """Of tables that are new in the directory, or change there."""
    outcome: Outcome
    outcome_partition: int
    folded: tuple[Accepted, ...] = ()
    """Further transactions that share the commit, in log order; what is said above is of the first one."""

    @property
    def transactions(self) -> tuple[Commit | Accepted, ...]:
        """All that share it, in log order; itself stands for the first."""
        return (self, *self.folded)

    @property
    def completed_at(self) -> int:
        """Position of the record at which it is decided."""
        return self.folded[-1].position if self.folded else self.position

    def txn_of(self, change: TableChange) -> str:
        """The first transaction that has a part in `change`, which is one of its own."""
        return change.parts[0].txn_id if change.parts else self.txn_id


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Decided in favour without a commit of its own.

    It was a transaction that only read or whose wishes were all true already (its outcome names the newest commit),
    one whose application version is committed already (its outcome is that of the first one), or a change of rules:
    no table changes. Or it shares the commit of a fold, which has its changes.
    """

    position: int
    txn_id: str
    client_id: str
    digest: bytes | None
    event_time_ms: int
    chunked: bool = False
    apps: tuple[AppTransaction, ...] = ()
    """Application versions that are committed by this decision."""
    rules: Rules | None = None
    """Hold from the next record on."""
    entries: tuple[Entry, ...] = ()
    target: Target | None = None
    """A mirror target, as it is from the next record on."""
    outcome: Outcome
    outcome_partition: int


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of an imported version, as it is applied to its table."""

    table: TableState
    before: UnderWay
    """The version without this chunk, and with it."""
    after: UnderWay
    actions: Actions
    files: dict[FileKey, LiveFile | None]
    """What it makes of the live files: come, or gone."""
    spellings: dict[str, set[str]]
    """Those that come, by their canonical path, where they are not spelled plainly."""
    entry: Entry | None
    """The table's entry in the directory, where the chunk changes it."""

    @property
    def complete(self) -> bool:
        """Whether the version is, with this chunk."""
        return len(self.after.chunks) == self.after.chunk_count

    @property
    def metadata_version(self) -> int:
        """The version whose metadata holds with this chunk; -1: none, and nobody can read the table yet."""
        return self.after.version if self.after.metadata and self.visible else self.table.metadata_version

    @property
    def protocol_version(self) -> int:
        """The version whose protocol holds with this chunk."""
        return self.after.version if self.after.protocol and self.visible else self.table.protocol_version

    @property
    def visible(self) -> bool:
        """Whether the version can be read once it is complete."""
        return self.after.kind != "HISTORY"


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk of an imported version is taken; the last one decides the version."""

    position: int
    chunk: Chunk
    decided: Commit | Accepted | None
    """Once the version is complete. Only an adoption is a commit; it changes no other table."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A record to keep in the dead-letter stream, and the error that it caused, in the words of whoever raised it."""

    record: Record
    error: str


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A decision against a transaction: recorded for ever under its id."""

    position: int
    txn_id: str
    """`position-<n>` where the record's own id cannot be trusted or read."""
    client_id: str
    digest: bytes | None
    event_time_ms: int
    chunked: bool = False
    outcome: Outcome
    outcome_partition: int
    claimed_txn_id: str | None = None
    event_hash: bytes | None = None
    dead_letter: DeadLetter | None = None


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """A tick by which transactions are given up whose chunks stopped coming: each is rejected for ever."""

    position: int
    rejections: tuple[Rejection, ...]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier decision, told again to who asked: nothing changes."""

    position: int
    event_time_ms: int
    outcome: Outcome
    outcome_partition: int


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk of a transaction that is not decided yet: kept, nobody is answered."""

    position: int
    txn_id: str
    client_id: str
    event_time_ms: int
    chunk: StagedChunk
    works: tuple[StagedWork, ...] = ()
    """Its adds and removes, where they are to be kept as rows."""
    completes: bool = False
    """Whether a big transaction is all there with it."""


class Nothing(msgspec.Struct, frozen=True):
    """A record without effect (a tick, a chunk that is there already)."""

    position: int


Decision = Commit | Accepted | Imported | Rejection | Answer | Expired | Staged | Nothing
