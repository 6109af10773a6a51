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


class IncompleteTransactions:
    """All transactions that are not complete, those first that have waited longest, and who has how much of them."""

    def __init__(self) -> None:
        self._found: dict[str, Incomplete] = {}
        self._complete: dict[str, Incomplete] = {}
        self._used: dict[str, Usage] = {}
        self.all = Usage()
        """By everybody."""

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, txn_id: str) -> bool:
        return txn_id in self._found or txn_id in self._complete

    def __getitem__(self, txn_id: str) -> Incomplete:
        return self._complete.get(txn_id) or self._found[txn_id]

    def used_by(self, client_id: str) -> Usage:
        """What that client has staged."""
        return self._used.get(client_id, Usage())

    def staged(self, txn_id: str, time_ms: int, client_id: str, size: int) -> None:
        """A chunk, or several, came: times never decrease."""
        known = self._found.pop(txn_id, None)
        if known is not None:
            client_id, size, more = known.client_id, known.bytes + size, size
        else:
            more = size
        self._found[txn_id] = Incomplete(time_ms, client_id, size)
        self._count(client_id, int(known is None), more)

    def completed(self, txn_id: str) -> None:
        """All of it is there: it waits for nobody any more, and what is staged of it counts until it is decided."""
        self._complete[txn_id] = self._found.pop(txn_id)

    def ended(self, txn_id: str) -> None:
        """It is decided, if it was one of these."""
        known = self._found.pop(txn_id, None) or self._complete.pop(txn_id, None)
        if known is not None:
            self._count(known.client_id, -1, -known.bytes)

    def oldest_ms(self) -> int | None:
        """Since when the one waits that has waited longest."""
        return next((found.newest_ms for found in self._found.values()), None)

    def waiting_since(self, time_ms: int) -> Iterator[str]:
        """Those that wait since then, or longer."""
        for txn_id, found in self._found.items():
            if found.newest_ms > time_ms:
                break
            yield txn_id

    def _count(self, client_id: str, transactions: int, size: int) -> None:
        used = self.used_by(client_id)
        self._used[client_id] = Usage(used.transactions + transactions, used.bytes + size)
        if not self._used[client_id].transactions:
            del self._used[client_id]
        self.all = Usage(self.all.transactions + transactions, self.all.bytes + size)


def too_many_chunks(count: int, rules: Rules) -> Refused:
    """A transaction has more chunks than any may have."""
    return Refused(
        Reason.LIMIT_EXCEEDED, f"the transaction comes in {count} chunks; from 1 to {rules.max_chunks} are allowed"
    )


def over_quota(claim: Claim, incomplete: IncompleteTransactions, rules: Rules) -> Refused | None:
    """Why one more chunk is one too many; None: it is not."""
    if claim.chunk_count > rules.max_chunks:
        return too_many_chunks(claim.chunk_count, rules)
    known = claim.txn_id in incomplete
    client_id = incomplete[claim.txn_id].client_id if known else claim.client_id
    return _over(client_id, incomplete.used_by(client_id), incomplete.all, rules, opens=not known)


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

    def __init__(self) -> None:
        self._ending: set[str] = set()
        self._unsure = False

    def restart(self) -> None:
        """All that was seen is decided."""
        self._ending.clear()
        self._unsure = False

    def saw(self, txn_ids: tuple[str, ...] | None) -> None:
        """A record comes before, which may end those transactions; None: any."""
        if txn_ids is None:
            self._unsure = True
        else:
            self._ending.update(txn_ids)

    def refuses(self, claim: Claim, incomplete: IncompleteTransactions, rules: Rules) -> bool:
        """Whether it is over a quota, whatever becomes of the records before it."""
        if claim.chunk_count > rules.max_chunks:
            return True
        if self._unsure or claim.txn_id in self._ending:
            return False
        known = claim.txn_id in incomplete
        client_id = incomplete[claim.txn_id].client_id if known else claim.client_id
        mine, everybody = incomplete.used_by(client_id), incomplete.all
        for found in (incomplete[txn_id] for txn_id in self._ending if txn_id in incomplete):
            everybody = Usage(everybody.transactions - 1, everybody.bytes - found.bytes)
            if found.client_id == client_id:
                mine = Usage(mine.transactions - 1, mine.bytes - found.bytes)
        return _over(client_id, mine, everybody, rules, opens=not known) is not None
