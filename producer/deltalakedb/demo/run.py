"""The demo from end to end: lake and services, data, client processes, the mirror's last watermark, the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

import deltalakedb
from deltalakedb.errors import TxnLogMirrorError, TxnLogTimeoutError, TxnLogValidationError
from deltalakedb.objectstore import open_object_store
from deltalakedb.scratch import scratch_folder
from deltalakedb.settings import Settings
from deltalakedb.verbs.migrate import make_lake

from . import engine
from .batches import read_schema
from .checks import Check, Pin, Workload
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
"""Watermarks seen under way at which the first reader checks the tables too, besides the last one."""


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
    """Whether to run committer and mirror (and make a lake on a server), or to use those that run already."""
    readers: Sequence[engine.Reader]


def run(options: Options, console: Console) -> Report:
    """Run the demo. Whatever it starts is stopped again, however it ends.

    Raises `TxnLogError` if something could not be done; a check that fails is part of the report.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder("demo"))
        if options.services and options.settings.address.path is None:
            make_lake(options.settings)
        lake = stack.enter_context(deltalakedb.connect(settings=options.settings))
        services = Services(options.environment, folder)
        if options.services:
            stack.enter_context(services)
        clients = stack.enter_context(Clients(options.environment, options.clients))
        say(console, "cutting the input into batches ...")
        workload = options.make_workload(folder)
        say(
            console,
            f"{workload.title}\n{options.clients} client processes write to {options.settings.directory or options.settings.address}",
        )
        made = make_tables(lake, workload, folder, services)
        watermarks = Watermarks(open_object_store(lake.root, options.settings.storage.values), workload.tables)
        done, seen = load(clients, jobs(workload, folder, options.clients), services, watermarks, console)
        told = time.monotonic()
        done = [settled(lake, step) for step in done]
        last = max((step.commit_seq for step in done if step.commit_seq is not None), default=None)
        if last is None:
            reasons = sorted({step.reason or step.status for step in done})
            raise TxnLogValidationError(f"not one transaction was committed: {', '.join(reasons)}")
        pin = wait_for_mirror(watermarks, last, services)
        mirror_seconds = time.monotonic() - told
        say(console, f"checking what readers find by path at commit {pin.commit_seq} ...")
        first, *others = options.readers
        checks = checked(workload, first, [*spread(seen, PINS), pin], done)
        for reader in others:
            checks += checked(workload, reader, [pin], done)
        checks += snapshots_whole(done)
    return report(
        title=workload.title,
        done=done,
        made=made,
        clients=options.clients,
        pin=pin,
        seconds=time.monotonic() - began,
        mirror_seconds=mirror_seconds,
        checks=checks,
    )


def jobs(workload: Workload, folder: Path, clients: int) -> list[Job]:
    """What each client does."""
    return [
        Job(client=client, folder=str(folder), tables=dict(workload.tables), steps=steps, keys=workload.keys)
        for client, steps in enumerate(workload.steps(clients))
    ]


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
    clients: Clients, jobs: Sequence[Job], services: Services, watermarks: Watermarks, console: Console
) -> tuple[list[Done], list[Pin]]:
    """Let the clients do everything; what came of each step, and the watermarks seen meanwhile (not of empty tables)."""
    done: list[Done] = []
    seen: list[Pin] = []
    with Display(sum(len(job.steps) for job in jobs), console) as display:
        for step in clients.do(jobs, TICK):
            if step is not None:
                done.append(step)
                display.done(step)
                continue
            services.check()
            pin = watermarks.read()
            if pin is not None and pin not in seen and min(pin.versions.values()) > 0:
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
    assert outcome.rejected is not None, "an outcome is one or the other"
    return msgspec.structs.replace(step, status="rejected", reason=outcome.rejected.reason)


def checked(workload: Workload, reader: engine.Reader, pins: Sequence[Pin], done: Sequence[Done]) -> list[Check]:
    """What `reader` finds. Raises `TxnLogMirrorError` if it cannot read the tables at all."""
    try:
        return workload.check(reader, pins, done)
    except engine.EngineError as error:
        raise TxnLogMirrorError(f"{reader.name} cannot read what was published: {error}") from error


def snapshots_whole(done: Sequence[Done]) -> list[Check]:
    """Whether the snapshots that removals were planned from, while all was under way, showed whole transactions."""
    planned = [step for step in done if step.kind == "remove"]
    if not planned:
        return []
    what = "every snapshot planned from SQL under way has each insert in all tables or in none"
    return [Check.of(what, "deltalakedb", len(planned), sum(step.torn for step in planned))]


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
