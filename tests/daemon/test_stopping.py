"""Stopping: whatever one step does, those after it are taken."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs

from resumable.daemon.children import take_all


@pytest_twisted.ensureDeferred
async def test_a_step_that_fails_keeps_no_other_from_being_taken_and_is_logged_once() -> None:
    taken: list[str] = []

    def at_once() -> None:
        raise OSError("at once")

    async def later() -> None:
        raise ValueError("later")

    with capturedLogs() as logged:
        good = await take_all(
            [at_once, lambda: taken.append("one"), later, lambda: fail(KeyError("fired")), lambda: taken.append("two")]
        )
    assert taken == ["one", "two"]
    assert not good
    assert [type(event["log_failure"].value) for event in logged] == [OSError, ValueError, KeyError]


@pytest_twisted.ensureDeferred
async def test_a_step_is_waited_for_before_the_next_is_taken() -> None:
    taken: list[str] = []
    ready: Deferred[None] = Deferred()

    async def slow() -> None:
        await ready
        taken.append("slow")

    outcome = Deferred.fromCoroutine(take_all([slow, lambda: taken.append("next")]))
    assert taken == []
    ready.callback(None)
    assert await outcome
    assert taken == ["slow", "next"]


@pytest_twisted.ensureDeferred
async def test_a_step_of_several_that_did_not_all_work_is_not_good() -> None:
    def fails() -> None:
        raise OSError("inside")

    with capturedLogs() as logged:
        good = await take_all([lambda: Deferred.fromCoroutine(take_all([fails]))])
    assert not good
    assert len(logged) == 1
