"""Which files of a version came from which transaction, where several shared a commit: as the version's tags say it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

FOLDED = "folded"
"""The tag: `<transaction id>:<files added>` of each transaction, comma-separated, in the order of the version's adds."""


def folded_text(parts: Iterable[tuple[str, int]]) -> str:
    """The tag's text for transactions and the numbers of files that each adds."""
    return ",".join([f"{txn_id}:{adds}" for txn_id, adds in parts])


def files_of(txn_id: str, tags: str | None) -> slice | None:
    """Which adds of a version are a transaction's own, by the version's `tags`; None: all, it shares it with nobody.

    Raises `KeyError` if the transaction has no part in the version.
    """
    text = None if tags is None else msgspec.json.decode(tags).get(FOLDED)
    if not isinstance(text, str):
        return None
    first = 0
    for part in text.split(","):
        found, _, adds = part.partition(":")
        if found == txn_id:
            return slice(first, first + int(adds))
        first += int(adds)
    raise KeyError(txn_id)
