"""The local tier of one of several processes: the catalog in PostgreSQL, segments in a directory that all share.

Invariants: nothing of another process is touched at the start; a process that was taken for dead ends, and changes
nothing before that.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
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
from resumable.hooks.claimed import SharedHooks
from resumable.model.errors import CatalogUnavailable, StartupError, level_of
from resumable.model.workers import Worker
from resumable.replication.shared import SharedTier
from resumable.spool import Budget, Disk
from resumable.spool.segments import LossSweep, SegmentDirectory, SegmentSpool, SegmentSweeper
from resumable.spool.segments.segment_directory import OTHER
from resumable.spool.segments.segment_spool import UNMARKED
from resumable.uploads.context import UploadContext
from resumable.uploads.holds import JOINER, SWEEPER
from resumable.uploads.janitor import Endings
from resumable.uploads.joining import Joiner
from resumable.uploads.limits import IQuota, SharedDrain
from resumable.uploads.other_workers import DRAIN, UNREADABLE, OtherWorkers
from resumable.uploads.shared_holds import SharedHolds, SharedRoles

log = Logger()

#: Seconds between two rounds of what is left over, between two looks at all segments, and at the whole directory.
ROUND: Final = 10.0
LONG_ROUND: Final = 300.0
WHOLE_ROUND: Final = 3600.0
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
        names = SegmentDirectory(
            Disk(settings.modes),
            str(settings.upload_dir),
            installation=opened.installation,
            worker_id=me.id,
            new_name=lambda: secrets.token_hex(8),
        )
        names.check(opened.is_new, opened.directory)
        self._check_signs(names)
        self.spool = SegmentSpool(
            names,
            self.catalog.segments,
            batcher=lambda work: Batcher(reactor, work, name="puts"),
            pool=pool,
            budget=budget,
            record=self.catalog.jobs.do,
            may_mark=opened.is_new,
            agree=self.catalog.agree,
        )
        self.reads = _Starts(self.spool)
        self.roles = SharedRoles(self.claims, reactor)
        self.holds = SharedHolds(reactor, self.catalog, self.workers, self.wake)
        self.others = OtherWorkers(reactor, self.wake, self.claims, self.roles)
        self.drain = SharedDrain(DrainRecord(self.catalog.jobs), lambda: self.others.tell(DRAIN, ""))
        self.others.listen(DRAIN, lambda _: self.drain.look())
        access = settings.access
        self.quota: IQuota | None = SharedLedger(self.catalog.usage, *access.quotas, access.max_size)
        self.hooks = SharedHooks(self.claims, self.wake)
        self.tier = SharedTier(me.id, self.catalog.replicas, self.catalog.get_many, self.wake, reactor)
        self._sweeper = SegmentSweeper(names, self.catalog.segments, pool)
        self._joiner: Joiner | None = None
        self._losses: LossSweep | None = None
        self._loops: list[LoopingCall] = []
        self._ending = False

    def wall(self) -> float:
        """The time of day by the database's clock, as far as it is known: all processes go by one clock."""
        return time.time() + self._ahead

    def _check_signs(self, names: SegmentDirectory) -> None:
        """See that those who live use this directory, not another one with the same marker. Raises StartupError."""
        try:  # those that end in between are no longer there the second time
            another = names.unsigned(self.catalog.signed()) and names.unsigned(self.catalog.signed())
        except CatalogUnavailable as error:
            raise StartupError(f"--catalog: {error}") from error
        except OSError as error:
            raise StartupError(f"The upload directory {names.root} can't be read: {error.strerror}.") from error
        if another:
            raise StartupError(f"The upload directory {names.root} {OTHER}.")

    def open(self, context: UploadContext, ledger: Ledger, late: Callable[[], None]) -> None:
        """Register with the others. ``late``: called when the file of a finished upload is whole, for events that wait
        for it. Blocks. Raises StartupError, CatalogUnavailable, OSError."""
        self.catalog.enforce(*self._settings.access.quotas)
        self._pool.start()
        self.spool.start()
        names = self.spool.names
        names.sign()
        self.workers.register()
        self._ahead = self.workers.ahead
        self.catalog.start()
        self.workers.start()
        self.wake.start()
        self._joiner = Joiner(context, self.spool, self.catalog.segments, late)
        self._losses = LossSweep(
            names, self.catalog.segments, self._pool, Endings(context).lose, strangers=self._strangers
        )
        self.others.listen(UNREADABLE, self._losses.suspect)
        for work, seconds in (
            (self._look, 1.0),
            (self._join, ROUND),
            (self._gather, LONG_ROUND),
            (self._sweep, ROUND),
            (self._find_losses, ROUND),
            (self._sweep_whole, WHOLE_ROUND),
        ):
            loop = LoopingCall(_logged, work)
            loop.clock = self._reactor
            loop.start(seconds, now=seconds < ROUND)
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
            self._end_joiner,
            self.spool.stop,
            self.roles.stop,
            self.others.stop,
            self.wake.stop,
            self.claims.stop,
            self.catalog.stop,
            self.workers.stop,
            lambda: self._pool.run(self.spool.names.take_sign),
            self._pool.stop,
        ]

    def stop_threads(self) -> None:
        """After a start that failed. This worker's sign stays, as its row may."""
        for part in (self._pool, self.spool, self.wake, self.workers, self.catalog):
            part.stop()

    async def tidy(self) -> None:
        """After a round of the janitor: nothing."""

    async def unmounted(self) -> str | None:
        """Why the upload directory can't be relied upon at the moment; None: it can."""
        try:
            return None if await self.spool.is_ours() else UNMARKED
        except OSError as error:
            return f"the upload directory can't be read: {error.strerror}"

    # Now and then

    async def _look(self) -> None:
        self._ahead = self.workers.ahead
        await self.drain.look()
        await self.workers.bury_dead()

    async def _join(self) -> None:
        if self._joiner is not None and await self.roles.granted(JOINER):
            await self._joiner.sweep()

    async def _gather(self) -> None:
        if self._joiner is not None and await self.roles.granted(JOINER):
            await self._joiner.gather()

    async def _sweep(self) -> None:
        if await self.roles.granted(SWEEPER):
            await self._sweeper.sweep_discarded()

    async def _find_losses(self) -> None:
        if self._losses is not None and await self.roles.granted(SWEEPER):
            await self._losses.step()

    async def _sweep_whole(self) -> None:
        if await self.roles.granted(SWEEPER):
            await self._sweeper.sweep_unknown()
            await self._pool.run(self.spool.names.drop_signs, await self.workers.signed())

    async def _strangers(self) -> Sequence[str]:
        """Workers that live, and whose sign isn't in this directory: it isn't the one that they use."""
        names = self.spool.names
        missing = await self._pool.run(names.unsigned, await self.workers.signed())
        return await self._pool.run(names.unsigned, await self.workers.signed()) if missing else ()

    def _end_loops(self) -> None:
        self._heartbeat_time.hurry(self._settings.shutdown_timeout / 2)
        self._sweeper.stop()
        if self._losses is not None:
            self._losses.stop()
        for loop in self._loops:
            if loop.running:
                loop.stop()

    async def _end_joiner(self) -> None:
        if self._joiner is not None:
            await self._joiner.stop()

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

    def __init__(self, spool: SegmentSpool) -> None:
        self._spool = spool

    def start(self) -> None: ...

    def submit(self, start: tuple[str, int]) -> Deferred[bytes]:
        return self._spool.read_start(start)

    def stop(self) -> Deferred[None]:
        return succeed(None)


async def _logged(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except (CatalogUnavailable, OSError, Stopped) as error:
        log.emit(level_of(error), "work for all workers is tried again: {reason}", reason=str(error))
    except Exception:
        log.failure("work for all workers failed; it is tried again")


def _later(failure: Failure) -> None:
    failure.trap(CatalogUnavailable, Stopped)
    log.debug("the other workers are not known: {reason}", reason=failure.getErrorMessage())
