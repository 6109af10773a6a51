"""The mirror's verbs of the program: `deltalakedb mirror run` and `deltalakedb mirror status`."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltalakedb import process
from deltalakedb.health import ServiceHealth
from deltalakedb.settings import load_settings
from deltalakedb.verbs.options import (
    ConfigOption,
    ListenOption,
    LogLevel,
    LogLevelOption,
    LogOption,
    Output,
    OutputOption,
    RootOption,
    StoreOption,
    TableArgument,
    aligned,
    as_json,
    settings_of,
    table_of,
)

from . import target_commands

if TYPE_CHECKING:
    from deltalakedb.eventlog import EventLog, Stream

    from .adopting import Adopted

app = typer.Typer(
    help="The mirror: publishes committed versions as `_delta_log`.", no_args_is_help=True, add_completion=False
)

app.add_typer(target_commands.app, name="target")

TargetOption = Annotated[str, typer.Option("--target", help="The mirror target.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.callback()
def mirror() -> None:
    """The mirror: publishes committed versions as `_delta_log`."""


@app.command()
def run(
    store: StoreOption = None,
    log: LogOption = None,
    root: RootOption = None,
    config: ConfigOption = None,
    target: TargetOption = "in-place",
    listen: ListenOption = None,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Run the mirror of one target until SIGTERM. A second one does no harm: both publish the same bytes.

    Exit codes: 0 stopped, 1 failed, 4 halted (an operator has to look).
    """

    health = ServiceHealth("mirror")

    def main(stop: threading.Event) -> None:
        from deltalakedb.eventlog import Stream
        from deltalakedb.lake_log import open_lake_log

        from .service import serve
        from .worker import Worker

        settings = load_settings(store=store, log=log, root=root, config=config)
        settings.require_services("mirror run")
        seen = health.of(str(settings.address), secrets=settings.secrets)
        with Worker(settings, target=target) as worker:
            worker.mirror.places.root.probe()
            events = open_lake_log(settings, worker.lake.log_address, client_id="mirror", reads_only=True)
            seen.check("store", worker.reach)
            seen.check("log", lambda: _reach(events, Stream.COMMITS))
            try:
                serve(worker, events, target=target, health=seen, stop=stop)
            finally:
                events.close()

    raise typer.Exit(process.run(main, health=health, listen=listen, log_level=log_level))


def _reach(log: EventLog, stream: Stream) -> None:
    log.end(stream)


