"""Brings an existing Delta table into a lake, version by version through the log, and takes it over."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from deltalakedb.catalog import ImportedTable
from deltalakedb.deltalog.listing import LogListing
from deltalakedb.deltalog.read_ahead import ReadAhead
from deltalakedb.errors import TxnLogDeltaLogError, TxnLogImportError, TxnLogValidationError
from deltalakedb.events import ImportedAction, ImportedContent
from deltalakedb.failpoints import Failpoint
from deltalakedb.features import listed
from deltalakedb.ids import import_txn_id, is_table_name, new_txn_id
from deltalakedb.locations import same
from deltalakedb.objectstore import Object
from deltalakedb.session import Session

from .chunks import cut
from .plan import Done, Kind, Step, plan
from .report import ImportReport, Progress, Watch, Writer
from .roots import Roots
from .sending import PATIENCE_MS, Sending
from .source import Source
from .survey import Fence, Problem, Survey
from .times import version_times

_SHOWN: Final = 5
"""Problems that one message names."""
Phase = Literal["reading", "importing"]
_KINDS: Final = {"HISTORY": Kind.HISTORY, "BASELINE": Kind.BASELINE, "IMPORTED": Kind.COMMIT}
"""What a version is, by its origin in SQL."""
_READ = Failpoint("import.read")
_PUBLISHED = Failpoint("import.published")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a table is imported."""

    allow_roots: Sequence[str] = ()
    """URIs or absolute paths that files of the table may lie under besides its own folder."""
    force: bool = False
    """Import although checksum files, or the totals that the log gives, disagree with it, or another lake has it."""
    cutover: bool = True
    """Whether the table is to be taken over: that another lake has it stands against this only."""


