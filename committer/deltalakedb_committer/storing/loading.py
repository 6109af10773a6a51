"""Fills a `State` from SQL: the directory once per epoch, and per batch what `needs` names, one query per kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from deltalakedb.catalog import records
from deltalakedb.catalog.records import columns
from deltalakedb.codec import decode_content
from deltalakedb.database import Database, Row
from deltalakedb.delta_types import parse_schema
from deltalakedb.events import Outcome
from deltalakedb_committer.deciding.chunks import StagedChunk, StagedChunks
from deltalakedb_committer.deciding.needs import Needs, TableNeeds, add_content
from deltalakedb_committer.deciding.parts import ChunkPart
from deltalakedb_committer.deciding.staged_files import head_of
from deltalakedb_committer.deciding.state import (
    Decided,
    LiveFile,
    State,
    TableState,
    TableTxn,
    Target,
    UnderWay,
)

from .partitions import WITHOUT_PARTITIONS
from .winners import load_winners

_TABLE = (
    *("table_no", "table_id", "name", "location", "state", "created_seq", "dropped_seq", "first_version"),
    "slot_columns",
)
_HEAD = (
    *("table_no", "version", "time_ms", "metadata_version", "protocol_version", "live_files", "live_bytes"),
    *("width1", "width2", "width3", "width4"),
)
_FILE = (
    *("table_no", "partition_no", "path", "canonical_path", "dv_id", "version", "n", "size", "base_row_id"),
    *("default_row_commit_version", "tags"),
)

# Whose a transaction is, its first chunk says.
_STAGED = """
    SELECT k.txn_id, k.newest_ms, c.client_id, k.size, c.chunk_count - k.chunks, k.heads FROM (
        SELECT s.txn_id, max(s.time_ms) AS newest_ms, min(s.position) AS first, sum(s.size) AS size,
            count(*) AS chunks, count(s.head) AS heads
        FROM dl_staged_chunks s GROUP BY s.txn_id
    ) k JOIN dl_staged_chunks c ON c.txn_id = k.txn_id AND c.position = k.first
    ORDER BY k.newest_ms
"""

# The domains of each table by index probes alone: row tracking writes one into every version.
_DOMAINS = f"""
    WITH RECURSIVE keys (table_no, name) AS (
        SELECT k.table_no, (SELECT min(a.domain) FROM dl_domain_metadata a WHERE a.table_no = k.table_no)
        FROM ROWS(?) AS k (table_no BIGINT)
        UNION ALL
        SELECT keys.table_no, (
            SELECT min(a.domain) FROM dl_domain_metadata a WHERE a.table_no = keys.table_no AND a.domain > keys.name
        ) FROM keys WHERE keys.name IS NOT NULL
    )
    SELECT a.table_no, a.version, {columns(records.DOMAIN, "a")} FROM keys CROSS JOIN dl_domain_metadata a
    WHERE a.table_no = keys.table_no AND a.domain = keys.name AND a.version = (
        SELECT max(x.version) FROM dl_domain_metadata x WHERE x.table_no = keys.table_no AND x.domain = keys.name
    )
