"""One transaction over many tables: staged in this process, published once, decided by the committer, all or nothing."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from .errors import (
    TxnLogError,
    TxnLogTimeoutError,
    TxnLogTransactionStateError,
    TxnLogValidationError,
)
from .events import AppTransaction, Content, Outcome
from .given_actions import actions_of
from .ids import is_table_name, new_txn_id
from .interrupting import TransactionFuture, name_transaction
from .outcomes import Answer
from .results import Result, rejection_of, result_of
from .staging import StagedTable, creation_of

if TYPE_CHECKING:
    import pyarrow as pa

    from .delta_types import StructType
    from .lake import Lake
    from .publishing import Publication
    from .reads import TransactionTable
    from .session import Session

logger = logging.getLogger(__name__)

Wait = Literal["committed", "mirrored"]
_WAITS: Final = ("committed", "mirrored")
_FEW: Final = 8
"""In flight, of which none waits for the files of another that may come."""
_LEVELS: Final = ("Serializable", "WriteSerializable", "SnapshotIsolation")


def metadata_text(given: str | Mapping[str, Any] | None) -> str | None:
    """User metadata as commitInfo keeps it: a text as it is, anything else as JSON."""
    return given if given is None or isinstance(given, str) else json.dumps(given)


class State(Enum):
    """Where a transaction is on its way. It goes it once."""

    ACTIVE = "active"
    PUBLISHED = "published, not answered yet"
    COMMITTED = "committed"
    REJECTED = "rejected"
    UNKNOWN = "outcome unknown"
    ROLLED_BACK = "rolled back"


class Transaction:
    """A transaction of a lake, made by `lake.begin()`. Used by one thread, usable once.

    As a context manager it commits when the block ends, and rolls back when the block raises: whatever it has written
    is deleted then. Nothing of it is visible to anybody before it is committed, and then all of it is.
    """

    def __init__(
        self,
        lake: Lake,
        session: Session,
        *,
        apps: Sequence[AppTransaction] = (),
        user_metadata: str | Mapping[str, Any] | None = None,
        isolation: str | None = None,
        wait: Wait = "committed",
        timeout: float = 60.0,
    ) -> None:
        if isolation is not None and isolation not in _LEVELS:
            raise TxnLogValidationError(f"isolation {isolation!r} is none of {', '.join(_LEVELS)}")
        _check_wait(wait)
        self._lake = lake
        self._session = session
        self._apps = tuple(apps)
        self._user_metadata = metadata_text(user_metadata)
        self._isolation = isolation
        self._wait = wait
        self._timeout = timeout
        self._owns_lake = False
        self._txn_id = new_txn_id()
        self._tables: dict[str, StagedTable] = {}
        self._commit_seq: int | None = None
        """The commit that all reads see, once something was read."""
        self._lock = threading.Lock()
        self._state = State.ACTIVE
        self._result: Result | None = None

    def owning_lake(self) -> Self:
        """This transaction, which closes its lake too when its `with` block ends."""
        self._owns_lake = True
        return self

    @property
    def txn_id(self) -> str:
        """The id under which it is decided, and under which `lake.outcome` and `lake.cancel` know it."""
        return self._txn_id

    @property
    def state(self) -> State:
        """Where it is on its way."""
        return self._state

    @property
    def result(self) -> Result:
        """What it has become. Raises `TxnLogTransactionStateError` unless it is committed."""
        if self._result is None:
            raise self._misused("has no result")
        return self._result

    def stage_table(
        self,
        name: str,
        data: Any = None,
        *,
        actions: Iterable[Any] | None = None,
        partition_by: Sequence[str] | str | None = None,
        mode: str = "append",
        schema: pa.Schema | StructType | None = None,
        properties: Mapping[str, str] | None = None,
        read_version: int | None = None,
    ) -> None:
        """Append rows to a table, or stage actions for it. May be called many times.

        `data` is anything that speaks the Arrow stream protocol: a pandas or polars DataFrame, a pyarrow Table or
        RecordBatchReader, a DuckDB relation. Its data files are written now; its columns are matched to the table's by
        name. A table that is not there is created from the data (or with `schema`), partitioned by `partition_by`,
        with `properties`.

        `actions` are ready-made Delta actions instead, values of `deltalakedb.actions` or dicts as in Delta's log; the
        files that they name are there already. `read_version` says which version they were prepared from.

        Raises `TxnLogSchemaError` if the rows do not fit, `TxnLogTableNotFoundError` for actions on a table that is not
        there, `TxnLogValidationError` for other wrong input, `TxnLogObjectStoreError` if files cannot be written. A
        call that raises has staged nothing.
        """
        self._check_active()
        if (data is None) == (actions is None):
            raise TxnLogValidationError("stage_table() takes either data or actions=")
        if mode != "append":
            raise TxnLogValidationError(f"mode={mode!r} is not available yet; rows can be appended (mode='append')")
        with _Staging(self, name) as staged:
            if actions is not None:
                staged.take(actions_of(actions), read_version)
            else:
                by = (partition_by,) if isinstance(partition_by, str) else partition_by
                staged.append(data, by, schema, properties or {})

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
    ) -> None:
        """Create a table with an Arrow or Delta schema.

        An equal table that is there is fine (unless `if_absent` is False), any other one gets the transaction rejected
        `TABLE_EXISTS`. `location` is a folder below the lake's root; left out it is `<root>/<name>`. Raises
        `TxnLogSchemaError`, `TxnLogValidationError` for what no table can be, `TxnLogMirrorError` if a foreign
        `_delta_log` is in its place.
        """
        from .arrow import delta_schema

        self._check_active()
        by = (partition_by,) if isinstance(partition_by, str) else partition_by
        wanted = delta_schema(schema)
        creation = creation_of(
            wanted, by, properties or {}, location=location, description=description, if_absent=if_absent
        )
        with _Staging(self, name) as staged:
            staged.create(wanted, creation)

    def table(self, name: str) -> TransactionTable:
        """A table as it is for this transaction: at the one commit that all its reads see, with its own staged rows.

        What is read through it is recorded, and the transaction is rejected if others have changed that meanwhile.
        Raises `TxnLogTableNotFoundError` if there is no such table.
        """
        from .reads import TransactionTable

        self._check_active()
        with _Staging(self, name) as staged:
            if staged.read is None and not staged.is_new:
                if self._commit_seq is None:
                    self._session.catch_up()
                with self._session.catalog() as catalog:
                    if self._commit_seq is None:
                        self._commit_seq = catalog.head().commit_seq
                    staged.read = catalog.table(name, commit_seq=self._commit_seq)
            return TransactionTable(self._session, staged, self._txn_id)

    def commit(self, *, wait: Wait | None = None, timeout: float | None = None) -> Result:
        """Publish the transaction and wait for the decision; with `wait="mirrored"` also until readers by path see it.

        Raises `TxnLogRejectedError` if it was decided against (`TxnLogConflictError` where another transaction came
        first): its files stay, for another try, until `rollback()`. Raises `TxnLogOutcomeUnknownError` if no answer
        came within `timeout` seconds: it may be committed, now or later.
        """
        _check_wait(self._wait if wait is None else wait)
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        try:
            result = self._commit(timeout, urgent=True).result()
        except BaseException as error:
            if self._state is not State.ACTIVE:
                name_transaction(error, self._txn_id)
            raise
        if (wait or self._wait) == "mirrored" and result.versions:
            try:
                self._lake.sync(list(result.versions), timeout=max(deadline - time.monotonic(), 1.0))
            except BaseException as error:
                error.add_note(
                    f"transaction {self._txn_id} is committed; what ended is only the waiting for its mirror"
                )
                raise
        return result

    def commit_async(self, *, timeout: float | None = None) -> Future[Result]:
        """Publish the transaction; the future gives what `commit` would return or raise.

        Waits only while too many transactions of the lake object are not answered yet (settings `window`) or much of what
        they wrote is not durable yet, and while a big one is sent, which takes as long as the committer takes for it: the
        timeout begins after it. What makes publishing impossible is raised, or given by the future if it shows only when
        the files are made durable: then nothing has happened, and the transaction is still active.
        """
        return self._commit(timeout, urgent=False)

    def _commit(self, timeout: float | None, *, urgent: bool) -> Future[Result]:
        with self._lock:
            self._check_active()
            self._state = State.PUBLISHED
        future: Future[Result] = TransactionFuture(self._txn_id)
        try:
            self._publish(future, self._timeout if timeout is None else timeout, urgent=urgent)
        except TxnLogError:
            self._state = State.ACTIVE
            raise
        except BaseException as error:
            # Interrupted somewhere in publishing: it may be on the log.
            self._state = State.UNKNOWN
            name_transaction(error, self._txn_id)
            raise
        return future

    def rollback(self) -> None:
        """Give the transaction up and delete the files that it wrote; also one that was rejected.

        Raises `TxnLogTransactionStateError` once it is published: then only `lake.cancel(txn_id)` can stop it.
        """
        with self._lock:
            if self._state is State.ROLLED_BACK:
                return
            if self._state not in (State.ACTIVE, State.REJECTED):
                raise self._misused("cannot be rolled back")
            self._state = State.ROLLED_BACK
        for staged in self._tables.values():
            staged.delete()

    def __enter__(self) -> Self:
        self._check_active()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._state is State.ACTIVE:
                self.commit()
        finally:
            if self._state is State.ACTIVE:
                # The block raised, or publishing was impossible: nobody has heard of it.
                self._rollback_quietly()
            if self._owns_lake and self._state is not State.PUBLISHED:
                self._lake.close()

    def __repr__(self) -> str:
        return f"<Transaction {self._txn_id}, {self._state.value}, tables: {', '.join(self._tables) or 'none'}>"

    def _publish(self, future: Future[Result], seconds: float, *, urgent: bool) -> None:
        session = self._session
        works = tuple(staged.work() for staged in self._tables.values())
        if not self._apps and not any(work.changes for work in works):
            self._settle_unpublished(future)
            return
        deadline = time.monotonic() + seconds
        content = Content(
            tables=works,
            isolation=self._isolation,
            apps=self._apps,
            user_metadata=self._user_metadata,
            engine_info=session.engine_info,
        )
        whole = session.publication(self._txn_id, content)
        if not session.window.acquire(seconds):
            raise TxnLogTimeoutError(
                f"{session.window.limit} transactions of this lake object are not answered yet (settings window, fewer "
                f"while the committer lags), and none was in {seconds:g} s; this one was not published"
            )
        files = [staged.files for staged in self._tables.values() if staged.files is not None]
        size = sum(staged.size for staged in self._tables.values())
        try:
            if whole.is_big:
                # It takes its time: others are flushed meanwhile.
                durable: Future[None] = Future()
                session.flusher.flush(files, size, lambda error: _done(durable, error), urgent=True)
                durable.result()
            elif files or not session.flusher.idle:
                urgent = urgent or session.window.in_flight <= _FEW
                session.flusher.flush(
                    files, size, lambda error: self._flushed(error, whole, deadline, future), urgent=urgent
                )
                return
            self._ask(whole, deadline, future)
        except BaseException:
            session.window.release()
            raise

    def _flushed(self, error: Exception | None, whole: Publication, deadline: float, future: Future[Result]) -> None:
        """Its files are durable, or there was an `error`."""
        failed: BaseException | None = error
        if failed is None:
            try:
                self._ask(whole, deadline, future)
            except BaseException as raised:
                failed = raised
        if failed is not None:
            self._session.window.release()
            self._state = State.ACTIVE if isinstance(failed, TxnLogError) else State.UNKNOWN
            future.set_exception(failed)

    def _ask(self, whole: Publication, deadline: float, future: Future[Result]) -> None:
        self._session.publish(whole, max(deadline - time.monotonic(), 0.0), partial(self._settle, future))

    def _settle(self, future: Future[Result], outcome: Answer) -> None:
        if not isinstance(outcome, Outcome):
            self._session.window.release()
            self._state = State.UNKNOWN
            future.set_exception(outcome)
            return
        self._session.window.release(outcome.lag_ms)
        if outcome.committed is None:
            for name in self._tables:
                self._session.forget(name)  # what was remembered of it may be why
            self._state = State.REJECTED
            future.set_exception(rejection_of(self._txn_id, outcome))
            return
        self._result = result_of(self._txn_id, outcome.committed)
        self._state = State.COMMITTED
        future.set_result(self._result)

    def _settle_unpublished(self, future: Future[Result]) -> None:
        """Nothing was changed: reads at one commit need nobody's consent."""
        with self._session.catalog() as catalog:
            at = catalog.commit(commit_seq=self._commit_seq)
        timestamp = datetime.fromtimestamp(at.time_ms / 1000, UTC)
        self._result = Result(txn_id=self._txn_id, commit_seq=at.commit_seq, timestamp=timestamp, versions={})
        self._state = State.COMMITTED
        future.set_result(self._result)

    def _check_active(self) -> None:
        if self._state is not State.ACTIVE:
            raise self._misused("cannot be used any more; begin a new one")

    def _misused(self, what: str) -> TxnLogTransactionStateError:
        message = f"transaction {self._txn_id} ({self._state.value}) {what}"
        return TxnLogTransactionStateError(message, txn_id=self._txn_id)

    def _rollback_quietly(self) -> None:
        """Roll back without hiding the error that is on its way."""
        try:
            self.rollback()
        except TxnLogError:
            logger.warning("transaction %s left files behind", self._txn_id, exc_info=True)


