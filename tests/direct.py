"""A committer without a log: events are handed to it, decided by the real rules and written through a store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deltalakedb.actions import AddFile
from deltalakedb.codec import content_digest, encode_content
from deltalakedb.database import Database
from deltalakedb.events import Committed, Content, CreateTable, Envelope, StagedTransaction, TableWork
from deltalakedb_committer.deciding.decide import advance, decide
from deltalakedb_committer.deciding.decisions import Commit, Decision
from deltalakedb_committer.deciding.needs import Needs, StagedEvent, add_needs
from deltalakedb_committer.deciding.rules import rules
from deltalakedb_committer.deciding.state import State
from deltalakedb_committer.storing.rows import Batch, add_decision, seal
from deltalakedb_committer.storing.store import Cursor, SqlCommitStore
from tests.model_lake import told_by

LAKE_ID = "0190b5a0-0000-7000-8000-000000000001"
ROOT = "file:///lake/tables"
LOG = "sqlite:///lake/log.db"
START_MS = 1_700_000_000_000
"""Append time of the record at position 0; each next one comes a millisecond later."""

SCHEMA = (
    '{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}},'
    '{"name":"text","type":"string","nullable":true,"metadata":{}},'
    '{"name":"day","type":"string","nullable":true,"metadata":{}}]}'
)


class DirectCommitter:
    """One epoch of a lake's committer."""

    def __init__(self, store: SqlCommitStore) -> None:
        self.store = store
        self.cursor: Cursor = store.take_over("test")
        self.state: State = load_state(store, self.cursor)

    def prepare(self, events: Sequence[StagedEvent]) -> tuple[Batch, Cursor, list[Decision]]:
        """Decide events in order; what a write would need. The state has moved on."""
        needs = Needs()
        for event in events:
            add_needs(needs, event)
        self.store.load(needs, self.state)
        batch = Batch()
        decisions = []
        for position, event in enumerate(events, self.cursor.position):
            decision = decide(self.state, event, position=position, time_ms=START_MS + position)
            advance(self.state, decision)
            add_decision(batch, decision)
            decisions.append(decision)
        seal(batch)
        cursor = replace(
            self.cursor,
            position=self.cursor.position + len(events),
            last_event_hash=b"h" * 32,
            commit_seq=self.state.commit_seq,
            time_ms=self.state.time_ms,
            next_table_no=self.state.next_table_no,
        )
        self.state.forget()
        return batch, cursor, decisions

    def apply(self, events: Sequence[StagedEvent], *, published: int | None = None) -> list[Decision]:
        """Decide events and write them as one batch; `published` moves the outbox's mark."""
        batch, cursor, decisions = self.prepare(events)
        if published is not None:
            cursor = replace(cursor, published_position=published)
        self.store.write(self.cursor, batch, cursor)
        self.cursor = cursor
        return decisions

    def commit(self, *tables: TableWork, **content: Any) -> Committed:
        """One transaction as one batch; a rejection fails the test."""
        (decision,) = self.apply([staged(*tables, **content)])
        assert isinstance(decision, Commit), decision
        assert decision.outcome.committed is not None
        return decision.outcome.committed


def made(database: Database, *, fence: bool = True) -> SqlCommitStore:
    """The store of a lake that is made in `database`."""
    store = SqlCommitStore(database)
    store.init_lake(
        lake_id=LAKE_ID,
        root=ROOT,
        log_address=LOG,
        stream_identity="stream-1",
        position=0,
        fence=fence,
        created_ms=START_MS,
    )
    return store


def load_state(store: SqlCommitStore, cursor: Cursor) -> State:
    """The state that a committer which takes over at `cursor` starts from."""
    state = State(
        lake=store.lake(),
        rules=rules(cursor.rule_set),
        commit_seq=cursor.commit_seq,
        time_ms=cursor.time_ms,
        next_table_no=cursor.next_table_no,
    )
    store.load_directory(state)
    return state


def staged(*tables: TableWork, txn_id: str | None = None, **content: Any) -> StagedTransaction:
    """A transaction in one event, which is answered at outcome partition 0."""
    (event,) = chunked([Content(tables=tables, **content)], txn_id=txn_id)
    return event


def chunked(contents: Sequence[Content], *, txn_id: str | None = None) -> list[StagedTransaction]:
    """A transaction in as many events as it has contents."""
    encoded = [encode_content(content) for content in contents]
    txn_id = txn_id or txn(uuid.uuid4().int)
    return [
        StagedTransaction(
            envelope=Envelope(
                txn_id=txn_id,
                chunk_index=index,
                chunk_count=len(contents),
                digest=content_digest(encoded),
                lake_id=LAKE_ID,
                root=ROOT,
                client_id="test",
                outcome_partition=0,
            ),
            content=content,
            content_bytes=encoded[index],
        )
        for index, content in enumerate(contents)
    ]


def txn(number: int) -> str:
    """The transaction id of that number."""
    return str(uuid.UUID(int=number))


def create(name: str, *adds: AddFile, partition_by: tuple[str, ...] = (), **properties: str) -> TableWork:
    """Make a table if it is not there, with files; files may be removed from it without having been read.

    Further properties are given with `_` for `.`, without `delta.`.
    """
    properties = {"isolationLevel": "WriteSerializable", **properties}
    intent = CreateTable(
        schema_string=SCHEMA,
        partition_columns=partition_by,
        properties={f"delta.{key.replace('_', '.')}": value for key, value in properties.items()},
    )
    return TableWork(name=name, operation="CREATE TABLE AS SELECT", intents=(intent,), adds=adds)


def add(path: str, *, low: int = 0, high: int = 9, size: int = 1_000, **partition: str | None) -> AddFile:
    """An add action of ten rows with ids from `low` to `high`."""
    return AddFile(
        path=path,
        partition_values=partition,
        size=size,
        modification_time=START_MS,
        stats=f'{{"numRecords":10,"minValues":{{"id":{low},"text":"a"}},"maxValues":{{"id":{high},"text":"z"}},'
        '"nullCount":{"id":0,"text":0}}',
    )


def dump(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but who leads, in an order of their own: equal lakes have equal dumps."""
    tables = {
        "dl_committer_position": "position, commit_seq, time_ms, next_table_no, rule_set, published_position",
        "dl_live_files": None,
        **dict.fromkeys(
            f"dl_{name}"
            for name in (
                *("tables", "table_heads", "commits", "transactions", "app_transactions", "table_versions"),
                *("partitions", "past_files", "remove_files", "cdc_files", "metadata_updates", "protocol_updates"),
                *("txn_actions", "domain_metadata", "other_actions", "staged_chunks", "imports"),
                "mirror_targets",
            )
        ),
    }
    told = told_by(database.query("SELECT stream, payload FROM dl_outbox"))
    return {
        "dl_outbox": sorted([(one,) for one in told], key=repr),
        **{
            table: sorted(database.query(f"SELECT {columns or '*'} FROM {table}"), key=repr)
            for table, columns in tables.items()
        },
    }
