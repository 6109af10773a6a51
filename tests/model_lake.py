"""A lake in memory: decides events with the real rules, keeps the rows that a store would, and loads states from them.

Nothing is remembered between batches but rows, so whatever a decision needs has to have been named and written.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from deltalakedb.actions import DomainMetadata, Metadata, Protocol, SetTransaction
from deltalakedb.codec import content_digest, decode_content, decode_told, encode_content
from deltalakedb.delta_types import parse_schema
from deltalakedb.eventlog.port import Record, Stream
from deltalakedb.events import (
    Cancel,
    Command,
    Committed,
    Content,
    Control,
    Envelope,
    Outcome,
    Rejected,
    StagedTransaction,
    TableWork,
)
from deltalakedb_committer.batching import Batching
from deltalakedb_committer.deciding.chunks import StagedChunk, StagedChunks
from deltalakedb_committer.deciding.decide import advance, decide
from deltalakedb_committer.deciding.decisions import Accepted, Answer, Commit, Decision, Rejection
from deltalakedb_committer.deciding.folded import decide_fold
from deltalakedb_committer.deciding.folding import Item, Unit
from deltalakedb_committer.deciding.needs import Needs, StagedEvent, TableNeeds, add_content, add_needs
from deltalakedb_committer.deciding.rules import Rules, rules
from deltalakedb_committer.deciding.state import (
    Decided,
    Lake,
    LiveFile,
    State,
    TableState,
    TableTxn,
    Target,
    UnderWay,
    Winner,
)
from deltalakedb_committer.storing.columns import COLUMNS
from deltalakedb_committer.storing.rows import Batch, add_decision, seal

LAKE_ID = "0190b5a0-0000-7000-8000-000000000001"
ROOT = "s3://bucket/lake"
START_MS = 1_700_000_000_000
"""Append time of the record at position 0; each next one comes a millisecond later."""

Row = dict[str, Any]


class ModelLake:
    """Rows as a store would have them, and the events that made them."""

    def __init__(self, *, fence: bool = True, limits: Rules | None = None, rule_set: int = 1) -> None:
        self.lake = Lake(lake_id=LAKE_ID, root=ROOT, fence=fence)
        self.limits = limits
        """In place of the numbered rule sets."""
        self.rows: dict[str, list[Row]] = {name: [] for name in COLUMNS}
        self.past: list[Row] = []
        self.heads: dict[int, Row] = {}
        self.imports: dict[int, Row] = {}
        self.targets = {"in-place": Target("in-place", "in-place", None, "ACTIVE", 0)}
        self.outbox: list[Any] = []
        self.position = 0
        self.commit_seq = self.time_ms = 0
        self.next_table_no = 1
        self.rule_set = rule_set

    # Deciding.

    def run(self, events: Sequence[StagedEvent], *, at: int | None = None) -> list[Decision]:
        """Decide and write events as one batch, each by itself; `at` is the time of its first record."""
        return self.apply([(item,) for item in self.items(events, at=at)])

    def items(self, events: Sequence[StagedEvent], *, at: int | None = None) -> list[Item]:
        """The next records of the log, a millisecond apart."""
        start = START_MS + self.position if at is None else at
        return [(record(self.position + n, start + n), event) for n, event in enumerate(events)]

    def fold(self, *events: StagedEvent, at: int | Sequence[int] | None = None, value: bytes = b"") -> list[Decision]:
        """Decide and write events as one batch, in the folds that they make; nothing comes after them.

        `at` is the time of the first record, or of each; `value` is what each record holds.
        """
        items = self.items(events, at=at if isinstance(at, int) else None)
        if isinstance(at, Sequence):
            items = [
                (found._replace(time_ms=time_ms), event) for (found, event), time_ms in zip(items, at, strict=True)
            ]
        items = [(found._replace(value=value), event) for found, event in items]
        events_at = {record.position: event for record, event in items}
        batching = Batching(lambda record: events_at[record.position])
        batching.put([record for record, _ in items])
        return self.apply([*batching.take(len(items), self.rules), *batching.rest()])

    @property
    def rules(self) -> Rules:
        """What holds for the next batch."""
        return self.limits or rules(self.rule_set)

    def apply(self, units: Sequence[Unit]) -> list[Decision]:
        """Decide and write the next records of the log as one batch."""
        needs = Needs()
        for unit in units:
            for _, event in unit:
                add_needs(needs, event)
        state = self.load(needs)
        batch = Batch()
        decisions: list[Decision] = []
        for unit in units:
            found = decide_fold(state, unit, decide_one) if len(unit) > 1 else [decide_one(state, *unit[0])]
            for decision in found:
                advance(state, decision)
                add_decision(batch, decision)
            decisions += found
            self.position += len(unit)
        seal(batch)
        batch.finished_chunks += state.left
        self._write(batch)
        self.commit_seq, self.time_ms = state.commit_seq, state.time_ms
        self.next_table_no, self.rule_set = state.next_table_no, state.rules.number
        return decisions

    def decide(self, event: StagedEvent, *, at: int | None = None) -> Decision:
        """Decide and write one event."""
        (decision,) = self.run([event], at=at)
        return decision

    def commit(self, *tables: TableWork, at: int | None = None, **content: Any) -> Commit:
        """One transaction that makes a commit."""
        decision = self.decide(staged(*tables, **content), at=at)
        assert isinstance(decision, Commit), decision
        return decision

    def reject(self, *tables: TableWork, **content: Any) -> Rejected:
        """One transaction that is rejected, and why."""
        decision = self.decide(staged(*tables, **content))
        assert isinstance(decision, Rejection), decision
        assert decision.outcome.rejected is not None
        return decision.outcome.rejected

    def accept(self, *tables: TableWork, **content: Any) -> Committed:
        """One transaction that is committed without changing anything."""
        decision = self.decide(staged(*tables, **content))
        assert isinstance(decision, Accepted), decision
        assert decision.outcome.committed is not None
        return decision.outcome.committed

    # Looking.

    def digest(self) -> Any:
        """Everything that is written, comparable."""
        rows = {name: sorted(map(repr, rows)) for name, rows in self.rows.items()}
        heads = sorted(map(repr, self.heads.values()))
        past, imports = sorted(map(repr, self.past)), sorted(map(repr, self.imports.values()))
        lake = (self.commit_seq, self.time_ms, self.rule_set, self.targets)
        told = sorted(map(repr, told_by([(row.stream, row.payload) for row in self.outbox])))
        return (rows, past, heads, imports, told, lake)

    def live(self, name: str) -> set[tuple[str, str]]:
        """(path, dv_id) of the table's live files."""
        number = self._number(name)
        return {(row["path"], row["dv_id"]) for row in self.rows["dl_live_files"] if row["table_no"] == number}

    def partition_of(self, name: str, path: str) -> dict[str, str | None]:
        """Partition values of a live file."""
        number = self._number(name)
        rows = [row for row in self.rows["dl_live_files"] if (row["table_no"], row["path"]) == (number, path)]
        values: dict[str, str | None] = msgspec.json.decode(rows[0]["partition_values"])
        return values

    def _number(self, name: str) -> int:
        """Of the table of that name, one that was not dropped if there is one."""
        named = [row for row in self.rows["dl_tables"] if row["name"] == name]
        return int(min(named, key=lambda row: bool(row["state"] == "DROPPED"))["table_no"])

    def table(self, name: str) -> TableState:
        """The table as a decision finds it."""
        needs = Needs()
        add_content(needs, Content(tables=(TableWork(name=name),)))
        found = self.load(needs).table(name=name)
        assert found is not None
        return found

    # Rows.

    def load(self, needs: Needs) -> State:
        """A new state with what `needs` names."""
        state = State(
            lake=self.lake,
            rules=self.rules,
            commit_seq=self.commit_seq,
            time_ms=self.time_ms,
            next_table_no=self.next_table_no,
            targets=dict(self.targets),
        )
        for row in self.rows["dl_tables"]:
            state.add_table(
                TableState(
                    table_no=row["table_no"],
                    table_id=row["table_id"],
                    name=row["name"],
                    location=row["location"],
                    state=row["state"],
                    created_seq=row["created_seq"],
                    dropped_seq=row["dropped_seq"],
                    first_version=row["first_version"],
                    slot_columns=msgspec.json.decode(row["slot_columns"], type=tuple[tuple[str, ...], ...]),
                )
            )
        for row in self.rows["dl_staged_chunks"]:
            if row["txn_id"] in needs.chunked or row["txn_id"] in needs.ended:
                chunk = StagedChunk(
                    index=row["chunk_index"],
                    count=row["chunk_count"],
                    digest=row["digest"],
                    chunk_digest=row["chunk_digest"],
                    size=len(row["content"]),
                    position=row["position"],
                    client_id=row["client_id"],
                    outcome_partition=row["outcome_partition"],
                    content=row["content"],
                    head=row["head"],
                )
                state.chunks.setdefault(row["txn_id"], StagedChunks()).put(chunk)
                if row["txn_id"] in needs.chunked:
                    add_content(needs, decode_content(row["content"]))
        for events in needs.chunked.values():
            for event in events:
                add_content(needs, event.content)
        for row in sorted(self.rows["dl_staged_chunks"], key=lambda row: int(row["position"])):
            state.incomplete.staged(row["txn_id"], row["time_ms"], row["client_id"], row["size"])
            if row["head"] is not None:
                state.big.add(row["txn_id"])
        for txn_id in state.big:
            chunks = [row for row in self.rows["dl_staged_chunks"] if row["txn_id"] == txn_id]
            if len(chunks) == chunks[0]["chunk_count"]:
                state.incomplete.completed(txn_id)
                state.complete[txn_id] = None
        txn_ids = set(needs.txn_ids)
        for row in self.rows["dl_app_transactions"]:
            if any(version <= row["app_version"] for version in needs.apps.get(row["app_id"], ())):
                state.apps.setdefault(row["app_id"], {})[row["app_version"]] = row["txn_id"]
                txn_ids.add(row["txn_id"])
        for row in self.rows["dl_transactions"]:
            if row["txn_id"] in txn_ids:
                outcome = msgspec.json.decode(row["outcome"], type=Outcome)
                state.decided[row["txn_id"]] = Decided(txn_id=row["txn_id"], digest=row["digest"], outcome=outcome)
        for (table_id, name), wanted in needs.tables.items():
            table = state.table(name=name, table_id=table_id)
            if table is not None:
                self._load_table(table, wanted)
                state.touch(table)
        return state

    def _load_table(self, table: TableState, wanted: TableNeeds) -> None:
        head = self.heads.get(table.table_no)
        table.loaded = True
        if head is not None:
            table.version, table.time_ms = head["version"], head["time_ms"]
            table.metadata_version, table.protocol_version = head["metadata_version"], head["protocol_version"]
            table.live_files, table.live_bytes = head["live_files"], head["live_bytes"]
            table.widths = (head["width1"], head["width2"], head["width3"], head["width4"])
        if table.table_no in self.imports:
            way = msgspec.json.decode(self.imports[table.table_no]["progress"], type=UnderWay)
            table.under_way = way
            table.live_files, table.live_bytes, table.widths = way.live_files, way.live_bytes, way.widths
            if way.kind != "HISTORY":
                table.metadata_version = way.version if way.metadata else table.metadata_version
                table.protocol_version = way.version if way.protocol else table.protocol_version
        metadata = {row["version"]: _metadata(row) for row in self._of("dl_metadata_updates", table)}
        table.metadata = metadata.get(table.metadata_version)
        if table.metadata is not None:
            table.schema = parse_schema(table.metadata.schema_string)
        named = {version for version in wanted.metadata_versions if version >= table.first_version}
        table.past_metadata |= {version: data for version, data in metadata.items() if version in named}
        for row in self._of("dl_protocol_updates", table):
            if row["version"] == table.protocol_version:
                table.protocol = _protocol(row)
        for row in self._of("dl_live_files", table):
            if row["path"] in wanted.paths or row["canonical_path"] in wanted.canonical_paths:
                table.files[row["path"], row["dv_id"]] = _live_file(row)
                table.vectors.setdefault(row["path"], set()).add(row["dv_id"])
                if row["canonical_path"] is not None:
                    table.spellings.setdefault(row["canonical_path"], set()).add(row["path"])
        read_version = wanted.read_version
        if read_version is not None:
            known = -1 if table.winners_since is None else table.winners_since
            table.winners_since = read_version if table.winners_since is None else min(read_version, known)
            table.winners[:] = [
                self._winner(row, table, wanted)
                for row in self._of("dl_table_versions", table)
                if row["version"] > table.winners_since
            ]
        for row in self._of("dl_txn_actions", table):
            if row["app_id"] in wanted.app_ids and _in_force(table, row["version"]):
                txn = SetTransaction(app_id=row["app_id"], version=row["app_version"], last_updated=row["last_updated"])
                table.txns[row["app_id"]] = TableTxn(row["version"], txn)
        for row in self._of("dl_domain_metadata", table):
            if not _in_force(table, row["version"]):
                continue
            if row["removed"]:
                table.domains.pop(row["domain"], None)
            else:
                table.domains[row["domain"]] = DomainMetadata(
                    domain=row["domain"], configuration=row["configuration"], rest=row["extra"]
                )

    def _winner(self, row: Row, table: TableState, wanted: TableNeeds) -> Winner:
        if row["origin"] is not None:
            return Winner.imported_as(row["version"])
        fields = {name: row[name] for name in Winner.__dataclass_fields__ if name in row}
        version = row["version"]
        adds = [a for a in [*self.rows["dl_live_files"], *self.past] if a["table_no"] == table.table_no]
        removes = [r for r in self._of("dl_remove_files", table) if r["version"] == version]
        if wanted.partitions:
            fields["added_to"] = _values([a["partition_values"] for a in adds if a["version"] == version])
            fields["removed_from"] = _values([r["partition_values"] for r in removes])
        if wanted.domains:
            rows = self._of("dl_domain_metadata", table)
            fields["domains"] = frozenset(d["domain"] for d in rows if d["version"] == version)
        return Winner(**fields, removed_paths=frozenset(r["path"] for r in removes) & wanted.gone)

    def _of(self, name: str, table: TableState) -> Iterable[Row]:
        return sorted(
            (row for row in self.rows[name] if row["table_no"] == table.table_no), key=lambda row: int(row["version"])
        )

    def _write(self, batch: Batch) -> None:
        for name, rows in batch.inserts.items():
            self.rows[name] += [dict(zip(COLUMNS[name], row, strict=True)) for row in rows]
        tables = {row["table_no"]: row for row in self.rows["dl_tables"]}
        assert not batch.new_tables.keys() & tables.keys()
        assert batch.tables.keys() <= tables.keys()
        entries = {**batch.new_tables, **batch.tables}
        tables |= {number: dict(zip(COLUMNS["dl_tables"], row, strict=True)) for number, row in entries.items()}
        self.rows["dl_tables"] = list(tables.values())
        for table_no, under_way in batch.imports.items():
            self.imports.pop(table_no, None)
            if under_way is not None:
                self.imports[table_no] = dict(zip(COLUMNS["dl_imports"], under_way, strict=True))
        self.targets |= batch.targets
        for table_no, row in batch.heads.items():
            self.heads[table_no] = dict(zip(COLUMNS["dl_table_heads"], row, strict=True))
        for table_no, version, n, removed_version in batch.superseded:
            (ended,) = [
                row
                for row in self.rows["dl_live_files"]
                if (row["table_no"], row["version"], row["n"]) == (table_no, version, n)
            ]
            self.rows["dl_live_files"].remove(ended)
            self.past.append({**ended, "removed_version": removed_version})
        finished = set(batch.finished_chunks)
        for name in ("dl_staged_chunks", "dl_staged_files"):
            self.rows[name] = [r for r in self.rows[name] if r["txn_id"] not in finished]
        self.outbox += batch.outbox
        self._check_keys()

    def _check_keys(self) -> None:
        """What the SQL schema has as primary keys holds, and counts agree with rows."""
        for name, columns in {
            "dl_tables": ("table_no",),
            "dl_commits": ("commit_seq",),
            "dl_transactions": ("txn_id",),
            "dl_app_transactions": ("app_id", "app_version"),
            "dl_table_versions": ("table_no", "version"),
            "dl_live_files": ("table_no", "path", "dv_id"),
            "dl_metadata_updates": ("table_no", "version"),
            "dl_protocol_updates": ("table_no", "version"),
            "dl_txn_actions": ("table_no", "app_id", "version"),
            "dl_domain_metadata": ("table_no", "domain", "version"),
            **dict.fromkeys(("dl_remove_files", "dl_cdc_files", "dl_other_actions"), ("table_no", "version", "n")),
            "dl_staged_chunks": ("txn_id", "chunk_index"),
        }.items():
            keys = [tuple(row[column] for column in columns) for row in self.rows[name]]
            assert len(set(keys)) == len(keys), name
        dropped = {row["table_no"] for row in self.rows["dl_tables"] if row["state"] == "DROPPED"}
        for table_no, head in self.heads.items():
            if table_no in self.imports or table_no in dropped:
                continue  # there may be more, of a version that is not complete
            sizes = [row["size"] for row in self.rows["dl_live_files"] if row["table_no"] == table_no]
            assert (head["live_files"], head["live_bytes"]) == (len(sizes), sum(sizes))


