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
    max_open_per_client: int
    """Most transactions of one client of which some chunks have come and others have not."""
    max_staged_bytes_per_client: int
    """Most bytes of those chunks."""
    max_open: int
    """Of all clients together, as is the next."""
    max_staged_bytes: int
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
    max_open: Annotated[
        int | None,
        typer.Option(help="Most incomplete transactions of one client: 256, or 2500, with 64 GiB and not 8."),
    ] = None,
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
    wanted = _wanted(found, max_tables=max_tables, fold_window_ms=fold_window_ms, max_open=max_open)
    if wanted.number != found.number:
        _change(settings, wanted)
    told = RuleSet(rule_set=wanted.number, **{name: getattr(wanted, name) for name in RuleSet.__struct_fields__[1:]})
    if output is Output.JSON:
        typer.echo(as_json(told))
        return
    typer.echo(f"rule set         {told.rule_set}")
    typer.echo(f"max tables       {told.max_tables}")
    mib, all_mib = (size // 1024**2 for size in (told.max_staged_bytes_per_client, told.max_staged_bytes))
    typer.echo(f"max incomplete   {told.max_open_per_client:,} transactions of {mib:,} MiB for each client")
    typer.echo(f"                 {told.max_open:,} transactions of {all_mib:,} MiB for all of them")
    typer.echo(f"fold window      {told.fold_window_ms} ms" if told.fold_window_ms else "fold window      none")


def _in_force(settings: Settings) -> Rules:
    from .storing.store import SqlCommitStore

    with closing(open_database(settings.address)) as database:
        store = SqlCommitStore(database)
        store.lake()
        return known(store.cursor().rule_set)


def _wanted(found: Rules, *, max_tables: int | None, fold_window_ms: int | None, max_open: int | None) -> Rules:
    """The rule set that is as `found` but for what is given. Raises `TxnLogConfigError` if there is none."""
    given = {"max_tables": max_tables, "fold_window_ms": fold_window_ms, "max_open_per_client": max_open}
    wanted = {name: getattr(found, name) if value is None else value for name, value in given.items()}
    for one in RULES.values():
        if all(getattr(one, name) == value for name, value in wanted.items()):
            return one
    choices = {name: ", ".join(map(str, sorted({getattr(one, name) for one in RULES.values()}))) for name in given}
    raise TxnLogConfigError(
        f"no rule set has --max-tables {wanted['max_tables']}, --fold-window-ms {wanted['fold_window_ms']} and --max-open "
        f"{wanted['max_open_per_client']}: tables can be {choices['max_tables']}, the window "
        f"{choices['fold_window_ms']}, incomplete transactions {choices['max_open_per_client']}"
    )


def _change(settings: Settings, wanted: Rules) -> None:
    from deltalakedb.controls import set_rules
    from deltalakedb.session import Session

    with closing(Session(settings)) as session:
        set_rules(session, wanted.number, settings.timeout)
