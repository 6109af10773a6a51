"""What `decide` looks at: the lake, its tables and the rows that a batch of events names. Plain data, no I/O.

The store fills a `State` with what `needs` names; `decide` reads it; `advance` moves it on, so
that later events of a batch see earlier ones. Between batches the heads, metadata and protocols stay (they die with
the epoch); what was loaded for single events (`files`, `winners`, `decided`, `apps`, `chunks`) is dropped by
`forget()`.

The store loads more than an event needs without harm, and everything a second time without a difference: what it
fills in is what SQL holds at the start of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from deltalakedb.actions import DomainMetadata, Metadata, Protocol, SetTransaction
from deltalakedb.delta_types import StructType
from deltalakedb.events import Outcome

from .chunks import StagedChunks
from .facts import TableFacts
from .parts import StagedFacts
from .quotas import IncompleteTransactions
from .read_predicates import PartitionValues
from .rules import Rules

KEPT_BYTES = 32 * 1024**2
"""What is kept in memory of the staged chunks of big transactions, from one batch to the next."""

FileKey = tuple[str, str]
"""Identity of a logical file: (path, deletion-vector id or "")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lake:
    """What never changes about a lake."""

    lake_id: str
    root: str
    fence: bool


class LiveFile(NamedTuple):
    """A live row of `dl_live_files`, as far as a decision needs it. (version, n) is its primary key in the table.

    A tuple, because a batch may name very many.
    """

    version: int
    n: int
    size: int
    partition_values: dict[str, str | None]
    base_row_id: int | None = None
    default_row_commit_version: int | None = None
    tags: str | None = None
    """The column's text: a JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """A committed version that a transaction which read an older one has to be checked against."""

    version: int
    txn_id: str | None
    is_blind_append: bool
    changes_data: bool
    changes_metadata: bool
    changes_protocol: bool
    added_files: int
    removed_files: int
    added_to: tuple[PartitionValues, ...] = ()
    """Distinct partition values of its adds. Known, as the next is, where predicates are to be checked."""
    removed_from: tuple[PartitionValues, ...] = ()
    removed_paths: frozenset[str] = frozenset()
    """Of its removes, those that the batch names as read or removed."""
    domains: frozenset[str] = frozenset()
    """That it set or removed. Known where domain metadata is to be checked."""
    imported: bool = False
    """It came from another log: nothing else is known of it, and whoever read an older version has to read again."""

    @staticmethod
    def imported_as(version: int) -> Winner:
        """A version that came from another log."""
        return Winner(
            version=version,
            txn_id=None,
            is_blind_append=False,
            changes_data=True,
            changes_metadata=False,
            changes_protocol=False,
            added_files=0,
            removed_files=0,
            imported=True,
        )


class UnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """An imported version, as far as its chunks have come: what the next chunk goes on from. Kept in SQL as JSON.

    The rows of these chunks are in SQL already, and nobody sees them: they belong to a version above the table's head.
    """

    version: int
    kind: str
    time_ms: int
    file_time_ms: int | None
    chunk_count: int
    digest: bytes
    chunks: tuple[bytes, ...] = ()
    """The digest of every chunk that has come."""
    adds: int = 0
    removes: int = 0
    cdc: int = 0
    others: int = 0
    added_bytes: int = 0
    removed_bytes: int = 0
    changes_data: bool = False
    metadata: bool = False
    """Whether the version has a `metaData` action, as the next for `protocol`."""
    protocol: bool = False
    domains: tuple[str, ...] = ()
    """Domains that it sets."""
    commit_info: str | None = None
    """The `commitInfo`, verbatim."""
    live_files: int
    """Of the table, as are the next two."""
    live_bytes: int
    widths: tuple[int, int, int, int]


class TableTxn(NamedTuple):
    """A table's `txn` action and the table version that carries it."""

    table_version: int
    txn: SetTransaction


class Target(NamedTuple):
    """A mirror target: a row of `dl_mirror_targets`."""

    target: str
    kind: str
    root: str | None
    state: str
    added_seq: int


