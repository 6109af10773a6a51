"""The SQL store when connections break, servers die and answers to a COMMIT are lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from deltalakedb import failpoints
from deltalakedb.actions import RemoveFile
from deltalakedb.database import Database, Pool, StoreAddress, open_database
from deltalakedb.database.address import Engine
from deltalakedb.database.postgres import COPY_ROWS
from deltalakedb.errors import (
    TxnLogCommitUnknownError,
    TxnLogConfigError,
    TxnLogDatabaseError,
    TxnLogHaltedError,
    TxnLogStoreInUseError,
)
from deltalakedb.eventlog import open_event_log
from deltalakedb.events import TableWork
from deltalakedb_committer.leadership import Heartbeat
from deltalakedb_committer.storing.store import Observation, SqlCommitStore
from tests.direct import DirectCommitter, add, create, dump, made, staged, txn
from tests.fix_network import TcpProxy
from tests.services.postgres import Postgres
from tests.stores import address, migrated, postgres_address

__all__ = ["address"]

COMMIT = b"COMMIT\0"
"""The statement as it is sent: BEGIN has READ COMMITTED in it."""
IN_NAME = "hunter2-canary"
CANARY = "s3cr3t-cänary p@ss"


@pytest.fixture
def direct(postgres_url: str) -> StoreAddress:
    """A store on Postgres, past the proxy."""
    return postgres_address(postgres_url)


@pytest.fixture
def proxy(postgres_url: str, tcp_proxy: Callable[[str, int], TcpProxy]) -> TcpProxy:
    parts = urlsplit(postgres_url)
    return tcp_proxy(str(parts.hostname), int(parts.port or 5432))


@pytest.fixture
def committer(direct: StoreAddress, proxy: TcpProxy) -> Iterator[DirectCommitter]:
    """A committer whose connection goes through the proxy, with two tables made."""
    with closing(migrated(direct)) as database:
        DirectCommitter(made(database)).commit(create("orders"), create("lineitem"))
    with closing(open_database(through(proxy, direct))) as database:
        yield DirectCommitter(SqlCommitStore(database))


def through(proxy: TcpProxy, address: StoreAddress) -> StoreAddress:
    parameters = {**dict(address.parameters), "host": "127.0.0.1", "port": str(proxy.port)}
    return replace(address, parameters=tuple(sorted(parameters.items())))


def stored(address: StoreAddress) -> dict[str, list[tuple[object, ...]]]:
    with closing(open_database(address)) as database:
        return dump(database)


def transaction(number: int) -> TableWork:
    return TableWork(name="orders", adds=(add(f"o{number}"),))


@pytest.mark.parametrize("rows", [1, 30])
def test_the_answer_to_a_commit_is_lost(
    committer: DirectCommitter, direct: StoreAddress, proxy: TcpProxy, rows: int
) -> None:
    """The batch is durable, the error says "unknown", and only the cursor, read anew, tells: it has moved."""
    batch, cursor, _ = committer.prepare([staged(transaction(n)) for n in range(rows)])
    proxy.cut_after(COMMIT)
    with pytest.raises(TxnLogCommitUnknownError, match="COMMIT") as unknown:
        committer.store.write(committer.cursor, batch, cursor)
    cut = proxy.wait_until_cut()
    with closing(open_database(direct)) as database:
        found = SqlCommitStore(database).cursor()
        files = database.query("SELECT count(*) FROM dl_live_files")
    with pytest.raises(TxnLogDatabaseError, match="closed"):
        committer.store.cursor()

    assert cut
    assert isinstance(unknown.value.__cause__, psycopg.Error)
    assert found == cursor
    assert files == [(rows,)]


def test_a_commit_does_not_arrive(committer: DirectCommitter, direct: StoreAddress, proxy: TcpProxy) -> None:
    """The same error, the other outcome: nothing is written, and the cursor says so."""
    before = stored(direct)
    batch, cursor, _ = committer.prepare([staged(transaction(1))])
    proxy.cut_before(COMMIT)
    with pytest.raises(TxnLogCommitUnknownError):
        committer.store.write(committer.cursor, batch, cursor)

    assert stored(direct) == before


@pytest.mark.parametrize(
    "statement",
    [b"UPDATE dl_committer_position", b"COPY dl_transactions", b"COPY dl_live_files", b"INSERT INTO dl_outbox"],
)
def test_a_connection_breaks_before_the_commit(
    committer: DirectCommitter, direct: StoreAddress, proxy: TcpProxy, statement: bytes
) -> None:
    """Nothing is written, and the same may be tried again. The error is "unknown" only where COMMIT may be on its way:
    nobody waits between the last statement and it."""
    before = stored(direct)
    batch, cursor, _ = committer.prepare([staged(transaction(n)) for n in range(COPY_ROWS)])
    proxy.cut_before(statement)
    with pytest.raises(TxnLogDatabaseError) as failed:
        committer.store.write(committer.cursor, batch, cursor)

    sent_along = statement.endswith(b"dl_outbox")
    assert sent_along or not isinstance(failed.value, TxnLogCommitUnknownError)
    assert failed.value.transient or isinstance(failed.value, TxnLogCommitUnknownError)
    assert stored(direct) == before


def test_an_idle_connection_that_broke_is_noticed(direct: StoreAddress, proxy: TcpProxy) -> None:
    """A pool hands out no connection that the server has ended meanwhile."""
    migrated(direct).close()
    pool = Pool(lambda: open_database(through(proxy, direct)))
    with pool.connection() as database:
        first = database
    proxy.cut_all()
    wait_until(lambda: not first.alive)
    with pool.connection() as database:
        found = database.query("SELECT 1")
        second = database
    pool.close()

    assert found == [(1,)]
    assert second is not first
    assert not second.alive


@pytest.mark.parametrize("written", [False, True])
def test_a_stalled_writer_is_fenced(committer: DirectCommitter, direct: StoreAddress, written: bool) -> None:
    """One that stands still in the middle of its write, also with statements under way, holds no takeover up, and writes
    nothing."""
    before = stored(direct)
    batch, cursor, _ = committer.prepare([staged(transaction(n)) for n in range(30)])
    held, go_on = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def stall() -> None:
        held.set()
        go_on.wait(60)

    failpoints.arm("committer.rows-inserted" if written else "committer.position-moved", stall)

    def run() -> None:
        try:
            committer.store.write(committer.cursor, batch, cursor)
        except TxnLogDatabaseError as error:
            errors.append(error)

    zombie = threading.Thread(target=run)
    zombie.start()
    assert held.wait(30)
    with closing(open_database(direct)) as database:
        heir = SqlCommitStore(database)
        heir.end_writer()
        taken = heir.take_over("new")
        go_on.set()
        zombie.join(30)
        failpoints.disarm()
        after = SqlCommitStore(database).cursor()

    assert len(errors) == 1
    assert after == taken
    assert stored(direct) == before


def test_a_writer_that_is_slow_is_left_alone(committer: DirectCommitter, direct: StoreAddress, tmp_path: Path) -> None:
    """Where a sign of life comes just before a standby that waited for it would take over, the write under way goes on."""
    batch, cursor, _ = committer.prepare([staged(transaction(n)) for n in range(30)])
    held, go_on, looked, stop = (threading.Event() for _ in range(4))

    def stall() -> None:
        held.set()
        go_on.wait(60)

    class Watcher(SqlCommitStore):
        def claim(self, seen: Observation) -> bool:
            if not looked.is_set():
                self.heartbeat(seen.epoch)
            claimed = super().claim(seen)
            stop.set()
            looked.set()
            return claimed

    failpoints.arm("committer.rows-inserted", stall)
    with closing(open_database(direct)) as database, ThreadPoolExecutor(2) as threads:
        SqlCommitStore(database).claim(SqlCommitStore(database).observe())  # it leads
        writing = threads.submit(committer.store.write, committer.cursor, batch, cursor)
        assert held.wait(30)
        log = open_event_log(f"sqlite://{tmp_path}/log.db")
        log.create()
        standby = Heartbeat(lambda: Watcher(open_database(direct)), log, takeover_after=0.1)
        waiting = threads.submit(standby.acquire, stop)
        assert looked.wait(30)
        let_in = waiting.result(30)
        go_on.set()
        writing.result(30)
        failpoints.disarm()
        after = SqlCommitStore(database).cursor()
        log.close()

    assert not let_in
    assert after == cursor


def test_signs_of_life_that_cannot_be_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, however long it lasts, and again the next time. Nothing is said of an epoch that is over: who takes
    over again from itself, as long as the log cannot be reached, does not warn of another committer."""
    given, away = threading.Semaphore(0), threading.Event()

    class Watcher(SqlCommitStore):
        def heartbeat(self, epoch: int) -> None:
            given.release()
            if away.is_set():
                raise TxnLogDatabaseError("the server is away", transient=True)
            super().heartbeat(epoch)

    def some_are_tried() -> None:
        while given.acquire(blocking=False):
            pass
        # The first of them may have begun before.
        assert all(given.acquire(timeout=60) for _ in range(3))

    address = StoreAddress(engine="sqlite", path=str(tmp_path / "lake.db"))
    log = open_event_log(f"sqlite://{tmp_path}/log.db")
    with closing(migrated(address)) as database, closing(log):
        store = made(database)
        leadership = Heartbeat(lambda: Watcher(open_database(address)), log, takeover_after=0.03)
        leadership.began(store.take_over("one").epoch)
        for change in (away.set, away.clear, away.set, away.clear):
            change()
            some_are_tried()
        store.take_over("two")
        some_are_tried()
        leadership.release()

    assert [record.message for record in caplog.records] == ["no heartbeat can be written"] * 2


