"""``makeService``: the service that `twistd` starts.

`twistd` forks between ``makeService`` and the start, so nothing is opened and no thread runs before the start.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from resumable.aio.deferreds import deferred
from resumable.config.options import Options, Settings
from resumable.daemon import logs, startup
from resumable.daemon import remote_tier as tiers
from resumable.daemon.children import Child, Chores, Clients, Collector, Ports, Remotes, Storage, log_failure, take_all
from resumable.daemon.parts import Parts
from resumable.daemon.systemd import ServiceManager
from resumable.listening.endpoints import ADMIN_LISTEN, check_ports
from resumable.masking import masked
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.spool import Disk

__all__ = ["Options", "UploadService", "makeService"]

log = Logger()

#: Seconds that events under way get at a stop, at most.
HOOKS_GRACE = 5.0


class UploadService(MultiService):
    """The daemon: one upload directory, its threads, its ports. ``name``: as `twistd` shows it.

    ``access.signed``, where URLs can be signed, mints them.
    """

    def __init__(self, settings: Settings, reactor: Any, *, daemonised: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.setName("resumable")  # type: ignore[no-untyped-call]
        self.log_observer: ILogObserver | None = None
        self._daemonised = daemonised
        self._parts = parts = Parts(settings, reactor)
        self.access = parts.access
        self._manager = ServiceManager(os.environ, reactor, os.getpid, time.monotonic)
        for child in self._children(parts, reactor):
            child.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _children(self, parts: Parts, reactor: Any) -> Iterator[Child]:
        """In the order in which they start. They stop in the opposite one: from the ports down to the catalog."""
        settings, uploads, hooks = parts.settings, parts.uploads, parts.hooks
        yield Child(self._manager.starting, self._manager.stopped)
        yield Storage(parts)
        yield Child(parts.operators.start, parts.operators.stop)
        yield Ports(parts.admin_listeners, "operators are answered on {endpoint}")
        if hooks is not None:
            yield Child(hooks.start, lambda: hooks.stop(min(HOOKS_GRACE, settings.shutdown_timeout)))
        yield Remotes(parts)
        yield Child(uploads.placer.start, uploads.placer.stop)
        yield Child(uploads.assembler.start, uploads.assembler.stop)
        yield Child(parts.access.start, parts.access.stop)
        yield Clients(parts, reactor)
        yield Chores(parts, reactor)
        yield Ports(parts.listeners, "uploads are taken at {path} on {endpoint}", path=settings.base_path)
        yield Collector()
        yield Child(lambda: None, parts.operators.readiness.stopping)
        seconds = 2 * settings.shutdown_timeout + HOOKS_GRACE
        yield Child(lambda: reactor.callWhenRunning(self._manager.ready), lambda: self._manager.stopping(seconds))

    def setServiceParent(self, parent: Any) -> None:
        """`twistd` begins to log after this; it asks its application how."""
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Bind the ports, while there may still be the right to. Nothing is accepted before the reactor runs."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except StartupError as error:
            self._give_up(error)

    def startService(self) -> None:
        """Lock the directory and recover it, before anything is served. Blocks."""
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except BaseException as error:
            self._parts.stop_threads()
            if isinstance(error, (StartupError, CatalogUnavailable, OSError)):
                self._give_up(error)
            raise

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
        """One line and status 1. A daemonised parent waits for an exception that isn't SystemExit."""
        if self._daemonised:
            raise StartupError(masked(str(error))) from None
        raise SystemExit(f"resumable: {masked(str(error))}") from None


def makeService(options: Options) -> UploadService:
    """`twistd` calls this with the parsed options. A mistake of the user's ends with one line and status 1."""
    from twisted.internet import reactor

    settings = options.settings()
    if settings.check:
        react(lambda reactor: Deferred.fromCoroutine(_check(reactor, settings)))
    parent = getattr(options, "parent", None) or {}
    try:
        disk, placing = Disk(settings.modes), settings.placing
        startup.check_directory(str(settings.upload_dir), disk)
        if placing.template is not None:
            mode = placing.rules.directory_mode
            startup.check_places(str(settings.upload_dir), str(placing.directory), disk, mode)
        check_ports(settings.listen)
        check_ports(settings.admin_listen, ADMIN_LISTEN)
        service = UploadService(settings, reactor, daemonised=not parent.get("nodaemon", True))
    except StartupError as error:
        sys.stderr.write(f"resumable: {masked(str(error))}\n")
        raise SystemExit(1) from None
    service.log_observer = logs.observer_beside(parent, settings.log_format, settings.log_level, reactor)
    startup.raise_file_limit()
    startup.keep_heap()
    startup.handle_signals(reactor, service.reload)
    return service


async def _check(reactor: Any, settings: Settings) -> None:
    """``--check``: a line for each remote, and the end."""
    try:
        await tiers.check(reactor, settings, time.time, print)
    except StartupError as error:
        sys.stderr.write(f"resumable: {masked(str(error))}\n")
        raise SystemExit(1) from None
