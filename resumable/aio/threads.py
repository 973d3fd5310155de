"""Threads for blocking work, answered in the reactor.

Knows nothing of uploads.

Invariant: everything that was submitted before ``stop`` is done and answered, in the reactor's thread, before
the Deferred of ``stop`` fires; the threads have ended by then. Without work the threads sleep.

Generic types need `typing.Protocol` here where other rooms use zope's interfaces, which know no type variables.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

J = TypeVar("J")
R = TypeVar("R")
J_contra = TypeVar("J_contra", contravariant=True)
P = ParamSpec("P")


AGAIN: Final = object()
"""The result of a call in a pool that wants to go on, after those that wait: it is called again, and not answered."""
IN_A_ROW: Final = 16
"""New calls that a thread of a pool does before one that wants to go on."""


class Stopped(Exception):
    """The work was submitted after ``stop`` (or before ``start``): no thread will do it."""


class IBatcher(Protocol[J_contra, R]):
    """Does jobs in groups, one group at a time, in the order of their submission."""

    def start(self) -> None:
        """Ready to work from now on."""

    def submit(self, job: J_contra) -> Deferred[R]:
        """The job's own result or failure; fails with Stopped when no thread would do it."""

    def stop(self) -> Deferred[None]:
        """Fires when everything submitted is done and answered and the thread has ended; may be repeated."""


