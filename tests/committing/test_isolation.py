"""Events that kill the committer: isolated after a few deaths and recorded, and nothing else is."""

from __future__ import annotations

import signal
import uuid
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from deltalakedb.codec import HEADER_ISOLATED, HEADER_POSITION
from deltalakedb.errors import Reason
from deltalakedb.eventlog import Stream
from deltalakedb.events import Content, Outcome
from deltalakedb_committer.deciding.isolation import DEATHS
from deltalakedb_committer.deciding.rules import rules
from tests.committing.invariants import read_all, told
from tests.committing.served import ServedLake
from tests.model_lake import chunked, staged, txn
from tests.mortuary import Mortuary
from tests.works import append

ALONE = 2 * DEATHS
"""Deaths until an event is isolated that only kills who decides it: in a batch, then by itself."""


def killed_until_decided(served: ServedLake, **how: object) -> list[int]:
    """How each committer ended that was started before everything was decided."""
    ends: list[int] = []
    while True:
        pid = served.start(**how)  # type: ignore[arg-type]
        served.until(lambda: not served.running(pid) or served.is_decided(), "an end or a decision")  # noqa: B023
        if served.is_decided():
            assert served.stop(pid) == 0, served.tail()
            return ends
        ends.append(served.wait(pid))
        assert len(ends) < 20, served.tail()


@pytest.mark.parametrize(
    ("at", "act", "folds", "deaths"),
    [
        ("committer.decoding", "segv", False, DEATHS),
        ("committer.decoding", "kill", True, ALONE),
        ("committer.deciding", "kill", False, ALONE),
        ("committer.position-moved", "segv", True, ALONE),
    ],
)
def test_an_event_that_kills_is_isolated(served: ServedLake, at: str, act: str, folds: bool, deaths: int) -> None:
    """Wherever it kills: those before, beside and after it are committed, it is rejected and its client told, and the log
    decided again gives the same rows."""
    if folds:
        served.fold()
    served.settle()
    before, killer, after = (
        [staged(append(f"{n}{k}", name="left")) for k in range(3)] for n in ("before", "killer", "after")
    )
    deadly = killer[1].envelope.txn_id
    first = served.log.end(Stream.STAGED)
    served.publish([*before, *killer, *after])
    position = first + 4

    ends = killed_until_decided(served, at=at, act=act, over=deadly)

    assert set(ends) == {-(signal.SIGSEGV if act == "segv" else signal.SIGKILL)}
    # One more, where the log gave those before it by themselves: then they were the first batch.
    assert deaths <= len(ends) <= deaths + 1
    served.check()
    assert [row for row in served.isolated() if row[1]] == [(position, True, DEATHS)]
    with served.database() as database:
        decided: dict[str, bool] = dict(database.query("SELECT txn_id, committed FROM dl_transactions"))
        (claimed,) = database.query(
            "SELECT claimed_txn_id, event_hash FROM dl_transactions WHERE position = ?", [position]
        )
        (row,) = database.query("SELECT event_hash, size, reason FROM dl_isolated_events WHERE rejected")
    innocent = [event.envelope.txn_id for event in (*before, *killer, *after) if event is not killer[1]]
    assert [decided[txn_id] for txn_id in innocent] == [True] * 8
    assert claimed == (deadly, row[0])
    (letter,) = (
        found
        for found in read_all(served.log, Stream.DEAD_LETTER)
        if int(dict(found.headers)[HEADER_POSITION]) == position and HEADER_ISOLATED not in dict(found.headers)
    )
    (record,) = (found for found in read_all(served.log, Stream.STAGED) if found.position == position)
    assert letter.value == record.value
    assert len(record.value) == row[1]
    answers = [
        outcome.rejected for outcome in told(read_all(served.log, Stream.OUTCOMES), Outcome) if outcome.txn_id == deadly
    ]
    assert {rejected and rejected.reason for rejected in answers} == {Reason.ISOLATED}
    assert all(rejected and row[2] in rejected.message for rejected in answers)
    said = served.output.read_text()
    assert f"record {position} of the staged stream" in said
    assert "events are decided in batches again" in said


