"""What a log says, gathered version by version before anything of it is imported, and what stands against importing it.

Pure: it is given actions. It holds a number for each live file, never the files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deltalakedb.actions import Metadata, Protocol, from_json
from deltalakedb.delta_types import EMPTY_SCHEMA
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.events import ImportedAction
from deltalakedb.features import FENCE_FEATURE, ICT, READABLE, listed
from deltalakedb.paths import canonical_path

from .adoption import OPERATION
from .plan import Kind, Step
from .roots import Roots
from .times import Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that stands against an import."""

    what: str
    version: int
    path: str
    """Of the file in the log that says it."""
    forcible: bool = False
    """Whether `force` passes over it."""

    def __str__(self) -> str:
        way = "; --force passes over it" if self.forcible else ""
        return f"version {self.version} ({self.path}): {self.what}{way}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The writer fence of a lake, as it is on the table."""

    lake: str | None
    """Id of the lake that took the table over last; None: none did, it was made in one."""
    version: int
    """Of the newest protocol with the fence in it."""
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A table's live files at a version."""

    files: int
    bytes: int


@dataclass(slots=True)
class Writer:
    """Who has written into the log, by `commitInfo.engineInfo`."""

    engine: str
    commits: int
    newest: int


@dataclass
class Survey:
    """Grows by `version`, which is called with each version in order."""

    location: str
    roots: Roots
    stamps: list[Stamp] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    writers: dict[str, Writer] = field(default_factory=dict)
    protocol: Protocol | None = None
    metadata: Metadata | None = None
    checked: int = 0
    """Versions whose checksum file was compared."""
    txn_id: str | None = None
    """`commitInfo.txnId` of the newest version."""
    fence: Fence | None = None
    """What is on the table at the newest version."""
    _adopter: str | None = None
    _live: dict[int, int] = field(default_factory=dict)
    """Size by file."""
    _bytes: int = 0

    @property
    def totals(self) -> Totals:
        """At the newest version read."""
        return Totals(files=len(self._live), bytes=self._bytes)

    @property
    def in_commit_timestamps(self) -> bool:
        return self.metadata is not None and self.metadata.configuration.get(ICT) == "true"

    def version(self, step: Step, actions: Iterable[ImportedAction], *, path: str, file_ms: int) -> None:
        """One more version: its actions in the order of its file, which is at `path` and from `file_ms`.

        Raises `TxnLogDeltaLogError` for an action that is none.
        """
        info: _CommitInfo | None = None
        for action in actions:
            try:
                if action.kind == "commitInfo":
                    info = msgspec.json.decode(action.json, type=_CommitInfo)
                    self._adopter = _lake_of(info) or self._adopter
                else:
                    self._action(step, action, path)
            except (ValueError, TypeError) as error:
                if action.kind == "commitInfo":
                    continue  # free JSON, by the protocol
                raise TxnLogDeltaLogError(
                    LogProblem.CORRUPT,
                    f"{path}: a {action.kind} action cannot be understood ({error})",
                    version=step.version,
                    path=path,
                ) from error
        self.txn_id = None if info is None else info.txn_id
        if info is not None and info.engine is not None:
            writer = self.writers.setdefault(info.engine, Writer(info.engine, 0, step.version))
            writer.commits, writer.newest = writer.commits + 1, step.version
        timed = info is not None and (self.in_commit_timestamps or step.kind is Kind.HISTORY)
        self.stamps.append(
            Stamp(
                version=step.version,
                in_commit_ms=info.in_commit_ms if timed and info is not None else None,
                file_ms=file_ms,
            )
        )
        if step.kind is not Kind.HISTORY:
            self._state(step, path)

    def checksum(self, version: int, data: bytes, *, path: str) -> None:
        """Compare the checksum file of the version read last. One that cannot be read says nothing, as for readers."""
        try:
            told = msgspec.json.decode(data, type=_Checksum)
        except msgspec.MsgspecError:
            return
        self.checked += 1
        totals = self.totals
        differences = [
            f"{name} {ours:,}, where it says {theirs:,}"
            for name, ours, theirs in (
                ("files", totals.files, told.files),
                ("bytes", totals.bytes, told.bytes),
            )
            if ours != theirs
        ]
        for kind, body, ours in (
            ("protocol", told.protocol, self.protocol),
            ("metaData", told.metadata, self.metadata),
        ):
            if bytes(body) and _action_of(kind, body) != ours:
                differences.append(f"another {kind}")
        if differences:
            what = f"its checksum disagrees with the log: by the log {' and '.join(differences)}"
            self.problems.append(Problem(what=what, version=version, path=path, forcible=True))

    def _action(self, step: Step, action: ImportedAction, path: str) -> None:
        match action.kind:
            case "add" | "remove" | "cdc":
                file = _file(action.json)
                self._confine(step, file, path)
                if step.kind is not Kind.HISTORY:
                    self._count(action.kind, file)
            case "protocol" if step.kind is not Kind.HISTORY:
                self.protocol = from_json("protocol", action.json)
                self._readable(step, self.protocol, path)
                fenced = FENCE_FEATURE in listed(self.protocol)
                self.fence = Fence(lake=self._adopter, version=step.version, path=path) if fenced else None
            case "metaData" if step.kind is not Kind.HISTORY:
                self.metadata = _metadata(action.json)

    def _count(self, kind: str, file: _File) -> None:
        if kind == "cdc":
            return
        # As Spark has it, two spellings of one path are one file.
        key = hash((canonical_path(file.path, self.location), file.vector_id))
        self._bytes -= self._live.pop(key, 0)
        if kind == "add":
            self._live[key] = file.size or 0
            self._bytes += file.size or 0

    def _confine(self, step: Step, file: _File, path: str) -> None:
        place = self.roots.leads_out(file.path)
        if place is None and file.vector is not None:
            place = self.roots.vector_leads_out(file.vector.storage_type, file.vector.path)
        if place is not None and not any(p.version == step.version and not p.forcible for p in self.problems):
            what = f"a file lies outside of the table, at {place}: --allow-root ROOT allows what lies under ROOT"
            self.problems.append(Problem(what=what, version=step.version, path=path))

    def _readable(self, step: Step, protocol: Protocol, path: str) -> None:
        unknown = set(protocol.reader_features or ()) - READABLE
        reader, writer = protocol.min_reader_version, protocol.min_writer_version
        if unknown:
            what = f"readers must know {', '.join(sorted(unknown))}, and this release does not"
        elif not 1 <= reader <= 3 or not 1 <= writer <= 7:
            what = f"protocol versions ({reader}, {writer}) are none that this release knows"
        else:
            return
        self.problems.append(Problem(what=what, version=step.version, path=path))

    def _state(self, step: Step, path: str) -> None:
        """Without protocol and metadata there is no table."""
        for problem, kind, found in (
            (LogProblem.NO_PROTOCOL, "protocol", self.protocol),
            (LogProblem.NO_METADATA, "metaData", self.metadata),
        ):
            if found is None:
                raise TxnLogDeltaLogError(
                    problem,
                    f"up to {path} there is no {kind} action: this is no state of a table",
                    version=step.version,
                    path=path,
                )


