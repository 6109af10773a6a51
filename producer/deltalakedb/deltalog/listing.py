"""What lies in a `_delta_log`, and which versions of the table it can tell. Pure but for the listing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.log_names import LogFile, log_folder, log_path, parse_name
from deltalakedb.objectstore import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint with all its parts. Whether its sidecars are there is known once it is read."""

    version: int
    kind: LogFile
    """CLASSIC, PART or UNIQUE."""
    files: tuple[ObjectInfo, ...]

    @property
    def size(self) -> int:
        """Bytes, sidecars not counted."""
        return sum(file.size for file in self.files)

    @property
    def time_ms(self) -> int:
        """When it was complete: modification time of its newest file."""
        return max(file.time_ms for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogListing:
    """The files of one `_delta_log`, by version in rising order; what the protocol tells readers to ignore is not here.

    Compacted logs are ignored too: they are optional, and the commits that they repeat have to be there anyway. Nor is
    `_last_checkpoint` asked: it spares readers a listing, which is done here, and may be stale, torn or wrong.
    """

    place: str
    """URI of the log, for messages."""
    folder: str
    """The table's folder, relative to the root of the store."""
    commits: Mapping[int, ObjectInfo]
    checkpoints: Mapping[int, tuple[Checkpoint, ...]]
    """Complete ones, the best first."""
    checksums: Mapping[int, ObjectInfo]

    @property
    def newest(self) -> int:
        """The newest version that anything speaks of. Raises `TxnLogDeltaLogError` (NO_TABLE) where there is none."""
        newest = max(max(self.commits, default=-1), max(self.checkpoints, default=-1))
        if newest < 0:
            raise TxnLogDeltaLogError(
                LogProblem.NO_TABLE, f"{self.place} has neither a commit nor a checkpoint: no Delta table is there"
            )
        return newest

    def reconstructible(self) -> tuple[range, ...]:
        """The versions whose state can be told, as ranges in rising order that do not touch one another.

        A version can be told from a checkpoint at or below it, or from nothing at version 0, with the commits after it.
        """
        spans: list[range] = []
        for base in self._bases():
            if spans and base < spans[-1].stop:
                continue  # from here the same commits lead to the same end
            reach = base + 1
            while reach in self.commits:
                reach += 1
            if spans and base == spans[-1].stop:
                spans[-1] = range(spans[-1].start, reach)
            else:
                spans.append(range(max(base, 0), reach))
        return tuple(spans)

    def baseline(self) -> int:
        """The oldest version that can be told and after which every commit is there, up to the newest.

        0 with a commit 0 means that the log is whole: nothing but commits is needed. Raises `TxnLogDeltaLogError`:
        NO_TABLE, or GAP naming the first commit that is missing below the newest version.
        """
        newest = self.newest
        first = newest
        while first in self.commits and first > 0:
            first -= 1
        if first == 0 and 0 in self.commits:
            return 0
        oldest = min((version for version in self.checkpoints if version >= first), default=None)
        if oldest is None:
            raise self.gap(newest)
        return oldest

    def bases(self, version: int) -> Iterator[Checkpoint | None]:
        """What the state at `version` can be told from, the best first; None stands for commit 0 and nothing before it.

        Raises `TxnLogDeltaLogError` where there is nothing: GAP, or NOT_RECONSTRUCTIBLE for a version that is no more.
        """
        first, found = version, False
        while True:
            for checkpoint in self.checkpoints.get(first, ()):
                found = True
                yield checkpoint
            if first not in self.commits:
                break
            if first == 0:
                found = True
                yield None
                break
            first -= 1
        if not found:
            raise self.gap(version)

    def commit(self, version: int) -> ObjectInfo:
        """The log file of a version. Raises `TxnLogDeltaLogError` (GAP) where there is none."""
        found = self.commits.get(version)
        if found is None:
            where = log_path(self.folder, version)
            raise TxnLogDeltaLogError(LogProblem.GAP, f"{self.place} has no {where}", version=version, path=where)
        return found

    def gap(self, version: int) -> TxnLogDeltaLogError:
        """The error for a version that cannot be told: GAP if that makes the newest one unreadable too."""
        missing = version
        while missing in self.commits:
            missing -= 1
        where = log_path(self.folder, missing)
        if version > self.newest:
            why = f"the newest one is {self.newest}"
        elif missing < min(self.commits, default=missing):
            why = f"{where} and what came before it are gone, and no checkpoint holds what they said"
        else:
            why = f"{where} is missing, and no checkpoint bridges it"
        readable = any(self.newest in span for span in self.reconstructible())
        return TxnLogDeltaLogError(
            LogProblem.NOT_RECONSTRUCTIBLE if readable else LogProblem.GAP,
            f"{self.place} does not tell version {version}: {why}",
            version=missing,
            path=where,
        )

    def _bases(self) -> Iterator[int]:
        if 0 in self.commits:
            yield -1
        yield from self.checkpoints


def list_log(store: ObjectStore, folder: str) -> LogListing:
    """List the `_delta_log` of the table in `folder` (relative to the store's root; "" is the root itself)."""
    prefix = log_folder(folder)
    return listing_of(store.list(prefix), place=f"{store.root}/{prefix.rstrip('/')}", folder=folder)


def listing_of(objects: Iterable[ObjectInfo], *, place: str, folder: str) -> LogListing:
    """The listing that `objects` make."""
    prefix = log_folder(folder)
    commits: dict[int, ObjectInfo] = {}
    checksums: dict[int, ObjectInfo] = {}
    single: list[Checkpoint] = []
    parts: dict[tuple[int, int], dict[int, ObjectInfo]] = {}
    for found in objects:
        name = parse_name(found.path.removeprefix(prefix))
        if name is None:
            continue
        match name.file:
            case LogFile.COMMIT:
                commits[name.version] = found
            case LogFile.CHECKSUM:
                checksums[name.version] = found
            case LogFile.CLASSIC | LogFile.UNIQUE if found.size:
                single.append(Checkpoint(version=name.version, kind=name.file, files=(found,)))
            case LogFile.PART if found.size:
                parts.setdefault((name.version, name.parts), {})[name.part] = found
            case _:
                pass
    for (version, count), there in parts.items():
        if len(there) == count:
            files = tuple(there[part] for part in sorted(there))
            single.append(Checkpoint(version=version, kind=LogFile.PART, files=files))
    checkpoints: dict[int, tuple[Checkpoint, ...]] = {}
    for checkpoint in sorted(single, key=lambda c: (c.version, _PREFERENCE[c.kind], len(c.files), c.files[0].path)):
        checkpoints[checkpoint.version] = (*checkpoints.get(checkpoint.version, ()), checkpoint)
    return LogListing(
        place=place,
        folder=folder,
        commits=dict(sorted(commits.items())),
        checkpoints=checkpoints,
        checksums=dict(sorted(checksums.items())),
    )


# One file is the least that can be torn; all of a version say the same.
_PREFERENCE = {LogFile.CLASSIC: 0, LogFile.UNIQUE: 1, LogFile.PART: 2}
