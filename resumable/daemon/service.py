"""``makeService``: the service that `twistd` starts.

`twistd` forks between ``makeService`` and the start, so nothing is opened and no thread runs before the start.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import Logger

from resumable.aio.deferreds import deferred
from resumable.aio.system import cores
from resumable.config.options import Options, Settings
from resumable.daemon import logs, startup
from resumable.daemon import remote_tier as tiers
from resumable.daemon.announcement import Started
from resumable.daemon.children import (
    HOOKS_GRACE,
    Child,
    Chores,
    Clients,
    Collector,
    Ports,
    Predecessors,
    Remotes,
    Storage,
    TwistdService,
    log_failure,
    take_all,
    warn_of_strangers,
)
from resumable.daemon.launching import command
from resumable.daemon.parts import Parts
from resumable.daemon.supervised import SupervisorService, owner_of
from resumable.daemon.systemd import ServiceManager
from resumable.daemon.terminal import ParentTerminal
from resumable.daemon.worker import Assignment, SupervisorLine, end_this_process, taken
from resumable.listening import run_directory
from resumable.listening.endpoints import ADMIN_LISTEN, check_ports
from resumable.listening.run_directory import RunDirectory
from resumable.masking import masked
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.spool import Disk

__all__ = ["Options", "UploadService", "makeService"]

log = Logger()


class UploadService(TwistdService):
    """The daemon: one upload directory, its threads, its ports. ``worker``: None if nobody supervises it. ``run``: its
    run directory, None if it has none of its own. ``environ``: how a service manager is reached.

    ``access.signed``, where URLs can be signed, mints them. ``whole_process``: the process has nothing else to do, so
    that its memory may be looked after.
    """

    whole_process = True

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        *,
        daemonised: bool = False,
        worker: Assignment | None = None,
        run: RunDirectory | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(daemonised)
        self._run = run
        self._parts = parts = Parts(settings, reactor, worker)
        self.access = parts.access
        self.supervisor = None if worker is None else SupervisorLine(worker.line, reactor, end_this_process)
        manager = ServiceManager(environ, reactor, os.getpid, time.monotonic)
        self._manager: ServiceManager | SupervisorLine = self.supervisor or manager
        for child in self._children(parts, reactor):
            child.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _children(self, parts: Parts, reactor: Any) -> Iterator[Child]:
        """In the order in which they start. They stop in the opposite one: from the ports down to the catalog."""
        settings, uploads, hooks = parts.settings, parts.uploads, parts.hooks
        run, workers = self._run, parts.local.workers
        if run is not None and workers is not None:
            yield Child(partial(run.remember, [workers.id]), run.close)
        yield Child(self._manager.starting, self._manager.stopped)
        if self.supervisor is not None and workers is not None:
            yield Child(partial(self.supervisor.registered, workers.id), lambda: None)
        yield Storage(parts)
        if run is not None and workers is not None:
            yield Predecessors(run, workers)
        yield Child(parts.operators.start, parts.operators.stop)
        yield Ports(parts.admin_listeners, "operators are answered on {endpoint}")
        if hooks is not None:
            yield Child(hooks.start, lambda: hooks.stop(min(HOOKS_GRACE, settings.shutdown_timeout)))
        yield Remotes(parts)
        yield Child(uploads.placer.start, uploads.placer.stop)
        yield Child(uploads.digester.start, uploads.digester.stop)
        yield Child(uploads.assembler.start, uploads.assembler.stop)
        yield Child(parts.access.start, parts.access.stop)
        yield Clients(parts, reactor)
        yield Chores(parts, reactor, self.whole_process)
        if self.supervisor is not None:
            yield Child(lambda: None, self.supervisor.closed)
        yield Ports(parts.listeners, "uploads are taken at {path} on {endpoint}", path=settings.base_path)
        if self.whole_process:
            yield Collector()
        yield Child(lambda: None, parts.operators.readiness.stopping)
        yield Child(lambda: None, parts.local.ending)
        seconds = 2 * settings.shutdown_timeout + HOOKS_GRACE
        yield Child(lambda: reactor.callWhenRunning(self._ready), lambda: self._manager.stopping(seconds))

    def _started(self) -> Started:
        parts = self._parts
        return Started(parts.settings, parts.listeners.open_ports, parts.admin_listeners.open_ports)

    def _ready(self) -> None:
        """The reactor runs."""
        self._manager.ready()
        if self.supervisor is None:
            self.tell(self._started())

    def privilegedStartService(self) -> None:
        """Bind the ports, while there may still be the right to. Nothing is accepted before the reactor runs."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except StartupError as error:
            self._give_up(error)
        if self.supervisor is None:
            warn_of_strangers(self._started())

    def startService(self) -> None:
        """Lock the directory and recover it, before anything is served. Blocks."""
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except BaseException as error:
            self._parts.stop_threads()
            if isinstance(error, (StartupError, CatalogUnavailable, OSError)):
                self._give_up(error)
            raise
        self._detached(self._started())

    def stopService(self) -> Deferred[None]:
        """Commit the received bytes, answer, close. Fires within ``shutdown_timeout`` and the disk's own time."""
        self.running = 0
        return self._stop()

    @deferred
    async def _stop(self) -> None:
        if await take_all([child.stopService for child in reversed(self.services)]):
            log.info("stopped; every byte that was received is committed")

    def reload(self) -> None:
        """Show renewed certificates. Other files that may change while it runs are read again anyway."""
        if self.running:
            log.info("certificates are read anew")
            self._manager.reloading()
            self._reload().addErrback(log_failure)

    @deferred
    async def _reload(self) -> None:
        for listeners in (self._parts.listeners, self._parts.admin_listeners):
            await listeners.reload()
        if self.running:
            self._manager.ready()

    def _give_up(self, error: BaseException) -> None:
        """What a supervisor is told, it says itself."""
        if self.supervisor is not None:
            self.supervisor.failed(masked(str(error)))
            raise SystemExit(1) from None
        super()._give_up(error)


