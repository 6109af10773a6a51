"""Whom a batch waits for."""

from __future__ import annotations

from deltalakedb_committer.gathering import MOST_SKIPPED, Gathering

SECONDS = 0.006


def batch(gathering: Gathering, clients: set[str], *, came: bool = False) -> bool:
    """One batch in which `clients` are, after waiting if that was worth it; whether it waited."""
    waits = gathering.patience() > 0 and gathering.waits_for(clients)
    gathering.done(clients, waited=waits or came, came=came)
    return waits


def test_a_lone_client_is_never_held_up() -> None:
    """Nobody else wrote lately, so nobody is expected."""
    gathering = Gathering(SECONDS)

    assert not any(batch(gathering, {"a"}) for _ in range(10))


def test_clients_of_the_two_batches_before_are_expected() -> None:
    """Two groups that take turns become one."""
    gathering = Gathering(SECONDS)
    batch(gathering, {"a", "b"})
    batch(gathering, {"c", "d"})

    assert gathering.patience() == SECONDS
    assert gathering.waits_for({"a", "b"})
    assert not gathering.waits_for({"a", "b", "c", "d"})


def test_a_client_that_left_is_forgotten_after_two_batches() -> None:
    """The others wait for it at most twice."""
    gathering = Gathering(SECONDS)
    batch(gathering, {"a", "b"})

    batch(gathering, {"a"})
    batch(gathering, {"a"})

    assert not gathering.waits_for({"a"})


def test_waiting_in_vain_is_given_up() -> None:
    """Clients that take turns by chance hardly wait: ever fewer batches do, and one in 65 in the end."""
    gathering = Gathering(SECONDS)
    names = ["a", "b", "c"]

    waits = [batch(gathering, {names[turn % 3]}) for turn in range(1_000)]

    assert sum(waits[:50]) > 3
    assert sum(waits[500:]) <= 500 // MOST_SKIPPED + 1


def test_a_wait_that_paid_is_repeated() -> None:
    """As soon as somebody comes in that time, every batch waits again."""
    gathering = Gathering(SECONDS)
    for turn in range(20):
        batch(gathering, {"ab"[turn % 2]})
    while not gathering.patience():
        batch(gathering, {"a"})

    gathering.done({"a", "b"}, waited=True, came=True)
    gathering.done({"a"}, waited=True, came=False)

    assert gathering.patience() == 0.0
    assert gathering.patience() == SECONDS


def test_zero_seconds_means_never() -> None:
    """As an embedded lake has it: its clients take turns at the step themselves."""
    gathering = Gathering(0.0)
    batch(gathering, {"a", "b"})

    assert gathering.patience() == 0.0
