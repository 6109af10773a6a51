"""`deltalakedb tables` and `deltalakedb info`: what a lake holds and where its services stand, read from SQL alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from deltalakedb.catalog import IN_PLACE, Catalog, MirrorProgress, TableInfo
from deltalakedb.database import Database, open_database
from deltalakedb.database.schema import verify_schema
from deltalakedb.errors import TxnLogConfigError
from deltalakedb.settings import Settings

from .options import ConfigOption, Output, OutputOption, StoreOption, aligned, as_json, settings_of


class TableLine(msgspec.Struct, frozen=True, kw_only=True):
    """One table, now."""

    name: str
    version: int
    mirrored_version: int
    """Newest version that can be read by path; -1: none."""
    mirror: str
    """PENDING, IN_FLIGHT, SUCCEEDED, FAILED, FENCED."""
    files: int
    bytes: int
    location: str


class TableDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One table with what its metadata and protocol say."""

    table: TableLine
    table_id: str
    state: str
    commit_seq: int | None
    time: str
    """In-commit timestamp of the version, UTC."""
    columns: dict[str, str]
    """Delta type by name; nested types as their JSON."""
    partition_columns: tuple[str, ...]
    properties: dict[str, str]
    reader: int
    writer: int
    features: tuple[str, ...]
    last_error: str | None
    fenced_by: str | None


class LakeDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The lake, and where its services stand."""

    lake_id: str
    store: str
    log: str
    root: str
    fence: bool
    commit_seq: int
    """Of the newest commit; 0: none."""
    time: str | None
    """Of that commit, UTC."""
    tables: int
    files: int
    bytes: int
    committer: str
    """Who led last: client id, or host name and process."""
    released: bool
    """Whether it has stopped and said so."""
    epoch: int
    position: int
    """Next record of the staged stream."""
    behind: int
    """Versions of tables that cannot be read by path yet."""
    not_mirrored: dict[str, str]
    """Tables whose mirror failed or is fenced, with the reason."""


def tables(
    ctx: typer.Context, store: StoreOption = None, config: ConfigOption = None, output: OutputOption = Output.TEXT
) -> None:
    """List the tables of the lake: version, how far they can be read by path, size, location."""
    with reading(settings_of(ctx, store=store, config=config)) as database:
        lines = _lines(database)
    if output is Output.JSON:
        typer.echo(as_json(lines))
        return
    rows = [
        (line.name, str(line.version), _mirrored(line), str(line.files), str(line.bytes), line.location)
        for line in lines
    ]
    typer.echo("\n".join(aligned(("table", "version", "by path", "files", "bytes", "location"), rows)))


def info(
    ctx: typer.Context,
    table: Annotated[str | None, typer.Argument(help="A table of the lake; the lake itself unless given.")] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a lake, and where its committer and mirror stand; or one table with its schema and properties."""
    settings = settings_of(ctx, store=store, config=config)
    with reading(settings) as database:
        details = _lake(database, settings) if table is None else _table(database, table)
    if output is Output.JSON:
        typer.echo(as_json(details))
        return
    values = msgspec.to_builtins(details)
    values |= values.pop("table", {})
    typer.echo("\n".join(aligned((), [(name.replace("_", " "), _text(value)) for name, value in values.items()])))


@contextmanager
def reading(settings: Settings) -> Iterator[Database]:
    """A connection that sees one state of the lake. Raises `TxnLogConfigError` if there is no lake in the store."""
    database = open_database(settings.address)
    try:
        verify_schema(database)
        with database.snapshot():
            yield database
    finally:
        database.close()


def _lines(database: Database) -> list[TableLine]:
    catalog = Catalog(database)
    progress = {table.table_no: table for table in catalog.progress(IN_PLACE)}
    return [_line(table, progress[table.table_no]) for table in catalog.tables()]


def _line(table: TableInfo, progress: MirrorProgress) -> TableLine:
    return TableLine(
        name=table.name,
        version=table.version,
        mirrored_version=-1 if progress.status is None else progress.status.mirrored_version,
        mirror="PENDING" if progress.status is None else progress.status.state,
        files=table.live_files or 0,
        bytes=table.live_bytes or 0,
        location=table.location,
    )


def _table(database: Database, name: str) -> TableDetails:
    catalog = Catalog(database)
    table = catalog.table(name)
    progress = next(row for row in catalog.progress(IN_PLACE) if row.table_no == table.table_no)
    schema = msgspec.json.decode(table.metadata.schema_string)
    protocol = table.protocol
    return TableDetails(
        table=_line(table, progress),
        table_id=table.table_id,
        state=table.state,
        commit_seq=table.commit_seq,
        time=_time(table.time_ms),
        columns={field["name"]: _type(field) for field in schema["fields"]},
        partition_columns=table.metadata.partition_columns,
        properties=table.metadata.configuration,
        reader=protocol.min_reader_version,
        writer=protocol.min_writer_version,
        features=tuple(sorted({*(protocol.reader_features or ()), *(protocol.writer_features or ())})),
        last_error=None if progress.status is None else progress.status.last_error,
        fenced_by=None if progress.status is None else progress.status.fenced_by,
    )


def _lake(database: Database, settings: Settings) -> LakeDetails:
    catalog = Catalog(database)
    lake = catalog.lake()
    if lake is None:
        raise TxnLogConfigError("the store holds no lake yet: run `deltalakedb migrate` first")
    head = catalog.head()
    lines = _lines(database)
    ((epoch, position),) = database.query("SELECT epoch, position FROM dl_committer_position")
    beats = database.query("SELECT holder, released FROM dl_committer_heartbeat")
    return LakeDetails(
        lake_id=lake.lake_id,
        store=str(settings.address),
        log=lake.log_address,
        root=lake.root,
        fence=lake.fence,
        commit_seq=head.commit_seq,
        time=_time(head.time_ms) if head.commit_seq else None,
        tables=len(lines),
        files=sum(line.files for line in lines),
        bytes=sum(line.bytes for line in lines),
        committer=beats[0][0] if beats else "",
        released=bool(beats[0][1]) if beats else True,
        epoch=epoch,
        position=position,
        behind=sum(max(0, line.version - line.mirrored_version) for line in lines),
        not_mirrored={line.name: line.mirror for line in lines if line.mirror in ("FAILED", "FENCED")},
    )


def _type(field: dict[str, object]) -> str:
    kind = field["type"]
    text = kind if isinstance(kind, str) else msgspec.json.encode(kind).decode()
    return text if field.get("nullable", True) else f"{text} not null"


def _mirrored(line: TableLine) -> str:
    return str(line.mirrored_version) if line.mirror == "SUCCEEDED" else f"{line.mirrored_version} {line.mirror}"


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _text(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {text}" for name, text in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(str, value)) or "-"
        case bool():
            return "yes" if value else "no"
        case None | "":
            return "-"
        case _:
            return str(value)
