"""A second connection of a committer that leads: what takes long about a big transaction happens on it, beside the batches.

On Postgres alone, where writers do not shut each other out. The rows are placed in a transaction that stays open until
the decision, which is then written in the same one: until then nobody sees them, and nothing has to be undone if
something comes between. A writer of the same rows would wait for its end; so whoever is about to touch one of its
tables ends it first, and so does a takeover.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from typing import Final, TypeVar

import msgspec

from deltalakedb.database import Database
from deltalakedb.errors import TxnLogDatabaseError, TxnLogFencedError
from deltalakedb.failpoints import Failpoint
from deltalakedb_committer.deciding.parts import ChunkPart, Found, TableKey
from deltalakedb_committer.deciding.staged_files import work_number

from .partitions import Partitions
from .rows import Batch, Placed
from .staged_files import Asked, find, place
from .writing import Cursor, write_batch

_ASKED = Failpoint("committer.files-asked")
_BEGUN = Failpoint("committer.placing")
_PLACED = Failpoint("committer.placed")
_GIVEN_UP = Failpoint("committer.given-up")
_CLEARED = Failpoint("committer.cleared")

_CANCEL_SECONDS: Final = 0.02
_END_SECONDS: Final = 10
# The decision may be long in coming; a takeover, and nothing else, has reason to end the transaction before it.
_IDLE: Final = "SELECT set_config('idle_in_transaction_session_timeout', '600s', true)"
_END: Final = (
    f"SELECT pg_terminate_backend(a.pid, {_END_SECONDS * 1000}) FROM pg_stat_activity a "
    "WHERE a.application_name = ? AND a.usename = current_user AND a.datname = current_database()"
)

_T = TypeVar("_T")


class Aside:
    """The connection, and a thread that works on it, one thing at a time. Its methods are called by one thread."""

    def __init__(self, open_: Callable[[], Database], lake_id: str) -> None:
        """The connection is opened when it is needed, and anew where it broke."""
        self._open = open_
        self._lake_id = lake_id
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._doing: Future[object] | None = None
        self._stopped = threading.Event()
        self._database: Database | None = None
        self._block: ExitStack | None = None

    def find(self, txn_id: str, asked: Sequence[Asked]) -> Future[dict[TableKey, Found]]:
        """What the rows of a complete transaction's files tell."""

        def work() -> dict[TableKey, Found]:
            database = self._connected()
            found: dict[TableKey, Found] = {}
            for one in asked:
                self._go_on()
                found |= find(database, txn_id, [one])
            _ASKED.reached()
            return found

        return self._start(work)

    def place(self, epoch: int, placed: Sequence[Placed]) -> Future[None]:
        """Give staged files their places, in a transaction that stays open for `write`, or until `stop`.

        Fails with `TxnLogFencedError` if `epoch` is not the newest any more.
        """

        def work() -> None:
            database = self._connected()
            with ExitStack() as block:
                block.enter_context(database.transaction())
                database.query(_IDLE)
                # After the connection has its name: a takeover either is seen here, or finds it by that.
                rows = database.query("SELECT epoch FROM dl_committer_position WHERE lake_id = ?", [self._lake_id])
                if rows != [(epoch,)]:
                    raise TxnLogFencedError(f"another committer took over from epoch {epoch}: nothing was placed")
                _BEGUN.reached()
                for one in placed:
                    self._go_on()
                    place(database, [one])
                # Whatever was sent is done, and not only under way.
                database.query("SELECT 1")
                _PLACED.reached()
                self._block = block.pop_all()

        return self._start(work)

    def write(self, cursor: Cursor, batch: Batch, new: Cursor) -> None:
        """As `SqlCommitStore.write`, in the transaction that `place` has left open."""
        block, self._block = self._block, None
        if block is None or self._database is None:
            raise TxnLogDatabaseError("no rows are placed that a batch could be written with")
        with block:
            write_batch(self._database, Partitions(), self._lake_id, cursor, batch, new)

    def clear(self, txn_id: str) -> Future[None]:
        """Delete what is staged of a decided transaction, chunk by chunk."""

        def work() -> None:
            database = self._connected()
            chunks = database.query(
                "SELECT c.chunk_index, c.parts FROM dl_staged_chunks c WHERE c.txn_id = ?", [txn_id]
            )
            for chunk_index, parts in chunks:
                self._go_on()
                works = () if parts is None else msgspec.json.decode(parts, type=tuple[ChunkPart, ...])
                with database.transaction():
                    database.submit(
                        "DELETE FROM dl_staged_files WHERE txn_id = ? AND work = ANY(?) AND kind = ANY(?) "
                        "AND chunk_index = ?",
                        [txn_id, [work_number(part.key) for part in works], ["add", "remove"], chunk_index],
                    )
                    database.submit(
                        "DELETE FROM dl_staged_chunks WHERE txn_id = ? AND chunk_index = ?", [txn_id, chunk_index]
                    )
                _CLEARED.reached()

        return self._start(work)

    def stop(self) -> None:
        """End what is under way, and roll back what was placed. When this returns nobody has to wait for it any more."""
        doing, self._doing = self._doing, None
        self._stopped.set()
        while doing is not None and not doing.done():
            if self._database is not None:
                self._database.cancel()
            wait_for([doing], _CANCEL_SECONDS)
        block, self._block = self._block, None
        if block is not None:
            _GIVEN_UP.reached()
            self._roll_back(block)

    def close(self) -> None:
        """Stop, and close the connection. Idempotent."""
        self.stop()
        self._thread.shutdown()
        if self._database is not None:
            self._database.close()

    def _start(self, work: Callable[[], _T]) -> Future[_T]:
        self._stopped.clear()
        doing = self._thread.submit(work)
        self._doing = doing  # type: ignore[assignment]
        return doing

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise TxnLogDatabaseError("stopped: somebody else comes first", transient=True)

    def _connected(self) -> Database:
        if self._database is not None and not self._database.alive:
            self._database.close()
            self._database = None
        if self._database is None:
            self._database = self._open()
            self._database.query("SELECT set_config('application_name', ?, false)", [_name(self._lake_id)])
        return self._database

    def _roll_back(self, block: ExitStack) -> None:
        """A transaction ends so where its block is left by an error, which is not raised anew."""
        error = TxnLogDatabaseError("stopped", transient=True)
        block.__exit__(type(error), error, None)


def end_asides(database: Database, lake_id: str) -> None:
    """End the connection that a committer before this one has left: its rows would be waited for."""
    database.query(_END, [_name(lake_id)])


def _name(lake_id: str) -> str:
    """By which such a connection is known to the server, within 63 bytes."""
    return f"deltalakedb aside {lake_id}"
