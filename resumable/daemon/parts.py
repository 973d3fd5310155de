"""The objects of one daemon, made from its settings and wired in order.

`twistd` forks between ``makeService`` and the start, so nothing is opened here and no thread runs. Nothing is assigned
to an object after it was made.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from google_crc32c import Checksum as Crc32c
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import Pool
from resumable.auth.build import AccessControl, build
from resumable.auth.secret import AccessProblem
from resumable.config.options import Settings, has_page
from resumable.daemon import startup
from resumable.daemon.one_process import OneProcess
from resumable.daemon.operator_service import OperatorParts, OperatorService
from resumable.daemon.remote_tier import RemoteTier, TierContext
from resumable.daemon.worker import Assignment, Inherited
from resumable.hooks.calls import HookCounts
from resumable.hooks.claimed import SharedHooks
from resumable.hooks.hooks import HookDependencies, Hooks
from resumable.http.admission import Admission
from resumable.http.cors import Cors
from resumable.http.download import Downloads, Remotely, Ways
from resumable.http.draft import DraftSettings, Interim
from resumable.http.live import Live
from resumable.http.origin import Origin
from resumable.http.page.upload_page import UploadPage
from resumable.http.site import Root, StreamingSite
from resumable.http.tus import TusRoutes
from resumable.listening.endpoints import ADMIN_LISTEN, LISTEN, Terms
from resumable.listening.listeners import Listeners
from resumable.listening.shared_ports import Share
from resumable.model.errors import StartupError
from resumable.model.hooks import NoHooks
from resumable.model.outbox import IOutbox
from resumable.model.replica import NoReplication
from resumable.model.workers import BURIED
from resumable.protocol.checksum import STANDARD, Digest
from resumable.protocol.digests import NAMES
from resumable.protocol.draft import Limits
from resumable.protocol.errors import Refused, TusError
from resumable.protocol.tus import extensions_without
from resumable.replication.shared import SharedReplication
from resumable.spool import Budget
from resumable.spool.placed_files import PlacedFiles
from resumable.uploads.context import Counts, Questions, UploadContext
from resumable.uploads.digest_rules import DigestRules
from resumable.uploads.holds import SWEEPER
from resumable.uploads.janitor import Reclaimer
from resumable.uploads.limits import NoQuota, Space, UploadLimits
from resumable.uploads.uploads import Uploads

if TYPE_CHECKING:
    from resumable.daemon.many_processes import ManyProcesses

log = Logger()

#: The checksum algorithms by name, in order of preference (T43, T44): the standard library's, and crc32c.
ALGORITHMS: dict[str, Callable[[], Digest]] = {**STANDARD, "crc32c": Crc32c}


class Parts:
    """The objects that the daemon's children start, use and stop. Raises StartupError for files that can't be used.

    ``worker``: this process's part of the work; None if nobody supervises it.
    """

    def __init__(self, settings: Settings, reactor: Any, worker: Assignment | None = None) -> None:
        self.settings = settings
        self.worker = worker
        self._reactor = reactor
        self.pool = Pool(reactor, settings.writers, "spool")
        self.budget = Budget()
        self.local = local_tier(settings, reactor, self.pool, self.budget)
        self.catalog, self.spool, self.roles = self.local.catalog, self.local.spool, self.local.roles
        self._space = Space(settings.reserve if settings.spool is None else 0)
        self._blind = False
        places = PlacedFiles(self.spool, self.pool, settings.placing)
        self._counts = Counts()
        self._reclaimer = Reclaimer(self.catalog, self.spool, places, self._counts)
        self.tier = RemoteTier(settings, reactor, self._tier_context()) if settings.remotes else None
        if self.tier is not None and isinstance(self.tier.for_uploads, SharedReplication):
            shared = self.tier.for_uploads
            self.local.others.listen(BURIED, lambda _: shared.workers_died())
        self.hooks = hooks_of(
            *(settings, reactor, self.catalog.outbox, self._stop_upload, self.spool.path, self.local.hooks)
        )
        if self.hooks is not None:
            self.catalog.on_facts = self.hooks.wake
        self.access = self._access()
        self.context = self._upload_context(places)
        self.uploads = Uploads(
            self.context, self._reclaimer, algorithms=ALGORITHMS, new_id=lambda: secrets.token_hex(16), pool=self.pool
        )
        origin = Origin(
            settings.base_path, settings.public_url, settings.trusted_proxies, settings.location == "absolute"
        )
        forward = None if self.hooks is None else settings.hooks.forward
        admission = Admission(origin, self.access.guard, self.access.rates, forward)
        self._live = Live(reactor)
        tus = self._routes(origin, admission)
        self.operators = OperatorService(settings, reactor, origin, self._operator_parts())
        self.root = root = Root(tus, settings.base_path, self.operators.readiness, upload_page(settings))
        self.site = self._site(root, tus)
        sockets, share = (Inherited(), None) if worker is None else (worker.sockets, worker.share())
        self.listeners = self._listeners(settings.listen, lambda _: self.site, LISTEN, sockets.listen, share)
        self.operators.serve(self.site, root, admission, self._expiry)
        self.admin_listeners = self._listeners(
            settings.admin_listen, self.operators.site_at, ADMIN_LISTEN, sockets.admin_listen
        )

    def stop_threads(self) -> None:
        """After a start that failed: a process waits for its threads, and would keep port and lock."""
        for pool in self.access.pools:
            pool.stop()
        self.local.stop_threads()

    async def look(self) -> None:
        """See how much space is free. A disk that doesn't say is logged once, until it says so again."""
        try:
            await self._space.look(self.spool)
        except OSError as error:
            if not self._blind:
                log.warn("free space is not known: {reason}", reason=error.strerror)
            self._blind = True
        else:
            self._blind = False

    def _upload_context(self, places: PlacedFiles) -> UploadContext:
        """The context of the use cases."""
        settings, hooks, tier, ledger = self.settings, self.hooks, self.tier, self.access.ledger
        return UploadContext(
            catalog=self.catalog,
            spool=self.spool,
            holds=self.local.holds,
            others=self.local.others,
            worthwhile=self.local.worthwhile,
            objects=self.local.files,
            drain=self.local.drain,
            clock=self._reactor,
            wall=self.local.wall,
            boot_id=startup.boot_id(),
            limits=_limits(settings),
            space=self._space,
            places=places,
            counts=self._counts,
            replication=NoReplication() if tier is None else tier.for_uploads,
            replicas=self.catalog.replicas,
            quota=(self.local.quota or ledger) if ledger.counts else NoQuota(),
            delete_objects=settings.terminate_remote == "delete",
            records_facts=bool(settings.hooks.deliverers),
            questions=Questions(None if hooks is None else hooks.guards),
            progress=NoHooks() if hooks is None else hooks.progress,
            digests=DigestRules(NAMES.get(settings.digest), readable=settings.spool is None),
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
            draft=_draft_settings(settings) if settings.draft else None,
            live=self._live,
        )

    def _operator_parts(self) -> OperatorParts:
        """The objects that operators look at."""
        hooks, tier = self.hooks, self.tier
        return OperatorParts(
            catalog=self.catalog,
            pool=self.pool,
            budget=self.budget,
            context=self.context,
            uploads=self.uploads,
            hook_counts=HookCounts() if hooks is None else hooks.counts,
            replayed=(lambda: None) if hooks is None else hooks.replayed,
            lost=self.local.lost,
            spool_state=self.local.spool_state,
            replication=None if tier is None else tier.replication,
            worker=self.worker,
            live=self._live,
        )

    def _site(self, root: Root, tus: TusRoutes) -> StreamingSite:
        """The connections of clients."""
        settings = self.settings
        return StreamingSite(
            root,
            reactor=self._reactor,
            network_timeout=settings.network_timeout,
            min_rate=settings.min_rate,
            direct_from=settings.direct_from,
            refusal_fields=tus.refusal_fields,
            watch=self.operators.watch,
            http2=settings.http2,
            h2c=settings.h2c,
            max_connections=startup.most_connections(),
        )

    def _tier_context(self) -> TierContext:
        """The parts of the local tier that the remote tier needs."""

        async def reclaim() -> None:
            await self._reclaimer.make_room()
            await self.look()  # count the freed space before more is given up

        return TierContext(
            replicas=self.catalog.replicas,
            open=self.spool.reader,
            reads=self.local.reads,
            reclaim=reclaim,
            lacking=lambda: self._space.lacking,
            wall=self.local.wall,
            shared=self.local.tier,
            sweeps=lambda: self.roles.granted(SWEEPER),
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
        self,
        descriptions: Sequence[str],
        site_at: Callable[[str], StreamingSite],
        flag: str,
        inherited: Sequence[int],
        share: Share | None = None,
    ) -> Listeners:
        """Reads certificates. Raises StartupError."""
        settings = self.settings
        terms = Terms(settings.tls_client_ca, not settings.tls_client_optional, settings.trusted_proxies)
        return Listeners(
            *(self._reactor, descriptions, site_at, terms),
            pool=self.pool,
            wall=time.time,
            flag=flag,
            inherited=inherited,
            share=share,
        )

    def _expiry(self) -> dict[str, float]:
        return {**self.listeners.expiry(), **self.admin_listeners.expiry()}

    def _access(self) -> AccessControl:
        """The access rules. Reads files; raises StartupError for an error in them."""
        owner_of = self.catalog.owner_of
        try:
            return build(self.settings.access, self._reactor, owner_of, wall=time.time, salt=secrets.token_bytes(32))
        except AccessProblem as problem:
            raise StartupError(str(problem)) from problem


