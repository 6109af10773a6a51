"""Opens and makes lakes: settings to store, log and leadership. The committer's composition root."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from deltalakedb.catalog import Catalog
from deltalakedb.codec import encode
from deltalakedb.database import open_database
from deltalakedb.database.schema import migrate, pending
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb.events import Control, SetRules
from deltalakedb.ids import new_txn_id
from deltalakedb.lake_log import open_lake_log, verify_stream
from deltalakedb.settings import Settings

from .leadership import Heartbeat, Leadership, LockFile
from .storing.aside import Aside
from .storing.store import SqlCommitStore

OBJECT_STORE = "s3://"
RULES_ON_OBJECT_STORES = 7
"""A version there is a request that takes tens of milliseconds, so appends of 200 ms share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What `make_lake` found and did."""

    lake_id: str
    root: str
    log_address: str
    migrations: tuple[str, ...]
    """Migrations applied by this call."""


def make_lake(settings: Settings) -> Made:
    """Bring a lake up to this release: SQL schema, streams of the log, the lake's own rows. Safe to repeat.

    Raises `TxnLogConfigError` if the log or root is not given for a new lake, or is another one than an existing
    lake remembers; `TxnLogHaltedError` if the log's streams have settings that correctness cannot rest on, or an
    existing lake's are gone.
    """
    if settings.directory is not None:
        try:
            settings.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TxnLogConfigError(
                f"the directory {settings.directory} cannot be made: {error.strerror}. Name one that this user may make"
            ) from error
    database = open_database(settings.address, create=True)
    try:
        applied = migrate(database)
        store = SqlCommitStore(database)
        known = store.remembered()
        address = settings.log_address or (known.log_address if known else None)
        root = settings.root_uri or (known.root if known else None)
        if address is None or root is None:
            raise TxnLogConfigError(
                "a new lake needs an event log and a root for its tables: give --log (DELTALAKEDB_LOG, "
                "kafka://host:9092/prefix) and --root (DELTALAKEDB_ROOT, s3://bucket/prefix or a directory)"
            )
        if known is None:
            log = open_event_log(address, options=settings.log_settings, client_id=holder(settings))
        else:
            log = open_lake_log(settings, known.log_address, client_id=holder(settings))
        try:
            if known is not None:
                # What would be made in the place of the lake's log is another one, in which nothing is that it has read.
                verify_stream(log, Catalog(database).stream_identity())
            log.create()
            log.verify()
            lake_id = store.init_lake(
                lake_id=known.lake_id if known else str(uuid.uuid4()),
                root=root,
                log_address=log.address,
                stream_identity=log.identity(Stream.STAGED),
                position=log.beginning(Stream.STAGED),
                fence=settings.fence,
                created_ms=int(time.time() * 1000),
            )
            if lock_file(settings) is None and root.startswith(OBJECT_STORE):
                _begin_with(RULES_ON_OBJECT_STORES, log, lake_id, holder(settings))
        finally:
            log.close()
        return Made(lake_id=lake_id, root=root, log_address=log.address, migrations=tuple(applied))
    finally:
        database.close()


def _begin_with(rule_set: int, log: EventLog, lake_id: str, client_id: str) -> None:
    """Have the lake's log begin with a rule set: on the log, because a replay starts from nothing else."""
    if log.end(Stream.STAGED) == log.beginning(Stream.STAGED):
        event = Control(
            control_id=new_txn_id(), lake_id=lake_id, client_id=client_id, command=SetRules(rule_set=rule_set)
        )
        log.append(Stream.STAGED, [Message(encode(event))]).result()


def is_made(settings: Settings) -> bool:
    """Whether the lake is there and needs nothing of `make_lake`. For lakes whose store is a file."""
    if not Path(settings.address.path or "").exists():
        return False
    database = open_database(settings.address)
    try:
        return not pending(database) and SqlCommitStore(database).remembered() is not None
    finally:
        database.close()


def open_store(settings: Settings) -> SqlCommitStore:
    """A store on a connection of its own, checked for what durability rests on."""
    store = SqlCommitStore(open_database(settings.address, by_key=True))
    try:
        store.verify()
    except BaseException:
        store.close()
        raise
    return store


def open_aside(settings: Settings) -> Aside | None:
    """A second connection for what takes long; None where a store has one writer at a time."""
    if settings.address.engine != "postgres":
        return None
    store = open_store(settings)
    try:
        lake_id = store.lake().lake_id
    finally:
        store.close()
    return Aside(lambda: open_database(settings.address, by_key=True), lake_id)


def open_log(settings: Settings) -> EventLog:
    """The lake's log, as the store remembers it; another one in the settings is refused."""
    store = open_store(settings)
    try:
        known = store.remembered()
    finally:
        store.close()
    if known is None:
        raise TxnLogConfigError("the store holds no lake yet: run `deltalakedb migrate` first")
    return open_lake_log(settings, known.log_address, client_id=holder(settings))


def lock_file(settings: Settings) -> LockFile | None:
    """The lock file of a lake whose store is a file; None for others."""
    if settings.address.path is None:
        return None
    return LockFile(Path(f"{settings.address.path}.lock"))


def leadership(settings: Settings, log: EventLog, *, takeover_after: float) -> Leadership:
    """How a service gets the right to step on this lake."""
    return lock_file(settings) or Heartbeat(lambda: open_store(settings), log, takeover_after=takeover_after)


def holder(settings: Settings) -> str:
    """Who this process is, in the heartbeat row and at the broker."""
    return settings.client_id or f"{socket.gethostname()}-{os.getpid()}"
