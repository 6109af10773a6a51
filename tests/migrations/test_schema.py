"""Schema conformance: every field of every Delta action has a column, and all stores have the same ones."""

from __future__ import annotations

from typing import Any

import pytest

from deltalakedb.database import Database, StoreAddress, open_database
from deltalakedb.errors import TxnLogDatabaseError
from tests.stores import ENGINES, address, database, migrated

__all__ = ["address", "database"]

_VECTOR = {
    "deletionVector.storageType": "dv_storage_type TEXT",
    "deletionVector.pathOrInlineDv": "dv_path TEXT",
    "deletionVector.offset": "dv_offset INT",
    "deletionVector.sizeInBytes": "dv_size INT",
    "deletionVector.cardinality": "dv_cardinality LONG",
    "deletionVector.maxRowIndex": "dv_max_row_index LONG",
}
_ADD = {
    "path": "path TEXT NOT NULL",
    "partitionValues": "partition_no LONG NOT NULL",
    "size": "size LONG NOT NULL",
    "modificationTime": "modification_time LONG NOT NULL",
    "dataChange": "data_change BOOLEAN NOT NULL",
    "stats": "stats TEXT",
    "tags": "tags TEXT",
    **_VECTOR,
    "baseRowId": "base_row_id LONG",
    "defaultRowCommitVersion": "default_row_commit_version LONG",
    "clusteringProvider": "clustering_provider TEXT",
}
ACTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "add (live)": ("dl_live_files", _ADD),
    "add (past)": ("dl_past_files", {**_ADD, "(removed by)": "removed_version LONG NOT NULL"}),
    "partitionValues of add": ("dl_partitions", {"partitionValues": "partition_values TEXT NOT NULL"}),
    "remove": (
        "dl_remove_files",
        {
            "path": "path TEXT NOT NULL",
            "deletionTimestamp": "deletion_timestamp LONG",
            "dataChange": "data_change BOOLEAN NOT NULL DEFAULT TRUE",
            "extendedFileMetadata": "extended_file_metadata BOOLEAN",
            "partitionValues": "partition_values TEXT",
            "size": "size LONG",
            "stats": "stats TEXT",
            "tags": "tags TEXT",
            **_VECTOR,
            "baseRowId": "base_row_id LONG",
            "defaultRowCommitVersion": "default_row_commit_version LONG",
        },
    ),
    "cdc": (
        "dl_cdc_files",
        {
            "path": "path TEXT NOT NULL",
            "partitionValues": "partition_values TEXT NOT NULL",
            "size": "size LONG NOT NULL",
            "dataChange": "data_change BOOLEAN NOT NULL DEFAULT FALSE",
            "tags": "tags TEXT",
        },
    ),
    "metaData": (
        "dl_metadata_updates",
        {
            "id": "metadata_id TEXT NOT NULL",
            "name": "name TEXT",
            "description": "description TEXT",
            "format.provider": "format_provider TEXT NOT NULL",
            "format.options": "format_options TEXT NOT NULL",
            "schemaString": "schema_string TEXT NOT NULL",
            "partitionColumns": "partition_columns TEXT NOT NULL",
            "configuration": "configuration TEXT NOT NULL",
            "createdTime": "created_time LONG",
        },
    ),
    "protocol": (
        "dl_protocol_updates",
        {
            "minReaderVersion": "min_reader_version INT NOT NULL",
            "minWriterVersion": "min_writer_version INT NOT NULL",
            "readerFeatures": "reader_features TEXT",
            "writerFeatures": "writer_features TEXT",
        },
    ),
    "txn": (
        "dl_txn_actions",
        {
            "appId": "app_id TEXT NOT NULL",
            "version": "app_version LONG NOT NULL",
            "lastUpdated": "last_updated LONG",
        },
    ),
    "domainMetadata": (
        "dl_domain_metadata",
        {
            "domain": "domain TEXT NOT NULL",
            "configuration": "configuration TEXT NOT NULL",
            "removed": "removed BOOLEAN NOT NULL",
        },
    ),
    "commitInfo": (
        "dl_table_versions",
        {
            "timestamp, inCommitTimestamp": "time_ms LONG NOT NULL",
            "operation": "operation TEXT",
            "operationParameters": "operation_parameters TEXT",
            "operationMetrics": "operation_metrics TEXT",
            "readVersion": "read_version LONG",
            "isolationLevel": "isolation_level TEXT",
            "isBlindAppend": "is_blind_append BOOLEAN",
            "userMetadata": "user_metadata TEXT",
            "engineInfo": "engine_info TEXT",
            "tags": "tags TEXT",
            "txnId": "txn_id TEXT",
            "(any other field)": "commit_info TEXT",
        },
    ),
    "(any other action)": ("dl_other_actions", {"(kind)": "kind TEXT NOT NULL", "(body)": "body TEXT NOT NULL"}),
}
"""Per action of the protocol its table, and per field its column: name, type, whether it may be missing, default."""

