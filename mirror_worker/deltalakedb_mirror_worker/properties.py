"""The table properties that a mirror honours, parsed. What cannot be understood counts as its default, with a warning."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TypeVar

from deltalakedb.actions import Protocol

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DAY_MS = 86_400_000
_UNIT_MS = {
    "millisecond": 1,
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": _DAY_MS,
    "week": 7 * _DAY_MS,
}
_LOG_RETENTION_DAYS = 30
_INDEXED = 32
_FOR_EVER = 2**63 - 1
_PART = re.compile(r"(\d+)\s+(millisecond|second|minute|hour|day|week)s?")
_INTERVAL = re.compile(rf"(interval\s+)?{_PART.pattern}(\s+{_PART.pattern})*")


def checkpoint_interval(configuration: Mapping[str, str]) -> int:
    """`delta.checkpointInterval`: versions from one checkpoint to the next, at least."""
    text = configuration.get("delta.checkpointInterval", "10")
    if text.strip().isdecimal() and int(text) > 0:
        return int(text)
    return _default("delta.checkpointInterval", text, 10)


def deleted_file_retention_ms(configuration: Mapping[str, str]) -> int:
    """`delta.deletedFileRetentionDuration`: how long a checkpoint keeps a remove, in milliseconds."""
    retention = _interval("delta.deletedFileRetentionDuration", configuration)
    return _UNIT_MS["week"] if retention is None else retention


def transaction_retention_ms(configuration: Mapping[str, str]) -> int | None:
    """`delta.setTransactionRetentionDuration`: how long a checkpoint keeps a txn, in milliseconds; None: for ever."""
    return _interval("delta.setTransactionRetentionDuration", configuration)


def stats_as_json(configuration: Mapping[str, str]) -> bool:
    """`delta.checkpoint.writeStatsAsJson`: whether a checkpoint has statistics as text."""
    return _flag("delta.checkpoint.writeStatsAsJson", configuration, default=True)


def stats_as_struct(configuration: Mapping[str, str]) -> bool:
    """`delta.checkpoint.writeStatsAsStruct`: whether it has them, and partition values, in columns of their types.

    Where nothing is said only if it has no text either: a checkpoint without any statistics is what nobody asks for.
    """
    return _flag("delta.checkpoint.writeStatsAsStruct", configuration, default=not stats_as_json(configuration))


def indexed_columns(configuration: Mapping[str, str]) -> int:
    """`delta.dataSkippingNumIndexedCols`: how many leaf columns have statistics; -1: all, also where they are named."""
    if "delta.dataSkippingStatsColumns" in configuration:
        return -1
    text = configuration.get("delta.dataSkippingNumIndexedCols", str(_INDEXED)).strip()
    if text == "-1" or text.isdecimal():
        return int(text)
    return _default("delta.dataSkippingNumIndexedCols", text, _INDEXED)


def asks_for_v2_checkpoints(configuration: Mapping[str, str], protocol: Protocol) -> bool:
    """`delta.checkpointPolicy`: whether checkpoints have a unique name and sidecars; only where readers are told so."""
    told = "v2Checkpoint" in (protocol.reader_features or ())
    return told and configuration.get("delta.checkpointPolicy", "classic").strip().lower() == "v2"


def log_retention_ms(configuration: Mapping[str, str]) -> int | None:
    """How long versions stay in the log, in milliseconds: `delta.logRetentionDuration`.

    None: for ever, as `delta.enableExpiredLogCleanup` says.
    """
    if not _flag("delta.enableExpiredLogCleanup", configuration, default=True):
        return None
    retention = _interval("delta.logRetentionDuration", configuration)
    return _LOG_RETENTION_DAYS * _DAY_MS if retention is None else retention


def protected_before(configuration: Mapping[str, str], protocol: Protocol) -> int:
    """`delta.requireCheckpointProtectionBeforeVersion`: what lies below goes all at once or not at all; 0: nothing."""
    name = "delta.requireCheckpointProtectionBeforeVersion"
    text = configuration.get(name, "0").strip()
    if "checkpointProtection" not in (protocol.writer_features or ()):
        return 0
    return int(text) if text.isdecimal() else _default(name, text, _FOR_EVER)


def _flag(name: str, configuration: Mapping[str, str], *, default: bool) -> bool:
    text = configuration.get(name, "").strip().lower()
    return text == "true" if text in ("true", "false") else default


def _interval(name: str, configuration: Mapping[str, str]) -> int | None:
    text = configuration.get(name)
    if text is None:
        return None
    lowered = text.strip().lower()
    if not _INTERVAL.fullmatch(lowered):
        return _default(name, text, None)
    return sum(int(count) * _UNIT_MS[unit] for count, unit in _PART.findall(lowered))


def _default(name: str, text: str, default: T) -> T:
    logger.warning("the table property %s=%r cannot be understood; its default holds", name, text[:100])
    return default
