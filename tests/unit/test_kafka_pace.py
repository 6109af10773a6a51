"""When appends are sent: alone at once, many together."""

from __future__ import annotations

from deltalakedb.eventlog.kafka.pace import AT_ONCE, MEMORY_SECONDS, WINDOW_SECONDS, Pace


def waits(pace: Pace, times: list[float]) -> list[float]:
    """How long each of the appends at `times` waits, in milliseconds."""
    return [round((pace.send_at(now) - now) * 1e3, 6) for now in times]


def test_one_after_the_other_never_waits() -> None:
    """However close: who waits for each answer has one under way."""
    assert waits(Pace(), [100 + n * WINDOW_SECONDS / 2 for n in range(100)]) == [0.0] * 100


def test_a_few_at_once_do_not_wait() -> None:
    """A few threads that wait for answers are as quick as one."""
    times = [100 + n * 4 * WINDOW_SECONDS for n in range(10) for _ in range(AT_ONCE)]

    assert waits(Pace(), times) == [0.0] * len(times)


def test_the_rest_of_many_goes_together_at_the_end_of_the_window() -> None:
    """What comes later waits less."""
    pace, step = Pace(), WINDOW_SECONDS / 8
    found = waits(pace, [100 + n * step for n in range(8)])

    assert found[:AT_ONCE] == [0.0] * AT_ONCE
    assert found[AT_ONCE:] == [round((8 - n) * step * 1e3, 6) for n in range(AT_ONCE, 8)]


def test_while_many_come_each_window_is_one_batch() -> None:
    """Also after a pause as long as that between two batches of answers."""
    pace = Pace()
    waits(pace, [100.0] * 20)
    again = 100.0 + WINDOW_SECONDS + MEMORY_SECONDS / 2

    assert waits(pace, [again] * 20) == [WINDOW_SECONDS * 1e3] * 20


def test_it_is_over_with_one_window_of_few() -> None:
    """Or with a longer pause."""
    pace = Pace()
    waits(pace, [100.0] * 20)
    waits(pace, [100.0 + WINDOW_SECONDS])
    assert waits(pace, [100.0 + 2 * WINDOW_SECONDS]) == [0.0]

    waits(pace, [200.0] * 20)
    assert waits(pace, [200.0 + WINDOW_SECONDS + MEMORY_SECONDS]) == [0.0]


def test_whoever_waits_for_few_need_not_look_out_for_more() -> None:
    """What is sent at once wakes by its delivery report; only what may be held without that has to be looked out for."""
    pace = Pace()
    waits(pace, [100.0] * (AT_ONCE - 1))
    assert not pace.may_hold(100.0)

    waits(pace, [100.0])
    assert pace.may_hold(100.0)
    assert not pace.may_hold(100.0 + WINDOW_SECONDS)

    waits(pace, [100.0])
    assert pace.may_hold(100.0 + WINDOW_SECONDS)
    assert not pace.may_hold(100.0 + WINDOW_SECONDS + MEMORY_SECONDS)
