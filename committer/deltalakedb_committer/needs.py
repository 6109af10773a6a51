"""What has to be loaded before an event can be decided: pure, from the event alone."""

from __future__ import annotations

from dataclasses import dataclass, field

TableKey = tuple[str | None, str | None]
"""(table id, name) as an event gives them; the id wins."""


@dataclass(slots=True, kw_only=True)
class TableNeeds:
    """What the batch names of one table."""

    paths: set[str] = field(default_factory=set)
    read_version: int | None = None
    """Lowest read version: winners above it are needed."""
    app_ids: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Needs:
    """What the batch names. Grows event by event, is loaded once."""

    txn_ids: set[str] = field(default_factory=set)
    """Whose first decision and staged chunks are needed."""
    chunked: set[str] = field(default_factory=set)
    """Those of `txn_ids` that come in several chunks."""
    apps: dict[str, int] = field(default_factory=dict)
    """Per app id the lowest application version that is named."""
    tables: dict[TableKey, TableNeeds] = field(default_factory=dict)
