"""What only the event log in a SQLite file can show: files that vanish, locks, forks, SIGKILL."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from deltalakedb.errors import TxnLogEventLogError, TxnLogHaltedError
from deltalakedb.eventlog import Message, Stream
from deltalakedb.eventlog.sqlite import SqliteEventLog
from deltalakedb.eventlog.sqlite import log as adapter
from tests.contracts.test_event_log import SECONDS, append, read_all, texts, values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteEventLog]:
    with closing(SqliteEventLog(str(path))) as log:
        log.create()
        yield log


def copy(path: Path, target: Path) -> None:
    """A copy as a backup makes it, with what is still in the write-ahead log."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as backup:
        source.backup(backup)


def replace(path: Path, source: Path) -> None:
    """Put another file in the log's place, as an operator would: without what belonged to the old one."""
    for left in (f"{path}-wal", f"{path}-shm"):
        Path(left).unlink(missing_ok=True)
    source.rename(path)


def run_sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_file_removed_while_it_is_in_use(log: SqliteEventLog, path: Path) -> None:
    """A log whose file is gone halts for readers and writers, instead of working on a file without a name."""
    append(log, Stream.STAGED, "one")
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        reader.read(10, SECONDS)
        path.unlink()

        with pytest.raises(TxnLogHaltedError, match=str(path)) as reading:
            reader.read(10, SECONDS)
        with pytest.raises(TxnLogHaltedError) as appending:
            append(log, Stream.STAGED, "two")
        with pytest.raises(TxnLogHaltedError) as asking:
            log.end(Stream.STAGED)
    assert {raised.value.state for raised in (reading, appending, asking)} == {"LOG_MISSING"}


def test_older_copy_put_in_place(log: SqliteEventLog, path: Path, tmp_path: Path) -> None:
    """A restored older copy is the same log, but a reader that was further on halts."""
    append(log, Stream.STAGED, "one")
    copy(path, tmp_path / "backup.db")
    identity = log.identity(Stream.STAGED)
    append(log, Stream.STAGED, "two", "three")
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        reader.read(10, SECONDS)
        replace(path, tmp_path / "backup.db")

        with pytest.raises(TxnLogHaltedError, match="positions 0 to 1, reading was to go on at 3") as raised:
            reader.read(10, SECONDS)
    assert raised.value.state == "LOG_TRUNCATED"
    assert log.identity(Stream.STAGED) == identity


def test_another_log_put_in_place(log: SqliteEventLog, path: Path, tmp_path: Path) -> None:
    """A log made anew under the same path is another one, even where it has more records than the old one."""
    append(log, Stream.STAGED, "one")
    identity = log.identity(Stream.STAGED)
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        reader.read(10, SECONDS)
        with closing(SqliteEventLog(str(tmp_path / "other.db"))) as other:
            other.create()
            append(other, Stream.STAGED, *"abcdef")
        replace(path, tmp_path / "other.db")

        with pytest.raises(TxnLogHaltedError) as raised:
            reader.read(10, SECONDS)
    assert raised.value.state == "LOG_RECREATED"
    assert log.identity(Stream.STAGED) != identity


def test_first_records_deleted(log: SqliteEventLog, path: Path) -> None:
    """A reader that needs records which are gone halts; one that is past them reads on."""
    append(log, Stream.STAGED, *"abcd")
    run_sql(path, 'DELETE FROM "staged/0" WHERE position < 2')

    with closing(log.reader(Stream.STAGED, 1)) as reader, pytest.raises(TxnLogHaltedError, match="LOG_TRUNCATED"):
        reader.read(10, SECONDS)
    assert log.beginning(Stream.STAGED) == 2
    assert texts(read_all(log, Stream.STAGED, 2)) == ["c", "d"]


def test_gap_is_no_halt(log: SqliteEventLog, path: Path) -> None:
    """A position that is missing between others is passed over: positions may have gaps."""
    append(log, Stream.STAGED, *"abcd")
    run_sql(path, 'DELETE FROM "staged/0" WHERE position = 1')

    assert texts(read_all(log, Stream.STAGED, 3)) == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("statement", "state", "advice"),
    [
        ("PRAGMA journal_mode=DELETE", "LOG_SETTINGS", "PRAGMA journal_mode=WAL"),
        ("PRAGMA user_version=99", "LOG_SETTINGS", "format 99"),
        ('DROP TABLE "outcomes/5"', "LOG_PARTITIONS", "outcomes/5"),
        ("DROP TABLE log", "LOG_MISSING", "deltalakedb migrate"),
    ],
)
def test_verify_names_what_is_wrong(log: SqliteEventLog, path: Path, statement: str, state: str, advice: str) -> None:
    """A file that is not as this release made it is refused by name, with what to do."""
    log.verify()
    log.close()
    run_sql(path, statement)

    with closing(SqliteEventLog(str(path))) as again, pytest.raises(TxnLogHaltedError, match=advice) as raised:
        again.verify()
    assert raised.value.state == state


def test_file_of_another_kind(path: Path) -> None:
    """A file that is no database is an error that names it, for the committer as for a client."""
    path.write_text("something else entirely, and long enough to be looked at" * 20)
    with closing(SqliteEventLog(str(path))) as log:
        for use in (log.create, log.verify, lambda: log.append(Stream.STAGED, [])):
            with pytest.raises(TxnLogEventLogError, match=str(path)) as raised:
                use()
            assert isinstance(raised.value.__cause__, sqlite3.Error)