WITH_EXTRA = (
    *("dl_live_files", "dl_past_files", "dl_remove_files", "dl_cdc_files", "dl_metadata_updates"),
    *("dl_protocol_updates", "dl_txn_actions", "dl_domain_metadata"),
)
TABLES = {
    *("dl_lake", "dl_committer_position", "dl_committer_heartbeat", "dl_tables", "dl_table_heads", "dl_commits"),
    *("dl_transactions", "dl_app_transactions", "dl_table_versions", "dl_partitions", "dl_live_files", "dl_past_files"),
    *("dl_remove_files", "dl_cdc_files", "dl_metadata_updates", "dl_protocol_updates", "dl_txn_actions"),
    *("dl_domain_metadata", "dl_other_actions", "dl_staged_chunks", "dl_outbox", "dl_mirror_targets"),
    *("dl_committer_attempts", "dl_isolated_events", "dl_staged_files"),
    *("dl_imports", "dl_mirror_status", "dl_migrations"),
}

_TYPES = {
    "bigint": "LONG",
    "integer": "INT",
    "text": "TEXT",
    "varchar": "TEXT",
    "boolean": "BOOLEAN",
    "bytea": "BYTES",
    "blob": "BYTES",
}
_DEFAULTS = {"true": "TRUE", "false": "FALSE", "cast('t' as boolean)": "TRUE", "cast('f' as boolean)": "FALSE"}


def columns_of(database: Database, table: str) -> dict[str, str]:
    """Per column its type, whether it may be missing and its default, in words that all engines share."""
    if database.dialect == "sqlite":
        rows = database.query('SELECT name, type, "notnull" OR pk > 0, dflt_value FROM pragma_table_info(?)', [table])
    else:
        rows = database.query(
            "SELECT column_name, data_type, is_nullable = 'NO', column_default FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name = ? ORDER BY ordinal_position",
            [table],
        )
    return {
        name: _TYPES[kind.lower()]
        + (" NOT NULL" if needed else "")
        + (f" DEFAULT {_DEFAULTS[default.lower()]}" if default else "")
        for name, kind, needed, default in rows
    }


def words_of(words: str, dialect: str) -> str:
    """How a store of this kind says it: the one integer type of SQLite has 64 bits, and is called INTEGER."""
    return words.replace("LONG", "INT") if dialect == "sqlite" else words


@pytest.mark.parametrize("action", ACTIONS)
def test_every_field_has_a_column(database: Database, action: str) -> None:
    """Nothing of an action is lost: each field of the protocol has a column of its own, typed and constrained."""
    table, fields = ACTIONS[action]
    found = columns_of(database, table)

    for field, words in fields.items():
        name, _, rest = words_of(words, database.dialect).partition(" ")
        assert found.get(name) == rest, f"{action}.{field}"


@pytest.mark.parametrize("table", WITH_EXTRA)
def test_fields_we_do_not_know_have_a_home(database: Database, table: str) -> None:
    """Whatever another writer put into an action is kept."""
    assert columns_of(database, table)["extra"] == "TEXT"


def test_adds_are_one_view(database: Database) -> None:
    """`dl_add_files` shows every add, live or past, with its partition values in words."""
    names = set(columns_of(database, "dl_live_files")) | {"removed_version", "partition_values"}
    found = database.query("SELECT * FROM dl_add_files")
    described = _view_columns(database)

    assert found == []
    assert described == names


