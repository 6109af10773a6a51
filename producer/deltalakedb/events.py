"""The five events on the log, as values. `codec` turns them into bytes and back; their schemas say what fields mean."""

from __future__ import annotations

import msgspec

from .actions import AddFile, CdcFile, JsonValue, Long, OtherAction, RemoveFile


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Which transaction this is a chunk of, and who wants the answer where."""

    txn_id: str
    chunk_index: int = 0
    chunk_count: int = 1
    digest: bytes
    lake_id: str
    root: str
    client_id: str
    outcome_partition: int = -1


class AppTransaction(JsonValue, frozen=True):
    """An application's own transaction number, as in Delta's `txn` action."""

    app_id: str
    version: Long


class Literal(JsonValue, frozen=True):
    """A typed value: a Delta primitive type, and the value as Delta writes it in `partitionValues` (None: NULL)."""

    type: str
    text: str | None


class Term(JsonValue, frozen=True):
    """One term of a postfix predicate: a comparison of a column with literals, or a connective of what came before."""

    op: str
    column: tuple[str, ...] = ()
    literals: tuple[Literal, ...] = ()


class Predicate(JsonValue, frozen=True):
    """A condition in postfix order."""

    terms: tuple[Term, ...]


class ReadSet(JsonValue, frozen=True, kw_only=True):
    """What a transaction read of one table at its read version."""

    whole_table: bool = False
    files: tuple[str, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    app_ids: tuple[str, ...] = ()


class WrittenAgainst(JsonValue, frozen=True):
    """The metadata and protocol that staged files were written for, by the versions that set them."""

    metadata_version: Long
    protocol_version: Long


class CreateTable(JsonValue, frozen=True, kw_only=True, tag=True):
    """Intent: the table exists with this schema, partitioning, properties and location."""

    schema_string: str
    partition_columns: tuple[str, ...] = ()
    properties: dict[str, str] = msgspec.field(default_factory=dict)
    location: str | None = None
    description: str | None = None
    if_absent: bool = True


class AddColumn(JsonValue, frozen=True, kw_only=True, tag=True):
    """Intent: the struct at `parent` has this field (Delta schema JSON)."""

    parent: tuple[str, ...] = ()
    field: str
    after: str | None = None


class RenameColumn(JsonValue, frozen=True, kw_only=True, tag=True):
    """Intent: the column has this name."""

    column: tuple[str, ...]
    new_name: str


class WidenColumn(JsonValue, frozen=True, kw_only=True, tag=True):
    """Intent: the column has this wider type."""

    column: tuple[str, ...]
    new_type: str


class DropColumn(JsonValue, frozen=True, kw_only=True, tag=True):
    """Intent: the column is gone."""

    column: tuple[str, ...]


class SetProperties(JsonValue, frozen=True, kw_only=True, tag=True):
    """Intent: these table properties are set, those are not."""

    set: dict[str, str] = msgspec.field(default_factory=dict)
    unset: tuple[str, ...] = ()


Intent = CreateTable | AddColumn | RenameColumn | WidenColumn | DropColumn | SetProperties


class TableWork(JsonValue, frozen=True, kw_only=True):
    """What one transaction read of one table and does to it. One of `name` and `id` is given."""

    name: str | None = None
    id: str | None = None
    read_version: Long | None = None
    read_set: ReadSet | None = None
    written_against: WrittenAgainst | None = None
    operation: str = "WRITE"
    operation_parameters: dict[str, str] = msgspec.field(default_factory=dict)
    operation_metrics: dict[str, str] = msgspec.field(default_factory=dict)
    intents: tuple[Intent, ...] = ()
    adds: tuple[AddFile, ...] = ()
    removes: tuple[RemoveFile, ...] = ()
    cdc: tuple[CdcFile, ...] = ()
    others: tuple[OtherAction, ...] = ()

    @property
    def key(self) -> tuple[str | None, str | None]:
        """What names the table within its transaction."""
        return (self.id, self.name)

    @property
    def changes(self) -> bool:
        """Whether it asks for anything but to have read."""
        return bool(self.intents or self.adds or self.removes or self.cdc or self.others)


class Content(JsonValue, frozen=True, kw_only=True):
    """What is to be decided, without the question who asks."""

    tables: tuple[TableWork, ...]
    isolation: str | None = None
    apps: tuple[AppTransaction, ...] = ()
    user_metadata: str | None = None
    engine_info: str = ""


class StagedTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of a transaction. `content_bytes` is the content as encoded: digests and staging use the bytes."""

    envelope: Envelope
    content: Content
    content_bytes: bytes


class ImportedAction(msgspec.Struct, frozen=True):
    """One action of an imported version: its kind and its verbatim JSON object."""

    kind: str
    json: str


class ImportedContent(msgspec.Struct, frozen=True, kw_only=True):
    """A version of an existing Delta table, exactly as found."""

    import_id: str
    table_name: str
    location: str
    version: int
    time_ms: int
    file_time_ms: int | None = None
    kind: str = "COMMIT"
    last: bool = False
    actions: tuple[ImportedAction, ...] = ()


class ImportedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of an imported version."""

    envelope: Envelope
    content: ImportedContent
    content_bytes: bytes


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Command: an undecided transaction becomes rejected for ever."""

    txn_id: str


class Tick(msgspec.Struct, frozen=True, tag=True):
    """Command: nothing but a log time."""


class SetRules(msgspec.Struct, frozen=True, tag=True):
    """Command: from here on this numbered rule set holds."""

    rule_set: int
    parameters: dict[str, str] = {}


class LakeAction(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Command: create, rename, drop, adopt, release a table, register a location, add, pause or remove a target."""

    action: str
    table: str | None = None
    target: str | None = None
    parameters: dict[str, str] = {}


Command = Cancel | Tick | SetRules | LakeAction


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the lake itself."""

    control_id: str
    lake_id: str
    client_id: str
    outcome_partition: int = -1
    command: Command


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The committer's word that a big transaction, all there by now, is decided at this record.

    Without effect where one of the tables named in `heads`, by their ids, has another version by then.
    """

    lake_id: str
    client_id: str
    txn_id: str
    heads: dict[str, int] = {}


class CommittedTable(msgspec.Struct, frozen=True, kw_only=True):
    """One table's part of a commit. `old_version` is -1 where the commit created the table."""

    table_id: str
    name: str
    old_version: int
    new_version: int
    added_files: int = 0
    added_bytes: int = 0
    removed_files: int = 0
    removed_bytes: int = 0


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One commit of the lake, as told to everybody. The actions are read from SQL."""

    lake_id: str
    commit_seq: int
    position: int
    time_ms: int
    txn_ids: tuple[str, ...]
    tables: tuple[CommittedTable, ...]


class TableVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a transaction gave a table."""

    name: str
    table_id: str
    version: int


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome: durable in SQL, in all tables."""

    commit_seq: int
    time_ms: int
    already_committed: bool = False
    tables: tuple[TableVersion, ...]


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome: not committed, in no table, for ever. `reason` is a `deltalakedb.errors.Reason`."""

    reason: str
    message: str
    table: str | None = None
    versions: tuple[int, ...] = ()
    other_txn: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as told to the client that asked: one of `committed` and `rejected` is given."""

    lake_id: str
    txn_id: str
    client_id: str
    position: int
    committed: Committed | None = None
    rejected: Rejected | None = None
    lag_events: int = 0
    lag_ms: int = 0


Event = StagedTransaction | ImportedVersion | Control | Completion
"""What is put on the log to be decided."""
Told = tuple[Commit, ...] | tuple[Outcome, ...]
"""What comes of it: one record tells many."""
