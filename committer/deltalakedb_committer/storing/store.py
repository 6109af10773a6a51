"""The committer's store: all that is written to SQL, in one transaction per batch. Works on any `Database`.

`SqlCommitStore` is the only writer of everything but `dl_mirror_status`. What differs between engines (COPY and
pipelines, one writer at a time) lies in the `Database` adapters, so one contract suite shows the same behaviour on all
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import msgspec

from deltalakedb.catalog.records import columns
from deltalakedb.database import Database
from deltalakedb.database.schema import verify_schema
from deltalakedb.errors import TxnLogConfigError, TxnLogFencedError, TxnLogHaltedError
from deltalakedb.failpoints import Failpoint
from deltalakedb_committer.deciding.isolation import Attempts, IsolatedEvent
from deltalakedb_committer.deciding.needs import Needs
from deltalakedb_committer.deciding.parts import Found, TableKey
from deltalakedb_committer.deciding.staged_files import StagedWork
from deltalakedb_committer.deciding.state import Lake, State, Target

from .columns import COLUMNS
from .durability import verify_durability
from .file_rows import staged_rows
from .isolated import attempts, isolated_events, note_attempts
from .loading import load, load_contents, load_directory, load_parts
from .partitions import Partitions
from .rows import Batch, OutboxRow
from .staged_files import Asked, find, live_files_missing, place

IN_PLACE = "in-place"
"""The mirror target that every lake has: the tables' own locations."""
FIRST_RULE_SET = 1

