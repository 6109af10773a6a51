"""Options that several verbs take, and the settings they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from deltalakedb.settings import Settings, load_settings


class Output(StrEnum):
    """How a verb tells its result."""

    TEXT = "text"
    JSON = "json"


StoreOption = Annotated[str | None, typer.Option("--store", help="URI of the store, or directory of an embedded lake.")]
LogOption = Annotated[
    str | None, typer.Option("--log", help="Event log: kafka://host:9092/prefix; the store knows it.")
]
RootOption = Annotated[str | None, typer.Option("--root", help="Root of new tables; the store knows it.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
OutputOption = Annotated[Output, typer.Option("--output", help="text for people, json for programs.")]


def settings_of(ctx: typer.Context, **given: Any) -> Settings:
    """The settings of this run, kept where an error will look for them."""
    settings = load_settings(**given)
    ctx.find_root().obj = settings
    return settings


def as_json(result: Any) -> str:
    """A result as one JSON document on one line."""
    return msgspec.json.encode(result).decode()


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines with every column as wide as its widest cell, the last one as it is."""
    lines = [*([header] if header else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