def test_a_session_has_its_limits(direct: StoreAddress) -> None:
    """No statement, lock or idle transaction holds on for ever; an address may say otherwise."""
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
    parameters = (*direct.parameters, ("options", "-c lock_timeout=7s"))
    with closing(open_database(direct, create=True)) as database:
        outside = {name: database.query(f"SHOW {name}")[0][0] for name in names}
        with database.transaction():
            writing = database.query("SHOW idle_in_transaction_session_timeout")[0][0]
            isolation = database.query("SHOW transaction_isolation")[0][0]
    with closing(open_database(replace(direct, parameters=parameters))) as database:
        overridden = database.query("SHOW lock_timeout")[0][0]

    assert outside == {
        "statement_timeout": "100s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "10min",
        "application_name": "deltalakedb",
    }
    assert (writing, isolation, overridden) == ("20s", "read committed", "7s")


def test_a_server_that_may_forget_is_refused(direct: StoreAddress) -> None:
    """A commit that is told has to be on disk: with synchronous_commit off the committer does not start."""
    parameters = (*direct.parameters, ("options", "-c synchronous_commit=off"))
    migrated(direct).close()
    with (
        closing(open_database(replace(direct, parameters=parameters))) as database,
        pytest.raises(TxnLogHaltedError, match="Next step: set synchronous_commit = on") as halted,
    ):
        SqlCommitStore(database).verify()

    assert halted.value.state == "STORE_NOT_DURABLE"


