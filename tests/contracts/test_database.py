"""What every SQL adapter promises (`database/port.py`), on every engine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

import pyarrow as pa
import pytest

from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogConfigError, TxnLogDatabaseError
from deltalakedb.uri import lake_uri
from tests.stores import address

__all__ = ["address"]

COLUMNS = ("id", "name", "flag", "data", "note")


@pytest.fixture
def database(address: StoreAddress) -> Iterator[Database]:
    """A store with a table and a view of the test's own."""
    database = open_database(address, create=True)
    binary = "BYTEA" if database.dialect == "postgres" else "BLOB"
    with database.transaction():
        database.script(f"""
            CREATE TABLE things (id BIGINT PRIMARY KEY, name TEXT, flag BOOLEAN, data {binary}, note TEXT);
            -- A comment; with a semicolon.
            CREATE VIEW some_things AS SELECT id, flag FROM things WHERE id < 100 UNION ALL SELECT id, flag FROM things;
        """)
    yield database
    database.close()


def rows(count: int, start: int = 0) -> list[tuple[object, ...]]:
    return [(n, f"name {n}", n % 2 == 0, bytes([n % 256]), None) for n in range(start, start + count)]


def count(database: Database) -> int:
    return int(database.query("SELECT count(*) FROM things")[0][0])


@contextmanager
def other_connection(address: StoreAddress, *, create: bool = False) -> Iterator[Database]:
    database = open_database(address, create=create)
    try:
        yield database
    finally:
        database.close()


@pytest.mark.parametrize("number", [0, 1, 3, 50, 3_000])
@pytest.mark.parametrize("inside", [True, False])
def test_inserted_rows_come_back_as_they_were(database: Database, number: int, inside: bool) -> None:
    """Integers, texts, flags, bytes and nulls survive whatever way the adapter picks for the number of rows."""
    expected = rows(number)
    if inside:
        with database.transaction():
            database.insert("things", COLUMNS, expected)
    else:
        database.insert("things", COLUMNS, expected)
    found = database.query("SELECT id, name, flag, data, note FROM things ORDER BY id")

    assert found == expected


@pytest.mark.parametrize("number", [1, 20, 50])
def test_values_are_kept_exactly(database: Database, number: int) -> None:
    """64-bit integers, any text that is not NUL, and any bytes come back unchanged, single or many."""
    texts = ["", "a\tb\nc\r", "back\\slash", '"quoted" {brace, comma}', "NULL", "ß漢字🦆", "\\N", "%s ? 'x'"]
    expected = [
        (sign * (2**63 - 1) + n, texts[n % len(texts)], None, bytes(range(256)), None)
        for n, sign in zip(range(number), [-1] * number, strict=True)
    ]
    database.insert("things", COLUMNS, expected)
    found = database.query("SELECT id, name, flag, data, note FROM things ORDER BY id")

    assert found == expected


def test_flags_are_booleans_wherever_they_come_from(database: Database) -> None:
    """A BOOLEAN column gives `bool` from the table, through a view, from a stream, and as a parameter."""
    database.insert("things", COLUMNS, rows(2))
    direct = database.query("SELECT flag FROM things WHERE flag = ? ORDER BY id", [True])
    through_view = database.query("SELECT flag FROM some_things WHERE id = 1")
    with database.snapshot():
        streamed = [row for batch in database.stream("SELECT flag FROM things ORDER BY id") for row in batch]

    assert [value for (value,) in direct] == [True]
    assert all(value is False for (value,) in through_view)
    assert [type(value) for (value,) in streamed] == [bool, bool]


