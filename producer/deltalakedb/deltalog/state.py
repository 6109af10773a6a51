"""What a table is at one version: the newest word on everything, from a checkpoint and the commits after it.

Commits are gone through from the newest to the oldest, so what was seen once is settled; within a commit the last
action counts. In memory are the identities of the files that commits speak of, never all files of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.events import ImportedAction
from deltalakedb.features import READABLE

from .checkpoint_rows import FILES
from .commits import HELD_BYTES, corrupt
from .read_ahead import ReadAhead

if TYPE_CHECKING:
    from deltalakedb.objectstore import ObjectStore

    from .checkpoints import CheckpointReader
    from .listing import LogListing
    from .logical_files import TableRoot

_HELD_TEXT: Final = 64 << 20
"""Files that commits brought are held up to this many characters of JSON; beyond, commits are read once more."""

_T = TypeVar("_T")


class _Protocol(msgspec.Struct, rename="camel"):
    min_reader_version: int
    reader_features: list[str] | None = None


class _Txn(msgspec.Struct, rename="camel"):
    app_id: str


class _Domain(msgspec.Struct):
    domain: str
    removed: bool | None = None


class LogState:
    """A table at one version. Every action is as it was written, or as a checkpoint has it."""

    def __init__(
        self,
        store: ObjectStore,
        listing: LogListing,
        root: TableRoot,
        version: int,
        checkpoint: CheckpointReader | None,
    ) -> None:
        """`root` is the table's folder; the `checkpoint`, if any, of this `version` or an earlier one is closed with it."""
        self.version = version
        self.txns: dict[str, ImportedAction] = {}
        """By application id."""
        self.domains: dict[str, ImportedAction] = {}
        """By name, without those that were removed."""
        self._store = store
        self._listing = listing
        self._root = root
        self._checkpoint = checkpoint
        self._later = range(version, -1 if checkpoint is None else checkpoint.version, -1)
        """Versions that the checkpoint does not cover, the newest first."""
        self._protocol: tuple[ImportedAction, int, str] | None = None
        self._metadata: ImportedAction | None = None
        self._held: list[ImportedAction] | None = []
        self._seen: set[bytes] = set()
        self._gather()

    def __enter__(self) -> LogState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what was copied for reading. Idempotent."""
        if self._checkpoint is not None:
            self._checkpoint.close()

    @property
    def protocol(self) -> ImportedAction:
        """The `protocol` action in force."""
        assert self._protocol is not None
        return self._protocol[0]

    @property
    def metadata(self) -> ImportedAction:
        """The `metaData` action in force."""
        assert self._metadata is not None
        return self._metadata

    def files(self) -> Iterator[ImportedAction]:
        """The newest action of every file: an `add` is live, a `remove` a tombstone. In no order that means anything.

        Raises `TxnLogDeltaLogError` where a checkpoint turns out to be corrupt beyond its heading.
        """
        if self._held is not None:
            yield from self._held
        else:
            seen: set[bytes] = set()
            with self._reading() as commits:
                for version in self._later:
                    yield from self._winners(commits, version, seen)
        if self._checkpoint is None:
            return
        for action in self._checkpoint.files():
            if not self._seen or self._key(action, self._checkpoint.version, self._checkpoint.path) not in self._seen:
                yield action

    def _gather(self) -> None:
        """One way through all commits: everything but the files is kept, and files as long as there are not too many."""
        room = _HELD_TEXT
        with self._reading() as commits:
            for version in self._later:
                heading: list[ImportedAction] = []
                for action in self._winners(commits, version, self._seen, heading):
                    room -= len(action.json)
                    if room < 0:
                        self._held = None
                    if self._held is not None:
                        self._held.append(action)
                self._settle(heading, version, self._listing.commits[version].path)
        if self._checkpoint is not None:
            self._settle(self._checkpoint.heading(), self._checkpoint.version, self._checkpoint.path)
        self.domains = {
            name: action for name, action in self.domains.items() if not _decoded(_Domain, action.json).removed
        }
        self._verify()

    def _reading(self) -> ReadAhead:
        return ReadAhead(self._store, self._listing, self._later)

    def _winners(
        self, commits: ReadAhead, version: int, seen: set[bytes], heading: list[ImportedAction] | None = None
    ) -> Iterator[ImportedAction]:
        """The last action of every file in a commit that is not in `seen`, which it is added to; all others to `heading`.

        A large commit is read twice instead of being held.
        """
        file = self._listing.commits[version]
        held = list(commits.commit(version)) if file.size <= HELD_BYTES else None

        def actions() -> Iterable[ImportedAction]:
            return commits.commit(version) if held is None else held

        last: dict[bytes, int] = {}
        for n, action in enumerate(actions()):
            if action.kind in FILES:
                key = self._key(action, version, file.path)
                if key not in seen:
                    last[key] = n
            elif heading is not None:
                heading.append(action)
        if last:
            for n, action in enumerate(actions()):
                if action.kind in FILES and last.get(self._key(action, version, file.path)) == n:
                    yield action
            seen.update(last)

    def _key(self, action: ImportedAction, version: int, path: str) -> bytes:
        try:
            return self._root.key(action.json)
        except msgspec.MsgspecError as error:
            raise corrupt(path, version, f"its action {action.json[:200]} is no {action.kind} ({error})") from error

    def _settle(self, actions: list[ImportedAction], version: int, path: str) -> None:
        """Take what is newer than all that was taken before; of several in `actions`, the last."""
        for action in reversed(actions):
            try:
                match action.kind:
                    case "protocol":
                        self._protocol = self._protocol or (action, version, path)
                    case "metaData":
                        self._metadata = self._metadata or action
                    case "txn":
                        self.txns.setdefault(_decoded(_Txn, action.json).app_id, action)
                    case "domainMetadata":
                        self.domains.setdefault(_decoded(_Domain, action.json).domain, action)
                    case _:
                        pass
            except msgspec.MsgspecError as error:
                raise corrupt(path, version, f"its action {action.json[:200]} is no {action.kind} ({error})") from error

    def _verify(self) -> None:
        place, version = self._listing.place, self.version
        if self._protocol is None:
            raise TxnLogDeltaLogError(
                LogProblem.NO_PROTOCOL, f"{place} has no protocol up to version {version}", version=version, path=place
            )
        if self._metadata is None:
            raise TxnLogDeltaLogError(
                LogProblem.NO_METADATA, f"{place} has no metaData up to version {version}", version=version, path=place
            )
        refuse_unreadable(*self._protocol)


def refuse_unreadable(protocol: ImportedAction, version: int, path: str) -> None:
    """Raise `TxnLogDeltaLogError` if a `protocol` action asks of readers what this release does not know.

    UNSUPPORTED_FEATURE names the feature, CORRUPT an action that is none.
    """
    try:
        asked = msgspec.json.decode(protocol.json, type=_Protocol, strict=False)
    except msgspec.MsgspecError as error:
        raise corrupt(path, version, f"its protocol {protocol.json[:200]} is none ({error})") from error
    unknown = sorted(set(asked.reader_features or ()) - READABLE)
    if asked.min_reader_version > 3:
        unknown = [f"reader version {asked.min_reader_version}"]
    if unknown:
        raise TxnLogDeltaLogError(
            LogProblem.UNSUPPORTED_FEATURE,
            f"{path} asks readers to know {', '.join(unknown)}, which this release does not: a release that does can "
            "read the table, or the feature can be dropped by what wrote it",
            version=version,
            path=path,
        )


def _decoded(kind: type[_T], body: str) -> _T:
    return msgspec.json.decode(body, type=kind, strict=False)
