"""What an import says of itself: while it runs, and at its end or beforehand (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that has written into the table's log, as `commitInfo.engineInfo` names it."""

    engine: str
    commits: int
    newest_version: int


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came, or would come, of importing one table."""

    table: str
    source: str
    """URI of the table's folder."""
    table_id: str | None
    """Id of the import and of the table in the lake; None before an import has begun."""
    state: Literal["planned", "imported", "adopted"]
    """`imported`: it stands in the lake read-only, and nothing was written at its source. `adopted`: it is the lake's."""
    baseline: int
    """The oldest version whose state can be told."""
    newest: int
    """The newest version that was, or would be, imported."""
    history: int = 0
    """Versions before the baseline that are kept to be looked at."""
    versions: int = 0
    """Versions that this run has imported, or would import."""
    already: int = 0
    """Versions that an earlier run had imported."""
    files: int
    """Live files at `newest`, as are their bytes."""
    bytes: int
    reader_version: int
    writer_version: int
    features: tuple[str, ...]
    checksums: int = 0
    """Versions whose `.crc` was compared with the log."""
    writers: tuple[Writer, ...] = ()
    """Who has written here, the latest first: stop them before the cut-over."""
    refused: tuple[str, ...] = ()
    """What stands against importing the table, with version and file. Only a dry run comes back with any."""
    forced: tuple[str, ...] = ()
    """What `force` passed over."""
    skipped: tuple[str, ...] = ()
    """Versions before the baseline that are left out, because their commits cannot be read."""
    adopted_version: int | None = None
    """The version by which the lake took the table over; None too for a table that was made in the lake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an import is."""

    phase: Literal["reading", "importing", "adopting"]
    version: int
    """The newest version that is done."""
    done: int
    """Bytes of log files."""
    total: int
    writers: tuple[Writer, ...] = ()
    """With `adopting`, the last phase, before anything is written: who should be stopped by now."""


Watch = Callable[[Progress], None]
