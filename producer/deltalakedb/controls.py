"""Changes of the lake itself: one event each, decided in the same order as transactions and waited for like them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codec import HEADER_CHUNK, HEADER_OUTCOME, HEADER_TXN, encode
from .errors import Reason
from .eventlog import Message
from .events import Cancel, Command, Control, LakeAction, Outcome, SetRules
from .ids import new_txn_id
from .results import Result, rejection_of, result_of

if TYPE_CHECKING:
    from .session import Session


def act(session: Session, action: LakeAction, timeout: float) -> Result:
    """Have an action of the lake decided: what it did, at once if it was so already.

    Raises `TxnLogTableNotFoundError` if there is no such table, `TxnLogRejectedError` if it cannot be done otherwise,
    `TxnLogOutcomeUnknownError` if no answer came in `timeout` seconds: every action may be asked for again.
    """
    control_id = new_txn_id()
    outcome = _decided(session, control_id, action, control_id, timeout)
    if outcome.committed is None:
        rejection = rejection_of(control_id, outcome)
        if action.table is not None and rejection.reason is Reason.UNKNOWN_TABLE:
            with session.catalog() as catalog:
                raise catalog.no_table(action.table) from rejection
        raise rejection
    if action.table is not None:
        session.forget(action.table)
    return result_of(control_id, outcome.committed)


def set_rules(session: Session, rule_set: int, timeout: float) -> Result:
    """Have the lake decided by another numbered rule set from here on. Raises as `act`.

    A committer that does not know the number halts.
    """
    control_id = new_txn_id()
    outcome = _decided(session, control_id, SetRules(rule_set=rule_set), control_id, timeout)
    if outcome.committed is None:
        raise rejection_of(control_id, outcome)
    return result_of(control_id, outcome.committed)


def cancel(session: Session, txn_id: str, timeout: float) -> Outcome:
    """Settle a transaction: it becomes rejected for ever unless it was decided before. Raises as `act`."""
    return _decided(session, new_txn_id(), Cancel(txn_id=txn_id), txn_id, timeout)


def _decided(session: Session, control_id: str, command: Command, about: str, timeout: float) -> Outcome:
    """The decision about `about` that the command leads to."""
    sender = session.sender
    control = Control(
        control_id=control_id,
        lake_id=sender.lake_id,
        client_id=sender.client_id,
        outcome_partition=sender.outcome_partition,
        command=command,
    )
    message = Message(
        encode(control),
        (
            (HEADER_TXN, control_id.encode()),
            (HEADER_OUTCOME, str(sender.outcome_partition).encode()),
            (HEADER_CHUNK, b"0/1"),
        ),
    )
    return session.outcomes.ask(about, [message], timeout).result()
