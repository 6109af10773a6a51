"""The committer's store: all that is written to SQL, in one transaction per batch. Works on any `Database`.

`SqlCommitStore` is the only writer of everything but `dl_mirror_status`. What differs between engines (COPY and
pipelines, one writer at a time) lies in the `Database` adapters, so one contract suite shows the same behaviour on all
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import NamedTuple

import msgspec

from deltalakedb.database import Database
from deltalakedb.database.schema import verify_schema
from deltalakedb.errors import TxnLogConfigError, TxnLogFencedError, TxnLogHaltedError
from deltalakedb_committer.deciding.isolation import Attempts, IsolatedEvent
from deltalakedb_committer.deciding.needs import Needs
from deltalakedb_committer.deciding.parts import Found, TableKey
from deltalakedb_committer.deciding.staged_files import StagedWork
from deltalakedb_committer.deciding.state import Lake, State, Target

from .aside import end_asides
from .columns import COLUMNS
from .durability import verify_durability
from .file_rows import staged_rows
from .isolated import attempts, isolated_events, note_attempts
from .loading import load, load_contents, load_directory, load_parts
from .partitions import Partitions
from .rows import Batch, OutboxRow
from .staged_files import Asked, find
from .writing import CURSOR, OUTBOX, TARGETS, Cursor, move_cursor, write_batch

__all__ = ["FIRST_RULE_SET", "IN_PLACE", "Cursor", "Observation", "Remembered", "SqlCommitStore"]

IN_PLACE = "in-place"
"""The mirror target that every lake has: the tables' own locations."""
FIRST_RULE_SET = 1


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
    undecided: bool
    """A big transaction is all there, and nobody has said yet where it is decided."""
    commit_seq: int
    published_position: int


class Size(NamedTuple):
    """What a lake holds: its tables, and their live files with the bytes of them."""

    tables: int
    files: int
    bytes: int


_COMPLETE = (
    "SELECT c.txn_id FROM dl_staged_chunks c GROUP BY c.txn_id HAVING count(*) = max(c.chunk_count) "
    "AND NOT EXISTS (SELECT 1 FROM dl_transactions t WHERE t.txn_id = c.txn_id)"
)
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
                self._database.insert("dl_committer_position", ("lake_id", *CURSOR), [(lake_id, *astuple(cursor))])
                self._database.insert(
                    "dl_committer_heartbeat",
                    ("lake_id", "epoch", "holder", "beat", "released"),
                    [(lake_id, 0, "", 0, True)],
                )
                in_place = Target(target=IN_PLACE, kind=IN_PLACE, root=None, state="ACTIVE", added_seq=0)
                self._database.insert("dl_mirror_targets", TARGETS, [in_place])
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
        return self._cursor(f"SELECT {', '.join(CURSOR)} FROM dl_committer_position WHERE lake_id = ?")

    def take_over(self, holder: str) -> Cursor:
        """Become the one committer that may write: a new epoch. Everybody else's next write is fenced."""
        self._partitions = Partitions()
        lake_id = self.lake().lake_id
        with self._database.transaction():
            cursor = self._cursor(
                f"UPDATE dl_committer_position SET epoch = epoch + 1 WHERE lake_id = ? RETURNING {', '.join(CURSOR)}"
            )
            self._database.submit(
                "UPDATE dl_committer_heartbeat SET epoch = ?, holder = ?, beat = 0, released = ? WHERE lake_id = ?",
                [cursor.epoch, holder, False, lake_id],
            )
        if self._database.dialect == "postgres":
            end_asides(self._database, lake_id)
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
            f"EXISTS ({_COMPLETE}), p.commit_seq, p.published_position FROM dl_committer_position p "
            "JOIN dl_committer_heartbeat h ON h.lake_id = p.lake_id WHERE p.lake_id = ?",
            [self.lake().lake_id],
        )
        return Observation(*rows[0])

    def size(self) -> Size:
        """What the lake holds. Costs a look at every table's head."""
        rows = self._database.query(
            "SELECT count(*), CAST(COALESCE(sum(h.live_files), 0) AS BIGINT), "
            "CAST(COALESCE(sum(h.live_bytes), 0) AS BIGINT) FROM dl_tables t "
            "JOIN dl_table_heads h ON h.table_no = t.table_no WHERE t.state <> 'DROPPED'"
        )
        return Size(*rows[0])

    def note(self, cursor: Cursor, change: Callable[[Attempts], Attempts]) -> Attempts:
        """Change what is noted of attempts, durably; what it was before. The cursor stays where it is.

        Raises `TxnLogFencedError`, and writes nothing, unless the stored cursor is `cursor`.
        """
        with self._database.transaction():
            move_cursor(self._database, self.lake().lake_id, cursor, cursor)
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

    def forget_partitions(self) -> None:
        """Rows were written over another connection: ask again how partition values are numbered."""
        self._partitions = Partitions()

    def load_contents(self, txn_id: str, state: State) -> None:
        """Load the contents of a transaction's staged chunks."""
        load_contents(self._database, txn_id, state)

    def load_parts(self, txn_id: str, state: State) -> None:
        """Load what was found out about the files of a big transaction's staged chunks."""
        load_parts(self._database, txn_id, state)

    def chunk_content(self, txn_id: str, chunk_index: int) -> bytes:
        """The content of a chunk that is staged. Raises `TxnLogFencedError` if it is not any more."""
        rows = self._database.query(
            "SELECT c.content FROM dl_staged_chunks c WHERE c.txn_id = ? AND c.chunk_index = ?", [txn_id, chunk_index]
        )
        if not rows:
            raise TxnLogFencedError(f"another committer took over, and has decided transaction {txn_id}")
        return bytes(rows[0][0])

    def stage_again(self, cursor: Cursor, txn_id: str, chunk_index: int, works: Sequence[StagedWork]) -> None:
        """Keep the files of one chunk as rows, in place of those that are kept of it. The cursor stays where it is.

        Raises `TxnLogFencedError`, and writes nothing, unless the stored cursor is `cursor`.
        """
        with self._database.transaction():
            move_cursor(self._database, self.lake().lake_id, cursor, cursor)
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
                write_batch(self._database, self._partitions, self.lake().lake_id, cursor, batch, new)
        except BaseException:
            self.forget_partitions()
            raise
        if batch.placed:
            self.forget_partitions()

    def outbox(self) -> list[OutboxRow]:
        """What is not known to be on the log, in order."""
        rows = self._database.query(f"SELECT {', '.join(OUTBOX)} FROM dl_outbox ORDER BY position, n")
        return [
            OutboxRow(position, n, stream, partition, msgspec.json.decode(headers, type=dict[str, bytes]), payload)
            for position, n, stream, partition, headers, payload in rows
        ]

    def _cursor(self, statement: str) -> Cursor:
        rows = self._database.query(statement, [self.lake().lake_id])
        return Cursor(**dict(zip(CURSOR, rows[0], strict=True)))

    def _own_row(self, change: str, epoch: int) -> None:
        touched = self._database.execute(
            f"UPDATE dl_committer_heartbeat SET {change} WHERE lake_id = ? AND epoch = ?", [self.lake().lake_id, epoch]
        )
        if touched != 1:
            raise TxnLogFencedError(f"another committer took over from epoch {epoch}")