def test_lists_are_parameters(database: Database) -> None:
    """`= ANY(?)` takes lists of integers and of texts, empty ones and such with every awkward character included."""
    awkward = ['"', "\\", "a,b", "{}", "NULL", "ß", "it's", ""]
    database.insert("things", COLUMNS, [(n, text, None, None, None) for n, text in enumerate(awkward)])
    by_text = database.query("SELECT name FROM things WHERE name = ANY(?) ORDER BY id", [[*awkward, "absent"]])
    by_number = database.query("SELECT id FROM things WHERE id = ANY(?) AND id > ? ORDER BY id", [[0, 1, 2, 2**62], 0])
    nothing = database.query("SELECT id FROM things WHERE id = ANY(?)", [[]])

    assert [text for (text,) in by_text] == awkward
    assert by_number == [(1,), (2,)]
    assert nothing == []


def test_rows_are_a_parameter(database: Database) -> None:
    """`ROWS(?)` is read from like a table: joined, inserted from, and in a subquery; nulls and no rows included."""
    database.insert("things", COLUMNS, rows(10))
    keys = "ROWS(?) AS k (id BIGINT, label TEXT)"
    joined = database.query(
        f"SELECT t.id, k.label FROM {keys} CROSS JOIN things t WHERE t.id = k.id AND t.id <> ? ORDER BY t.id",
        [[(3, 'x"\\'), (5, None), (99, "z")], 4],
    )
    database.execute(f"INSERT INTO things (id, name) SELECT k.id, k.label FROM {keys}", [[(100, "a"), (101, None)]])
    deleted = database.execute(
        f"DELETE FROM things WHERE (id, name) IN (SELECT k.id, k.label FROM {keys})", [[(100, "a")]]
    )
    nothing = database.query(f"SELECT k.id FROM {keys}", [[]])

    assert joined == [(3, 'x"\\'), (5, None)]
    assert database.query("SELECT name FROM things WHERE id >= 100") == [(None,)]
    assert deleted == 1
    assert nothing == []


def test_upsert_from_rows(database: Database) -> None:
    """Rows given as a parameter can replace those that are there."""
    database.insert("things", COLUMNS, rows(2))
    upsert = (
        "INSERT INTO things (id, name) SELECT k.id, k.name FROM ROWS(?) AS k (id BIGINT, name TEXT) WHERE TRUE "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    )
    database.submit(upsert, [[(1, "new"), (2, "more")]])

    assert database.query("SELECT name FROM things ORDER BY id") == [("name 0",), ("new",), ("more",)]


@pytest.mark.parametrize("block", ["snapshot", "transaction", None])
def test_many_queries_at_once(database: Database, block: str | None) -> None:
    """Each statement gives its rows, in order, in a block and outside; in a transaction they see what it wrote."""
    database.insert("things", COLUMNS, rows(5))
    statements: list[tuple[str, Sequence[object]]] = [
        ("SELECT id FROM things WHERE id < ? ORDER BY id", [2]),
        ("SELECT name FROM things WHERE id = ANY(?)", [[]]),
        ("SELECT k.id FROM ROWS(?) AS k (id BIGINT) ORDER BY k.id", [[(7,), (8,)]]),
        ("SELECT flag, note FROM things WHERE id >= ? ORDER BY id", [4]),
    ]
    expected: list[list[tuple[object, ...]]] = [[(0,), (1,)], [], [(7,), (8,)], [(True, None)]]
    with nullcontext() if block is None else getattr(database, block)():
        if block == "transaction":
            database.submit("INSERT INTO things (id, flag) VALUES (?, ?)", [9, False])
            expected[3].append((False, None))
        found = database.query_all(statements)
        nothing = database.query_all([])
        after = database.query("SELECT count(*) FROM things")

    assert found == expected
    assert nothing == []
    assert after == [(5 + (block == "transaction"),)]


def test_one_of_many_queries_fails(database: Database) -> None:
    """The error of a statement among many is told, and the connection works on."""
    database.insert("things", COLUMNS, rows(2))
    with pytest.raises(TxnLogDatabaseError, match="nothing"), database.snapshot():
        database.query_all([("SELECT id FROM things", []), ("SELECT id FROM nothing", []), ("SELECT 1", [])])

    assert count(database) == 2


