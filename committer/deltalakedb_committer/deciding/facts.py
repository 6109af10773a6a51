"""What a table's metadata and protocol mean for a decision, worked out once per metadata, protocol and rule set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from deltalakedb.actions import Metadata, Protocol
from deltalakedb.delta_types import DataType, StructType, parse_schema
from deltalakedb.features import listed
from deltalakedb.slots import SlotReader

from .features import MAPPING_MODE, unwritable
from .read_predicates import PartitionColumn
from .rules import Rules

parsed_schema = lru_cache(maxsize=256)(parse_schema)
"""`parse_schema`, remembered: the same few schemas come with every first append and every late writer."""

SERIALIZABLE = "Serializable"
WRITE_SERIALIZABLE = "WriteSerializable"
SNAPSHOT_ISOLATION = "SnapshotIsolation"
LEVELS = (SNAPSHOT_ISOLATION, WRITE_SERIALIZABLE, SERIALIZABLE)
"""Isolation levels, weakest first."""
ISOLATION_LEVEL = "delta.isolationLevel"


class TableFacts:
    """Derived from one metadata and one protocol; never changed."""

    __slots__ = (
        "append_only",
        "change_data",
        "features",
        "isolation",
        "mapped",
        "metadata",
        "partition_columns",
        "partition_names",
        "partitioning",
        "protocol",
        "row_tracking",
        "rules",
        "schema",
        "slots",
        "unwritable",
        "vectors",
    )

    def __init__(
        self,
        metadata: Metadata,
        schema: StructType,
        protocol: Protocol,
        slot_columns: Sequence[tuple[str, ...]],
        rules: Rules,
    ) -> None:
        configuration = metadata.configuration
        self.metadata = metadata
        self.schema = schema
        self.protocol = protocol
        self.rules = rules
        self.features = listed(protocol)
        self.unwritable = unwritable(self.features, schema, configuration, rules)
        self.append_only = _is_true(configuration, "delta.appendOnly")
        self.change_data = _is_true(configuration, "delta.enableChangeDataFeed")
        self.vectors = "deletionVectors" in self.features and _is_true(configuration, "delta.enableDeletionVectors")
        self.row_tracking = "rowTracking" in self.features and not _is_true(configuration, "delta.rowTrackingSuspended")
        level = configuration.get(ISOLATION_LEVEL)
        # Delta's own default, also for a value that is none: nobody gets less than was asked for.
        self.isolation = level if level in LEVELS else SERIALIZABLE
        self.mapped = is_mapped(metadata)
        self.partition_columns: dict[str, tuple[DataType, bool]] = {}
        """Type and nullability by the name that keys partition values (physical under column mapping)."""
        self.partitioning: dict[str, PartitionColumn] = {}
        """The same columns by their names in the schema, which predicates use."""
        for name in metadata.partition_columns:
            column = schema.field(name)
            if column is not None:
                key = column.physical_name if self.mapped else name
                self.partition_columns[key] = (column.type, column.nullable)
                self.partitioning[name] = PartitionColumn(key, column.type)
        self.partition_names = (*metadata.partition_columns, *self.partition_columns)
        """Every name that a folder `<column>=...` may have."""
        self.slots = SlotReader(schema, slot_columns)


def is_mapped(metadata: Metadata) -> bool:
    """Whether column mapping is on."""
    return metadata.configuration.get(MAPPING_MODE, "none") != "none"


def _is_true(configuration: Mapping[str, str], name: str) -> bool:
    return configuration.get(name, "").lower() == "true"
