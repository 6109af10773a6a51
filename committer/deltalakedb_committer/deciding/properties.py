"""Table properties: which of Delta's own have a value that can be right, and which only the committer sets."""

from __future__ import annotations

import re

from deltalakedb.errors import Reason

from .facts import ISOLATION_LEVEL, LEVELS
from .features import BOOLEAN_PROPERTIES, FEATURE_PREFIX, MAPPING_MODE
from .refusal import Refused, shown
from .rules import Rules

SYSTEM_PROPERTIES = (
    "delta.columnMapping.maxColumnId",
    "delta.inCommitTimestampEnablement",
    "delta.rowTracking.",
    "delta.rowTrackingSuspended",
    "delta.minReaderVersion",
    "delta.minWriterVersion",
)
"""Beginnings of the names that only the committer sets."""

_POSITIVE = re.compile(r"[1-9][0-9]{0,8}")
_VALUES = {
    ISOLATION_LEVEL: (frozenset(LEVELS), ", ".join(LEVELS)),
    MAPPING_MODE: (frozenset({"none", "name", "id"}), "none, name or id"),
    "delta.checkpointPolicy": (frozenset({"classic", "v2"}), "classic or v2"),
}


def check_property(name: str, value: str, table: str, rules: Rules) -> None:
    """Check size and value of one property. Raises `Refused`."""
    if not name or len(name.encode()) + len(value.encode()) > rules.max_property_bytes:
        raise Refused(
            Reason.LIMIT_EXCEEDED,
            f"property {shown(name)}: name and value have {rules.max_property_bytes} bytes at most",
            table=table,
        )
    wanted = _wanted(name, value)
    if wanted is not None:
        raise Refused(Reason.INVALID_ACTION, f"property {name} is {wanted}, not {shown(value)}", table=table)


def is_system(name: str) -> bool:
    """Whether only the committer sets this property."""
    return name.startswith(SYSTEM_PROPERTIES)


def _wanted(name: str, value: str) -> str | None:
    if name in BOOLEAN_PROPERTIES:
        return None if value in ("true", "false") else "true or false"
    if name in _VALUES:
        allowed, text = _VALUES[name]
        return None if value in allowed else text
    if name == "delta.checkpointInterval":
        return None if _POSITIVE.fullmatch(value) else "a positive number of versions"
    if name.startswith(FEATURE_PREFIX):
        return None if value == "supported" else "supported"
    return None