@pytest.mark.parametrize(("at", "deaths"), [("committer.preparing", DEATHS + 1), ("committer.completing", ALONE + 1)])
def test_a_big_transaction_that_kills(served: ServedLake, at: str, deaths: int) -> None:
    """Before its decision: it is decided without being prepared. At its decision: it is rejected, and nothing stays of it.
    The first death is nobody's: it comes after others' batches. Those beside it are committed."""
    served.settle()
    chunks = chunked(
        [Content(tables=(append(f"big{n}", name="left"),)) for n in range(rules(1).whole_chunks + 1)], txn_id=txn(4_711)
    )
    beside = [staged(append(f"beside{n}", name=name)) for n in range(4) for name in ("left", "right")]
    served.publish([*beside[:4], *chunks, *beside[4:]])

    ends = killed_until_decided(served, at=at, act="kill", over=txn(4_711))

    assert ends == [-signal.SIGKILL] * deaths
    pid = served.start()
    served.until(lambda: nothing_staged(served), "that what was staged is cleared away")
    assert served.stop(pid) == 0, served.tail()
    served.check()
    isolates = at == "committer.completing"
    assert [(rejected, attempts) for _, rejected, attempts in served.isolated()] == [(True, DEATHS)] * isolates
    with served.database() as database:
        decided: dict[str, bool] = dict(database.query("SELECT txn_id, committed FROM dl_transactions"))
        (outcome,) = database.query("SELECT outcome FROM dl_transactions WHERE txn_id = ?", [txn(4_711)])[0]
    assert [decided[event.envelope.txn_id] for event in beside] == [True] * 8
    assert decided[txn(4_711)] is not isolates
    assert (Reason.ISOLATED in outcome) is isolates


def nothing_staged(served: ServedLake) -> bool:
    with served.database() as database:
        return not database.query("SELECT 1 FROM dl_staged_files LIMIT 1")


def test_a_service_outlives_what_the_store_refuses(served: ServedLake) -> None:
    """It pauses, tries again, and isolates the one event that the store refuses; the rest is committed, by one process."""
    served.settle()
    with served.database() as database:
        database.execute("ALTER TABLE dl_live_files ADD CONSTRAINT unforeseen CHECK (path <> 'bad')")
    served.publish([staged(append(path, name="left")) for path in ("good", "bad", "fine")])
    pid = served.start()

    served.until(served.is_decided, "a decision on all of them")

    assert served.stop(pid) == 0, served.tail()
    served.check()
    assert [(rejected, attempts) for _, rejected, attempts in served.isolated()] == [(True, DEATHS)]
    with served.database() as database:
        found = database.query("SELECT path FROM dl_live_files WHERE path IN ('good', 'bad', 'fine') ORDER BY path")
    assert found == [("fine",), ("good",)]
    assert "unforeseen" in served.output.read_text()


def test_the_same_bytes_again_kill_nobody(served: ServedLake) -> None:
    """A client that asks again by publishing again gets the same answer, and no committer dies of it."""
    served.settle()
    deadly = staged(append("deadly", name="left"), txn_id=txn(4_711))
    served.publish([deadly])
    how = {"at": "committer.decoding", "act": "segv", "over": deadly.envelope.txn_id}
    assert len(killed_until_decided(served, **how)) == DEATHS
    served.publish([deadly, staged(append("next", name="left"))])

    assert killed_until_decided(served, **how) == []

    served.check()
    (first, _, _), (second, rejected, attempts) = served.isolated()
    assert (second, rejected, attempts) == (first + 1, True, 0)


def test_a_death_is_charged_to_the_lake_whose_event_it_was(
    served: ServedLake, mortuary: Mortuary, postgres_url: str, kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Of two lakes of one process, each with something to do after every death, one has an event that kills: the other one
    loses the process as often, and none of its events is isolated."""
    name = f"beside_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))
    folder = tmp_path / "beside"
    folder.mkdir()
    with closing(ServedLake(mortuary, url, kafka_bootstrap, f"{name}.", folder)) as beside:
        served.settle()
        beside.settle()
        deadly = staged(append("deadly", name="left"))
        served.publish([deadly])
        deaths = 0
        while not served.is_decided():
            beside.publish_pairs(50)
            pid = served.start(
                at="committer.deciding", act="kill", over=deadly.envelope.txn_id, beside=beside.store_uri
            )
            served.until(lambda: not served.running(pid) or served.is_decided(), "an end or a decision")  # noqa: B023
            if served.running(pid):
                served.until(beside.is_decided, "all of the other lake")
                assert served.stop(pid) == 0, served.tail()
            else:
                deaths += 1
                assert deaths < 20, served.tail()

        assert ALONE <= deaths <= ALONE + 1
        assert beside.isolated() == []
        beside.check()
    served.check()
    assert [rejected for _, rejected, _ in served.isolated()] == [True]
