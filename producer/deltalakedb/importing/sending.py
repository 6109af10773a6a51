"""Publishes imported versions in order, some ahead of their answers, and sees that each of them is committed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from deltalakedb.codec import encode_imported_chunk, headers
from deltalakedb.errors import TxnLogEventLogError, TxnLogImportError, TxnLogOutcomeUnknownError
from deltalakedb.eventlog import Message
from deltalakedb.events import Envelope, ImportedContent, Outcome
from deltalakedb.failpoints import Failpoint
from deltalakedb.ids import import_txn_id
from deltalakedb.results import rejection_of
from deltalakedb.session import Session

from .chunks import Chunks

WINDOW: Final = 256
"""Most versions that are published and not answered yet."""
WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Most bytes of them."""
CHUNK_WINDOW: Final = 8
"""Most chunks of one version that are on their way to the log."""
PATIENCE_MS: Final = 60_000
"""How long to wait for the clock to reach a version's time."""
_ATTEMPTS: Final = 5
_LOOKED_UP: Final = 1_000
_STAGED = Failpoint("import.staged")
_SENT = Failpoint("import.sent")
_ANSWERED = Failpoint("import.answered")


@dataclass(slots=True)
class _Sent:
    """A version whose answer is awaited. Sending its last chunk again asks what became of it."""

    version: int
    txn_id: str
    last: Message
    size: int
    answer: Future[Outcome]


class Sending:
    """Publishes the versions of one import. Used by one thread, until something is refused."""

    def __init__(self, session: Session, import_id: str, committed: Callable[[int], None]) -> None:
        """`committed` is called with each version once it is."""
        self._session = session
        self._import_id = import_id
        self._committed = committed
        self._txn_ids: dict[int, str] = {}
        self._open: deque[_Sent] = deque()
        self._bytes = 0
        self._position = -1

    def begin(self, versions: Sequence[int]) -> None:
        """Say which versions come next. What was rejected in an earlier run gets another id: a decision stays."""
        for start in range(0, len(versions), _LOOKED_UP):
            some = dict.fromkeys(versions[start : start + _LOOKED_UP], 0)
            while some:
                ids = {version: import_txn_id(self._import_id, version, attempt) for version, attempt in some.items()}
                self._txn_ids |= ids
                with self._session.catalog() as catalog:
                    decided = catalog.outcomes(list(ids.values()))
                some = {
                    version: attempt + 1
                    for version, attempt in some.items()
                    if ids[version] in decided and decided[ids[version]].rejected is not None
                }

    def send(self, version: ImportedContent, chunks: Chunks) -> None:
        """Publish a version of those that `begin` named, after those before it; `drain` waits for the answers.

        Of several chunks those are left out that the committer has from an attempt that was killed. Raises
        `TxnLogRejectedError` if an earlier version was refused, `TxnLogOutcomeUnknownError` if the committer stands
        still, `TxnLogEventLogError` if the log does.
        """
        _wait_for(version)
        txn_id = self._txn_ids[version.version]
        first = 0
        while self._open and (len(self._open) >= WINDOW or self._bytes + chunks.size > WINDOW_BYTES):
            self._settle()
        if chunks.count > 1:
            self.drain()
            with self._session.catalog() as catalog:
                found = catalog.imported(version.table_name)
            if found is not None and found.under_way == version.version:
                first = min(found.chunks or 0, chunks.count - 1)
            self._stage(self._messages(txn_id, chunks, first, chunks.count - 1))
        (last,) = self._messages(txn_id, chunks, chunks.count - 1, chunks.count)
        self._open.append(_Sent(version.version, txn_id, last, chunks.size, self._ask(txn_id, last)))
        self._bytes += chunks.size
        _SENT.reached()

    def drain(self) -> None:
        """Wait until everything that was sent is committed. Raises as `send`."""
        while self._open:
            self._settle()

    def _messages(self, txn_id: str, chunks: Chunks, first: int, end: int) -> Iterator[Message]:
        sender = self._session.sender
        for index, content in zip(range(first, end), chunks.contents(first), strict=False):
            envelope = Envelope(
                txn_id=txn_id,
                chunk_index=index,
                chunk_count=chunks.count,
                digest=chunks.digest,
                lake_id=sender.lake_id,
                root=sender.root,
                client_id=sender.client_id,
                outcome_partition=sender.outcome_partition,
            )
            yield Message(encode_imported_chunk(envelope, content), headers(envelope))

    def _stage(self, messages: Iterator[Message]) -> None:
        """Append the first chunks of a large version, a few at once. The committer ignores a chunk that comes again."""
        under_way: deque[tuple[Message, Future[list[int]]]] = deque()
        for message in messages:
            if len(under_way) >= CHUNK_WINDOW:
                self._landed(under_way)
            under_way.append((message, self._session.outcomes.stage([message])))
        while under_way:
            self._landed(under_way)

    def _landed(self, under_way: deque[tuple[Message, Future[list[int]]]]) -> None:
        """Wait for the oldest append. After a failure it and all behind it are appended again, in their order."""
        for attempt in range(_ATTEMPTS):
            try:
                under_way[0][1].result()
            except TxnLogEventLogError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(2**attempt / 4)
                again = [message for message, _ in under_way]
                under_way.clear()
                under_way.extend((message, self._session.outcomes.stage([message])) for message in again)
            else:
                under_way.popleft()
                _STAGED.reached()
                return

    def _ask(self, txn_id: str, last: Message) -> Future[Outcome]:
        return self._session.outcomes.ask(txn_id, [last], self._session.settings.timeout)

    def _settle(self) -> None:
        """See to the oldest version. While the committer gets on, no answer only means that it has much to do."""
        sent = self._open[0]
        try:
            outcome = sent.answer.result()
        except TxnLogOutcomeUnknownError:
            with self._session.catalog() as catalog:
                position = catalog.position()
            if position == self._position:
                raise
            self._position = position
            sent.answer = self._ask(sent.txn_id, sent.last)
            return
        if outcome.committed is None:
            raise rejection_of(sent.txn_id, outcome)
        _ANSWERED.reached()
        self._open.popleft()
        self._bytes -= sent.size
        self._committed(sent.version)


def _wait_for(version: ImportedContent) -> None:
    """Wait for the clock to reach the version's time: the committer refuses a version from the future."""
    ahead = version.time_ms - time.time() * 1000
    if ahead > PATIENCE_MS:
        raise TxnLogImportError(
            f"version {version.version} of {version.location} says that it was committed {ahead / 1000:.0f} s from "
            "now: set the clock of this machine right, or import again when that time has come"
        )
    if ahead > 0:
        time.sleep(ahead / 1000)
