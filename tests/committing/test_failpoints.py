"""At each step of its loop the committer is killed, fails, or stands still and comes back when another one leads.

A step that is never reached fails these tests.
"""

from __future__ import annotations

import os
import signal

import pytest

from deltalakedb.codec import decode_told
from deltalakedb.eventlog import Stream
from deltalakedb.events import Commit, Outcome
from deltalakedb.process import EXIT_FENCED
from tests.committing.invariants import read_all
from tests.committing.served import ServedLake
from tests.mortuary import Mortuary

AGAIN = pytest.mark.parametrize("passes", [0, pytest.param(2, marks=pytest.mark.soak)])
BIG = {
    f"committer.{name}"
    for name in (
        "staged-again",
        "preparing",
        "completing",
        "files-asked",
        "placing",
        "placed",
        "given-up",
        "completed",
        "cleared",
    )
}
"""Steps that only big transactions come to."""
ONCE = {f"committer.{name}" for name in ("taken-over", "log-verified", "told-again", "ticked", "released")}
"""Steps that come once in a committer's life."""


def places(mortuary: Mortuary) -> list[str]:
    """Every step of the committer's."""
    return [place for place in mortuary.places() if place.startswith("committer.")]


def reached(served: ServedLake, place: str, act: str, passes: int) -> int:
    """A committer that has something to decide, once it has reached that step; its process id."""
    pid = served.start(place, act=act, passes=0 if place in ONCE else passes)

    def there() -> bool:
        if act == "error":
            return f"failed at {place}" in served.output.read_text()
        return not served.running(pid)

    for _ in range(1 if place in ONCE else passes + 1):
        served.publish_history(4)
        served.publish_pairs(4)
        if place in BIG:
            served.until(lambda: served.is_decided() or there(), "that nobody else writes to its tables")
            served.publish_big(changed_meanwhile=place == "committer.staged-again")
        if passes or place == "committer.released":
            served.until(lambda: served.is_decided() or there(), f"the step {place}")
    if place == "committer.given-up":
        served.until(lambda: conflicting(served) or there(), f"the step {place}")
    if place == "committer.read-on":
        served.until(lambda: folding(served) or there(), f"the step {place}")
    if place == "committer.released":
        os.kill(pid, signal.SIGTERM)
    served.until(there, f"the step {place}")
    return pid


def conflicting(served: ServedLake) -> bool:
    """Others write to the tables of big transactions while those are prepared, sooner or later."""
    served.publish_big()
    for _ in range(20):
        served.publish_pairs(1)
    return False


def folding(served: ServedLake) -> bool:
    """Appends that share a commit come, also once this committer is done with what has to be decided one by one because
    those before it died there."""
    served.fold()
    served.publish_pairs(2)
    return False


@AGAIN
def test_killed_at_every_step_the_next_one_goes_on(served: ServedLake, mortuary: Mortuary, passes: int) -> None:
    """Wherever it ends: nothing is lost, torn, told in two ways or decided twice, and all is told in the end."""
    for place in places(mortuary):
        assert served.wait(reached(served, place, "kill", passes)) == -signal.SIGKILL, place
    served.settle()

    assert served.check()["epochs"] >= len(places(mortuary))


@AGAIN
def test_an_error_at_any_step_is_ridden_out(served: ServedLake, mortuary: Mortuary, passes: int) -> None:
    """The same process goes on from what is in SQL, as if it were another one."""
    for place in places(mortuary):
        pid = reached(served, place, "error", passes)
        served.until(served.is_decided, f"everything decided after an error at {place}")
        assert served.stop(pid) == 0, place
    served.settle()

    served.check()


@AGAIN
def test_a_zombie_of_any_step_is_fenced(served: ServedLake, mortuary: Mortuary, passes: int) -> None:
    """One that stands still holds nobody up, and when it comes back it writes nothing, tells nothing new, and ends."""
    for place in places(mortuary):
        zombie = reached(served, place, "stop", passes)
        assert served.wait(zombie) == -signal.SIGSTOP, place
        epoch, _ = served.position()
        heir = served.start()
        served.publish_pairs(3)
        served.until(lambda: served.is_decided() and served.position()[0] > epoch, "another one")  # noqa: B023
        written, told = what_is_written(served), everything_told(served)

        served.go_on(zombie)
        assert served.wait(zombie) == (0 if place == "committer.released" else EXIT_FENCED), place

        assert what_is_written(served) == written, place
        assert everything_told(served) == told, place
        assert served.stop(heir) == 0
    served.settle()

    served.check()


def what_is_written(served: ServedLake) -> list[tuple[object, ...]]:
    """Who leads, and how far commits have come. A tick that was under way may still arrive, as from anybody."""
    with served.database() as database:
        return database.query("SELECT epoch, commit_seq FROM dl_committer_position")


def everything_told(served: ServedLake) -> dict[Stream, set[Commit | Outcome]]:
    """What there is to be read of outcomes and commits; what is told again is the same."""
    return {
        stream: {told for record in read_all(served.log, stream) for told in decode_told(record.value)}
        for stream in (Stream.COMMITS, Stream.OUTCOMES)
    }
