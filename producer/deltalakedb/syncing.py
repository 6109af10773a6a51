"""Waiting until readers by path see what is committed: what the mirror has recorded, compared with SQL's heads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .catalog import IN_PLACE, Catalog, MirrorProgress, no_table
from .errors import (
    TxnLogError,
    TxnLogTableFencedError,
    TxnLogTimeoutError,
    TxnLogValidationError,
)

if TYPE_CHECKING:
    from .session import Session

_LOOK_SECONDS: Final = (0.002, 0.1)


def wait_for_mirror(
    session: Session, tables: Sequence[str] | None, targets: Sequence[str] | None, timeout: float
) -> None:
    """Return once every version that `tables` (all of them for None) have now is published on `targets` (all active).

    Raises `TxnLogTableFencedError` at once where a table is fenced, `TxnLogTimeoutError` naming what is missing.
    """
    session.catch_up()
    with session.catalog() as catalog:
        wanted = {info.name: info.version for info in catalog.tables()}
        active = _targets(catalog, targets)
    if tables is not None:
        missing = [name for name in tables if name not in wanted]
        if missing:
            raise no_table(missing[0], wanted)
        wanted = {name: wanted[name] for name in tables}
    deadline = time.monotonic() + timeout
    pause = _LOOK_SECONDS[0]
    while True:
        more = [_publish(session, target) for target in active]
        with session.catalog() as catalog:
            behind = [(target, row) for target in active for row in _behind(catalog, target, wanted)]
        if not behind:
            return
        if time.monotonic() >= deadline:
            raise TxnLogTimeoutError(_missing(behind, wanted, timeout))
        if not any(more):
            time.sleep(pause)
            pause = min(pause * 1.5, _LOOK_SECONDS[1])


def _targets(catalog: Catalog, wanted: Sequence[str] | None) -> list[str]:
    known = {target.target: target.state for target in catalog.targets()}
    if wanted is None:
        return [target for target, state in known.items() if state == "ACTIVE"]
    for target in wanted:
        if known.get(target) != "ACTIVE":
            state = known.get(target, "unknown").lower()
            raise TxnLogValidationError(f"the mirror target {target!r} is {state}; targets are {', '.join(known)}")
    return list(wanted)


def _behind(catalog: Catalog, target: str, wanted: dict[str, int]) -> list[MirrorProgress]:
    found = []
    for row in catalog.progress(target, behind=True):
        if row.name not in wanted or row.state == "DROPPED" or (target == IN_PLACE and row.state == "IMPORTING"):
            continue  # a table that is being imported has its own log in its place, as its owner writes it
        if row.status is not None and row.status.state == "FENCED":
            raise TxnLogTableFencedError(
                f"table {row.name!r} is fenced on {target}: {row.status.fenced_by or row.status.last_error}. It is "
                f"published there up to version {row.status.mirrored_version} and no further until that is resolved"
            )
        if row.status is None or row.status.mirrored_version < wanted[row.name]:
            found.append(row)
    return found


def _publish(session: Session, target: str) -> bool:
    """On an embedded lake, do what is waited for; whether that has more to do."""
    try:
        mirror = session.mirror(target)
        return mirror is not None and bool(mirror.try_step())
    except TxnLogTableFencedError:
        return False  # found again in the status, where all tables are
    except TxnLogError:
        return False  # recorded and tried again; the status says it if time runs out


def _missing(behind: list[tuple[str, MirrorProgress]], wanted: dict[str, int], timeout: float) -> str:
    target, row = behind[0]
    status = row.status
    reached = "nothing" if status is None or status.mirrored_version < 0 else f"version {status.mirrored_version}"
    said = f"; the mirror says: {status.last_error}" if status is not None and status.last_error else ""
    others = f" ({len(behind) - 1} more tables are behind)" if len(behind) > 1 else ""
    return (
        f"after {timeout:g} s table {row.name!r} is at version {wanted[row.name]} and {target} has {reached} of it"
        f"{others}{said}. Is a mirror running?"
    )
