"""The metrics, the readiness and the admin API of one daemon, and the site that serves them to operators.

Invariant: nothing here decides anything. A daemon without a listener for operators counts too, at next to no cost.
"""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from twisted.logger import LogLevel, globalLogPublisher

from resumable import __version__
from resumable.aio.threads import Pool, Stopped
from resumable.auth.secret import AccessProblem, Secret, read_secret
from resumable.catalog.sqlite import SqliteCatalog
from resumable.config.options import Settings
from resumable.daemon.worker import Assignment
from resumable.hooks.calls import HookCounts
from resumable.http.admin.api import Admin, AdminServices, PrincipalAuth, SocketAuth, TokenAuth
from resumable.http.admin.dashboard import Dashboard
from resumable.http.admin.history import History
from resumable.http.admin.overview import Check, DeadEvents, Overview, OverviewSources, Readiness
from resumable.http.admission import Admission
from resumable.http.live import Live
from resumable.http.origin import Origin
from resumable.http.site import Root, StreamingSite
from resumable.http.watch import STATUSES, RequestLog
from resumable.listening.endpoints import split_endpoint
from resumable.metrics.collector import Certificates, MetricsCollector, MetricSources
from resumable.metrics.machine_metrics import MachineMetrics
from resumable.metrics.meters import LogCounter, ReactorDelay, RemoteLag, RemoteLags
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.model.telemetry import SpoolState
from resumable.replication.remote_queue import RemoteQueue
from resumable.replication.service import Replication
from resumable.spool import Budget
from resumable.uploads.context import UploadContext
from resumable.uploads.operators import Census, Operators
from resumable.uploads.uploads import Uploads

if TYPE_CHECKING:
    from resumable.catalog.postgres.catalog import PostgresCatalog

#: Seconds that answers to operators get at the end.
GRACE = 1.0
#: Seconds for a change to be recorded.
ANSWERS = 5.0
#: Bytes. Nobody guesses the output of `openssl rand -hex 16`.
SHORTEST_TOKEN = 16


@frozen
class OperatorParts:
    """The parts of the daemon that are looked at. ``replayed``: dead events wait again. ``lost``: why the
    spool can't be relied upon, None where it can. ``spool_state``: None where it isn't in an object store. ``worker``:
    None if nobody supervises this process. ``live``: sends events."""

    catalog: SqliteCatalog | PostgresCatalog
    pool: Pool
    budget: Budget
    context: UploadContext
    uploads: Uploads
    hook_counts: HookCounts
    replayed: Callable[[], None]
    lost: Callable[[], Awaitable[str | None]]
    spool_state: Callable[[], SpoolState] | None = None
    replication: Replication | None = None
    worker: Assignment | None = None
    live: Live | None = None