class Importer:
    """One import of one table, as far as SQL goes. Used by one thread.

    Every version is read twice: before anything is published, to know what stands against it, and to publish it.
    """

    def __init__(self, session: Session, name: str, source: Source, options: Options, watch: Watch) -> None:
        """Raises `TxnLogImportError` if the lake has another table of that name, or this one for good already."""
        if not is_table_name(name):
            raise TxnLogValidationError(f"{name!r} is not a table name: [namespace.]name of letters, digits, _ and -")
        self._session = session
        self._source = source
        self._options = options
        self._watch = watch
        self.name = name
        self.found = _found(session, name, source)
        self.import_id = new_txn_id() if self.found is None else self.found.table_id
        self.survey = Survey(source.location, Roots(source.location, options.allow_roots))
        self.was_claimed = False
        """Whether a version that was read is one by which this import once tried to take the table over."""
        self.forced: list[str] = []
        self.skipped: list[str] = []
        self._sending = Sending(session, self.import_id, self._committed)
        self._baseline = 0
        self._history = 0
        self._already = 0
        self._last: Done | None = None
        self._unsent: list[Step] = []
        self._times: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._done = 0
        self._total = 0
        self.versions = 0

    @property
    def newest(self) -> int:
        """The newest version that was read."""
        assert self._last is not None, "there is none before the first call of read"
        return self._last.version

    def txn_id(self, version: int) -> str:
        """Of the version by which the table is taken over, as its `commitInfo` says."""
        return import_txn_id(self.import_id, version)

    def time_ms(self, version: int) -> int:
        return self._times[version]

    def read(self, listing: LogListing, met: Mapping[int, Object] | None = None) -> None:
        """Read what is new in the log; the commits `met` are at hand already. Raises `TxnLogDeltaLogError` for what cannot
        be read, by version and file.

        The first time that is all of it, also what an earlier run has imported: it has to be known to go on from there.
        """
        first = self._last is None
        planned = plan(listing, self._imported() if first else self._last)
        if first:
            self._baseline, self._already = planned.baseline, planned.done
        steps = planned.steps if first else planned.open
        self._sizes |= {step.version: _size(listing, step) for step in steps}
        self._begin(steps)
        done = {step.version for step in planned.steps[: planned.done]}
        with self._source.reading(listing, steps, met) as commits:
            for step in steps:
                if self._survey(commits, step) and step.version not in done:
                    self._unsent.append(step)
                self._last = Done(step.version, step.kind)
                self._tell("reading", step.version)
        unsent = {step.version for step in self._unsent}
        self._times |= version_times(
            [stamp for stamp in self.survey.stamps if stamp.version in unsent],
            after_ms=max(self._times.values(), default=None),
            started_ms=_started_ms(self.import_id),
            now_ms=_now_ms(),
        )
        _READ.reached()

    def _imported(self) -> Done | None:
        """Where an earlier run left off."""
        found = self.found
        if found is None or found.version is None or found.time_ms is None:
            return None
        self._times[found.version] = found.time_ms
        return Done(found.version, _KINDS[found.origin or "IMPORTED"])

    def refusals(self) -> list[Problem]:
        """What stands against importing what was read, without what is forced."""
        return [problem for problem in self._problems() if not (problem.forcible and self._options.force)]

    def _problems(self) -> list[Problem]:
        late = _now_ms() + PATIENCE_MS
        ahead = [step for step in self._unsent if self._times[step.version] > late]
        fence = self.survey.fence
        return [
            *self.survey.problems,
            *([self._fenced(fence)] if fence is not None and self._options.cutover and not self.was_claimed else []),
            *(
                Problem(what="its in-commit timestamp lies in the future", version=step.version, path="commitInfo")
                for step in ahead[:1]
            ),
        ]

    def refuse(self) -> None:
        """Raise `TxnLogImportError` if anything stands against it that is not, or cannot be, forced."""
        hard = self.refusals()
        if hard:
            more = f"; and {len(hard) - _SHOWN} more" if len(hard) > _SHOWN else ""
            raise TxnLogImportError(
                f"{self._source.location} is not imported: {'; '.join(map(str, hard[:_SHOWN]))}{more}"
            )
        self._pass_over(self._problems())

    def publish(self, listing: LogListing) -> None:
        """Publish what was read and is not in SQL, and wait until it is. Raises as `Sending.send`."""
        todo, self._unsent = self._unsent, []
        self._begin(todo)
        self._sending.begin([step.version for step in todo])
        with self._source.reading(listing, todo) as commits:
            for step in todo:
                self._send(step, self._source.actions(commits, step), _file_ms(listing, step))
        self._sending.drain()
        _PUBLISHED.reached()

    def publish_adoption(self, version: int, actions: Iterable[ImportedAction], *, time_ms: int, file_ms: int) -> None:
        """Publish the version by which the lake takes the table over, and wait until it is committed."""
        self._times[version] = time_ms
        self._sending.begin([version])
        self._send(Step(Kind.ADOPTION, version), actions, file_ms)
        self._sending.drain()

    def verify(self) -> None:
        """Compare what SQL has come to with what was read. Raises `TxnLogImportError` if they differ and force is not on."""
        found = _found(self._session, self.name, self._source)
        if found is None or found.version != self.newest:
            return
        totals = self.survey.totals
        if (found.live_files, found.live_bytes) == (totals.files, totals.bytes):
            return
        differs = Problem(
            what=f"SQL has {found.live_files:,} files of {found.live_bytes:,} bytes, and the log {totals.files:,} of "
            f"{totals.bytes:,}: was it changed meanwhile?",
            version=self.newest,
            path=self._source.location,
            forcible=True,
        )
        if not self._options.force:
            raise TxnLogImportError(str(differs))
        self._pass_over([differs])

    def _pass_over(self, problems: Iterable[Problem]) -> None:
        """Say later what was forced."""
        self.forced += [text for text in map(str, problems) if text not in self.forced]

    def _fenced(self, fence: Fence) -> Problem:
        whose = "another lake" if fence.lake is None else f"another lake ({fence.lake})"
        what = f"it has the writer fence of {whose}: `deltalakedb release` there gives it up"
        if fence.lake == self._session.lake.lake_id:
            what = (
                "it has the writer fence of this lake, from a table that was dropped without `deltalakedb release`: "
                "its last versions may not all have been published"
            )
        return Problem(what=what, version=fence.version, path=fence.path, forcible=True)

    def planned(self) -> ImportReport:
        """What would come of it."""
        self._pass_over(problem for problem in self._problems() if problem.forcible and self._options.force)
        return self.report("planned")

    def report(self, state: Literal["planned", "imported", "adopted"], *, adopted: int | None = None) -> ImportReport:
        """What came of it; what stands against it only where that is only planned."""
        survey = self.survey
        assert survey.protocol is not None, "a table that was read has a protocol"
        begun = self.versions > 0 or self.found is not None
        return ImportReport(
            table=self.name,
            source=self._source.location,
            table_id=self.import_id if begun else None,
            state=state,
            baseline=self._baseline,
            newest=self.newest,
            history=self._history,
            versions=len(self._unsent) if state == "planned" else self.versions,
            already=self._already,
            files=survey.totals.files,
            bytes=survey.totals.bytes,
            reader_version=survey.protocol.min_reader_version,
            writer_version=survey.protocol.min_writer_version,
            features=tuple(sorted(listed(survey.protocol))),
            checksums=survey.checked,
            writers=self.writers,
            refused=tuple(map(str, self.refusals())) if state == "planned" else (),
            forced=tuple(self.forced),
            skipped=tuple(self.skipped),
            adopted_version=adopted,
        )

    @property
    def writers(self) -> tuple[Writer, ...]:
        """Who has written into the log, the latest first."""
        found = sorted(self.survey.writers.values(), key=lambda writer: -writer.newest)
        return tuple(Writer(engine=w.engine, commits=w.commits, newest_version=w.newest) for w in found)

    def finished(self, found: ImportedTable) -> ImportReport:
        """The report on a table that is the lake's already."""
        with self._session.catalog() as catalog:
            table = catalog.table(self.name)
        return ImportReport(
            table=self.name,
            source=self._source.location,
            table_id=table.table_id,
            state="adopted",
            baseline=found.first_version,
            newest=table.version,
            files=table.live_files or 0,
            bytes=table.live_bytes or 0,
            reader_version=table.protocol.min_reader_version,
            writer_version=table.protocol.min_writer_version,
            features=tuple(sorted(listed(table.protocol))),
            adopted_version=found.adopted_version,
        )

    def _survey(self, commits: ReadAhead, step: Step) -> bool:
        """Read one version; whether it can be imported. What is only history may be left out."""
        listing = commits.listing
        path = _path(listing, step)
        try:
            self.survey.version(step, self._source.actions(commits, step), path=path, file_ms=_file_ms(listing, step))
        except TxnLogDeltaLogError as error:
            if step.kind is not Kind.HISTORY:
                raise
            # Nor is what came before it: history reaches down from the baseline without a gap.
            self.skipped.append(str(error))
            self._unsent.clear()
            self._history = 0
            return False
        self._history += step.kind is Kind.HISTORY
        self.was_claimed = self.was_claimed or self.survey.txn_id == self.txn_id(step.version)
        checksum = listing.checksums.get(step.version)
        if checksum is not None and step.kind is not Kind.HISTORY:
            found = self._source.store.get(checksum.path)
            if found is not None:
                self.survey.checksum(step.version, found.data, path=checksum.path)
        return True

    def _send(self, step: Step, actions: Iterable[ImportedAction], file_ms: int) -> None:
        version = ImportedContent(
            import_id=self.import_id,
            table_name=self.name,
            location=self._source.location,
            version=step.version,
            time_ms=self._times[step.version],
            file_time_ms=file_ms,
            kind=step.kind.value,
            last=step.kind is Kind.ADOPTION,
        )
        with cut(version, actions) as chunks:
            self._sending.send(version, chunks)

    def _committed(self, version: int) -> None:
        self.versions += 1
        self._tell("importing", version)

    def _begin(self, steps: Sequence[Step]) -> None:
        """Progress is counted anew, in bytes of the log, where there is anything to do."""
        if steps:
            self._done, self._total = 0, sum(self._sizes[step.version] for step in steps)

    def _tell(self, phase: Phase, version: int) -> None:
        self._done += self._sizes.get(version, 0)
        self._watch(Progress(phase=phase, version=version, done=self._done, total=self._total))


