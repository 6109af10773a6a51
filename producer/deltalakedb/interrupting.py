"""What whoever interrupts a transaction that may be on the log has to know: which one, and how to find out about it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from .errors import TxnLogError

T = TypeVar("T")


class TransactionFuture(Future[T]):
    """The answer to a published transaction. Nobody can cancel it: it could not be given its answer.

    Whatever ends the waiting for it from outside, Ctrl-C or a time limit of one's own, carries a note that names the
    transaction. Errors of our tree say that themselves.
    """

    def __init__(self, txn_id: str) -> None:
        super().__init__()
        self._txn_id = txn_id
        self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> T:
        """As `Future.result`."""
        try:
            return super().result(timeout)
        except BaseException as error:
            name_transaction(error, self._txn_id)
            raise


def name_transaction(error: BaseException, txn_id: str) -> None:
    """Note on an error that is none of ours that it leaves a transaction behind, and how to settle that."""
    if isinstance(error, TxnLogError):
        return
    note = (
        f"transaction {txn_id} was under way: it may be committed, now or later. lake.outcome({txn_id!r}) tells what was "
        f"decided, lake.cancel({txn_id!r}) settles it; so do `deltalakedb outcome {txn_id}` and `deltalakedb cancel "
        f"{txn_id}`"
    )
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
