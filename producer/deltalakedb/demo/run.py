"""The demo from end to end: lake and services, data, client processes, the mirror's last watermark, the checks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

import deltalakedb
from deltalakedb.errors import TxnLogTimeoutError, TxnLogValidationError
from deltalakedb.objectstore import open_object_store
from deltalakedb.settings import Settings

from . import engine
from .batches import read_schema
from .checks import Pin, Workload
from .plan import Done, Job
from .processes import Clients, Services
from .progress import Display
from .report import Report, report
from .watermarks import Watermarks

TICK = 0.25
"""Seconds between two looks at the watermark while clients work."""
OUTCOME_SECONDS = 60.0
"""Longest wait for one transaction of the demo's own, services starting included."""
MIRROR_SECONDS = 120.0
"""Longest that the mirror may take for the rest once the clients are done."""
PINS = 3
"""Watermarks seen under way at which the tables are checked too, besides the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run where."""

    settings: Settings
    environment: Mapping[str, str]
    """Of the child processes: all of it, and it names the same lake."""
    make_workload: Callable[[Path], Workload]
    """Makes the batches in a folder."""
    clients: int
    services: bool
    """Whether to run committer and mirror, or to use those that run already."""
    readers: Sequence[engine.Reader]


def run(options: Options, console: Console) -> Report:
    """Run the demo. Whatever it starts is stopped again, however it ends.

    Raises `TxnLogError` if something could not be done; a check that fails is part of the report.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deltalakedb-demo-")))
        lake = stack.enter_context(deltalakedb.connect(settings=options.settings))
        services = Services(options.environment, folder)
        if options.services:
            stack.enter_context(services)
        say(console, "cutting the input into batches ...")
        workload = options.make_workload(folder)
        say(console, f"{workload.title}\n{options.clients} client processes write to {lake}")
        made = make_tables(lake, workload, folder, services)
        watermarks = Watermarks(open_object_store(lake.root, options.settings.storage.values), workload.tables)
        load_began = time.monotonic()
        done, seen = load(options, workload, folder, services, watermarks, console)
        load_seconds = time.monotonic() - load_began
        done = [settled(lake, step) for step in done]
        last = max((step.commit_seq for step in done if step.commit_seq is not None), default=None)
        if last is None:
            reasons = sorted({step.reason or step.status for step in done})
            raise TxnLogValidationError(f"not one transaction was committed: {', '.join(reasons)}")
        pin = wait_for_mirror(watermarks, last, services)
        mirror_seconds = time.monotonic() - load_began - load_seconds
        say(console, f"checking what readers find by path at commit {pin.commit_seq} ...")
        checks = [
            check for reader in options.readers for check in workload.check(reader, [*spread(seen, PINS), pin], done)
        ]
    return report(
        title=workload.title,
        done=done,
        made=made,
        clients=options.clients,
        pin=pin,
        seconds=time.monotonic() - began,
        load_seconds=load_seconds,
        mirror_seconds=mirror_seconds,
        checks=checks,
    )


def make_tables(lake: deltalakedb.Lake, workload: Workload, folder: Path, services: Services) -> int:
    """Make the tables where they need properties of their own; the number of transactions that took.

    Raises `TxnLogValidationError` if the lake has one of them already: what is checked at the end is all they hold.
    """
    for table in workload.tables:
        if lake.has_table(table):
            raise TxnLogValidationError(
                f"this lake has a table {table!r} already, and the demo would add to it: "
                "give a --namespace that is new, or another lake"
            )
    if workload.properties is None:
        return 0
    tx = lake.begin(timeout=OUTCOME_SECONDS)
    for table, part in workload.tables.items():
        tx.create_table(table, read_schema(folder, part), properties=dict(workload.properties))
    outcome = tx.commit_async()
    while True:
        try:
            outcome.result(timeout=TICK)
            return 1
        except TimeoutError:
            services.check()


def load(
    options: Options,
    workload: Workload,
    folder: Path,
    services: Services,
    watermarks: Watermarks,
    console: Console,
) -> tuple[list[Done], list[Pin]]:
    """Let the clients do everything; what came of each step, and the watermarks seen meanwhile."""
    steps = workload.steps(options.clients)
    jobs = [
        Job(client=client, folder=str(folder), tables=dict(workload.tables), steps=plan, keys=workload.keys)
        for client, plan in enumerate(steps)
    ]
    done: list[Done] = []
    seen: list[Pin] = []
    with Display(sum(map(len, steps)), console) as display, Clients(options.environment, jobs) as clients:
        for step in clients.results(TICK):
            if step is not None:
                done.append(step)
                display.done(step)
                continue
            services.check()
            pin = watermarks.read()
            if pin is not None and pin not in seen:
                seen.append(pin)
                display.mirrored(pin.commit_seq)
    return done, seen


def settled(lake: deltalakedb.Lake, step: Done) -> Done:
    """An unknown outcome settled: cancelling makes an undecided transaction rejected and otherwise gives the decision."""
    if step.status != "unknown" or step.txn_id is None:
        return step
    outcome = lake.cancel(step.txn_id)
    if outcome.committed is not None:
        return msgspec.structs.replace(step, status="committed", commit_seq=outcome.committed.commit_seq)
    return msgspec.structs.replace(step, status="rejected", reason=outcome.rejected.reason)


def wait_for_mirror(watermarks: Watermarks, commit_seq: int, services: Services) -> Pin:
    """The first watermark at or above `commit_seq`. Raises `TxnLogTimeoutError` if it does not come in time."""
    deadline = time.monotonic() + MIRROR_SECONDS
    while True:
        pin = watermarks.read()
        if pin is not None and pin.commit_seq >= commit_seq:
            return pin
        services.check()
        if time.monotonic() > deadline:
            reached = "nothing" if pin is None else f"commit {pin.commit_seq}"
            raise TxnLogTimeoutError(
                f"after {MIRROR_SECONDS:.0f} s the mirror has published {reached} of {commit_seq}: does it run?"
            )
        time.sleep(0.05)


def spread(pins: Sequence[Pin], count: int) -> list[Pin]:
    """Up to `count` of `pins`, evenly spread, for the last one always comes anyway."""
    return [pins[(i + 1) * len(pins) // (count + 1)] for i in range(min(count, len(pins)))]


def say(console: Console, text: str) -> None:
    """A line about what comes next."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