def makeService(options: Options) -> TwistdService:
    """`twistd` calls this with the parsed options. A mistake of the user's ends with one line and status 1."""
    from twisted.internet import reactor

    settings = options.settings()
    if settings.check:
        react(lambda reactor: Deferred.fromCoroutine(_check(reactor, settings)))
    parent = getattr(options, "parent", None) or {}
    worker = taken(os.environ)
    try:
        check_directories(settings)
        if worker is None:
            settings, run = with_run_directory(settings)
            check_ports(settings.listen)
            check_ports(settings.admin_listen, ADMIN_LISTEN)
            service = _service(settings, run, reactor, parent, _of_workers(options, run))
        else:
            service = UploadService(worker.settle(settings), reactor, worker=worker)
    except StartupError as error:
        sys.stderr.write(f"resumable: {masked(str(error))}\n")
        raise SystemExit(1) from None
    number = None if worker is None else worker.number
    output = logs.output(parent, reactor)
    if output is not None:
        service.log_observer = logs.observer(settings.log_format, settings.log_level, output, number)
    if isinstance(service, SupervisorService) and output is not sys.stdout:
        service.launcher.output = output
    if not parent.get("nodaemon", True):
        service.terminal = ParentTerminal(parent, getattr(output, "path", None))
    startup.raise_file_limit()
    startup.keep_heap()
    startup.handle_signals(reactor, service.reload)
    return service


def _service(
    settings: Settings,
    run: RunDirectory | None,
    reactor: Any,
    twistd: Mapping[str, Any],
    arguments: Sequence[str],
) -> TwistdService:
    """That of one process, or of several and their supervisor. Raises StartupError."""
    daemonised, count = not twistd.get("nodaemon", True), worker_count(settings)
    if count is None or run is None:
        return UploadService(settings, reactor, daemonised=daemonised, run=run)
    command(twistd, arguments, 1)  # raises
    return SupervisorService(
        settings,
        run,
        reactor,
        partial(command, twistd, arguments),
        count=count,
        directory=None if twistd.get("rundir", ".") == "." else os.getcwd(),
        owner=owner_of(twistd),
        daemonised=daemonised,
    )


def _of_workers(options: Options, run: RunDirectory | None) -> Sequence[str]:
    """Their arguments. All that are ever started read the configuration file as it is now, as their user, too."""
    if run is None or not options.config.data or worker_count(options.settings()) is None:
        return options.arguments
    try:
        return (*options.arguments, f"--config={run.keep_config(options.config.data)}")
    except OSError as error:
        raise StartupError(f"{run.path}: the configuration file can't be copied to it: {error.strerror}") from error


def worker_count(settings: Settings) -> int | None:
    """How many processes take requests; None for this one alone, without a supervisor."""
    count = settings.workers or cores()
    return count if count > 1 else None


def check_directories(settings: Settings) -> None:
    """The directories that the settings name can be used. Raises StartupError."""
    disk, placing, path = Disk(settings.modes), settings.placing, str(settings.upload_dir)
    if settings.catalog is None:
        startup.check_directory(path, disk)
    elif settings.spool is None:
        startup.check_shared_directory(path, disk, placing.template is not None)
    if placing.template is not None:
        startup.check_places(path, str(placing.directory), disk, placing.rules.directory_mode)


def with_run_directory(settings: Settings) -> tuple[Settings, RunDirectory | None]:
    """The settings with the run directory, and this, where one is needed. Raises StartupError."""
    if settings.catalog is None:
        return settings, None
    run = run_directory.made(settings.run_dir, os.environ, startup.boot_id())
    admin_listen = run_directory.settled(settings.admin_listen, run.path)
    return evolve(settings, run_dir=run.path, admin_listen=admin_listen), run


async def _check(reactor: Any, settings: Settings) -> None:
    """``--check``: a line for each remote, and the end."""
    try:
        await tiers.check(reactor, settings, time.time, print)
    except StartupError as error:
        sys.stderr.write(f"resumable: {masked(str(error))}\n")
        raise SystemExit(1) from None
