"""Which versions an import brings over, in which order and as what: from what the log has and what SQL has. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from deltalakedb.deltalog.listing import LogListing
from deltalakedb.errors import TxnLogImportError
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import Object, ObjectInfo


class Kind(StrEnum):
    """What an imported version is, as its events say it."""

    HISTORY = "HISTORY"
    """A commit from before the baseline: kept to be looked at, no state can be told from it."""
    BASELINE = "BASELINE"
    """The whole state at the oldest version that can be told."""
    COMMIT = "COMMIT"
    ADOPTION = "ADOPTION"
    """The version that the importer itself wrote."""


@dataclass(frozen=True, slots=True)
class Step:
    """One version to import."""

    kind: Kind
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of one import, in order, and where an earlier attempt left off."""

    steps: tuple[Step, ...]
    """All of them, those that are done included."""
    baseline: int
    """The oldest version whose state can be told; 0 where the log is whole."""
    newest: int
    """The newest version that is imported."""
    done: int
    """How many of the steps are in SQL."""

    @property
    def open(self) -> tuple[Step, ...]:
        return self.steps[self.done :]


@dataclass(frozen=True, slots=True)
class Done:
    """What an earlier attempt brought into SQL: up to this version, and what that one is there."""

    version: int
    kind: Kind


def until(listing: LogListing, version: int) -> LogListing:
    """The log as it was when that version was the newest. Raises `TxnLogImportError` where it never was that short."""
    if version > listing.newest:
        raise TxnLogImportError(
            f"{listing.place} has no version {version}: its newest one is {listing.newest}. Ask for that or an older one"
        )
    return replace(
        listing,
        commits={number: file for number, file in listing.commits.items() if number <= version},
        checkpoints={number: found for number, found in listing.checkpoints.items() if number <= version},
        checksums={number: file for number, file in listing.checksums.items() if number <= version},
    )


def with_commit(listing: LogListing, version: int, commit: Object) -> LogListing:
    """The log with one more commit, the newest one, as it was read."""
    info = ObjectInfo(log_path(listing.folder, version), len(commit.data), commit.time_ms)
    return replace(listing, commits={**listing.commits, version: info})


def plan(listing: LogListing, done: Done | None) -> Plan:
    """The plan for everything that `listing` tells. Raises `TxnLogDeltaLogError` for a log that does not tell its newest
    version, `TxnLogImportError` where it no longer has what has to follow upon what is done."""
    newest = listing.newest
    baseline = listing.baseline()
    whole = baseline == 0 and 0 in listing.commits
    steps = [] if whole else [Step(Kind.HISTORY, version) for version in _history(listing, baseline)]
    steps.append(Step(Kind.COMMIT if whole else Kind.BASELINE, baseline))
    steps += [Step(Kind.COMMIT, version) for version in range(baseline + 1, newest + 1)]
    return Plan(
        steps=tuple(steps),
        baseline=baseline,
        newest=newest,
        done=0 if done is None else _finished(listing, steps, done),
    )


def _history(listing: LogListing, baseline: int) -> range:
    """The commits right below the baseline, as far as they reach without a gap."""
    first = baseline
    while first - 1 in listing.commits:
        first -= 1
    return range(first, baseline)


def _finished(listing: LogListing, steps: list[Step], done: Done) -> int:
    """How many of the steps are in SQL already."""
    count = sum(step.version <= done.version for step in steps)
    following = steps[count] if count < len(steps) else None
    # While there is only history the baseline may move up: what was it before is history then, and no state was told.
    fits = following is not None and (following.kind is Kind.COMMIT or done.kind is Kind.HISTORY)
    if following is None or (fits and following.version == done.version + 1):
        return count
    raise TxnLogImportError(
        f"the import stands at version {done.version}, and {listing.place} no longer tells version {done.version + 1}: "
        "its log was cleaned up meanwhile. Import the table under another name"
    )
