"""How a part of `decide` says no: raised where it is found, answered as the transaction's rejection."""

from __future__ import annotations

from typing import Any

import msgspec

from deltalakedb.errors import Reason, TxnLogError

SHOWN = 80


class Refused(TxnLogError):
    """The transaction cannot be committed. Raised and caught within `decide`; the fields are those of `Rejected`."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        table: str | None = None,
        versions: tuple[int, ...] = (),
        other_txn: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.table = table
        self.versions = versions
        self.other_txn = other_txn


def shown(value: Any) -> str:
    """`value` as a message shows it: quoted, without control characters, not long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def said(error: ValueError) -> str:
    """An error about JSON in words of our own: what is recorded must not change with a library's wording."""
    if isinstance(error, msgspec.ValidationError):
        return "a field has not the type that Delta gives it"
    if isinstance(error, msgspec.DecodeError):
        return "it is not valid JSON"
    return str(error)
