"""Takes an imported table over: the next version of its log is ours, or somebody was faster and we try again.

The object store decides. A version that was put if absent belongs to whoever put it, unless a writer is at work that
does not ask: Spark respects put-if-absent neither on S3 nor, against another process, on local disk. So what was put has
won only when it still stands after a grace period. Until the lake has it too, the table is IMPORTING there.
"""

from __future__ import annotations

import io
import logging
import time
from typing import Final

import msgspec

from deltalakedb.deltalog.commits import HELD_BYTES, parse_actions
from deltalakedb.deltalog.listing import LogListing
from deltalakedb.errors import TxnLogImportError
from deltalakedb.events import ImportedAction
from deltalakedb.failpoints import Failpoint
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import NewObject, Object, Put
from deltalakedb.session import Session

from .adoption import Taken, adoption, log_file
from .importer import Importer
from .plan import until, with_commit
from .report import Progress, Watch
from .source import Source

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 5.0
"""How long the adoption has to stand before it counts: what a writer may take that looked for the version before us."""
ATTEMPTS: Final = 500
"""Versions that others may put before us until we give up."""
_PAUSE_SECONDS: Final = 0.05
_CLAIMING = Failpoint("cutover.claiming")
_PUT = Failpoint("cutover.put")
_BEATEN = Failpoint("cutover.beaten")
_CLAIMED = Failpoint("cutover.claimed")
_WAITED = Failpoint("cutover.waited")
_OVERWRITTEN = Failpoint("cutover.overwritten")
_STANDS = Failpoint("cutover.stands")
_ADOPTED = Failpoint("cutover.adopted")


class Cutover:
    """One table's cut-over. Used once."""

    def __init__(self, session: Session, source: Source, importer: Importer, *, grace: float, watch: Watch) -> None:
        self._session = session
        self._source = source
        self._importer = importer
        self._grace = grace
        self._watch = watch

    def run(self) -> int:
        """Take the table over; the version that did it. What others commit meanwhile is imported.

        Safe to repeat after whatever ended it: our own version is found by its `txnId`. Raises `TxnLogImportError` if
        others were faster every time, and what reading and importing raise.
        """
        importer = self._importer
        self._watch(Progress(phase="adopting", version=importer.newest, done=0, total=0, writers=importer.writers))
        newest, listing = self.look()
        met: dict[int, Object] = {}
        for attempt in range(ATTEMPTS):
            # What came last is read before the next version is claimed, and published after it: every moment spent in
            # between is one in which somebody else may take it.
            importer.read(listing, met)
            importer.refuse()
            version = importer.newest + 1
            if version > newest:
                claimed, there = self._claim(version)
                if there is None and not claimed:
                    # The put was not heard, or refused for a while.
                    time.sleep(min(attempt, 20) * _PAUSE_SECONDS)
                    continue
                if there is not None and not claimed:
                    logger.info("version %s of %s is not ours: somebody else was first", version, self._source.location)
                    _BEATEN.reached()
                    # Not listed again: that takes longer the longer the log is, and a busy writer would always win.
                    newest, listing, met = version, with_commit(listing, version, there), {version: there}
                    continue
            began = time.monotonic()
            _CLAIMED.reached()
            importer.publish(listing)
            importer.verify()
            time.sleep(max(0.0, began + self._grace - time.monotonic()))
            _WAITED.reached()
            found = self._standing(version)
            if found is None:
                _OVERWRITTEN.reached()
                newest, listing = self.look()
                continue
            _STANDS.reached()
            actions = list(parse_actions(io.BytesIO(found.data), path=log_path("", version), version=version))
            importer.publish_adoption(
                version, actions, time_ms=_in_commit_ms(actions) or found.time_ms, file_ms=found.time_ms
            )
            _ADOPTED.reached()
            return version
        importer.read(listing, met)
        importer.refuse()
        importer.publish(listing)
        raise TxnLogImportError(
            f"{self._source.location} could not be taken over in {ATTEMPTS} attempts: others were faster each time, or "
            "the put of a version was not answered. What others wrote is imported; stop them, then import again"
        )

    def look(self) -> tuple[int, LogListing]:
        """The newest version, and the log without it where that is our own: it is not one to be imported."""
        listing = self._source.list()
        newest = listing.newest
        commit = listing.commits.get(newest)
        if commit is None or commit.size > HELD_BYTES or newest == 0:
            return newest, listing
        ours = self._is_ours(newest, self._source.store.get(commit.path))
        return newest, until(listing, newest - 1) if ours else listing

    def _claim(self, version: int) -> tuple[bool, Object | None]:
        """Put our version if it is absent; whether it is there now, and what is, where that had to be looked at."""
        importer = self._importer
        survey = importer.survey
        assert survey.protocol is not None, "a table that was read has a protocol"
        assert survey.metadata is not None, "and metadata"
        taken = Taken(
            name=importer.name,
            version=version - 1,
            time_ms=importer.time_ms(version - 1),
            protocol=survey.protocol,
            metadata=survey.metadata,
        )
        actions = adoption(
            taken,
            txn_id=importer.txn_id(version),
            lake_id=self._session.lake.lake_id,
            engine_info=self._session.engine_info,
            now_ms=int(time.time() * 1000),
        )
        new = NewObject(log_path("", version), log_file(actions), _in_commit_ms(actions))
        _CLAIMING.reached()
        (put,) = self._source.store.put_if_absent([new])
        _PUT.reached()
        if put is Put.CREATED:
            return True, None
        # An answer may be lost: only looking tells, and "exists" may even mean our own put.
        there = self._source.store.get(log_path("", version))
        return self._is_ours(version, there), there

    def _standing(self, version: int) -> Object | None:
        """Our version as it lies there, if it does and nothing came after it; else what there is has to be looked at."""
        found = self._source.store.get(log_path("", version))
        if found is None or not self._is_ours(version, found) or self._source.list().newest > version:
            logger.warning(
                "version %s of %s did not stand: a writer that does not respect put-if-absent, or not the fence, is at "
                "work there and should be stopped",
                version,
                self._source.location,
            )
            return None
        return found

    def _is_ours(self, version: int, found: Object | None) -> bool:
        """Whether a version is the one by which this import takes the table over."""
        if found is None:
            return False
        # Ours begins with commitInfo.
        actions = parse_actions(io.BytesIO(found.data), path=log_path("", version), version=version)
        first = next(actions, None)
        return first is not None and _info(first).txn_id == self._importer.txn_id(version)


class _Info(msgspec.Struct, rename={"in_commit_ms": "inCommitTimestamp", "txn_id": "txnId"}):
    in_commit_ms: int | None = None
    txn_id: str | None = None


def _info(action: ImportedAction) -> _Info:
    if action.kind != "commitInfo":
        return _Info()
    try:
        return msgspec.json.decode(action.json, type=_Info)
    except msgspec.ValidationError:
        return _Info()


def _in_commit_ms(actions: list[ImportedAction]) -> int | None:
    return next((found.in_commit_ms for found in map(_info, actions) if found.in_commit_ms is not None), None)
