"""The numbered rule sets: every limit and allow-list that a decision depends on.

A set is never changed once released: what a number means is part of every decision made under it. Another set takes
over with a control event, at its place in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from deltalakedb.errors import TxnLogHaltedError
from deltalakedb.eventlog.port import MAX_RECORD_BYTES
from deltalakedb.features import FENCE_FEATURE

MAX_STAGED_BYTES = 64 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One rule set. Sizes are bytes of UTF-8; what paths may be is the same in all of them, see `deltalakedb.paths`."""

    number: int

    max_event_bytes: int = MAX_RECORD_BYTES
    """Of a record, whatever it is."""
    max_tables: int = 10
    max_actions: int = 1_000_000
    max_chunks: int = 4_096
    max_chunk_bytes: int = 900_000
    max_transaction_bytes: int = 2 * 1024**3
    whole_chunks: int = 8
    """A transaction in more chunks than this is big: its adds and removes are checked and kept as rows while they come."""
    max_head_bytes: int = 32 * 1024**2
    """Of a big transaction all that is neither add nor remove, encoded: it is decided from memory."""
    max_apps: int = 100
    max_read_files: int = 1_000_000
    max_predicate_terms: int = 10_000
    max_comparisons: int = 2_000_000
    """Terms and literals of read predicates, times the different partitions that winners wrote to: a second or two."""
    max_intents: int = 300
    """Each goes through a table's whole schema."""

    max_imported_path_bytes: int = 8_192
    """Of an imported version, as are the next two."""
    max_imported_key_bytes: int = 1_024
    max_import_chunks: int = 65_536
    max_stats_bytes: int = 64 * 1024
    max_rest_bytes: int = 64 * 1024
    """Of the further fields of an action, and of an action of a kind of its own but `metaData`."""
    max_json_depth: int = 64
    max_schema_bytes: int = 4 * 1024**2
    max_properties: int = 1_000
    max_property_bytes: int = 8 * 1024
    max_partition_columns: int = 64
    max_partition_value_bytes: int = 4 * 1024
    max_text_bytes: int = 64 * 1024
    """Of texts that are only kept: user metadata, and operation parameters and metrics together."""
    max_name_bytes: int = 255
    """Of short names: application ids, client ids, engine, operation."""

    max_open_per_client: int = 256
    """Transactions of which some chunks are staged and others missing: twice as many as a client has under way."""
    max_open: int = 10_000
    """Of all clients together."""
    max_staged_bytes_per_client: int = 8 * 1024**3
    """Of the chunks of such transactions."""
    max_staged_bytes: int = MAX_STAGED_BYTES
    expire_ms: int = 3_600_000
    """How long after its newest chunk an incomplete transaction is given up."""
    max_expired: int = 1_000
    """How many of them by one tick."""
    fold_window_ms: int = 0
    """Blind appends whose log times lie this close together share one commit; 0: each has its own."""
    max_fold_transactions: int = 1_000
    max_fold_bytes: int = 4 * 1024**2
    """Of the records that are folded."""
    read_distance: int = 10_000
    """How many versions back a read version may lie that has to be checked against every winner since."""
    outcome_partitions: int = 8
    """Outcome partitions that are answered to; an event that names another one is decided and answered nowhere."""

    def is_big(self, chunk_count: int) -> bool:
        """Whether a transaction in so many chunks is."""
        return chunk_count > self.whole_chunks

    reader_features: frozenset[str] = frozenset(
        {
            *("columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "variantType"),
            "vacuumProtocolCheck",
        }
    )
    """Reader-writer features whose tables the committer writes."""
    writer_features: frozenset[str] = frozenset(
        {
            "allowColumnDefaults",
            "appendOnly",
            "changeDataFeed",
            "checkConstraints",
            "domainMetadata",
            "generatedColumns",
            "identityColumns",
            "inCommitTimestamp",
            "invariants",
            "rowTracking",
            FENCE_FEATURE,
        }
    )
    """Writer-only features whose tables the committer writes. Expressions are not evaluated: where a table really has
    a constraint, an invariant, a default, a generated or an identity column, it is read-only all the same."""


WINDOWS_MS = (0, 20, 50, 200)
TABLES = (10, 100)
OPEN_PER_CLIENT = (256, 2_500)

RULES = {
    number: Rules(
        number=number,
        fold_window_ms=window,
        max_tables=tables,
        max_open_per_client=transactions,
        max_staged_bytes_per_client=min(transactions * 32 * 1024**2, MAX_STAGED_BYTES),
    )
    for number, (transactions, window, tables) in enumerate(product(OPEN_PER_CLIENT, WINDOWS_MS, TABLES), 1)
}
"""Every rule set of this release, by number."""


def rules(number: int) -> Rules:
    """The rule set of that number.

    Raises `TxnLogHaltedError` (`UNKNOWN_RULE_SET`) if this release does not know it: to decide by other rules than the
    release that does would give another history.
    """
    found = RULES.get(number)
    if found is None:
        raise TxnLogHaltedError(
            "UNKNOWN_RULE_SET",
            f"the lake is under rule set {number}, and this release knows {', '.join(map(str, RULES))}: "
            "run the release that the rule set came with, or a newer one",
        )
    return found
