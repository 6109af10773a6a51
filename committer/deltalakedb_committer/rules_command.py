"""`deltalakedb rules`: shows which rule set a lake is decided by, and has another one take over."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import msgspec
import typer

from deltalakedb.database import open_database
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.settings import Settings
from deltalakedb.verbs.options import ConfigOption, LogOption, Output, OutputOption, StoreOption, as_json, settings_of

from .deciding.rules import RULES, Rules
from .deciding.rules import rules as known

app = typer.Typer(add_completion=False)


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the verb: what holds for the next transaction."""

    rule_set: int
    max_tables: int
    """Most tables in one transaction."""
    fold_window_ms: int
    """Blind appends this close together in the log share one commit; 0: each has its own."""


@app.command()
def rules(
    ctx: typer.Context,
    fold_window_ms: Annotated[
        int | None,
        typer.Option(help="Appends this many ms apart in the log share one version per table: 0, 20, 50 or 200."),
    ] = None,
    max_tables: Annotated[int | None, typer.Option(help="Most tables in one transaction: 10 or 100.")] = None,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the rule set that the lake is decided by; with options, change it from the next transaction on.

    Every release that decides or replays the lake has to know the rule set. What was decided stays as it is.
    """
    settings = settings_of(ctx, store=store, log=log, config=config)
    found = _in_force(settings)
    wanted = _wanted(found, max_tables=max_tables, fold_window_ms=fold_window_ms)
    if wanted.number != found.number:
        _change(settings, wanted)
    told = RuleSet(rule_set=wanted.number, max_tables=wanted.max_tables, fold_window_ms=wanted.fold_window_ms)
    if output is Output.JSON:
        typer.echo(as_json(told))
        return
    typer.echo(f"rule set         {told.rule_set}")
    typer.echo(f"max tables       {told.max_tables}")
    typer.echo(f"fold window      {told.fold_window_ms} ms" if told.fold_window_ms else "fold window      none")


def _in_force(settings: Settings) -> Rules:
    from .storing.store import SqlCommitStore

    with closing(open_database(settings.address)) as database:
        store = SqlCommitStore(database)
        store.lake()
        return known(store.cursor().rule_set)


def _wanted(found: Rules, *, max_tables: int | None, fold_window_ms: int | None) -> Rules:
    """The rule set that is as `found` but for what is given. Raises `TxnLogConfigError` if there is none."""
    wanted = (
        found.max_tables if max_tables is None else max_tables,
        found.fold_window_ms if fold_window_ms is None else fold_window_ms,
    )
    for one in RULES.values():
        if (one.max_tables, one.fold_window_ms) == wanted:
            return one
    tables, windows = ({getattr(one, name) for one in RULES.values()} for name in ("max_tables", "fold_window_ms"))
    raise TxnLogConfigError(
        f"no rule set has --max-tables {wanted[0]} and --fold-window-ms {wanted[1]}: tables can be "
        f"{', '.join(map(str, sorted(tables)))}, the window {', '.join(map(str, sorted(windows)))}"
    )


def _change(settings: Settings, wanted: Rules) -> None:
    from deltalakedb.controls import set_rules
    from deltalakedb.session import Session

    with closing(Session(settings)) as session:
        set_rules(session, wanted.number, settings.timeout)
