"""The parts of the daemon as services that start and stop themselves.

Invariant: if one of them fails at the stop, those after it are stopped too, so that no thread outlives the stop and
keeps the process alive.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from resumable.aio.deferreds import Timer, deferred
from resumable.aio.threads import Stopped
from resumable.daemon import startup
from resumable.daemon.announcement import Started, open_to_all
from resumable.daemon.parts import Parts
from resumable.daemon.remote_tier import tell_of_strays
from resumable.daemon.terminal import ParentTerminal
from resumable.listening.listeners import Listeners
from resumable.listening.run_directory import RunDirectory
from resumable.masking import masked
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.model.workers import IWorkers
from resumable.uploads.holds import JANITOR

#: Seconds between two rounds of the janitor, at most.
SWEEP = 30.0
#: Seconds between two looks at free memory.
TIDY = 2.0
#: Seconds that events under way get at a stop, at most.
HOOKS_GRACE = 5.0

log = Logger()

Step = Callable[[], object]
"""It is done when it returns; or, if it returns something to await, when that is. False: some of it failed, and is
logged."""


async def take_all(steps: Iterable[Step]) -> bool:
    """Take the steps one after the other, and log those that fail. Whether none did."""
    good = True
    for step in steps:
        try:
            outcome = step()
            if isinstance(outcome, Awaitable):
                outcome = await outcome
            good = good and outcome is not False
        except Exception:
            good = False
            log.failure("a step of stopping failed; the others are taken all the same")
    return good


def log_failure(failure: Failure) -> None:
    """The end of background work that failed."""
    log.failure("background work failed", failure)


def warn_of_strangers(started: Started) -> None:
    """Once for a machine: a worker leaves it to its supervisor."""
    if (warning := open_to_all(started.settings, started.ports)) is not None:
        log.warn("{warning}", warning=warning)


class TwistdService(MultiService):
    """What `twistd` runs. ``name``: as `twistd` shows it. ``log_observer``: None where `twistd` writes the log.

    ``tell``: called once uploads are taken. ``terminal``: that of whoever starts a daemon; None in the foreground.
    """

    def __init__(self, daemonised: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.setName("resumable")  # type: ignore[no-untyped-call]
        self.log_observer: ILogObserver | None = None
        self.tell: Callable[[Started], None] = lambda started: None
        self.terminal: ParentTerminal | None = None
        self._daemonised = daemonised

    def _detached(self, started: Started) -> None:
        """The start of a daemon has succeeded: its parent ends after this."""
        if self.terminal is not None:
            self.terminal.told(started)

    def setServiceParent(self, parent: Any) -> None:
        """`twistd` begins to log after this; it asks its application how."""
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def reload(self) -> None:
        """At SIGHUP."""

    def _give_up(self, error: BaseException) -> None:
        """One line and status 1. A daemonised parent waits for an exception that isn't SystemExit."""
        if self._daemonised:
            if self.terminal is not None:
                self.terminal.failed(masked(str(error)))
            raise StartupError(masked(str(error))) from None
        raise SystemExit(f"resumable: {masked(str(error))}") from None


class Child(Service):
    """A part with one step to start and one to stop. ``start`` runs before anything is served, and may block."""

    def __init__(self, start: Callable[[], object], stop: Step) -> None:
        self._start = start
        self._stop = stop

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._start()

    def stopService(self) -> object:
        super().stopService()  # type: ignore[no-untyped-call]
        return self._stop()


class Ports(Child):
    """The ports of one site. They are bound while there may still be the right to; ``bound`` is logged for each."""

    def __init__(self, listeners: Listeners, bound: str, **fields: object) -> None:
        super().__init__(listeners.start, listeners.stop)
        self._listeners = listeners
        self._bound = bound
        self._fields = fields

    def privilegedStartService(self) -> None:
        """Raises StartupError. Nothing is accepted before the reactor runs."""
        for place in self._listeners.bind():
            log.info(self._bound, endpoint=place, **self._fields)


class Predecessors(Child):
    """The workers that used the run directory before: what they held is anybody's at once."""

    def __init__(self, run: RunDirectory, workers: IWorkers) -> None:
        super().__init__(lambda: self._declare().addErrback(log_failure), lambda: None)
        self._run = run
        self._workers = workers

    @deferred
    async def _declare(self) -> None:
        try:
            for each in self._run.dead:
                if await self._workers.declare_dead(each):
                    log.info("worker {worker}, which was here before, is dead: others do its work", worker=each)
        except (CatalogUnavailable, Stopped) as error:
            log.warn("what the workers before held is free a little later: {reason}", reason=str(error))
        else:
            self._run.forget_dead()