_MOVED = Failpoint("committer.position-moved")
_INSERTED = Failpoint("committer.rows-inserted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where the committer stands: the row that moves only together with its effects.

    A write names the cursor it started from; if the stored row is not exactly that any more, nothing is written and
    `TxnLogFencedError` is raised.
    """

    epoch: int
    position: int
    """Next record of the staged stream."""
    stream_identity: str
    last_event_hash: bytes | None
    """SHA-256 of the record before `position`."""
    commit_seq: int
    time_ms: int
    next_table_no: int
    rule_set: int
    published_position: int
    """Everything caused by records below is on the log."""


class Remembered(NamedTuple):
    """What a store knows of its lake, and connections need not be told."""

    lake_id: str
    root: str
    log_address: str


class Observation(NamedTuple):
    """What a standby sees of the committer that leads."""

    epoch: int
    position: int
    beat: int
    released: bool
    """The last one that led has stopped, and said so."""
    untold: bool
    """Something it decided may not have been told yet."""
    commit_seq: int
    published_position: int


_CURSOR = tuple(Cursor.__dataclass_fields__)
_HEADS = COLUMNS["dl_table_heads"]
_TABLES = COLUMNS["dl_tables"]
_TARGETS = COLUMNS["dl_mirror_targets"]
_FILES = COLUMNS["dl_live_files"]
_FILE_COLUMNS = tuple("partition_no" if name == "partition_values" else name for name in _FILES)
_OUTBOX = OutboxRow._fields

_TEXTS = frozenset({"target", "kind", "root", "state"})


def _upsert(table: str, names: tuple[str, ...]) -> str:
    """A statement that writes a list of rows, over those that have the same first column."""
    typed = ", ".join(f"{name} {'TEXT' if name in _TEXTS else 'BIGINT'}" for name in names)
    return (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {columns(names, 'k')} FROM ROWS(?) AS k ({typed}) WHERE TRUE "
        f"ON CONFLICT ({names[0]}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names[1:])}"
    )


_KEPT = _TABLES.index("state")
"""So many columns of a table's entry, from the first on, never change."""
_CHANGE_TABLE = f"UPDATE dl_tables SET {', '.join(f'{name} = ?' for name in _TABLES[_KEPT:])} WHERE table_no = ?"
_WRITE_HEADS = _upsert("dl_table_heads", _HEADS)
_WRITE_TARGETS = _upsert("dl_mirror_targets", _TARGETS)


# A writer that stands still in the middle of its write holds the row that a takeover needs, and while its statements
# go through a pipeline no limit of the server's ends it. Its session is one of our own role, or it is left alone.
_END_WRITER = (
    "SELECT pg_terminate_backend(a.pid) FROM dl_committer_position p "
    "JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = p.xmax AND l.granted "
    "JOIN pg_stat_activity a ON a.pid = l.pid AND a.usename = current_user WHERE p.lake_id = ?"
)


class SqlCommitStore:
    """One committer's connection to the store of its lake. Used by one thread at a time.

    Every method raises `TxnLogDatabaseError` if the store fails; what it was to write is then not written, except that
    after `TxnLogCommitUnknownError` only `cursor()`, on a connection that works, tells.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._partitions = Partitions()
        self._lake: Lake | None = None

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._database.close()

    def verify(self) -> None:
        """Raise `TxnLogHaltedError` unless the schema is this release's and a commit is on disk when it is told."""
        verify_schema(self._database)
        verify_durability(self._database)

    # The lake.

    def remembered(self) -> Remembered | None:
        """What the store knows of its lake; None if there is none in it yet."""
        rows = self._database.query("SELECT lake_id, root, log_address FROM dl_lake")
        return Remembered(*rows[0]) if rows else None

    def init_lake(
        self,
        *,
        lake_id: str,
        root: str,
        log_address: str,
        stream_identity: str,
        position: int,
        fence: bool,
        created_ms: int,
    ) -> str:
        """Make the lake, if the store has none; the id of the lake that is there now.

        `position` is the first record of the staged stream, `stream_identity` that stream's. Safe to repeat, and to
        run from many processes at once: one of them makes the lake. Raises `TxnLogConfigError` if the store's lake has
        another root or log.
        """
        with self._database.transaction():
            made = self._database.execute(
                "INSERT INTO dl_lake (lake_id, root, log_address, created_ms, fence) SELECT ?, ?, ?, ?, ? "
                "WHERE NOT EXISTS (SELECT 1 FROM dl_lake) ON CONFLICT DO NOTHING",
                [lake_id, root, log_address, created_ms, fence],
            )
            if made:
                cursor = Cursor(
                    epoch=0,
                    position=position,
                    stream_identity=stream_identity,
                    last_event_hash=None,
                    commit_seq=0,
                    time_ms=0,
                    next_table_no=1,
                    rule_set=FIRST_RULE_SET,
                    published_position=position,
                )
                self._database.insert("dl_committer_position", ("lake_id", *_CURSOR), [(lake_id, *astuple(cursor))])
                self._database.insert(
                    "dl_committer_heartbeat",
                    ("lake_id", "epoch", "holder", "beat", "released"),
                    [(lake_id, 0, "", 0, True)],
                )
                in_place = Target(target=IN_PLACE, kind=IN_PLACE, root=None, state="ACTIVE", added_seq=0)
                self._database.insert("dl_mirror_targets", _TARGETS, [in_place])
        known = self.remembered()
        if known is None:
            raise TxnLogHaltedError("LAKE_MISSING", "the lake was deleted from the store while it was made: try again")
        for what, ours, theirs in (("root", root, known.root), ("log", log_address, known.log_address)):
            if ours != theirs:
                raise TxnLogConfigError(
                    f"the store holds the lake {known.lake_id} with the {what} {theirs}, and not {ours}: "
                    "correct the settings, or name another store"
                )
        return known.lake_id

    def lake(self) -> Lake:
        """What never changes about the lake. Raises `TxnLogConfigError` if there is none."""
        if self._lake is None:
            rows = self._database.query("SELECT lake_id, root, fence FROM dl_lake")
            if not rows:
                raise TxnLogConfigError("the store holds no lake yet: run `deltalakedb migrate` first")
            lake_id, root, fence = rows[0]
            self._lake = Lake(lake_id=lake_id, root=root, fence=fence)
        return self._lake

    # Who writes, and from where.

    def cursor(self) -> Cursor:
        """The cursor as it is stored now."""
        return self._cursor(f"SELECT {', '.join(_CURSOR)} FROM dl_committer_position WHERE lake_id = ?")

    def take_over(self, holder: str) -> Cursor:
        """Become the one committer that may write: a new epoch. Everybody else's next write is fenced."""
        self._partitions = Partitions()
        lake_id = self.lake().lake_id
        with self._database.transaction():
            cursor = self._cursor(
                f"UPDATE dl_committer_position SET epoch = epoch + 1 WHERE lake_id = ? RETURNING {', '.join(_CURSOR)}"
            )
            self._database.submit(
                "UPDATE dl_committer_heartbeat SET epoch = ?, holder = ?, beat = 0, released = ? WHERE lake_id = ?",
                [cursor.epoch, holder, False, lake_id],
            )
        return cursor

    def end_writer(self) -> None:
        """End a write that is under way, of a committer that stands still: a takeover would wait for it."""
        if self._database.dialect == "postgres":
            self._database.query(_END_WRITER, [self.lake().lake_id])

    def claim(self, seen: Observation) -> bool:
        """Keep others from taking over until this one has; False if one of them came first since `seen`, or a sign of life."""
        touched = self._database.execute(
            "UPDATE dl_committer_heartbeat SET beat = beat + 1, released = ? "
            "WHERE lake_id = ? AND epoch = ? AND beat = ? AND released = ?",
            [False, self.lake().lake_id, seen.epoch, seen.beat, seen.released],
        )
        return touched == 1

    def heartbeat(self, epoch: int) -> None:
        """Give a sign of life. Raises `TxnLogFencedError` if `epoch` is not the newest any more."""
        self._own_row("beat = beat + 1", epoch)

    def release(self, epoch: int) -> None:
        """Say that nobody leads. Raises `TxnLogFencedError` if `epoch` is not the newest any more."""
        self._own_row("released = (1 = 1)", epoch)

    def observe(self) -> Observation:
        """What a standby watches."""
        rows = self._database.query(
            "SELECT p.epoch, p.position, h.beat, h.released, EXISTS (SELECT 1 FROM dl_outbox), "
            "p.commit_seq, p.published_position FROM dl_committer_position p "
            "JOIN dl_committer_heartbeat h ON h.lake_id = p.lake_id WHERE p.lake_id = ?",
            [self.lake().lake_id],
        )
        return Observation(*rows[0])

    def note(self, cursor: Cursor, change: Callable[[Attempts], Attempts]) -> Attempts:
        """Change what is noted of attempts, durably; what it was before. The cursor stays where it is.

        Raises `TxnLogFencedError`, and writes nothing, unless the stored cursor is `cursor`.
        """
        with self._database.transaction():
            self._move(cursor, cursor)
            before = attempts(self._database, self.lake().lake_id)
            after = change(before)
            if after != before:
                note_attempts(self._database, self.lake().lake_id, after)
        return before

    def isolated_events(self) -> dict[int, IsolatedEvent]:
        """Every event that was isolated, by its position."""
        return isolated_events(self._database)

    # Batches.

    def load_directory(self, state: State) -> None:
        """Enter every table into `state`, without heads."""
        load_directory(self._database, state)

    def load(self, needs: Needs, state: State) -> None:
        """Load what `needs` names and `state` has not got; what staged chunks name is added to `needs`."""
        load(self._database, needs, state)

    def load_contents(self, txn_id: str, state: State) -> None:
        """Load the contents of a transaction's staged chunks."""
        load_contents(self._database, txn_id, state)

    def load_parts(self, txn_id: str, state: State) -> None:
        """Load what was found out about the files of a big transaction's staged chunks."""
        load_parts(self._database, txn_id, state)

    def chunk_content(self, txn_id: str, chunk_index: int) -> bytes:
        """The content of one staged chunk."""
        ((content,),) = self._database.query(
            "SELECT c.content FROM dl_staged_chunks c WHERE c.txn_id = ? AND c.chunk_index = ?", [txn_id, chunk_index]
        )
        return bytes(content)

    def stage_again(self, cursor: Cursor, txn_id: str, chunk_index: int, works: Sequence[StagedWork]) -> None:
        """Keep the files of one chunk as rows, in place of those that are kept of it. The cursor stays where it is.

        Raises `TxnLogFencedError`, and writes nothing, unless the stored cursor is `cursor`.
        """
        with self._database.transaction():
            self._move(cursor, cursor)
            self._database.submit(
                "DELETE FROM dl_staged_files WHERE txn_id = ? AND work = ANY(?) AND chunk_index = ?",
                [txn_id, [work.work for work in works], chunk_index],
            )
            rows = [row for work in works for row in staged_rows(txn_id, chunk_index, work)]
            self._database.insert("dl_staged_files", COLUMNS["dl_staged_files"], rows)

    def find(self, txn_id: str, asked: Sequence[Asked]) -> dict[TableKey, Found]:
        """What the rows of a complete transaction's files tell."""
        return find(self._database, txn_id, asked)

    def write(self, cursor: Cursor, batch: Batch, new: Cursor) -> None:
        """Write a batch and move the cursor, in one SQL transaction.

        Raises `TxnLogFencedError`, and writes nothing, unless the stored cursor is at the epoch and position of
        `cursor`; `TxnLogHaltedError` (`LIVE_FILE_MISSING`), and writes nothing, if a file that ends is not live.
        """
        try:
            with self._database.transaction():
                self._move(cursor, new)
                _MOVED.reached(batch)
                self._write(batch)
                # From the old mark on: what lies below it is gone, and its dead index entries need not be walked over.
                self._database.submit(
                    "DELETE FROM dl_outbox WHERE position >= ? AND position < ?",
                    [cursor.published_position, new.published_position],
                )
                _INSERTED.reached(batch)
        except BaseException:
            self._partitions = Partitions()
            raise

    def outbox(self) -> list[OutboxRow]:
        """What is not known to be on the log, in order."""
        rows = self._database.query(f"SELECT {', '.join(_OUTBOX)} FROM dl_outbox ORDER BY position, n")
        return [
            OutboxRow(position, n, stream, partition, msgspec.json.decode(headers, type=dict[str, bytes]), payload)
            for position, n, stream, partition, headers, payload in rows
        ]

    def _move(self, cursor: Cursor, new: Cursor) -> None:
        moved = self._database.execute(
            f"UPDATE dl_committer_position SET {', '.join(f'{name} = ?' for name in _CURSOR)} "
            "WHERE lake_id = ? AND epoch = ? AND position = ?",
            [*astuple(new), self.lake().lake_id, cursor.epoch, cursor.position],
        )
        if moved != 1:
            raise TxnLogFencedError(
                f"another committer took over from epoch {cursor.epoch} at position {cursor.position}: "
                "nothing was written"
            )

    def _write(self, batch: Batch) -> None:
        finished = set(batch.finished_chunks)
        # Changes first: a name that becomes free may be taken by a table of the same batch.
        self._database.execute_many(_CHANGE_TABLE, [(*row[_KEPT:], row[0]) for row in batch.tables.values()])
        self._database.insert("dl_tables", _TABLES, list(batch.new_tables.values()))
        for table, rows in batch.inserts.items():
            if table == "dl_live_files":
                files, partitions = self._partitions.number(self._database, rows)
                self._database.insert("dl_partitions", ("table_no", "partition_no", "partition_values"), partitions)
                self._database.insert(table, _FILE_COLUMNS, files)
            elif table in ("dl_staged_chunks", "dl_staged_files"):
                self._database.insert(table, COLUMNS[table], [row for row in rows if row[0] not in finished])
            else:
                self._database.insert(table, COLUMNS[table], rows)
        outbox = [(*row[:4], msgspec.json.encode(row.headers).decode(), row.payload) for row in batch.outbox]
        self._database.insert("dl_outbox", _OUTBOX, outbox)
        # From here on statements go out with the COMMIT, where an adapter has pipelines.
        if batch.heads:
            self._database.submit(_WRITE_HEADS, [list(batch.heads.values())])
        if batch.targets:
            self._database.submit(_WRITE_TARGETS, [list(batch.targets.values())])
        if batch.imports:
            self._database.submit("DELETE FROM dl_imports WHERE table_no = ANY(?)", [sorted(batch.imports)])
            under_way = [row for row in batch.imports.values() if row is not None]
            self._database.insert("dl_imports", COLUMNS["dl_imports"], under_way)
        if batch.placed:
            place(self._database, batch.placed)
            self._partitions = Partitions()
        if batch.superseded:
            ended = self._database.move(
                *("dl_live_files", "dl_past_files", _FILE_COLUMNS, sorted(batch.superseded)),
                by=("table_no", "version", "n"),
                adding=("removed_version",),
            )
            if ended != len(batch.superseded):
                raise live_files_missing(len(batch.superseded), ended)
        if finished:
            for table in ("dl_staged_chunks", "dl_staged_files"):
                self._database.submit(f"DELETE FROM {table} WHERE txn_id = ANY(?)", [sorted(finished)])

    def _cursor(self, statement: str) -> Cursor:
        rows = self._database.query(statement, [self.lake().lake_id])
        return Cursor(**dict(zip(_CURSOR, rows[0], strict=True)))

    def _own_row(self, change: str, epoch: int) -> None:
        touched = self._database.execute(
            f"UPDATE dl_committer_heartbeat SET {change} WHERE lake_id = ? AND epoch = ?", [self.lake().lake_id, epoch]
        )
        if touched != 1:
            raise TxnLogFencedError(f"another committer took over from epoch {epoch}")
