"""Keeps the workers of one machine running: starts them, starts them again, and ends those that hang.

Invariants: a worker that has ended is reported before another gets its number, and is started again until the stop. A
worker is taken for hung only after it has left several questions in a row unanswered, asked a second apart: a machine
that was suspended, or a clock that jumps, asks no more of them. After the stop nothing is started, and nothing is left
running after its bound.

Here is no I/O: `Launch` starts processes, and lines come from them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import Timer
from resumable.daemon.systemd import STARTING
from resumable.model.errors import CatalogUnavailable

FIRST_PAUSE: Final = 1.0
"""Seconds before a worker that has ended is started again; doubled each time."""
LONGEST_PAUSE: Final = 30.0
STABLE: Final = 60.0
"""Seconds after which a worker counts as well: if it ends then, it is started again at once."""
ASK_EVERY: Final = 1.0
"""Seconds between two questions whether a worker's event loop runs."""
MOST_UNANSWERED: Final = 5
"""Questions in a row that a worker may leave unanswered."""
REAP_EVERY: Final = 0.05
"""Seconds between two looks at a process that has closed its line and is about to end."""
LINGER: Final = 5.0
"""Seconds that a process gets to end after it has closed its line."""

log = Logger()


class WorkerProcess(Protocol):
    """One process of a worker."""

    pid: int

    def tell(self, line: str) -> None:
        """Send it a line. One that can't be sent is lost."""

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""

    def status(self) -> int | None:
        """Its exit status, or the negative number of the signal that ended it; None while it runs."""


class ProcessEvents(Protocol):
    """Told of one process."""

    def heard(self, line: str) -> None:
        """It has sent a line."""

    def hung_up(self) -> None:
        """It has closed its line, and sends nothing more."""


Launch = Callable[[int, ProcessEvents], WorkerProcess]
"""Starts the worker with that number. Raises OSError."""


class WorkerState(Enum):
    """``PAUSED``: there is no process."""

    PAUSED = auto()
    STARTING = auto()
    READY = auto()


