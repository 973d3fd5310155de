"""Pauses between attempts at work that fails."""

from __future__ import annotations

from twisted.internet.task import Clock

from resumable.uploads.retries import Retries


def pauses(clock: Clock, retries: Retries, count: int) -> list[float]:
    found = []
    for _ in range(count):
        retries.failed("a")
        pause = 0.0
        while not retries.is_due("a"):
            clock.advance(1)
            pause += 1
        found.append(pause)
    return found


def test_each_pause_is_twice_the_one_before_up_to_the_latest() -> None:
    clock = Clock()
    assert pauses(clock, Retries(clock, 10, 35, 8), 4) == [10, 20, 35, 35]


def test_after_it_has_worked_it_begins_anew() -> None:
    clock = Clock()
    retries = Retries(clock, 10, 100, 8)
    assert pauses(clock, retries, 2) == [10, 20]
    retries.worked("a")
    assert pauses(clock, retries, 1) == [10]


def test_what_never_failed_is_due_and_so_is_what_does_not_fit() -> None:
    retries = Retries(Clock(), 10, 100, 2)
    for name in "abc":
        retries.failed(name)
    assert [retries.is_due(name) for name in "abcd"] == [True, False, False, True]