@dataclass(slots=True, kw_only=True)
class TableState:
    """One table: its entry in the directory and, once loaded, its head."""

    table_no: int
    table_id: str
    name: str
    location: str
    state: str = "ACTIVE"
    created_seq: int | None = None
    """None: it was imported, and not adopted yet."""
    dropped_seq: int | None = None
    first_version: int = 0
    """Oldest version that can be read. Where it lies above `version`, nothing can: only history was imported so far."""
    slot_columns: tuple[tuple[str, ...], ...] = ()
    """Column paths (physical names) whose statistics fill slots 1 to 4."""

    loaded: bool = False
    """Whether what follows is known; the directory alone is known from the start."""
    version: int = -1
    time_ms: int = 0
    metadata_version: int = -1
    protocol_version: int = -1
    live_files: int = 0
    live_bytes: int = 0
    widths: tuple[int, int, int, int] = (0, 0, 0, 0)
    metadata: Metadata | None = None
    schema: StructType | None = None
    """`metadata.schema_string`, parsed once."""
    protocol: Protocol | None = None
    facts: TableFacts | None = None
    """What the three above mean, kept by `facts_under`."""

    under_way: UnderWay | None = None
    """The version that is being imported, once a part of it is there. Metadata, protocol, live files and widths above
    are then those that this part leaves."""

    files: dict[FileKey, LiveFile] = field(default_factory=dict)
    """Live files among those that the batch names. A named file that is not here is not live."""
    vectors: dict[str, set[str]] = field(default_factory=dict)
    """Per named path, the dv_ids it is live with."""
    spellings: dict[str, set[str]] = field(default_factory=dict)
    """Live paths by their canonical form, where that is another one."""
    winners: list[Winner] = field(default_factory=list)
    """Versions above `winners_since`, ascending, up to the head."""
    winners_since: int | None = None
    """Lowest version from which on `winners` is complete; None: none were asked for. Versions further back than
    `Rules.read_distance` are never looked at."""
    past_metadata: dict[int, Metadata] = field(default_factory=dict)
    """Older metadata among the versions that the batch names as written against, by the version that set it."""
    txns: dict[str, TableTxn] = field(default_factory=dict)
    """Newest `txn` of the app ids that the batch names."""
    domains: dict[str, DomainMetadata] = field(default_factory=dict)
    """Domain metadata in force (all domains of the table; there are few)."""

    def facts_under(self, rules: Rules) -> TableFacts:
        """What the table's metadata and protocol mean under `rules`. Only for a loaded table."""
        facts, metadata, protocol = self.facts, self.metadata, self.protocol
        if facts is None or not (facts.metadata is metadata and facts.protocol is protocol and facts.rules is rules):
            if metadata is None or self.schema is None or protocol is None:
                raise TypeError(f"table {self.name} is not loaded")
            facts = self.facts = TableFacts(metadata, self.schema, protocol, self.slot_columns, rules)
        return facts


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that is in SQL already. `digest` is None where nothing was sent (cancelled first)."""

    txn_id: str
    digest: bytes | None
    outcome: Outcome


@dataclass(slots=True, kw_only=True)
class State:
    """The lake as the next event finds it."""

    lake: Lake
    rules: Rules
    commit_seq: int
    """Of the newest commit; the next one takes this plus one."""
    time_ms: int
    """T of the newest commit."""
    next_table_no: int
    tables: dict[int, TableState] = field(default_factory=dict)
    """Directory of all tables, dropped ones included, by table_no."""
    by_name: dict[str, int] = field(default_factory=dict)
    """table_no of every table that is not dropped."""
    by_id: dict[str, int] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    """All mirror targets, by name."""
    decided: dict[str, Decided] = field(default_factory=dict)
    """First decisions of the transaction ids that the batch names."""
    apps: dict[str, dict[int, str]] = field(default_factory=dict)
    """Per app id that the batch names: of each version named the first committed one at or above it, with its
    transaction. The first decisions of these transactions are in `decided` too."""
    chunks: dict[str, StagedChunks] = field(default_factory=dict)
    """Staged chunks of the incomplete transactions that the batch names, and of big ones that others named lately."""
    staged: dict[str, StagedFacts] = field(default_factory=dict)
    """Big transactions that are complete, as far as files go."""
    incomplete: IncompleteTransactions = field(default_factory=IncompleteTransactions)
    """Every transaction of which some chunks are staged and others missing, and what is staged of those that are
    complete."""
    complete: dict[str, None] = field(default_factory=dict)
    """Big transactions that are all there and not decided yet, in their order."""
    big: set[str] = field(default_factory=set)
    """Those of `incomplete` and `complete` that are big."""
    left: dict[str, None] = field(default_factory=dict)
    """Big transactions that are decided, and whose chunks and files are still staged."""
    touched: set[int] = field(default_factory=set)
    """table_no of the tables that `forget()` has to go through."""

    def table(self, *, name: str | None = None, table_id: str | None = None) -> TableState | None:
        """The table of that id, else of that name; dropped tables are found by id only."""
        number = self.by_id.get(table_id) if table_id is not None else self.by_name.get(name or "")
        return None if number is None else self.tables[number]

    def add_table(self, table: TableState) -> None:
        """Enter a table into the directory."""
        self.tables[table.table_no] = table
        self.by_id[table.table_id] = table.table_no
        if table.state != "DROPPED":
            self.by_name[table.name] = table.table_no

    def touch(self, table: TableState) -> None:
        """Note that something was loaded into `table` for single events, for `forget()` to find."""
        self.touched.add(table.table_no)

    def forget(self) -> None:
        """Drop what was loaded for single events; heads stay."""
        self.decided.clear()
        self.apps.clear()
        self.staged.clear()
        if self.chunks:
            self._forget_chunks()
        for number in self.touched:
            table = self.tables[number]
            table.files.clear()
            table.vectors.clear()
            table.spellings.clear()
            table.winners.clear()
            table.winners_since = None
            table.past_metadata.clear()
            table.txns.clear()
        self.touched.clear()

    def _forget_chunks(self) -> None:
        """Those of big transactions stay, as far as there is room, or with each chunk all before it would be loaded."""
        room = KEPT_BYTES
        for txn_id in reversed([*self.chunks]):
            room -= self.chunks[txn_id].kept_bytes
            if txn_id not in self.big or self.chunks[txn_id].is_filled or room < 0:
                del self.chunks[txn_id]
