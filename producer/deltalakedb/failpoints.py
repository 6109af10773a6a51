"""Named places between two steps, where a test ends the process or fails the step.

Each place that a crash may come between has one. Nothing arms them but tests; a place that is not armed costs one
comparison. Which ones there are is known once the modules that have them are loaded, so that a test can go through all.
"""

from __future__ import annotations

from collections.abc import Callable

_places: set[str] = set()
_armed: dict[str, Callable[[], None]] = {}


class Failpoint:
    """One place, made by the module that has it."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        """`name` is unique: `<part>.<what has just happened>`."""
        assert name not in _places, f"two failpoints are called {name}"
        _places.add(name)
        self._name = name

    def reached(self) -> None:
        """Do what a test wants done here: it may raise, or never return."""
        if _armed and (act := _armed.get(self._name)) is not None:
            act()


def places() -> frozenset[str]:
    """The names of all places in the modules that are loaded."""
    return frozenset(_places)


def arm(name: str, act: Callable[[], None]) -> None:
    """Have `act` called in this process whenever that place is reached, until it is disarmed."""
    assert name in _places, f"there is no failpoint {name}"
    _armed[name] = act


def disarm() -> None:
    """Forget everything that is armed."""
    _armed.clear()
