"""What has to be loaded before an event can be decided: pure, from the event alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec

from deltalakedb.codec import HEADER_COMPLETES
from deltalakedb.eventlog.port import Record
from deltalakedb.events import (
    Cancel,
    Completion,
    Content,
    Control,
    ImportedContent,
    ImportedVersion,
    LakeAction,
    StagedTransaction,
    TableWork,
)
from deltalakedb.ids import is_txn_id
from deltalakedb.paths import canonical_path, is_plain

from .isolation import IsolatedEvent
from .parts import TableKey
from .quotas import Claim, claim_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecodable:
    """A record that is no event, or none that is to be decided. Only its headers can say whose it is."""

    record: Record
    hash: bytes
    """SHA-256 of the record's value."""
    error: str
    cause: BaseException | None = None
    """What the error came from."""

    @staticmethod
    def of(record: Record, error: str, cause: BaseException | None = None) -> Undecodable:
        """`record`, which cannot be decoded because of `error`."""
        return Undecodable(record=record, hash=hashlib.sha256(record.value).digest(), error=error, cause=cause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolated:
    """A record that is not looked at, because the process died of it. Only its headers can say whose it is."""

    record: Record
    isolated: IsolatedEvent

    @property
    def completes(self) -> str | None:
        """The big transaction that the record was to decide, if its headers say that it was."""
        named = dict(self.record.headers).get(HEADER_COMPLETES, b"").decode("ascii", "replace")
        return named if is_txn_id(named) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A record that is refused without being decoded: it is too large, or over a quota by what its headers claim."""

    record: Record
    claim: Claim | None
    """None: it is too large."""


StagedEvent = StagedTransaction | Control | Completion | ImportedVersion | Undecodable | Isolated | Unread
"""What the staged stream brings."""


@dataclass(slots=True, kw_only=True)
class TableNeeds:
    """What the batch names of one table, beside its head."""

    paths: set[str] = field(default_factory=set)
    """Live files of these paths are needed, with every deletion vector."""
    canonical_paths: set[str] = field(default_factory=set)
    """As are those that are spelled in another way, by `canonical_path`."""
    read_version: int | None = None
    """Lowest read version: winners above it are needed, `Rules.read_distance` of them at most."""
    metadata_versions: set[int] = field(default_factory=set)
    """Versions whose `metaData` files were written against: needed where it is not the one in force."""
    app_ids: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    """Paths that were read or are removed: needed is which winner removed them."""
    partitions: bool = False
    """Whether predicates were read: the partition values of what winners added and removed are needed."""
    domains: bool = False
    """Whether domain metadata is set: the domains that winners set are needed."""


@dataclass(slots=True, kw_only=True)
class Needs:
    """What the batch names. Grows event by event, is loaded once."""

    txn_ids: set[str] = field(default_factory=set)
    """Whose first decision is needed."""
    chunked: dict[str, list[StagedTransaction]] = field(default_factory=dict)
    """Those of `txn_ids` that come in several chunks, with the chunks that the batch brings: what is staged of them is
    needed, and in turn what all of them name (`add_content` of each), if the batch brings the last one, or no more than
    the word that all are there."""
    ended: set[str] = field(default_factory=set)
    """Big transactions that are ended unseen: what is staged of them is needed, and nothing that they name."""
    apps: dict[str, set[int]] = field(default_factory=dict)
    """Per app id the application versions that are named: of each the first committed one at or above it is needed,
    and the first decision of its transaction."""
    tables: dict[TableKey, TableNeeds] = field(default_factory=dict)


def add_needs(needs: Needs, event: StagedEvent) -> None:
    """Add what `event` needs to `needs`."""
    match event:
        case StagedTransaction():
            needs.txn_ids.add(event.envelope.txn_id)
            if event.envelope.chunk_count == 1:
                add_content(needs, event.content)
            else:
                needs.chunked.setdefault(event.envelope.txn_id, []).append(event)
        case ImportedVersion():
            needs.txn_ids.add(event.envelope.txn_id)
            _add_imported(needs, event.content)
        case Control(command=command):
            needs.txn_ids.add(event.control_id)
            if isinstance(command, Cancel):
                needs.txn_ids.add(command.txn_id)
            elif isinstance(command, LakeAction) and command.table is not None:
                needs.tables.setdefault((None, command.table), TableNeeds())
        case Completion():
            needs.txn_ids.add(event.txn_id)
            needs.chunked.setdefault(event.txn_id, [])
            for table_id in event.heads:
                needs.tables.setdefault((table_id, None), TableNeeds())
        case Undecodable(record=record):
            claim = claim_of(record)
            if claim is not None:
                needs.txn_ids.add(claim.txn_id)
        case Unread(claim=claim):
            if claim is not None:
                needs.txn_ids.add(claim.txn_id)
        case Isolated(completes=txn_id):
            if txn_id is not None:
                needs.txn_ids.add(txn_id)
                needs.ended.add(txn_id)


def add_content(needs: Needs, content: Content) -> None:
    """Add what one chunk's content names to `needs`."""
    for app in content.apps:
        needs.apps.setdefault(app.app_id, set()).add(app.version)
    for work in content.tables:
        table = needs.tables.get(work.key)
        if table is None:
            table = needs.tables[work.key] = TableNeeds()
        table.app_ids.update([app.app_id for app in content.apps])
        _add_work(table, work)


def _add_work(table: TableNeeds, work: TableWork) -> None:
    for add in work.adds:
        table.paths.add(add.path)
    # Whatever else is here: what was read may be in another chunk than the version it was read at.
    read_version = work.read_version
    if read_version is not None and (table.read_version is None or read_version < table.read_version):
        table.read_version = read_version
    for remove in work.removes:
        table.paths.add(remove.path)
        table.gone.add(remove.path)
    if work.read_set is not None:
        table.app_ids.update(work.read_set.app_ids)
        table.gone.update(work.read_set.files)
        table.partitions = table.partitions or bool(work.read_set.predicates)
    if work.written_against is not None:
        table.metadata_versions.add(work.written_against.metadata_version)
    for other in work.others:
        table.domains = table.domains or other.kind == "domainMetadata"
        if other.kind == "txn" and (app_id := _app_id(other.json)):
            table.app_ids.add(app_id)


def _add_imported(needs: Needs, content: ImportedContent) -> None:
    table = needs.tables.setdefault((content.import_id, content.table_name), TableNeeds())
    for action in content.actions:
        if action.kind == "txn" and (app_id := _app_id(action.json)):
            table.app_ids.add(app_id)
        elif action.kind in ("add", "remove") and content.kind != "HISTORY" and (path := _path(action.json)):
            canonical = path if is_plain(path) else canonical_path(path, content.location)
            table.paths |= {path, canonical}
            table.canonical_paths.add(canonical)


class _Names(msgspec.Struct):
    path: str = ""
    appId: str = ""  # noqa: N815 - the protocol's name


_names = msgspec.json.Decoder(_Names).decode


def _app_id(body: str) -> str:
    """The app id of a `txn` action; empty if it is not one, which is for the decision to say."""
    try:
        return _names(body).appId
    except (msgspec.MsgspecError, RecursionError):
        return ""


def _path(body: str) -> str:
    """The path of a file action, as `_app_id`."""
    try:
        return _names(body).path
    except (msgspec.MsgspecError, RecursionError):
        return ""
