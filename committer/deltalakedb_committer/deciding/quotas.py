"""Quotas: what a client, and all of them together, may have staged of transactions that are not complete.

They are told by earlier decisions and by what a record's headers say, so that one too many is refused without decoding it.
Whether a record was decoded or not, its decision is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deltalakedb.codec import HEADER_CHUNK, HEADER_CLIENT, HEADER_OUTCOME, HEADER_TXN
from deltalakedb.errors import Reason
from deltalakedb.eventlog.port import Record
from deltalakedb.events import Envelope
from deltalakedb.ids import is_txn_id

from .refusal import Refused, shown
from .rules import Rules


class Claim(NamedTuple):
    """What the headers of a record say of a chunk of a transaction."""

    txn_id: str
    client_id: str
    chunk_index: int
    chunk_count: int
    outcome_partition: int

    @staticmethod
    def of(envelope: Envelope) -> Claim:
        """What they should say."""
        return Claim(
            envelope.txn_id,
            envelope.client_id,
            envelope.chunk_index,
            envelope.chunk_count,
            envelope.outcome_partition,
        )


def claim_of(record: Record) -> Claim | None:
    """What a record's headers claim; None unless they say that it is one of several chunks, and whose."""
    for name, value in record.headers:
        if name == HEADER_CHUNK:
            return None if value == b"0/1" else _claim(record, value)
    return None


def _claim(record: Record, chunk: bytes) -> Claim | None:
    headers = dict(record.headers)
    index, _, count = chunk.partition(b"/")
    try:
        txn_id, client_id = headers[HEADER_TXN].decode("ascii"), headers[HEADER_CLIENT].decode()
        partition = int(headers[HEADER_OUTCOME])
        claim = Claim(txn_id, client_id, int(index), int(count), partition)
    except (KeyError, ValueError):
        return None
    small = all(abs(number) < 2**31 for number in claim[2:])
    return claim if small and claim.chunk_count > 1 and is_txn_id(txn_id) and "\0" not in client_id else None


class Incomplete(NamedTuple):
    """A transaction of which some chunks are staged and others missing."""

    newest_ms: int
    """Append time of its newest chunk."""
    client_id: str
    """Whose it is: who sent the first of them."""
    bytes: int
    """Of the contents of its chunks."""


class Usage(NamedTuple):
    """What somebody has staged."""

    transactions: int = 0
    bytes: int = 0

    def plus(self, transactions: int, size: int) -> Usage:
        """With so much more."""
        return Usage(self.transactions + transactions, self.bytes + size)

    def without(self, other: Usage) -> Usage:
        """Without what `other` counts."""
        return self.plus(-other.transactions, -other.bytes)


class IncompleteTransactions:
    """All transactions that are not complete, those first that have waited longest, and who has how much of them."""

    def __init__(self) -> None:
        self._found: dict[str, Incomplete] = {}
        self._complete: dict[str, Incomplete] = {}
        self._used = _Used()
        self._leaving: set[str] = set()
        self._left_by = _Used()

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, txn_id: str) -> bool:
        return txn_id in self._found or txn_id in self._complete

    def __getitem__(self, txn_id: str) -> Incomplete:
        return self._complete.get(txn_id) or self._found[txn_id]

    def is_complete(self, txn_id: str) -> bool:
        """Whether all of it is there."""
        return txn_id in self._complete

    @property
    def all(self) -> Usage:
        """What everybody has staged."""
        return self._used.all

    def used_by(self, client_id: str) -> Usage:
        """What that client has staged."""
        return self._used.by(client_id)

    def staged(self, txn_id: str, time_ms: int, client_id: str, size: int) -> None:
        """A chunk, or several, came: times never decrease."""
        known = self._found.pop(txn_id, None)
        if known is not None:
            client_id, size, more = known.client_id, known.bytes + size, size
        else:
            more = size
        self._found[txn_id] = Incomplete(time_ms, client_id, size)
        self._count(txn_id, client_id, int(known is None), more)

    def completed(self, txn_id: str) -> None:
        """All of it is there: it waits for nobody any more, and what is staged of it counts until it is decided."""
        self._complete[txn_id] = self._found.pop(txn_id)

    def ended(self, txn_id: str) -> None:
        """It is decided, if it was one of these."""
        known = self._found.pop(txn_id, None) or self._complete.pop(txn_id, None)
        if known is not None:
            self._count(txn_id, known.client_id, -1, -known.bytes)

    # What may be on its way out: for who has to know before it is decided, see `Admission`.

    def may_end(self, txn_id: str) -> None:
        """A record that is not decided yet may end it, if it is one of these, or comes to be."""
        if txn_id not in self._leaving:
            self._leaving.add(txn_id)
            if txn_id in self:
                self._left_by.count(self[txn_id].client_id, 1, self[txn_id].bytes)

    def all_stay(self) -> None:
        """There is no such record any more."""
        self._leaving.clear()
        self._left_by = _Used()

    def may_have_ended(self, txn_id: str) -> bool:
        """Whether there is a record that may end it."""
        return txn_id in self._leaving

    def least_used_by(self, client_id: str) -> Usage:
        """What that client has staged, if all of it ends that may."""
        return self._used.by(client_id).without(self._left_by.by(client_id))

    @property
    def least(self) -> Usage:
        """As `least_used_by`, of everybody."""
        return self._used.all.without(self._left_by.all)

    def oldest_ms(self) -> int | None:
        """Since when the one waits that has waited longest."""
        return next((found.newest_ms for found in self._found.values()), None)

    def waiting_since(self, time_ms: int) -> Iterator[str]:
        """Those that wait since then, or longer."""
        for txn_id, found in self._found.items():
            if found.newest_ms > time_ms:
                break
            yield txn_id

    def _count(self, txn_id: str, client_id: str, transactions: int, size: int) -> None:
        self._used.count(client_id, transactions, size)
        if txn_id in self._leaving:
            self._left_by.count(client_id, transactions, size)