@pytest.mark.parametrize("inside", [True, False])
def test_rows_move(database: Database, inside: bool) -> None:
    """Rows are moved by their key, whole and with what is added to them; those that are not there are not counted."""
    with database.transaction():
        binary = "BYTEA" if database.dialect == "postgres" else "BLOB"
        database.script(
            f"CREATE TABLE old_things (name TEXT, id BIGINT PRIMARY KEY, flag BOOLEAN, data {binary}, since BIGINT)"
        )
    database.insert("things", COLUMNS, rows(100))

    def move(ids: range, since: int) -> int:
        given = [(n, since) for n in ids]
        return database.move("things", "old_things", COLUMNS[:4], given, by=("id",), adding=("since",))

    if inside:
        with database.transaction():
            moved = [move(range(90, 110), 7), move(range(90, 91), 8), move(range(5), 2**62)]
    else:
        moved = [move(range(90, 110), 7), move(range(90, 91), 8), move(range(5), 2**62)]
    found = database.query("SELECT id, name, flag, data, since FROM old_things ORDER BY id")

    assert moved == [10, 0, 5]
    assert found == [(*row[:4], 2**62) for row in rows(5)] + [(*row[:4], 7) for row in rows(10, 90)]
    assert database.query("SELECT min(id), max(id), count(*) FROM things") == [(5, 89, 85)]


def test_rows_that_cannot_move_stay(database: Database) -> None:
    """Where the other table refuses one of the rows, all of them stay."""
    with database.transaction():
        database.script("CREATE TABLE old_things (id BIGINT PRIMARY KEY, since BIGINT)")
    database.insert("things", COLUMNS, rows(4))
    database.insert("old_things", ("id", "since"), [(3, 0)])
    with pytest.raises(TxnLogDatabaseError):
        database.move("things", "old_things", ("id",), [(n, 1) for n in range(4)], by=("id",), adding=("since",))

    assert count(database) == 4
    assert database.query("SELECT id, since FROM old_things") == [(3, 0)]


def test_a_key_that_is_free_again_can_be_used(database: Database, address: StoreAddress) -> None:
    """A row may take the key of one that went, in the same transaction or a later one, though a snapshot sees the old."""
    database.insert("things", COLUMNS, rows(40))
    with other_connection(address) as other, other.snapshot():
        before = count(other)
        for turn in range(3):
            with database.transaction():
                database.execute("DELETE FROM things WHERE id < ?", [20])
                database.insert("things", COLUMNS, [(n, f"turn {turn}", None, None, None) for n in range(20)])
            database.execute("DELETE FROM things WHERE id = ANY(?)", [[30, 31]])
            database.execute("UPDATE things SET id = 30 WHERE id = 32")
            database.execute_many("INSERT INTO things (id, name) VALUES (?, ?)", [(31, "a"), (32, "b")])
        after = count(other)

    assert (before, after, count(database)) == (40, 40, 40)
    assert database.query("SELECT DISTINCT name FROM things WHERE id < 20") == [("turn 2",)]


def test_execute_counts_rows(database: Database) -> None:
    """The number of rows touched, inside and outside a transaction; changed rows come back by RETURNING."""
    database.insert("things", COLUMNS, rows(5))
    outside = database.execute("UPDATE things SET note = ? WHERE id > ?", ["x", 2])
    with database.transaction():
        inside = database.execute("DELETE FROM things WHERE note = ?", ["x"])
        none = database.execute("DELETE FROM things WHERE note = ?", ["x"])
    returned = database.query("UPDATE things SET note = ? WHERE id = 0 RETURNING id, flag", ["y"])

    assert (outside, inside, none) == (2, 2, 0)
    assert returned == [(0, True)]


def test_execute_many_runs_every_row(database: Database) -> None:
    """One statement for many rows of parameters, lists among them."""
    database.insert("things", COLUMNS, rows(20))
    database.execute_many("UPDATE things SET note = ? WHERE id = ANY(?)", [("a", [1, 2]), ("b", [3]), ("c", [])])

    found = database.query("SELECT id, note FROM things WHERE note IS NOT NULL ORDER BY id")
    assert found == [(1, "a"), (2, "a"), (3, "b")]


