"""A client that dies between the chunks of a transaction leaves nothing behind, and delays nobody."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb.eventlog import Stream, open_event_log
from deltalakedb.events import Content, TableWork
from deltalakedb.ids import new_txn_id
from deltalakedb.publishing import MAX_CHUNK_BYTES, messages
from deltalakedb_committer import step
from deltalakedb_committer.deciding import rules
from tests.works import add


def test_a_transaction_whose_client_died_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committer asks the log for the time by a tick of its own, and what is incomplete by then is rejected."""
    monkeypatch.setitem(rules.RULES, 1, rules.Rules(number=1, expire_ms=300))
    monkeypatch.setattr(step, "TICK_SECONDS", 0.1)
    with deltalakedb.connect(tmp_path / "lake") as lake:
        lake.append("orders", pa.table({"id": [1]}))
        files = tuple(add(f"{n:05}.parquet", stats="x" * 200) for n in range(2 * MAX_CHUNK_BYTES // 200))
        abandoned = new_txn_id()
        content = Content(tables=(TableWork(name="orders", adds=files),))
        first, *others = messages(abandoned, content, lake._open_session().sender)
        assert others
        with closing(open_event_log(f"sqlite://{tmp_path / 'lake' / 'log.db'}")) as log:
            log.append(Stream.STAGED, [first]).result()
        deadline = time.monotonic() + 60

        while lake.outcome(abandoned) is None:
            assert time.monotonic() < deadline
            lake.append("orders", pa.table({"id": [2]}))

        outcome = lake.outcome(abandoned)
        assert outcome is not None
        assert outcome.rejected is not None
        assert outcome.rejected.reason == deltalakedb.Reason.EXPIRED
        with closing(open_event_log(f"sqlite://{tmp_path / 'lake' / 'log.db'}")) as log:
            log.append(Stream.STAGED, others).result()
        assert set(lake.table("orders").to_arrow()["id"].to_pylist()) == {1, 2}
