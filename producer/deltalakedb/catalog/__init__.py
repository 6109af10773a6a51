"""Reading a lake's SQL metadata: tables, snapshots, files, whole versions, outcomes, mirror status. Never writes."""

from __future__ import annotations

from .catalog import Catalog
from .files import FILE_COLUMNS, TOMBSTONE_COLUMNS, PartitionFilter, file_schema, tombstone_schema
from .imports import ImportedTable, TablePlace
from .lifetimes import FileKey
from .missing import no_table
from .values import (
    IN_PLACE,
    CommitPoint,
    LakeInfo,
    MirrorProgress,
    MirrorStatus,
    MirrorTarget,
    SlotRange,
    TableInfo,
    VersionActions,
    VersionRow,
)
from .versions import Range

__all__ = [
    "FILE_COLUMNS",
    "IN_PLACE",
    "TOMBSTONE_COLUMNS",
    "Catalog",
    "CommitPoint",
    "FileKey",
    "ImportedTable",
    "LakeInfo",
    "MirrorProgress",
    "MirrorStatus",
    "MirrorTarget",
    "PartitionFilter",
    "Range",
    "SlotRange",
    "TableInfo",
    "TablePlace",
    "VersionActions",
    "VersionRow",
    "file_schema",
    "no_table",
    "tombstone_schema",
]