def test_execute_many_goes_on_after_whatever_ended_before(database: Database) -> None:
    """An adapter that prepares statements knows after every end of a block which of them the server still has."""
    for turn in range(20):
        with suppress(KeyError), database.transaction():
            database.execute("UPDATE things SET note = ? WHERE id = ?", ["x", turn])
            if turn % 2:
                raise KeyError(turn)
        with database.snapshot():
            database.query("SELECT id FROM things WHERE id = ?", [turn])
        database.execute_many("INSERT INTO things (id, name) VALUES (?, ?)", [(2 * turn, "a"), (2 * turn + 1, "b")])

    assert count(database) == 40


def test_a_transaction_commits_when_its_block_ends(database: Database, address: StoreAddress) -> None:
    """Nobody else sees anything of it before its end, everybody everything after; it sees itself."""
    with other_connection(address) as other:
        with database.transaction():
            database.insert("things", COLUMNS, rows(1))
            database.insert("things", COLUMNS, rows(100, 10))
            own, before = count(database), count(other)
        after = count(other)

    assert (own, before, after) == (101, 0, 101)


def test_an_exception_rolls_back(database: Database) -> None:
    """The block's own exception comes out, and nothing of the block stays; the connection goes on."""

    def fail() -> None:
        with database.transaction():
            database.insert("things", COLUMNS, rows(1))
            database.insert("things", COLUMNS, rows(100, 10))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()

    assert count(database) == 0
    database.insert("things", COLUMNS, rows(1))
    assert count(database) == 1


@pytest.mark.parametrize("number", [1, 20, 50])
def test_a_failed_statement_fails_its_transaction(database: Database, number: int) -> None:
    """Its error comes out at the latest where the block ends, and nothing of the block stays."""
    database.insert("things", COLUMNS, rows(1))

    def fail() -> None:
        with database.transaction():
            database.insert("things", COLUMNS, rows(1, 500))
            database.insert("things", COLUMNS, rows(number))
            database.submit("UPDATE things SET note = ?", ["never"])

    with pytest.raises(TxnLogDatabaseError, match=r"(?i)unique|duplicate key") as caught:
        fail()

    assert caught.value.__cause__ is not None
    assert not caught.value.transient
    assert caught.value.refuses_rows
    assert database.query("SELECT id, note FROM things") == [(0, None)]


def test_a_swallowed_error_still_fails_the_transaction(database: Database) -> None:
    """Who catches a statement's error inside the block does not get half a transaction committed."""
    database.insert("things", COLUMNS, rows(1))

    def swallow() -> None:
        with database.transaction():
            database.insert("things", COLUMNS, rows(1, 500))
            with pytest.raises(TxnLogDatabaseError):
                database.execute("INSERT INTO things (id) VALUES (?)", [0])
            with pytest.raises(TxnLogDatabaseError):
                database.query("SELECT 1")

    with pytest.raises(TxnLogDatabaseError):
        swallow()

    assert count(database) == 1


@pytest.mark.parametrize("number", [2, 50])
def test_outside_a_transaction_a_call_is_all_or_nothing(database: Database, number: int) -> None:
    """Many rows of which one is refused leave nothing, without a transaction around them too."""
    with pytest.raises(TxnLogDatabaseError):
        database.insert("things", COLUMNS, [*rows(number), rows(1)[0]])
    with pytest.raises(TxnLogDatabaseError):
        database.execute_many("INSERT INTO things (id) VALUES (?)", [(1,), (2,), (1,)])

    assert count(database) == 0


def test_transactions_are_not_nested(database: Database) -> None:
    """A block inside a block is a mistake in the program, and says so."""
    with pytest.raises(TxnLogDatabaseError, match="under way"), database.transaction(), database.transaction():
        pass
    with pytest.raises(TxnLogDatabaseError, match="under way"), database.snapshot(), database.transaction():
        pass

    assert count(database) == 0


