"""One remote: whose turn it is, and what comes of it.

One reason to change: how the uploads of one remote share it. Invariant: memory and work under way are bounded; an
upload has one turn at a time; while the breaker is open no turn begins but its trials, of which uploads that never
failed get the first.
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
from resumable.replication.agenda import CATALOG_PAUSE, Agenda
from resumable.replication.health import Health
from resumable.replication.known import Known
from resumable.replication.lag import Lag
from resumable.replication.setbacks import Setbacks
from resumable.replication.settings import Figures, Means, Remote
from resumable.replication.standing import Standing, fresher
from resumable.replication.troubles import sorted_out
from resumable.replication.turn import Kit, Outcome, Overtaken, Turn

ACTIVE = 64
"""Turns at once."""

_log = Logger()


@define(eq=False)
class _Work:
    """A turn, from before its replica is read. ``rested``: it did what it could. ``unwanted``: we have cancelled it."""

    trial: bool
    upload: Upload | None = None
    standing: Standing | None = None
    turn: Turn | None = None
    done: Deferred[None] | None = None
    rested: bool = False
    unwanted: bool = False

    def cancel(self) -> None:
        self.unwanted = True
        if self.done is not None:
            self.done.cancel()


class Lane:
    """``stored`` is told of each upload whose last required replica is stored; ``caught_up``: the lag is less now.

    ``slots``: parts on their way at once. ``lag`` is None where no bound was set.
    """

    def __init__(
        self, remote: Remote, means: Means, slots: int, stored: Callable[[str], None], caught_up: Callable[[], None]
    ) -> None:
        limits = means.limits
        self.remote = remote
        self.figures = Figures()
        bounded = remote.required and (limits.max_lag is not None or limits.max_lag_age is not None)
        self.lag = Lag(remote.name, means, self._unrecorded, caught_up) if bounded else None
        self._means = means
        self._stored = stored
        self._agenda = Agenda(remote.name, means, self._offer, self._pump)
        self._health = Health(
            remote.name, means, self.figures, down=self._agenda.forget, back=self._look, trial=self._pump
        )
        self._known = Known(remote.name, means, self.lag)
        self._kit = Kit(remote, means, DeferredSemaphore(slots), self._health.worked, self._moved, self.figures)
        self._setbacks = Setbacks(remote.name, means, self.figures)
        self._active: dict[str, _Work] = {}
        self._pumping = False
        self._running = False

    # -- the run

    def start(self) -> None:
        """Look for work in the catalog, and take wakes from now on."""
        self._running = True
        if self.lag is not None:
            self.lag.look()
        self._health.hasten()  # who starts the daemon again has perhaps put right what was wrong

    async def stop(self) -> None:
        """Give up what is under way; nothing of it goes on when this returns."""
        self._running = False
        works = list(self._active.values())
        for work in works:
            work.cancel()
        await DeferredList([work.done for work in works if work.done is not None])
        await self._health.stop()
        await self._agenda.stop()
        if self.lag is not None:
            await self.lag.stop()

    # -- what is told

    def chosen(self, upload: Upload, replica: Replica | None) -> None:
        """A new upload, which perhaps has a replica here."""
        standing = None if replica is None else Standing(replica, replica, counted=0, request=REQUEST.get())
        self._known.remember(upload.id, standing)

    def committed(self, upload: Upload) -> None:
        """It has more bytes, or has finished."""
        work = self._active.get(upload.id)
        standing = self._known.get(upload.id) if work is None else work.standing
        if standing is None:
            self._committed_unknown(upload, work)
            return
        self._known.committed(standing, upload)
        standing.request = REQUEST.get() or standing.request
        if work is not None:
            if work.turn is not None:
                work.turn.look()
        elif not self._pauses(standing) and standing.has_work:
            self._wake(upload.id)
        else:
            standing.upload = None

    def _committed_unknown(self, upload: Upload, work: _Work | None) -> None:
        if work is not None:
            work.upload = fresher(work.upload, upload)
        elif self._known.lacks(upload.id) or not (upload.offset or upload.finished):
            return
        else:
            self._wake(upload.id)
        if self.lag is not None:
            self.lag.uncertain()

    def ended(self, upload_id: str) -> None:
        """It is gone: what is under way for it ends, and what is in the store is removed."""
        lacks = self._known.lacks(upload_id)
        work = self._active.get(upload_id)
        self._known.forget(upload_id, None if work is None else work.standing)
        if work is not None:
            work.cancel()
        elif not lacks:
            self._wake(upload_id)

    def restarted(self, upload_id: str) -> None:
        """It was parked, and is to be tried again."""
        if upload_id not in self._active:
            self._known.forget(upload_id)
            self._wake(upload_id)

    def hurry(self, upload_id: str) -> None:
        """Somebody waits for it: its pause is over, unless the store has asked for one."""
        standing = self._known.get(upload_id)
        if standing is not None and standing.replica.retry_at is not None and upload_id not in self._active:
            standing.hurried = True
            if not self._pauses(standing):
                self._wake(upload_id)

    # -- what may be asked

    @property
    def queued(self) -> int:
        """Uploads that wait for their turn here; those beyond are only in the catalog."""
        return len(self._agenda)

    @property
    def active(self) -> int:
        """Turns under way."""
        return len(self._active)

    @property
    def known(self) -> int:
        """Uploads that are remembered."""
        return len(self._known)

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
        work = self._active.get(upload_id)
        return None if work is None or work.turn is None else work.turn.progress

    # -- whose turn it is

    def _wake(self, upload_id: str) -> None:
        if self.down:
            if not self._has_failed(upload_id):
                self._agenda.prefer(upload_id)
            self._agenda.look()  # in the order of the catalog, once the remote is back
        else:
            self._agenda.add(upload_id)
        self._pump()

    def _look(self) -> None:
        """In the order of the catalog: what was found before all was due comes in its turn."""
        self._agenda.restart()
        self._pump()

    def _has_failed(self, upload_id: str) -> bool:
        standing = self._known.get(upload_id)
        return standing is not None and standing.replica.failing_since is not None

    def _offer(self, replica: Replica, upload: Upload | None) -> bool:
        """The catalog has work. Whoever has a turn already sees to itself."""
        return replica.upload_id not in self._active and self._known.read(replica, upload).has_work

    def _pump(self) -> None:
        """Begin what may begin."""
        if self._pumping or not self._running:
            return
        health = self._health
        self._pumping = True
        while len(self._active) < ACTIVE and health.admits:
            upload_id = self._agenda.take(self._has_failed if self.down else None)
            if upload_id is None:
                break
            if upload_id not in self._active:
                self._begin(upload_id)
        self._pumping = False
        if health.admits:
            self._agenda.refill()

    def _begin(self, upload_id: str) -> None:
        work = self._active[upload_id] = _Work(self._health.breaker.begin())
        work.done = Deferred.fromCoroutine(self._work(upload_id, work))
        work.done.addBoth(self._over, upload_id, work)

    async def _work(self, upload_id: str, work: _Work) -> None:
        REQUEST.set("")  # whoever has woken the lane, it may be another's turn
        try:
            standing = work.standing = await self._known.ask(upload_id)
            if standing is None or self._pauses(standing):
                return
            if work.upload is not None:
                self._known.committed(standing, work.upload)
            REQUEST.set(standing.request)
            if standing.has_work:
                work.turn = Turn(self._kit, standing, lambda: self._agenda.crowded)
                self._came(work, standing, await work.turn.run())
        except Stopped:  # so is this, soon
            return
        except CancelledError as error:
            if not work.unwanted:
                await self._failed(upload_id, work, error)
        except Exception as error:
            await self._failed(upload_id, work, error)

    def _pauses(self, standing: Standing) -> bool:
        """Whether it waits for its next try; if so, a timer is seen to."""
        at = standing.not_before if standing.hurried else standing.replica.retry_at
        left = 0.0 if at is None else at - self._means.wall()
        if left > 0:
            self._agenda.later(standing.replica.upload_id, left)
        return left > 0

    # -- what came of it

    def _came(self, work: _Work, standing: Standing, outcome: Outcome) -> None:
        upload_id = standing.replica.upload_id
        if outcome is Outcome.RESTS:
            work.rested = True
            return
        self._known.forget(upload_id, standing)
        work.standing = None
        if outcome is Outcome.COMPLETE:
            self.figures.completed += standing.replica.required
            self._stored(upload_id)
        if outcome is Outcome.OVERTAKEN:
            self._agenda.add(upload_id)

    async def _failed(self, upload_id: str, work: _Work, error: Exception) -> None:
        trouble = sorted_out(error)
        self.figures.failures[trouble.kind] += 1
        if trouble.unforeseen:
            _log.failure("unexpected failure", Failure(error), upload=upload_id, remote=self.remote.name)
        counts = not (trouble.about_remote and self.down)
        if trouble.about_remote:
            self._health.failed(trouble, work.trial)
        standing = work.standing
        try:
            if trouble.ours or standing is None or work.turn is None:
                _log.debug("later: {reason}", upload=upload_id, remote=self.remote.name, reason=trouble.reason)
                self._agenda.later(upload_id, CATALOG_PAUSE)
            elif await self._setbacks.record(standing, work.turn, trouble, counts):
                if not self._pauses(standing):  # recording it took longer than the pause
                    self._agenda.add(upload_id)
            else:
                self._known.forget(upload_id, standing)
                work.standing = None
        except CatalogUnavailable:
            _log.warn("a failure could not be recorded", upload=upload_id, remote=self.remote.name)
            self._agenda.later(upload_id, CATALOG_PAUSE)
        except Overtaken:
            self._known.forget(upload_id, standing)
            work.standing = None
            self._agenda.add(upload_id)

    def _over(self, result: Failure | None, upload_id: str, work: _Work) -> None:
        del self._active[upload_id]
        if work.trial:
            self._health.breaker.tried()
        if isinstance(result, Failure):
            _log.failure("unexpected failure", result, upload=upload_id, remote=self.remote.name)
            self._agenda.later(upload_id, CATALOG_PAUSE)
        standing = work.standing
        if work.unwanted or (standing is not None and work.rested and standing.has_work):
            self._agenda.add(upload_id)
        elif standing is not None:
            standing.upload = None
        self._pump()

    def _moved(self, confirmed: int) -> None:
        if self.lag is not None:
            self.lag.move(-confirmed)

    def _unrecorded(self) -> int:
        known = [work.standing for work in self._active.values() if work.standing is not None]
        return sum(standing.confirmed - standing.saved.confirmed for standing in known)
