"""Options that several verbs take, and the settings they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from deltalakedb.errors import TxnLogConfigError
from deltalakedb.ids import is_table_name
from deltalakedb.settings import Settings, load_settings
from deltalakedb.uri import StoreUri, lake_uri, parse_uri


class Output(StrEnum):
    """How a verb tells its result."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """From which level on a service logs."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


StoreOption = Annotated[str | None, typer.Option("--store", help="URI of the store, or directory of an embedded lake.")]
LogOption = Annotated[
    str | None, typer.Option("--log", help="Event log: kafka://host:9092/prefix; the store knows it.")
]
RootOption = Annotated[str | None, typer.Option("--root", help="Root of new tables; the store knows it.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
ListenOption = Annotated[
    str | None,
    typer.Option(
        "--listen",
        envvar="DELTALAKEDB_LISTEN",
        help="host:port on which health and metrics are told over HTTP; a service that halts then stays to tell it.",
    ),
]
LogLevelOption = Annotated[
    LogLevel, typer.Option("--log-level", case_sensitive=False, help="What is logged: this and what is graver.")
]
TableArgument = Annotated[
    str, typer.Argument(metavar="TABLE-URI", help="URI of a table of the lake, or its name in the lake of --store.")
]
OutputOption = Annotated[Output, typer.Option("--output", help="text for people, json for programs.")]


def settings_of(ctx: typer.Context, **given: Any) -> Settings:
    """The settings of this run, kept where an error will look for them."""
    settings = load_settings(**given)
    ctx.find_root().obj = settings
    return settings


def table_of(ctx: typer.Context, table: str, *, store: str | None, **given: Any) -> tuple[Settings, str]:
    """The lake and the name of a table that is given by its URI, or by its name in the lake of `store`.

    `given` are further settings.

    Raises `TxnLogConfigError` for a URI that names no table of a lake.
    """
    if is_table_name(table):
        return settings_of(ctx, store=store, **given), table
    parsed = parse_uri(table)
    if not isinstance(parsed, StoreUri) or parsed.table is None:
        raise TxnLogConfigError(
            "a table of a lake is meant: its URI (deltasql://postgres/<db>/<schema>/<table>, "
            "deltasql://sqlite//<path>/lake.db?table=<table>), or its name, and --store for the lake"
        )
    return settings_of(ctx, store=lake_uri(parsed.address), **given), parsed.table


def as_json(result: Any) -> str:
    """A result as one JSON document on one line."""
    return msgspec.json.encode(result).decode()


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines with every column as wide as its widest cell, the last one as it is."""
    lines = [*([header] if header else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
