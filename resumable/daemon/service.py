"""``makeService``: the only file that sees everything, and puts it together.

Order matters here and nowhere else. `twistd` forks between ``makeService`` and the start, so nothing is opened and
no thread runs before; the stop goes the way of the data, from the port down to the catalog.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from resumable.aio.threads import Batcher, Pool, Stopped
from resumable.auth.build import AccessControl, build
from resumable.auth.secret import AccessProblem
from resumable.catalog.sqlite import SqliteCatalog
from resumable.config.options import Options, Settings
from resumable.daemon import logs, signals, startup, stopping
from resumable.daemon import remote_tier as tiers
from resumable.daemon.digests import ALGORITHMS
from resumable.daemon.hooking import hooks_of
from resumable.daemon.operator_service import Seen, Sight
from resumable.daemon.remote_tier import RemoteTier, TierContext
from resumable.daemon.systemd import ServiceManager
from resumable.hooks.calls import HookCounts
from resumable.http.admission import Admission
from resumable.http.cors import Cors
from resumable.http.download import Downloads, Remotely, Ways
from resumable.http.origin import Origin
from resumable.http.root import Root
from resumable.http.site import StreamingSite
from resumable.http.tus import TusRoutes
from resumable.listening import ports
from resumable.listening.endpoints import Terms
from resumable.listening.listeners import Listeners
from resumable.masking import masked
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.model.hooks import NoHooks, QuestionKind
from resumable.model.replica import NoReplication
from resumable.protocol.errors import TusError
from resumable.protocol.tus import extensions_without
from resumable.spool import Budget, Disk, Spool
from resumable.spool.files import OWN
from resumable.uploads.context import UploadContext
from resumable.uploads.holds import LocalHolds
from resumable.uploads.janitor import Reclaimer
from resumable.uploads.limits import NoQuota, Space, UploadLimits
from resumable.uploads.places import PlacedFiles
from resumable.uploads.questions import Questions
from resumable.uploads.recovery import recover
from resumable.uploads.roles import JANITOR, REPLICATION, LocalRoles
from resumable.uploads.uploads import Uploads

__all__ = ["Options", "UploadService", "makeService"]

log = Logger()

#: Seconds between two rounds of the janitor, at most.
SWEEP = 30.0
#: Seconds that events under way get at a stop, at most.
HOOKS_GRACE = 5.0
#: Seconds between two looks at free memory.
TIDY = 2.0


class UploadService(Service):
    """The daemon: one upload directory, its threads, its ports. ``name`` is what `twistd` shows.

    ``access.signed``, where URLs can be signed, mints them.
    """

    def __init__(self, settings: Settings, reactor: Any, *, daemonised: bool = False) -> None:
        self.setName("resumable")  # type: ignore[no-untyped-call]
        self.settings = settings
        self._reactor = reactor
        self._daemonised = daemonised
        directory = str(settings.upload_dir)
        self._lock = startup.lock_of(directory)
        self._pool = Pool(reactor, settings.writers, "spool")
        self._budget = Budget()
        self._spool = Spool(
            directory,
            disk=Disk(settings.modes),
            batcher=lambda work: Batcher(reactor, work, name="puts"),
            pool=self._pool,
            budget=self._budget,
        )
        self._catalog = SqliteCatalog(
            os.path.join(directory, OWN, "catalog.sqlite3"),
            batcher=lambda work: Batcher(reactor, work, name="catalog"),
            deliverers=settings.hooks.deliverers,
        )
        self._roles = LocalRoles()
        self._space = Space(settings.reserve)
        places = PlacedFiles(self._spool, self._pool, settings.placing)
        self._reclaimer = Reclaimer(self._catalog, self._spool, places)
        self._tier = RemoteTier(settings, reactor, self._spot()) if settings.remotes else None
        self._hooks = hooks_of(settings, reactor, self._catalog.outbox, self._stop_upload, self._spool.path)
        if self._hooks is not None:
            self._catalog.on_facts = self._hooks.wake
        self.access = self._access()
        self._context = self._upload_context(places)
        self.uploads = Uploads(
            self._context, self._reclaimer, algorithms=ALGORITHMS, new_id=lambda: secrets.token_hex(16)
        )
        origin = Origin(
            settings.base_path, settings.public_url, settings.trusted_proxies, settings.location == "absolute"
        )
        forward = None if self._hooks is None else settings.hooks.forward
        admission = Admission(origin, self.access.guard, self.access.rates, forward)
        tus = self._routes(origin, admission)
        self._sight = Sight(settings, reactor, origin, self._seen())
        root = Root(tus, settings.base_path, self._sight.readiness)
        self.site = self._site(root, tus)
        self.listeners = self._listeners(settings.listen, lambda _: self.site)
        self._sight.serve(self.site, root, admission, self._expiry)
        self.admin_listeners = self._listeners(settings.admin_listen, self._sight.site_at, ports.ADMIN_LISTEN)
        self._loops = [
            LoopingCall(self._tick),
            LoopingCall(lambda: Deferred.fromCoroutine(self._sweep())),
            LoopingCall(self._tidy),
        ]
        for loop in self._loops:
            loop.clock = reactor
        self.log_observer: ILogObserver | None = None
        self._blind = False
        self._manager = ServiceManager(os.environ, reactor, os.getpid, time.monotonic)

    def _upload_context(self, places: PlacedFiles) -> UploadContext:
        """What the use cases reach."""
        settings, hooks, tier, ledger = self.settings, self._hooks, self._tier, self.access.ledger
        return UploadContext(
            catalog=self._catalog,
            spool=self._spool,
            holds=LocalHolds(self._reactor),
            clock=self._reactor,
            wall=time.time,
            boot_id=startup.boot_id(),
            limits=_limits(settings),
            space=self._space,
            places=places,
            replication=NoReplication() if tier is None else tier.replication,
            replicas=self._catalog.replicas,
            quota=ledger if ledger.counts else NoQuota(),
            delete_objects=settings.terminate_remote == "delete",
            records_facts=bool(settings.hooks.deliverers),
            questions=Questions(None if hooks is None else hooks.guards),
            progress=NoHooks() if hooks is None else hooks.progress,
        )

    def _routes(self, origin: Origin, admission: Admission) -> TusRoutes:
        """The routes of clients."""
        settings = self.settings
        return TusRoutes(
            self.uploads,
            origin=origin,
            cors=Cors(settings.cors),
            base_path=settings.base_path,
            max_size=settings.max_size,
            downloads=self._downloads() if settings.download else None,
            status_path=settings.status_path,
            extensions=extensions_without(settings.disabled_extensions),
            admission=admission,
        )

    def _seen(self) -> Seen:
        """What operators look at."""
        hooks, tier = self._hooks, self._tier
        return Seen(
            catalog=self._catalog,
            pool=self._pool,
            budget=self._budget,
            context=self._context,
            uploads=self.uploads,
            hook_counts=HookCounts() if hooks is None else hooks.counts,
            replayed=(lambda: None) if hooks is None else hooks.replayed,
            replication=None if tier is None else tier.replication,
        )

    def _site(self, root: Root, tus: TusRoutes) -> StreamingSite:
        """The connections of clients."""
        settings = self.settings
        return StreamingSite(
            root,
            reactor=self._reactor,
            network_timeout=settings.network_timeout,
            min_rate=settings.min_rate,
            refusal_fields=tus.refusal_fields,
            watch=self._sight.watch,
            http2=settings.http2,
            h2c=settings.h2c,
            max_connections=startup.most_connections(),
        )

    def _spot(self) -> TierContext:
        """What the remote tier needs of the local one."""

        async def reclaim() -> None:
            await self._reclaimer.reclaim()
            await self._look()  # what was freed is seen before more is given up

        return TierContext(
            replicas=self._catalog.replicas,
            open=self._spool.reader,
            reclaim=reclaim,
            space_needed=lambda: self._space.scarce,
            wall=time.time,
        )

    def _stop_upload(self, upload_id: str, reason: TusError) -> Deferred[None]:
        """Hooks end an upload. They are made before `uploads`, which asks them."""
        return self.uploads.stop_upload(upload_id, reason)

    def _downloads(self) -> Downloads:
        settings = self.settings
        remotely = Remotely(settings.download_from_remote)
        ways = Ways(remotely, settings.download_url_expires, settings.download_inline)
        return Downloads(self.uploads, ways)

    def _listeners(
        self, descriptions: Sequence[str], site_at: Callable[[str], StreamingSite], flag: str = ports.LISTEN
    ) -> Listeners:
        """Reads certificates. Raises StartupError."""
        settings = self.settings
        terms = Terms(settings.tls_client_ca, not settings.tls_client_optional, settings.trusted_proxies)
        return Listeners(self._reactor, descriptions, site_at, terms, pool=self._pool, wall=time.time, flag=flag)

    def _expiry(self) -> dict[str, float]:
        return {**self.listeners.expiry(), **self.admin_listeners.expiry()}

    def _access(self) -> AccessControl:
        """Who may do what. Reads files, and raises StartupError for what is wrong with them."""
        owner_of = self._catalog.owner_of
        try:
            return build(self.settings.access, self._reactor, owner_of, wall=time.time, salt=secrets.token_bytes(32))
        except AccessProblem as problem:
            raise StartupError(str(problem)) from problem

    # Start

    def setServiceParent(self, parent: Any) -> None:
        """`twistd` begins to log after this; it asks its application how."""
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Bind the ports, while there may still be the right to. Nothing is accepted before the reactor runs."""
        try:
            for place in self.listeners.bind():
                log.info("uploads are taken at {path} on {endpoint}", path=self.settings.base_path, endpoint=place)
            for place in self.admin_listeners.bind():
                log.info("operators are answered on {endpoint}", endpoint=place)
        except StartupError as error:
            self._give_up(error)

    def startService(self) -> None:
        """Take the directory and bring it in order, before anything is served. Blocks."""
        super().startService()  # type: ignore[no-untyped-call]
        try:
            self._open()
        except BaseException as error:
            for pool in self.access.pools:
                pool.stop()
            for tier in (self._spool, self._catalog, self._pool):
                tier.stop()  # a process waits for its threads: with one left it would stay, and keep port and lock
            if isinstance(error, (StartupError, CatalogUnavailable, OSError)):
                self._give_up(error)
            raise

    def _open(self) -> None:
        startup.take_lock(self._lock, str(self.settings.upload_dir))
        self._manager.starting()
        self._spool.start()
        opened = self._catalog.open()
        if opened.set_aside is not None:
            log.error("the catalog was damaged; what could be read was recovered", **_fields(opened))
        context = self._context
        found = recover(
            *(self._catalog, opened, self._spool, context.boot_id, context.wall()),
            asks=context.questions.asks(QuestionKind.FINISH),
            planned=context.places.planned,
        )
        log.info(
            "upload directory ready: {adopted} uploads moved on, {orphans} orphans, {lost} lost",
            adopted=found.adopted,
            orphans=found.orphans,
            lost=found.lost,
        )
        if self.access.ledger.counts:
            for each in self._catalog.owners():
                self.access.ledger.add(each.owner, each.size, each.unfinished_size, each.unfinished)
        self._pool.start()
        self._catalog.start()
        self.access.start()
        self._sight.start()
        for listeners in (self.listeners, self.admin_listeners):
            listeners.start()
        for loop, interval in zip(self._loops, (1.0, self._sweep_every(), TIDY), strict=True):
            loop.start(interval).addErrback(self._loop_failed)
        self.uploads.assembler.start()
        self.uploads.placer.start()
        Deferred.fromCoroutine(self._replicate()).addErrback(self._loop_failed)
        if self._hooks is not None:
            self._hooks.start()
        self._reactor.callWhenRunning(self._manager.ready)

    def _give_up(self, error: BaseException) -> None:
        """One line and status 1. A daemonised parent waits for an exception that isn't SystemExit."""
        if self._daemonised:
            raise StartupError(masked(str(error))) from None
        raise SystemExit(f"resumable: {masked(str(error))}") from None

    # Now and then

    def _sweep_every(self) -> float:
        """Seconds between two rounds of the janitor: what expires goes soon, as its Upload-Expires has said."""
        shortest = min(self.settings.expire_after or SWEEP, self.settings.keep_partials or SWEEP)
        return min(SWEEP, max(1.0, shortest / 10))

    async def _look(self) -> None:
        """See how much room there is; a disk that won't tell is complained of once, until it tells again."""
        try:
            await self._space.look(self._spool)
        except OSError as error:
            if not self._blind:
                log.warn("free space is not known: {reason}", reason=error.strerror)
            self._blind = True
        else:
            self._blind = False

    def _tick(self) -> None:
        self.uploads.appends.tick(self._reactor.seconds())
        Deferred.fromCoroutine(self._look()).addErrback(self._loop_failed)

    def _tidy(self) -> None:
        """Memory is flat: give back what is free, unless bytes are flowing and will want it again at once."""
        if not self._budget.used:
            self._pool.run(startup.give_back_heap).addErrback(self._loop_failed)

    async def _sweep(self) -> None:
        try:
            if await self._roles.granted(JANITOR):
                await self.uploads.janitor.sweep()
                await self._catalog.restore_reserve()
        except Exception as error:
            # A stop in the middle of a round cuts it off; the next start goes on with it.
            if self.running or not isinstance(error, (CatalogUnavailable, Stopped)):
                log.failure("the janitor's round failed; the next one tries again")

    async def _replicate(self) -> None:
        if not await self._roles.granted(REPLICATION):
            return
        if self._tier is not None:
            self._tier.start()
        with suppress(CatalogUnavailable):  # it is only told
            await tiers.tell_of_strays(self._catalog.replicas, self.settings.remotes)

    @staticmethod
    def _loop_failed(failure: Failure) -> None:
        log.failure("background work failed", failure)

    # Reload

    def reload(self) -> None:
        """Show renewed certificates; the other files that may change while it runs are looked at anyway."""
        if self.running:
            log.info("certificates are read anew")
            self._manager.reloading()
            Deferred.fromCoroutine(self._reload()).addErrback(self._loop_failed)

    async def _reload(self) -> None:
        for listeners in (self.listeners, self.admin_listeners):
            await listeners.reload()
        if self.running:
            self._manager.ready()

    # Stop

    async def _stop(self) -> None:
        hooks, tier, site = self._hooks, self._tier, self.site
        abort = self._reactor.callLater(self.settings.shutdown_timeout, site.abort_all)
        steps: list[stopping.Step] = [
            lambda: self._manager.stopping(2 * self.settings.shutdown_timeout + HOOKS_GRACE),
            self._sight.readiness.stopping,
            self.listeners.stop,
            self._stop_loops,
            self._read_what_came,
            site.stop_idle,
            self.uploads.stop,
            site.drained,
            lambda: abort.cancel() if abort.active() else None,
            self.access.stop,
            self.uploads.assembler.stop,
            self.uploads.placer.stop,
            *([] if tier is None else [tier.stop]),
            *([] if hooks is None else [lambda: hooks.stop(min(HOOKS_GRACE, self.settings.shutdown_timeout))]),
            self.admin_listeners.stop,
            self._sight.stop,
            self._spool.stop,
            self._catalog.stop,
            self._pool.stop,
            self._lock.release,
            self._manager.stopped,
        ]
        if await stopping.take_all(steps):
            log.info("stopped; every byte that was received is committed")

    async def _read_what_came(self) -> None:
        """Requests that the kernel has already are answered: between two calls of the reactor's it reads them all."""
        for _ in range(2):
            await deferLater(self._reactor, 0)

    def _stop_loops(self) -> None:
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def stopService(self) -> Deferred[None]:
        """Commit what was received, answer, let go. Fires within ``shutdown_timeout`` and the disk's own time."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())


def _limits(settings: Settings) -> UploadLimits:
    return UploadLimits(
        settings.max_size,
        settings.expire_after,
        settings.remember,
        settings.ack_timeout,
        final_timeout=settings.final_timeout,
        keep_partials=settings.keep_partials,
    )


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__ if not name.startswith("__")}


def makeService(options: Options) -> UploadService:
    """What `twistd` calls with the parsed options. A mistake of the user's ends with one line and status 1."""
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
        ports.check_ports(settings.listen)
        ports.check_ports(settings.admin_listen, ports.ADMIN_LISTEN)
        service = UploadService(settings, reactor, daemonised=not parent.get("nodaemon", True))
    except StartupError as error:
        sys.stderr.write(f"resumable: {masked(str(error))}\n")
        raise SystemExit(1) from None
    service.log_observer = logs.observer_beside(parent, settings.log_format, settings.log_level, reactor)
    startup.raise_file_limit()
    startup.keep_heap()
    signals.heed(reactor, service.reload)
    return service


async def _check(reactor: Any, settings: Settings) -> None:
    """``--check``: a line for each remote, and the end."""
    try:
        await tiers.check(reactor, settings, time.time, print)
    except StartupError as error:
        sys.stderr.write(f"resumable: {masked(str(error))}\n")
        raise SystemExit(1) from None
