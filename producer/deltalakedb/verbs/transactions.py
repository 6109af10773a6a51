"""`deltalakedb outcome`, `deltalakedb cancel` and `deltalakedb undo`: what became of a transaction, and becomes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import typer

import deltalakedb
from deltalakedb.events import Outcome
from deltalakedb.ids import is_txn_id

from .options import ConfigOption, LogOption, Output, OutputOption, StoreOption, as_json, settings_of

TxnArgument = Annotated[
    str, typer.Argument(metavar="TXN", help="Id of the transaction, as errors and results show it.")
]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The result of both verbs. `undecided`: nothing of the transaction was decided so far; it may still be."""

    txn_id: str
    state: Literal["committed", "rejected", "undecided"]
    commit_seq: int | None = None
    versions: dict[str, int] = {}
    reason: str | None = None
    message: str | None = None
    table: str | None = None
    other_txn: str | None = None


def outcome(
    ctx: typer.Context,
    txn: TxnArgument,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say whether a transaction was committed or rejected."""
    _known(txn)
    with deltalakedb.connect(settings=settings_of(ctx, store=store, log=log, config=config)) as lake:
        _tell(_decision(txn, lake.outcome(txn)), output)


def cancel(
    ctx: typer.Context,
    txn: TxnArgument,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Settle a transaction whose outcome is unknown: if it is undecided it is rejected for ever, else nothing changes."""
    _known(txn)
    with deltalakedb.connect(settings=settings_of(ctx, store=store, log=log, config=config)) as lake:
        _tell(_decision(txn, lake.cancel(txn)), output)


def undo(
    ctx: typer.Context,
    txn: TxnArgument,
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Undo a committed transaction by another one, over all its tables; refused where something later stands on it."""
    _known(txn)
    with deltalakedb.connect(settings=settings_of(ctx, store=store, log=log, config=config)) as lake:
        result = lake.undo(txn)
    _tell(
        Decision(txn_id=result.txn_id, state="committed", commit_seq=result.commit_seq, versions=result.versions),
        output,
    )


def _known(txn: str) -> None:
    if not is_txn_id(txn):
        raise typer.BadParameter("a transaction id is a UUID in lower case", param_hint="TXN")


def _decision(txn: str, told: Outcome | None) -> Decision:
    if told is None:
        return Decision(txn_id=txn, state="undecided")
    if told.committed is not None:
        versions = {table.name: table.version for table in told.committed.tables}
        return Decision(txn_id=txn, state="committed", commit_seq=told.committed.commit_seq, versions=versions)
    assert told.rejected is not None, "an outcome is one or the other"
    return Decision(
        txn_id=txn,
        state="rejected",
        reason=told.rejected.reason,
        message=told.rejected.message,
        table=told.rejected.table,
        other_txn=told.rejected.other_txn,
    )


def _tell(decision: Decision, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(as_json(decision))
        return
    match decision.state:
        case "committed":
            versions = ", ".join(f"{name} version {version}" for name, version in decision.versions.items())
            typer.echo(f"committed as commit {decision.commit_seq}: {versions or 'no table changed'}")
        case "rejected":
            where = f" (table {decision.table})" if decision.table else ""
            typer.echo(f"rejected{where}: {decision.reason}: {decision.message}")
        case "undecided":
            typer.echo("undecided: the committer has not come to it, or it never reached the log")
