"""The user's own Parquet and CSV files as tables, cut into as many batches each as there are transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deltalakedb.errors import TxnLogValidationError
from deltalakedb.ids import is_table_name

from . import engine
from .batches import cut, even_counts
from .checks import Check, Pin, same_rows
from .plan import Done, Insert, Keys, Step

FORMATS = ("parquet", "csv")
_TEXT_ONLY = ("TIME", "INTERVAL", "TIMETZ", "TIME WITH TIME ZONE")
"""Types that a CSV's text may look like and that Delta does not have: such columns stay text."""


class UserData:
    """Tables given by their files (see `input_files`).

    Raises `TxnLogValidationError` for files that do not make a table, and where no table has a row.
    """

    keys: Keys | None = None
    properties: Mapping[str, str] | None = None

    def __init__(self, folder: Path, inputs: Mapping[str, Sequence[Path]], *, batches: int, prefix: str = "") -> None:
        self._connection = engine.connect(folder / "data.duckdb")
        self._batches = batches
        counts = {}
        for table, files in inputs.items():
            try:
                counts[table] = self._cut(folder, table, files)
            except engine.EngineError as error:
                raise TxnLogValidationError(
                    f"table {table!r} cannot be read from {files[0].parent}: {error}"
                ) from error
        self.tables: Mapping[str, str] = {f"{prefix}{table}": table for table, rows in counts.items() if rows}
        if not self.tables:
            raise TxnLogValidationError(f"no table has a row ({', '.join(counts)}): nothing to do")
        self.title = ", ".join(f"{table} ({rows:,} rows)" for table, rows in counts.items())

    def steps(self, clients: int) -> list[list[Step]]:
        """Batches dealt out in turn."""
        return [[Insert(batch) for batch in range(client, self._batches, clients)] for client in range(clients)]

    def check(self, reader: engine.Reader, pins: Sequence[Pin], done: Sequence[Done]) -> list[Check]:
        """At the last pin every table has the rows of its input, and no others."""
        checks = []
        for table, location in pins[-1].locations.items():
            expected = engine.identifier(self.tables[table])
            reader.view(self._connection, "found", location, pins[-1].versions[table])
            what = f"{table}: the rows of the input, and no others"
            checks.append(same_rows(self._connection, what, reader.name, "found", expected))
        return checks

    def _cut(self, folder: Path, table: str, files: Sequence[Path]) -> int:
        self._open(table, files)
        (rows,) = engine.integers(self._connection, f"SELECT count(*) FROM {engine.identifier(table)}")
        if rows:
            reader = self._connection.execute(f"FROM {engine.identifier(table)}").to_arrow_reader(50_000)
            cut(folder, table, reader.schema, reader, even_counts(rows, self._batches))
        return rows

    def _open(self, table: str, files: Sequence[Path]) -> None:
        """Make the rows of `files` a view."""
        names = "[" + ", ".join(engine.literal(str(file)) for file in files) + "]"
        kind = files[0].suffix.removeprefix(".").lower()
        if kind == "parquet":
            scan = f"read_parquet({names}, union_by_name => true)"
        else:
            scan = f"read_csv({names}, union_by_name => true, sample_size => -1)"
            found = engine.rows(self._connection, f"DESCRIBE FROM {scan}")
            text = [engine.literal(str(name)) + ": 'VARCHAR'" for name, type_, *_ in found if type_ in _TEXT_ONLY]
            if text:
                scan = f"{scan[:-1]}, types => {{{', '.join(text)}}})"
        self._connection.execute(f"CREATE VIEW {engine.identifier(table)} AS FROM {scan}")


def input_files(data: Path) -> dict[str, list[Path]]:
    """The files of every table in the folder `data`, tables in order of name.

    A table is a file `<table>.parquet` or `<table>.csv`, or a folder `<table>` of either. Raises `TxnLogValidationError`
    for a folder without tables, and for names that cannot be one.
    """
    if not data.is_dir():
        raise TxnLogValidationError(
            f"{data} is not a folder; --data takes one that holds <table>.parquet or <table>.csv"
        )
    tables: dict[str, list[Path]] = {}
    for entry in sorted(data.iterdir()):
        if entry.name.startswith((".", "_")):
            continue
        files = _folder_files(entry) if entry.is_dir() else [entry] if _format(entry) else []
        if not files:
            continue
        name = entry.name if entry.is_dir() else entry.stem
        if name in tables:
            raise TxnLogValidationError(f"{data} has table {name!r} twice ({entry.name} is the second): rename one")
        if not is_table_name(name):
            raise TxnLogValidationError(
                f"{entry} cannot be a table: its name must be letters, digits, '_' and '-', with at most one '.'"
            )
        tables[name] = files
    if not tables:
        raise TxnLogValidationError(
            f"{data} has no tables: it must hold <table>.parquet, <table>.csv or folders of such"
        )
    return tables


def _folder_files(folder: Path) -> list[Path]:
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and _format(path))
    files = [path for path in inside if not any(p.startswith((".", "_")) for p in path.relative_to(folder).parts)]
    if len({_format(file) for file in files}) > 1:
        raise TxnLogValidationError(f"{folder} mixes Parquet and CSV files: a table is one or the other")
    return files


def _format(path: Path) -> str | None:
    suffix = path.suffix.removeprefix(".").lower()
    return suffix if suffix in FORMATS else None
