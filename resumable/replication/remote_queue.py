"""One remote: which upload is sent on next, and what comes of it.

Invariants: memory and work under way are bounded; an upload has one transfer at a time; while the remote counts as
down no transfer begins but a trial, and uploads that never failed are tried first.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.model.replica import Progress
from resumable.model.telemetry import REQUEST
from resumable.model.upload import Replica, Upload
from resumable.replication.context import Remote, RemoteCounts, ReplicationContext
from resumable.replication.failures import FailureRecorder, classified
from resumable.replication.health import Health
from resumable.replication.lag import Lag
from resumable.replication.progress import ReplicaCache, ReplicaProgress, fresher
from resumable.replication.transfer import Overtaken, Transfer, TransferContext, TransferOutcome
from resumable.replication.work_queue import CATALOG_PAUSE, WorkQueue

ACTIVE = 64
"""Turns at once."""

_log = Logger()


@define(eq=False)
class _Job:
    """A transfer, from before its replica is read. ``rested``: it did all it could. ``unwanted``: we cancelled it."""

    trial: bool
    upload: Upload | None = None
    progress: ReplicaProgress | None = None
    transfer: Transfer | None = None
    done: Deferred[None] | None = None
    rested: bool = False
    unwanted: bool = False

    def cancel(self) -> None:
        self.unwanted = True
        if self.done is not None:
            self.done.cancel()


class RemoteQueue:
    """``stored`` is told of each upload whose last required replica is stored; ``caught_up``: the lag is less now.

    ``slots``: parts on their way at once. ``lag`` is None where no bound was set.
    """

    def __init__(
        self,
        remote: Remote,
        means: ReplicationContext,
        slots: int,
        stored: Callable[[str], None],
        caught_up: Callable[[], None],
    ) -> None:
        limits = means.limits
        self.remote = remote
        self.counts = RemoteCounts()
        bounded = remote.required and (limits.max_lag is not None or limits.max_lag_age is not None)
        self.lag = Lag(remote.name, means, self._unrecorded, caught_up) if bounded else None
        self._means = means
        self._stored = stored
        self._waiting = WorkQueue(remote.name, means, self._offer, self._pump)
        self._health = Health(
            remote.name, means, self.counts, down=self._waiting.forget, back=self._look, trial=self._pump
        )
        self._cache = ReplicaCache(remote.name, means, self.lag)
        self._kit = TransferContext(
            remote, means, DeferredSemaphore(slots), self._health.worked, self._moved, self.counts
        )
        self._failures = FailureRecorder(remote.name, means, self.counts)
        self._active: dict[str, _Job] = {}
        self._pumping = False
        self._running = False

    # -- the run

    def start(self) -> None:
        """Look for job in the catalog, and take wakes from now on."""
        self._running = True
        if self.lag is not None:
            self.lag.look()
        self._health.hasten()  # who starts the daemon again has perhaps put right what was wrong

    async def stop(self) -> None:
        """Give up what is under way; nothing of it goes on when this returns."""
        self._running = False
        jobs = list(self._active.values())
        for job in jobs:
            job.cancel()
        await DeferredList([job.done for job in jobs if job.done is not None])
        await self._health.stop()
        await self._waiting.stop()
        if self.lag is not None:
            await self.lag.stop()

    # -- what is told

    def chosen(self, upload: Upload, replica: Replica | None) -> None:
        """A new upload, which perhaps has a replica here."""
        progress = None if replica is None else ReplicaProgress(replica, replica, counted=0, request=REQUEST.get())
        self._cache.remember(upload.id, progress)

    def committed(self, upload: Upload) -> None:
        """It has more bytes, or has finished."""
        job = self._active.get(upload.id)
        progress = self._cache.get(upload.id) if job is None else job.progress
        if progress is None:
            self._committed_unknown(upload, job)
            return
        self._cache.committed(progress, upload)
        progress.request = REQUEST.get() or progress.request
        if job is not None:
            if job.transfer is not None:
                job.transfer.look()
        elif not self._pauses(progress) and progress.has_work:
            self._wake(upload.id)
        else:
            progress.upload = None

    def _committed_unknown(self, upload: Upload, job: _Job | None) -> None:
        if job is not None:
            job.upload = fresher(job.upload, upload)
        elif self._cache.lacks(upload.id) or not (upload.offset or upload.finished):
            return
        else:
            self._wake(upload.id)
        if self.lag is not None:
            self.lag.uncertain()

    def ended(self, upload_id: str) -> None:
        """It is gone: what is under way for it ends, and what is in the store is removed."""
        lacks = self._cache.lacks(upload_id)
        job = self._active.get(upload_id)
        self._cache.forget(upload_id, None if job is None else job.progress)
        if job is not None:
            job.cancel()
        elif not lacks:
            self._wake(upload_id)

    def restarted(self, upload_id: str) -> None:
        """It was parked, and is to be tried again."""
        if upload_id not in self._active:
            self._cache.forget(upload_id)
            self._wake(upload_id)

    def hurry(self, upload_id: str) -> None:
        """Somebody waits for it: its pause is over, unless the store has asked for one."""
        progress = self._cache.get(upload_id)
        if progress is not None and progress.replica.retry_at is not None and upload_id not in self._active:
            progress.hurried = True
            if not self._pauses(progress):
                self._wake(upload_id)

    # -- what may be asked

    @property
    def queued(self) -> int:
        """Uploads that wait for their transfer here; those beyond are only in the catalog."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Turns under way."""
        return len(self._active)

    @property
    def known(self) -> int:
        """Uploads that are remembered."""
        return len(self._cache)

    @property
    def down(self) -> bool:
        """Whether the remote counts as down, so that it is asked only now and then."""
        return not self._health.breaker.closed

    @property
    def pause(self) -> float:
        """Seconds until a remote that is down is tried again."""
        return self._health.breaker.wait

    def progress(self, upload_id: str) -> Progress | None:
        """None: nothing is under way."""
        job = self._active.get(upload_id)
        return None if job is None or job.transfer is None else job.transfer.progress

    # -- whose transfer it is

    def _wake(self, upload_id: str) -> None:
        if self.down:
            if not self._has_failed(upload_id):
                self._waiting.prefer(upload_id)
            self._waiting.look()  # in the order of the catalog, once the remote is back
        else:
            self._waiting.add(upload_id)
        self._pump()

    def _look(self) -> None:
        """In the order of the catalog: what was found before all was due comes in its transfer."""
        self._waiting.restart()
        self._pump()

    def _has_failed(self, upload_id: str) -> bool:
        progress = self._cache.get(upload_id)
        return progress is not None and progress.replica.failing_since is not None

    def _offer(self, replica: Replica, upload: Upload | None) -> bool:
        """The catalog has job. Whoever has a transfer already sees to itself."""
        return replica.upload_id not in self._active and self._cache.read(replica, upload).has_work

    def _pump(self) -> None:
        """Begin what may begin."""
        if self._pumping or not self._running:
            return
        health = self._health
        self._pumping = True
        while len(self._active) < ACTIVE and health.admits:
            upload_id = self._waiting.take(self._has_failed if self.down else None)
            if upload_id is None:
                break
            if upload_id not in self._active:
                self._begin(upload_id)
        self._pumping = False
        if health.admits:
            self._waiting.refill()

    def _begin(self, upload_id: str) -> None:
        job = self._active[upload_id] = _Job(self._health.breaker.begin())
        job.done = Deferred.fromCoroutine(self._job(upload_id, job))
        job.done.addBoth(self._over, upload_id, job)

    async def _job(self, upload_id: str, job: _Job) -> None:
        REQUEST.set("")  # whoever has woken the queue, it may be another's transfer
        try:
            progress = job.progress = await self._cache.ask(upload_id)
            if progress is None or self._pauses(progress):
                return
            if job.upload is not None:
                self._cache.committed(progress, job.upload)
            REQUEST.set(progress.request)
            if progress.has_work:
                job.transfer = Transfer(self._kit, progress, lambda: self._waiting.crowded)
                self._came(job, progress, await job.transfer.run())
        except Stopped:  # so is this, soon
            return
        except CancelledError as error:
            if not job.unwanted:
                await self._failed(upload_id, job, error)
        except Exception as error:
            await self._failed(upload_id, job, error)

    def _pauses(self, progress: ReplicaProgress) -> bool:
        """Whether it waits for its next try; if so, a timer is seen to."""
        at = progress.not_before if progress.hurried else progress.replica.retry_at
        left = 0.0 if at is None else at - self._means.wall()
        if left > 0:
            self._waiting.later(progress.replica.upload_id, left)
        return left > 0

    # -- what came of it

    def _came(self, job: _Job, progress: ReplicaProgress, outcome: TransferOutcome) -> None:
        upload_id = progress.replica.upload_id
        if outcome is TransferOutcome.RESTS:
            job.rested = True
            return
        self._cache.forget(upload_id, progress)
        job.progress = None
        if outcome is TransferOutcome.COMPLETE:
            self.counts.completed += progress.replica.required
            self._stored(upload_id)
        if outcome is TransferOutcome.OVERTAKEN:
            self._waiting.add(upload_id)

    async def _failed(self, upload_id: str, job: _Job, error: Exception) -> None:
        failure = classified(error)
        self.counts.failures[failure.kind] += 1
        if failure.unforeseen:
            _log.failure("unexpected failure", Failure(error), upload=upload_id, remote=self.remote.name)
        counts = not (failure.about_remote and self.down)
        if failure.about_remote:
            self._health.failed(failure, job.trial)
        progress = job.progress
        try:
            if failure.ours or progress is None or job.transfer is None:
                _log.debug("later: {reason}", upload=upload_id, remote=self.remote.name, reason=failure.reason)
                self._waiting.later(upload_id, CATALOG_PAUSE)
            elif await self._failures.record(progress, job.transfer, failure, counts):
                if not self._pauses(progress):  # recording it took longer than the pause
                    self._waiting.add(upload_id)
            else:
                self._cache.forget(upload_id, progress)
                job.progress = None
        except CatalogUnavailable:
            _log.warn("a failure could not be recorded", upload=upload_id, remote=self.remote.name)
            self._waiting.later(upload_id, CATALOG_PAUSE)
        except Overtaken:
            self._cache.forget(upload_id, progress)
            job.progress = None
            self._waiting.add(upload_id)

    def _over(self, result: Failure | None, upload_id: str, job: _Job) -> None:
        del self._active[upload_id]
        if job.trial:
            self._health.breaker.tried()
        if isinstance(result, Failure):
            _log.failure("unexpected failure", result, upload=upload_id, remote=self.remote.name)
            self._waiting.later(upload_id, CATALOG_PAUSE)
        progress = job.progress
        if job.unwanted or (progress is not None and job.rested and progress.has_work):
            self._waiting.add(upload_id)
        elif progress is not None:
            progress.upload = None
        self._pump()

    def _moved(self, confirmed: int) -> None:
        if self.lag is not None:
            self.lag.move(-confirmed)

    def _unrecorded(self) -> int:
        known = [job.progress for job in self._active.values() if job.progress is not None]
        return sum(progress.confirmed - progress.saved.confirmed for progress in known)