@pytest.mark.slow
def test_a_server_that_takes_no_writes_is_refused(postgres_server: Postgres) -> None:
    """A replica, or one that is set to read-only: the committer does not begin, and does once it is promoted or set right."""
    address = postgres_address(postgres_server.url)
    with closing(migrated(address)) as database:
        database.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    with (
        closing(open_database(address)) as database,
        pytest.raises(TxnLogHaltedError, match="default_transaction_read_only") as read_only,
    ):
        SqlCommitStore(database).verify()
    with closing(open_database(address)) as database, database.transaction():
        database.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    postgres_server.stop()
    signal_file = postgres_server.folder / "data" / "standby.signal"
    signal_file.touch()
    shutil.copystat(signal_file.parent, signal_file)
    postgres_server.start()
    with closing(open_database(address)) as database:
        with pytest.raises(TxnLogHaltedError, match="is a replica") as replica:
            SqlCommitStore(database).verify()
        database.query("SELECT pg_promote()")
        SqlCommitStore(database).verify()

    assert read_only.value.state == replica.value.state == "STORE_READ_ONLY"


@pytest.mark.slow
def test_a_killed_server_loses_nothing(postgres_server: Postgres) -> None:
    """SIGKILL to the whole server between and during batches: what was written is there, the rest is not."""
    address = postgres_address(postgres_server.url)
    with closing(migrated(address)) as database:
        committer = DirectCommitter(made(database))
        committer.commit(create("orders"))
        written = 0
        for _ in range(10):
            committer.apply([staged(transaction(written + n)) for n in range(30)])
            written += 30
        postgres_server.kill()
        with pytest.raises(TxnLogDatabaseError) as failed:
            committer.apply([staged(transaction(written))])
        wait_until(lambda: not database.alive)
    postgres_server.start()
    with closing(open_database(address)) as database:
        committer = DirectCommitter(SqlCommitStore(database))
        position = committer.cursor.position
        committer.apply([staged(transaction(written))])
        files = database.query("SELECT count(*) FROM dl_live_files")

    assert failed.value.transient
    assert position == written + 1
    assert files == [(written + 1,)]


