"""Bad input, end to end: a recorded rejection with a reason that the client sees, and nothing else lost or delayed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import msgspec
import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb.actions import AddFile, RemoveFile
from deltalakedb.codec import HEADER_OUTCOME, HEADER_TXN
from deltalakedb.errors import Reason
from deltalakedb.eventlog import EventLog, Message, Stream, open_event_log
from deltalakedb.events import Content, Outcome, TableWork
from deltalakedb.ids import new_txn_id
from deltalakedb.publishing import Sender, messages
from tests.pipeline import LakeAddress, embedded, on_servers
from tests.services.run import Addresses

ROW = pa.table({"day": ["monday"], "n": [1]})


@pytest.fixture(scope="module", params=["embedded", "servers"])
def address(
    request: pytest.FixtureRequest, servers: Addresses, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LakeAddress]:
    """A lake of either kind, with whatever it needs running."""
    folder = tmp_path_factory.mktemp("lake")
    with ExitStack() as stack:
        if request.param == "embedded":
            yield embedded(folder)
        else:
            yield stack.enter_context(on_servers(servers, folder)).address


@pytest.fixture(scope="module")
def lake(address: LakeAddress) -> Iterator[deltalakedb.Lake]:
    with address.connect() as lake:
        yield lake


@pytest.fixture
def table(lake: deltalakedb.Lake) -> str:
    """A table of the test's own, partitioned by day, with one row."""
    name = f"events_{uuid.uuid4().hex[:8]}"
    lake.append(name, ROW, partition_by="day")
    return name


def add(path: str, day: str | None = "monday") -> AddFile:
    values: dict[str, str | None] = {} if day is None else {"day": day}
    return AddFile(path=path, partition_values=values, size=1, modification_time=1)


BAD_WORK = {
    "a table that is not there": (TableWork(name="nothing", adds=(add("day=monday/f.parquet"),)), Reason.UNKNOWN_TABLE),
    "a path outside the table": (TableWork(adds=(add("../f.parquet"),)), Reason.INVALID_PATH),
    "an encoded path outside": (TableWork(adds=(add("day=monday/%2e%2e/f"),)), Reason.INVALID_PATH),
    "no partition value": (TableWork(adds=(add("f.parquet", day=None),)), Reason.PARTITION_MISMATCH),
    "a file that is not live": (
        TableWork(read_version=0, removes=(RemoveFile(path="day=monday/gone.parquet"),)),
        Reason.FILE_NOT_LIVE,
    ),
}


def open_log(lake: deltalakedb.Lake) -> EventLog:
    address = lake.settings.log_address
    assert address is not None
    return open_event_log(address)


def publish(lake: deltalakedb.Lake, records: Callable[[Sender], list[Message]]) -> None:
    """Append records to the lake's log as a client that checks nothing might."""
    sender = Sender(lake_id=lake.lake_id, root=lake.root, client_id="test", outcome_partition=0)
    with closing(open_log(lake)) as log:
        log.append(Stream.STAGED, records(sender)).result(60)


def decided(lake: deltalakedb.Lake, txn_id: str) -> Outcome:
    """The recorded outcome of a transaction, as soon as there is one."""
    deadline = time.monotonic() + 60
    while (outcome := lake.outcome(txn_id)) is None:
        assert time.monotonic() < deadline, "no decision was recorded"
        lake.snapshot()
    return outcome


@pytest.mark.parametrize("what", BAD_WORK)
def test_bad_transaction(lake: deltalakedb.Lake, table: str, what: str) -> None:
    """A transaction that breaks a rule in one table is rejected whole with a recorded reason; the next one commits."""
    work, reason = BAD_WORK[what]
    other = f"{table}_other"
    lake.append(other, ROW, partition_by="day")
    bad = work if work.name else msgspec.structs.replace(work, name=table)
    good = TableWork(name=other, adds=(add("day=monday/good.parquet"),))
    txn_id = new_txn_id()
    publish(lake, lambda sender: messages(txn_id, Content(tables=(good, bad)), sender))
    outcome = decided(lake, txn_id)

    assert outcome.rejected is not None
    assert outcome.rejected.reason == reason
    assert outcome.rejected.table == bad.name
    assert lake.append(other, ROW).versions == {other: 1}


def test_undecodable_event(lake: deltalakedb.Lake, table: str) -> None:
    """Bytes that are no event are answered by their headers, recorded, and put aside as a dead letter; what comes
    before and after them in the log is decided as ever."""
    txn_id, good = new_txn_id(), new_txn_id()
    garbage = Message(b"\x00garbage", ((HEADER_TXN, txn_id.encode()), (HEADER_OUTCOME, b"0")))
    content = Content(tables=(TableWork(name=table, adds=(add("day=monday/good.parquet"),)),))
    publish(lake, lambda sender: [garbage, *messages(good, content, sender)])
    outcome = decided(lake, txn_id)

    assert outcome.rejected is not None
    assert outcome.rejected.reason == Reason.UNDECODABLE_EVENT
    committed = decided(lake, good).committed
    assert committed is not None
    assert [(changed.name, changed.version) for changed in committed.tables] == [(table, 1)]
    with closing(open_log(lake)) as log, closing(log.reader(Stream.DEAD_LETTER, 0)) as letters:
        assert [letter.value for letter in letters.read(10, 10)] == [b"\x00garbage"]


def test_bad_rows(lake: deltalakedb.Lake, table: str) -> None:
    """Rows that do not fit the table are refused before anything is published."""
    with pytest.raises(deltalakedb.TxnLogSchemaError, match="n"), lake.begin() as tx:
        tx.stage_table(table, pa.table({"day": ["monday"], "n": ["no number"]}))

    assert lake.version(table) == 0


def test_typed_error(lake: deltalakedb.Lake, table: str) -> None:
    """What the committer refuses reaches the client as a typed error that names reason, table and transaction."""
    with pytest.raises(deltalakedb.TxnLogRejectedError) as caught, lake.begin() as tx:
        tx.stage_table(table, actions=[add("../outside.parquet")])

    assert caught.value.reason == Reason.INVALID_PATH
    assert caught.value.table == table
    assert caught.value.txn_id == tx.txn_id


def test_two_first_appends(address: LakeAddress) -> None:
    """Two clients that each create the same table by a first append at the same time both succeed."""
    with address.connect() as one, address.connect() as other, ThreadPoolExecutor(2) as pool:
        staged = []
        for lake in (one, other):
            tx = lake.begin()
            tx.stage_table("fresh", pa.table({"n": [1]}))
            staged.append(tx)
        results = list(pool.map(lambda tx: tx.commit(), staged))
        rows = one.snapshot().table("fresh").to_arrow()

    assert sorted(result.versions["fresh"] for result in results) == [0, 1]
    assert rows["n"].to_pylist() == [1, 1]