def local_tier(settings: Settings, reactor: Any, pool: Pool, budget: Budget) -> OneProcess | ManyProcesses:
    """The local tier that the settings ask for. Raises StartupError."""
    if settings.catalog is None:
        return OneProcess(settings, reactor, pool, budget)
    try:
        from resumable.daemon.many_processes import ManyProcesses
    except ImportError as error:
        raise StartupError(
            "--catalog postgresql://... needs the extra postgres: pip install 'resumable-server[postgres]'"
        ) from error
    return ManyProcesses(settings, reactor, pool, budget)


def upload_page(settings: Settings) -> UploadPage | None:
    """The page for browsers, if there is to be one."""
    if not has_page(settings):
        return None
    return UploadPage(
        settings.base_path,
        status_path=settings.status_path,
        downloads=settings.download,
        extensions=extensions_without(settings.disabled_extensions),
    )


def _draft_settings(settings: Settings) -> DraftSettings:
    return DraftSettings(
        Limits(settings.max_size, settings.min_append_size, settings.max_append_size),
        Interim(settings.interim),
        settings.expire_after,
    )


def _limits(settings: Settings) -> UploadLimits:
    return UploadLimits(
        settings.max_size,
        settings.expire_after,
        settings.remember,
        settings.ack_timeout,
        final_timeout=settings.final_timeout,
        keep_partials=settings.keep_partials,
    )


