"""Uploads that wait for work in the background, and pauses between attempts at work that fails."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs

from resumable.model.errors import CatalogUnavailable
from resumable.uploads import background as module
from resumable.uploads.background import BackgroundWork, Retries


class Work:
    """Takes what waits, two ids at a time; each step ends when the test says so."""

    def __init__(self) -> None:
        self.background = BackgroundWork("testing", self.run)
        self.taken: list[list[str]] = []
        self.steps: list[Deferred[None]] = []

    async def run(self) -> None:
        while self.background.waits:
            self.taken.append(self.background.take(2))
            self.steps.append(Deferred())
            await self.steps[-1]

    def step(self, error: Exception | None = None) -> None:
        """The step under way ends."""
        if error is None:
            self.steps[-1].callback(None)
        else:
            self.steps[-1].errback(error)


def test_work_begins_with_the_first_upload_and_takes_the_others_in_turn() -> None:
    work = Work()
    for name in "abcd":
        work.background.add(name)
    assert work.taken == [["a"]]
    work.step()
    work.step()
    assert work.taken == [["a"], ["b", "c"], ["d"]] and not work.background.knows_ids
    work.step()
    assert not work.background.waits
    work.background.add("e")
    assert work.taken[3:] == [["e"]]


def test_what_is_not_remembered_is_looked_for_once_the_rest_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    work = Work()
    for name in "abcdef":
        work.background.add(name)
    for _ in range(3):
        work.step()
    assert work.taken == [["a"], ["b", "c"], []]


def test_a_stop_waits_for_the_step_under_way_and_nothing_begins_after_it() -> None:
    work = Work()
    work.background.add("a")
    work.background.add_all()
    stopped = Deferred.fromCoroutine(work.background.stop())
    assert not stopped.called
    work.step()
    work.background.add("b")
    assert stopped.called and work.taken == [["a"]]


@pytest.mark.parametrize("error", [CatalogUnavailable("away"), ValueError("a fault")])
def test_after_a_failure_the_next_one_that_waits_begins_it_anew(error: Exception) -> None:
    work = Work()
    work.background.add("a")
    with capturedLogs() as events:
        work.step(error)
    assert [told(event) for event in events] == [
        (LogLevel.debug, "away") if isinstance(error, CatalogUnavailable) else (LogLevel.critical, None)
    ]
    work.background.add("b")
    assert work.taken == [["a"], ["b"]]


def told(event: LogEvent) -> tuple[Any, Any]:
    """Level and reason."""
    assert event["work"] == "testing"
    return event["log_level"], event.get("reason")


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