def _check_wait(wait: str) -> None:
    if wait not in _WAITS:
        raise TxnLogValidationError(f"wait {wait!r} is none of {', '.join(_WAITS)}")


def _done(durable: Future[None], error: Exception | None) -> None:
    if error is None:
        durable.set_result(None)
    else:
        durable.set_exception(error)


class _Staging:
    """A table of a transaction for the time of one call; one that is new to it and for which the call fails is not
    part of it."""

    def __init__(self, transaction: Transaction, name: str) -> None:
        self._transaction = transaction
        self._name = name

    def __enter__(self) -> StagedTable:
        tables, session = self._transaction._tables, self._transaction._session
        self._is_new = self._name not in tables
        if self._is_new:
            if not is_table_name(self._name):
                raise TxnLogValidationError(
                    f"{self._name!r} is not a table name: [namespace.]name of ASCII letters, digits, _ and -"
                )
            limit = session.settings.max_tables
            if len(tables) >= limit:
                raise TxnLogValidationError(
                    f"a transaction has {limit} tables at most (settings max_tables, DELTALAKEDB_MAX_TABLES); this one "
                    f"has {', '.join(tables)} already"
                )
            tables[self._name] = StagedTable(session, self._name, self._transaction.txn_id)
        return tables[self._name]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._is_new:
            del self._transaction._tables[self._name]
