"""How a service is: for each lake the state that its loop is in, what it must reach, and what follows from both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .errors import TxnLogError, TxnLogHaltedError, redacted
from .metrics import PAUSES, Measurements

STUCK_SECONDS = 30.0
"""A loop that shows no progress for so long is not ready: its position does not move though it could."""
DEAD_SECONDS = 300.0
"""A loop that shows none for so long does not live: starting it again is better than waiting. No write takes so long."""
CHECK_SECONDS = 2.0
"""How often what the service must reach is looked at."""
ANSWER_SECONDS = 30.0
"""A check that has not come back for so long has failed."""


class State(StrEnum):
    """Where the loop of a lake is. WORKING, CATCHING_UP and STANDBY are ready, the others are not."""

    STARTING = "STARTING"
    STANDBY = "STANDBY"
    """Another process leads, and this one would take over."""
    WORKING = "WORKING"
    """It leads, or publishes; or would, if there were anything."""
    CATCHING_UP = "CATCHING_UP"
    """It leads, and decides again what was told before: its store is older than that."""
    PAUSED = "PAUSED"
    """After an error that passes by itself."""
    HALTED = "HALTED"
    """A named halted state: an operator has to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is told of one lake."""

    lake: str
    state: State
    halted: str
    """The halted state's name, or empty."""
    detail: str
    """The error behind PAUSED and HALTED, without credentials; or empty."""
    checks: Mapping[str, str]
    """What must be reached, each with `ok` or the error."""
    live: bool
    """False if only starting the process again can help."""
    ready: bool


class Health:
    """The health of one lake in a service, written by its loop and read by whoever asks. Thread-safe."""

    def __init__(
        self, lake: str, *, secrets: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`secrets` are values that no report may show."""
        self.lake = lake
        self.measurements = Measurements()
        self._secrets = dict(secrets or {})
        self._clock = clock
        self._lock = threading.Lock()
        self._state = State.STARTING
        self._halted = ""
        self._detail = ""
        self._progress = clock()
        self._checks: dict[str, Callable[[], None]] = {}
        self._found: dict[str, str] = {}
        self._checked = clock()

    def check(self, name: str, reach: Callable[[], None]) -> None:
        """What must be reached: `reach` raises an error of our tree if it cannot be. Called in a thread of its own."""
        with self._lock:
            self._checks[name] = reach
            self._found[name] = "not looked at yet"

    def becomes(self, state: State) -> None:
        """The loop is in this state now."""
        with self._lock:
            self._state, self._detail = state, ""
            self._progress = self._clock()

    def progressed(self) -> None:
        """The loop came round: it decided or published something, or found nothing to do."""
        self._progress = self._clock()

    def paused(self, error: TxnLogError) -> None:
        """The loop waits before it tries again."""
        with self._lock:
            self._state, self._detail = State.PAUSED, redacted(str(error), self._secrets)
        self.measurements.add(PAUSES, 1)

    def halted(self, error: TxnLogHaltedError) -> None:
        """The loop met a named halted state, and ended."""
        with self._lock:
            self._state, self._halted = State.HALTED, error.state
            self._detail = redacted(str(error), self._secrets)

    def look(self) -> None:
        """Do all checks once, unless it is halted: then they have nothing to say."""
        with self._lock:
            checks = {} if self._halted else dict(self._checks)
        for name, reach in checks.items():
            try:
                reach()
                found = "ok"
            except TxnLogError as error:
                found = redacted(str(error), self._secrets)
            with self._lock:
                self._found[name] = found
        self._checked = self._clock()

    def report(self) -> Report:
        """How it is now."""
        with self._lock:
            state, halted, detail, checks = self._state, self._halted, self._detail, dict(self._found)
            still = self._clock() - self._progress
            unheard = self._clock() - self._checked
        if unheard > ANSWER_SECONDS:
            checks = dict.fromkeys(checks, f"no answer for {unheard:.0f} s")
        # A standby waits for as long as the leader lives, and starting may take its time.
        at_work = state in (State.WORKING, State.CATCHING_UP)
        turns = not at_work or still <= STUCK_SECONDS
        return Report(
            lake=self.lake,
            state=state,
            halted=halted,
            detail=detail or ("" if turns else f"the loop has not come round for {still:.0f} s"),
            checks=checks,
            live=not at_work or still <= DEAD_SECONDS,
            ready=(at_work or state is State.STANDBY) and turns and all(each == "ok" for each in checks.values()),
        )


class ServiceHealth:
    """The health of one service process: that of each lake it serves. Thread-safe."""

    def __init__(self, service: str) -> None:
        self.service = service
        self._lakes: dict[str, Health] = {}

    def of(self, lake: str, *, secrets: Mapping[str, str] | None = None) -> Health:
        """The health of a lake, by an address without credentials; made when it is first asked for."""
        return self._lakes.setdefault(lake, Health(lake, secrets=secrets))

    def halted(self, error: TxnLogHaltedError) -> None:
        """What ended the service: lakes that are not halted by themselves are by this."""
        for lake in self.lakes:
            if lake.report().state is not State.HALTED:
                lake.halted(error)

    @property
    def lakes(self) -> list[Health]:
        """Those that are known by now."""
        return list(self._lakes.values())
