"""Deciding imported versions: chunk by chunk and in order, as they were found in another log.

A chunk's actions become rows when it comes; nobody sees them before the last chunk moves the table's head. So memory
is bounded by a chunk, and an import that ends in the middle leaves a table that can be read where its head is.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from deltalakedb.actions import AddFile, Metadata, Protocol, RemoveFile
from deltalakedb.delta_types import StructType
from deltalakedb.errors import Reason
from deltalakedb.events import ImportedContent, ImportedVersion
from deltalakedb.features import READABLE
from deltalakedb.ids import is_txn_id
from deltalakedb.paths import canonical_path, is_plain
from deltalakedb.slots import SlotReader, Slots, slot_columns, wider

from .decisions import Actions, Chunk, Entry
from .file_rest import live_file
from .imported_actions import ImportedActions, path_problem, read_actions
from .imported_tables import check_table, new_table, refused_import
from .other_actions import checked_schema
from .refusal import Refused, shown
from .rules import Rules
from .state import FileKey, LiveFile, State, TableState, UnderWay
from .validate import read_stats

TIME_AHEAD_MS: Final = 1_000
"""How far the time of an imported version may lie past the append time of its event."""
_KINDS = ("COMMIT", "BASELINE", "HISTORY", "ADOPTION")
_MAX_BYTES = 2**63 - 1
_MAX_ACTIONS = 2**31 - 1


def decide_chunk(event: ImportedVersion, state: State, time_ms: int) -> Chunk | None:
    """What a chunk does to its table; None if it is there already. Raises `Refused`."""
    content, rules = event.content, state.rules
    _check_content(content, event, time_ms, rules)
    table = state.table(table_id=content.import_id)
    if table is None:
        table = new_table(content, state)
    else:
        check_table(table, content)
    way = _way(table, content, event)
    digest = hashlib.sha256(event.content_bytes).digest()
    index = event.envelope.chunk_index
    if index < len(way.chunks):
        if way.chunks[index] != digest:
            raise refused_import(content, Reason.CONTENT_MISMATCH, f"chunk {index} came before, with other bytes")
        return None
    if index > len(way.chunks):
        raise refused_import(content, Reason.IMPORT_GAP, f"chunk {index} came, and the next one is {len(way.chunks)}")
    return _Step(table, content, way, state).chunk(digest)


def _check_content(content: ImportedContent, event: ImportedVersion, time_ms: int, rules: Rules) -> None:
    envelope = event.envelope
    if not 1 <= envelope.chunk_count <= rules.max_import_chunks:
        raise refused_import(
            content,
            Reason.LIMIT_EXCEEDED,
            f"it comes in {envelope.chunk_count} chunks; from 1 to {rules.max_import_chunks} are allowed",
        )
    if not 0 <= envelope.chunk_index < envelope.chunk_count:
        raise refused_import(
            content,
            Reason.CONTENT_MISMATCH,
            f"a chunk says that it is number {envelope.chunk_index} of {envelope.chunk_count}, counted from 0",
        )
    if not is_txn_id(content.import_id) or content.kind not in _KINDS or not 0 <= content.version < 2**63 - 1:
        raise refused_import(
            content,
            Reason.INVALID_ACTION,
            f"import {shown(content.import_id)}, kind {shown(content.kind)}: no version is imported like this",
        )
    if content.time_ms > time_ms + TIME_AHEAD_MS:
        raise refused_import(
            content,
            Reason.TIME_AHEAD,
            f"its time lies {content.time_ms - time_ms} ms in the future; {TIME_AHEAD_MS} are allowed",
        )


def _way(table: TableState, content: ImportedContent, event: ImportedVersion) -> UnderWay:
    """The version as it is before this chunk; checks that it is the next one. Raises `Refused`."""
    version, kind = content.version, content.kind
    way = table.under_way
    if way is None:
        only_history = table.version < table.first_version
        if table.version >= 0 and version != table.version + 1:
            raise refused_import(content, Reason.IMPORT_GAP, f"the next version of the table is {table.version + 1}")
        begins = kind in ("HISTORY", "BASELINE") or (kind == "COMMIT" and table.version < 0 and version == 0)
        if begins != only_history:
            next_kind = "history, a baseline, or version 0" if only_history else "a commit"
            raise refused_import(
                content, Reason.IMPORT_GAP, f"it is of kind {kind}, and what comes next is {next_kind}"
            )
        if table.version >= 0 and content.time_ms <= table.time_ms:
            raise refused_import(
                content,
                Reason.INVALID_ACTION,
                f"its time {content.time_ms} is not later than that of the version before, {table.time_ms}",
            )
        return UnderWay(
            version=version,
            kind=kind,
            time_ms=content.time_ms,
            file_time_ms=content.file_time_ms,
            chunk_count=event.envelope.chunk_count,
            digest=event.envelope.digest,
            live_files=table.live_files,
            live_bytes=table.live_bytes,
            widths=table.widths,
        )
    if version != way.version:
        raise refused_import(content, Reason.IMPORT_GAP, f"version {way.version} is under way, and not complete yet")
    said = (kind, content.time_ms, content.file_time_ms, event.envelope.chunk_count, event.envelope.digest)
    if said != (way.kind, way.time_ms, way.file_time_ms, way.chunk_count, way.digest):
        raise refused_import(content, Reason.CONTENT_MISMATCH, "its first chunks came with another content")
    return way


class _Step:
    """One chunk on its way from actions to rows."""

    def __init__(self, table: TableState, content: ImportedContent, way: UnderWay, state: State) -> None:
        self._table = table
        self._content = content
        self._way = way
        self._state = state
        self._history = way.kind == "HISTORY"
        self._files: dict[FileKey, LiveFile | None] = {}
        self._spellings: dict[str, set[str]] = {}
        self._superseded: list[LiveFile] = []

    def chunk(self, digest: bytes) -> Chunk:
        """The chunk as a decision. Raises `Refused`."""
        table, content, way = self._table, self._content, self._way
        found = read_actions(content.actions, content.table_name, content.version, self._state.rules)
        self._check_once(found)
        metadata, schema = self._definition(found)
        columns = table.slot_columns
        if metadata is not None and schema is not None and table.metadata is None:
            columns = slot_columns(schema, metadata.partition_columns)
        reader = None if schema is None else SlotReader(schema, columns)
        adds: list[AddFile] = []
        removes: list[RemoveFile] = []
        num_records: list[int | None] = []
        slots: list[Slots] = []
        widths = way.widths
        for cdc in found.cdc:
            self._canonical(cdc.path)
        for action in found.files:
            path = action.path
            canonical = path if is_plain(path) else self._canonical(path)
            if isinstance(action, RemoveFile):
                removes.append(action)
                if not self._history:
                    self._end(path, canonical, action.dv_id)
                continue
            records, file_slots = read_stats(action.stats, reader, self._state.rules)
            self._come(action, canonical, way.adds + len(adds))
            adds.append(action)
            num_records.append(records)
            slots.append(file_slots)
            widths = wider(widths, file_slots)
        added_bytes = sum([add.size for add in adds])
        after = msgspec.structs.replace(
            way,
            chunks=(*way.chunks, digest),
            adds=way.adds + len(adds),
            removes=way.removes + len(removes),
            cdc=way.cdc + len(found.cdc),
            others=way.others + len(found.others),
            added_bytes=way.added_bytes + added_bytes,
            removed_bytes=way.removed_bytes + sum([remove.size or 0 for remove in removes]),
            changes_data=way.changes_data or any(action.data_change for action in found.files),
            metadata=way.metadata or found.metadata is not None,
            protocol=way.protocol or found.protocol is not None,
            domains=(*way.domains, *found.domains),
            commit_info=found.commit_info or way.commit_info,
            live_files=way.live_files + len(adds) - len(self._superseded),
            live_bytes=way.live_bytes + added_bytes - sum([live.size for live in self._superseded]),
            widths=widths,
        )
        self._check_sizes(after)
        complete = len(after.chunks) == after.chunk_count
        if complete:
            self._check_complete(found, after)
        return Chunk(
            table=table,
            before=way,
            after=after,
            actions=Actions(
                adds=tuple(adds),
                num_records=tuple(num_records),
                slots=tuple(slots),
                removes=tuple(removes),
                cdc=tuple(found.cdc),
                metadata=found.metadata,
                schema=schema if found.metadata is not None else None,
                protocol=found.protocol,
                txns=tuple(found.txns.values()),
                domains=tuple(found.domains.values()),
                others=tuple(found.others),
                superseded=tuple(self._superseded),
            ),
            files=self._files,
            spellings=self._spellings,
            entry=self._entry(columns, complete=complete),
        )

    # Files.

    def _come(self, add: AddFile, canonical: str, n: int) -> None:
        """The file is live from here on; in a version that is only history it ends as it comes."""
        live = live_file(add, self._way.version, n)
        if self._history:
            self._superseded.append(live)
            return
        path, dv_id = add.path, add.dv_id
        self._end(path, canonical, dv_id)
        self._files[path, dv_id] = live
        if canonical is not path:
            self._spellings.setdefault(canonical, set()).add(path)

    def _end(self, path: str, canonical: str, dv_id: str) -> None:
        """If the file is live, by this path or by another spelling of it, it ends here."""
        names = [path]
        if canonical is not path or canonical in self._spellings or canonical in self._table.spellings:
            others = self._spellings.get(canonical, set()) | self._table.spellings.get(canonical, set())
            names += [canonical, *sorted(others)]
        for name in names:
            key = (name, dv_id)
            live = self._files[key] if key in self._files else self._table.files.get(key)
            if live is not None:
                self._superseded.append(live)
                self._files[key] = None
                return

    def _canonical(self, path: str) -> str:
        """The one name of a path that needs a closer look. Raises `Refused` where it cannot be stored."""
        problem = path_problem(path, self._state.rules)
        if problem is not None:
            raise refused_import(self._content, Reason.INVALID_PATH, f"path {shown(path)}: {problem}")
        return canonical_path(path, self._table.location)

    # The table.

    def _definition(self, found: ImportedActions) -> tuple[Metadata | None, StructType | None]:
        """Metadata and schema that hold for the chunk; none for history, which nobody can read by them."""
        table, content, rules = self._table, self._content, self._state.rules
        if self._history:
            return None, None
        if found.protocol is not None:
            self._check_readable(found.protocol)
        if found.metadata is None:
            return table.metadata, table.schema
        try:
            return found.metadata, checked_schema(found.metadata.schema_string, table.name, rules)
        except Refused as refused:
            raise refused_import(content, refused.reason, refused.message) from refused

    def _check_readable(self, protocol: Protocol) -> None:
        reader, writer = protocol.min_reader_version, protocol.min_writer_version
        unknown = set(protocol.reader_features or ()) - READABLE
        if not 1 <= reader <= 3 or not 1 <= writer <= 7:
            unknown = {f"protocol ({reader}, {writer})"}
        if unknown:
            raise refused_import(
                self._content,
                Reason.FEATURE_UNSUPPORTED,
                f"it asks readers to know {shown(min(unknown))}, which this release does not",
            )

    def _check_once(self, found: ImportedActions) -> None:
        """What a version says once of a table came in no earlier chunk of it: there is one row for it."""
        way, table = self._way, self._table
        twice = [name for name in found.domains if name in way.domains]
        for app_id in found.txns:
            earlier = table.txns.get(app_id)
            if earlier is not None and earlier.table_version == way.version:
                twice.append(app_id)
        for kind, came, comes in (
            ("metaData", way.metadata, found.metadata),
            ("protocol", way.protocol, found.protocol),
        ):
            if came and comes is not None:
                twice.append(kind)
        if twice:
            raise refused_import(self._content, Reason.INVALID_ACTION, f"it says twice what {shown(twice[0])} is")

    def _check_sizes(self, after: UnderWay) -> None:
        counts = max(after.adds, after.removes, after.cdc, after.others)
        sizes = max(map(abs, (after.added_bytes, after.removed_bytes, after.live_bytes)))
        if counts > _MAX_ACTIONS or sizes > _MAX_BYTES:
            raise refused_import(
                self._content, Reason.LIMIT_EXCEEDED, "it has more actions or bytes than can be counted"
            )

    def _check_complete(self, found: ImportedActions, after: UnderWay) -> None:
        content, table = self._content, self._table
        if hashlib.sha256(b"".join(after.chunks)).digest() != after.digest:
            raise refused_import(
                content, Reason.CONTENT_MISMATCH, "its bytes are not those that its digest was taken over"
            )
        for kind, there in (
            ("metaData", found.metadata or table.metadata),
            ("protocol", found.protocol or table.protocol),
        ):
            if there is None and not self._history:
                raise refused_import(content, Reason.INVALID_ACTION, f"there is no {kind} action up to here")

    def _entry(self, columns: tuple[tuple[str, ...], ...], *, complete: bool) -> Entry | None:
        """The table's entry in the directory, if the chunk changes it."""
        table, way = self._table, self._way
        adopted = complete and way.kind == "ADOPTION"
        created_seq = table.created_seq
        if adopted and created_seq is None:
            created_seq = self._state.commit_seq + 1
        entry = Entry(
            table=table,
            new=table.table_no not in self._state.tables,
            state="ACTIVE" if adopted else "IMPORTING",
            created_seq=created_seq,
            slot_columns=columns,
            first_version={"HISTORY": way.version + 1, "BASELINE": way.version}.get(way.kind, table.first_version),
        )
        return None if entry == Entry.of(table) else entry
