"""SQL of what is noted of attempts, and of the events that were isolated."""

from __future__ import annotations

from deltalakedb.database import Database
from deltalakedb_committer.deciding.isolation import Attempts, IsolatedEvent

_ATTEMPTS = ", ".join(Attempts._fields)


def attempts(database: Database, lake_id: str) -> Attempts:
    """What is noted of the lake."""
    rows = database.query(f"SELECT {_ATTEMPTS} FROM dl_committer_attempts WHERE lake_id = ?", [lake_id])
    return Attempts(*rows[0]) if rows else Attempts()


def note_attempts(database: Database, lake_id: str, noted: Attempts) -> None:
    """Note that of the lake. Inside a transaction."""
    changed = database.execute(
        f"UPDATE dl_committer_attempts SET {', '.join(f'{name} = ?' for name in Attempts._fields)} WHERE lake_id = ?",
        [*noted, lake_id],
    )
    if not changed:
        database.insert("dl_committer_attempts", ("lake_id", *Attempts._fields), [(lake_id, *noted)])


def isolated_events(database: Database) -> dict[int, IsolatedEvent]:
    """Every event that was isolated, by its position."""
    rows = database.query(f"SELECT {', '.join(IsolatedEvent._fields)} FROM dl_isolated_events")
    return {row[0]: IsolatedEvent(row[0], bytes(row[1]), *row[2:]) for row in rows}