def decide_one(state: State, record: Record, event: StagedEvent) -> Decision:
    """The decision about one record."""
    return decide(state, event, position=record.position, time_ms=record.time_ms)


def record(position: int, time_ms: int) -> Record:
    """A record whose event is at hand."""
    return Record(partition=0, position=position, time_ms=time_ms, value=b"", headers=())


def staged(*tables: TableWork, txn_id: str | None = None, **content: Any) -> StagedTransaction:
    """A transaction in one event."""
    (event,) = chunked([Content(tables=tables, **content)], txn_id=txn_id)
    return event


def chunked(contents: Sequence[Content], *, txn_id: str | None = None, **envelope: Any) -> list[StagedTransaction]:
    """A transaction in as many events as it has contents."""
    encoded = [encode_content(content) for content in contents]
    fields: dict[str, Any] = {
        "txn_id": txn_id or txn(uuid.uuid4().int),
        "digest": content_digest(encoded),
        "lake_id": LAKE_ID,
        "root": ROOT,
        "client_id": "client",
        "outcome_partition": 0,
        "chunk_count": len(contents),
        **envelope,
    }
    return [
        StagedTransaction(envelope=Envelope(chunk_index=index, **fields), content=content, content_bytes=encoded[index])
        for index, content in enumerate(contents)
    ]


