"""Every error of deltalakedb, in one tree, and the kinds of rejection the committer can give.

    TxnLogError
    ├── TxnLogConfigError               settings or a URI are wrong or incomplete
    │   ├── TxnLogUriError              a URI cannot be understood
    │   └── TxnLogMissingExtraError     an optional library is not installed
    ├── TxnLogValidationError           bad input, refused before anything was published
    │   ├── TxnLogSchemaError           data and table schema do not fit
    │   └── TxnLogTableNotFoundError    no such table in this lake
    ├── TxnLogTransactionError          about one transaction; carries its id
    │   ├── TxnLogRejectedError         decided, and not committed: nothing of it is visible
    │   │   └── TxnLogConflictError     ... because another transaction came first
    │   ├── TxnLogOutcomeUnknownError   not known whether it is committed: asking again is safe
    │   ├── TxnLogTransactionStateError the transaction object cannot do this any more
    │   └── TxnLogUndoError             a committed transaction has no inverse (any more)
    ├── TxnLogTimeoutError              something else did not happen in time
    ├── TxnLogDatabaseError             the SQL store failed
    │   ├── TxnLogCommitUnknownError    a COMMIT was sent and its answer lost
    │   └── TxnLogStoreInUseError       another process has the DuckDB store open
    ├── TxnLogEventLogError             the event log failed
    ├── TxnLogObjectStoreError          the object store failed
    ├── TxnLogMirrorError               the mirror cannot publish a table
    │   └── TxnLogTableFencedError      somebody else wrote into the table's `_delta_log`
    ├── TxnLogDeltaLogError             a `_delta_log` cannot be read as one
    ├── TxnLogImportError               an existing table cannot be taken into the lake
    ├── TxnLogDecodeError               bytes are not an event of ours
    ├── TxnLogFencedError               another committer took over: this one must stop
    └── TxnLogHaltedError               a named halted state that an operator has to resolve

"It failed" (`TxnLogRejectedError`) and "I do not know" (`TxnLogOutcomeUnknownError`) are different errors: after the
first a caller may prepare a new transaction, after the second only the same one may be asked about or sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a transaction was rejected. Recorded for ever, the same for every replay."""

    UNDECODABLE_EVENT = "UNDECODABLE_EVENT"
    ISOLATED = "ISOLATED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    WRONG_LAKE = "WRONG_LAKE"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    CONTENT_MISMATCH = "CONTENT_MISMATCH"
    UNKNOWN_TABLE = "UNKNOWN_TABLE"
    TABLE_EXISTS = "TABLE_EXISTS"
    TABLE_READ_ONLY = "TABLE_READ_ONLY"
    LOCATION_CHANGED = "LOCATION_CHANGED"
    TIME_AHEAD = "TIME_AHEAD"
    IMPORT_GAP = "IMPORT_GAP"
    IMPORT_UNDER_WAY = "IMPORT_UNDER_WAY"
    IMPORT_FINISHED = "IMPORT_FINISHED"
    INVALID_ACTION = "INVALID_ACTION"
    INVALID_PATH = "INVALID_PATH"
    INVALID_SCHEMA = "INVALID_SCHEMA"
    PARTITION_MISMATCH = "PARTITION_MISMATCH"
    FEATURE_UNSUPPORTED = "FEATURE_UNSUPPORTED"
    APPEND_ONLY = "APPEND_ONLY"
    READ_VERSION_INVALID = "READ_VERSION_INVALID"
    READ_TOO_OLD = "READ_TOO_OLD"
    SCHEMA_CHANGED = "SCHEMA_CHANGED"
    FILE_NOT_LIVE = "FILE_NOT_LIVE"
    METADATA_CHANGED = "METADATA_CHANGED"
    PROTOCOL_CHANGED = "PROTOCOL_CHANGED"
    CONCURRENT_APPEND = "CONCURRENT_APPEND"
    CONCURRENT_DELETE_READ = "CONCURRENT_DELETE_READ"
    CONCURRENT_DELETE_DELETE = "CONCURRENT_DELETE_DELETE"
    CONCURRENT_TRANSACTION = "CONCURRENT_TRANSACTION"


