"""`move` of the SQL port in the two statements that every engine has: copy the rows, then delete them."""

from __future__ import annotations

from collections.abc import Sequence

from .port import Database


def copy_and_delete(
    database: Database,
    source: str,
    target: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[int]],
    *,
    by: Sequence[str],
    adding: Sequence[str],
) -> int:
    """`Database.move`, within the transaction under way."""
    keys = given(by, adding)
    database.execute(
        f"INSERT INTO {target} ({', '.join([*columns, *adding])}) SELECT {selected(columns, adding)} "
        f"FROM {keys} CROSS JOIN {source} f WHERE {matching(by)}",
        [rows],
    )
    return database.execute(
        f"DELETE FROM {source} WHERE ({', '.join(by)}) IN (SELECT {', '.join(f'k.{name}' for name in by)} FROM {keys})",
        [rows],
    )


def given(by: Sequence[str], adding: Sequence[str]) -> str:
    """The rows as a table `k`."""
    return f"ROWS(?) AS k ({', '.join(f'{name} BIGINT' for name in [*by, *adding])})"


def selected(columns: Sequence[str], adding: Sequence[str]) -> str:
    """What the target gets: `f` is the source."""
    return ", ".join([f"f.{name}" for name in columns] + [f"k.{name}" for name in adding])


def matching(by: Sequence[str]) -> str:
    """Which row of the source is meant."""
    return " AND ".join(f"f.{name} = k.{name}" for name in by)
