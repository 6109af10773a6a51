"""A lake whose store stands on a real log: made, its log written by hand, and decided by a committer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deltalakedb.codec import encode, encode_chunk
from deltalakedb.database import Database
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb.events import StagedTransaction
from deltalakedb_committer.deciding.needs import Isolated, StagedEvent, Undecodable, Unread
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.model_lake import LAKE_ID, ROOT, START_MS


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """An empty log in a file."""
    log = open_event_log(f"sqlite://{tmp_path / 'log.db'}")
    log.create()
    yield log
    log.close()


def made(database: Database, log: EventLog) -> SqlCommitStore:
    """The store of a lake that is made in `database` and begins where `log` does."""
    store = SqlCommitStore(database)
    store.init_lake(
        lake_id=LAKE_ID,
        root=ROOT,
        log_address=log.address,
        stream_identity=log.identity(Stream.STAGED),
        position=log.beginning(Stream.STAGED),
        fence=True,
        created_ms=START_MS,
    )
    return store


def publish(log: EventLog, *events: StagedEvent) -> None:
    """Append all of them in one go, so that their times lie close together."""
    log.append(Stream.STAGED, [_message(event) for event in events]).result()


def commit_all(store: SqlCommitStore, log: EventLog, limit: int) -> None:
    """Decide what is on the log, in batches of about `limit` records."""
    with Committer(store, log, holder="test") as committer:
        while committer.step(limit, 0.0):
            pass


def _message(event: StagedEvent) -> Message:
    assert not isinstance(event, Undecodable | Isolated | Unread)
    if isinstance(event, StagedTransaction):
        return Message(encode_chunk(event.envelope, event.content_bytes))
    return Message(encode(event))
