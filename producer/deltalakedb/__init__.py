"""Transactions over many Delta tables, for Python pipelines.

    lake = deltalakedb.connect("./lake")
    with lake.begin() as tx:
        tx.stage_table("orders", orders)
        tx.stage_table("lineitem", lineitem)
    print(tx.result.versions)

Importing this loads nothing heavy: names are looked up where they live when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .actions import AddFile, CdcFile, DeletionVector, OtherAction, RemoveFile
    from .connecting import begin, connect, open
    from .delta_types import ArrayType, MapType, StructField, StructType
    from .errors import (
        Reason,
        Rejection,
        TxnLogCommitUnknownError,
        TxnLogConfigError,
        TxnLogConflictError,
        TxnLogDatabaseError,
        TxnLogDecodeError,
        TxnLogDeltaLogError,
        TxnLogError,
        TxnLogEventLogError,
        TxnLogFencedError,
        TxnLogHaltedError,
        TxnLogImportError,
        TxnLogMirrorError,
        TxnLogMissingExtraError,
        TxnLogObjectStoreError,
        TxnLogOutcomeUnknownError,
        TxnLogRejectedError,
        TxnLogSchemaError,
        TxnLogStoreInUseError,
        TxnLogTableFencedError,
        TxnLogTableNotFoundError,
        TxnLogTimeoutError,
        TxnLogTransactionError,
        TxnLogTransactionStateError,
        TxnLogUndoError,
        TxnLogUriError,
        TxnLogValidationError,
    )
    from .events import Outcome
    from .lake import Lake
    from .reads import TransactionTable
    from .results import Result
    from .settings import Settings, load_settings
    from .snapshot import Snapshot, TableSnapshot
    from .transaction import State, Transaction

_HOMES = {
    "actions": ("AddFile", "CdcFile", "DeletionVector", "OtherAction", "RemoveFile"),
    "connecting": ("begin", "connect", "open"),
    "delta_types": ("ArrayType", "MapType", "StructField", "StructType"),
    "errors": (
        "Reason",
        "Rejection",
        "TxnLogCommitUnknownError",
        "TxnLogConfigError",
        "TxnLogConflictError",
        "TxnLogDatabaseError",
        "TxnLogDecodeError",
        "TxnLogDeltaLogError",
        "TxnLogError",
        "TxnLogEventLogError",
        "TxnLogFencedError",
        "TxnLogHaltedError",
        "TxnLogImportError",
        "TxnLogMirrorError",
        "TxnLogMissingExtraError",
        "TxnLogObjectStoreError",
        "TxnLogOutcomeUnknownError",
        "TxnLogRejectedError",
        "TxnLogSchemaError",
        "TxnLogStoreInUseError",
        "TxnLogTableFencedError",
        "TxnLogTableNotFoundError",
        "TxnLogTimeoutError",
        "TxnLogTransactionError",
        "TxnLogTransactionStateError",
        "TxnLogUndoError",
        "TxnLogUriError",
        "TxnLogValidationError",
    ),
    "events": ("Outcome",),
    "lake": ("Lake",),
    "reads": ("TransactionTable",),
    "results": ("Result",),
    "settings": ("Settings", "load_settings"),
    "snapshot": ("Snapshot", "TableSnapshot"),
    "transaction": ("State", "Transaction"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AddFile",
    "ArrayType",
    "CdcFile",
    "DeletionVector",
    "Lake",
    "MapType",
    "OtherAction",
    "Outcome",
    "Reason",
    "Rejection",
    "RemoveFile",
    "Result",
    "Settings",
    "Snapshot",
    "State",
    "StructField",
    "StructType",
    "TableSnapshot",
    "Transaction",
    "TransactionTable",
    "TxnLogCommitUnknownError",
    "TxnLogConfigError",
    "TxnLogConflictError",
    "TxnLogDatabaseError",
    "TxnLogDecodeError",
    "TxnLogDeltaLogError",
    "TxnLogError",
    "TxnLogEventLogError",
    "TxnLogFencedError",
    "TxnLogHaltedError",
    "TxnLogImportError",
    "TxnLogMirrorError",
    "TxnLogMissingExtraError",
    "TxnLogObjectStoreError",
    "TxnLogOutcomeUnknownError",
    "TxnLogRejectedError",
    "TxnLogSchemaError",
    "TxnLogStoreInUseError",
    "TxnLogTableFencedError",
    "TxnLogTableNotFoundError",
    "TxnLogTimeoutError",
    "TxnLogTransactionError",
    "TxnLogTransactionStateError",
    "TxnLogUndoError",
    "TxnLogUriError",
    "TxnLogValidationError",
    "begin",
    "connect",
    "load_settings",
    "open",
]


def __getattr__(name: str) -> Any:
    """A public name from the module where it lives, and the version of the distribution."""
    if name == "__version__":
        from importlib.metadata import version

        return version("deltalakedb")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