def test_passwords_are_never_shown(postgres_url: str, direct: StoreAddress) -> None:
    """Whatever is wrong with an address: neither the error nor its cause, nor how they are printed, shows a password."""
    parameters = dict(direct.parameters)
    wrong = [
        {**parameters, "password": CANARY},
        {**parameters, "password": CANARY, "port": "1"},
        {**parameters, "password": CANARY, "host": "nowhere.invalid"},
        {**parameters, "password": CANARY, "sslmode": "sideways"},
        {**parameters, "password": CANARY, "no_such_parameter": CANARY},
        {**parameters, "password": CANARY, "options": f"-c {CANARY}"},
        {**parameters, "password": "x", "dbname": f"postgresql://u:{IN_NAME}@h/d"},
        {**parameters, "passfile": "/nowhere", "user": f"u:{CANARY}@h"},
    ]
    shown = []
    for case in wrong[:-1]:
        with pytest.raises((TxnLogDatabaseError, TxnLogConfigError)) as caught:
            open_database(replace(direct, parameters=tuple(case.items())))
        shown += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
    shown += [repr(replace(direct, parameters=tuple(case.items()))) for case in wrong]

    assert len(shown) == 29
    assert [text for text in shown if CANARY in text or IN_NAME in text] == []


def test_a_fork_leaves_the_parents_connections_alone(address: StoreAddress) -> None:
    """A pool is usable on both sides of a fork; what the child inherited is neither used nor ended by it.

    A store that is one process's stays the parent's, and the child is told so.
    """
    migrated(address).close()
    pool = Pool(lambda: open_database(address))
    with pool.connection() as database:
        before = database
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pool.connection() as own:
                status = 0 if own is not before and own.query("SELECT 1") == [(1,)] else 2
            pool.close()
        except TxnLogStoreInUseError:
            status = 0 if address.one_process else 3
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    with pool.connection() as database:
        after = database
        found = database.query("SELECT 1")
    pool.close()

    assert os.waitstatus_to_exitcode(status) == 0
    assert after is before
    assert found == [(1,)]


def test_a_pool_keeps_a_few_connections(address: StoreAddress) -> None:
    """Threads share them, a failed one is replaced, no more than the limit stay open, and none after closing."""
    migrated(address).close()
    opened: list[Database] = []

    def open_one() -> Database:
        opened.append(open_database(address))
        return opened[-1]

    pool = Pool(open_one, idle=2)
    with pool.connection() as first, pool.connection() as second, pool.connection() as third:
        used = {first, second, third}
    kept = [database for database in opened if database.alive]
    with pytest.raises(TxnLogDatabaseError), pool.connection() as failing:
        failing.query("SELECT nothing FROM nowhere")
    left = [database for database in opened if database.alive]
    pool.close()
    with pytest.raises(TxnLogDatabaseError, match="closed"), pool.connection():
        pass

    assert len(used) == 3
    assert len(kept) == 2
    assert left == [database for database in kept if database is not failing]
    assert [database for database in opened if database.alive] == []


DISK_FULL = """
import os, resource, signal, sys
from deltalakedb.database import open_database
from deltalakedb.errors import TxnLogDatabaseError
from deltalakedb.uri import parse_uri

uri, checkpoint = sys.argv[1:]
address = parse_uri(uri).address
if checkpoint == "small":
    from deltalakedb.database import duckdb
    duckdb._SETTINGS["checkpoint_threshold"] = "500KB"
COLUMNS = ("table_no", "version", "n", "kind", "body")
database, idle = open_database(address), open_database(address)
idle.query("SELECT count(*) FROM dl_other_actions")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, resource.RLIM_INFINITY))
told = 0
try:
    while True:
        database.insert("dl_other_actions", COLUMNS, [(told, 0, n, "k", os.urandom(2_000).hex()) for n in range(50)])
        told += 1
except TxnLogDatabaseError:
    print(told, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if not database.alive:
    assert not idle.alive
    idle.close()
    database = open_database(address)
database.insert("dl_other_actions", COLUMNS, [(1_000_000, 0, n, "k", "") for n in range(50)])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("engine", "checkpoint"), [("sqlite", "usual"), ("duckdb", "usual"), ("duckdb", "small")])
def test_a_full_disk_loses_nothing(tmp_path: Path, engine: Engine, checkpoint: str) -> None:
    """INV3: writing fails where the disk is full, be it the log or the file; what was told stays, and it goes on after."""
    address = StoreAddress(engine=engine, path=str(tmp_path / "store"))
    migrated(address).close()
    code = [sys.executable, "-c", DISK_FULL, uri(address), checkpoint]
    ran = subprocess.run(code, capture_output=True, text=True, timeout=100)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    told = int(ran.stdout)
    with closing(open_database(address)) as database:
        found: dict[int, int] = dict(
            database.query("SELECT table_no, count(*) FROM dl_other_actions GROUP BY table_no")
        )

    assert told
    assert set(found.values()) == {50}
    assert {*range(told), 1_000_000} <= set(found) <= {*range(told + 1), 1_000_000}


WRITER = """
import sys
from contextlib import closing
from deltalakedb.database import open_database
from deltalakedb.uri import parse_uri
from deltalakedb_committer.storing.store import SqlCommitStore
from tests.faults.test_store_faults import write_history

