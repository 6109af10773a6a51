"""`deltalakedb replay`: its options and what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer

from deltalakedb.database import Database, open_database
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.scratch import scratch_folder
from deltalakedb.settings import Settings, load_settings
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

app = typer.Typer(add_completion=False)


@app.command()
def replay(
    ctx: typer.Context,
    store: StoreOption = None,
    log: LogOption = None,
    into: Annotated[
        str | None,
        typer.Option(help="Store to replay into: empty, or a restored backup. A temporary SQLite file unless given."),
    ] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Decide the whole log again, beside the lake, and compare every row. The lake is only read and may be in use.

    Exit codes: 0 all rows are equal, 1 failed, 2 rows differ.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from .lake import open_log
    from .replay import replay as run

    settings = settings_of(ctx, store=store, log=log, config=config)
    columns = ("replaying", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    with (
        closing(open_log(settings)) as events,
        closing(open_database(settings.address)) as live,
        _opened(into, settings) as other,
        bar,
    ):
        task = bar.add_task("", total=None)
        found = run(live, events, other, on_progress=lambda done, end: bar.update(task, completed=done, total=end))
    if output is Output.JSON:
        typer.echo(as_json(found))
    else:
        rows = [
            (table.name, f"{table.rows:,}", f"{table.replayed_rows:,}", "equal" if table.equal else "DIFFERENT")
            for table in found.tables
        ]
        typer.echo("\n".join(aligned(("table", "rows", "replayed", ""), rows)))
        verdict = "every row is the same" if found.equal else "the store is not what the log says"
        typer.echo(
            f"{found.records:,} records up to position {found.position}, commit {found.commit_seq}, "
            f"in {found.seconds:.1f} s: {verdict}"
        )
    if not found.equal:
        raise typer.Exit(2)


@contextmanager
def _opened(into: str | None, settings: Settings) -> Iterator[Database]:
    """The store to replay into; a temporary one is gone afterwards."""
    if into is not None:
        address = load_settings(store=into).address
        if address == settings.address:
            raise TxnLogConfigError(
                "--into names the lake's own store, which a replay must not write: name another one"
            )
        with closing(open_database(address, create=True)) as database:
            yield database
        return
    with scratch_folder("replay") as folder:
        address = load_settings(store=f"deltasql://sqlite/{folder / 'replay.db'}").address
        with closing(open_database(address, create=True)) as database:
            yield database
