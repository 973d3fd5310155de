"""Methods of the catalog's tables become jobs for the thread that has the one connection.

Invariant: the reactor never waits for the disk; the change behind an answer is durable (see batches.py). The spool's
thread does batches too, of changes that follow its files: a lock gives the connection to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from threading import Lock
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from resumable.aio.threads import IBatcher
from resumable.catalog.batches import CatalogJob
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Through

T = TypeVar("T")
P = ParamSpec("P")
AnyJob = CatalogJob[Any]
Work = Callable[[list[AnyJob]], Sequence[Any]]


def _nothing(connection: Any) -> None:
    """The last job: all jobs before it are done first."""


class IBatches(Protocol):
    """Runs jobs over one connection to a database."""

    def run(self, jobs: Sequence[AnyJob], /) -> list[Any]:
        """A result or a Failure for each job, in order; never raises."""

    def close(self) -> None:
        """Nothing runs after this."""


class Jobs:
    """Runs jobs at once until `start`, and then through a batcher, until `stop`.

    ``batcher`` is called with the function that does a batch and returns the IBatcher that will call it. ``on_facts``
    is called when a change with facts has reached the disk; None: nobody listens.
    """

    def __init__(
        self,
        batches: IBatches,
        batcher: Callable[[Work], IBatcher[AnyJob, Any]],
        on_facts: Callable[[], None] | None,
    ) -> None:
        self._batches = batches
        self._lock = Lock()
        self._batcher = batcher(self._work)
        self._on_facts = on_facts
        #: How many facts the jobs have written; those of a transaction that failed count too.
        self.facts = 0
        self._told = 0
        self._started = self._working = False
        self._last = CatalogJob(_nothing)

    def start(self) -> None:
        """From now on jobs go to the catalog's thread. Never before the process has forked for good."""
        self._started = self._working = True
        self._batcher.start()

    def stop(self) -> Deferred[None]:
        """Do the waiting jobs, write the log back, close the connection in its thread; may be repeated.

        Where `start` was never called, as when a start-up fails midway, it closes at once.
        """
        if self._working:
            self._working = False
            self._batcher.submit(self._last)
        elif not self._started:
            self._batches.close()
            return succeed(None)
        return self._batcher.stop()

    def now(self, job: CatalogJob[T]) -> T:
        """Do the job and return its answer. Blocks; before `start` only. Raises CatalogUnavailable."""
        result = self._batches.run([job])[0]
        if isinstance(result, Failure):
            result.raiseException()
        answer: T = result
        return answer

    def submit(self, job: CatalogJob[T], through: Through | None = None) -> Deferred[T]:
        """The job's answer from the catalog's thread; CatalogUnavailable when the catalog isn't running.

        ``through``: takes the job to a thread that does other work first, and then calls `do`.
        """
        if not self._working:
            return fail(CatalogUnavailable("the catalog is not running"))
        done: Deferred[T] = (through or self._batcher.submit)(job)
        return done.addCallback(self._tell) if job.writes and self._on_facts is not None else done

    def _tell(self, result: T) -> T:
        if self._told != self.facts and self._on_facts is not None:
            self._told = self.facts
            self._on_facts()
        return result

    def do(self, jobs: Sequence[AnyJob]) -> list[Any]:
        """A result or a Failure for each, in one batch. Blocks; in any thread; never raises."""
        with self._lock:
            return self._batches.run(jobs)

    def _work(self, jobs: list[AnyJob]) -> Sequence[Any]:
        results = self.do(jobs)
        if jobs[-1] is self._last:
            with self._lock:
                self._batches.close()
            results[-1] = None
        return results


class CatalogTable:
    """A table of the catalog. Its methods are jobs by the decorators below."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs


S = TypeVar("S", bound=CatalogTable)
Method = Callable[Concatenate[S, Any, P], T]


class _Submits(Protocol):
    def __call__(self, method: Method[S, P, T]) -> Callable[Concatenate[S, P], Deferred[T]]: ...


class _Runs(Protocol):
    def __call__(self, method: Method[S, P, T]) -> Callable[Concatenate[S, P], T]: ...


def _submitted(*, writes: bool = False, frees: bool = False) -> _Submits:
    def decorate(method: Method[S, P, T]) -> Callable[Concatenate[S, P], Deferred[T]]:
        @wraps(method)
        def submit(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
            job = CatalogJob(lambda connection: method(self, connection, *args, **kwargs), writes=writes, frees=frees)
            return self.jobs.submit(job)

        return submit

    return decorate


def _run_now(*, writes: bool = False) -> _Runs:
    def decorate(method: Method[S, P, T]) -> Callable[Concatenate[S, P], T]:
        @wraps(method)
        def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return self.jobs.now(
                CatalogJob(lambda connection: method(self, connection, *args, **kwargs), writes=writes)
            )

        return run

    return decorate


# Decorators of a table's methods, which are given the connection; their callers leave it out.
reads = _submitted()
"""It changes nothing. Its callers get a Deferred."""
writes = _submitted(writes=True)
"""It is a change. The Deferred of its callers fires once the change is durable."""
frees = _submitted(writes=True, frees=True)
"""The same for a change that leads to free space, so that it may use the space reserve."""
reads_now = _run_now()
"""It changes nothing, and blocks its callers. Before `Jobs.start` only."""
writes_now = _run_now(writes=True)
"""It is a change, durable when it returns, and blocks its callers. Before `Jobs.start` only."""