class _CommitInfo(
    msgspec.Struct,
    rename={
        "in_commit_ms": "inCommitTimestamp",
        "engine": "engineInfo",
        "txn_id": "txnId",
        "parameters": "operationParameters",
    },
):
    in_commit_ms: int | None = None
    engine: str | None = None
    txn_id: str | None = None
    operation: Any = None
    parameters: Any = None


def _lake_of(info: _CommitInfo) -> str | None:
    """The lake that takes the table over by this commit."""
    if info.operation != OPERATION or not isinstance(info.parameters, dict):
        return None
    lake = info.parameters.get("lakeId")
    return lake if isinstance(lake, str) else None


class _Vector(msgspec.Struct, rename={"storage_type": "storageType", "path": "pathOrInlineDv"}):
    storage_type: str
    path: str
    offset: int | None = None


class _File(msgspec.Struct, rename={"vector": "deletionVector"}):
    path: str
    size: int | None = None
    vector: _Vector | None = None

    @property
    def vector_id(self) -> str:
        vector = self.vector
        if vector is None:
            return ""
        return f"{vector.storage_type}{vector.path}{'' if vector.offset is None else f'@{vector.offset}'}"


class _Checksum(msgspec.Struct, rename={"bytes": "tableSizeBytes", "files": "numFiles"}):
    bytes: int
    files: int
    metadata: msgspec.Raw = msgspec.Raw()
    protocol: msgspec.Raw = msgspec.Raw()


_file = msgspec.json.Decoder(_File).decode
_NO_METADATA = {"id": "", "schemaString": EMPTY_SCHEMA, "partitionColumns": [], "configuration": {}}
"""What the fields of a metaData action are that does not have them."""


def _metadata(body: str) -> Metadata:
    fields = msgspec.json.decode(body, type=dict[str, Any])
    given = {name: value for name, value in fields.items() if value is not None}
    found: Metadata = from_json("metaData", msgspec.json.encode(_NO_METADATA | given))
    return found


def _action_of(kind: str, body: msgspec.Raw) -> Any:
    """The action that a checksum file repeats; None for what is none."""
    try:
        return from_json(kind, bytes(body))
    except (ValueError, TypeError):
        return None
