"""What readers hold: all tables at one commit, and one table at one version. Planned from SQL, also without a mirror."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .catalog import FILE_COLUMNS, TableInfo
from .delta_types import StructType, parse_schema
from .errors import TxnLogConfigError, TxnLogMissingExtraError, TxnLogValidationError

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow as pa

    from .predicates.parsing import Predicate
    from .scan import Scan
    from .session import Session


class Snapshot:
    """All tables of a lake at one commit. It does not change, and holds nothing open."""

    def __init__(
        self, session: Session, commit_seq: int, time_ms: int, importing: Mapping[str, tuple[str, int]] | None = None
    ) -> None:
        """`importing` are id and version, by name, of tables that it shows though they are part of no commit yet."""
        self._session = session
        self._commit_seq = commit_seq
        self._time_ms = time_ms
        self._importing = dict(importing or {})

    @property
    def commit_seq(self) -> int:
        """The newest commit that it shows; 0: the lake was empty."""
        return self._commit_seq

    @property
    def timestamp(self) -> datetime:
        """Time of that commit (UTC)."""
        return datetime.fromtimestamp(self._time_ms / 1000, UTC)

    def tables(self) -> list[str]:
        """Names of the tables there were."""
        with self._session.catalog() as catalog:
            there = {info.name for info in catalog.tables(commit_seq=self._commit_seq)}
        return sorted(there | self._importing.keys())

    def has_table(self, name: str) -> bool:
        """Whether there was a table of that name."""
        return name in self.tables()

    def table(self, name: str) -> TableSnapshot:
        """The table as it was at this commit. Raises `TxnLogTableNotFoundError` if it was not there."""
        with self._session.catalog() as catalog:
            if name in self._importing:
                table_id, version = self._importing[name]
                return TableSnapshot(self._session, catalog.table(table_id=table_id, version=version))
            return TableSnapshot(self._session, catalog.table(name, commit_seq=self._commit_seq))

    def __repr__(self) -> str:
        return f"<Snapshot of {self._session.lake.root} at commit {self._commit_seq}, {self.timestamp.isoformat()}>"


class TableSnapshot:
    """One table at one version. It does not change, and holds nothing open."""

    def __init__(self, session: Session, info: TableInfo) -> None:
        self._session = session
        self._info = info
        self._schema = parse_schema(info.metadata.schema_string)

    @property
    def name(self) -> str:
        return self._info.name

    @property
    def location(self) -> str:
        """URI of the table's folder: what readers by path open."""
        return self._info.location

    @property
    def version(self) -> int:
        return self._info.version

    @property
    def commit_seq(self) -> int | None:
        """The commit of the lake that made this version; None if it was imported."""
        return self._info.commit_seq

    @property
    def timestamp(self) -> datetime:
        """Time of that commit (UTC): the version's in-commit timestamp."""
        return datetime.fromtimestamp(self._info.time_ms / 1000, UTC)

    @property
    def schema(self) -> StructType:
        """Delta's schema."""
        return self._schema

    @property
    def arrow_schema(self) -> pa.Schema:
        """The schema of what `to_arrow` gives."""
        from .arrow import arrow_schema

        return arrow_schema(self._schema)

    @property
    def partition_columns(self) -> tuple[str, ...]:
        return self._info.metadata.partition_columns

    @property
    def properties(self) -> Mapping[str, str]:
        """Table properties (`metaData.configuration`)."""
        return dict(self._info.metadata.configuration)

    def files(
        self, predicate: Predicate | None = None, *, columns: Sequence[str] = FILE_COLUMNS
    ) -> Iterator[pa.RecordBatch]:
        """The data files, streamed as Arrow batches: path, partition_values (JSON), size, stats, ...

        With a predicate, files that cannot have a matching row are left out: by partition values and statistics.
        """
        return self._scan(None, predicate).files(columns)

    def to_batches(
        self, columns: Sequence[str] | None = None, predicate: Predicate | None = None
    ) -> pa.RecordBatchReader:
        """The rows as a stream, one file after the other; memory is bounded by a batch."""
        import pyarrow as pa

        scan = self._scan(columns, predicate)
        schema = pa.schema([self.arrow_schema.field(name) for name in scan.columns])
        return pa.RecordBatchReader.from_batches(schema, scan.batches())

    def to_arrow(self, columns: Sequence[str] | None = None, predicate: Predicate | None = None) -> pa.Table:
        """The rows as an Arrow table.

        `predicate` is SQL text (`"o_orderdate >= '1998-01-01'"`) or a filter list as deltalake takes it; files that
        cannot match are not read. Raises `TxnLogValidationError` for a predicate or column that cannot be, and for
        tables that cannot be read here yet, `TxnLogObjectStoreError` if a data file cannot be read.
        """
        return self._scan(columns, predicate).table_of_rows()

    def to_polars(self, columns: Sequence[str] | None = None, predicate: Predicate | None = None) -> polars.DataFrame:
        """As `to_arrow`, for polars."""
        try:
            import polars
        except ImportError as error:
            raise TxnLogConfigError("to_polars() needs polars: pip install polars") from error
        frame = polars.from_arrow(self.to_arrow(columns, predicate))
        assert isinstance(frame, polars.DataFrame), "a table becomes a frame"
        return frame

    def to_pandas(self, columns: Sequence[str] | None = None, predicate: Predicate | None = None) -> pandas.DataFrame:
        """As `to_arrow`, for pandas."""
        try:
            import pandas  # noqa: F401 - only to be able to say what is missing
        except ImportError as error:
            raise TxnLogConfigError("to_pandas() needs pandas: pip install pandas") from error
        return self.to_arrow(columns, predicate).to_pandas()

    def to_duckdb(
        self,
        connection: duckdb.DuckDBPyConnection | None = None,
        columns: Sequence[str] | None = None,
        predicate: Predicate | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """As `to_arrow`, as a relation of a DuckDB connection (the default one if none is given)."""
        try:
            import duckdb
        except ImportError as error:
            raise TxnLogMissingExtraError("to_duckdb()", "duckdb") from error
        rows = self.to_arrow(columns, predicate)
        return duckdb.from_arrow(rows) if connection is None else connection.from_arrow(rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows, for anything that reads the Arrow stream protocol."""
        stream: Any = self.to_batches()
        capsule: object = stream.__arrow_c_stream__(requested_schema)
        return capsule

    def _scan(self, columns: Sequence[str] | None, predicate: Predicate | None) -> Scan:
        from .scan import Scan

        return Scan(
            session=self._session,
            table=self._info,
            schema=self._schema,
            columns=chosen_columns(self._schema, columns, self.name),
            condition=parsed(predicate, self._schema),
        )

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}: {f.type if isinstance(f.type, str) else '...'}" for f in self._schema.fields)
        return f"<TableSnapshot {self.name!r} version {self.version} ({shown}) at {self.location}>"


def chosen_columns(schema: StructType, columns: Sequence[str] | None, table: str) -> tuple[str, ...]:
    """The columns asked for, checked; all of them for None. Raises `TxnLogValidationError`."""
    if columns is None:
        return tuple(field.name for field in schema.fields)
    if isinstance(columns, str) or not columns:
        raise TxnLogValidationError("columns is a list of at least one column name")
    missing = [name for name in columns if schema.field(name) is None]
    if missing:
        known = ", ".join(field.name for field in schema.fields)
        raise TxnLogValidationError(f"table {table!r} has no column {', '.join(missing)}; its columns are {known}")
    return tuple(dict.fromkeys(columns))


def parsed(predicate: Predicate | None, schema: StructType) -> Any:
    """The condition that a predicate is; None for none."""
    if predicate is None:
        return None
    from .predicates import parse_condition

    return parse_condition(predicate, schema)