class OperatorService:
    """``watch`` is for the site that takes uploads, ``readiness`` for both. `start` and `stop` with the daemon."""

    def __init__(self, settings: Settings, reactor: Any, origin: Origin, parts: OperatorParts) -> None:
        self._settings = settings
        self._reactor = reactor
        self._parts = parts
        self._delay = ReactorDelay(reactor)
        self._log_counts = LogCounter()
        level = None if settings.access_log == "off" else LogLevel.levelWithName(settings.access_log)
        self.watch = RequestLog(origin, secrets.token_hex(4), level)
        self.readiness = Readiness(self._checks(), reactor)
        self._token = _token(settings)
        self._census = Census(parts.catalog.listing, reactor, parts.context.wall)
        self._sites: dict[bool, StreamingSite] = {}
        self._own: StreamingSite | None = None
        self._history: History | None = None

    def serve(self, site: StreamingSite, root: Root, admission: Admission, certificates: Certificates) -> None:
        """Make the objects that answer operators; ``site`` is the one for uploads. Raises StartupError."""
        services = self._services(site, certificates)
        worker = self._parts.worker
        if worker is not None and worker.socket is not None:
            self._own = StreamingSite(Admin(services, SocketAuth()).resource, reactor=self._reactor)
            machine = MachineMetrics(self._reactor, services.metrics, worker.number, worker.others)
            services = evolve(services, metrics=machine)
        if self._settings.admin_on_public:
            if admission.guard is None:
                raise StartupError("--admin-on-public needs a way to tell who is an admin: see --admin")
            root.admin = Admin(services, PrincipalAuth(admission)).tree
        for private, auth in ((True, SocketAuth()), (False, TokenAuth(self._token, admission))):
            self._sites[private] = StreamingSite(Admin(services, auth).resource, reactor=self._reactor)

    def site_at(self, description: str) -> StreamingSite:
        """The site for one listener of operators: only the permissions of a Unix socket identify them. A worker's own
        socket is for what it alone knows."""
        worker = self._parts.worker
        if self._own is not None and worker is not None and description == worker.socket:
            return self._own
        return self._sites[split_endpoint(description)[0] == "unix"]

    def start(self) -> None:
        self._delay.start()
        if self._history is not None:
            self._history.start()
        globalLogPublisher.addObserver(self._log_counts)

    async def stop(self) -> None:
        """Its ports must have been closed before."""
        self._delay.stop()
        if self._history is not None:
            self._history.stop()
        for site in (*self._sites.values(), *([] if self._own is None else [self._own])):
            await site.close_connections(GRACE)
        globalLogPublisher.removeObserver(self._log_counts)

    def _services(self, site: StreamingSite, certificates: Certificates) -> AdminServices:
        parts, hooks = self._parts, self._settings.hooks.deliverers
        outbox, queues = parts.catalog.outbox, {} if parts.replication is None else parts.replication.queues
        lags = RemoteLags(queues, parts.catalog.replicas, self._reactor, parts.context.wall) if queues else None
        operators = Operators(parts.context, parts.uploads, parts.catalog.listing, queues)
        sources = OverviewSources(
            version=__version__,
            started_at=parts.context.wall(),
            clock=self._reactor,
            counts=parts.context.counts,
            drain=parts.context.drain,
            holds=parts.context.holds,
            space=parts.context.space,
            budget=parts.budget,
            disk=self._disk,
            census=self._census,
            readiness=self.readiness,
            queues=queues,
            lags=lags,
        )

        async def look() -> dict[str, float | None]:
            return await self._figures(site, queues, lags)

        self._history = History(self._reactor, parts.context.wall, look)
        return AdminServices(
            MetricsCollector(self._sources(site, lags, certificates)),
            self.readiness,
            operators,
            Overview(sources, operators),
            DeadEvents(outbox, hooks, parts.replayed) if hooks else None,
            parts.live,
            self._history,
            Dashboard(),
        )

    async def _figures(
        self, site: StreamingSite, queues: Mapping[str, RemoteQueue], lags: RemoteLags | None
    ) -> dict[str, float | None]:
        """All that `History` tells of."""
        ended: Counter[str] = Counter()
        for method in self.watch.methods.values():
            ended.update(dict(method.by_status()))
        free: float | None = None
        used: float | None = None
        with suppress(OSError, Stopped):
            free, used = await self._disk()
        lag: RemoteLag | None = None
        with suppress(CatalogUnavailable):
            found = [await lags.of(name) for name in queues] if lags is not None else []
            lag = max(found, key=lambda each: each.size, default=RemoteLag(0, 0.0))
        logged = self._log_counts.counts()
        return {
            "received": site.received,
            "sent": sum(queue.counts.bytes for queue in queues.values()),
            "requests": sum(ended[name] for name in STATUSES),
            "refused": ended["4xx"],
            "failed": ended["5xx"],
            "retries": sum(queue.counts.retries + queue.counts.parked for queue in queues.values()),
            "complaints": sum(count for (level, _), count in logged.items() if level in ("error", "critical")),
            "lag": None if lag is None else lag.size,
            "lag_seconds": None if lag is None else lag.seconds,
            "free": free,
            "used": used,
            "appending": self._parts.context.holds.count,
            "queued": sum(queue.queued for queue in queues.values()),
        }

    async def _disk(self) -> tuple[int, int]:
        settings = self._settings
        directory = settings.upload_dir if settings.spool is None else settings.run_dir
        usage = await self._parts.pool.run(shutil.disk_usage, str(directory))
        return usage.free, usage.used

    def _sources(self, site: StreamingSite, lags: RemoteLags | None, certificates: Certificates) -> MetricSources:
        parts = self._parts
        return MetricSources(
            version=__version__,
            clock=self._reactor,
            wall=parts.context.wall,
            watch=self.watch,
            site=site,
            counts=parts.context.counts,
            holds=parts.context.holds,
            space=parts.context.space,
            budget=parts.budget,
            disk=self._disk,
            batches=parts.catalog.timing,
            outbox=parts.catalog.outbox,
            delay=self._delay,
            log_counts=self._log_counts,
            census=self._census,
            hooks=self._settings.hooks.deliverers,
            hook_counts=parts.hook_counts,
            replication=parts.replication,
            lags=lags,
            certificates=certificates,
            spool_state=parts.spool_state,
        )

    # Readiness

    def _checks(self) -> dict[str, Check]:
        checks: dict[str, Check] = {
            "catalog": self._catalog_writable,
            "directory": self._directory_there,
            "disk": self._disk_above_reserve,
        }
        if self._settings.catalog is None:  # a drain of all that share it would leave no server for what has begun
            checks["drain"] = self._not_draining
        if self._settings.ready_remotes != "none":
            checks["remotes"] = self._remotes_up
        return checks

    async def _catalog_writable(self) -> str | None:
        try:
            await self._parts.catalog.check().addTimeout(ANSWERS, self._reactor)
        except CatalogUnavailable as error:
            return str(error)
        except TimeoutError:
            return f"a change was not recorded within {ANSWERS:.0f} s"
        return None

    async def _directory_there(self) -> str | None:
        return await self._parts.lost()

    async def _disk_above_reserve(self) -> str | None:
        return "the free space is down to the reserve" if self._parts.context.space.room <= 0 else None

    async def _not_draining(self) -> str | None:
        return None if self._parts.context.drain.since is None else "no upload may begin"

    async def _remotes_up(self) -> str | None:
        if self._parts.replication is None:
            return None
        queues, every = self._parts.replication.queues, self._settings.ready_remotes == "all"
        down = [name for name, queue in queues.items() if queue.down and (every or queue.remote.required)]
        return f"down: {', '.join(down)}" if down else None


def _token(settings: Settings) -> Secret | None:
    """The credentials that operators need except at a Unix socket. Blocks. Raises StartupError."""
    if settings.admin_token_file is None:
        return None
    try:
        token = read_secret("--admin-token-file", None, settings.admin_token_file)
    except AccessProblem as problem:
        raise StartupError(str(problem)) from problem
    if len(token.reveal()) < SHORTEST_TOKEN:
        raise StartupError(f"--admin-token-file: a token has at least {SHORTEST_TOKEN} bytes")
    return token
