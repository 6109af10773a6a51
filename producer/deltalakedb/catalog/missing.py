"""What is said of a table that is not there, or not the way it was asked for."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Final

from deltalakedb.database import Database
from deltalakedb.errors import TxnLogTableNotFoundError, TxnLogValidationError

_COMPARED: Final = 10_000
"""Names that are looked at, of a lake that has more."""
_NEAR: Final = 3
_NAMED: Final = 10
"""Tables that are listed where none has a name like that."""


def table_names(database: Database) -> list[str]:
    """The names of the tables there are now, in order; not all of very many."""
    rows = database.query(f"SELECT name FROM dl_tables WHERE state <> 'DROPPED' ORDER BY name LIMIT {_COMPARED}")
    return [name for (name,) in rows]


def no_table(name: str, names: Collection[str]) -> TxnLogTableNotFoundError:
    """The error for a `name` that is not among `names`: it names those that may have been meant, else what there is."""
    near = _near(name, names)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    elif names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        hint = f"it has {', '.join(sorted(names)[:_NAMED])}{more}"
    else:
        hint = "it has none yet"
    return TxnLogTableNotFoundError(f"the lake has no table {name!r}: {hint}")


def _near(name: str, names: Collection[str]) -> list[str]:
    """Names like that one: the same but for case or namespace first, then those that are spelled nearly so."""
    by_spelling = {known.lower(): known for known in names}
    wanted = name.lower()
    last = wanted.rpartition(".")[2]
    same = [known for spelling, known in by_spelling.items() if last == spelling.rpartition(".")[2]]
    close = [by_spelling[spelling] for spelling in get_close_matches(wanted, by_spelling, n=_NEAR)]
    return list(dict.fromkeys([*same, *close]))[:_NEAR]


def not_found(
    database: Database,
    which: str,
    key: str | None,
    *,
    version: int | None,
    commit_seq: int | None,
    timestamp_ms: int | None,
) -> TxnLogValidationError:
    """The error for a table that was not found the way it was asked for; `which` is the condition on `dl_tables t`."""
    found = database.query(
        "SELECT t.name, t.state, t.created_seq, t.dropped_seq, t.first_version, min(v.version), max(v.version), "
        "min(CASE WHEN v.version >= t.first_version THEN v.time_ms END) "
        f"FROM dl_tables t LEFT JOIN dl_table_versions v ON v.table_no = t.table_no WHERE {which} GROUP BY "
        "t.table_no, t.name, t.state, t.created_seq, t.dropped_seq, t.first_version ORDER BY t.table_no DESC LIMIT 1",
        [key],
    )
    if not found:
        return no_table(str(key), table_names(database))
    name, state, created, dropped, first, oldest, last, begin = found[0]
    if begin is None:
        return TxnLogTableNotFoundError(f"table {name!r} is {state.lower()}, and no version of it can be read yet")
    if version is not None and oldest <= version < first:
        return TxnLogValidationError(
            f"version {version} of table {name!r} was imported as history only, and which files it had cannot be "
            f"told: the oldest version that can be read is {first}"
        )
    if timestamp_ms is not None and timestamp_ms < begin:
        return TxnLogValidationError(
            f"table {name!r} begins at {shown_time(begin)} (version {first}): there is nothing of it at "
            f"{shown_time(timestamp_ms)}"
        )
    if dropped is not None:
        return TxnLogTableNotFoundError(f"table {name!r} was dropped by commit {dropped} of the lake")
    if state == "DROPPED":
        return TxnLogTableNotFoundError(f"table {name!r} was dropped before it was adopted")
    if version is not None:
        return TxnLogValidationError(f"table {name!r} has versions {first} to {last}, and no version {version}")
    if created is None:
        return TxnLogTableNotFoundError(
            f"table {name!r} is being imported: it is part of no commit of the lake before it is adopted. Until then "
            "it is read by itself, or in the newest snapshot"
        )
    return TxnLogTableNotFoundError(f"table {name!r} was made by commit {created}: it is not there at {commit_seq}")


def shown_time(milliseconds: int | None) -> str:
    """A time of the store as messages show it."""
    return datetime.fromtimestamp((milliseconds or 0) / 1000, UTC).isoformat(timespec="milliseconds")