"""


def load_directory(database: Database, state: State) -> None:
    """Enter every table into `state`, without heads, every mirror target and every transaction that is not complete."""
    _load_staged(database, state)
    for row in database.query(f"SELECT {columns(Target._fields, 't')} FROM dl_mirror_targets t"):
        state.targets[row[0]] = Target(*row)
    for row in database.query(f"SELECT {columns(_TABLE, 't')} FROM dl_tables t ORDER BY t.table_no"):
        table_no, table_id, name, location, status, created_seq, dropped_seq, first_version, slots = row
        state.add_table(
            TableState(
                table_no=table_no,
                table_id=table_id,
                name=name,
                location=location,
                state=status,
                created_seq=created_seq,
                dropped_seq=dropped_seq,
                first_version=first_version,
                slot_columns=msgspec.json.decode(slots, type=tuple[tuple[str, ...], ...]),
            )
        )


def _load_staged(database: Database, state: State) -> None:
    """Which transactions have chunks in SQL, and what is to become of them."""
    rows = database.query(_STAGED)
    decided = {
        txn_id
        for (txn_id,) in database.query(
            "SELECT txn_id FROM dl_transactions WHERE txn_id = ANY(?)", [[row[0] for row in rows]]
        )
    }
    for txn_id, newest_ms, client_id, size, missing, heads in rows:
        if txn_id in decided:
            state.left[txn_id] = None
            continue
        state.incomplete.staged(txn_id, newest_ms, client_id, int(size))
        if heads:
            state.big.add(txn_id)
        if not missing:
            state.incomplete.completed(txn_id)
            state.complete[txn_id] = None


def load(database: Database, needs: Needs, state: State) -> None:
    """Load what `needs` names and `state` has not got. What staged chunks name is added to `needs`."""
    if needs.chunked or needs.ended:
        _load_chunks(database, needs, state)
    wanted = [
        (table, of_table)
        for (table_id, name), of_table in needs.tables.items()
        if (table := state.table(name=name, table_id=table_id)) is not None
    ]
    _load_heads(database, [table for table, _ in wanted if not table.loaded])
    for table, _ in wanted:
        state.touch(table)
    apps = _load_apps(database, needs.apps, state)
    _load_decided(database, needs.txn_ids | apps, state)
    _load_files(database, wanted)
    load_winners(database, wanted, state.rules.read_distance)
    _load_past_metadata(database, wanted)
    _load_txns(database, wanted)


def _load_chunks(database: Database, needs: Needs, state: State) -> None:
    """What is staged of the transactions that come in chunks. The contents of a transaction's chunks, and what they
    name, only where the batch may complete it and it is not big: until then nobody looks at them."""
    named = needs.chunked.keys() | needs.ended
    for txn_id in state.chunks.keys() & named:
        state.chunks[txn_id] = state.chunks.pop(txn_id)  # the newest is kept longest
    unknown = [txn_id for txn_id in named if txn_id not in state.chunks and _stored(txn_id)]
    rows = (
        []
        if not unknown
        else database.query(
            "SELECT c.txn_id, c.chunk_index, c.chunk_count, c.digest, c.chunk_digest, c.size, c.position, c.client_id, "
            "c.outcome_partition, c.head "
            "FROM dl_staged_chunks c WHERE c.txn_id = ANY(?)",
            [unknown],
        )
    )
    for txn_id, *fields in rows:
        index, count, digest, chunk_digest, size, position, client_id, partition, head = fields
        chunk = StagedChunk(
            index=index,
            count=count,
            digest=digest,
            chunk_digest=chunk_digest,
            size=size,
            position=position,
            client_id=client_id,
            outcome_partition=partition,
            content=None,
            head=head,
        )
        state.chunks.setdefault(txn_id, StagedChunks()).put(chunk)
    for txn_id, events in needs.chunked.items():
        chunks = state.chunks.get(txn_id) or StagedChunks()
        count = events[0].envelope.chunk_count if events else 0
        if txn_id in state.big or state.rules.is_big(count):
            # As a rule each says no more than which table its files are of, as many others do.
            for head in chunks.heads:
                add_content(needs, decode_content(head))
            for event in events:
                add_content(needs, head_of(event.content))
        elif events and len(chunks) + len(events) >= count:
            load_contents(database, txn_id, state)
            for chunk in chunks.values():
                add_content(needs, decode_content(chunk.content or b""))
            for event in events:
                add_content(needs, event.content)


def load_contents(database: Database, txn_id: str, state: State) -> None:
    """Load the contents of a transaction's staged chunks."""
    chunks = state.chunks.get(txn_id)
    if chunks is None:
        return
    rows = database.query("SELECT c.chunk_index, c.content FROM dl_staged_chunks c WHERE c.txn_id = ?", [txn_id])
    for index, content in rows:
        chunks.fill(index, content=content)


def load_parts(database: Database, txn_id: str, state: State) -> None:
    """Load what was found out about the files of a big transaction's staged chunks."""
    rows = database.query("SELECT c.chunk_index, c.parts FROM dl_staged_chunks c WHERE c.txn_id = ?", [txn_id])
    for index, parts in rows:
        if parts is not None:
            state.chunks[txn_id].fill(index, parts=msgspec.json.decode(parts, type=tuple[ChunkPart, ...]))


