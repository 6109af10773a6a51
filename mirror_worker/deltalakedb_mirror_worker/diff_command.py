"""The verb `deltalakedb diff`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from deltalakedb.verbs.options import (
    ConfigOption,
    Output,
    OutputOption,
    StoreOption,
    as_json,
    settings_of,
    table_of,
)

from .commands import TargetOption

if TYPE_CHECKING:
    from .diff import TableDiff

app = typer.Typer(add_completion=False)

_SHOWN = 300
"""Characters of one side that a line shows."""


@app.command()
def compare(
    ctx: typer.Context,
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="[TABLE-URI]", help="URI of a table, or its name in the lake of --store; all without it."
        ),
    ] = None,
    target: TargetOption = "in-place",
    store: StoreOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Hold SQL against the `_delta_log` of a target, by meaning: files, statistics, protocol, metadata, history.

    Exit codes: 0 equal, 2 they say different things, 3 the log is only behind.
    """
    from .diff import Verdict, diff
    from .worker import Worker

    if table is None:
        settings, name = settings_of(ctx, store=store, config=config), None
    else:
        settings, name = table_of(ctx, table, store=store, config=config)
    with Worker(settings, target=target) as worker:
        found = [
            diff(worker.pool, worker.mirror.places.of(progress.location), progress, target)
            for progress in ([worker.progress(name)] if name is not None else worker.tables())
        ]
    if output is Output.JSON:
        typer.echo(as_json([dataclasses.asdict(one) for one in found]))
    else:
        for one in found:
            for line in _told(one):
                typer.echo(line)
    verdicts = {one.verdict for one in found}
    raise typer.Exit(2 if Verdict.DRIFT in verdicts else 3 if Verdict.LAG in verdicts else 0)


def _told(found: TableDiff) -> list[str]:
    at = "no log" if found.log_version is None else f"version {found.log_version}"
    told = [
        f"{found.table} ({found.target}): {found.verdict}, SQL has version {found.sql_version}, {found.location} {at}"
    ]
    told += [f"  {count} x {kind}" for kind, count in found.counts.items()]
    for one in found.differences:
        told += [f"  {one.about} {one.name}", f"    SQL: {_short(one.sql)}", f"    log: {_short(one.log)}"]
    return told


def _short(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