def _found(session: Session, name: str, source: Source) -> ImportedTable | None:
    """The table as SQL has it, if an import of it began. Raises `TxnLogImportError` if it is another table."""
    session.catch_up()
    with session.catalog() as catalog:
        found = catalog.imported(name)
    if found is not None and not same(found.location, source.location):
        raise TxnLogImportError(
            f"the lake has a table {name!r} already, at {found.location}: import {source.location} under another name"
        )
    return found


def _size(listing: LogListing, step: Step) -> int:
    baseline = step.kind is Kind.BASELINE
    return listing.checkpoints[step.version][0].size if baseline else listing.commits[step.version].size


def _path(listing: LogListing, step: Step) -> str:
    """Of the file that says what the version is."""
    baseline = step.kind is Kind.BASELINE
    return listing.checkpoints[step.version][0].files[0].path if baseline else listing.commits[step.version].path


def _file_ms(listing: LogListing, step: Step) -> int:
    """When it was written: a baseline's commit may be there still, else its checkpoint is all there is."""
    commit = listing.commits.get(step.version)
    return listing.checkpoints[step.version][0].time_ms if commit is None else commit.time_ms


def _started_ms(import_id: str) -> int:
    """When an import began: its id is a UUIDv7, which begins with that time."""
    return uuid.UUID(import_id).int >> 80


def _now_ms() -> int:
    return int(time.time() * 1000)
