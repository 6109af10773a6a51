"""What a lake object holds open in one process: connections, caches, the thread that waits for outcomes."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from typing import Final

from .catalog import IN_PLACE, Catalog, LakeInfo, TableInfo
from .database import Pool, open_database
from .database.schema import verify_schema
from .delta_types import StructType, parse_schema
from .embedded import CommitterStepper, MirrorStepper, open_committer, open_mirror
from .errors import TxnLogConfigError, TxnLogError
from .eventlog import EventLog
from .events import Content, Outcome
from .lake_log import open_lake_log, verify_stream
from .objectstore import ObjectStore, open_object_store
from .objectstore.identity import claim_root, foreign_log, log_object
from .outcomes import Answer, Lookup, Outcomes
from .pacing import send_ahead
from .parquet import DataFileStores, Flusher, TableShape
from .publishing import Publication, Sender, publication
from .settings import Settings
from .window import Window

logger = logging.getLogger(__name__)

STEP_EVENTS: Final = 500
"""Records that a step of the embedded committer decides at most."""
_CATCH_UP_SECONDS: Final = 10.0


class KnownTable:
    """A table as it was when SQL was last asked: enough to write files for it and to say what they were written for."""

    __slots__ = ("info", "schema", "shape")

    def __init__(self, info: TableInfo) -> None:
        self.info = info
        self.schema: StructType = parse_schema(info.metadata.schema_string)
        self.shape = TableShape(self.schema, info.metadata.partition_columns, info.metadata.configuration)


class Session:
    """Everything open. Thread-safe; belongs to the process that made it."""

    def __init__(self, settings: Settings) -> None:
        self._closed = True  # until there is something to close
        self.process = os.getpid()
        self.settings = settings
        self.engine_info = f"deltalakedb/{version('deltalakedb')}"
        self.client_id = settings.client_id or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.storage = settings.storage
        self.files = DataFileStores(self.storage)
        self.flusher = Flusher()
        self.window = Window(settings.window)
        self._lock = threading.Lock()
        self._tables: dict[str, KnownTable] = {}
        self._claimed: set[str] = set()
        self._log: EventLog | None = None
        self._outcomes: Outcomes | None = None
        self._mirrors: dict[str, MirrorStepper] = {}
        self.committer = _committer(settings)
        self.pool = Pool(lambda: open_database(settings.address))
        self._closed = False
        try:
            self.lake = self._verified()
            self.catch_up()
        except BaseException:
            self.close()
            raise
        _open_sessions.add(self)

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """A catalog over a connection of the pool."""
        with self.pool.connection() as database:
            yield Catalog(database)

    @contextmanager
    def snapshot(self) -> Iterator[Catalog]:
        """A catalog whose every answer is about the same state."""
        with self.pool.connection() as database, database.snapshot():
            yield Catalog(database)

    def known(self, name: str, *, fresh: bool = False) -> KnownTable | None:
        """The table of that name, remembered or (`fresh`, or never asked before) asked of SQL; None if there is none.

        What is remembered may be outdated: it says by id and versions what it knows, and the committer judges that.
        """
        found = None if fresh else self._tables.get(name)
        if found is not None:
            return found
        with self.catalog() as catalog:
            info = catalog.find(name)
        if info is None:
            self._tables.pop(name, None)
            return None
        before = self._tables.get(name)
        if before is not None and (
            before.info.table_id,
            before.info.metadata_version,
            before.info.protocol_version,
        ) == (
            info.table_id,
            info.metadata_version,
            info.protocol_version,
        ):
            return before
        found = self._tables[name] = KnownTable(info)
        return found

    def forget(self, name: str) -> None:
        """Ask SQL about a table the next time."""
        self._tables.pop(name, None)

    @property
    def outcomes(self) -> Outcomes:
        """The asker. The first use connects to the log."""
        with self._lock:
            if self._closed:
                raise TxnLogConfigError("this lake object is closed; connect again")
            if self._outcomes is None:
                self._log = self._log or self._open_log()
                deciding = None if self.committer is None else _Embedded(self)
                self._outcomes = Outcomes(self._log, _lookup(self), client_id=self.client_id, deciding=deciding)
            return self._outcomes

    @cached_property
    def sender(self) -> Sender:
        """Who we are in events. The first use connects to the log."""
        return Sender(
            lake_id=self.lake.lake_id,
            root=self.lake.root,
            client_id=self.client_id,
            outcome_partition=self.outcomes.partition,
        )

    def publication(self, txn_id: str, content: Content) -> Publication:
        """A transaction as this session publishes it. Raises what `publishing.publication` raises."""
        return publication(txn_id, content, self.sender)

    def publish(self, whole: Publication, timeout: float, answered: Callable[[Answer], None]) -> None:
        """Publish a transaction and get its decision, as `Outcomes.publish`.

        All of a big one but its last chunk is sent before this returns, as fast as the committer takes it. Raises what
        that and `send_ahead` raise: then it is not decided, nor will be.
        """
        if not whole.is_big:
            self.outcomes.publish(whole.txn_id, list(whole.messages()), timeout, answered)
            return
        messages = whole.messages()
        send_ahead(
            islice(messages, whole.count - 1),
            lambda message: self.outcomes.stage([message]),
            self._position,
            patience=timeout,
        )
        self.outcomes.publish(whole.txn_id, list(messages), timeout, answered)

    def _position(self) -> int:
        """Up to which record the committer has come, which on an embedded lake is for us to see to."""
        self.catch_up()
        with self.catalog() as catalog:
            return catalog.position()

    def catch_up(self) -> None:
        """On an embedded lake, decide what the log has before SQL is asked; elsewhere a service does."""
        if self.committer is None:
            return
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while self.committer.try_step(STEP_EVENTS) and time.monotonic() < deadline:
            pass

    def mirror(self, target: str = IN_PLACE) -> MirrorStepper | None:
        """The mirror of a target to run in this process; None where a service does it, or the settings say so."""
        if self.committer is None or self.settings.mirror == "off":
            return None
        with self._lock:
            if target not in self._mirrors and not self._closed:
                self._mirrors[target] = open_mirror(self.settings, target)
            return self._mirrors.get(target)

    def check_new_location(self, name: str, location: str) -> bool:
        """Before a create is published: the root is this lake's, and nobody's `_delta_log` is where the table goes.

        False if the table was made by somebody else a moment ago. Raises `TxnLogMirrorError` saying what is in the way.
        """
        root = self.lake.root
        store: ObjectStore = open_object_store(root, self.storage.values)
        if root not in self._claimed:
            claim_root(store, self.lake.lake_id)
            self._claimed.add(root)
        if location.startswith(f"{root}/"):
            folder = location.removeprefix(f"{root}/")
        else:
            store, folder = open_object_store(location, self.storage.values), ""
        found = log_object(store, folder)
        if found is None:
            return True
        if self.known(name, fresh=True) is not None:
            return False
        raise foreign_log(store, found, name)

    def close(self) -> None:
        """Free everything. Idempotent."""
        with self._lock:
            if self._closed:
                return
        self.flusher.close()  # what it has is still published
        with self._lock:
            self._closed = True
        for part in (self._outcomes, self._log, self.committer, *self._mirrors.values()):
            if part is not None:
                part.close()
        self.pool.close()
        self.files.close()
        _open_sessions.discard(self)

    def _verified(self) -> LakeInfo:
        """The lake in the store. Raises `TxnLogConfigError` if there is none, or the settings name another one."""
        settings = self.settings
        with self.pool.connection() as database:
            verify_schema(database)
            found = Catalog(database).lake()
        if found is None:
            raise TxnLogConfigError(f"{settings.address} holds no lake yet: run `deltalakedb migrate` first")
        if settings.root_uri is not None and settings.root_uri.rstrip("/") != found.root.rstrip("/"):
            raise TxnLogConfigError(
                f"the settings name the root {settings.root_uri}, but this lake's is {found.root}: correct root "
                "(DELTALAKEDB_ROOT), or leave it out"
            )
        if settings.log_address is not None and settings.log_address != found.log_address:
            open_lake_log(settings, found.log_address, client_id=self.client_id).close()
        return found

    def _open_log(self) -> EventLog:
        log = open_lake_log(self.settings, self.lake.log_address, client_id=self.client_id)
        if self.committer is None:
            # A topic of that name may be anybody's: what is published to it would never be decided.
            try:
                with self.catalog() as catalog:
                    verify_stream(log, catalog.stream_identity())
            except BaseException:
                log.close()
                raise
        return log

    def __del__(self) -> None:
        # Nobody can use it any more; what a parent process opened is the parent's.
        if getattr(self, "process", None) == os.getpid():
            self.close()


def _committer(settings: Settings) -> CommitterStepper | None:
    """The committer to run in this process, for a store in a file. A directory becomes a lake by this, a URI does not."""
    path = settings.address.path
    if path is None:
        return None
    if settings.directory is None and not os.path.exists(path):
        raise TxnLogConfigError(f"there is no store at {path}: correct the path, or run `deltalakedb migrate` first")
    return open_committer(settings)


# The thread that waits for outcomes knows its session weakly: it must not keep alive what nobody else holds. Whoever
# waits for an answer does hold it.


def _lookup(session: Session) -> Lookup:
    """Asks the session's SQL for decisions."""
    known = weakref.ref(session)

    def lookup(txn_ids: Sequence[str]) -> dict[str, Outcome]:
        session = known()
        if session is None:
            return {}
        with session.catalog() as catalog:
            return catalog.outcomes(txn_ids)

    return lookup


class _Embedded:
    """How the outcomes of an embedded lake come about: by the thread that waits for them."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)

    def step(self) -> bool | None:
        session = self._session()
        if session is None or session.committer is None:
            return None
        decided = session.committer.try_step(STEP_EVENTS)
        return None if decided is None else decided > 0

    def mirror(self) -> None:
        session = self._session()
        try:
            mirror = None if session is None else session.mirror()
            while mirror is not None and mirror.try_step():
                pass
        except TxnLogError as error:
            logger.warning("what was committed is not mirrored yet, the next commit tries again: %s", error)


_open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _close_all() -> None:
    """At the end of the process: threads that still talk to the log or to SQL would be cut off in the middle."""
    for session in list(_open_sessions):
        if session.process == os.getpid():
            session.close()


atexit.register(_close_all)
