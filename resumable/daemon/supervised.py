"""The service of a machine with several workers: it binds their ports, and starts the processes that serve them.

Invariants: the ports are bound once, while there may still be the right to, and are never accepted from here. Nothing
starts before the first worker is ready; if that can't start, the reason that it gives is this process's own.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resumable.aio.deferreds import deferred
from resumable.config.options import Settings
from resumable.daemon.announcement import Started
from resumable.daemon.children import HOOKS_GRACE, Predecessors, TwistdService, log_failure, warn_of_strangers
from resumable.daemon.launching import Launcher, LaunchPlan
from resumable.daemon.parts import Parts
from resumable.daemon.supervisor import Supervisor, WorkerState, described
from resumable.daemon.systemd import ServiceManager
from resumable.daemon.worker import Assignment, Inherited
from resumable.listening import run_directory
from resumable.listening.run_directory import RunDirectory
from resumable.listening.shared_ports import ConnectionTable
from resumable.model.errors import StartupError

GRACE: Final = 5.0
"""Seconds that workers get beyond what their own stop takes at most."""
ERROR: Final = "resumable: "
"""Begins the line with the reason why a start has failed."""

log = Logger()


class SupervisorService(TwistdService):
    """``run``: the run directory. ``command``: the command line of the worker with a number; ``count``: how many there
    are; ``directory``: where they begin. ``owner``: user and group that the workers will have, if these are others than
    now."""

    def __init__(
        self,
        settings: Settings,
        run: RunDirectory,
        reactor: Any,
        command: Callable[[int], Sequence[str]],
        *,
        count: int,
        directory: str | None = None,
        owner: tuple[int, int] | None = None,
        daemonised: bool = False,
    ) -> None:
        super().__init__(daemonised)
        self._reactor = reactor
        self._settings = settings
        self._run = run
        self._count = count
        self._owner = owner
        own = [run_directory.endpoint_of(run.path, number) for number in range(1, count + 1)]
        self._machines = len(settings.admin_listen)
        self._parts = Parts(evolve(settings, admin_listen=(*settings.admin_listen, *own)), reactor)
        self._told = False
        self._sockets: tuple[list[int], list[int]] = [], []
        self._manager = ServiceManager(os.environ, reactor, os.getpid, time.monotonic)
        self.launcher = Launcher(LaunchPlan(command, self._assignment, directory), reactor)
        self._table = ConnectionTable.new(count)
        self.supervisor = Supervisor(count, self.launcher, reactor, self._declare_dead)
        connections = ConnectionTable(self._table, count)
        for each in self.supervisor.workers:
            each.gone = partial(connections.leave, each.number)
            each.named = self._remember

    def _assignment(self, number: int, line: int) -> Assignment:
        listen, admin = self._sockets
        own = admin[self._machines + number - 1 : self._machines + number]
        inherited = Inherited(tuple(listen), (*admin[: self._machines], *own))
        run = self._run
        return Assignment(number, self._count, line, self._table, inherited, str(run.path), run.descriptor)

    def _remember(self) -> None:
        """Who works here, for the server after this one."""
        self._run.remember(each.id for each in self.supervisor.workers if each.id)

    def _declare_dead(self, worker_id: str) -> object:
        """A worker has ended: what it held is anybody's."""
        workers = self._parts.local.workers
        return None if workers is None else workers.declare_dead(worker_id)

    def privilegedStartService(self) -> None:
        """Bind the ports, while there may still be the right to. The workers accept from them."""
        parts = self._parts
        try:
            parts.admin_listeners.bind()
            parts.listeners.bind()
            self._sockets = parts.listeners.hold(), parts.admin_listeners.hold()
            self._give_away()
        except StartupError as error:
            self._give_up(error)
        warn_of_strangers(self._started())

    def _started(self) -> Started:
        """Workers' own sockets for operators are left out."""
        parts = self._parts
        admin = parts.admin_listeners.open_ports[: self._machines]
        return Started(self._settings, parts.listeners.open_ports, admin)

    def _give_away(self) -> None:
        """The run directory belongs to the user that the workers will have."""
        if self._owner is not None and os.geteuid() == 0:
            self._run.give_away(*self._owner)

    def startService(self) -> None:
        """Start the first worker and, when it is ready, the others. Blocks until the first one is."""
        super().startService()  # type: ignore[no-untyped-call]
        self._manager.starting()
        first = self.supervisor.first
        first.start(trial=True)

        def ended() -> bool:
            if first.process is not None:
                first.look()
            return first.process is None

        def decided() -> bool:
            return ended() or first.state is WorkerState.READY

        asked: list[int] = []
        # Until the reactor runs and has a handler of its own: it would end this process only.
        signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
        self.launcher.wait(lambda: decided() or bool(asked))
        if asked:
            first.stop()
            self.launcher.wait(ended)
            self._reactor.callWhenRunning(self._reactor.stop)  # which closes the ports
            return
        if first.process is None:
            self._give_up(self._reason(first.ended_with, first.error))
        # It takes uploads already, so a stop may come: it waits for our handler, as twistd's would end with status 143.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.launcher.log_errors()
        if (workers := self._parts.local.workers) is not None:
            workers.jobs.start()
            Predecessors(self._run, workers).startService()
        self._reactor.callWhenRunning(self._start_others, bool(asked))
        self._detached(self._started())

    def _start_others(self, asked_to_stop: bool) -> None:
        """The reactor runs, and has our handlers of signals."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if asked_to_stop:
            self._reactor.stop()
        else:
            self.supervisor.start(self._ready)

    def _ready(self) -> None:
        """All workers accept, and have read files that may change."""
        if not self._told:
            self._told = True
            for each in self._parts.listeners.open_ports:
                log.info("{count} workers take uploads on {endpoint}", count=self._count, endpoint=each.place)
            self.tell(self._started())
        self._manager.ready()

    def _reason(self, status: int | None, error: str) -> StartupError:
        """Why the first worker has ended, as it says. Whatever else it says is shown before."""
        said = [line for _, line in self.launcher.said]
        *_, last = "", *(line for line in said if line.startswith(ERROR))
        for line in said:
            if line != last:
                sys.stderr.write(f"{line}\n")
        return StartupError(
            error or last.removeprefix(ERROR) or f"A worker has ended at its start ({described(status)})."
        )

    def stopService(self) -> Deferred[None]:
        """Have the workers stop, which takes no longer than their own stop, and close the ports."""
        self.running = 0
        return self._stop()

    @deferred
    async def _stop(self) -> None:
        parts = self._parts
        bound = 2 * self._settings.shutdown_timeout + HOOKS_GRACE + GRACE
        self._manager.stopping(bound + GRACE)
        ports: list[Deferred[None]] = []

        def close() -> None:
            ports.append(Deferred.fromCoroutine(parts.listeners.stop()).addErrback(log_failure))

        await self.supervisor.stop(bound, close)
        for each in ports:
            await each
        await parts.admin_listeners.stop()
        if parts.local.workers is not None:
            await parts.local.workers.jobs.stop()
        self._run.close()
        self._manager.stopped()
        log.info("stopped; all workers have ended")

    def reload(self) -> None:
        """Have the workers read files anew that may change."""
        if self.running:
            self._manager.reloading()
            self.supervisor.reload()


def owner_of(twistd: Mapping[str, Any]) -> tuple[int, int] | None:
    """User and group that twistd with these options will change to."""
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if uid is None and gid is None:
        return None
    if uid is not None and gid is None:
        with suppress(KeyError):
            gid = pwd.getpwuid(uid).pw_gid
    return (-1 if uid is None else uid, -1 if gid is None else gid)
