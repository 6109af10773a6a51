"""A lake filled without a client: events go through the real log and the real committer, one call per transaction."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from deltalakedb.actions import AddFile, RemoveFile
from deltalakedb.codec import content_digest, decode_told, encode, encode_chunk, encode_content, headers
from deltalakedb.database import StoreAddress, open_database
from deltalakedb.database.schema import migrate
from deltalakedb.eventlog import Message, Stream, open_event_log
from deltalakedb.events import Committed, Content, Control, CreateTable, Envelope, LakeAction, Outcome, TableWork
from deltalakedb.ids import new_txn_id
from deltalakedb.objectstore import NewObject, ObjectStore, open_object_store
from deltalakedb_committer.step import Committer
from deltalakedb_committer.storing.store import SqlCommitStore

SCHEMA = (
    '{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}},'
    '{"name":"text","type":"string","nullable":true,"metadata":{}}]}'
)
"""Of the tables made here unless another one is given."""
PARTITIONED = (
    '{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}},'
    '{"name":"day","type":"string","nullable":true,"metadata":{}}]}'
)


class FilledLake:
    """A lake whose store is at `address` and whose tables lie under `root`. Its log is a file in `folder`."""

    def __init__(
        self,
        address: StoreAddress,
        folder: Path,
        root: str,
        *,
        options: dict[str, str] | None = None,
        fence: bool = True,
    ) -> None:
        self.address = address
        self.root = root
        self.objects: ObjectStore = open_object_store(root, options)
        self.lake_id = str(uuid.uuid4())
        self._log = open_event_log(f"sqlite://{folder / 'log.db'}")
        self._log.create()
        database = open_database(address, create=True)
        migrate(database)
        self._store = SqlCommitStore(database)
        self._store.init_lake(
            lake_id=self.lake_id,
            root=root,
            log_address=self._log.address,
            stream_identity=self._log.identity(Stream.STAGED),
            position=self._log.beginning(Stream.STAGED),
            fence=fence,
            created_ms=int(time.time() * 1000),
        )
        self._committer = Committer(self._store, self._log, holder="test")
        self._outcomes = self._log.reader(Stream.OUTCOMES, self._log.end(Stream.OUTCOMES))

    def commit(self, *tables: TableWork, **content: Any) -> Committed:
        """One transaction; what it was committed as. A rejection fails the test."""
        (outcome,) = self.decide([Content(tables=tables, **content)])
        assert outcome.committed is not None, outcome.rejected
        return outcome.committed

    def act(self, action: str, **given: Any) -> None:
        """One lake action (`table`, `target`, `parameters`). A rejection fails the test."""
        control = Control(
            control_id=new_txn_id(),
            lake_id=self.lake_id,
            client_id="test",
            outcome_partition=0,
            command=LakeAction(action=action, **given),
        )
        envelope = Envelope(
            txn_id=control.control_id, digest=b"", lake_id=self.lake_id, root=self.root, client_id="test"
        )
        (outcome,) = self._decide([Message(encode(control), headers(envelope))])
        assert outcome.committed is not None, outcome.rejected

    def decide(self, contents: Sequence[Content]) -> list[Outcome]:
        """One transaction for each of `contents`, in order; what became of them."""
        return self._decide([self._message(content) for content in contents])

    def _decide(self, messages: Sequence[Message]) -> list[Outcome]:
        self._log.append(Stream.STAGED, messages).result()
        left = len(messages)
        while left:
            left -= self._committer.step(1_000, 5.0)
        outcomes: list[Outcome] = []
        while len(outcomes) < len(messages):
            for record in self._outcomes.read(1_000, 5.0):
                outcomes += [told for told in decode_told(record.value) if isinstance(told, Outcome)]
        return outcomes

    def write(self, table: str, path: str, rows: pa.Table, **partition: str | None) -> AddFile:
        """A data file with these rows (partition columns left out) in the folder of `table`, as an action."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink)
        data = sink.getvalue().to_pybytes()
        self.objects.put_if_absent([NewObject(f"{table}/{unquote(path)}", data)])
        return add(path, size=len(data), rows=rows.num_rows, **partition)

    def close(self) -> None:
        self._committer.__exit__(None, None, None)
        self._outcomes.close()
        self._log.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _message(self, content: Content) -> Message:
        encoded = encode_content(content)
        envelope = Envelope(
            txn_id=new_txn_id(),
            digest=content_digest([encoded]),
            lake_id=self.lake_id,
            root=self.root,
            client_id="test",
            outcome_partition=0,
        )
        return Message(encode_chunk(envelope, encoded), headers(envelope))


def create(
    name: str, *adds: AddFile, schema: str = SCHEMA, partition_by: tuple[str, ...] = (), **properties: str
) -> TableWork:
    """Make a table, with its first files, that takes removes without a read set.

    Properties are given with `_` for `.`, without `delta.`.
    """
    intent = CreateTable(
        schema_string=schema,
        partition_columns=partition_by,
        properties={
            "delta.isolationLevel": "WriteSerializable",
            **{f"delta.{key.replace('_', '.')}": value for key, value in properties.items()},
        },
    )
    return TableWork(name=name, operation="CREATE TABLE AS SELECT", intents=(intent,), adds=adds)


def append(name: str, *adds: AddFile) -> TableWork:
    """Add files to a table."""
    return TableWork(name=name, operation_parameters={"mode": "Append"}, adds=adds)


def remove(name: str, *files: AddFile) -> TableWork:
    """Remove files from a table."""
    removes = tuple(RemoveFile(path=file.path) for file in files)
    return TableWork(name=name, operation="DELETE", removes=removes)


def add(path: str, *, size: int = 1_000, rows: int = 1, **partition: str | None) -> AddFile:
    """An add action, whether or not there is such a file."""
    return AddFile(
        path=path,
        partition_values=partition,
        size=size,
        modification_time=1_700_000_000_000,
        stats=f'{{"numRecords":{rows}}}',
    )


def local_root(folder: Path) -> str:
    """A root URI for tables in `folder`."""
    return (folder / "tables").as_uri()


def local_path(uri: str) -> Path:
    """The folder at a `file://` URI."""
    return Path(unquote(urlsplit(uri).path))
