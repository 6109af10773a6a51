"""The window of transactions in flight: never more than its limit, which falls with the committer's lag and recovers."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from deltalakedb.window import LAG_MS, LEAST, PAUSE_SECONDS, Window


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answered(window: Window, lag_ms: int | None, times: int = 1) -> None:
    for _ in range(times):
        assert window.acquire(0)
        window.release(lag_ms)


def test_no_more_than_the_limit_are_in_flight() -> None:
    """Who finds no room waits, and goes on as soon as another one is answered."""
    window = Window(2)
    assert window.acquire(0)
    assert window.acquire(0)
    assert not window.acquire(0.01)
    threading.Timer(0.05, window.release).start()

    assert window.acquire(10)
    assert not window.acquire(0)


def test_a_jam_halves_it_once_a_second_and_no_further_than_the_least() -> None:
    """A thousand late outcomes of one jam are one reason; if it lasts, so does the shrinking."""
    clock = Clock()
    window = Window(128, clock=clock)

    limits = []
    for _ in range(8):
        answered(window, LAG_MS + 1, times=1000)
        limits.append(window.limit)
        clock.now += PAUSE_SECONDS

    assert limits == [64, 32, 16, 8, LEAST, LEAST, LEAST, LEAST]


def test_it_recovers() -> None:
    """One by one, by every window that was answered in time, up to what the settings say."""
    clock = Clock()
    window = Window(8, clock=clock)
    answered(window, LAG_MS + 1)
    assert window.limit == 4

    answered(window, 0, times=4)
    once = window.limit
    answered(window, 0, times=100)

    assert once == 5
    assert window.limit == 8


def test_what_nobody_told_says_nothing() -> None:
    """An unknown outcome is no sign of a short wait, nor of a long one."""
    window = Window(8, clock=Clock())
    answered(window, None, times=100)

    assert window.limit == 8


def test_a_small_window_stays_as_it_is() -> None:
    """A window of one is never less."""
    window = Window(1, clock=Clock())
    answered(window, 10 * LAG_MS)

    assert window.limit == 1


@given(
    st.integers(1, 200), st.lists(st.tuples(st.booleans(), st.integers(0, 3 * LAG_MS), st.floats(0, 2)), max_size=80)
)
def test_the_limit_is_always_one_that_can_be_kept(size: int, steps: list[tuple[bool, int, float]]) -> None:
    """Between the least and the setting; and in flight are never more than the limit was when they went."""
    clock = Clock()
    window = Window(size, clock=clock)
    in_flight = 0
    for sends, lag_ms, passes in steps:
        clock.now += passes
        if sends:
            limit = window.limit
            went = window.acquire(0)
            assert went is (in_flight < limit)
            in_flight += went
        elif in_flight:
            window.release(lag_ms)
            in_flight -= 1
        assert min(LEAST, size) <= window.limit <= size
