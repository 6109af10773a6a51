"""A lake as users hold it: begins transactions, reads snapshots, settles unknown outcomes, waits for the mirror."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from . import controls
from .errors import TxnLogConfigError, TxnLogValidationError
from .events import AppTransaction, LakeAction, Outcome
from .ids import is_txn_id
from .results import Result
from .session import Session
from .settings import Settings
from .snapshot import Snapshot, TableSnapshot
from .syncing import wait_for_mirror
from .transaction import Transaction, Wait, metadata_text
from .undoing import undo

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa

    from .delta_types import StructType
    from .importing import ImportReport, Watch

App = tuple[str, int]
"""An application's id and its own transaction number."""


class Lake:
    """A connection to one lake. Thread-safe; picklable (as its settings); connects anew in a forked process.

    Reads outside a transaction (`table`, `snapshot`) are consistent but not protected: nothing keeps others from
    changing what was read before it is used. Read through `tx.table()` where that matters.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed = False
        self._lock = threading.Lock()
        self._open: Session | None = None
        _lakes.add(self)

    @property
    def settings(self) -> Settings:
        """What it was opened with."""
        return self._settings

    @property
    def lake_id(self) -> str:
        """The lake's own id."""
        return self._open_session().lake.lake_id

    @property
    def root(self) -> str:
        """Root URI under which new tables are made."""
        return self._open_session().lake.root

    def connected(self) -> Self:
        """Connect now rather than at first use, so that now is said what is wrong."""
        self._open_session()
        return self

    # Transactions.

    def begin(
        self,
        *,
        app: App | Iterable[App] | None = None,
        user_metadata: str | Mapping[str, Any] | None = None,
        isolation: str | None = None,
        wait: Wait | None = None,
        timeout: float | None = None,
    ) -> Transaction:
        """Begin a transaction over any tables of the lake. Costs nothing until it is used.

        `app` names application transactions that this one stands for, (id, number): a number that is committed already
        gives the first result again and changes nothing. `user_metadata` is kept in the history of every table.
        `isolation` asks for at least that level (Serializable, WriteSerializable, SnapshotIsolation). `wait` and
        `timeout` (seconds) are the defaults of `commit`.
        """
        settings = self._settings
        return Transaction(
            self,
            self._open_session(),
            apps=_apps(app),
            user_metadata=user_metadata,
            isolation=isolation,
            wait=settings.wait if wait is None else wait,
            timeout=settings.timeout if timeout is None else timeout,
        )

    def append(
        self, name: str, data: Any, *, partition_by: Sequence[str] | str | None = None, **options: Any
    ) -> Result:
        """Append rows to one table in a transaction of its own; `options` as of `begin`."""
        with self.begin(**options) as tx:
            tx.stage_table(name, data, partition_by=partition_by)
        return tx.result

    def create_table(
        self,
        name: str,
        schema: pa.Schema | StructType,
        *,
        partition_by: Sequence[str] | str = (),
        properties: Mapping[str, str] | None = None,
        location: str | None = None,
        description: str | None = None,
        if_absent: bool = True,
    ) -> TableSnapshot:
        """Create one table in a transaction of its own, as `Transaction.create_table`."""
        with self.begin() as tx:
            tx.create_table(
                name,
                schema,
                partition_by=partition_by,
                properties=properties,
                location=location,
                description=description,
                if_absent=if_absent,
            )
        return self.table(name)

    # Tables of others.

    def import_table(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        up_to_version: int | None = None,
        allow_roots: Sequence[str] = (),
        force: bool = False,
        cutover: bool = True,
        dry_run: bool = False,
        grace: float = 5.0,
        watch: Watch | None = None,
    ) -> ImportReport:
        """Bring the Delta table at `source` (a directory, `file:///...` or `s3://...`) into the lake with its history, and
        take it over: from then on it is written through the lake only. Its files stay where they are.

        `cutover=False`, and `up_to_version=`, stop before that: the table stands in the lake read-only, and nothing is
        written at its source. `dry_run` only says what would happen. Files outside of the table's folder need
        `allow_roots`. `force` passes over checksum files that disagree with the log, and over another lake's writer
        fence. `grace` is how many seconds the version that takes the table over has to stand. `watch` is called with
        the progress.

        Safe to repeat: an import that was ended by anything goes on where it stopped. Raises `TxnLogDeltaLogError` for a
        log that cannot be read and `TxnLogImportError` for what stands against importing it, both before anything is
        published and naming version and file; later what committing raises.
        """
        from .importing import import_table

        return import_table(
            self._open_session(),
            name,
            os.fspath(source),
            up_to_version=up_to_version,
            allow_roots=allow_roots,
            force=force,
            cutover=cutover,
            dry_run=dry_run,
            grace=grace,
            watch=watch or (lambda progress: None),
        )

    def outcome(self, txn_id: str) -> Outcome | None:
        """The decision about a transaction, from any process, however long ago; None while there is none.

        None may also mean that it never reached the log: `cancel` settles it. Raises `TxnLogValidationError` for what is
        no transaction's id.
        """
        _check_id(txn_id)
        session = self._open_session()
        session.catch_up()
        with session.catalog() as catalog:
            return catalog.outcome(txn_id)

    def cancel(self, txn_id: str, *, timeout: float | None = None) -> Outcome:
        """Settle a transaction: one that is undecided becomes rejected for ever, of any other the decision is told.

        Raises `TxnLogOutcomeUnknownError` if no answer came in time: ask again.
        """
        _check_id(txn_id)
        return controls.cancel(self._open_session(), txn_id, self._settings.timeout if timeout is None else timeout)

    def undo(
        self, txn_id: str, *, user_metadata: str | Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Result:
        """Undo a committed transaction by another one, over all its tables: what it added goes, what it removed comes
        back. History keeps both. Application versions stay taken: the same work again needs a new one.

        Raises `TxnLogUndoError` if something later stands on it, naming what, or it did what has no inverse (created a
        table, changed a schema); `TxnLogValidationError` if it was not committed; else as `Transaction.commit`.
        """
        return undo(
            self._open_session(),
            txn_id,
            user_metadata=metadata_text(user_metadata),
            timeout=self._settings.timeout if timeout is None else timeout,
        )

    # Changing the lake.

    def release(self, table: str, *, timeout: float | None = None) -> Result:
        """Give a table back: a last version lets other writers in again, and from then on it is only read here.

        Nothing happens if it is released already. Raises `TxnLogTableNotFoundError` if there is no such table,
        `TxnLogRejectedError` if it is still being imported, `TxnLogOutcomeUnknownError` if no answer came in time: ask
        again.
        """
        return self.act("release", table=table, timeout=timeout)

    def act(
        self,
        action: str,
        *,
        table: str | None = None,
        target: str | None = None,
        timeout: float | None = None,
        **parameters: str,
    ) -> Result:
        """Change the lake itself: `release` or `drop` a `table`; `target-add` a mirror `target` (`kind`, `root`),
        `target-pause`, `target-resume`, `target-remove` it. What is so already changes nothing. Raises as `release`.
        """
        command = LakeAction(action=action, table=table, target=target, parameters=parameters)
        return controls.act(self._open_session(), command, self._settings.timeout if timeout is None else timeout)

    # Reading.

    def tables(self) -> list[str]:
        """Names of all tables, in order."""
        session = self._open_session()
        session.catch_up()
        with session.catalog() as catalog:
            return [info.name for info in catalog.tables()]

    def has_table(self, name: str) -> bool:
        """Whether there is a table of that name."""
        session = self._open_session()
        session.catch_up()
        return session.known(name, fresh=True) is not None

    def table(self, name: str, *, version: int | None = None, timestamp: datetime | None = None) -> TableSnapshot:
        """One table, as it is now or was at a version or time. Raises `TxnLogTableNotFoundError` if there is none of
        that name, `TxnLogValidationError`, naming what there is, for a version or time that it does not have."""
        session = self._open_session()
        session.catch_up()
        with session.catalog() as catalog:
            info = catalog.table(name, version=version, timestamp_ms=_milliseconds(timestamp))
        return TableSnapshot(session, info)

    def version(self, name: str) -> int:
        """The newest version of a table."""
        return self.table(name).version

    def snapshot(self, *, commit_seq: int | None = None, timestamp: datetime | None = None) -> Snapshot:
        """All tables at one commit: the newest, the one of that number, or the newest not after that (aware) time.

        A table is there from the commit on that made or adopted it. One that is still being imported has none; it is in
        the newest snapshot only, at the version that its import has reached.

        Raises `TxnLogValidationError`, naming what there is, for a commit or time outside the lake's history.
        """
        if commit_seq is not None and timestamp is not None:
            raise TxnLogValidationError("snapshot() takes either commit_seq= or timestamp=")
        session = self._open_session()
        session.catch_up()
        with session.catalog() as catalog:
            at = catalog.commit(commit_seq=commit_seq, timestamp_ms=_milliseconds(timestamp))
            importing = catalog.importing() if commit_seq is None and timestamp is None else {}
        return Snapshot(session, at.commit_seq, at.time_ms, importing)

    def sync(
        self,
        tables: Sequence[str] | str | None = None,
        *,
        targets: Sequence[str] | str | None = None,
        timeout: float = 30,
    ) -> None:
        """Wait until readers by path see what is committed now, of `tables` (all) on mirror `targets` (all active).

        Raises `TxnLogTableFencedError` at once if a table is fenced, `TxnLogTimeoutError` saying what is missing.
        """
        names = [tables] if isinstance(tables, str) else tables
        places = [targets] if isinstance(targets, str) else targets
        wait_for_mirror(self._open_session(), names, places, timeout)

    # Life.

    def close(self) -> None:
        """Free connections and threads. Outcomes that are still awaited become unknown. Idempotent."""
        with self._lock:
            self._closed = True
            session, self._open = self._open, None
        if session is not None:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Lake], tuple[Settings]]:
        return (Lake, (self._settings,))

    def __repr__(self) -> str:
        where = self._settings.directory or self._settings.address
        return f"<Lake {where}{', closed' if self._closed else ''}>"

    def _open_session(self) -> Session:
        session = self._open
        if session is None:
            with self._lock:
                if self._closed:
                    raise TxnLogConfigError(f"{self!r}: connect again")
                session = self._open = self._open or Session(self._settings)
        return session

    def _forked(self) -> None:
        """In a forked child: the connections are the parent's, and so may be the lock."""
        if self._open is not None:
            _inherited.append(self._open)
        self._open = None
        self._lock = threading.Lock()


def _apps(given: App | Iterable[App] | None) -> list[AppTransaction]:
    if given is None:
        return []
    apps = [given] if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str) else list(given)
    found = []
    for app in apps:
        if not (isinstance(app, tuple) and len(app) == 2 and isinstance(app[0], str) and type(app[1]) is int):
            raise TxnLogValidationError(f"app= is (application id, number) or a list of such pairs, not {app!r}")
        found.append(AppTransaction(*app))
    return found


def _check_id(txn_id: str) -> None:
    if not is_txn_id(txn_id):
        raise TxnLogValidationError(f"{txn_id!r} is not a transaction id: a UUID in lower case")


def _milliseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise TxnLogValidationError(f"timestamp={moment!r} has no time zone: give an aware one")
    return int(moment.timestamp() * 1000)


_lakes: weakref.WeakSet[Lake] = weakref.WeakSet()
_inherited: list[Session] = []
"""Sessions of a parent process. Kept for ever: collecting one here would end its connections there."""


def _after_fork() -> None:
    for lake in list(_lakes):
        lake._forked()


os.register_at_fork(after_in_child=_after_fork)
