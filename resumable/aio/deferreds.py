"""Small helpers for Deferreds: coroutines that answer with one, waiters, work under way, a timer, kept answers.

Everything here runs in the reactor's thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

P = ParamSpec("P")
R = TypeVar("R")


def deferred(function: Callable[P, Coroutine[Deferred[Any], Any, R]]) -> Callable[P, Deferred[R]]:
    """An ``async def`` that starts at once when it is called, and answers its caller with a Deferred."""

    @wraps(function)
    def start(*args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        return Deferred.fromCoroutine(function(*args, **kwargs))

    return start


async def side_by_side(calls: Sequence[Callable[[], Coroutine[Deferred[Any], Any, R]]], at_once: int) -> Sequence[R]:
    """The answers of these calls, in order; so many are under way at most. Raises the first failure, and gives the
    others up."""
    turns = DeferredSemaphore(at_once)
    work = [turns.run(call) for call in calls]
    try:
        return await gatherResults(work, consumeErrors=True)
    except FirstError as first:
        for each in work:
            each.cancel()
        first.subFailure.raiseException()


_WAITING: Any = object()


class Task:
    """Runs an ``async def``; ``done`` gets its outcome, once. Half the cost of a Deferred.

    The work keeps its context variables, whatever runs between its steps (PEP 567).
    """

    __slots__ = ("_awaited", "_done", "_going", "_result", "_run", "_work")

    def __init__(self, work: Coroutine[Deferred[Any], Any, R], done: Callable[[R | Failure], None]) -> None:
        self._work, self._done = work, done
        self._run = copy_context().run
        self._going = False
        self._awaited: Deferred[Any] | None = None

    def cancel(self) -> None:
        """Cancel what it waits for."""
        if self._awaited is not None:
            self._awaited.cancel()

    def go(self, result: Any = None) -> None:
        """Begin, or go on with the result of what it waits for."""
        self._result = result
        if self._going:
            return
        self._going = True
        while self._result is not _WAITING:
            result, self._result, self._awaited = self._result, _WAITING, None
            try:
                if isinstance(result, Failure):
                    awaited = self._run(result.throwExceptionIntoGenerator, self._work)
                else:
                    awaited = self._run(self._work.send, result)
            except StopIteration as end:
                return self._done(end.value)
            except BaseException:
                result = None  # it may hold the traceback, which holds this frame
                return self._done(Failure())
            self._awaited = awaited
            awaited.addBoth(self.go)
        self._going = False


class Waiters:
    """Deferreds that wait for the same moment."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[None]:
        """Fires at the next `fire`; may be cancelled."""
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    def fire(self) -> None:
        """Wake all that wait now, in the order in which they came. One that begins to wait meanwhile waits for the
        next."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)


class TaskGroup:
    """Work under way that somebody has to wait for, or to cut off. ``on_failure`` gets each failure of it."""

    def __init__(self, on_failure: Callable[[Failure], object]) -> None:
        self._on_failure = on_failure
        self._running: set[Deferred[Any]] = set()
        self._ended = Waiters()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Deferred[Any], Any, Any] | Deferred[Any]) -> None:
        """Begin it; a Deferred has begun already."""
        task = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        self._running.add(task)
        task.addErrback(self._on_failure)
        task.addBoth(lambda _: self._over(task))

    def ended(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        return self._ended.wait() if self._running else succeed(None)

    def cancel(self) -> None:
        """Cut off all that is under way; ``on_failure`` gets each CancelledError."""
        for task in list(self._running):
            task.cancel()

    def _over(self, task: Deferred[Any]) -> None:
        self._running.discard(task)
        if not self._running:
            self._ended.fire()


class Timer:
    """One call of ``action`` that can be put off and called off."""

    def __init__(self, clock: IReactorTime, action: Callable[[], object]) -> None:
        self._clock = clock
        self._action = action
        self._call: IDelayedCall | None = None

    @property
    def pending(self) -> bool:
        """Whether the action will be called."""
        return self._call is not None

    def set(self, seconds: float) -> None:
        """Call the action after so many seconds from now, and not at the time that was set before."""
        self.clear()
        self._call = self._clock.callLater(seconds, self._fire)

    def clear(self) -> None:
        """Don't call it."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _fire(self) -> None:
        self._call = None
        self._action()


class Later:
    """Calls of actions, ``seconds`` after each was added, most of which are called off before: one timer for all."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._waiting: deque[tuple[float, list[Callable[[], object]]]] = deque()
        self._timer = Timer(clock, self._fire)

    def add(self, action: Callable[[], object]) -> list[Callable[[], object]]:
        """The list of the action: `clear` it, and it is not called."""
        actions = [action]
        self._waiting.append((self._clock.seconds() + self._seconds, actions))
        if not self._timer.pending:
            self._timer.set(self._seconds)
        return actions

    def _fire(self) -> None:
        now = self._clock.seconds()
        while self._waiting and (not self._waiting[0][1] or self._waiting[0][0] <= now):
            _, actions = self._waiting.popleft()
            for action in actions:
                action()
        if self._waiting:
            self._timer.set(self._waiting[0][0] - now)


class Remembered(Generic[R]):
    """Answers that are kept for ``seconds``, ``most`` of them; each is asked for once, however many wait for it.

    Invariants: failures are never kept; the answer that was longest unused goes first. A Deferred that is cancelled
    takes nothing from the others.
    """

    def __init__(self, clock: IReactorTime, seconds: float, most: int = 4096) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._kept: OrderedDict[bytes, tuple[float, R]] = OrderedDict()
        self._waiting: dict[bytes, list[Deferred[R]]] = {}

    def ask(self, key: bytes, make: Callable[[], Deferred[R]]) -> Deferred[R]:
        """The answer kept for ``key``, or the result of ``make``."""
        kept = self._kept.get(key)
        if kept is not None and self._clock.seconds() < kept[0]:
            self._kept.move_to_end(key)
            return succeed(kept[1])
        answer: Deferred[R] = Deferred()
        waiting = self._waiting.setdefault(key, [])
        waiting.append(answer)
        if len(waiting) == 1:
            make().addCallbacks(self._made, self._failed, callbackArgs=(key,), errbackArgs=(key,))
        return answer

    def _made(self, value: R, key: bytes) -> None:
        if self._seconds > 0:
            self._kept[key] = (self._clock.seconds() + self._seconds, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        for answer in self._waiting.pop(key):
            answer.callback(value)

    def _failed(self, failure: Failure, key: bytes) -> None:
        for answer in self._waiting.pop(key):
            answer.errback(Failure(failure.value))  # each is cleaned on its own
