"""The chunks of a big transaction, sent no faster than the committer takes them: what others publish meanwhile waits for
a few of them at most."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Final

from .errors import TxnLogEventLogError, TxnLogTimeoutError
from .eventlog import Message

WINDOW: Final = 3
"""Chunks that are on the log, or on their way to it, and not taken yet."""
_ATTEMPTS: Final = 5
_POLL_SECONDS: Final = 0.01

Append = Callable[[Message], Future[list[int]]]


def send_ahead(messages: Iterable[Message], append: Append, position: Callable[[], int], *, patience: float) -> None:
    """Send all of them, in order; `position` says up to where the committer has come.

    Raises `TxnLogTimeoutError` if it takes none for `patience` seconds, `TxnLogEventLogError` if the log fails.
    """
    under_way: deque[tuple[Message, Future[list[int]]]] = deque()
    taken = -1
    for message in messages:
        under_way.append((message, append(message)))
        if len(under_way) < WINDOW:
            continue
        at = _landed(under_way, append)
        deadline = time.monotonic() + patience
        while taken <= at and (taken := position()) <= at:
            if time.monotonic() > deadline:
                raise TxnLogTimeoutError(
                    f"the committer has not come past record {taken} for {patience:g} s; is it running? Of this "
                    "transaction only a part is published: nothing of it will ever be visible"
                )
            time.sleep(_POLL_SECONDS)
    while under_way:
        _landed(under_way, append)


def _landed(under_way: deque[tuple[Message, Future[list[int]]]], append: Append) -> int:
    """Wait for the oldest append: its position. After a failure it and all behind it are appended again, in order."""
    for attempt in range(_ATTEMPTS):
        try:
            (at,) = under_way[0][1].result()
        except TxnLogEventLogError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(2**attempt / 4)
            again = [message for message, _ in under_way]
            under_way.clear()
            under_way.extend((message, append(message)) for message in again)
        else:
            under_way.popleft()
            return at
    raise AssertionError("the last attempt returns or raises")
