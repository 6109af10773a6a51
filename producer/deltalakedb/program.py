"""The program `deltalakedb`: its own verbs, those that services bring, and how errors are told to a person."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .errors import TxnLogError, TxnLogMissingExtraError

VERBS = {
    "demo": "deltalakedb.demo.command:demo",
    "migrate": "deltalakedb.verbs.migrate:migrate",
    "tables": "deltalakedb.verbs.lake:tables",
    "info": "deltalakedb.verbs.lake:info",
    "outcome": "deltalakedb.verbs.transactions:outcome",
    "cancel": "deltalakedb.verbs.transactions:cancel",
    "undo": "deltalakedb.verbs.transactions:undo",
    "import": "deltalakedb.verbs.importing:import_table",
    "release": "deltalakedb.verbs.importing:release",
}
"""The program's own verbs, in the order of the help, and where they live: what nobody asked for is not loaded."""
EXTRAS = {
    "adbc_driver_postgresql": "postgres",
    "boto3": "s3",
    "botocore": "s3",
    "confluent_kafka": "kafka",
    "deltalake": "demo",
    "duckdb": "demo",
    "prometheus_client": "services",
    "psycopg": "postgres",
    "structlog": "services",
}
"""The extra that brings a library, by the name it is imported by."""


class Program(TyperGroup):
    """Mounts its own verbs and what services bring under the entry points `deltalakedb.commands`, each loaded only when
    it is named."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all verbs, in the order of the help."""
        return [*VERBS, *sorted(_mounted())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb of that name, or None. A service whose libraries are missing becomes a verb that says so."""
        if cmd_name in VERBS:
            return _own(cmd_name)
        mounted = _mounted().get(cmd_name)
        if mounted is None:
            return None
        try:
            command = typer.main.get_command(mounted.load())
        except (ModuleNotFoundError, TxnLogMissingExtraError) as error:
            command = typer.main.get_command(_missing(cmd_name, error))
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; an error of our tree becomes a readable block on stderr and exit code 1. What Ctrl-C leaves behind
        is said before the program ends of it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupted:
            for note in getattr(interrupted, "__notes__", ()):
                typer.echo(note, err=True)
            raise
        except TxnLogError as error:
            if ctx.params.get("debug"):
                raise
            from .verbs.explain import explanation

            typer.echo(explanation(error, settings=ctx.obj), err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deltalakedb {version('deltalakedb')}")
        raise typer.Exit


@app.callback()
def program(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show errors with their traceback; also after a verb.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Transactions over many Delta tables: staged by pipelines, decided in SQL, readable by path.

    Which lake: --store of a verb, else DELTALAKEDB_STORE, else ./lake.

    Exit codes: 0 done, 1 error, 2 usage; a service also 3 fenced, 4 halted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with `arguments` (those of the process unless given) and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in given:
        given = ["--debug", *(argument for argument in given if argument != "--debug")]
    app(given, prog_name="deltalakedb")


def _own(name: str) -> Any:
    holder = typer.Typer(add_completion=False)
    holder.command(name)(pkgutil.resolve_name(VERBS[name]))
    return typer.main.get_command(holder)


def _mounted() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="deltalakedb.commands")}


def _missing(name: str, error: ModuleNotFoundError | TxnLogMissingExtraError) -> typer.Typer:
    """A verb in the place of one that cannot be loaded."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise error
        error = TxnLogMissingExtraError(f"deltalakedb {name}", EXTRAS[package])
    told = error
    stand_in = typer.Typer(add_completion=False)

    @stand_in.command(
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
        help=f"Needs an optional library: pip install 'deltalakedb[{told.extra}]'",
    )
    def explain() -> None:
        raise told

    return stand_in
