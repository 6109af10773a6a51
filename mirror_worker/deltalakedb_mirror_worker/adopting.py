"""`mirror adopt`: what somebody else committed in a `_delta_log` of ours becomes the lake's own, or gives way to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.objectstore import ObjectStore
from deltalakedb.session import Session

from .foreign import ForeignCommits, foreign_commits
from .foreign_import import import_foreign
from .restaging import Restaged, restage
from .superseding import kept_commits, supersede
from .worker import Worker

LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What was done, or would be done by the same call without dry run."""

    table: str
    location: str
    adopted: tuple[int, ...]
    """Foreign versions that are versions of the lake now, under the same numbers."""
    superseded: tuple[int, ...]
    """Foreign versions that were moved away, because SQL has versions of its own from the first of them on."""
    restaged: tuple[Restaged, ...]
    """What became of those that were moved away, now or by a call before."""
    dry_run: bool


class Adoption:
    """Settles what is foreign in the log of one table at its own place. Used once."""

    def __init__(self, worker: Worker, session: Session, name: str, *, timeout: float) -> None:
        """`worker` serves the in-place target. Raises `TxnLogTableNotFoundError`, and `TxnLogMirrorError` for a table that
        the lake does not write."""
        self._worker = worker
        self._session = session
        self._timeout = timeout
        self._table = worker.progress(name)
        if self._table.state != "ACTIVE":
            raise TxnLogMirrorError(
                f"table {name!r} is {self._table.state.lower()}: nothing is adopted for a table that the lake does not write"
            )
        self._place = worker.mirror.places.of(self._table.location)

    def run(self, *, superseding: bool = False, dry_run: bool = False) -> Adopted:
        """Import foreign versions above SQL's head, each as exactly that version; with `superseding`, where SQL has
        versions of its own there, move the foreign ones away and stage what they did as new transactions.

        Safe to repeat after whatever ended it. Raises `TxnLogMirrorError` where the foreign versions stand in the way of
        ours and nothing was said of superseding, `TxnLogImportError` or `TxnLogRejectedError` for a version that cannot
        be imported, and the errors of stores, log and database.
        """
        adopted: tuple[int, ...] = ()
        superseded: tuple[int, ...] = ()
        foreign = foreign_commits(self._worker.pool, self._place, self._table)
        if foreign is not None and foreign.instead:
            if not superseding:
                raise self._in_the_way(foreign)
            superseded = tuple(foreign.all)
            if not dry_run:
                supersede(self._worker.pool, self._root, self._place, self._table, foreign)
        elif foreign is not None:
            adopted = tuple(foreign.beyond)
            import_foreign(self._session, self._place, self._table, foreign, dry_run=dry_run)
        restaged = () if dry_run else tuple(self._restage())
        if not dry_run:
            self._publish()
        return Adopted(
            table=self._table.name,
            location=self._place.uri,
            adopted=adopted,
            superseded=superseded,
            restaged=restaged,
            dry_run=dry_run,
        )

    @property
    def _root(self) -> ObjectStore:
        return self._worker.mirror.places.root

    def _in_the_way(self, foreign: ForeignCommits) -> TxnLogMirrorError:
        found = ", ".join(map(str, foreign.all))
        return TxnLogMirrorError(
            f"{self._place.uri} has foreign versions ({found}) where SQL has committed versions of its own, from "
            f"{foreign.first} to {self._table.version}: both cannot be the table's history. `mirror adopt --supersede` "
            "keeps ours: it moves the foreign files away and stages what they did as new transactions"
        )

    def _restage(self) -> Iterator[Restaged]:
        """Stage what was moved away, in order; after one that is rejected nothing that rests on it."""
        ended: set[str] = set()
        for kept in sorted(kept_commits(self._root, self._table)):
            if kept.history in ended:
                continue
            restaged = restage(self._session, self._root, self._table, kept, self._timeout)
            if restaged is not None:
                yield restaged
                if restaged.reason is not None:
                    ended.add(kept.history)

    def _publish(self) -> None:
        """What the mirror would do within half a minute: see that all is ours, and go on."""
        self._session.catch_up()
        while (progress := self._worker.step(LOCK_SECONDS)) is not None and progress.more:
            pass
