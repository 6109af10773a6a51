"""Ctrl-C, or a time limit of one's own, while a transaction is under way: which one it was, and how to settle it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import deltalakedb
from deltalakedb.errors import TxnLogOutcomeUnknownError
from deltalakedb.ids import new_txn_id
from deltalakedb.interrupting import TransactionFuture

COMMITS = """
import signal
import sys
import pyarrow as pa
import deltalakedb
import deltalakedb_committer.step
from deltalakedb import failpoints

def stand_still():
    print("deciding", flush=True)
    sys.stdin.read()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a run of the tests in the background ignores it
lake = deltalakedb.connect(sys.argv[1])
failpoints.arm("committer.read", stand_still)
with lake.begin() as tx:
    tx.stage_table("t", pa.table({"id": [1]}))
"""
"""A process that commits, and whose committer stands still until standard input ends."""


def test_ctrl_c_while_it_commits_names_the_transaction(tmp_path: Path) -> None:
    """What the user sees names the transaction and how to settle it; asked so, the lake tells what became of it."""
    command = [sys.executable, "-c", COMMITS, str(tmp_path / "lake")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "deciding\n"
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said: list[str] = []
        while not said or not said[-1].startswith("transaction "):
            line = running.stderr.readline()
            assert line, "".join(said)
            said.append(line)
        running.communicate(timeout=120)  # the committer goes on, and the process ends

    assert said[-2] == "KeyboardInterrupt\n"
    named = re.search(r"lake\.outcome\('([-0-9a-f]{36})'\).*deltalakedb cancel \1", said[-1])
    assert named is not None, said[-1]
    with deltalakedb.connect(tmp_path / "lake") as lake:
        outcome = lake.outcome(named[1])
        assert outcome is not None
        assert lake.has_table("t") == (outcome.committed is not None)


def test_a_limit_of_ones_own_names_the_transaction_once() -> None:
    """A future that is waited for in vain says so with the same note, however often; its own errors are left alone."""
    txn_id = new_txn_id()
    future = TransactionFuture[None](txn_id)
    with pytest.raises(TimeoutError) as waited:
        future.result(timeout=0)
    assert [txn_id in note for note in waited.value.__notes__] == [True]

    broken = OSError("no space")
    future.set_exception(broken)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            future.result()
    assert len(broken.__notes__) == 1

    other = TransactionFuture[None](txn_id)
    other.set_exception(TxnLogOutcomeUnknownError("unknown", txn_id=txn_id))
    with pytest.raises(TxnLogOutcomeUnknownError) as unknown:
        other.result()
    assert not hasattr(unknown.value, "__notes__")
