"""What becomes of a transaction, as its author holds it: a result or an error from the committer's outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from .errors import Reason, Rejection, TxnLogRejectedError, rejected
from .events import Committed, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a committed transaction has become."""

    txn_id: str
    commit_seq: int
    """Its place in the lake's order of commits."""
    timestamp: datetime
    """The commit's time (UTC): the in-commit timestamp of all its versions."""
    versions: dict[str, int]
    """The new version of each table that it changed, by name."""
    already_committed: bool = False
    """Whether an earlier transaction had committed this application version: then this is what it did, and nothing was
    changed now."""


def result_of(txn_id: str, committed: Committed) -> Result:
    """The result that an outcome tells."""
    return Result(
        txn_id=txn_id,
        commit_seq=committed.commit_seq,
        timestamp=datetime.fromtimestamp(committed.time_ms / 1000, UTC),
        versions={table.name: table.version for table in committed.tables},
        already_committed=committed.already_committed,
    )


def rejection_of(txn_id: str, outcome: Outcome) -> TxnLogRejectedError:
    """The error that an outcome tells."""
    told = outcome.rejected
    assert told is not None, "an outcome is one or the other"
    try:
        reason, message = Reason(told.reason), told.message
    except ValueError:  # of a newer committer
        reason, message = Reason.NOT_SUPPORTED, f"{told.reason}: {told.message}"
    rejection = Rejection(
        reason=reason, message=message, table=told.table, versions=told.versions, other_txn=told.other_txn
    )
    return rejected(rejection, txn_id)