CONFLICTS = frozenset(
    {
        Reason.SCHEMA_CHANGED,
        Reason.FILE_NOT_LIVE,
        Reason.LOCATION_CHANGED,
        Reason.METADATA_CHANGED,
        Reason.PROTOCOL_CHANGED,
        Reason.CONCURRENT_APPEND,
        Reason.CONCURRENT_DELETE_READ,
        Reason.CONCURRENT_DELETE_DELETE,
        Reason.CONCURRENT_TRANSACTION,
        Reason.READ_TOO_OLD,
    }
)
"""Rejections that a fresh snapshot and a new transaction may get past; the others need a change of what is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A rejection as recorded and as told to the client.

    `versions` are the table versions the decision turned on (for a conflict: read version, version of the winner);
    `other_txn` is the transaction that came first, where there is one.
    """

    reason: Reason
    message: str
    table: str | None = None
    versions: tuple[int, ...] = ()
    other_txn: str | None = None


class TxnLogError(Exception):
    """Root of everything that deltalakedb raises on purpose."""


class TxnLogConfigError(TxnLogError):
    """Settings are wrong, contradict what the store remembers, or are incomplete."""


class TxnLogUriError(TxnLogConfigError):
    """A URI cannot be understood; the message lists the accepted forms and never shows credentials."""


class TxnLogMissingExtraError(TxnLogConfigError):
    """An optional library is missing; the message names the extra that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional library: pip install 'deltalakedb[{extra}]'")
        self.extra = extra


class TxnLogValidationError(TxnLogError):
    """Input was refused before anything was published; nothing has happened."""


class TxnLogSchemaError(TxnLogValidationError):
    """Data does not fit the table's schema, or a type has no exact counterpart in Delta."""


class TxnLogTableNotFoundError(TxnLogValidationError):
    """The lake has no table of that name (at that point of its history)."""


class TxnLogTransactionError(TxnLogError):
    """About one transaction; `txn_id` is its id."""

    def __init__(self, message: str, *, txn_id: str) -> None:
        super().__init__(message)
        self.txn_id = txn_id


class TxnLogRejectedError(TxnLogTransactionError):
    """The committer decided against the transaction: nothing of it is visible, in no table, ever."""

    def __init__(self, rejection: Rejection, *, txn_id: str) -> None:
        where = f" (table {rejection.table!r})" if rejection.table else ""
        super().__init__(f"{rejection.reason}{where}: {rejection.message} [transaction {txn_id}]", txn_id=txn_id)
        self.rejection = rejection

    @property
    def reason(self) -> Reason:
        return self.rejection.reason

    @property
    def table(self) -> str | None:
        return self.rejection.table


class TxnLogConflictError(TxnLogRejectedError):
    """Rejected because another transaction came first; a new transaction on a fresh snapshot may succeed."""


class TxnLogOutcomeUnknownError(TxnLogTransactionError):
    """The transaction was (perhaps) published and no answer came: it may be committed, now or later.

    `lake.outcome(txn_id)` asks again, `lake.cancel(txn_id)` settles it; its data files must not be deleted.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependent:
    """A version of a table that stands on what another transaction did."""

    table: str
    version: int


class TxnLogUndoError(TxnLogTransactionError):
    """A committed transaction cannot be undone; nothing has happened. `dependents` are what came later and stands on it;
    where there are none, it did something that has no inverse."""

    def __init__(self, message: str, *, txn_id: str, dependents: tuple[Dependent, ...] = ()) -> None:
        super().__init__(message, txn_id=txn_id)
        self.dependents = dependents


class TxnLogTransactionStateError(TxnLogTransactionError):
    """A transaction object is used after it was committed or rolled back."""


class TxnLogTimeoutError(TxnLogError):
    """Something that changes nothing (a mirror, a snapshot) did not happen in the time given."""


class TxnLogDatabaseError(TxnLogError):
    """The SQL store refused or failed; the driver's error is the cause.

    `transient` says that nothing of it happened and that the same may succeed when it is tried again, on a new
    connection where this one broke: a lock held too long, a deadlock, a server that restarts. `refuses_rows` says that
    what was to be written is at fault, and nothing else: a constraint, a type or a size that it does not fit.
    """

    def __init__(self, message: str, *, transient: bool = False, refuses_rows: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.refuses_rows = refuses_rows


class TxnLogCommitUnknownError(TxnLogDatabaseError):
    """The connection broke while a COMMIT was under way: only reading again tells whether it happened."""


class TxnLogStoreInUseError(TxnLogDatabaseError):
    """Another process has the store open, and this kind of store, DuckDB, is one process's at a time."""


