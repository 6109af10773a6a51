"""The table properties that a mirror honours, parsed. What cannot be understood counts as its default, with a warning."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

_UNIT_MS = {
    "millisecond": 1,
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 7 * 86_400_000,
}
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
    return configuration.get("delta.checkpoint.writeStatsAsJson", "true").strip().lower() != "false"


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
