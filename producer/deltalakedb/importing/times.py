"""When each imported version was committed: its in-commit timestamp, else its file's time made to rise. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a version says of its time."""

    version: int
    in_commit_ms: int | None
    file_ms: int


def version_times(stamps: Sequence[Stamp], *, after_ms: int | None, started_ms: int, now_ms: int) -> dict[int, int]:
    """The time of each version, in milliseconds, rising from version to version, and from `after_ms` on.

    File times are evidence, not truth: copying a table gives all its files one new time, a wrong clock one in the
    future. So a file time never lies beyond now (instead it counts as `started_ms`, when the import began, which stays
    the same when it is resumed) nor at or above the in-commit timestamp of a later version. A time that does not rise,
    which the protocol allows of file times only, becomes 1 ms more than the one before.
    """
    times: dict[int, int] = {}
    before = after_ms
    for stamp, bound in zip(stamps, _bounds(stamps), strict=True):
        time_ms = stamp.in_commit_ms
        if time_ms is None:
            time_ms = stamp.file_ms if stamp.file_ms <= now_ms else started_ms
            time_ms = time_ms if bound is None else min(time_ms, bound)
        before = times[stamp.version] = time_ms if before is None else max(time_ms, before + 1)
    return times


def _bounds(stamps: Sequence[Stamp]) -> list[int | None]:
    """The latest time that each version can have: 1 ms less than the next one's, from an in-commit timestamp down."""
    bounds: list[int | None] = []
    bound: int | None = None
    for stamp in reversed(stamps):
        if stamp.in_commit_ms is not None:
            bound = stamp.in_commit_ms
        bounds.append(bound)
        bound = None if bound is None else bound - 1
    bounds.reverse()
    return bounds