def _load_heads(database: Database, tables: Sequence[TableState]) -> None:
    if not tables:
        return
    by_number = {table.table_no: table for table in tables}
    numbers = list(by_number)
    for row in database.query(
        f"SELECT {columns(_HEAD, 'h')} FROM dl_table_heads h WHERE h.table_no = ANY(?)", [numbers]
    ):
        table = by_number[row[0]]
        (_, table.version, table.time_ms, table.metadata_version, table.protocol_version, *counts) = row
        table.live_files, table.live_bytes, *widths = counts
        width1, width2, width3, width4 = widths
        table.widths = (width1, width2, width3, width4)
    importing = [table.table_no for table in tables if table.state == "IMPORTING"]
    if importing:
        _load_under_way(database, importing, by_number)
    for table_no, *fields in _definitions(database, records.METADATA, "dl_metadata_updates", tables):
        table = by_number[table_no]
        table.metadata = records.metadata(fields)
        table.schema = parse_schema(table.metadata.schema_string)
    for table_no, *fields in _definitions(database, records.PROTOCOL, "dl_protocol_updates", tables):
        by_number[table_no].protocol = records.protocol(fields)
    for table_no, version, *domain in database.query(_DOMAINS, [[(number,) for number in numbers]]):
        table, in_force = by_number[table_no], records.domain(domain)
        if not in_force.removed and version >= table.first_version:
            table.domains[in_force.domain] = in_force
    for table in tables:
        table.loaded = True


def _load_under_way(database: Database, numbers: Sequence[int], tables: Mapping[int, TableState]) -> None:
    """Where a version is imported by half, the table's next event goes on from that half."""
    rows = database.query("SELECT i.table_no, i.progress FROM dl_imports i WHERE i.table_no = ANY(?)", [numbers])
    for table_no, progress in rows:
        table, way = tables[table_no], msgspec.json.decode(progress, type=UnderWay)
        table.under_way = way
        if way.kind != "HISTORY":
            table.metadata_version = way.version if way.metadata else table.metadata_version
            table.protocol_version = way.version if way.protocol else table.protocol_version
        table.live_files, table.live_bytes, table.widths = way.live_files, way.live_bytes, way.widths


def _definitions(
    database: Database, names: Sequence[str], source: str, tables: Sequence[TableState]
) -> list[tuple[Any, ...]]:
    """The rows of `source` that hold for `tables`."""
    metadata = source == "dl_metadata_updates"
    keys = [(t.table_no, t.metadata_version if metadata else t.protocol_version) for t in tables]
    return database.query(
        f"SELECT a.table_no, {columns(names, 'a')} FROM ROWS(?) AS k (table_no BIGINT, version BIGINT) "
        f"CROSS JOIN {source} a WHERE a.table_no = k.table_no AND a.version = k.version",
        [keys],
    )


def _load_apps(database: Database, named: dict[str, set[int]], state: State) -> set[str]:
    """The first committed version at or above each one named; the transactions they were committed by."""
    if not named:
        return set()
    rows = database.query(
        "SELECT a.app_id, a.app_version, a.txn_id FROM ROWS(?) AS k (app_id TEXT, app_version BIGINT) "
        "CROSS JOIN dl_app_transactions a WHERE a.app_id = k.app_id AND a.app_version = ("
        "SELECT min(x.app_version) FROM dl_app_transactions x "
        "WHERE x.app_id = k.app_id AND x.app_version >= k.app_version)",
        [[(app_id, version) for app_id, versions in named.items() if _stored(app_id) for version in versions]],
    )
    for app_id, app_version, txn_id in rows:
        state.apps.setdefault(app_id, {})[app_version] = txn_id
    return {txn_id for _, _, txn_id in rows}


def _load_decided(database: Database, txn_ids: Iterable[str], state: State) -> None:
    rows = database.query(
        "SELECT txn_id, digest, outcome FROM dl_transactions WHERE txn_id = ANY(?)",
        [[txn_id for txn_id in txn_ids if _stored(txn_id)]],
    )
    for txn_id, digest, outcome in rows:
        state.decided[txn_id] = Decided(
            txn_id=txn_id, digest=digest, outcome=msgspec.json.decode(outcome, type=Outcome)
        )


