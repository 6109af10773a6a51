"""Fills a `State` from SQL: the directory once per epoch, and per batch what `needs` names, one query per kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from deltalakedb.catalog import records
from deltalakedb.catalog.records import columns
from deltalakedb.codec import decode_content
from deltalakedb.database import Database
from deltalakedb.delta_types import parse_schema
from deltalakedb.events import Outcome

from .needs import Needs, TableNeeds, add_content
from .state import Decided, LiveFile, StagedChunk, State, TableState, TableTxn
from .winners import load_winners

_TABLE = ("table_no", "table_id", "name", "location", "state", "dropped_seq", "slot_columns")
_HEAD = (
    *("table_no", "version", "time_ms", "metadata_version", "protocol_version", "live_files", "live_bytes"),
    *("width1", "width2", "width3", "width4"),
)
_FILE = ("table_no", "path", "dv_id", "version", "n", "size", "base_row_id", "default_row_commit_version", "tags")

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
    SELECT a.table_no, {columns(records.DOMAIN, "a")} FROM keys CROSS JOIN dl_domain_metadata a
    WHERE a.table_no = keys.table_no AND a.domain = keys.name AND a.version = (
        SELECT max(x.version) FROM dl_domain_metadata x WHERE x.table_no = keys.table_no AND x.domain = keys.name
    )
"""


def load_directory(database: Database, state: State) -> None:
    """Enter every table into `state`, without heads."""
    for row in database.query(f"SELECT {columns(_TABLE, 't')} FROM dl_tables t ORDER BY t.table_no"):
        table_no, table_id, name, location, status, dropped_seq, slots = row
        state.add_table(
            TableState(
                table_no=table_no,
                table_id=table_id,
                name=name,
                location=location,
                state=status,
                dropped_seq=dropped_seq,
                slot_columns=msgspec.json.decode(slots, type=tuple[tuple[str, ...], ...]),
            )
        )


def load(database: Database, needs: Needs, state: State) -> None:
    """Load what `needs` names and `state` has not got. What staged chunks name is added to `needs`."""
    if needs.chunked:
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
    rows = database.query(
        "SELECT txn_id, chunk_index, chunk_count, digest, chunk_digest, content FROM dl_staged_chunks "
        "WHERE txn_id = ANY(?)",
        [[txn_id for txn_id in needs.chunked if _stored(txn_id)]],
    )
    for txn_id, *fields in rows:
        index, count, digest, chunk_digest, content = fields
        state.chunks.setdefault(txn_id, {})[index] = StagedChunk(
            index=index, count=count, digest=digest, chunk_digest=chunk_digest, content=content
        )
        add_content(needs, decode_content(content))


def _load_heads(database: Database, tables: Sequence[TableState]) -> None:
    if not tables:
        return
    by_number = {table.table_no: table for table in tables}
    rows = database.query(
        f"SELECT {columns(_HEAD, 'h')}, {columns(records.METADATA, 'm')}, {columns(records.PROTOCOL, 'p')} "
        "FROM dl_table_heads h "
        "JOIN dl_metadata_updates m ON m.table_no = h.table_no AND m.version = h.metadata_version "
        "JOIN dl_protocol_updates p ON p.table_no = h.table_no AND p.version = h.protocol_version "
        "WHERE h.table_no = ANY(?)",
        [list(by_number)],
    )
    for row in rows:
        head, actions = row[: len(_HEAD)], row[len(_HEAD) :]
        table = by_number[head[0]]
        (_, table.version, table.time_ms, table.metadata_version, table.protocol_version, *counts) = head
        table.live_files, table.live_bytes, *widths = counts
        width1, width2, width3, width4 = widths
        table.widths = (width1, width2, width3, width4)
        table.metadata = records.metadata(actions[: len(records.METADATA)])
        table.schema = parse_schema(table.metadata.schema_string)
        table.protocol = records.protocol(actions[len(records.METADATA) :])
        table.loaded = True
    for table_no, *domain in database.query(_DOMAINS, [[(number,) for number in by_number]]):
        in_force = records.domain(domain)
        if not in_force.removed:
            by_number[table_no].domains[in_force.domain] = in_force


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
    keys = [(table.table_no, path) for table, of_table in wanted for path in of_table.paths if _stored(path)]
    if not keys:
        return
    tables = {table.table_no: table for table, _ in wanted}
    rows = database.query(
        f"SELECT {columns(_FILE, 'f')}, p.partition_values FROM ROWS(?) AS k (table_no BIGINT, path TEXT) "
        "CROSS JOIN dl_live_files f "
        "LEFT JOIN dl_partitions p ON p.table_no = f.table_no AND p.partition_no = f.partition_no "
        "WHERE f.path = k.path AND f.table_no = k.table_no",
        [keys],
    )
    for table_no, path, dv_id, version, n, size, row_id, commit_version, tags, partition in rows:
        table = tables[table_no]
        table.files[path, dv_id] = LiveFile(
            version=version,
            n=n,
            size=size,
            partition_values=records.partition_values(partition or "{}"),
            base_row_id=row_id,
            default_row_commit_version=commit_version,
            tags=tags,
        )
        table.vectors.setdefault(path, set()).add(dv_id)


def _load_past_metadata(database: Database, wanted: Sequence[tuple[TableState, TableNeeds]]) -> None:
    keys = [
        (table.table_no, version)
        for table, of_table in wanted
        for version in of_table.metadata_versions
        if table.loaded and version != table.metadata_version
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
        txn = records.txn(fields)
        tables[table_no].txns[txn.app_id] = TableTxn(version, txn)


def _stored(key: str) -> bool:
    """Whether there can be a row of that key. Nothing is validated yet, and Postgres takes no NUL in a text, not even
    to say that there is none."""
    return "\0" not in key
