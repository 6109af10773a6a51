"""At each step of its loop the committer is killed, fails, or stands still and comes back when another one leads."""

from __future__ import annotations

import os
import signal

import pytest

from deltalakedb.eventlog import Stream
from deltalakedb.process import EXIT_FENCED
from tests.committing.invariants import read_all
from tests.committing.served import ServedLake
from tests.mortuary import Mortuary

AGAIN = pytest.mark.parametrize("passes", [0, pytest.param(2, marks=pytest.mark.soak)])
IN_WRITE = {"committer.position-moved", "committer.rows-inserted"}
"""Steps within an SQL transaction, which the server ends when nothing comes."""


def reached(served: ServedLake, place: str, act: str, passes: int) -> int:
    """A committer that has what it decides, until it is ended or stopped there, or told to stop; its process id."""
    pid = served.start(place, act=act, passes=passes)
    served.publish_history(4)
    served.publish_pairs(4)
    served.until(lambda: served.is_decided() or not served.running(pid), place)
    if served.running(pid):
        os.kill(pid, signal.SIGTERM)
    served.wait(pid)
    return pid


@AGAIN
def test_killed_at_every_step_the_next_one_goes_on(served: ServedLake, mortuary: Mortuary, passes: int) -> None:
    """Wherever it ends: nothing is lost, torn, told in two ways or decided twice, and all is told in the end."""
    unreached = []
    for place in mortuary.places():
        pid = reached(served, place, "kill", passes)
        if served.wait(pid) != -signal.SIGKILL:
            unreached.append(place)
    served.settle()

    assert served.check()["epochs"] > 0
    assert passes or not unreached


@AGAIN
def test_an_error_at_any_step_is_ridden_out(served: ServedLake, mortuary: Mortuary, passes: int) -> None:
    """The same process goes on from what is in SQL, as if it were another one."""
    for place in mortuary.places():
        pid = reached(served, place, "error", passes)
        assert served.wait(pid) == 0, place
    served.settle()
    said = served.output.read_text()

    served.check()
    assert passes or [place for place in mortuary.places() if f"failed at {place}" not in said] == []


@AGAIN
def test_a_zombie_of_any_step_is_fenced(served: ServedLake, mortuary: Mortuary, passes: int) -> None:
    """One that stands still holds nobody up, and when it comes back it writes nothing, tells nothing new, and ends."""
    unreached = []
    for place in mortuary.places():
        zombie = reached(served, place, "stop", passes)
        if served.wait(zombie) != -signal.SIGSTOP:
            unreached.append(place)
            continue
        epoch, _ = served.position()
        heir = served.start()
        served.publish_pairs(3)
        served.until(lambda: served.is_decided() and served.position()[0] > epoch, "another one")  # noqa: B023
        written, told = what_is_written(served), everything_told(served)

        served.go_on(zombie)
        if place in IN_WRITE:
            # The server has ended its session: it does not know of the other one, and stands by.
            served.until(lambda: "the committer pauses" in served.tail(), "that it notices")
            assert served.stop(zombie) == 0, place
        else:
            assert served.wait(zombie) == (0 if place == "committer.released" else EXIT_FENCED), place

        assert what_is_written(served) == written, place
        assert everything_told(served) == told, place
        assert served.stop(heir) == 0
    served.settle()

    served.check()
    assert passes or not unreached


def what_is_written(served: ServedLake) -> list[tuple[object, ...]]:
    """Who leads, and how far commits have come. A tick that was under way may still arrive, as from anybody."""
    with served.database() as database:
        return database.query("SELECT epoch, commit_seq FROM dl_committer_position")


def everything_told(served: ServedLake) -> dict[Stream, set[bytes]]:
    """What there is to be read of outcomes and commits; what is told again is the same bytes."""
    return {
        stream: {record.value for record in read_all(served.log, stream)}
        for stream in (Stream.COMMITS, Stream.OUTCOMES)
    }