def _load_files(database: Database, wanted: Sequence[tuple[TableState, TableNeeds]]) -> None:
    paths = [(table.table_no, path) for table, of_table in wanted for path in of_table.paths if _stored(path)]
    canonical = [
        (table.table_no, path) for table, of_table in wanted for path in of_table.canonical_paths if _stored(path)
    ]
    rows: list[Row] = []
    for column, keys in (("path", paths), ("canonical_path", canonical)):
        if keys:
            rows += database.query(
                f"SELECT {columns(_FILE, 'f')} FROM ROWS(?) AS k (table_no BIGINT, path TEXT) CROSS JOIN dl_live_files f "
                f"WHERE f.{column} = k.path AND f.table_no = k.table_no",
                [keys],
            )
    # Not joined above: many files have few distinct values.
    partitions = _partitions(database, {(row[0], row[1]) for row in rows})
    tables = {table.table_no: table for table, _ in wanted}
    for table_no, partition_no, path, canonical_path, dv_id, *row in rows:
        table = tables[table_no]
        version, n, size, row_id, commit_version, tags = row
        table.files[path, dv_id] = LiveFile(
            version, n, size, partitions[table_no, partition_no], row_id, commit_version, tags
        )
        table.vectors.setdefault(path, set()).add(dv_id)
        if canonical_path is not None:
            table.spellings.setdefault(canonical_path, set()).add(path)


def _partitions(database: Database, numbers: set[tuple[int, int]]) -> dict[tuple[int, int], dict[str, str | None]]:
    """Partition values by table_no and partition_no."""
    found: dict[tuple[int, int], dict[str, str | None]] = {key: {} for key in numbers}
    numbered = [key for key in numbers if key[1] != WITHOUT_PARTITIONS]
    if numbered:
        rows = database.query(
            "SELECT p.table_no, p.partition_no, p.partition_values "
            "FROM ROWS(?) AS k (table_no BIGINT, partition_no BIGINT) CROSS JOIN dl_partitions p "
            "WHERE p.table_no = k.table_no AND p.partition_no = k.partition_no",
            [numbered],
        )
        found.update({(table_no, number): records.partition_values(text) for table_no, number, text in rows})
    return found


def _load_past_metadata(database: Database, wanted: Sequence[tuple[TableState, TableNeeds]]) -> None:
    keys = [
        (table.table_no, version)
        for table, of_table in wanted
        for version in of_table.metadata_versions
        if table.loaded and table.first_version <= version != table.metadata_version
    ]
    if not keys:
        return
    tables = {table.table_no: table for table, _ in wanted}
    rows = database.query(
        f"SELECT m.table_no, m.version, {columns(records.METADATA, 'm')} "
        "FROM ROWS(?) AS k (table_no BIGINT, version BIGINT) "
        "CROSS JOIN dl_metadata_updates m WHERE m.table_no = k.table_no AND m.version = k.version",
        [keys],
    )
    for table_no, version, *metadata in rows:
        tables[table_no].past_metadata[version] = records.metadata(metadata)


def _load_txns(database: Database, wanted: Sequence[tuple[TableState, TableNeeds]]) -> None:
    keys = [(table.table_no, app_id) for table, of_table in wanted for app_id in of_table.app_ids if _stored(app_id)]
    if not keys:
        return
    tables = {table.table_no: table for table, _ in wanted}
    rows = database.query(
        f"SELECT a.table_no, a.version, {columns(records.TXN, 'a')} FROM ROWS(?) AS k (table_no BIGINT, app_id TEXT) "
        "CROSS JOIN dl_txn_actions a WHERE a.table_no = k.table_no AND a.app_id = k.app_id AND a.version = ("
        "SELECT max(x.version) FROM dl_txn_actions x WHERE x.table_no = k.table_no AND x.app_id = k.app_id)",
        [keys],
    )
    for table_no, version, *fields in rows:
        table, txn = tables[table_no], records.txn(fields)
        way = table.under_way
        if version >= table.first_version or (way is not None and version == way.version):
            table.txns[txn.app_id] = TableTxn(version, txn)


def _stored(key: str) -> bool:
    """Whether there can be a row of that key. Nothing is validated yet, and Postgres takes no NUL in a text, not even
    to say that there is none."""
    return "\0" not in key
