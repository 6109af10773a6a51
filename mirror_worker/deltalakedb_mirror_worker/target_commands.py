"""`deltalakedb mirror target`: the places that receive the lake's tables come, pause, go on and go."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

import deltalakedb
from deltalakedb.catalog import Catalog, MirrorTarget
from deltalakedb.settings import parse_root
from deltalakedb.verbs.lake import reading
from deltalakedb.verbs.options import (
    ConfigOption,
    LogOption,
    Output,
    OutputOption,
    StoreOption,
    aligned,
    as_json,
    settings_of,
)

app = typer.Typer(help="Places that receive the lake's tables.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The target.")]


class Kind(StrEnum):
    """Who brings the data files."""

    COPY = "copy"
    REPLICA = "replica"


@app.command()
def add(
    ctx: typer.Context,
    name: NameArgument,
    root: Annotated[str, typer.Option("--root", help="Where its tables lie: a directory, file:/// or s3://.")],
    kind: Annotated[
        Kind, typer.Option("--kind", help="copy: the mirror copies the data files. replica: somebody else brings them.")
    ] = Kind.COPY,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
) -> None:
    """Add a target. `deltalakedb mirror run --target NAME` then serves it."""
    with _connected(ctx, store=store, log=log, config=config) as lake:
        lake.act("target-add", target=name, kind=kind.value, root=parse_root(root))
    typer.echo(f"target {name}: {kind.value} at {parse_root(root)}; `deltalakedb mirror run --target {name}` serves it")


@app.command()
def pause(
    ctx: typer.Context,
    name: NameArgument,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
) -> None:
    """Publish nothing more at a target until it is resumed."""
    with _connected(ctx, store=store, log=log, config=config) as lake:
        lake.act("target-pause", target=name)
    typer.echo(f"target {name} is paused")


@app.command()
def resume(
    ctx: typer.Context,
    name: NameArgument,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
) -> None:
    """Let a target that was paused go on."""
    with _connected(ctx, store=store, log=log, config=config) as lake:
        lake.act("target-resume", target=name)
    typer.echo(f"target {name} goes on")


@app.command()
def remove(
    ctx: typer.Context,
    name: NameArgument,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a target up. What lies there stays there."""
    with _connected(ctx, store=store, log=log, config=config) as lake:
        lake.act("target-remove", target=name)
    typer.echo(f"target {name} is removed; what lies there stays")


@app.command("list")
def list_targets(
    ctx: typer.Context, store: StoreOption = None, config: ConfigOption = None, output: OutputOption = Output.TEXT
) -> None:
    """List the targets, and how many tables lag behind or are fenced at each."""
    with reading(settings_of(ctx, store=store, config=config)) as database:
        catalog = Catalog(database)
        targets = [target for target in catalog.targets() if target.state != "REMOVED"]
        lines = [_line(catalog, target) for target in targets]
    if output is Output.JSON:
        typer.echo(as_json(lines))
        return
    header = tuple(name.upper().replace("_", " ") for name in lines[0])
    typer.echo("\n".join(aligned(header, [tuple(map(str, line.values())) for line in lines])))


def _connected(ctx: typer.Context, **given: Any) -> deltalakedb.Lake:
    return deltalakedb.connect(settings=settings_of(ctx, **given))


def _line(catalog: Catalog, target: MirrorTarget) -> dict[str, str | int]:
    tables = [table for table in catalog.progress(target.target) if table.state != "DROPPED"]
    behind = [t for t in tables if t.status is None or t.status.mirrored_version < t.version]
    fenced = [t for t in tables if t.status is not None and t.status.state == "FENCED"]
    return {
        "target": target.target,
        "kind": target.kind,
        "state": target.state,
        "tables": len(tables),
        "behind": len(behind),
        "fenced": len(fenced),
        "root": target.root or "the tables' own locations",
    }
