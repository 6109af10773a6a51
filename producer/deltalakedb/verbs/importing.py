"""`deltalakedb import` and `deltalakedb release`: existing tables come into a lake, and are given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

import deltalakedb
from deltalakedb.errors import TxnLogUriError
from deltalakedb.uri import StoreUri, lake_uri, parse_uri

from .options import ConfigOption, LogOption, Output, OutputOption, StoreOption, aligned, as_json, settings_of

if TYPE_CHECKING:
    from rich.progress import TaskID

    from deltalakedb.importing import ImportReport, Progress, Watch


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `release`."""

    table: str
    version: int
    """The last version that the lake gave it: the one without the writer fence."""


def import_table(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The table: a directory, file:///<path>, s3://<bucket>/<path>.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET-URI", help="The lake and a name in it: a store's URI with ?table=<name>.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
    up_to_version: Annotated[
        int | None, typer.Option("--up-to-version", min=0, help="Stop at this version, as with --no-cutover.")
    ] = None,
    no_cutover: Annotated[
        bool,
        typer.Option(
            "--no-cutover",
            help="Write nothing at the source: the table stands here read-only, until an import without this.",
        ),
    ] = False,
    allow_root: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-root",
            help="URI or path that files outside of the table's folder may lie under; may be given often.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Pass over checksums that disagree, and another lake's writer fence.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            min=0,
            help="Seconds to watch whether the version that takes over stands; more where Spark may still write.",
        ),
    ] = 5.0,
    log: LogOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring an existing Delta table into a lake, with its history, and take it over from its other writers.

    Look first (--dry-run), stop the writers that it names, then import. Safe to repeat: it goes on where it stopped.

    Exit code 1 with --dry-run too, if the table would be refused.
    """
    store, name = _target(target)
    settings = settings_of(ctx, store=store, log=log, config=config)
    with deltalakedb.connect(settings=settings) as lake, _watched(output) as watch:
        report = lake.import_table(
            name,
            source,
            up_to_version=up_to_version,
            allow_roots=allow_root or (),
            force=force,
            cutover=not no_cutover,
            dry_run=dry_run,
            grace=grace,
            watch=watch,
        )
    typer.echo(as_json(report) if output is Output.JSON else "\n".join(_lines(report)))
    if report.refused:
        raise typer.Exit(1)


def release(
    ctx: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the lake.")],
    store: StoreOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Give a table back: a last version without the writer fence, and it is closed here. Then others write it again."""
    with deltalakedb.connect(settings=settings_of(ctx, store=store, log=log, config=config)) as lake:
        result = lake.release(table)
        # One that was released before gets no version now.
        version = result.versions[table] if table in result.versions else lake.version(table)
        released = Released(table=table, version=version)
    if output is Output.JSON:
        typer.echo(as_json(released))
    else:
        typer.echo(
            f"{table} is released with version {released.version}; others may write once that is published "
            f"(deltalakedb info {table}: mirrored version)"
        )


def _target(uri: str) -> tuple[str, str]:
    """The lake's URI and the table's name. Raises `TxnLogUriError`."""
    parsed = parse_uri(uri)
    if not isinstance(parsed, StoreUri) or parsed.table is None:
        raise TxnLogUriError(
            f"{uri} does not name a table of a lake: deltasql://sqlite/<path>/lake.db?table=<name>, "
            "deltasql://postgres/<db>/<schema>/<name> or postgresql://<host>/<db>?schema=<schema>&table=<name>"
        )
    return lake_uri(parsed.address), parsed.table


@contextmanager
def _watched(output: Output) -> Iterator[Watch]:
    """A progress bar on stderr, where somebody looks at it; and a word before the cut-over."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("version {task.fields[version]}"),
        TimeRemainingColumn(),
    )
    quiet = output is Output.JSON or not console.is_terminal
    with Bar(*columns, console=console, transient=True, disable=quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def watch(progress: Progress) -> None:
            if progress.phase == "adopting":
                if output is Output.TEXT and progress.writers:
                    bar.console.print(_warning(progress), highlight=False)
                return
            task = tasks.get(progress.phase)
            if task is None:
                task = tasks[progress.phase] = bar.add_task(progress.phase, version="")
            bar.update(task, completed=progress.done, total=progress.total, version=progress.version)

        yield watch


def _warning(progress: Progress) -> str:
    engines = ", ".join(f"{writer.engine} (last version {writer.newest_version})" for writer in progress.writers)
    return (
        f"taking the table over. Its writers should be stopped by now: {engines}. From the next version on, writers that "
        "respect table features refuse to write; Spark can overwrite that version while it is new"
    )


def _lines(report: ImportReport) -> list[str]:
    """The report for a person."""
    whole = report.baseline == 0
    said = {
        "planned": "would be imported",
        "imported": "is imported, and stands in the lake read-only",
        "adopted": "is the lake's, which made it"
        if report.adopted_version is None
        else f"is the lake's, from version {report.adopted_version} on",
    }[report.state]
    rows = [
        ("table", f"{report.table} {'is refused' if report.refused else said}"),
        ("source", report.source),
        (
            "versions",
            f"{report.versions} {'to import' if report.state == 'planned' else 'imported'}, {report.already} before; "
            f"newest {report.newest}",
        ),
        (
            "history",
            "whole"
            if whole
            else f"state from version {report.baseline} on; {report.history} older versions to look at",
        ),
        ("files", f"{report.files} of {report.bytes} bytes"),
        ("protocol", f"reader {report.reader_version}, writer {report.writer_version}"),
        ("features", ", ".join(report.features) or "-"),
        ("checksums", f"{report.checksums} compared"),
        *(("writer", f"{w.engine}: {w.commits} versions, newest {w.newest_version}") for w in report.writers),
        *(("refused", text) for text in report.refused),
        *(("forced", text) for text in report.forced),
        *(("left out", text) for text in report.skipped),
    ]
    return aligned((), rows)