class WorkerSlot:
    """The worker with one number: its process now, or the pause before the next one.

    ``changed``: called when it gets ready, when it has ended, and when it has read its files anew. ``died``: called
    with the id that the process had in the catalog, if it had told one. ``gone``: called first when one has ended.
    ``id``: that of its process in the catalog, empty before it is known; ``named``: called when it is.
    """

    def __init__(
        self,
        number: int,
        launch: Launch,
        clock: IReactorTime,
        changed: Callable[[], None],
        died: Callable[[str], object],
    ) -> None:
        self.number = number
        self.state = WorkerState.PAUSED
        self.reloading = False
        self.accepts = False
        self.ended_with: int | None = None
        self.error = ""
        self.gone: Callable[[], object] = lambda: None
        self.named: Callable[[], object] = lambda: None
        self.process: WorkerProcess | None = None
        self._launch = launch
        self._clock = clock
        self._changed = changed
        self._died = died
        self.id = ""
        self._began = 0.0
        self._pause = 0.0
        self._unanswered = 0
        self._stopping = False
        self._trial = False
        self._again = Timer(clock, self.start)
        self._reap = Timer(clock, self.look)
        self._linger = Timer(clock, self.kill)

    def start(self, trial: bool = False) -> None:
        """Start its process. It is started again when it has ended; with ``trial`` only if it was ready before."""
        self._trial, self.error = trial, ""
        self.state, self.accepts, self._unanswered = WorkerState.STARTING, True, 0
        self._began = self._clock.seconds()
        try:
            self.process = self._launch(self.number, self)
        except OSError as error:
            self.error = error.strerror or str(error)
            log.error("worker {worker} can't be started: {reason}", worker=self.number, reason=self.error)
            self._end()

    def heard(self, line: str) -> None:
        """See `ProcessEvents.heard`."""
        word, _, rest = line.partition(" ")
        if word == "pong":
            self._unanswered = 0
        elif word == "worker":
            self.id = rest
            self.named()
        elif word == "ready":
            self.state, self.reloading, self._trial, self._unanswered = WorkerState.READY, False, False, 0
            self._changed()
        elif word == "error":
            self.error = rest
        elif word == "closed":
            self.accepts = False
            self._changed()

    def hung_up(self) -> None:
        """See `ProcessEvents.hung_up`."""
        if not self._linger.pending:
            self._linger.set(LINGER)
        self.look()

    def look(self) -> None:
        """See whether the process has ended."""
        status = None if self.process is None else self.process.status()
        if self.process is not None and status is None:
            self._reap.set(REAP_EVERY)
        elif self.process is not None:
            self._ended(status)

    def ask(self) -> None:
        """Once a second: ask its event loop for a sign of life. It runs once the worker is ready."""
        if self.process is None:
            return
        if self.process.status() is not None:
            self.look()
        elif not self._stopping:
            most = MOST_UNANSWERED if self.state is WorkerState.READY else STARTING
            if self._unanswered >= most:
                told = "worker {worker} has not answered for {seconds:g} s, and is killed"
                log.error(told, worker=self.number, seconds=most * ASK_EVERY, pid=self.process.pid)
                self.kill()
            self._unanswered += 1
            self.process.tell("ping")

    def reload(self) -> None:
        """Have it read its files anew. One that is starting reads them anyway."""
        if self.process is not None and self.state is WorkerState.READY:
            self.reloading = True
            self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Have it end, and start it no more."""
        self._stopping = True
        self._again.clear()
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End its process at once."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)

    def _ended(self, status: int | None) -> None:
        pid, known = None if self.process is None else self.process.pid, self.id
        self.ended_with, self.id = status, ""
        self.gone()
        if not (self._stopping or self._trial):
            reason = self.error or described(status)
            log.warn("worker {worker} has ended: {reason}", worker=self.number, reason=reason, pid=pid)
        if known:
            maybeDeferred(self._died, known).addErrback(_left_behind)
        self._end()

    def _end(self) -> None:
        for timer in (self._reap, self._linger):
            timer.clear()
        self.process, self.state, self.reloading, self.accepts = None, WorkerState.PAUSED, False, False
        if not (self._stopping or self._trial):
            up = self._clock.seconds() - self._began
            self._pause = 0.0 if up >= STABLE else min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
            log.info("worker {worker} is started again in {pause:g} s", worker=self.number, pause=self._pause)
            self._again.set(self._pause)
        self._changed()


def described(status: int | None) -> str:
    """How a process has ended, in words."""
    if status is None or status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


class Supervisor:
    """All workers of one machine, numbered from 1 to ``count``. ``died``: see `WorkerSlot`."""

    def __init__(self, count: int, launch: Launch, clock: IReactorTime, died: Callable[[str], object]) -> None:
        self._told_ready = False
        self._reloading = False
        self._ready: Callable[[], object] = lambda: None
        self._closed: Callable[[], object] = lambda: None
        self._stopping: Deferred[None] | None = None
        self._told_closed = False
        self._bound = Timer(clock, self._kill_all)
        self._ask = LoopingCall(self._ask_all)
        self._ask.clock = clock
        self.workers: Sequence[WorkerSlot] = [
            WorkerSlot(number, launch, clock, self._changed, died) for number in range(1, count + 1)
        ]

    @property
    def first(self) -> WorkerSlot:
        """The one that is started before the others; see `start`."""
        return self.workers[0]

    def start(self, ready: Callable[[], object]) -> None:
        """Start all but the first, which was started; ``ready`` is called once all are, and after each `reload`."""
        self._ready, self._told_ready = ready, False
        for each in self.workers[1:]:
            each.start()
        self._ask.start(ASK_EVERY, now=False).addErrback(
            lambda failure: log.failure("the workers are watched no more", failure)
        )
        self._changed()

    def reload(self) -> None:
        """Have all read their files anew."""
        if self._stopping is None:
            self._reloading = True
            for each in self.workers:
                each.reload()
            self._changed()

    def stop(self, bound: float, closed: Callable[[], object]) -> Deferred[None]:
        """Have all end, and kill those that still run after ``bound`` seconds. Fires when all have ended.

        ``closed`` is called when none of them accepts a connection any more.
        """
        self._closed = closed
        self._stopping = stopping = Deferred[None]()
        for each in self.workers:
            each.stop()
        self._bound.set(bound)
        self._changed()
        return stopping

    def _kill_all(self) -> None:
        for each in self.workers:
            if each.process is not None:
                log.error("worker {worker} doesn't end, and is killed", worker=each.number, pid=each.process.pid)
                each.kill()

    def _ask_all(self) -> None:
        for each in self.workers:
            each.ask()

    def _changed(self) -> None:
        """Tell what is so now, once."""
        if self._stopping is not None:
            if not self._told_closed and not any(each.accepts for each in self.workers):
                self._told_closed = True
                self._closed()
            if all(each.process is None for each in self.workers) and not self._stopping.called:
                self._bound.clear()
                if self._ask.running:
                    self._ask.stop()
                self._stopping.callback(None)
        elif not self._told_ready:
            if all(each.state is WorkerState.READY for each in self.workers):
                self._told_ready = True
                self._ready()
        elif self._reloading and not any(each.reloading for each in self.workers):
            self._reloading = False
            self._ready()


def _left_behind(failure: Failure) -> None:
    what = "what a dead worker has left is not given back at once"
    if failure.check(CatalogUnavailable):
        log.warn(what + ": {reason}", reason=failure.getErrorMessage())
    else:
        log.failure(what, failure)