def test_a_snapshot_sees_one_state(database: Database, address: StoreAddress) -> None:
    """Whatever is committed meanwhile, all queries of a snapshot see the same; the next one sees the rest."""
    database.insert("things", COLUMNS, rows(1))
    with other_connection(address) as other:
        with other.snapshot():
            first = count(other)
            database.insert("things", COLUMNS, rows(50, 1))
            second = count(other)
        third = count(other)

    assert (first, second, third) == (1, 1, 51)


def test_a_snapshot_changes_nothing(database: Database) -> None:
    """Writing in a snapshot is refused; writing after it is not."""
    with pytest.raises(TxnLogDatabaseError), database.snapshot():
        database.execute("INSERT INTO things (id) VALUES (?)", [1])
    database.execute("INSERT INTO things (id) VALUES (?)", [1])

    assert count(database) == 1


def test_streams_come_in_batches(database: Database) -> None:
    """No batch is larger than asked for, nothing is missing, and another query may run between two batches."""
    database.insert("things", COLUMNS, rows(1_000))
    sizes = []
    with database.snapshot():
        for batch in database.stream("SELECT id FROM things WHERE id >= ?", [100], batch=300):
            sizes.append(len(batch))
            assert count(database) == 1_000

    assert sizes == [300, 300, 300]


def test_streams_come_as_arrow(database: Database) -> None:
    """Every row once, with the types asked for, whatever kind a parameter is."""
    database.insert("things", COLUMNS, [(n, f"it's 100% {n}", n % 2 == 0, None, None) for n in range(25)])
    kinds = {"id": pa.int64(), "name": pa.string(), "flag": pa.bool_(), "note": pa.string()}
    schema = pa.schema([pa.field(name, kind) for name, kind in kinds.items()])
    statement = "SELECT id, name, flag, note FROM things WHERE id >= ? AND name <> ? AND id = ANY(?) ORDER BY id"
    parameters = [20, "it's 100% 22", list(range(24))]
    with database.snapshot():
        batches = list(database.stream_arrow(statement, parameters, schema=schema, batch=2))
    found = pa.Table.from_batches(batches, schema=schema)

    assert found.to_pylist() == [
        {"id": n, "name": f"it's 100% {n}", "flag": n % 2 == 0, "note": None} for n in (20, 21, 23)
    ]


def test_an_arrow_stream_sees_its_snapshot(database: Database, address: StoreAddress) -> None:
    """What others commit after the snapshot began is not in it."""
    database.insert("things", COLUMNS, rows(5))
    schema = pa.schema([("id", pa.int64())])
    with other_connection(address) as other, database.snapshot():
        before = count(database)
        other.insert("things", COLUMNS, rows(5, start=5))
        found = sum(batch.num_rows for batch in database.stream_arrow("SELECT id FROM things", schema=schema))

    assert (before, found) == (5, 5)


def test_an_arrow_stream_may_be_left(database: Database) -> None:
    """Whoever stops in the middle can go on with something else; an error says what failed."""
    database.insert("things", COLUMNS, [(n, "x" * 1_000, False, None, None) for n in range(5_000)])
    schema = pa.schema([("name", pa.string())])
    with database.snapshot():
        stream = database.stream_arrow("SELECT name FROM things", schema=schema, batch=10)
        first = next(iter(stream))
        del stream
        counted = count(database)
    with pytest.raises(TxnLogDatabaseError, match="nosuch"), database.snapshot():
        list(database.stream_arrow("SELECT name FROM nosuch", schema=schema))

    assert first.num_rows > 0
    assert counted == 5_000


def test_streams_need_a_block(database: Database) -> None:
    """Outside a block a stream would see several states: it is refused."""
    with pytest.raises(TxnLogDatabaseError, match="snapshot"):
        list(database.stream("SELECT id FROM things"))


