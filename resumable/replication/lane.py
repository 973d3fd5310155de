"""One remote: whose turn it is, and what comes of it.

One reason to change: how the uploads of one remote share it. Invariant: memory and work under way are bounded; an
upload has one turn at a time; while the breaker is open no turn begins but its trials.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.interfaces import CatalogUnavailable, Replica, Upload
from resumable.replicas import Progress
from resumable.replication.agenda import CATALOG_PAUSE, Agenda
from resumable.replication.backoff import Backoff
from resumable.replication.breaker import Breaker
from resumable.replication.lag import Lag
from resumable.replication.settings import Figures, Means, Remote
from resumable.replication.standing import Standing, fresher
from resumable.replication.troubles import Trouble, after, gives_up, sorted_out
from resumable.replication.turn import Kit, Outcome, Overtaken, Turn
from resumable.threads import Stopped

ACTIVE = 64
"""Turns at once."""
KNOWN = 4096
"""Replicas that need not be read from the catalog before their next turn."""

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

    ``slots``: parts on their way at once.
    """

    def __init__(
        self, remote: Remote, means: Means, slots: int, stored: Callable[[str], None], caught_up: Callable[[], None]
    ) -> None:
        limits = means.limits
        self.remote = remote
        self.figures = Figures()
        self._means = means
        self._kit = Kit(remote, means, DeferredSemaphore(slots), self._worked, self._moved, self.figures)
        self._stored = stored
        self._breaker = Breaker(Backoff(limits.base_delay, limits.max_delay), means.rng, means.clock.seconds)
        self._agenda = Agenda(remote.name, means, self._offer, self._pump)
        self._known: OrderedDict[str, Standing | None] = OrderedDict()
        self._active: dict[str, _Work] = {}
        self._pumping = False
        self._running = False
        self._trial: IDelayedCall | None = None
        self._hastening: Deferred[None] | None = None
        bounded = remote.required and (limits.max_lag is not None or limits.max_lag_age is not None)
        self.lag = Lag(remote.name, means, self._unrecorded, caught_up) if bounded else None

    # -- the run

    def start(self) -> None:
        """Look for work in the catalog, and take wakes from now on."""
        self._running = True
        if self.lag is not None:
            self.lag.look()
        self._hasten()  # who starts the daemon again has perhaps put right what was wrong

    async def stop(self) -> None:
        """Give up what is under way; nothing of it goes on when this returns."""
        self._running = False
        self._try_later(None)
        under_way = [work.done for work in self._active.values() if work.done is not None]
        for work in list(self._active.values()):
            work.cancel()
        if self._hastening is not None:
            under_way.append(self._hastening)
            self._hastening.cancel()
        await DeferredList(under_way)
        await self._agenda.stop()
        if self.lag is not None:
            await self.lag.stop()

    # -- what is told

    def chosen(self, upload: Upload, replica: Replica | None) -> None:
        """A new upload, which perhaps has a replica here."""
        standing = None if replica is None else Standing(replica, replica, counted=upload.offset)
        self._remember(upload.id, standing)

    def committed(self, upload: Upload) -> None:
        """It has more bytes, or has finished."""
        work = self._active.get(upload.id)
        standing = self._known.get(upload.id) if work is None else work.standing
        if standing is None:
            self._committed_unknown(upload, work)
            return
        self._count(standing, upload)
        standing.upload = fresher(standing.upload, upload)
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
        elif upload.id in self._known or not (upload.offset or upload.finished):
            return  # it has no replica here, or nothing to send
        else:
            self._wake(upload.id)
        if self.lag is not None:
            self.lag.uncertain()

    def ended(self, upload_id: str) -> None:
        """It is gone: what is under way for it ends, and what is in the store is removed."""
        missing = upload_id in self._known and self._known[upload_id] is None
        work = self._active.get(upload_id)
        self._forget(upload_id, None if work is None else work.standing)
        if work is not None:
            work.cancel()
        elif not missing:
            self._wake(upload_id)

    def restarted(self, upload_id: str) -> None:
        """It was parked, and is to be tried again."""
        if upload_id not in self._active:
            self._forget(upload_id, None)
            self._wake(upload_id)

    @property
    def queued(self) -> int:
        """Uploads that wait for their turn here; those beyond are only in the catalog."""
        return len(self._agenda)

    @property
    def active(self) -> int:
        """Turns under way."""
        return len(self._active)

    @property
    def down(self) -> bool:
        """Whether the remote counts as down, so that it is asked only now and then."""
        return not self._breaker.closed

    def progress(self, upload_id: str) -> Progress | None:
        """None: nothing is under way."""
        work = self._active.get(upload_id)
        return None if work is None or work.turn is None else work.turn.progress

    # -- whose turn it is

    def _wake(self, upload_id: str) -> None:
        if self._breaker.closed:
            self._agenda.add(upload_id)
        else:
            self._agenda.look()  # in the order of the catalog, once the remote is back
        self._pump()

    def _offer(self, replica: Replica, upload: Upload | None) -> bool:
        """The catalog has work. Whoever has a turn already sees to itself."""
        work = self._active.get(replica.upload_id)
        if work is not None:
            return False
        standing = self._known.get(replica.upload_id) or Standing(replica, replica)
        standing.replica = standing.saved = replica
        standing.upload = fresher(standing.upload, upload)
        if upload is not None:
            self._count(standing, upload)
        self._remember(replica.upload_id, standing)
        return standing.has_work

    def _pump(self) -> None:
        """Begin what may begin."""
        if self._pumping or not self._running:
            return
        self._pumping = True
        while len(self._active) < ACTIVE and self._breaker.admits and (upload_id := self._agenda.take()) is not None:
            if upload_id not in self._active:
                self._begin(upload_id)
        self._pumping = False
        if self._breaker.admits:
            self._agenda.refill()

    def _begin(self, upload_id: str) -> None:
        work = self._active[upload_id] = _Work(self._breaker.begin())
        work.done = Deferred.fromCoroutine(self._work(upload_id, work))
        work.done.addBoth(self._over, upload_id, work)

    async def _work(self, upload_id: str, work: _Work) -> None:
        try:
            standing = work.standing = await self._standing(upload_id)
            if standing is None or self._pauses(standing):
                return
            if work.upload is not None:
                standing.upload = fresher(standing.upload, work.upload)
            if standing.has_work:
                work.turn = Turn(self._kit, standing, lambda: self._agenda.crowded)
                self._came(work, standing, await work.turn.run())
        except (CancelledError, Stopped) as error:
            if not work.unwanted:
                await self._failed(upload_id, work, error)
        except Exception as error:
            await self._failed(upload_id, work, error)

    async def _standing(self, upload_id: str) -> Standing | None:
        """What is known of it, with its upload; None: it has no replica here."""
        standing = self._known.get(upload_id)
        if standing is not None and standing.upload is not None:
            return standing
        found = await self._means.replicas.get(upload_id, self.remote.name)
        if found is None:
            self._remember(upload_id, None)
            return None
        replica, upload = found
        if standing is None:
            standing = Standing(replica, replica)
        standing.replica = standing.saved = replica
        standing.upload = fresher(standing.upload, upload)
        if upload is not None:
            self._count(standing, upload)
        self._remember(upload_id, standing)
        return standing

    def _pauses(self, standing: Standing) -> bool:
        """Whether it waits for its next try; if so, a timer is seen to."""
        at = standing.replica.retry_at
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
        self._forget(upload_id, standing)
        work.standing = None
        if outcome is Outcome.COMPLETE:
            self._stored(upload_id)
        if outcome is Outcome.OVERTAKEN:
            self._agenda.add(upload_id)

    async def _failed(self, upload_id: str, work: _Work, error: Exception) -> None:
        trouble = sorted_out(error)
        self.figures.failures[trouble.kind] += 1
        if trouble.unforeseen:
            _log.failure("unexpected failure", Failure(error), upload=upload_id, remote=self.remote.name)
        standing = work.standing
        counts = self._breaker.closed or not trouble.about_remote
        if trouble.about_remote:
            self._failed_remote(trouble, work.trial)
        if trouble.ours or standing is None or work.turn is None:
            _log.debug("later: {reason}", upload=upload_id, remote=self.remote.name, reason=trouble.reason)
            self._agenda.later(upload_id, CATALOG_PAUSE)
            return
        now, limits = self._means.wall(), self._means.limits
        was = standing.replica
        standing.replica = after(was, trouble, now=now, rng=self._means.rng, limits=limits, counts=counts)
        why = gives_up(standing.replica, trouble, now=now, limits=limits)
        try:
            if why is not None:
                await self._park(standing, why)
                work.standing = None
            else:
                self._log_failure(was, trouble)
                await work.turn.save()
        except CatalogUnavailable:
            _log.warn("a failure could not be recorded", upload=upload_id, remote=self.remote.name)
        except Overtaken:
            self._came(work, standing, Outcome.OVERTAKEN)
        else:
            if work.standing is not None:
                self._pauses(standing)
            return
        self._agenda.later(upload_id, CATALOG_PAUSE)

    def _failed_remote(self, trouble: Trouble, trial: bool) -> None:
        breaker = self._breaker
        if breaker.failed(trial, trouble.asked):
            self.figures.opened += 1
            _log.warn("remote down: {reason}", remote=self.remote.name, reason=trouble.reason)
        if not breaker.closed:
            self._agenda.forget()
            self._try_later(breaker.wait)

    def _try_later(self, seconds: float | None) -> None:
        if self._trial is not None and self._trial.active():
            self._trial.cancel()
        self._trial = None if seconds is None else self._means.clock.callLater(seconds, self._pump)

    async def _park(self, standing: Standing, why: str) -> None:
        replica = standing.replica
        if await self._means.replicas.park(replica, why, self._means.wall()):
            self.figures.parked += 1
            _log.error("given up: {reason}", upload=replica.upload_id, remote=self.remote.name, reason=why)
        self._forget(replica.upload_id, standing)

    def _log_failure(self, was: Replica, trouble: Trouble) -> None:
        """Once for each replica that begins to fail; the others are for those who look closely."""
        self.figures.retries += 1
        say = _log.warn if was.error is None else _log.debug
        say("failed, will try again: {reason}", upload=was.upload_id, remote=self.remote.name, reason=trouble.reason)

    def _over(self, result: Failure | None, upload_id: str, work: _Work) -> None:
        del self._active[upload_id]
        if work.trial:
            self._breaker.tried()
        if isinstance(result, Failure):
            _log.failure("unexpected failure", result, upload=upload_id, remote=self.remote.name)
            self._agenda.later(upload_id, CATALOG_PAUSE)
        if not self._running:
            return
        standing = work.standing
        if work.unwanted or (standing is not None and work.rested and standing.has_work):
            self._agenda.add(upload_id)
        elif standing is not None:
            standing.upload = None
        self._pump()

    def _worked(self) -> None:
        if self._breaker.worked():
            _log.info("remote up again", remote=self.remote.name)
            self._try_later(None)
            self._hasten()

    def _hasten(self) -> None:
        """Let everything that waits for a retry be due, and begin with the oldest."""
        if self._hastening is None:
            self._hastening = Deferred.fromCoroutine(self._bring_forward())
            self._hastening.addBoth(self._brought_forward)

    async def _bring_forward(self) -> None:
        try:
            await self._means.replicas.hasten(self.remote.name)
        except CatalogUnavailable as error:
            _log.warn("retries wait: {reason}", remote=self.remote.name, reason=str(error))

    def _brought_forward(self, result: Failure | None) -> None:
        self._hastening = None
        if self._running:
            if isinstance(result, Failure):
                _log.failure("unexpected failure", result, remote=self.remote.name)
            self._agenda.look()
            self._pump()

    # -- what is known

    def _remember(self, upload_id: str, standing: Standing | None) -> None:
        self._known[upload_id] = standing
        self._known.move_to_end(upload_id)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def _forget(self, upload_id: str, standing: Standing | None) -> None:
        """It no longer counts here."""
        standing = self._known.pop(upload_id, None) or standing
        if self.lag is not None and standing is not None and standing.counted is not None:
            self.lag.move(min(0, standing.confirmed - standing.counted))

    def _count(self, standing: Standing, upload: Upload) -> None:
        """What the upload has more than when it was last seen, the remote lacks."""
        if self.lag is not None and standing.counted is not None and upload.offset > standing.counted:
            self.lag.move(upload.offset - standing.counted)
        standing.counted = max(standing.counted or 0, upload.offset)

    def _moved(self, confirmed: int) -> None:
        if self.lag is not None:
            self.lag.move(-confirmed)

    def _unrecorded(self) -> int:
        known = [work.standing for work in self._active.values() if work.standing is not None]
        return sum(standing.confirmed - standing.saved.confirmed for standing in known)
