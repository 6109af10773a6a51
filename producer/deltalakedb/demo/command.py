"""`deltalakedb demo`: its options, and what they mean for a run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from deltalakedb.errors import TxnLogMissingExtraError
from deltalakedb.ids import is_table_name
from deltalakedb.settings import PREFIX, Settings
from deltalakedb.uri import LakeDirectory
from deltalakedb.verbs.options import ConfigOption, Output, as_json, settings_of

NEW_LAKES = Path("lakes")
"""Where lakes are made when nothing says where: a new directory for every run."""


def demo(
    ctx: typer.Context,
    lake: Annotated[Path | None, typer.Option(help="Directory of an embedded lake; a new one unless given.")] = None,
    scale: Annotated[float, typer.Option(help="TPC-H scale factor; 1 is 1.5 million orders.", min=0.0001)] = 0.05,
    transactions: Annotated[int, typer.Option(help="Refresh transactions; every fourth is a removal.", min=4)] = 320,
    data: Annotated[
        Path | None, typer.Option(help="Your own data instead: each <table>.parquet, .csv or folder in it is a table.")
    ] = None,
    batches: Annotated[int, typer.Option(help="With --data: batches of every table, so transactions.", min=1)] = 50,
    clients: Annotated[int, typer.Option(help="Client processes at once.", min=1, max=64)] = 4,
    services: Annotated[
        bool, typer.Option("--services/--no-services", help="Run committer and mirror here, or use those that run.")
    ] = True,
    namespace: Annotated[str | None, typer.Option(help="Namespace of the lake for the tables.")] = None,
    store: Annotated[str | None, typer.Option(help="A store on a server: deltasql://postgres/...")] = None,
    log: Annotated[str | None, typer.Option(help="Its event log: kafka://host:9092/prefix.")] = None,
    root: Annotated[str | None, typer.Option(help="Root of its tables: s3://bucket/prefix or a directory.")] = None,
    config: ConfigOption = None,
    output: Annotated[Output, typer.Option(help="text, or json: stdout ends with one object.")] = Output.TEXT,
) -> None:
    """Send hundreds of multi-table transactions from several processes at once, and check what readers find by path.

    TPC-H orders arrive with their line items and leave again, while others do the same.

    Then DuckDB and delta-rs open all tables by path, at the last watermark, and must find every order whole.
    """
    settings = _settings(ctx, lake, store=store, log=log, root=root, config=config)
    prefix = f"{namespace}." if namespace else ""
    if not is_table_name(f"{prefix}table"):
        raise typer.BadParameter("letters, digits, '_' and '-' only", param_hint="--namespace")
    try:
        from rich.console import Console

        from . import engine, run
        from .report import text
        from .tpch import Refreshes
        from .userdata import UserData, input_files
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("duckdb", "deltalake"):
            raise
        raise TxnLogMissingExtraError("the demo", "demo") from error

    inputs = None if data is None else input_files(data)
    options = run.Options(
        settings=settings,
        environment=_environment(settings, config),
        make_workload=lambda folder: (
            Refreshes(folder, scale=scale, transactions=transactions, prefix=prefix)
            if inputs is None
            else UserData(folder, inputs, batches=batches, prefix=prefix)
        ),
        clients=clients,
        services=services,
        readers=(engine.DuckDbReader(settings.storage), engine.DeltaRsReader(settings.storage)),
    )
    # Ending the demo is one thing, however it is asked for: the with blocks of `run` end what was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = run.run(options, Console(stderr=True))
    if output is Output.JSON:
        typer.echo(as_json(report))
    else:
        typer.echo("\n".join(text(report)))
    if not report.ok:
        raise typer.Exit(1)


def _settings(
    ctx: typer.Context, lake: Path | None, *, store: str | None, log: str | None, root: str | None, config: Path | None
) -> Settings:
    """The lake that the options name, else the environment, else a new embedded one.

    Its mirror is a process of its own, also on an embedded lake, so no client runs the mirror's step.
    """
    if lake is not None and (store or log or root):
        raise typer.BadParameter(
            "an embedded lake has its own store, log and root: give --lake or those", param_hint="--lake"
        )
    named = any(os.environ.get(f"{PREFIX}{name}") for name in ("STORE", "STORE_FILE", "CONFIG"))
    if lake is None and store is None and config is None and not named:
        if log or root:
            raise typer.BadParameter(
                "--log and --root belong to a store on a server: give --store too", param_hint="--store"
            )
        lake = NEW_LAKES / time.strftime("demo-%Y%m%d-%H%M%S")
    if lake is None:
        return settings_of(ctx, store=store, log=log, root=root, config=config, mirror="off")
    directory = LakeDirectory(lake.absolute())
    return settings_of(ctx, store=str(directory.path), log=directory.log, root=directory.root, mirror="off")


def _environment(settings: Settings, config: Path | None) -> dict[str, str]:
    """The environment of processes that work on the same lake: not on their command lines, which others can read."""
    named = {
        "STORE": settings.store.get_secret_value(),
        "LOG": settings.log,
        "ROOT": settings.root,
        "MIRROR": settings.mirror,
        "CONFIG": None if config is None else str(config.absolute()),
    }
    environment = dict(os.environ)
    for name, value in named.items():
        if value is not None:
            environment[f"{PREFIX}{name}"] = value
            environment.pop(f"{PREFIX}{name}_FILE", None)
    return environment