class _Used:
    """Sums of usage, by client and of all."""

    def __init__(self) -> None:
        self._by: dict[str, Usage] = {}
        self.all = Usage()

    def by(self, client_id: str) -> Usage:
        return self._by.get(client_id, Usage())

    def count(self, client_id: str, transactions: int, size: int) -> None:
        self._by[client_id] = self.by(client_id).plus(transactions, size)
        if not self._by[client_id].transactions:
            del self._by[client_id]
        self.all = self.all.plus(transactions, size)


def too_many_chunks(count: int, rules: Rules) -> Refused:
    """A transaction has more chunks than any may have."""
    return Refused(
        Reason.LIMIT_EXCEEDED, f"the transaction comes in {count} chunks; from 1 to {rules.max_chunks} are allowed"
    )


def over_quota(claim: Claim, incomplete: IncompleteTransactions, rules: Rules) -> Refused | None:
    """Why one more chunk is one too many; None: it is not."""
    if claim.chunk_count > rules.max_chunks:
        return too_many_chunks(claim.chunk_count, rules)
    if incomplete.is_complete(claim.txn_id):
        return None  # it came before, and takes no more room
    client_id, opens = _whose(claim, incomplete)
    return _over(client_id, incomplete.used_by(client_id), incomplete.all, rules, opens=opens)


def _whose(claim: Claim, incomplete: IncompleteTransactions) -> tuple[str, bool]:
    """Whose quota a chunk counts against, and whether it is the first one of its transaction."""
    known = claim.txn_id in incomplete
    return (incomplete[claim.txn_id].client_id if known else claim.client_id), not known


def _over(client_id: str, mine: Usage, everybody: Usage, rules: Rules, *, opens: bool) -> Refused | None:
    who = f"client {shown(client_id)} has"
    for applies, found, limit, what, name in (
        (opens, mine.transactions, rules.max_open_per_client, f"{who} {{}} transactions", "max_open_per_client"),
        (opens, everybody.transactions, rules.max_open, "all clients have {} transactions", "max_open"),
        (True, mine.bytes, rules.max_staged_bytes_per_client, f"{who} {{}} bytes", "max_staged_bytes_per_client"),
        (True, everybody.bytes, rules.max_staged_bytes, "all clients have {} bytes", "max_staged_bytes"),
    ):
        if applies and found >= limit:
            return Refused(
                Reason.QUOTA_EXCEEDED,
                f"{what.format(found)} staged of transactions that are not complete, and {limit} are allowed ({name}): "
                "finish or cancel some, or wait until they expire, and do this again in a new transaction",
            )
    return None


class Admission:
    """Which records are refused for certain before they are decoded, while those before them are not decided yet.

    They may complete transactions and make room, so it is counted with the least that can be left.
    """

    def __init__(self, incomplete: IncompleteTransactions) -> None:
        self._incomplete = incomplete
        self._unsure = False

    def restart(self) -> None:
        """All that was seen is decided."""
        self._incomplete.all_stay()
        self._unsure = False

    def saw(self, txn_id: str | None) -> None:
        """A record comes before, which may end that transaction; None: any."""
        if txn_id is None:
            self._unsure = True
        else:
            self._incomplete.may_end(txn_id)

    def refuses(self, claim: Claim, rules: Rules) -> bool:
        """Whether it is over a quota, whatever becomes of the records before it."""
        incomplete = self._incomplete
        if claim.chunk_count > rules.max_chunks:
            return True
        if self._unsure or incomplete.may_have_ended(claim.txn_id) or incomplete.is_complete(claim.txn_id):
            return False
        client_id, opens = _whose(claim, incomplete)
        return _over(client_id, incomplete.least_used_by(client_id), incomplete.least, rules, opens=opens) is not None
