"""Named places between two steps, where a test ends the process or fails the step.

Each place that a crash may come between has one. Nothing arms them but tests; a place that is not armed costs one
comparison. Which ones there are is known once the modules that have them are loaded, so that a test can go through all.
"""

from __future__ import annotations

from collections.abc import Callable

_places: set[str] = set()
_armed: dict[str, tuple[Callable[[], None], Callable[[object], bool]]] = {}


class Failpoint:
    """One place, made by the module that has it."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        """`name` is unique: `<part>.<what has just happened>`."""
        assert name not in _places, f"two failpoints are called {name}"
        _places.add(name)
        self._name = name

    def reached(self, at_work_on: object = None) -> None:
        """Do what a test wants done here: it may raise, or never return. `at_work_on` is what the step is about, where a
        test may want it done for some of that alone."""
        if _armed and (armed := _armed.get(self._name)) is not None and armed[1](at_work_on):
            armed[0]()


def places() -> frozenset[str]:
    """The names of all places in the modules that are loaded."""
    return frozenset(_places)


def arm(name: str, act: Callable[[], None], *, over: Callable[[object], bool] = lambda _: True) -> None:
    """Have `act` called in this process whenever that place is reached, until it is disarmed; with `over` only where it
    says so of what the step is at work on."""
    assert name in _places, f"there is no failpoint {name}"
    _armed[name] = act, over


def disarm() -> None:
    """Forget everything that is armed."""
    _armed.clear()