def control(command: Command, *, control_id: str | None = None, **fields: Any) -> Control:
    """A control event."""
    own: dict[str, Any] = {"lake_id": LAKE_ID, "client_id": "client", "outcome_partition": 0, **fields}
    return Control(control_id=control_id or txn(uuid.uuid4().int), command=command, **own)


def cancel(txn_id: str) -> Control:
    """The wish that a transaction is not to happen."""
    return control(Cancel(txn_id=txn_id))


def txn(number: int) -> str:
    """The transaction id of that number."""
    return str(uuid.UUID(int=number))


def told_by(outbox: Iterable[tuple[str, bytes]]) -> list[object]:
    """What rows of the outbox, as (stream, payload), tell: which record has what depends on the batches."""
    told: list[object] = []
    for stream, payload in outbox:
        told += [payload] if stream == Stream.DEAD_LETTER.value else decode_told(payload)
    return told


def rejected(decision: Decision) -> Rejected:
    """What an answer says against a transaction."""
    assert isinstance(decision, Rejection | Answer), decision
    assert decision.outcome.rejected is not None
    return decision.outcome.rejected


def _values(texts: Iterable[str]) -> tuple[dict[str, str | None], ...]:
    return tuple(msgspec.json.decode(text) for text in sorted(set(texts)))


