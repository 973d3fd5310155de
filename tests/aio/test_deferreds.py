"""The helpers for Deferreds."""

from __future__ import annotations

from contextvars import ContextVar

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.aio.deferreds import Later, Task, TaskGroup, Timer, Waiters, deferred


def test_a_coroutine_function_answers_with_a_deferred_and_begins_at_once():
    seen: list[int] = []

    @deferred
    async def double(number: int) -> int:
        """Twice as much."""
        seen.append(number)
        return 2 * await succeed(number)

    assert isinstance(answer := double(3), Deferred)
    assert seen == [3]
    assert answer.result == 6
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


def test_what_a_coroutine_raises_fails_its_deferred():
    @deferred
    async def fail() -> None:
        raise ValueError("no")

    errors: list[Failure] = []
    fail().addErrback(errors.append)
    assert errors[0].check(ValueError)


def test_a_task_says_once_how_it_ended():
    said: list[object] = []
    first, second = Deferred[int](), Deferred[int]()

    async def add() -> int:
        return await first + await second + await succeed(1)

    Task(add(), said.append).go()
    first.callback(10)
    assert said == []
    second.callback(100)
    assert said == [111]


def test_a_task_is_told_of_failures_and_tells_of_its_own():
    said: list[Failure] = []
    waited = Deferred[None]()

    async def translate() -> None:
        try:
            await waited
        except ValueError as error:
            raise KeyError("no") from error

    Task(translate(), said.append).go()
    waited.errback(ValueError("bad"))
    assert said[0].check(KeyError)
    assert isinstance(said[0].value.__cause__, ValueError)


def test_a_task_may_wait_ever_so_often_for_what_has_happened():
    said: list[object] = []

    async def count() -> int:
        return sum([await succeed(1) for _ in range(10_000)])

    Task(count(), said.append).go()
    assert said == [10_000]


def test_a_task_keeps_the_context_in_which_it_began():
    request: ContextVar[str] = ContextVar("request")
    said: list[object] = []
    waited = Deferred[None]()

    async def tell() -> str:
        await waited
        return request.get()

    request.set("first")
    Task(tell(), said.append).go()
    request.set("second")
    waited.callback(None)
    assert said == ["first"]


def test_all_who_wait_are_woken_once_and_in_order():
    waiters, woken = Waiters(), []
    for name in "ab":
        waiters.wait().addCallback(lambda _, name=name: woken.append(name))
    assert len(waiters) == 2
    waiters.fire()
    waiters.fire()
    assert woken == ["a", "b"]
    assert len(waiters) == 0


def test_who_begins_to_wait_while_others_are_woken_waits_for_the_next_time():
    waiters, later = Waiters(), []
    waiters.wait().addCallback(lambda _: later.append(waiters.wait()))
    waiters.fire()
    assert not later[0].called
    waiters.fire()
    assert later[0].called


def test_who_cancels_waits_no_longer():
    waiters, errors = Waiters(), []
    gone, stays = waiters.wait().addErrback(errors.append), waiters.wait()
    gone.cancel()
    assert errors[0].check(CancelledError)
    assert len(waiters) == 1
    waiters.fire()
    assert stays.called


def test_one_who_is_woken_may_cancel_another_that_is_about_to_be():
    waiters, errors = Waiters(), []
    waiters.wait().addCallback(lambda _: second.cancel())
    second = waiters.wait().addErrback(errors.append)
    waiters.fire()
    assert errors[0].check(CancelledError)


def test_a_group_has_ended_when_nothing_of_it_is_under_way():
    group = TaskGroup(lambda failure: None)
    assert group.ended().called
    first, second = Deferred(), Deferred()

    async def wait() -> None:
        await first

    group.start(wait())
    group.start(second)
    ended = group.ended()
    assert len(group) == 2
    first.callback(None)
    assert not ended.called
    second.callback(None)
    assert ended.called
    assert len(group) == 0


def test_a_failure_of_a_group_goes_to_one_place_and_ends_only_its_own_work():
    failures: list[Failure] = []
    group = TaskGroup(failures.append)
    bad, good = Deferred(), Deferred()
    group.start(bad)
    group.start(good)
    bad.errback(ValueError("no"))
    assert failures[0].check(ValueError)
    assert len(group) == 1
    group.cancel()
    assert failures[1].check(CancelledError)
    assert group.ended().called


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_timer_calls_once_at_the_time_that_was_set_last(clock):
    calls: list[float] = []
    timer = Timer(clock, lambda: calls.append(clock.seconds()))
    timer.set(5)
    clock.advance(3)
    timer.set(5)
    assert timer.pending
    clock.advance(4)
    assert calls == []
    clock.advance(1)
    assert calls == [8]
    assert not timer.pending
    clock.advance(10)
    assert calls == [8]


def test_a_timer_that_is_cleared_does_nothing_and_may_be_set_again(clock):
    calls: list[float] = []
    timer = Timer(clock, lambda: calls.append(clock.seconds()))
    timer.clear()
    timer.set(1)
    timer.clear()
    clock.advance(2)
    assert calls == [] and not clock.getDelayedCalls()
    timer.set(1)
    clock.advance(1)
    assert calls == [3]


def test_an_action_may_set_its_own_timer(clock):
    calls: list[float] = []

    def again() -> None:
        calls.append(clock.seconds())
        if len(calls) < 3:
            timer.set(1)

    timer = Timer(clock, again)
    timer.set(1)
    for _ in range(5):
        clock.advance(1)
    assert calls == [1, 2, 3]


def test_each_action_is_called_after_its_time_by_one_timer(clock):
    calls: list[str] = []
    later = Later(clock, 10)
    later.add(lambda: calls.append("a"))
    clock.advance(4)
    later.add(lambda: calls.append("b"))
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(6)
    assert calls == ["a"]
    clock.advance(4)
    assert calls == ["a", "b"] and not clock.getDelayedCalls()


def test_an_action_that_is_called_off_is_not_called_and_nothing_waits_for_it(clock):
    calls: list[str] = []
    later = Later(clock, 10)
    first = later.add(lambda: calls.append("a"))
    clock.advance(1)
    for name in "bc":
        later.add(lambda name=name: calls.append(name)).clear()
    first.clear()
    clock.advance(9)
    assert calls == [] and not clock.getDelayedCalls()
