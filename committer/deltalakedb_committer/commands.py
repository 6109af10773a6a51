"""The committer's verbs of the program: `deltalakedb committer run`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from deltalakedb import process
from deltalakedb.health import ServiceHealth
from deltalakedb.settings import load_settings
from deltalakedb.verbs.options import ListenOption, LogLevel, LogLevelOption

app = typer.Typer(
    help="The committer: decides what clients publish and writes it to SQL.", no_args_is_help=True, add_completion=False
)


@app.callback()
def committer() -> None:
    """The committer: decides what clients publish and writes it to SQL."""


@app.command()
def run(
    store: Annotated[
        list[str] | None,
        typer.Option(help="URI of the store, or directory of an embedded lake; once more for each further lake."),
    ] = None,
    log: Annotated[str | None, typer.Option(help="Event log; the store knows it.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    takeover_after: Annotated[
        float, typer.Option(help="Seconds that a leader must stand still before this one takes over.", min=0.1)
    ] = 3.0,
    listen: ListenOption = None,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Run the committer until SIGTERM. Several may run: one leads, the others stand by.

    Exit codes: 0 stopped, 1 failed, 3 another committer took over (start it again), 4 halted (an operator has to look).
    One that serves several lakes goes on with the others, and ends with 4 once all are halted.
    """

    health = ServiceHealth("committer")

    def main(stop: threading.Event) -> None:
        from .lakes import serve_lakes

        stores: list[str | None] = [*store] if store else [None]
        lakes = [load_settings(store=one, log=log, config=config) for one in stores]
        serve_lakes(lakes, takeover_after=takeover_after, health=health, stop=stop)

    raise typer.Exit(process.run(main, health=health, listen=listen, log_level=log_level))
