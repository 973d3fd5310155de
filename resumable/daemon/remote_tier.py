"""The remote tier of one daemon: its backends, replication to them, and the periodic work.

Invariant: without a remote there is none of this, and no thread of it runs; a remote that doesn't work is logged, and
the daemon starts nevertheless.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from resumable.aio.deferreds import TaskGroup
from resumable.aio.threads import IBatcher, Pool
from resumable.config.options import Settings
from resumable.model.errors import CatalogUnavailable, StartupError, level_of
from resumable.model.replica import IReplicas
from resumable.model.segments import REMOVED_AFTER
from resumable.model.upload import Upload
from resumable.protocol import metadata
from resumable.remotes import urls
from resumable.remotes.errors import RemoteError
from resumable.remotes.interfaces import IClosable, IJournal, IRemoteStorage, ISweeper
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.probe import probe
from resumable.remotes.regions import BodyMemory
from resumable.remotes.urls import BackendServices, RemoteSpec
from resumable.replication.context import Remote, ReplicationLimits
from resumable.replication.journal import CatalogJournal
from resumable.replication.service import SMALL_MEMORY, Replication
from resumable.replication.shared import SharedReplication, SharedTier
from resumable.replication.sweeper import LocalPolicy, LocalSweeper, StoreSweeper
from resumable.spool import Disk

log = Logger()

#: Threads for blocking work of backends: files of another mount, credentials, the SDKs.
THREADS = 4
#: Bytes of uploads in memory on their way to remotes; `SMALL_MEMORY` of them are for small uploads.
BODY_MEMORY = 16 << 20
#: Seconds between two sweeps of local data, and between two sweeps of a store.
LOCAL_EVERY = 1.0
SWEEP_EVERY = 6 * 3600.0


@frozen
class TierContext:
    """The parts of the daemon that the remote tier uses. ``open`` is the spool's `reader`, ``reads`` reads the starts
    of uploads, ``reclaim`` is the janitor's.

    ``lacking``: bytes of room that lack, see LocalSweeper. ``shared``: where several workers share the uploads.
    ``sweeps``: whether this worker may sweep now, asked before each time.
    """

    replicas: IReplicas
    open: Callable[[str], Deferred[Any]]
    reads: IBatcher[tuple[str, int], bytes]
    reclaim: Callable[[], Awaitable[None]]
    lacking: Callable[[], float]
    wall: Callable[[], float]
    shared: SharedTier | None
    sweeps: Callable[[], Awaitable[bool]]


class RemoteTier:
    """`start` when the catalog runs, `stop` while it still does.

    ``replication`` is this worker's own, ``for_uploads`` that of the use cases.
    """

    def __init__(self, settings: Settings, reactor: Any, context: TierContext) -> None:
        self._settings = settings
        self._reactor = reactor
        self._pool = Pool(reactor, THREADS, "remotes")
        self._reads = context.reads
        rng = Random(secrets.randbits(64))
        journals = {spec.name: CatalogJournal(context.replicas, spec.name) for spec in settings.remotes}
        self.backends = make(settings, reactor, self._pool, journals.__getitem__, context.wall, rng)
        self._sweeps = context.sweeps

        def make_replication(replicas: IReplicas, stored: Callable[[str], None] | None = None) -> Replication:
            return Replication(
                [
                    Remote(spec.name, self.backends[spec.name], spec.required, _accepts(spec), journals[spec.name])
                    for spec in settings.remotes
                ],
                replicas,
                context.open,
                self._reads.submit,
                clock=reactor,
                wall=context.wall,
                rng=rng,
                run=secrets.token_hex(8),
                limits=limits_of(settings),
                stored=stored,
            )

        self.for_uploads: Replication | SharedReplication
        if context.shared is None:
            self.for_uploads = self.replication = make_replication(context.replicas)
        else:
            self.for_uploads = SharedReplication(context.shared, make_replication)
            self.replication = self.for_uploads.own
        self._local = LocalSweeper(
            context.replicas,
            LocalPolicy(settings.local),
            wall=context.wall,
            reclaim=context.reclaim,
            lacking=context.lacking,
            age=settings.reclaim_after,
            delay=0.0 if context.shared is None else REMOVED_AFTER,
        )
        self._sweepers = [
            StoreSweeper(
                name,
                backend,
                context.replicas,
                context.wall,
                dry_run=settings.sweep == "dry-run",
                forget=journals[name].forget,
            )
            for name, backend in self.backends.items()
            if ISweeper.providedBy(backend) and settings.sweep != "off"
        ]
        self._tasks = TaskGroup(lambda failure: log.failure("background work for the remotes failed", failure))
        self._loops = [(LoopingCall(self._go, self._sweep_stores), SWEEP_EVERY)]
        if settings.local != "keep":
            self._loops.append((LoopingCall(self._go, self._sweep_local), LOCAL_EVERY))
        for loop, _ in self._loops:
            loop.clock = reactor

    def start(self) -> None:
        """Go on with the work of an earlier run; log each remote that doesn't work."""
        self._pool.start()
        self._reads.start()
        self.for_uploads.start()
        for loop, seconds in self._loops:
            loop.start(seconds)
        self._go(self._probe)

    async def stop(self) -> None:
        """Nothing of the tier is under way when this returns."""
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        self._tasks.cancel()
        await self.for_uploads.stop()
        for backend in self.backends.values():
            if IClosable.providedBy(backend):
                await IClosable(backend).close()
        await self._reads.stop()
        await self._pool.stop()

    def _go(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.start(_logged(work))

    async def _probe(self) -> None:
        for name, wrong in (await probe(self.backends.items(), self._reactor)).items():
            if wrong is None:
                log.info("remote ready", remote=name)
            else:
                log.error("remote {remote} does not work, and is tried again: {reason}", remote=name, reason=wrong)

    async def _sweep_local(self) -> None:
        if await self._sweeps():
            await self._local.sweep()

    async def _sweep_stores(self) -> None:
        if not await self._sweeps():
            return
        for sweeper in self._sweepers:
            await _logged(sweeper.sweep)


async def _logged(work: Callable[[], Awaitable[object]]) -> None:
    """Do background work and log its failure; the next call tries again."""
    try:
        await work()
    except CancelledError:
        log.debug("background work for the remotes was given up: the daemon stops")
    except (RemoteError, CatalogUnavailable) as error:
        log.emit(level_of(error), "background work for the remotes will be tried again: {reason}", reason=str(error))
    except Exception:
        log.failure("background work for the remotes failed; it will be tried again")


async def tell_of_strays(replicas: IReplicas, remotes: Sequence[RemoteSpec]) -> None:
    """Log each remote that replicas wait for and that isn't among the remotes of this run."""
    configured = {spec.name for spec in remotes}
    for name, count in sorted((await replicas.unfinished()).items()):
        if name not in configured:
            log.warn("{count} replicas wait for {remote}, and there is no such remote", count=count, remote=name)


def make(
    settings: Settings,
    reactor: Any,
    pool: Pool,
    journal_of: Callable[[str], IJournal],
    wall: Callable[[], float],
    rng: Random,
) -> dict[str, IRemoteStorage]:
    """The backends by the names of their remotes. Raises StartupError."""
    backends: dict[str, IRemoteStorage] = {}
    memory = BodyMemory(BODY_MEMORY - SMALL_MEMORY)
    for spec in settings.remotes:
        services = BackendServices(
            reactor=reactor,
            pool=pool,
            journal=journal_of(spec.name),
            disk=Disk(settings.modes),
            now=wall,
            rng=rng,
            environ=os.environ,
            part_size=settings.part_size,
            timeout=settings.remote_timeout,
            parts=settings.parts_per_remote,
            memory=memory,
        )
        try:
            backends[spec.name] = urls.make(spec, services)
        except ValueError as error:
            raise StartupError(f"remote {spec.name}: {error}") from error
    return backends


def limits_of(settings: Settings) -> ReplicationLimits:
    """The limits of replication as the options set them."""
    return ReplicationLimits(
        part_size=settings.part_size,
        per_upload=settings.parts_per_upload,
        per_remote=settings.parts_per_remote,
        total=settings.parts,
        base_delay=settings.retry_delay,
        max_delay=settings.retry_delay_max,
        attempts=settings.remote_attempts or 0,
        give_up_after=settings.give_up_after,
        max_lag=settings.max_lag,
        max_lag_age=settings.max_lag_age,
        acknowledges=settings.ack == "remote",
        whole_only=settings.spool is not None,
    )


def _accepts(spec: RemoteSpec) -> Callable[[Upload], bool]:
    if spec.when is None:
        return lambda upload: True
    return lambda upload: spec.accepts(metadata.parse(upload.metadata or ""))


async def tried(reactor: Any, settings: Settings, wall: Callable[[], float]) -> Mapping[str, str | None]:
    """Try each remote: the fault by its name, None without one. Raises StartupError for one that can't be made."""
    pool = Pool(reactor, THREADS, "remotes")
    pool.start()
    try:
        backends = make(settings, reactor, pool, lambda _: MemoryJournal(), wall, Random(secrets.randbits(64)))
        found = await probe(backends.items(), reactor)
        for backend in backends.values():
            if IClosable.providedBy(backend):
                await IClosable(backend).close()
    finally:
        await pool.stop()
    return found


async def check(reactor: Any, settings: Settings, wall: Callable[[], float], tell: Callable[[str], object]) -> None:
    """``--check``: `tried`, and the spool where that is a store, a line for each. Raises SystemExit with status 1
    unless all work; StartupError as `tried`."""
    spool = await tried_spool(reactor, settings)
    found = await tried(reactor, settings, wall)
    for name, wrong in spool.items():
        tell(f"resumable: spool {name}: {wrong or 'works'}")
    for spec in settings.remotes:
        tell(f"resumable: remote {spec.name}: {found[spec.name] or 'works'}")
    if not settings.remotes and not spool:
        tell("resumable: there is no remote to check; name one with --remote")
    if any(found.values()) or any(spool.values()):
        raise SystemExit(1)


async def tried_spool(reactor: Any, settings: Settings) -> Mapping[str, str | None]:
    """As `tried`, for the store that is the spool; nothing where that is a directory."""
    if settings.spool is None:
        return {}
    from resumable.daemon.spool_in_store import tried as tried_store

    return await tried_store(reactor, settings, settings.spool)
