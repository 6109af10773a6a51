"""`deltalakedb migrate`: SQL schema and log of a lake, made or brought up to this release."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated, Protocol, cast

import msgspec
import typer

from deltalakedb.database import open_database
from deltalakedb.database.schema import grant
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.settings import Settings

from .options import ConfigOption, LogOption, Output, OutputOption, RootOption, StoreOption, as_json, settings_of


class Made(Protocol):
    """What making a lake found and did."""

    lake_id: str
    root: str
    log_address: str
    migrations: tuple[str, ...]


class MakeLake(Protocol):
    """The entry point `make` of the group `deltalakedb.lakes`: the committer's, who alone writes SQL."""

    def __call__(self, settings: Settings) -> Made:
        """Make the lake or bring it up to this release; safe to repeat."""
        ...


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the verb."""

    lake_id: str
    store: str
    log: str
    root: str
    migrations: tuple[str, ...]
    """Applied by this run; none if the store was up to date."""
    granted: dict[str, str]
    """By database role what it may be."""


def migrate(
    ctx: typer.Context,
    store: StoreOption = None,
    log: LogOption = None,
    root: RootOption = None,
    config: ConfigOption = None,
    grants: Annotated[
        list[str] | None,
        typer.Option(
            "--grant", metavar="ROLE=NAME", help="committer, mirror or reader: what a role of Postgres may be."
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a lake, or bring it up to this release: SQL schema, streams of the log. Safe to repeat.

    A new lake needs --log and --root as well; both are kept in the store, which is enough from then on.
    With --grant roles of Postgres, made before, get the rights that they need and lose all others in the lake's schema.
    """
    settings = settings_of(ctx, store=store, log=log, root=root, config=config)
    pairs = [pair.partition("=") for pair in grants or ()]
    if wrong := [role for role, _, name in pairs if not name]:
        raise typer.BadParameter(f"{wrong[0]}: the form is ROLE=NAME", param_hint="--grant")
    made = make_lake(settings)
    if pairs:
        database = open_database(settings.address)
        try:
            for role, _, name in pairs:
                grant(database, role, name)
        finally:
            database.close()
    migrated = Migrated(
        lake_id=made.lake_id,
        store=str(settings.address),
        log=made.log_address,
        root=made.root,
        migrations=made.migrations,
        granted={name: role for role, _, name in pairs},
    )
    if output is Output.JSON:
        typer.echo(as_json(migrated))
        return
    typer.echo(f"lake    {migrated.lake_id}")
    typer.echo(f"store   {migrated.store}: {', '.join(migrated.migrations) or 'nothing to do'}")
    typer.echo(f"log     {migrated.log}")
    typer.echo(f"root    {migrated.root}")
    for name, role in migrated.granted.items():
        typer.echo(f"role    {name}: {role}")


def make_lake(settings: Settings) -> Made:
    """Make a lake through whoever may write SQL. Raises what that raises."""
    for entry in entry_points(group="deltalakedb.lakes", name="make"):
        return cast(MakeLake, entry.load())(settings)
    raise TxnLogConfigError("nothing that is installed here can make a lake: the committer's package is missing")