@app.command()
def write(
    ctx: typer.Context,
    table: TableArgument,
    to: Annotated[str, typer.Option("--to", help="Where its data files lie, too: a directory, file:/// or s3://.")],
    store: StoreOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write the whole log of a table, from SQL alone, to another place that holds the same data files."""
    from deltalakedb.catalog import Catalog
    from deltalakedb.database import Pool, open_database
    from deltalakedb.settings import parse_root

    from .places import Place
    from .worker import store_opener
    from .writing import write_log

    settings, name = table_of(ctx, table, store=store, config=config)
    pool = Pool(lambda: open_database(settings.address, by_key=True))
    try:
        with pool.connection() as database:
            info = Catalog(database).table(name)
        written = write_log(pool, info, Place(store_opener(settings)(parse_root(to)), ""))
    finally:
        pool.close()
    if output is Output.JSON:
        typer.echo(as_json(dataclasses.asdict(written)))
        return
    versions = (
        f"version {written.last}" if written.first == written.last else f"versions {written.first} to {written.last}"
    )
    typer.echo(
        f"{written.location} has {versions} of {name}, and checkpoints of {', '.join(map(str, written.checkpoints)) or 'none'}"
    )


@app.command()
def repair(
    ctx: typer.Context,
    table: TableArgument,
    target: TargetOption = "in-place",
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write again what is missing of a published log, and report what is not ours.

    Exit codes: 0 everything is there and ours (now), 2 something is missing (--dry-run) or not ours.
    """
    from .repair import repair_table
    from .worker import Worker

    settings, name = table_of(ctx, table, store=store, config=config)
    with Worker(settings, target=target) as worker:
        progress = worker.progress(name)
        place = worker.mirror.places.of(progress.location)
        done = repair_table(worker.pool, place, progress, target, dry_run=dry_run)
    if output is Output.JSON:
        typer.echo(as_json(dataclasses.asdict(done)))
    else:
        typer.echo(f"{done.location}: versions {done.first} to {done.last} of {done.table} were looked at")
        verb = "written again" if done.written else "missing"
        if done.missing:
            typer.echo(f"{verb}: {_ranges(done.missing)}")
        if done.checkpoint is not None:
            typer.echo(f"{verb}: the checkpoint that _last_checkpoint names")
        for finding in done.left:
            typer.echo(f"left as it is: version {finding.version}: {finding.told}")
        if not (done.missing or done.left or done.checkpoint is not None):
            typer.echo("nothing is missing, and all of it is ours")
    if done.left or (not done.written and (done.missing or done.checkpoint is not None)):
        raise typer.Exit(2)


@app.command()
def adopt(
    ctx: typer.Context,
    table: TableArgument,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Where SQL has versions of its own: move the foreign ones away.")
    ] = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Settle what somebody else committed in a table's _delta_log: take it into the lake, or move it away.

    Stop the other writer first. Exit codes: 0 settled, 2 what was moved away could not be committed anew.
    """
    from deltalakedb.session import Session

    from .adopting import Adoption
    from .worker import Worker

    settings, name = table_of(ctx, table, store=store, log=log, config=config)
    session = Session(settings)
    try:
        with Worker(settings) as worker:
            adoption = Adoption(worker, session, name, timeout=settings.timeout)
            done = adoption.run(superseding=supersede, dry_run=dry_run)
    finally:
        session.close()
    if output is Output.JSON:
        typer.echo(as_json(dataclasses.asdict(done)))
    else:
        typer.echo("\n".join(_adopted(done)))
    if any(restaged.reason is not None for restaged in done.restaged):
        raise typer.Exit(2)


@app.command()
def status(
    ctx: typer.Context,
    store: StoreOption = None,
    config: ConfigOption = None,
    target: TargetOption = "in-place",
    output: OutputOption = Output.TEXT,
) -> None:
    """How far every table is at a target."""
    from deltalakedb.catalog import Catalog
    from deltalakedb.database import open_database

    from .status import find_target

    settings = settings_of(ctx, store=store, config=config)
    database = open_database(settings.address)
    try:
        catalog = Catalog(database)
        tables = catalog.progress(find_target(catalog, target).target)
    finally:
        database.close()
    if output is Output.JSON:
        typer.echo(as_json([dataclasses.asdict(table) for table in tables]))
        return
    now_ms = int(time.time() * 1000)
    header = ("TABLE", "STATE", "VERSION", "MIRRORED", "CHECKPOINT", "BEHIND", "ATTEMPTS", "ERROR")
    for line in aligned(header, [_row(table, now_ms) for table in tables]):
        typer.echo(line)


def _row(table: Any, now_ms: int) -> tuple[str, ...]:
    mirrored = -1 if table.status is None else table.status.mirrored_version
    behind = "-"
    if mirrored < table.version:
        since = table.next_time_ms if table.next_time_ms is not None else table.time_ms
        behind = f"{(now_ms - since) / 1000:.0f} s"
    if table.status is None:
        return (table.name, "PENDING", str(table.version), "-", "-", behind, "0", "")
    checkpoint = table.status.checkpoint_version
    return (
        table.name,
        table.status.state,
        str(table.version),
        str(mirrored) if mirrored >= 0 else "-",
        str(checkpoint) if checkpoint >= 0 else "-",
        behind,
        str(table.status.attempts),
        table.status.last_error or "",
    )


def _adopted(done: Adopted) -> Iterator[str]:
    would = "would be " if done.dry_run else ""
    if done.adopted:
        yield f"version {_ranges(done.adopted)} of {done.table}: {would}part of the lake, as it is in {done.location}"
    if done.superseded:
        again = ", and what it did committed anew where that is possible" if done.dry_run else ""
        yield f"version {_ranges(done.superseded)} of {done.table}: {would}moved away, ours put in its place{again}"
    for restaged in done.restaged:
        if restaged.reason is not None:
            became = f"rejected: {restaged.reason}: {restaged.message}"
        else:
            became = "nothing to do" if restaged.new_version is None else f"committed as version {restaged.new_version}"
        yield f"what version {restaged.version} did ({restaged.kept}): {became}"
    if not (done.adopted or done.superseded or done.restaged):
        yield f"nothing foreign is in {done.location}"


def _ranges(versions: Sequence[int]) -> str:
    """Ascending numbers, as people write them."""
    runs: list[list[int]] = []
    for version in versions:
        if runs and version == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], version]
        else:
            runs.append([version])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