def _metadata(row: Row) -> Metadata:
    return Metadata(
        id=row["metadata_id"],
        name=row["name"],
        description=row["description"],
        format_provider=row["format_provider"],
        format_options=msgspec.json.decode(row["format_options"]),
        schema_string=row["schema_string"],
        partition_columns=tuple(msgspec.json.decode(row["partition_columns"])),
        configuration=msgspec.json.decode(row["configuration"]),
        created_time=row["created_time"],
        rest=row["extra"],
    )


def _protocol(row: Row) -> Protocol:
    def names(text: str | None) -> tuple[str, ...] | None:
        return None if text is None else tuple(msgspec.json.decode(text))

    return Protocol(
        min_reader_version=row["min_reader_version"],
        min_writer_version=row["min_writer_version"],
        reader_features=names(row["reader_features"]),
        writer_features=names(row["writer_features"]),
        rest=row["extra"],
    )


def _live_file(row: Row) -> LiveFile:
    return LiveFile(
        version=row["version"],
        n=row["n"],
        size=row["size"],
        partition_values=msgspec.json.decode(row["partition_values"]),
        base_row_id=row["base_row_id"],
        default_row_commit_version=row["default_row_commit_version"],
        tags=row["tags"],
    )


def _in_force(table: TableState, version: int) -> bool:
    return version >= table.first_version or (table.under_way is not None and table.under_way.version == version)