def test_time_does_not_follow_a_clock_set_back(path: Path) -> None:
    """Append times stay where they are while the clock is behind them."""
    clock = iter([5_000_000_000, 3_000_000_000, 6_000_000_000])
    with closing(SqliteEventLog(str(path), clock=lambda: next(clock))) as log:
        log.create()
        for text in "abc":
            append(log, Stream.STAGED, text)

        assert [record.time_ms for record in read_all(log, Stream.STAGED, 3)] == [5_000, 5_000, 6_000]


def keep_appending(path: str, acknowledged: Connection) -> None:
    """Append in several threads for ever, and tell which were promised to be in the log."""
    log = SqliteEventLog(path)
    lock = threading.Lock()

    def run(thread: int) -> None:
        number = 0
        while True:
            text = f"{thread} {number}"
            log.append(Stream.STAGED, [Message(text.encode()), Message(f"{text} second".encode())]).result()
            with lock:
                acknowledged.send(text)
            number += 1

    for thread in range(4):
        threading.Thread(target=run, args=(thread,)).start()


@pytest.mark.parametrize("round_", range(4))
def test_sigkill_while_appending(log: SqliteEventLog, path: Path, round_: int) -> None:
    """What a killed process was promised is in the log, each append whole, and its lock is free at once."""
    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    process = spawn.Process(target=keep_appending, args=(str(path), sending), daemon=True)
    process.start()
    sending.close()
    promised = [receiving.recv() for _ in range(20 + round_)]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(SECONDS)
    try:
        while True:
            promised.append(receiving.recv())
    except (EOFError, OSError):
        receiving.close()
    started = time.monotonic()
    last = append(log, Stream.STAGED, "after")[0]
    seconds = time.monotonic() - started
    found = texts(read_all(log, Stream.STAGED, last + 1))

    assert set(promised) <= set(found)
    assert len(found) == len(set(found))
    assert found[1:-1:2] == [f"{text} second" for text in found[:-1:2]]
    assert seconds < 20


def test_close_gives_up_on_a_lock_that_is_never_freed(
    log: SqliteEventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing does not wait for ever for somebody who hangs; what was not appended is told, and never appended."""
    monkeypatch.setattr(adapter, "_CLOSE_SECONDS", 0.1)
    append(log, Stream.STAGED, "before")
    with open(f"{path}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        future = log.append(Stream.STAGED, values("stuck"))
        log.close()
        error = future.exception(0)
    with closing(SqliteEventLog(str(path))) as again:
        append(again, Stream.STAGED, "after")

        assert isinstance(error, TxnLogEventLogError)
        assert texts(read_all(again, Stream.STAGED, 2)) == ["before", "after"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_log_works_on_in_a_forked_child(log: SqliteEventLog) -> None:
    """Parent and child go on with the log and the reader they had, while other threads of the parent use them."""
    append(log, Stream.STAGED, "before")
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            append(log, Stream.COMMITS, "busy")
            log.end(Stream.COMMITS)

    def child(position: int) -> None:
        append(log, Stream.STAGED, "child")
        assert texts(reader.read(1, SECONDS)) == ["before"]
        assert log.end(Stream.STAGED) > position
        log.close()

    busy = threading.Thread(target=keep_busy, daemon=True)
    busy.start()
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        for _ in range(5):
            position = append(log, Stream.STAGED, "parent")[0]
            process = multiprocessing.get_context("fork").Process(target=child, args=(position,), daemon=True)
            process.start()
            process.join(SECONDS)
            assert process.exitcode == 0
        stop.set()
        busy.join(SECONDS)
        found = texts(reader.read(100, SECONDS))

    assert found == ["before", *["parent", "child"] * 5]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_does_not_keep_the_lock(log: SqliteEventLog, path: Path) -> None:
    """A child forked while its parent has the lock file open does not hold it for as long as it lives."""
    append(log, Stream.STAGED, "before")
    fork = multiprocessing.get_context("fork")
    go_on = fork.Event()
    lock = os.open(f"{path}.lock", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def child() -> None:
        os.close(lock)
        go_on.wait(SECONDS)

    future = log.append(Stream.STAGED, values("waited"))
    while len(opened(os.getpid(), f"{path}.lock")) < 2:
        time.sleep(0.001)
    process = fork.Process(target=child, daemon=True)
    process.start()
    os.close(lock)
    future.result(SECONDS)
    assert process.pid is not None
    kept = opened(process.pid, f"{path}.lock")
    go_on.set()
    process.join(SECONDS)

    assert kept == []


def opened(process: int, path: str) -> list[Path]:
    """The descriptors of a process that are open on a file."""
    found = []
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(descriptor) == path:
                found.append(descriptor)
    return found


def test_idle_reader_is_cheap(log: SqliteEventLog) -> None:
    """A reader that waits takes a few percent of a processor at most."""
    with closing(log.reader(Stream.STAGED, 0)) as reader:
        before = time.process_time()
        reader.read(1, 2.0)
        used = time.process_time() - before

    assert used < 0.2


def test_log_in_a_folder_with_a_strange_name(tmp_path: Path) -> None:
    """Characters that mean something in a URI are part of the path like any other."""
    folder = tmp_path / "50% off? #1 größe"
    with closing(SqliteEventLog(str(folder / "log.db"))) as log:
        log.create()
        append(log, Stream.STAGED, "there")

        assert (folder / "log.db").exists()
        assert texts(read_all(log, Stream.STAGED, 1)) == ["there"]
    shutil.rmtree(folder)