def test_removes_change_data_unless_they_say_otherwise(database: Database) -> None:
    """`data_change` of a remove is TRUE by itself, and cannot be NULL."""
    database.execute("INSERT INTO dl_remove_files (table_no, version, n, path, dv_id) VALUES (1, 0, 0, 'a', '')")
    with pytest.raises(TxnLogDatabaseError, match=r"(?i)not.null"):
        database.execute(
            "INSERT INTO dl_remove_files (table_no, version, n, path, dv_id, data_change) VALUES (1, 0, 1, 'a', '', NULL)"
        )

    assert database.query("SELECT data_change FROM dl_remove_files") == [(True,)]


def test_all_stores_have_the_same_tables_and_columns(request: pytest.FixtureRequest) -> None:
    """The same names, in the same order, with the same constraints, on every engine."""
    found: dict[str, dict[str, Any]] = {}
    for name, make in ENGINES.items():
        database = migrated(make(request))
        found[name] = {table: columns_of(database, table) for table in sorted(_tables(database))}
        database.close()
    reference = found.pop("postgres")

    assert set(reference) == TABLES
    for dialect, tables in found.items():
        for table, columns in reference.items():
            assert list(tables[table]) == list(columns), table
            assert tables[table] == {name: words_of(words, dialect) for name, words in columns.items()}, table
        assert set(tables) == TABLES


def test_keys_are_enforced(database: Database) -> None:
    """One decision per id, one version per number, one file per place, one lake per store."""
    once = [
        "INSERT INTO dl_transactions (txn_id, position, time_ms, client_id, committed, outcome) "
        "VALUES ('t', 1, 1, 'c', TRUE, '{}')",
        "INSERT INTO dl_commits (commit_seq, position, time_ms, txn_ids) VALUES (1, 1, 1, '[]')",
        "INSERT INTO dl_app_transactions (app_id, app_version, txn_id) VALUES ('a', 1, 't')",
        "INSERT INTO dl_other_actions (table_no, version, n, kind, body) VALUES (1, 1, 1, 'k', '{}')",
        "INSERT INTO dl_lake (lake_id, root, log_address, created_ms, fence) VALUES ('l', 'r', 'a', 1, TRUE)",
        "INSERT INTO dl_tables (table_no, table_id, name, location, state, first_version, slot_columns) "
        "VALUES (1, 'i', 'n', 'l', 'ACTIVE', 0, '[]')",
    ]
    for statement in once:
        database.execute(statement)
        with pytest.raises(TxnLogDatabaseError, match=r"(?i)unique|duplicate key"):
            database.execute(statement)
    again = once[-1].replace("1, 'i', 'n', 'l'", "2, 'j', 'n', 'm'")
    with pytest.raises(TxnLogDatabaseError, match=r"(?i)unique|duplicate key"):
        database.execute(again)
    database.execute("UPDATE dl_tables SET state = 'DROPPED'")
    database.execute(again)
    with pytest.raises(TxnLogDatabaseError, match=r"(?i)unique|duplicate key"):
        database.execute(once[4].replace("'l'", "'another lake'"))

    assert database.query("SELECT count(*) FROM dl_tables") == [(2,)]


def _tables(database: Database) -> set[str]:
    if database.dialect == "sqlite":
        rows = database.query(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_' || ?", ["%"]
        )
    else:
        rows = database.query(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
        )
    return {name for (name,) in rows}


def _view_columns(database: Database) -> set[str]:
    if database.dialect == "sqlite":
        rows = database.query("SELECT name FROM pragma_table_info(?)", ["dl_add_files"])
    else:
        rows = database.query(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name = 'dl_add_files'"
        )
    return {name for (name,) in rows}


def test_opening_needs_no_migration_of_its_own(address: StoreAddress) -> None:
    """A store that is up to date opens without the right to change anything in its schema."""
    migrated(address).close()
    database = open_database(address)
    found = database.query("SELECT count(*) FROM dl_migrations")
    database.close()

    assert found == [(1,)]
