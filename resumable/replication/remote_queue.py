"""The uploads that one remote has to get: their order, their transfers, and the outcomes.

Invariants: memory and work under way are bounded; an upload has one transfer at a time; while the remote counts as
down no transfer begins but a trial, and uploads that never failed are tried first.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import Stopped
from resumable.model.replica import TransferProgress
from resumable.model.telemetry import REQUEST
from resumable.model.upload import Replica, ReplicaState, Upload
from resumable.remotes.interfaces import Intent
from resumable.remotes.regions import BodyMemory
from resumable.replication.context import Remote, RemoteCounts, ReplicationContext
from resumable.replication.failures import FailureRecorder, Reaction
from resumable.replication.health import Health
from resumable.replication.lag import Lag
from resumable.replication.progress import ReplicaCache, ReplicaProgress, fresher
from resumable.replication.transfer import Job, Transfer, TransferContext, TransferOutcome
from resumable.replication.work_queue import CATALOG_PAUSE, WorkQueue
from resumable.spool.datafile import NotWhole

ACTIVE = 64
"""Transfers at once; more where more parts may be on their way, so that small uploads can be as many."""

_log = Logger()


class RemoteQueue:
    """``stored`` is called with the id of each upload whose last required replica was stored here, ``caught_up`` when
    the lag has become less.

    ``slots``: parts on their way at once. ``lag`` is None where the operator set no bound.
    """

    def __init__(
        self,
        remote: Remote,
        context: ReplicationContext,
        slots: int,
        stored: Callable[[str], None],
        caught_up: Callable[[], None],
    ) -> None:
        name, limits = remote.name, context.limits
        bounded = remote.required and (limits.max_lag is not None or limits.max_lag_age is not None)
        self.remote = remote
        self.counts = counts = RemoteCounts()
        self.lag = Lag(name, context, self._unrecorded, caught_up) if bounded else None
        self._stored = stored
        self._whole_only = limits.whole_only
        self._wall = context.wall
        self._waiting = WorkQueue(name, context, self._wants, self._fill)
        self._health = Health(name, context, counts, down=self._waiting.clear, back=self.search, trial=self._fill)
        self._cache = ReplicaCache(name, context, self.lag)
        self._failures = FailureRecorder(name, context, counts)
        self._transfers = TransferContext(
            remote,
            context,
            DeferredSemaphore(slots),
            BodyMemory(context.memory),
            self._health.worked,
            self._confirmed,
            counts,
        )
        self._most = max(ACTIVE, slots)
        self._active: dict[str, Job] = {}
        self._filling = False
        self._running = False

    # -- start and stop

    def start(self) -> None:
        """Look for work in the catalog, and begin transfers from now on."""
        self._running = True
        if self.lag is not None:
            self.lag.look()
        self._health.hasten()  # a new start often follows a repair

    async def stop(self) -> None:
        """Give up the work under way; none of it goes on when this returns."""
        self._running = False
        jobs = list(self._active.values())
        for job in jobs:
            job.cancel()
        await DeferredList([job.done for job in jobs if job.done is not None])
        await self._health.stop()
        await self._waiting.stop()
        if self.lag is not None:
            await self.lag.stop()

    # -- news of uploads

    def chosen(self, upload: Upload, replica: Replica | None, intent: Intent | None) -> None:
        """The upload is new; ``replica``: its replica in this remote, None for none, and ``intent`` its intent."""
        progress = None
        if replica is not None:
            progress = ReplicaProgress(replica, replica, counted=0, request=REQUEST.get(), intent=intent)
        self._cache.remember(upload.id, progress)

    def committed(self, upload: Upload) -> None:
        """The upload has more bytes, or has finished."""
        job = self._active.get(upload.id)
        progress = self._cache.get(upload.id) if job is None else job.progress
        if progress is None:
            self._committed_unknown(upload, job)
            return
        self._cache.committed(progress, upload)
        progress.request = REQUEST.get() or progress.request
        if job is not None:
            job.news = True
            if job.transfer is not None:
                job.transfer.fill()
        elif not self._pauses(progress) and self._has_work(progress):
            self._add(upload.id)
        else:
            progress.upload = None

    def _committed_unknown(self, upload: Upload, job: Job | None) -> None:
        if job is not None:
            job.upload, job.news = fresher(job.upload, upload), True
        elif self._cache.lacks(upload.id) or not (upload.offset or upload.finished):
            return
        else:
            self._add(upload.id)
        if self.lag is not None:
            self.lag.uncertain()

    def ended(self, upload_id: str) -> None:
        """The upload is gone: stop the work for it, and remove its object or parts from the remote."""
        lacks = self._cache.lacks(upload_id)
        job = self._active.get(upload_id)
        self._cache.forget(upload_id, None if job is None else job.progress)
        if job is not None:
            job.cancel()
        elif not lacks:
            self._add(upload_id)

    def restarted(self, upload_id: str) -> None:
        """The replica was parked, and shall be tried again."""
        if upload_id not in self._active:
            self._cache.forget(upload_id)
            self._add(upload_id)

    def hurry(self, upload_id: str) -> None:
        """Somebody waits for the upload: end the pause before its next try, unless the store asked for one."""
        progress = self._cache.get(upload_id)
        if progress is not None and progress.replica.retry_at is not None and upload_id not in self._active:
            progress.hurried = True
            if not self._pauses(progress):
                self._add(upload_id)

    # -- for operators

    @property
    def queued(self) -> int:
        """Uploads that wait here for a transfer; more may wait in the catalog."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Transfers under way."""
        return len(self._active)

    @property
    def down(self) -> bool:
        """Whether the remote counts as down, so that it is only asked now and then."""
        return not self._health.breaker.closed

    @property
    def pause(self) -> float:
        """Seconds until a remote that is down is tried again."""
        return self._health.breaker.wait

    def progress(self, upload_id: str) -> TransferProgress | None:
        """How far the upload's transfer is; None: there is none under way."""
        job = self._active.get(upload_id)
        return None if job is None or job.transfer is None else job.transfer.sent_and_confirmed

    def remembers(self, upload_id: str) -> bool:
        """Whether the upload's replica is worked on, or its progress is remembered."""
        return upload_id in self._active or self._cache.get(upload_id) is not None

    # -- which upload is next

    def _add(self, upload_id: str) -> None:
        """There is work for this upload."""
        if self.down:
            if not self._has_failed(upload_id):
                self._waiting.prefer(upload_id)
            self._waiting.search()  # in the order of the catalog, once the remote is back
        else:
            self._waiting.add(upload_id)
        self._fill()

    def search(self) -> None:
        """Take uploads in the order of the catalog: those found before may not be the first that are due."""
        self._waiting.restart()
        self._fill()

    def _has_failed(self, upload_id: str) -> bool:
        progress = self._cache.get(upload_id)
        return progress is not None and progress.replica.failing_since is not None

    def _wants(self, replica: Replica, upload: Upload | None) -> bool:
        """Whether a row of the catalog is to be queued. A transfer under way finds its work without that."""
        return replica.upload_id not in self._active and self._has_work(self._cache.read(replica, upload))

    def _has_work(self, progress: ReplicaProgress) -> bool:
        """Whether a transfer would find something to do. Where only whole uploads can be read, not before the end."""
        begins = not self._whole_only or progress.upload is None or progress.upload.finished
        return progress.has_work and (begins or progress.replica.state is ReplicaState.ENDING)

    def _fill(self) -> None:
        """Begin as many transfers as may begin."""
        if self._filling or not self._running:
            return
        health = self._health
        self._filling = True
        while len(self._active) < self._most and health.admits:
            upload_id = self._waiting.take(self._has_failed if self.down else None)
            if upload_id is None:
                break
            if upload_id not in self._active:
                job = self._active[upload_id] = Job(upload_id, health.breaker.begin())
                job.done = Deferred.fromCoroutine(self._run(job))
                job.done.addBoth(self._over, job)
        self._filling = False
        if health.admits:
            self._waiting.refill()

    def _pauses(self, progress: ReplicaProgress) -> bool:
        """Whether the replica waits for its next try; if so, a timer will add it."""
        left = progress.pause(self._wall())
        if left > 0:
            self._waiting.add_later(progress.replica.upload_id, left)
        return left > 0

    # -- one transfer

    async def _run(self, job: Job) -> None:
        REQUEST.set("")  # this may run in a request that woke the queue for another upload
        try:
            progress = job.progress = await self._cache.ask(job.upload_id)
            if progress is None or self._pauses(progress):
                return
            if job.upload is not None:
                self._cache.committed(progress, job.upload)
            REQUEST.set(progress.request)
            if self._has_work(progress):
                job.transfer = Transfer(self._transfers, progress, lambda: self._waiting.crowded)
                self._came(job, progress, await job.transfer.run())
        except Stopped:  # the threads have stopped, and this queue soon will
            return
        except CancelledError as error:
            if not job.unwanted:
                await self._failed(job, error)
        except NotWhole as error:  # nobody's failure: there is news of it once it is whole, else a pass finds it
            _log.debug("not yet: {reason}", upload=job.upload_id, remote=self.remote.name, reason=error.strerror)
            job.early = True
        except Exception as error:
            await self._failed(job, error)

    def _came(self, job: Job, progress: ReplicaProgress, outcome: TransferOutcome) -> None:
        if outcome is TransferOutcome.RESTS:
            job.rested = True
            return
        self._forget(job)
        if outcome is TransferOutcome.COMPLETE:
            self.counts.completed += progress.replica.required
            self._stored(job.upload_id)
        if outcome is TransferOutcome.OVERTAKEN:
            self._waiting.add(job.upload_id)

    async def _failed(self, job: Job, error: Exception) -> None:
        failure = self._failures.count(job, error)
        is_attempt = not (failure.about_remote and self.down)
        if failure.about_remote:
            self._health.failed(failure, job.trial)
        reaction = await self._failures.record(job, failure, is_attempt)
        if reaction is Reaction.LATER:
            self._waiting.add_later(job.upload_id, CATALOG_PAUSE)
        elif reaction is Reaction.RETRY:
            if job.progress is None or not self._pauses(job.progress):  # recording it took longer than the pause
                self._waiting.add(job.upload_id)
        else:
            self._forget(job)
            if reaction is Reaction.OVERTAKEN:
                self._waiting.add(job.upload_id)

    def _forget(self, job: Job) -> None:
        self._cache.forget(job.upload_id, job.progress)
        job.progress = None

    def _over(self, result: Failure | None, job: Job) -> None:
        upload_id, progress = job.upload_id, job.progress
        del self._active[upload_id]
        if job.trial:
            self._health.breaker.tried()
        # a job that is cut off while its failure is being recorded ends with the cancellation itself
        if isinstance(result, Failure) and not (job.unwanted and result.check(CancelledError)):
            _log.failure("unexpected failure", result, upload=upload_id, remote=self.remote.name)
            self._waiting.add_later(upload_id, CATALOG_PAUSE)
        early_news = job.early and job.news
        if job.unwanted or early_news or (progress is not None and job.rested and self._has_work(progress)):
            self._waiting.add(upload_id)
        elif progress is not None:
            progress.upload = None
        self._fill()

    def _confirmed(self, size: int) -> None:
        if self.lag is not None:
            self.lag.move(-size)

    def _unrecorded(self) -> int:
        """Confirmed bytes that the catalog doesn't know of yet."""
        known = [job.progress for job in self._active.values() if job.progress is not None]
        return sum(progress.confirmed - progress.saved.confirmed for progress in known)
