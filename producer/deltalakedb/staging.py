"""One table of one transaction: what was read of it, what is done to it, the files that were written for it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from .actions import Action, AddFile, CdcFile, OtherAction, RemoveFile
from .arrow import delta_schema, to_reader
from .delta_types import StructType, name_problem, schema_json
from .errors import TxnLogError, TxnLogSchemaError, TxnLogTableNotFoundError, TxnLogValidationError
from .events import CreateTable, Intent, Predicate, ReadSet, TableWork, WrittenAgainst
from .ids import table_location
from .parquet import TableShape, TableWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from .catalog import TableInfo
    from .parquet import DataFiles, Written
    from .session import KnownTable, Session


class StagedTable:
    """What one transaction has gathered about one table. Used by one thread."""

    def __init__(self, session: Session, name: str, txn_id: str) -> None:
        self.name = name
        self._session = session
        self._txn_id = txn_id
        self._known: KnownTable | None = None
        self._creation: CreateTable | None = None
        self._new_shape: TableShape | None = None
        """Of a table that this transaction creates."""
        self._files: DataFiles | None = None
        self._numbers = itertools.count()
        self.written: list[Written] = []
        self.adds: list[AddFile] = []
        self.removes: list[RemoveFile] = []
        self._cdc: list[CdcFile] = []
        self._others: list[OtherAction] = []
        self.read: TableInfo | None = None
        """The version that was opened for reading."""
        self._read_version: int | None = None
        self.whole_table = False
        """Whether all of it was read, as are the next two."""
        self.predicates: dict[Predicate, None] = {}
        self.app_ids: dict[str, None] = {}

    @property
    def is_new(self) -> bool:
        """Whether this transaction creates it, as far as is known."""
        return self._creation is not None and self._known is None

    @property
    def changes(self) -> bool:
        """Whether it asks for anything but to have read."""
        return bool(self._creation or self.adds or self.removes or self._cdc or self._others)

    @property
    def shape(self) -> TableShape:
        """What rows have to become."""
        shape = self._new_shape
        if shape is None:
            known = self._existing()
            assert known is not None, "rows come after the table or its creation"
            shape = known.shape
        return shape

    def create(self, schema: StructType, creation: CreateTable) -> None:
        """Create the table; if somebody else has made it meanwhile, the committer compares the two.

        Raises `TxnLogSchemaError`, `TxnLogValidationError` for what no table can be, `TxnLogMirrorError` if another
        table's `_delta_log` is in its place.
        """
        if self.changes:
            raise TxnLogValidationError(f"table {self.name!r} was staged in this transaction before it is created")
        mapped = creation.properties.get("delta.columnMapping.mode", "none") != "none"
        problem = None if mapped else name_problem(schema)
        if problem is not None:
            raise TxnLogSchemaError(f"table {self.name!r}: {problem}")
        shape = TableShape(schema, creation.partition_columns, creation.properties)
        if self._existing() is None:
            location = creation.location or table_location(self._session.lake.root, self.name)
            if not self._session.check_new_location(self.name, location):
                self._known = self._session.known(self.name)
        self._creation, self._new_shape = creation, shape

    def append(
        self,
        data: Any,
        partition_by: Sequence[str] | None,
        schema: pa.Schema | StructType | None,
        properties: Mapping[str, str],
    ) -> None:
        """Write rows; a table that is not there is created from them. Nothing is staged if this raises."""
        reader = to_reader(data)
        creates = self._creation is None and self._existing() is None
        if creates:
            wanted = delta_schema(reader.schema if schema is None else schema)
            self.create(wanted, creation_of(wanted, partition_by or (), properties))
            if self._known is not None:  # somebody else made it just now: it is a table like any other
                self._creation, self._new_shape = None, None
        try:
            self._check_partitioning(partition_by)
            self._refresh_for(reader.schema)
            self._write(reader)
        except BaseException:
            if creates:
                self._creation, self._new_shape = None, None
            raise

    def take(self, actions: Sequence[Action], read_version: int | None) -> None:
        """Gather ready-made actions. Raises `TxnLogTableNotFoundError` if there is no table for them."""
        if self._creation is None and self._existing() is None:
            with self._session.catalog() as catalog:
                missing = catalog.no_table(self.name)
            raise TxnLogTableNotFoundError(
                f"actions need a table that was created before, in this transaction or another: {missing}"
            )
        self._check_count(len(actions))
        if read_version is not None:
            self._read_version = read_version
        for action in actions:
            match action:
                case AddFile():
                    self.adds.append(action)
                case RemoveFile():
                    self.removes.append(action)
                case CdcFile():
                    self._cdc.append(action)
                case OtherAction():
                    self._others.append(action)

    @property
    def files(self) -> DataFiles | None:
        """Where its rows were written, if any were."""
        return self._files

    @property
    def size(self) -> int:
        """Bytes that were written."""
        return sum(file.add.size for file in self.written)

    def delete(self) -> None:
        """Delete what was written."""
        if self._files is not None:
            self._files.delete([written.path for written in self.written])

    def work(self) -> TableWork:
        """All of it, as it is published."""
        operation, parameters = self._operation()
        intents: tuple[Intent, ...] = () if self._creation is None else (self._creation,)
        table_id = self._table_id()
        return TableWork(
            name=self.name if table_id is None else None,
            id=table_id,
            read_version=self._read_version if self.read is None else self.read.version,
            read_set=self._read_set(),
            written_against=self._written_against(),
            operation=operation,
            operation_parameters=parameters,
            operation_metrics=self._metrics(),
            intents=intents,
            adds=tuple(self.adds),
            removes=tuple(self.removes),
            cdc=tuple(self._cdc),
            others=tuple(self._others),
        )

    def location(self) -> str:
        """Where its rows are written: the table's folder, or the one that its creation asks for by this."""
        known = self._existing()
        if self._creation is None:
            assert known is not None, "rows come after the table or its creation"
            return known.info.location
        location = self._creation.location
        if location is None:
            location = table_location(self._session.lake.root, self.name) if known is None else known.info.location
            self._creation = msgspec.structs.replace(self._creation, location=location)
        return location

    def _write(self, reader: pa.RecordBatchReader) -> None:
        if self._files is None:
            self._files = self._session.files.open(self.location())
        writer = TableWriter(
            self._files,
            self.shape,
            stem=self._txn_id,
            numbers=self._numbers,
            target_bytes=self._session.settings.target_file_bytes,
        )
        try:
            writer.write(reader)
            written = writer.finish()
            self._check_count(len(written))
        except BaseException:
            with suppress(TxnLogError):  # what went wrong first matters
                writer.abort()
            raise
        self.written += written
        self.adds += [file.add for file in written]

    def _existing(self) -> KnownTable | None:
        """The table that is there, as this transaction came to know it."""
        if self._known is None:
            self._known = self._session.known(self.name)
            if self._known is not None and self.read is not None and self._known.info.table_id != self.read.table_id:
                self._known = self._session.known(self.name, fresh=True)
        return self._known

    def _check_partitioning(self, partition_by: Sequence[str] | None) -> None:
        have = tuple(column.name for column in self.shape.partition_columns)
        if partition_by is not None and tuple(partition_by) != have:
            raise TxnLogSchemaError(
                f"table {self.name!r} is partitioned by {', '.join(have) or 'nothing'}, "
                f"not by {', '.join(partition_by) or 'nothing'}"
            )

    def _refresh_for(self, schema: pa.Schema) -> None:
        """See that rows can fit; what is remembered of the table may be too old for them."""
        try:
            self.shape.fit(schema)
        except TxnLogSchemaError as error:
            known = self._known
            fresh = None
            if self._creation is None and not self.written:
                fresh = self._session.known(self.name, fresh=True)
            if fresh is None or fresh is known:
                raise TxnLogSchemaError(f"table {self.name!r}: {error}") from error
            self._known = fresh
            self._refresh_for(schema)

    def _check_count(self, more: int) -> None:
        limit = self._session.settings.max_files_per_table
        count = len(self.adds) + len(self.removes) + len(self._cdc) + more
        if count > limit:
            raise TxnLogValidationError(
                f"table {self.name!r} would have {count:,} file actions in one transaction; {limit:,} are allowed "
                "(settings max_files_per_table, DELTALAKEDB_MAX_FILES_PER_TABLE)"
            )

    def _table_id(self) -> str | None:
        """A table that is there is named by its id: another one that gets the same name is not meant."""
        if self._creation is not None:
            return None
        if self.read is not None:
            return self.read.table_id
        return None if self._known is None else self._known.info.table_id

    def _read_set(self) -> ReadSet | None:
        if not (self.whole_table or self.predicates or self.app_ids):
            return None
        predicates = () if self.whole_table else tuple(self.predicates)
        return ReadSet(whole_table=self.whole_table, predicates=predicates, app_ids=tuple(self.app_ids))

    def _written_against(self) -> WrittenAgainst | None:
        if self._creation is not None or self._known is None:
            return None
        return WrittenAgainst(self._known.info.metadata_version, self._known.info.protocol_version)

    def _operation(self) -> tuple[str, dict[str, str]]:
        """`commitInfo.operation` and its parameters, in Delta's words."""
        creation = self._creation
        if self.removes:
            return ("WRITE", {}) if self.adds else ("DELETE", {})
        if self.adds:
            by: Sequence[str] = ()
            if creation is not None:
                by = creation.partition_columns
            elif self._known is not None:
                by = self._known.info.metadata.partition_columns
            return "WRITE", {"mode": "Append", "partitionBy": _json(by)}
        if creation is not None:
            parameters = {"partitionBy": _json(creation.partition_columns), "properties": _json(creation.properties)}
            return "CREATE TABLE", parameters
        return "WRITE", {}

    def _metrics(self) -> dict[str, str]:
        if not self.written:
            return {}
        return {
            "numFiles": str(len(self.written)),
            "numOutputRows": str(sum(file.rows for file in self.written)),
            "numOutputBytes": str(sum(file.add.size for file in self.written)),
        }


def creation_of(
    schema: StructType,
    partition_by: Sequence[str],
    properties: Mapping[str, str],
    *,
    location: str | None = None,
    description: str | None = None,
    if_absent: bool = True,
) -> CreateTable:
    """The intent that a table is there."""
    return CreateTable(
        schema_string=schema_json(schema),
        partition_columns=tuple(partition_by),
        properties={str(key): str(value) for key, value in properties.items()},
        location=location,
        description=description,
        if_absent=if_absent,
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