with closing(open_database(parse_uri(sys.stdin.readline().strip()).address)) as database:
    database.query("SELECT ?", [1])  # whatever a driver loads when it is first used
    print("ready", flush=True)
    write_history(SqlCommitStore(database))
    print("done", flush=True)
"""
KILLS = 4
HISTORY_LENGTH = 300


def write_history(store: SqlCommitStore) -> None:
    """Decide what is left of the history of the kill test, in batches whose sizes nobody can tell."""
    committer = DirectCommitter(store)
    sizes = random.Random()
    while (position := committer.cursor.position) < HISTORY_LENGTH:
        batch = range(position, min(HISTORY_LENGTH, position + sizes.randint(1, 12)))
        committer.apply([staged(*history(n), txn_id=txn(n)) for n in batch], published=position)


def history(number: int) -> list[TableWork]:
    """Transaction `number` of the kill test: tables made, files added to two of them, and some removed again."""
    if number == 0:
        return [create("orders", partition_by=("day",)), create("lineitem")]
    works = [
        TableWork(name="orders", adds=(add(f"o{number}", day=str(number % 7)),)),
        TableWork(name="lineitem", adds=tuple(add(f"l{number}-{n}") for n in range(1 + number % 12))),
    ]
    if number % 5 == 0 and number > 5:
        works[0] = TableWork(name="orders", removes=(RemoveFile(path=f"o{number - 3}"),))
    return works


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_batches(address: StoreAddress, tmp_path: Path) -> None:
    """INV1, INV6, INV9: SIGKILL at any time, again and again: in the end the rows are those of one quiet run."""
    with closing(migrated(address)) as database:
        made(database)
    delays = random.Random(7)
    kills = 0
    while True:
        with writer(address) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if kills < KILLS:
                time.sleep(delays.uniform(0.0, 0.15))
                process.kill()
                kills += 1
            if process.stdout.readline() == "done\n":
                break
    found = stored(address)
    quiet = StoreAddress(engine="sqlite", path=str(tmp_path / "quiet.db"))
    with closing(migrated(quiet)) as database:
        write_history(made(database))
    expected = stored(quiet)
    for rows in (found, expected):
        del rows["dl_committer_position"], rows["dl_outbox"]  # how far publishing was depends on the batches

    assert found == expected


def writer(address: StoreAddress) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdin is not None
    process.stdin.write(uri(address) + "\n")
    process.stdin.flush()
    return process


def uri(address: StoreAddress) -> str:
    if address.path is not None:
        return f"deltasql://{address.engine}/{address.path}"
    known = dict(address.parameters)
    server = f"{known['user']}:{known['password']}@{known['host']}:{known['port']}"
    return f"postgresql://{server}/{known['dbname']}?schema={address.schema}"


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_session_is_ended_during_a_commit(committer: DirectCommitter, direct: StoreAddress) -> None:
    """As a takeover ends it. The error says "unknown": nobody can tell what the server was about to answer."""
    slow = (
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'; "
        "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON dl_committer_position DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep' AND query = 'COMMIT'"
    batch, cursor, _ = committer.prepare([staged(transaction(1))])
    with closing(open_database(direct)) as other, ThreadPoolExecutor(1) as threads:
        with other.transaction():
            other.script(slow)
        writing = threads.submit(committer.store.write, committer.cursor, batch, cursor)
        wait_until(lambda: other.query(f"SELECT pid {waiting}") != [])
        other.query(f"SELECT pg_terminate_backend(pid, 5000) {waiting}")
        with pytest.raises(TxnLogCommitUnknownError):
            writing.result(60)
        with pytest.raises(TxnLogDatabaseError, match="closed"):
            committer.store.cursor()
        found = SqlCommitStore(other).cursor()

    assert found == committer.cursor
