"""The SQL tables that the committer writes: which columns, in the order in which rows carry them."""

from __future__ import annotations

from deltalakedb_committer.deciding.isolation import IsolatedEvent
from deltalakedb_committer.deciding.state import Target

PARTITION_TEXT = "partition_values"
"""Stands in the rows of `dl_live_files` where the table has `partition_no`: a JSON object, keys in order of name."""

_VECTOR = ("dv_storage_type", "dv_path", "dv_offset", "dv_size", "dv_cardinality", "dv_max_row_index")

COLUMNS: dict[str, tuple[str, ...]] = {
    "dl_tables": (
        *("table_no", "table_id", "name", "location", "state", "created_seq", "dropped_seq"),
        *("first_version", "slot_columns"),
    ),
    "dl_table_heads": (
        *("table_no", "version", "commit_seq", "time_ms", "metadata_version", "protocol_version"),
        *("live_files", "live_bytes", "width1", "width2", "width3", "width4"),
    ),
    "dl_commits": ("commit_seq", "position", "time_ms", "txn_ids"),
    "dl_transactions": (
        *("txn_id", "position", "time_ms", "client_id", "digest", "committed", "commit_seq", "outcome"),
        *("claimed_txn_id", "event_hash"),
    ),
    "dl_app_transactions": ("app_id", "app_version", "txn_id"),
    "dl_table_versions": (
        *("table_no", "version", "commit_seq", "time_ms", "txn_id", "operation", "operation_parameters"),
        *("operation_metrics", "read_version", "isolation_level", "is_blind_append", "user_metadata"),
        *("engine_info", "tags", "commit_info", "render_version", "changes_data", "changes_metadata"),
        *("changes_protocol", "added_files", "added_bytes", "removed_files", "removed_bytes"),
        *("origin", "file_time_ms"),
    ),
    "dl_live_files": (
        *("table_no", "version", "n", "path", "dv_id", PARTITION_TEXT, "size", "modification_time"),
        *("data_change", "stats", "num_records", "tags", *_VECTOR),
        *("base_row_id", "default_row_commit_version", "clustering_provider", "extra", "canonical_path"),
        *("min1", "max1", "min2", "max2", "min3", "max3", "min4", "max4"),
    ),
    "dl_remove_files": (
        *("table_no", "version", "n", "path", "dv_id", "data_change", "deletion_timestamp"),
        *("extended_file_metadata", "partition_values", "size", "stats", "tags", *_VECTOR),
        *("base_row_id", "default_row_commit_version", "extra"),
    ),
    "dl_cdc_files": (
        *("table_no", "version", "n", "path", "partition_values", "size", "data_change", "tags", "extra"),
    ),
    "dl_metadata_updates": (
        *("table_no", "version", "metadata_id", "name", "description", "format_provider", "format_options"),
        *("schema_string", "partition_columns", "configuration", "created_time", "extra"),
    ),
    "dl_protocol_updates": (
        *("table_no", "version", "min_reader_version", "min_writer_version", "reader_features"),
        *("writer_features", "extra"),
    ),
    "dl_txn_actions": ("table_no", "version", "app_id", "app_version", "last_updated", "extra"),
    "dl_domain_metadata": ("table_no", "version", "domain", "configuration", "removed", "extra"),
    "dl_other_actions": ("table_no", "version", "n", "kind", "body"),
    "dl_isolated_events": IsolatedEvent._fields,
    "dl_staged_chunks": (
        *("txn_id", "chunk_index", "chunk_count", "digest", "chunk_digest", "position", "time_ms", "content"),
        *("size", "head", "parts", "client_id", "outcome_partition"),
    ),
    "dl_staged_files": (
        *("txn_id", "chunk_index", "work", "kind", "n", "path", "dv_id", PARTITION_TEXT, "size", "modification_time"),
        *("data_change", "stats", "num_records", "tags", *_VECTOR),
        *("base_row_id", "default_row_commit_version", "clustering_provider", "extra", "canonical_path"),
        *("min1", "max1", "min2", "max2", "min3", "max3", "min4", "max4"),
    ),
    "dl_imports": ("table_no", "version", "chunks", "chunk_count", "progress"),
    "dl_mirror_targets": Target._fields,
}
"""Columns that the committer writes, per SQL table, in the order in which rows carry them. Rows that are written over
have places of their own in a `Batch`, all others are in `Batch.inserts`."""
