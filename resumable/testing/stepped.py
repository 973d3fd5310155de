"""Fakes and drivers for tests of this package and of what is built on it. Public, and kept working like the rest.

`SteppedBatcher` and `SteppedPool` stand in for `resumable.aio.threads.Batcher` and ``Pool``: their work runs
when a `twisted.internet.task.Clock` advances, so a test gets each order of events that it asks for, the same each time.
``clock.advance(0)`` does all waiting work, and the work that follows from it. `SimulatedDisk` stands in for
`resumable.spool.Disk`. A SimulatedCrash inside of the work comes out of ``clock.advance``. Where real threads are
wanted without a reactor, `CallQueue` takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from random import Random
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.threads import AGAIN, Stopped, answer_batch, work_batch
from resumable.testing.simulated_disk import SimulatedCrash, SimulatedDisk

__all__ = ["CallQueue", "SimulatedCrash", "SimulatedDisk", "SteppedBatcher", "SteppedPool"]

J = TypeVar("J")
R = TypeVar("R")
P = ParamSpec("P")


class SteppedBatcher(Generic[J, R]):
    """Does, in one turn of the clock, all the jobs that wait, ``limit`` at most."""

    def __init__(
        self, clock: IReactorTime, work: Callable[[list[J]], Sequence[R | Failure]], *, limit: int = 256
    ) -> None:
        self._clock = clock
        self._work = work
        self._limit = limit
        self._waiting: list[tuple[J, Deferred[R]]] = []
        self._working = False
        self._stopping: list[Deferred[None]] = []

    def start(self) -> None:
        """Take jobs from now on."""
        self._working = True

    def submit(self, job: J) -> Deferred[R]:
        """See `resumable.aio.threads.IBatcher`."""
        if not self._working:
            return fail(Stopped("takes no more work"))
        answer: Deferred[R] = Deferred()
        if not self._waiting:
            self._clock.callLater(0, self._turn)
        self._waiting.append((job, answer))
        return answer

    def stop(self) -> Deferred[None]:
        """See `resumable.aio.threads.IBatcher`."""
        self._working = False
        if not self._waiting:
            return succeed(None)
        self._stopping.append(Deferred())
        return self._stopping[-1]

    def _turn(self) -> None:
        jobs = self._waiting[: self._limit]
        results = work_batch(self._work, jobs)
        del self._waiting[: self._limit]
        if self._waiting:
            self._clock.callLater(0, self._turn)
        answer_batch(jobs, results)
        if not self._waiting:
            stopping, self._stopping = self._stopping, []
            for done in stopping:
                done.callback(None)


class SteppedPool:
    """Does one call in each turn of the clock: the oldest, or with ``rng`` any, as if threads overtook each other."""

    def __init__(self, clock: IReactorTime, rng: Random | None = None) -> None:
        self._clock = clock
        self._rng = rng
        self._waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._working = False
        self._stopping: list[Deferred[None]] = []

    def start(self) -> None:
        """Take calls from now on."""
        self._working = True

    def run(self, f: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """See `resumable.aio.threads.IPool`."""
        if not self._working:
            return fail(Stopped("takes no more work"))
        answer: Deferred[R] = Deferred()
        self._waiting.append((partial(f, *args, **kwargs), answer))
        self._clock.callLater(0, self._turn)
        return answer

    @property
    def crowded(self) -> bool:
        """See `resumable.aio.threads.IPool`."""
        return bool(self._waiting)

    @property
    def urgent(self) -> bool:
        """See `resumable.aio.threads.IPool`."""
        return bool(self._waiting)

    def tell(self, f: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """See `resumable.aio.threads.IPool`; at once, as if the reactor were never late."""
        f(*args, **kwargs)

    def stop(self) -> Deferred[None]:
        """See `resumable.aio.threads.IPool`."""
        self._working = False
        if not self._waiting:
            return succeed(None)
        self._stopping.append(Deferred())
        return self._stopping[-1]

    def _turn(self) -> None:
        call, answer = self._waiting.pop(self._rng.randrange(len(self._waiting)) if self._rng else 0)
        try:
            result = call()
        except Exception:
            answer.errback(Failure())
        else:
            if result is AGAIN:
                self._waiting.append((call, answer))
                self._clock.callLater(0, self._turn)
                return
            answer.callback(result)
        if not self._waiting:
            stopping, self._stopping = self._stopping, []
            for done in stopping:
                done.callback(None)


@implementer(IReactorFromThreads)
class CallQueue:
    """A reactor's place for real threads: their calls run in the thread that waits in `until`."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        raise NotImplementedError("it has no threads of its own")

    def suggestThreadPoolSize(self, size: int) -> None:
        raise NotImplementedError("it has no threads of its own")

    def getThreadPool(self) -> Any:
        raise NotImplementedError("it has no threads of its own")

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self._calls.put(partial(callable, *args, **kwargs))

    def until(self, awaited: Deferred[R], timeout: float = 30.0) -> R:
        """Run the threads' calls until ``awaited`` fires; its result, or raises its failure.

        Raises queue.Empty when the threads have nothing to say for ``timeout`` seconds.
        """
        results: list[R | Failure] = []
        awaited.addBoth(results.append)
        while not results:
            self._calls.get(timeout=timeout)()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]