class TxnLogEventLogError(TxnLogError):
    """The event log refused or failed; the driver's error is the cause."""


class TxnLogObjectStoreError(TxnLogError):
    """The object store refused or failed; the driver's error is the cause."""


class TxnLogMirrorError(TxnLogError):
    """The mirror cannot publish a table; the message says which, where and what to do."""


class TxnLogTableFencedError(TxnLogMirrorError):
    """A `_delta_log` holds a commit that is not ours; the table is not published there any further."""


class LogProblem(StrEnum):
    """Why a `_delta_log` cannot be read."""

    NO_TABLE = "NO_TABLE"
    """It has neither a commit nor a checkpoint."""
    GAP = "GAP"
    """Commits are missing, and no checkpoint bridges them."""
    CORRUPT = "CORRUPT"
    """A file is not what its name says."""
    VANISHED = "VANISHED"
    """A file that was listed is not there any more."""
    NOT_RECONSTRUCTIBLE = "NOT_RECONSTRUCTIBLE"
    """The log does not tell the table's state at that version."""
    NO_PROTOCOL = "NO_PROTOCOL"
    NO_METADATA = "NO_METADATA"
    UNSUPPORTED_FEATURE = "UNSUPPORTED_FEATURE"
    """Readers must know a feature that this release does not know."""


class TxnLogDeltaLogError(TxnLogError):
    """A `_delta_log` cannot be read as one. `version` and `path` say where, as far as there is a where."""

    def __init__(
        self, problem: LogProblem, message: str, *, version: int | None = None, path: str | None = None
    ) -> None:
        super().__init__(f"{problem}: {message}")
        self.problem = problem
        self.version = version
        self.path = path


class TxnLogImportError(TxnLogError):
    """An existing table cannot be taken into the lake, or not further; the message says at which version and why.

    What was imported before stays as it is, and the same import goes on from there.
    """


class TxnLogDecodeError(TxnLogError):
    """Bytes are not an event that this release knows, or break a limit."""


class TxnLogFencedError(TxnLogError):
    """Another committer has taken over this lake; this process must drop its caches and stop writing."""


class TxnLogHaltedError(TxnLogError):
    """A named halted state: going on could lose or repeat something, so an operator has to look.

    `state` is a stable name (`LOG_RECREATED`, `LOG_TRUNCATED`, ...); the message says what to do next.
    """

    def __init__(self, state: str, message: str) -> None:
        super().__init__(f"{state}: {message}")
        self.state = state


def rejected(rejection: Rejection, txn_id: str) -> TxnLogRejectedError:
    """The error for a rejection: a conflict if another transaction came first."""
    kind = TxnLogConflictError if rejection.reason in CONFLICTS else TxnLogRejectedError
    return kind(rejection, txn_id=txn_id)


def redacted(text: str, secrets: Mapping[str, str] | None = None) -> str:
    """`text` with passwords in URLs and the given secret values replaced by `***`."""
    import re

    text = re.sub(r"(?<=://)([^/@\s:]*):([^/@\s]*)@", r"\1:***@", text)
    text = re.sub(r"(?i)\b(password|secret|sasl\.password)=('[^']*'|[^\s&]+)", r"\1=***", text)
    for value in (secrets or {}).values():
        if value:
            text = text.replace(value, "***")
    return text
