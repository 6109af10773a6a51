"""The event log in one SQLite file: durable, for several processes on one host, with nothing but the standard library.

Each partition is a table whose key is the position. Appends of a process go through one thread, which takes what has
gathered and writes it in one transaction; between processes a lock file says whose turn it is, because SQLite's own
waiting is a back-off without a queue, in which an unlucky process starves. The lock is an flock: the kernel frees it
when a process dies, however it dies.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from deltalakedb.errors import TxnLogEventLogError, TxnLogHaltedError, TxnLogValidationError
from deltalakedb.eventlog.port import (
    OUTCOME_PARTITIONS,
    Append,
    Done,
    Headers,
    Message,
    Record,
    Stream,
    refuse_oversize,
)

from .file import File, connect, first, identity_of, register, sync_folder, translated, turn

_PARTITIONS = {stream: OUTCOME_PARTITIONS if stream is Stream.OUTCOMES else 1 for stream in Stream}
_TABLES = {(stream, p): f'"{stream}/{p}"' for stream, count in _PARTITIONS.items() for p in range(count)}

_FORMAT = 1  # PRAGMA user_version of the files that this module writes

_CLOSE_SECONDS = 5.0
_QUEUE_BYTES = 16 * 1024 * 1024
_READ_BYTES = 16 * 1024 * 1024

# A waiting reader looks again after an eighth of the time it has waited, within these bounds: that adds an eighth to
# a wait at most, and an idle reader costs 50 looks a second.
_LOOK_SECONDS = (0.001, 0.02)


class SqliteEventLog:
    """An event log in the SQLite file at `path`; see `port.EventLog` for the contract."""

    def __init__(self, path: str, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._file = File(path)
        self._appender = _Appender(path, clock)

    def __repr__(self) -> str:
        return f"SqliteEventLog({self.address!r})"

    @property
    def address(self) -> str:
        return "sqlite://" + quote(self._path)

    def create(self) -> None:
        folder = Path(self._path).parent
        with translated(self._path, "creating it"):
            folder.mkdir(parents=True, exist_ok=True)
            with turn(self._path), self._file.lock:
                connection = connect(self._path, "rwc")
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("CREATE TABLE IF NOT EXISTS log (identity TEXT NOT NULL)")
                    connection.execute(
                        "INSERT INTO log SELECT ? WHERE NOT EXISTS (SELECT * FROM log)", (uuid.uuid4().hex,)
                    )
                    for table in _TABLES.values():
                        connection.execute(
                            f"CREATE TABLE IF NOT EXISTS {table} (position INTEGER PRIMARY KEY,"
                            " time_ms INTEGER NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL)"
                        )
                    if first(connection, "PRAGMA user_version") == 0:
                        connection.execute(f"PRAGMA user_version={_FORMAT}")
                    connection.execute("COMMIT")
                finally:
                    connection.close()
            sync_folder(folder)

    def verify(self) -> None:
        with self._file.use("checking it") as connection:
            version = first(connection, "PRAGMA user_version")
            mode = first(connection, "PRAGMA journal_mode")
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if version != _FORMAT:
            raise TxnLogHaltedError(
                "LOG_SETTINGS",
                f"{self._path} has format {version}, this release knows format {_FORMAT}: use the release that made it",
            )
        missing = sorted(table for table in _TABLES.values() if table.strip('"') not in names)
        if missing:
            raise TxnLogHaltedError(
                "LOG_PARTITIONS",
                f"{self._path} lacks the tables {', '.join(missing)}: restore it from a backup, or if nothing was ever "
                "appended to them, run `deltalakedb migrate`",
            )
        if mode != "wal":
            raise TxnLogHaltedError(
                "LOG_SETTINGS",
                f"{self._path} has journal_mode={mode}, in which readers and writers block each other: "
                f"run sqlite3 {self._path} 'PRAGMA journal_mode=WAL'",
            )

    def identity(self, stream: Stream) -> str:
        with self._file.use("reading its identity") as connection:
            return identity_of(connection, self._path)

    def partitions(self, stream: Stream) -> int:
        return _PARTITIONS[stream]

    def append(self, stream: Stream, messages: Sequence[Message]) -> Future[list[int]]:
        append = Append()
        self.send(stream, messages, append.done_with)
        return append

    def send(self, stream: Stream, messages: Sequence[Message], done: Done) -> None:
        refuse_oversize(messages)
        self._appender.put([(_table(stream, message.partition), message) for message in messages], done)

    def reader(self, stream: Stream, position: int, *, partition: int = 0) -> _Reader:
        if position < 0:
            raise TxnLogValidationError(f"a position is 0 or more, not {position}")
        return _Reader(self._path, stream, partition, position)

    def beginning(self, stream: Stream, *, partition: int = 0) -> int:
        with self._file.use("reading its beginning") as connection:
            return _bounds(connection, _table(stream, partition))[0]

    def end(self, stream: Stream, *, partition: int = 0) -> int:
        with self._file.use("reading its end") as connection:
            return _bounds(connection, _table(stream, partition))[1]

    def close(self) -> None:
        self._appender.close()
        self._file.close()


class _Reader:
    def __init__(self, path: str, stream: Stream, partition: int, position: int) -> None:
        self._file = File(path, pinned=True)
        self._table = _table(stream, partition)
        self._where = f"{stream} [{partition}] of {path}"
        self._partition = partition
        self._position = position
        with self._file.use("opening a reader"):
            pass

    def read(self, limit: int, timeout: float) -> list[Record]:
        started = time.monotonic()
        while True:
            records = self._fetch(limit)
            waited = time.monotonic() - started
            if records or waited >= timeout:
                return records
            shortest, longest = _LOOK_SECONDS
            time.sleep(min(max(waited / 8, shortest), longest, timeout - waited))

    def close(self) -> None:
        self._file.close()

    def _fetch(self, limit: int) -> list[Record]:
        records: list[Record] = []
        size = 0
        with self._file.use("reading") as connection:
            end = _end(connection, self._table)
            if end > self._position:
                rows = connection.execute(
                    f"SELECT position, time_ms, value, headers FROM {self._table}"
                    " WHERE position >= ? ORDER BY position LIMIT ?",
                    (self._position, limit),
                )
                for position, time_ms, value, headers in rows:
                    records.append(Record(self._partition, position, time_ms, value, _headers(headers)))
                    size += len(value)
                    if size >= _READ_BYTES:
                        break
                # An unfinished statement would hold its snapshot, and with it the whole write-ahead log.
                rows.close()
            gap = end < self._position or (records and records[0].position > self._position)
            beginning = _bounds(connection, self._table)[0] if gap else 0
        if end < self._position or beginning > self._position:
            raise TxnLogHaltedError(
                "LOG_TRUNCATED",
                f"{self._where} has positions {beginning} to {end}, reading was to go on at {self._position}: the file "
                "is older than what was read from it, or records were deleted. Put the newest copy of the log in place",
            )
        if records:
            self._position = records[-1].next_position
        return records


class _Append(NamedTuple):
    rows: list[tuple[str, Message]]
    size: int
    done: Done


class _Appender:
    """The queue of a process's appends and the thread that writes them, a transaction for all that have gathered."""

    def __init__(self, path: str, clock: Callable[[], int]) -> None:
        self._path = path
        self._clock = clock
        self._file = File(path)
        self._closed = False
        self.start_anew()
        register(self)

    def start_anew(self) -> None:
        """An empty queue and no thread: in a new log, and in a forked child, where the parent's appends are not ours."""
        self._changed = threading.Condition()
        self._queue: deque[_Append] = deque()
        self._size = 0
        self._thread: threading.Thread | None = None

    def put(self, rows: list[tuple[str, Message]], done: Done) -> None:
        size = sum(len(message.value) for _, message in rows)
        with self._changed:
            while self._queue and self._size + size > _QUEUE_BYTES and not self._closed:
                self._changed.wait()
            if self._closed:
                raise TxnLogEventLogError(f"the event log {self._path} is closed")
            if self._thread is None:
                # The first append finds out in its caller's thread whether there is a log to append to.
                with self._file.use("opening it for appends"):
                    pass
                self._thread = threading.Thread(target=self._run, name=f"append to {self._path}", daemon=True)
                self._thread.start()
            if rows:
                self._queue.append(_Append(rows, size, done))
                self._size += size
                self._changed.notify_all()
        if not rows:
            done([])

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_SECONDS)
            error = TxnLogEventLogError(f"{self._path} was closed while another process held it: not appended")
            for append in self._take():
                append.done(error)
        self._file.close()

    def _run(self) -> None:
        while self._wait():
            appends: list[_Append] = []
            try:
                with translated(self._path, "waiting for its lock file"), turn(self._path):
                    # Taken only now: what came while this process waited for its turn goes along.
                    appends = self._take()
                    with self._file.use("appending") as connection:
                        positions = _write(connection, appends, self._clock)
            except Exception as error:
                for append in appends or self._take():
                    append.done(error)
            else:
                for append, taken in zip(appends, positions, strict=True):
                    append.done(taken)

    def _wait(self) -> bool:
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            return bool(self._queue)

    def _take(self) -> list[_Append]:
        with self._changed:
            appends = list(self._queue)
            self._queue.clear()
            self._size = 0
            self._changed.notify_all()
        return appends