class Storage(Child):
    """The local tier: the upload directory, the catalog, and the threads that work on them."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(self._open, self._close)
        self._parts = parts

    def _open(self) -> None:
        """Blocks. Raises StartupError, CatalogUnavailable, OSError."""
        parts = self._parts
        late = (lambda: None) if parts.hooks is None else parts.hooks.late
        parts.local.open(parts.context, parts.access.ledger, late)

    async def _close(self) -> bool:
        return await take_all(self._parts.local.closing())


class Remotes(Child):
    """The remote tier; each process sends on what it holds."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(lambda: self._begin().addErrback(log_failure), self._end)
        self._parts = parts

    @deferred
    async def _begin(self) -> None:
        parts = self._parts
        if parts.tier is not None:
            parts.tier.start()
        with suppress(CatalogUnavailable):  # it is only logged
            await tell_of_strays(parts.catalog.replicas, parts.settings.remotes)

    async def _end(self) -> None:
        if self._parts.tier is not None:
            await self._parts.tier.stop()


class Clients(Child):
    """The requests of clients. At the stop, received bytes are committed and every request is answered."""

    def __init__(self, parts: Parts, reactor: Any) -> None:
        super().__init__(lambda: None, self._drain)
        self._parts = parts
        self._reactor = reactor

    async def _drain(self) -> bool:
        """Takes at most ``--shutdown-timeout`` and the disk's own time. Whether every step worked."""
        site = self._parts.site
        abort = Timer(self._reactor, site.abort_all)
        abort.set(self._parts.settings.shutdown_timeout)
        return await take_all([self._read, site.stop_idle, self._parts.uploads.stop, site.drained, abort.clear])

    async def _read(self) -> None:
        """Requests that the kernel has already are answered: the reactor reads all of them between two calls."""
        for _ in range(2):
            await deferLater(self._reactor, 0)


class Collector(Child):
    """The garbage collector, which has less to do while requests are served."""

    def __init__(self) -> None:
        super().__init__(self._begin, lambda: self._undo())
        self._undo: Callable[[], None] = lambda: None

    def _begin(self) -> None:
        self._undo = startup.spare_collector()


class Chores(Child):
    """Work of now and then: look at the free space, let the janitor sweep, give memory back if the process is ours."""

    def __init__(self, parts: Parts, reactor: Any, ours: bool = True) -> None:
        super().__init__(self._begin, self._end)
        self._parts = parts
        self._reactor = reactor
        self._loops = [(LoopingCall(self._tick), 1.0), (LoopingCall(self._sweep), self._sweep_every())]
        if ours:
            self._loops.append((LoopingCall(self._tidy), TIDY))
        for loop, _ in self._loops:
            loop.clock = reactor

    def _begin(self) -> None:
        for loop, interval in self._loops:
            loop.start(interval).addErrback(log_failure)

    def _end(self) -> None:
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()

    def _sweep_every(self) -> float:
        """Seconds between two rounds of the janitor: uploads expire soon after the time in their Upload-Expires."""
        settings = self._parts.settings
        shortest = min(settings.expire_after or SWEEP, settings.keep_partials or SWEEP)
        return min(SWEEP, max(1.0, shortest / 10))

    def _tick(self) -> None:
        self._parts.uploads.appends.tick(self._reactor.seconds())
        Deferred.fromCoroutine(self._parts.look()).addErrback(log_failure)

    @deferred
    async def _sweep(self) -> None:
        try:
            if await self._parts.roles.granted(JANITOR):
                await self._parts.uploads.janitor.sweep()
                await self._parts.local.tidy()
        except (CatalogUnavailable, Stopped) as error:
            if self.running:  # a stop in the middle of a round cuts it off; the next start continues it
                log.debug("the janitor's round failed; the next one tries again: {reason}", reason=str(error))
        except Exception:
            log.failure("the janitor's round failed; the next one tries again")

    def _tidy(self) -> None:
        """Memory is flat: give free memory back, unless bytes are flowing and need it again at once."""
        if not self._parts.budget.used:
            self._parts.pool.run(startup.give_back_heap).addErrback(log_failure)