def hooks_of(
    settings: Settings,
    reactor: Any,
    outbox: IOutbox,
    stop: Callable[[str, TusError], Deferred[None]],
    path_of: Callable[[str], str],
    shared: SharedHooks | None = None,
) -> Hooks | None:
    """The hooks that the settings name; None, and no object or thread of theirs, without any. Raises StartupError.

    ``stop``: ends an upload, and answers its running request with that error. ``path_of``: where an upload's data is.
    ``shared``: see HookDependencies.
    """
    hooks = settings.hooks
    if not hooks.deliverers and not hooks.guards:
        return None

    def stop_upload(upload_id: str, answer: Refused) -> None:
        stop(upload_id, answer).addErrback(_not_stopped, upload_id)

    needs = HookDependencies(
        reactor=reactor,
        clock=reactor,
        wall=time.time,
        monotonic=time.monotonic,
        rng=Random(secrets.randbits(64)),
        new_id=lambda: f"ask_{secrets.token_hex(16)}",
        pool=lambda size: Pool(reactor, size, "hooks"),
        environment=os.environ,
        source=settings.public_url or settings.base_path,
        path_of=path_of,
        stop_upload=stop_upload,
        remotes=[spec.name for spec in settings.remotes],
        shared=shared,
    )
    try:
        return Hooks(hooks, needs, outbox)
    except ValueError as problem:
        raise StartupError(str(problem)) from problem


def _not_stopped(failure: Failure, upload_id: str) -> None:
    if not failure.check(TusError):  # the upload is gone by now
        log.failure("an upload could not be stopped", failure, upload=upload_id)
