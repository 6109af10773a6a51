"""Commits read one after another, those that come next asked for already: a far store takes its time for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from deltalakedb.events import ImportedAction
from deltalakedb.objectstore import Object, ObjectStore

from .commits import actions_of, read_commit
from .listing import LogListing

_THREADS: Final = 16
_AHEAD: Final = 32
"""Commits that may be on their way."""
_SMALL: Final = 1 << 20
"""Bytes; larger ones are read when it is their turn."""


class ReadAhead:
    """Reads the commits `versions` of a listing, in that order. Close it, or use `with`; used by one thread.

    Others may be asked for too, and some left out or asked for again: those only come no faster.
    """

    def __init__(
        self,
        store: ObjectStore,
        listing: LogListing,
        versions: Iterable[int],
        *,
        threads: int | None = None,
        met: Mapping[int, Object] | None = None,
    ) -> None:
        """`threads` that read, 0: none, and nothing is read ahead; unless given, what suits the store. `met` are commits
        that were read before."""
        self.listing = listing
        self._store = store
        self._met = met or {}
        self._upcoming = (version for version in versions if version not in self._met)
        count = (0 if store.root.startswith("file:") else _THREADS) if threads is None else threads
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="deltalog-read") if count else None
        self._coming: dict[int, Future[Object | None]] = {}

    def commit(self, version: int) -> Iterator[ImportedAction]:
        """The actions of a commit, in the order of its file. Raises as `DeltaLog.commit`."""
        file = self.listing.commit(version)
        if version in self._met:
            return actions_of(self._store, self._met[version], file, version)
        self._ask()
        if version in self._coming:
            while (first := next(iter(self._coming))) != version:
                self._coming.pop(first).cancel()
            return actions_of(self._store, self._coming.pop(version).result(), file, version)
        return read_commit(self._store, file, version)

    def close(self) -> None:
        """What is on its way is not waited for. Idempotent."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._coming.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self) -> None:
        while self._threads is not None and len(self._coming) < _AHEAD:
            version = next(self._upcoming, None)
            if version is None:
                return
            file = self.listing.commits.get(version)
            if file is not None and file.size <= _SMALL:
                self._coming[version] = self._threads.submit(self._store.get, file.path)
