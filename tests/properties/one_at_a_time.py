"""A lake that takes one transaction after the other, as a model: what each wants, and what is there after it.

The model knows no rule of ours. Who read something loses where others have changed that since; how much of what they add
counts as a change is a matter of the isolation level, and that of the strictest table involved. It reads the log as
committers do, because what is put there together shares versions, and because a committer's own word decides what is big.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from deltalakedb.codec import decode
from deltalakedb.eventlog import Record
from deltalakedb.events import Cancel, Completion, Control, SetRules, StagedTransaction
from deltalakedb.ids import table_id

SNAPSHOT, RELAXED, STRICT = LEVELS = ("SnapshotIsolation", "WriteSerializable", "Serializable")
LEVEL = "delta.isolationLevel"


@dataclass(frozen=True, slots=True)
class Read:
    """What was looked at in a table: nothing but its version number, unless more is said."""

    version: int
    whole: bool = False
    files: frozenset[str] = frozenset()
    condition: str | None = None
    """That rows were looked for by."""
    where: frozenset[str | None] = frozenset()
    """Partitions where the condition may be true of a row."""

    def __bool__(self) -> bool:
        return self.whole or bool(self.files or self.where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a transaction read of one table, and does to it."""

    read: Read | None = None
    adds: dict[str, str | None] = field(default_factory=dict)
    """Partition value by file."""
    removes: frozenset[str] = frozenset()
    moves: bool = False
    """Its files hold rows that were there before."""
    against: int | None = None
    """The version whose metadata its files were written for, if it says so."""
    column: str | None = None
    """To be there afterwards, as are `properties`."""
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A transaction: what it does by table, and which of their own transactions applications do with it."""

    parts: dict[str, Part]
    apps: dict[str, int] = field(default_factory=dict)

    @property
    def blind(self) -> bool:
        return not any(part.read or part.removes for part in self.parts.values())

    @property
    def appends(self) -> bool:
        """Files to every table it names, and nothing else."""
        return bool(self.parts) and all(
            part.adds and part.read is None and not (part.removes or part.column or part.properties)
            for part in self.parts.values()
        )

    @property
    def moves(self) -> bool:
        """No table has other rows afterwards."""
        return not self.apps and not any(
            part.column or part.properties or ((part.adds or part.removes) and not part.moves)
            for part in self.parts.values()
        )


@dataclass(slots=True)
class Change:
    """What a version of a table did: partition values of what it added, by file of what it removed."""

    added: set[str | None]
    removed: dict[str, str | None]
    blind: bool
    metadata: bool


@dataclass(slots=True)
class Table:
    """One table, and what each version did but the one that made it."""

    partitioned: bool
    properties: dict[str, str]
    columns: set[str]
    live: dict[str, str | None] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    metadata_versions: list[int] = field(default_factory=lambda: [0])

    def is_changed_by(self, part: Part) -> bool:
        """Whether its metadata is."""
        new_column = part.column is not None and part.column not in self.columns
        return new_column or not part.properties.items() <= self.properties.items()


@dataclass(slots=True)
class _Together:
    """Appends side by side on the log, which share a version of each table."""

    until_ms: int
    txn_ids: set[str] = field(default_factory=set)
    apps: set[str] = field(default_factory=set)
    made: dict[str, Change] = field(default_factory=dict)
    commit: list[str] | None = None


class Model:
    """The lake, as far as its log has been read."""

    def __init__(
        self,
        tables: dict[str, Table],
        made_by: str,
        *,
        whole_chunks: int,
        windows_ms: dict[int, int],
        reached: Counter[str],
    ) -> None:
        """`tables` were `made_by` the first transaction. What comes in more than `whole_chunks` is big; under these rule
        sets appends share versions that come within `windows_ms`."""
        self.tables = tables
        self.wanted = {made_by: Wanted(parts={})}
        """By transaction id, known before it comes to the log."""
        self.decided = {made_by: True}
        self.versions = {made_by: dict.fromkeys(tables, 0)}
        """By transaction that was committed the versions it is told."""
        self.commits = [[made_by]]
        """The transactions of each."""
        self.undecided: set[str] = set()
        """Big ones that are all there."""
        self._reached = reached
        self._names = {table_id(made_by, name): name for name in tables}
        self._whole_chunks = whole_chunks
        self._windows_ms = windows_ms
        self._chunks: dict[str, set[int]] = {}
        self._apps: dict[str, dict[int, str]] = {}
        self._window_ms = 0
        self._together: _Together | None = None

    def read(self, record: Record) -> None:
        """The next record of the log."""
        match decode(record.value):
            case StagedTransaction(envelope=envelope):
                wanted = self.wanted[envelope.txn_id]
                self._put_together(record.time_ms, envelope.txn_id, wanted, envelope.chunk_count)
                chunks = self._chunks.setdefault(envelope.txn_id, set())
                chunks.add(envelope.chunk_index)
                if len(chunks) < envelope.chunk_count or envelope.txn_id in self.decided:
                    return
                if envelope.chunk_count > self._whole_chunks:
                    self.undecided.add(envelope.txn_id)
                else:
                    self._decide(envelope.txn_id, wanted)
            case Completion(txn_id=txn_id, heads=heads):
                self._together = None
                if txn_id in self.undecided and self._stand_at(heads):
                    self._reached["big"] += 1
                    self._decide(txn_id, self.wanted[txn_id])
            case Control(control_id=control_id, command=command):
                self._together = None
                if isinstance(command, Cancel):
                    self.decided.setdefault(command.txn_id, False)
                    self.undecided.discard(command.txn_id)
                elif isinstance(command, SetRules) and control_id not in self.decided:
                    self.decided[control_id] = True
                    self._window_ms = self._windows_ms[command.rule_set]
            case other:
                raise AssertionError(f"nobody sends {other}")

    def _stand_at(self, heads: dict[str, int]) -> bool:
        return all(len(self.tables[self._names[table]].changes) == head for table, head in heads.items())

    def _put_together(self, time_ms: int, txn_id: str, wanted: Wanted, chunks: int) -> None:
        """Whether a record shares versions with the one before it, and may with the next."""
        if not self._window_ms or chunks > 1 or not wanted.appends:
            self._together = None
            return
        found = self._together
        if (
            found is None
            or time_ms >= found.until_ms
            or txn_id in found.txn_ids
            or not found.apps.isdisjoint(wanted.apps)
        ):
            found = self._together = _Together(time_ms + self._window_ms)
        found.txn_ids.add(txn_id)
        found.apps.update(wanted.apps)

    def _decide(self, txn_id: str, wanted: Wanted) -> None:
        self.undecided.discard(txn_id)
        earlier = self._earlier(wanted.apps)
        if earlier and len(earlier) == len(wanted.apps):
            self._reached["application was there before"] += 1
            self.decided[txn_id] = True
            self.versions[txn_id] = self.versions[earlier[0]]
            return
        against = "application was there in part" if earlier else self._against(wanted)
        self.decided[txn_id] = against is None
        self._reached[against or "committed"] += 1
        if against is None:
            for app, number in wanted.apps.items():
                self._apps.setdefault(app, {})[number] = txn_id
            self._commit(txn_id, wanted)

    def _earlier(self, apps: dict[str, int]) -> list[str]:
        """The transactions that committed these, or what came after them."""
        found = []
        for app, number in apps.items():
            numbers = [other for other in self._apps.get(app, ()) if other >= number]
            if numbers:
                found.append(self._apps[app][min(numbers)])
        return found

    # What stands against a transaction.

    def _against(self, wanted: Wanted) -> str | None:
        levels = [] if wanted.moves else [self.tables[name].properties[LEVEL] for name in wanted.parts]
        level = max(levels, key=LEVELS.index, default=SNAPSHOT)
        for name, part in wanted.parts.items():
            table = self.tables[name]
            if part.adds and part.against is None and self._knows_no_metadata(part, table):
                return "not said what files are written for"
            if part.read is None and part.removes and level == STRICT:
                return "not said what was read"
            if part.read or (part.read is not None and part.removes and level == STRICT):
                for change in table.changes[part.read.version :]:
                    found = self._stands(change, part, part.read, table, level)
                    if found is not None:
                        return found
            if not part.removes <= table.live.keys():
                return "removed what is not there"
        return None

    def _stands(self, change: Change, part: Part, read: Read, table: Table, level: str) -> str | None:
        """Why a change of a table is one of what was read, if it is."""
        if change.metadata:
            return "metadata changed"
        if change.added and (read.whole or not table.partitioned or read.where & change.added):
            if level == SNAPSHOT:
                self._reached["added, which a snapshot does not mind"] += 1
            elif level == RELAXED and change.blind and not table.is_changed_by(part):
                self._reached["added, which the relaxed do not mind"] += 1
            else:
                return "added what would have been read"
        if change.removed:
            if read.whole or read.files & change.removed.keys() or read.where & set(change.removed.values()):
                return "removed what was read"
            if part.removes & change.removed.keys():
                return "removed twice"
        return None

    def _knows_no_metadata(self, part: Part, table: Table) -> bool:
        return table.metadata_versions[-1] > (0 if part.read is None else part.read.version)

    # What becomes of it.

    def _commit(self, txn_id: str, wanted: Wanted) -> None:
        versions = self.versions[txn_id] = {}
        together = self._together
        for name, part in wanted.parts.items():
            table = self.tables[name]
            metadata = table.is_changed_by(part)
            if not (part.adds or part.removes or metadata):
                continue
            if together is not None and name in together.made:
                together.made[name].added |= set(part.adds.values())
            else:
                removed = {path: table.live[path] for path in part.removes}
                change = Change(set(part.adds.values()), removed, wanted.blind, metadata)
                table.changes.append(change)
                if together is not None:
                    together.made[name] = change
            versions[name] = len(table.changes)
            table.live |= part.adds
            for path in part.removes:
                del table.live[path]
                table.gone.append(path)
            if metadata:
                table.metadata_versions.append(len(table.changes))
                table.columns |= set() if part.column is None else {part.column}
                table.properties |= part.properties
        if not versions:
            self._reached["committed, and nothing changed"] += 1
        elif together is not None and together.commit is not None:
            self._reached["shared a version"] += 1
            together.commit.append(txn_id)
        else:
            self.commits.append([txn_id])
            if together is not None:
                together.commit = self.commits[-1]
