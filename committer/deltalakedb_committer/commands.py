"""The committer's verbs of the program: `deltalakedb committer run`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from deltalakedb import process
from deltalakedb.settings import load_settings

app = typer.Typer(help="The committer: decides what clients publish and writes it to SQL.", no_args_is_help=True)


@app.callback()
def committer() -> None:
    """The committer: decides what clients publish and writes it to SQL."""


@app.command()
def run(
    store: Annotated[str | None, typer.Option(help="URI of the store, or directory of an embedded lake.")] = None,
    log: Annotated[str | None, typer.Option(help="Event log; the store knows it.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    takeover_after: Annotated[
        float, typer.Option(help="Seconds that a leader must stand still before this one takes over.", min=0.1)
    ] = 3.0,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Run the committer until SIGTERM. Several may run: one leads, the others stand by.

    Exit codes: 0 stopped, 1 failed, 3 another committer took over (start it again), 4 halted (an operator has to look).
    """

    def main(stop: threading.Event) -> None:
        from .lake import holder, leadership, open_log, open_store
        from .service import serve

        settings = load_settings(store=store, log=log, config=config)
        settings.require_services("committer run")
        event_log = open_log(settings)
        try:
            event_log.verify()
            serve(
                lambda: open_store(settings),
                event_log,
                leadership(settings, event_log, takeover_after=takeover_after),
                holder=holder(settings),
                stop=stop,
            )
        finally:
            event_log.close()

    raise typer.Exit(process.run("committer", main, log_level=log_level))