def _write(connection: sqlite3.Connection, appends: list[_Append], clock: Callable[[], int]) -> list[list[int]]:
    """Write `appends` in one transaction and return the positions of each; on an error nothing is written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        now = clock() // 1_000_000
        gathered: dict[str, tuple[int, int, list[tuple[int, int, str, bytes]]]] = {}
        positions = []
        for append in appends:
            taken = []
            for table, message in append.rows:
                if table not in gathered:
                    newest = connection.execute(
                        f"SELECT position, time_ms FROM {table} ORDER BY position DESC LIMIT 1"
                    ).fetchone()
                    position, time_ms = newest or (-1, 0)
                    gathered[table] = position + 1, max(now, time_ms), []
                first, time_ms, rows = gathered[table]
                position = first + len(rows)
                rows.append((position, time_ms, _text(message.headers), message.value))
                taken.append(position)
            positions.append(taken)
        for table, (_, _, rows) in gathered.items():
            connection.executemany(f"INSERT INTO {table} (position, time_ms, headers, value) VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return positions


def _table(stream: Stream, partition: int) -> str:
    try:
        return _TABLES[stream, partition]
    except KeyError:
        raise TxnLogValidationError(
            f"{stream} has partitions 0 to {_PARTITIONS[stream] - 1}, there is no partition {partition}"
        ) from None


def _bounds(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    return first(connection, f"SELECT min(position) FROM {table}") or 0, _end(connection, table)


def _end(connection: sqlite3.Connection, table: str) -> int:
    newest = first(connection, f"SELECT max(position) FROM {table}")
    return 0 if newest is None else newest + 1


def _text(headers: Headers) -> str:
    """Headers as JSON, their values byte for byte as Latin-1: readable where they are text, exact where not."""
    return json.dumps([(name, value.decode("latin-1")) for name, value in headers]) if headers else "[]"


def _headers(text: str) -> Headers:
    return () if text == "[]" else tuple((name, value.encode("latin-1")) for name, value in json.loads(text))