class IPool(Protocol):
    """Does calls in one of a bounded number of threads, first come first served."""

    def start(self) -> None:
        """Ready to work from now on."""

    def run(self, f: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """The result of ``f``, later and in the reactor; fails with Stopped when no thread would do it."""

    @property
    def crowded(self) -> bool:
        """Whether calls wait for a thread, be it to go on: a long one should end soon. For any thread."""

    @property
    def urgent(self) -> bool:
        """Whether new calls wait for a thread: a long one should let them pass now. For any thread."""

    def tell(self, f: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """From within a call: have ``f`` called in the reactor, before the call's own result."""

    def stop(self) -> Deferred[None]:
        """Fires when everything submitted is done and answered and the threads have ended; may be repeated."""


def answer_batch(jobs: Sequence[tuple[Any, Deferred[R]]], results: Sequence[R | Failure]) -> None:
    """Fire each job's Deferred with its result."""
    for (_, answer), result in zip(jobs, results, strict=True):
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)


def work_batch(
    work: Callable[[list[J]], Sequence[R | Failure]], jobs: Sequence[tuple[J, Deferred[R]]]
) -> Sequence[R | Failure]:
    """The results of one group; as many failures as there are jobs when ``work`` raised or miscounted."""
    try:
        results = work([job for job, _ in jobs])
        if len(results) != len(jobs):
            raise RuntimeError(f"{len(jobs)} jobs got {len(results)} results")
        return results
    except Exception as error:
        # a Failure of its own for each job: they go separate ways and are cleaned separately
        return [Failure(error) for _ in jobs]


class _Crew:
    """Threads that run one function until it returns; how they begin and end."""

    def __init__(self, reactor: IReactorFromThreads, names: Sequence[str]) -> None:
        self._reactor = reactor
        self._names = names
        self._threads: list[Thread] = []
        self._alive = 0
        self._waiting: list[Deferred[None]] = []
        self.working = False

    def start(self, target: Callable[[], None]) -> None:
        if self._alive:
            raise RuntimeError("already started")
        self.working = True
        self._alive = len(self._names)
        self._threads = [Thread(target=self._run, args=(target,), name=name) for name in self._names]
        for thread in self._threads:
            thread.start()

    def stop(self, tell: Callable[[], None]) -> Deferred[None]:
        """Call ``tell`` once for each thread, so that it returns; fires when all have ended."""
        if self.working:
            self.working = False
            for _ in self._threads:
                tell()
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._fire_if_ended()
        return done

    def _run(self, target: Callable[[], None]) -> None:
        try:
            target()
        finally:
            self._reactor.callFromThread(self._one_ended)

    def _one_ended(self) -> None:
        self._alive -= 1
        self._fire_if_ended()

    def _fire_if_ended(self) -> None:
        if self._alive:
            return
        for thread in self._threads:
            thread.join()  # it has nothing left to do but to return
        waiting, self._waiting, self._threads = self._waiting, [], []
        for done in waiting:
            done.callback(None)


class Batcher(Generic[J, R]):
    """One thread that does all jobs that wait in one go and answers them with one call in the reactor.

    ``work`` runs in that thread; it gets at most ``limit`` jobs, in order, and answers with as many results, a
    Failure for a job that failed. An exception fails the whole group. A larger limit makes fewer, longer groups
    and holds more jobs' resources at once; a smaller one shares a sync among fewer.

    Jobs wait in the reactor, not in the thread's queue, and go at the end of the reactor's turn: a thread that is
    woken by the first job of a turn takes it alone, and fights the reactor for the interpreter over each of them.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        work: Callable[[list[J]], Sequence[R | Failure]],
        *,
        name: str,
        limit: int = 256,
    ) -> None:
        self._reactor = reactor
        self._work = work
        self._limit = limit
        self._name = name
        self._waiting: list[tuple[J, Deferred[R]]] = []
        self._dispatching = False
        self._queue: SimpleQueue[list[tuple[J, Deferred[R]]] | None] = SimpleQueue()
        self._crew = _Crew(reactor, [name])

    def start(self) -> None:
        """Start the thread. Never before the process has forked for good."""
        self._crew.start(self._loop)

    def submit(self, job: J) -> Deferred[R]:
        """See `IBatcher.submit`. To be called in the reactor."""
        if not self._crew.working:
            return fail(Stopped(f"{self._name} takes no more work"))
        answer: Deferred[R] = Deferred()
        self._waiting.append((job, answer))
        if not self._dispatching:
            self._dispatching = True
            self._reactor.callFromThread(self._dispatch)
        return answer

    def stop(self) -> Deferred[None]:
        """See `IBatcher.stop`."""
        return self._crew.stop(self._end)

    def _end(self) -> None:
        if not self._dispatching:
            self._queue.put(None)

    def _dispatch(self) -> None:
        """Give the thread the next group, or rest."""
        group, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
        if group:
            self._queue.put(group)
            return
        self._dispatching = False
        if not self._crew.working:
            self._queue.put(None)

    def _done(self, group: list[tuple[J, Deferred[R]]], results: Sequence[R | Failure]) -> None:
        self._dispatch()
        answer_batch(group, results)

    def _loop(self) -> None:
        while (group := self._queue.get()) is not None:
            self._reactor.callFromThread(self._done, group, work_batch(self._work, group))
            del group  # while asleep, keep no job's bytes alive


_PoolJob: TypeAlias = tuple[Callable[[], Any], Deferred[Any]]


class Pool:
    """``size`` threads that share one queue of calls; those that want to go on stand in another.

    New calls pass those, so that a short call waits for no more than what is being done at the moment.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._new: deque[_PoolJob] = deque()
        self._again: deque[_PoolJob] = deque()
        self._places: SimpleQueue[bool] = SimpleQueue()
        """True for each call in either queue, False for each thread that is to end."""
        self._crew = _Crew(reactor, [f"{name}-{number}" for number in range(size)])
        self._ending = Lock()

    def start(self) -> None:
        """Start the threads. Never before the process has forked for good."""
        self._crew.start(self._loop)

    def run(self, f: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """See `IPool.run`. To be called in the reactor."""
        if not self._crew.working:
            return fail(Stopped(f"{self._name} takes no more work"))
        answer: Deferred[R] = Deferred()
        self._new.append((partial(f, *args, **kwargs), answer))
        self._places.put(True)
        return answer

    @property
    def crowded(self) -> bool:
        """See `IPool.crowded`."""
        return bool(self._new or self._again)

    @property
    def urgent(self) -> bool:
        """See `IPool.urgent`."""
        return bool(self._new)

    def tell(self, f: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """See `IPool.tell`."""
        self._reactor.callFromThread(f, *args, **kwargs)

    def stop(self) -> Deferred[None]:
        """See `IPool.stop`."""
        with self._ending:
            return self._crew.stop(lambda: self._places.put(False))

    def _take(self, new_first: bool) -> _PoolJob:
        for queue in (self._new, self._again) if new_first else (self._again, self._new):
            with contextlib.suppress(IndexError):  # another thread may have been quicker
                return queue.popleft()
        return self._take(new_first)  # each place has its call: it went into the queue that was looked at first

    def _loop(self) -> None:
        done = 0
        while self._places.get():
            done += 1
            call, answer = job = self._take(new_first=done % IN_A_ROW != 0)
            try:
                while (result := call()) is AGAIN:
                    with self._ending:
                        if self._crew.working:
                            self._again.append(job)
                            self._places.put(True)
                            break
            except Exception:
                self._reactor.callFromThread(answer.errback, Failure())
            else:
                if result is not AGAIN:
                    self._reactor.callFromThread(answer.callback, result)
                del result
            del call, answer, job  # while asleep, keep no job's bytes alive
