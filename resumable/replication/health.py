"""The health of one remote, and the consequences of its changes.

Invariants: while a remote counts as down, one transfer at most is let through, and only after the pause; any transfer
that works ends that; when the remote is back, every replica that waited for a retry is due before anybody looks for
work.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from resumable.aio.deferreds import Timer
from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.replication.context import RemoteCounts, ReplicationContext
from resumable.replication.failures import Backoff, TransferFailure

_log = Logger()


class Breaker:
    """Opens after ``threshold`` failures in a row, for a pause that grows with each trial that fails.

    While it is open the remote counts as down. It sets no timer: ``seconds`` tells the time.
    """

    def __init__(self, backoff: Backoff, rng: Random, seconds: Callable[[], float], threshold: int = 5) -> None:
        self._backoff = backoff
        self._rng = rng
        self._seconds = seconds
        self._threshold = threshold
        self._failures = 0
        self._openings = 0
        self._until = 0.0
        self._trying = False

    @property
    def closed(self) -> bool:
        """Whether the remote counts as up."""
        return not self._openings

    @property
    def wait(self) -> float:
        """Seconds until a transfer may begin; 0: one may begin now, unless there is a trial under way."""
        return 0.0 if self.closed else max(0.0, self._until - self._seconds())

    @property
    def admits(self) -> bool:
        """Whether a transfer may begin now."""
        return self.closed or (not self._trying and not self.wait)

    def begin(self) -> bool:
        """A transfer begins. Answers whether it is a trial, at whose end `tried` must be called."""
        self._trying = not self.closed
        return self._trying

    def tried(self) -> None:
        """A trial has ended, perhaps without showing anything."""
        self._trying = False

    def worked(self) -> bool:
        """The remote did its work. Answers whether that closes the breaker."""
        closes = not self.closed
        self._failures = self._openings = 0
        self._trying = False
        return closes

    def failed(self, trial: bool, asked: float | None = None) -> bool:
        """A transfer failed, and others would have failed too. Answers whether that opens a breaker that was closed.

        ``trial``: the transfer was one. ``asked``: the pause in seconds that the store asked for.
        """
        if not self.closed and not trial:
            return False  # it began before the breaker opened
        self._failures += 1
        if self.closed and self._failures < self._threshold:
            return False
        self._openings += 1
        # half of the pause is certain: a remote that is down isn't asked again at once by chance
        least = self._backoff.ceiling(self._openings) / 2
        self._until = self._seconds() + least + self._backoff.pause(self._openings, self._rng, asked) / 2
        if asked:
            self._until = max(self._until, self._seconds() + self._backoff.pause(1, self._rng, asked))
        return self._openings == 1


class Health:
    """The breaker of one remote, and its effects.

    ``down`` is called whenever the remote is found to be down, ``back`` when there is reason to look through the
    catalog again, ``trial`` when a transfer may be tried.
    """

    def __init__(
        self,
        remote: str,
        context: ReplicationContext,
        counts: RemoteCounts,
        *,
        down: Callable[[], None],
        back: Callable[[], None],
        trial: Callable[[], None],
    ) -> None:
        self._remote = remote
        self._replicas = context.replicas
        self._counts = counts
        self._down = down
        self._back = back
        backoff = Backoff(context.limits.base_delay, context.limits.max_delay)
        self.breaker = Breaker(backoff, context.rng, context.clock.seconds)
        self._next_trial = Timer(context.clock, trial)
        self._hastening: Deferred[None] | None = None
        self._stopped = False

    @property
    def admits(self) -> bool:
        """Whether a transfer may begin now. None may while retries are being made due: new uploads would go first."""
        return self.breaker.admits and self._hastening is None

    def failed(self, failure: TransferFailure, trial: bool) -> None:
        """A transfer failed for a reason that concerns the whole remote. ``trial``: it was one."""
        if self.breaker.failed(trial, failure.asked):
            self._counts.opened += 1
            _log.warn("remote down: {reason}", remote=self._remote, reason=failure.reason)
        if not self.breaker.closed:
            self._down()
            if not self._stopped:
                self._next_trial.set(self.breaker.wait)

    def worked(self) -> None:
        """The remote has done something."""
        if self.breaker.worked():
            _log.info("remote up again", remote=self._remote)
            self._next_trial.clear()
            self.hasten()

    def hasten(self) -> None:
        """Let all replicas that wait for a retry be due, then look for work."""
        if self._hastening is None and not self._stopped:
            self._hastening = hastening = Deferred.fromCoroutine(self._hasten())
            hastening.addErrback(lambda failure: _log.failure("retries wait", failure, remote=self._remote))
            hastening.addCallback(self._hastened)

    async def stop(self) -> None:
        """No timer and no question to the catalog is left when this returns."""
        self._stopped = True
        self._next_trial.clear()
        if (hastening := self._hastening) is not None:
            hastening.cancel()
            await hastening

    async def _hasten(self) -> None:
        try:
            await self._replicas.hasten(self._remote)
        except CatalogUnavailable as error:
            _log.debug("retries wait: {reason}", remote=self._remote, reason=str(error))
        except (CancelledError, Stopped):
            if not self._stopped:
                raise

    def _hastened(self, _: None) -> None:
        self._hastening = None
        if not self._stopped:
            self._back()
