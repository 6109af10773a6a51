"""Reading inside a transaction: what is read is recorded, and the transaction's own staged rows are there already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .actions import Metadata, Protocol
from .catalog import TableInfo
from .delta_types import schema_json
from .errors import TxnLogValidationError
from .scan import DataFile, Scan
from .snapshot import TableSnapshot, chosen_columns, parsed

if TYPE_CHECKING:
    from .predicates.parsing import Predicate
    from .session import Session
    from .staging import StagedTable

NO_TABLE = -1
"""A table number that no table has: nothing is found under it in SQL."""


class TransactionTable(TableSnapshot):
    """A table as a transaction sees it. Reading it here, unlike through `lake.snapshot()`, is protected: if others
    change what was read before the transaction is decided, it is rejected."""

    def __init__(self, session: Session, staged: StagedTable, txn_id: str) -> None:
        super().__init__(session, staged.read or _info_of_new(session, staged, txn_id))
        self._staged = staged

    def app_version(self, app_id: str) -> int | None:
        """The newest transaction version of an application that this table has. Recorded like any other read."""
        if self._staged.is_new:
            return None
        self._staged.app_ids[app_id] = None
        with self._session.catalog() as catalog:
            found = {txn.app_id: txn.version for txn in catalog.txns(self._info.table_no, self._info.version)}
        return found.get(app_id)

    def _scan(self, columns: Sequence[str] | None, predicate: Predicate | None) -> Scan:
        staged = self._staged
        condition = parsed(predicate, self._schema)
        if not staged.is_new:
            if condition is None:
                staged.whole_table = True
            else:
                staged.predicates[condition.read_predicate()] = None
        own = {file.add.path for file in staged.written}
        if any(add.path not in own for add in staged.adds):
            raise TxnLogValidationError(
                f"table {self.name!r} has adds among its staged actions, whose rows cannot be read before they are "
                "committed; read first, then stage them"
            )
        if staged.files is not None:
            staged.files.flush()
        return Scan(
            session=self._session,
            table=self._info,
            schema=self._schema,
            columns=chosen_columns(self._schema, columns, self.name),
            condition=condition,
            without=frozenset(remove.path for remove in staged.removes),
            further=tuple(DataFile(file.add.path, file.add.partition_values) for file in staged.written),
        )


def _info_of_new(session: Session, staged: StagedTable, txn_id: str) -> TableInfo:
    """A table that its transaction has yet to create, without a version."""
    shape = staged.shape
    return TableInfo(
        table_no=NO_TABLE,
        table_id=txn_id,
        name=staged.name,
        location=staged.location(),
        state="ACTIVE",
        slot_columns=(),
        version=-1,
        commit_seq=None,
        time_ms=0,
        metadata=Metadata(
            id=txn_id,
            schema_string=schema_json(shape.schema),
            partition_columns=tuple(column.name for column in shape.partition_columns),
        ),
        metadata_version=-1,
        protocol=Protocol(min_reader_version=1, min_writer_version=7),
        protocol_version=-1,
        live_files=0,
        live_bytes=0,
    )
