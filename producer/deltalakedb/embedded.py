"""The committer and the mirror in the client's own process, found by entry points: how an embedded lake needs no daemon."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from .errors import TxnLogConfigError
from .settings import Settings

GROUP = "deltalakedb.embedded"


class CommitterStepper(Protocol):
    """The committer of an embedded lake. Thread-safe; not used across a fork."""

    def try_step(self, max_events: int) -> int | None:
        """Decide up to `max_events` records; 0 if there were none, None if another process is stepping right now."""
        ...

    def close(self) -> None: ...


class MirrorStepper(Protocol):
    """The mirror of one target of an embedded lake. Thread-safe; not used across a fork."""

    def try_step(self) -> bool | None:
        """Publish what is missing; whether there is more to do, None if another process is at it right now."""
        ...

    def close(self) -> None: ...


def open_committer(settings: Settings) -> CommitterStepper:
    """The embedded committer; the lake is made or brought up to this release first."""
    return cast(CommitterStepper, _load("committer")(settings))


def open_mirror(settings: Settings, target: str) -> MirrorStepper:
    """The embedded mirror of a target."""
    return cast(MirrorStepper, _load("mirror")(settings, target))


def _load(name: str) -> Any:
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    raise TxnLogConfigError(f"an embedded lake needs the package of the {name}, and it is not installed")
