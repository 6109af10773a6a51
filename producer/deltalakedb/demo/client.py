"""One client process: does its steps one after the other, and tells each result as a line of JSON on stdout.

`python -m deltalakedb.demo.client` takes its `Job` on stdin and the lake from the environment.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

import deltalakedb
from deltalakedb.actions import RemoveFile
from deltalakedb.errors import TxnLogError, TxnLogOutcomeUnknownError, TxnLogRejectedError

from .batches import read
from .plan import Done, Failed, Insert, Job, Keys

OLDEST = 8
"""A remove takes one of this many oldest batches, so that clients meet now and then and one of them is rejected."""
LiveFiles = dict[int, list[RemoveFile]]
"""The live files of a table by the batch they came from, ready to be removed."""


class Client:
    """Does the steps of one job on one lake."""

    def __init__(self, job: Job, lake: deltalakedb.Lake) -> None:
        self._job = job
        self._lake = lake
        self._random = random.Random(job.seed * 1000 + job.client)

    def run(self) -> Iterator[Done]:
        """Do all steps. A rejected one is told and never repeated."""
        for step in self._job.steps:
            began, clock = time.time(), time.perf_counter()
            done = self._insert(step.batch) if isinstance(step, Insert) else self._remove()
            yield msgspec.structs.replace(done, began=began, milliseconds=(time.perf_counter() - clock) * 1000)

    def _insert(self, batch: int) -> Done:
        folder = Path(self._job.folder)
        rows = {table: read(folder, part, batch) for table, part in self._job.tables.items()}
        done = Done(client=self._job.client, kind="insert", batch=batch, status="nothing")
        if all(part is None for part in rows.values()):
            return done

        def stage(tx: deltalakedb.Transaction) -> None:
            for table, part in rows.items():
                if part is not None:
                    tx.stage_table(table, part)

        return self._transact(done, stage)

    def _remove(self) -> Done:
        assert self._job.keys is not None, "only files with keys can be told apart"
        snapshot = self._lake.snapshot()
        live = {
            table: live_files(snapshot.table(table), self._job.keys, folder)
            for table, folder in self._job.tables.items()
        }
        batches = sorted(set.union(*map(set, live.values())))
        done = Done(
            client=self._job.client,
            kind="remove",
            status="nothing",
            torn=any(set(files) != set(batches) for files in live.values()),
        )
        if not batches:
            return done
        batch = self._random.choice(batches[:OLDEST])

        def stage(tx: deltalakedb.Transaction) -> None:
            for table, files in live.items():
                tx.stage_table(table, actions=files.get(batch, []))

        return self._transact(msgspec.structs.replace(done, batch=batch), stage)

    def _transact(self, done: Done, stage: Callable[[deltalakedb.Transaction], None]) -> Done:
        try:
            with self._lake.begin() as tx:
                stage(tx)
        except TxnLogRejectedError as error:
            return msgspec.structs.replace(done, status="rejected", txn_id=error.txn_id, reason=error.reason)
        except TxnLogOutcomeUnknownError as error:
            return msgspec.structs.replace(done, status="unknown", txn_id=error.txn_id)
        return msgspec.structs.replace(
            done, status="committed", txn_id=tx.result.txn_id, commit_seq=tx.result.commit_seq
        )


def live_files(table: deltalakedb.TableSnapshot, keys: Keys, folder: str) -> LiveFiles:
    """The files of `table`, by batch: each holds the rows of one, which its smallest key tells."""
    files: LiveFiles = {}
    for batch in table.files():
        for row in batch.to_pylist():
            smallest = msgspec.json.decode(row["stats"])["minValues"][keys.columns[folder]]
            remove = RemoveFile(path=row["path"], size=row["size"])
            files.setdefault(bisect_right(keys.first, smallest) - 1, []).append(remove)
    return files


def warm_up() -> None:
    """Load what is loaded at first use: that belongs to the start of a process, not to its first transaction."""
    import pyarrow as pa

    import deltalakedb.parquet
    import deltalakedb.staging  # noqa: F401

    pa.array([0])  # looks for pandas, and loads it if it is there


def main() -> int:
    """Do the job on stdin. Exit code 0 when all steps are done, whatever became of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tell = msgspec.json.Encoder()
    out = sys.stdout.buffer
    try:
        warm_up()
        job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
        with deltalakedb.connect() as lake:
            for done in Client(job, lake).run():
                out.write(tell.encode(done) + b"\n")
                out.flush()
    except (TxnLogError, OSError) as error:
        out.write(tell.encode(Failed(message=f"{type(error).__name__}: {error}")) + b"\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
