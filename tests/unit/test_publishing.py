"""What is published: one record where it fits, chunks that the committer puts together to the same content where not."""

from __future__ import annotations

import pytest

from deltalakedb.actions import AddFile, RemoveFile
from deltalakedb.codec import HEADER_CHUNK, HEADER_OUTCOME, HEADER_TXN, decode
from deltalakedb.errors import TxnLogValidationError
from deltalakedb.eventlog import MAX_RECORD_BYTES, Message
from deltalakedb.events import (
    AppTransaction,
    Content,
    CreateTable,
    Predicate,
    ReadSet,
    StagedTransaction,
    TableWork,
    Term,
    WrittenAgainst,
)
from deltalakedb.ids import new_txn_id
from deltalakedb.publishing import AT_ONCE, MANY_FILES, Sender, messages, publication
from deltalakedb_committer.deciding.assembly import assemble, assembled
from deltalakedb_committer.deciding.chunks import StagedChunk, StagedChunks
from deltalakedb_committer.deciding.rules import rules

SENDER = Sender(lake_id="lake", root="file:///root", client_id="me", outcome_partition=3)


def add(number: int, size: int = 100) -> AddFile:
    return AddFile(path=f"{number:08d}", partition_values={}, size=1, modification_time=1, stats="x" * size)


def staged(message: Message) -> StagedTransaction:
    event = decode(message.value)
    assert isinstance(event, StagedTransaction)
    return event


def reassembled(found: list[Message], order: list[int] | None = None) -> Content:
    """What the committer makes of the records, in any order of arrival."""
    kept = StagedChunks()
    for index in order or range(len(found)):
        result = assemble(staged(found[index]), kept, rules(1), position=index)
        if isinstance(result, Content):
            return result
        assert isinstance(result, StagedChunk)
        kept.put(result)
        if kept.is_complete:
            return assembled(kept)
    raise AssertionError("the transaction is not complete")


def test_small_transactions_are_one_record() -> None:
    """A small transaction is one record, whose headers say whose it is without decoding."""
    txn_id = new_txn_id()
    content = Content(tables=(TableWork(name="a", adds=(add(1),)),), engine_info="e")

    (found,) = messages(txn_id, content, SENDER)

    assert dict(found.headers) == {HEADER_TXN: txn_id.encode(), HEADER_OUTCOME: b"3", HEADER_CHUNK: b"0/1"}
    event = staged(found)
    assert event.content == content
    assert (event.envelope.txn_id, event.envelope.client_id, event.envelope.outcome_partition) == (txn_id, "me", 3)
    assert messages(txn_id, content, SENDER) == [found], "the same content is always the same bytes"


def large() -> Content:
    first = TableWork(
        name="new",
        intents=(CreateTable(schema_string="{}", properties={"a": "b"}),),
        operation_parameters={"mode": "Append"},
        adds=tuple(add(n) for n in range(6_000)),
    )
    second = TableWork(
        id="some-id",
        read_version=5,
        read_set=ReadSet(files=tuple(f"read-{n:050d}" for n in range(9_000)), predicates=(Predicate((Term("true"),)),)),
        written_against=WrittenAgainst(1, 2),
        adds=(add(7),),
        removes=tuple(RemoveFile(path=f"gone-{n:050d}") for n in range(9_000)),
    )
    third = TableWork(id="only-read", read_version=1, read_set=ReadSet(whole_table=True))
    return Content(tables=(first, second, third), apps=(AppTransaction("app", 1),), user_metadata="u", engine_info="e")


def test_large_transactions_are_put_together_again() -> None:
    """Chunks each fit into a record, carry one digest, and make the same content in whatever order they arrive."""
    content = large()

    found = messages(new_txn_id(), content, SENDER)

    assert 2 < len(found) < 10
    assert all(len(message.value) <= MAX_RECORD_BYTES for message in found)
    assert len({staged(message).envelope.digest for message in found}) == 1
    assert reassembled(found) == content
    assert reassembled(found, list(reversed(range(len(found))))) == content


def test_the_chunks_of_big_transactions_are_made_one_by_one() -> None:
    """They are encoded when they are sent, each time to the same bytes, and none is kept."""
    removes = tuple(RemoveFile(path=f"{n:08d}") for n in range(MANY_FILES + 1))
    content = Content(tables=(TableWork(name="t", read_version=1, removes=removes),))

    found = publication(new_txn_id(), content, SENDER)

    assert found.is_big
    assert found.count > AT_ONCE
    first = list(found.messages())
    assert len(first) == found.count
    assert first == list(found.messages())
    assert reassembled(first) == content


def test_uneven_actions_still_fit() -> None:
    """A few large actions among many small ones do not make a chunk too large."""
    content = Content(
        tables=(TableWork(id="t", adds=tuple(add(n, 60_000 if n % 10 == 0 else 10) for n in range(300))),)
    )

    found = messages(new_txn_id(), content, SENDER)

    assert all(len(message.value) <= MAX_RECORD_BYTES for message in found)
    assert reassembled(found) == content


def test_large_definition_beside_files() -> None:
    """A definition that fills most of a record travels alone, its files after it."""
    work = TableWork(
        name="t", intents=(CreateTable(schema_string="s" * 850_000),), adds=(add(1, 60_000), add(2, 60_000))
    )
    content = Content(tables=(work,))

    found = messages(new_txn_id(), content, SENDER)

    assert reassembled(found) == content


@pytest.mark.parametrize(
    "work",
    [
        TableWork(name="t", adds=(add(1, 950_000),)),
        TableWork(name="t", intents=(CreateTable(schema_string="s" * 950_000),), adds=(add(1),)),
    ],
)
def test_what_cannot_be_cut(work: TableWork) -> None:
    """A single piece that is larger than a record is refused before anything is published."""
    with pytest.raises(TxnLogValidationError, match="cannot be cut"):
        messages(new_txn_id(), Content(tables=(work,)), SENDER)