def test_writers_take_turns(database: Database, address: StoreAddress) -> None:
    """Two connections that read, add and write in transactions lose no update: the one waits and sees the other."""
    database.execute("INSERT INTO things (id) VALUES (?)", [0])

    def add() -> None:
        with other_connection(address) as own:
            for _ in range(100):
                with own.transaction():
                    own.execute("UPDATE things SET id = id + 1")

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert database.query("SELECT id FROM things") == [(300,)]


ANOTHER_PROCESS = """
import sys
from deltalakedb.database import open_database
from deltalakedb.errors import TxnLogStoreInUseError
from deltalakedb.uri import parse_uri

try:
    database = open_database(parse_uri(sys.stdin.readline().strip()).address)
except TxnLogStoreInUseError as error:
    sys.exit(str(error))
database.execute("INSERT INTO things (id) VALUES (1)")
database.close()
"""


def test_other_processes(database: Database, address: StoreAddress) -> None:
    """Another process writes to the store that is open here, and both see it.

    Where a store is one process's, the other one is refused by name, told who has it and what to do, and gets it once it
    is closed here.
    """

    def another() -> str:
        process = [sys.executable, "-c", ANOTHER_PROCESS]
        ran = subprocess.run(process, input=lake_uri(address), capture_output=True, text=True, timeout=100)
        return ran.stderr.strip()

    if address.one_process:
        refused = another()
        assert count(database) == 0
        assert f"(PID {os.getpid()})" in refused
        assert "close the lake there" in refused
        assert "SQLite or Postgres" in refused
        database.close()
    said = another()

    assert said == ""
    with other_connection(address) as own:
        assert count(own) == 1


def test_another_thread_may_end_a_statement(database: Database) -> None:
    """It fails, its transaction is rolled back, and the connection goes on; with nothing to end nothing happens."""
    database.cancel()
    began, failed = threading.Event(), threading.Event()

    def run() -> None:
        with suppress(TxnLogDatabaseError), database.transaction():
            database.insert("things", COLUMNS, rows(1))
            began.set()
            try:
                database.query(
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
                    "SELECT count(*) FROM n"
                )
            except TxnLogDatabaseError:
                failed.set()
                raise

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    while thread.is_alive() and not failed.wait(0.02):
        database.cancel()
    thread.join()

    assert failed.is_set()
    assert count(database) == 0
    database.insert("things", COLUMNS, rows(2))
    assert count(database) == 2


def test_a_closed_database_raises(database: Database) -> None:
    """Closing twice is fine; using it afterwards is an error of ours, whatever the call."""
    before = database.alive
    database.close()
    database.close()
    after = database.alive

    assert (before, after) == (True, False)
    with pytest.raises(TxnLogDatabaseError, match="closed"):
        database.query("SELECT 1")
    with pytest.raises(TxnLogDatabaseError, match="closed"), database.transaction():
        pass
    with pytest.raises(TxnLogDatabaseError, match="closed"):
        database.insert("things", COLUMNS, rows(50))


def test_statements_may_hold_percent_signs(database: Database) -> None:
    """An operator that a driver takes for a placeholder reaches the engine."""
    assert database.query("SELECT 7 % ?", [4]) == [(3,)]
    assert database.query("SELECT 7 % 4") == [(3,)]


def test_a_store_that_is_not_there_is_not_made_by_accident(address: StoreAddress) -> None:
    """Without `create` opening makes nothing: a mistyped address is an error, at once or at the first query."""
    with pytest.raises((TxnLogConfigError, TxnLogDatabaseError)), other_connection(address) as database:
        database.query("SELECT count(*) FROM dl_lake")


def test_a_store_without_our_tables_says_what_to_do(address: StoreAddress) -> None:
    """The error names the next step."""
    with (
        other_connection(address, create=True) as database,
        pytest.raises(TxnLogDatabaseError, match="deltalakedb migrate"),
    ):
        database.query("SELECT count(*) FROM dl_lake")
