"""The local tier of one of several processes: the catalog in PostgreSQL, and a spool that all share.

Invariants: nothing of another process is touched at the start; a process that was taken for dead ends, and changes
nothing before that.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import Batcher, Pool, Stopped
from resumable.auth.quota import Ledger
from resumable.auth.shared_quota import SharedLedger
from resumable.catalog.jobs import AnyJob, Work
from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.claims import PostgresClaims
from resumable.catalog.postgres.postgres_connection import AnswerTime, connector
from resumable.catalog.postgres.wake import PostgresWake
from resumable.catalog.postgres.worker_table import FRESH, DrainRecord, PostgresWorkers
from resumable.config.agreed import agreed_options, disagreements
from resumable.config.options import Settings
from resumable.daemon.shared_spool import ROUND, ISharedSpool, Round, SharedParts
from resumable.daemon.spool_in_directory import SpoolInDirectory
from resumable.hooks.claimed import SharedHooks
from resumable.model.errors import CatalogUnavailable, StartupError, level_of
from resumable.model.workers import Worker
from resumable.remotes.errors import RemoteError
from resumable.replication.shared import SharedTier
from resumable.spool import Budget
from resumable.uploads.context import UploadContext
from resumable.uploads.limits import IQuota, SharedDrain
from resumable.uploads.other_workers import DRAIN, OtherWorkers
from resumable.uploads.shared_holds import SharedHolds, SharedRoles

log = Logger()

#: Seconds that a worker that was taken for dead has to answer its clients.
LAST: Final = 1.0


class ManyProcesses:
    """Made before the process forks: it looks at the database, and leaves no connection. Raises StartupError.

    `open` begins; the ``pool``, which others use too, is started and stopped here.
    """

    def __init__(self, settings: Settings, reactor: Any, pool: Pool, budget: Budget) -> None:
        assert settings.catalog is not None
        self._settings = settings
        self._reactor = reactor
        self._pool = pool
        self._ahead = 0.0
        # A heartbeat goes over another connection in time, if its own is dead.
        self._answer_time, self._heartbeat_time = AnswerTime(), AnswerTime(FRESH)
        connect = connector(settings.catalog, self._answer_time)
        me = Worker(secrets.token_hex(8), socket.gethostname(), os.getpid(), time.time(), agreed_options(settings))
        self._me = me

        def batcher(name: str, work: Work) -> Batcher[AnyJob, Any]:
            return Batcher(reactor, work, name=name)

        self.catalog = PostgresCatalog(
            connect,
            me.id,
            batcher=batcher,
            deliverers=settings.hooks.deliverers,
            stored=settings.spool is not None,
            on_disowned=lambda: reactor.callFromThread(self._disowned),
        )
        try:
            opened = self.catalog.open()
        except CatalogUnavailable as error:
            raise StartupError(f"--catalog: {error}") from error
        self.workers = PostgresWorkers(
            connector(settings.catalog, self._heartbeat_time),
            *(me, reactor),
            batcher=batcher,
            questions=self.catalog.jobs,
            on_disowned=self._disowned,
            outage=self.catalog.outage,
        )
        self.claims = PostgresClaims(self.workers)
        self.wake = PostgresWake(connect, me.id, reactor, batcher=batcher)
        self.roles = SharedRoles(self.claims, reactor)
        self.holds = SharedHolds(reactor, self.catalog, self.workers, self.wake)
        self.others = OtherWorkers(reactor, self.wake, self.claims, self.roles)
        self.drain = SharedDrain(DrainRecord(self.catalog.jobs), lambda: self.others.tell(DRAIN, ""))
        self.others.listen(DRAIN, lambda _: self.drain.look())
        self._shared = shared = shared_spool(
            SharedParts(settings, reactor, pool, budget, self.catalog, opened, self.workers, self.others)
        )
        self.spool, self.lost, self.worthwhile = shared.spool, shared.lost, shared.worthwhile
        self.files, self.spool_state = shared.files, shared.state
        self.reads = _Starts(shared.read_start)
        access = settings.access
        self.quota: IQuota | None = SharedLedger(self.catalog.usage, *access.quotas, access.max_size)
        self.hooks = SharedHooks(self.claims, self.wake)
        self.tier = SharedTier(me.id, self.catalog.replicas, self.catalog.get_many, self.wake, reactor)
        self._loops: list[LoopingCall] = []
        self._ending = False

    def wall(self) -> float:
        """The time of day by the database's clock, as far as it is known: all processes go by one clock."""
        return time.time() + self._ahead

    def open(self, context: UploadContext, ledger: Ledger, late: Callable[[], None]) -> None:
        """Register with the others. ``late``: called when the file of a finished upload is whole, for events that wait
        for it. Blocks. Raises StartupError, CatalogUnavailable, OSError."""
        self.catalog.enforce(*self._settings.access.quotas)
        self._pool.start()
        self._shared.start()
        self.workers.register()
        self._ahead = self.workers.ahead
        self.catalog.start()
        self.workers.start()
        self.wake.start()
        for each in (Round(self._look, 1.0), *self._shared.begin(context, late)):
            loop = LoopingCall(self._go_round, each)
            loop.clock = self._reactor
            loop.start(each.seconds, now=each.seconds < ROUND)
            self._loops.append(loop)
        self._reactor.callWhenRunning(self._introduce)

    def ending(self) -> None:
        """The stop begins: a database that says nothing doesn't hold it up for long. But heartbeats go on: without them
        the requests under way would soon be a dead worker's."""
        self._answer_time.hurry(self._settings.shutdown_timeout / 2)

    def closing(self) -> Sequence[Callable[[], object]]:
        """The steps of closing, in order. What this process had under way is the others' after the last."""
        return [
            self._end_loops,
            *self._shared.closing(),
            self.roles.stop,
            self.others.stop,
            self.wake.stop,
            self.claims.stop,
            self.catalog.stop,
            self.workers.stop,
            *self._shared.last(),
            self._pool.stop,
        ]

    def stop_threads(self) -> None:
        """After a start that failed."""
        self._shared.stop_threads()
        for part in (self._pool, self.wake, self.workers, self.catalog):
            part.stop()

    async def tidy(self) -> None:
        """After a round of the janitor: nothing."""

    # Now and then

    async def _look(self) -> None:
        self._ahead = self.workers.ahead
        await self.drain.look()
        await self.workers.bury_dead()

    async def _go_round(self, each: Round) -> None:
        try:
            if each.role is None or await self.roles.granted(each.role):
                await each.work()
        except (CatalogUnavailable, OSError, RemoteError, Stopped) as error:
            log.emit(level_of(error), "work for all workers is tried again: {reason}", reason=str(error))
        except Exception:
            log.failure("work for all workers failed; it is tried again")

    def _end_loops(self) -> None:
        self._heartbeat_time.hurry(self._settings.shutdown_timeout / 2)
        self._shared.ending()
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def _introduce(self) -> None:
        Deferred.fromCoroutine(self._compare()).addErrback(_later)

    async def _compare(self) -> None:
        """Say what differs from the others, and whether messages can be heard."""
        others = [each for each in await self.workers.all() if each.id != self._me.id]
        found = (disagreements(self._me.options, other.options, other.node) for other in others)
        for difference in dict.fromkeys(each for differences in found for each in differences):
            log.error(
                "this worker and others disagree: {difference}; give all the same, and restart those that differ",
                difference=difference,
            )
        if not await self.wake.hears_itself():
            log.warn(
                "messages of other workers are not heard: set pool_mode = session in the pooler for this database, or"
                " name the server itself in --catalog; each worker looks at the rows once a second instead"
            )

    def _disowned(self) -> None:
        """This worker was taken for dead. Its clients get an answer, if they can, and it ends."""
        if self._ending:
            return
        self._ending = True
        log.critical("this worker was taken for dead by another, and ends")
        self._reactor.callLater(LAST, os._exit, 1)


class _Starts:
    """See `TierContext.reads`."""

    def __init__(self, read: Callable[[tuple[str, int]], Deferred[bytes]]) -> None:
        self.submit = read

    def start(self) -> None: ...

    def stop(self) -> Deferred[None]:
        return succeed(None)


def shared_spool(parts: SharedParts) -> ISharedSpool:
    """Where the settings have acknowledged bytes. Raises StartupError."""
    if parts.settings.spool is None:
        return SpoolInDirectory(parts)
    from resumable.daemon.spool_in_store import SpoolInStore

    return SpoolInStore(parts, parts.settings.spool)


def _later(failure: Failure) -> None:
    failure.trap(CatalogUnavailable, Stopped)
    log.debug("the other workers are not known: {reason}", reason=failure.getErrorMessage())
