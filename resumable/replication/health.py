"""Whether one remote is up, and what happens when that changes.

One reason to change: what is done when a remote goes down and comes back. Invariant: when it is back, whatever waited
for a retry is due before anybody looks for work.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.replication.backoff import Backoff
from resumable.replication.breaker import Breaker
from resumable.replication.settings import Figures, Means
from resumable.replication.troubles import Trouble

_log = Logger()


class Health:
    """``down`` is called whenever the remote is found to be down, ``back`` when there is reason to look through the
    catalog again, ``trial`` when a turn may be tried."""

    def __init__(
        self,
        remote: str,
        means: Means,
        figures: Figures,
        *,
        down: Callable[[], None],
        back: Callable[[], None],
        trial: Callable[[], None],
    ) -> None:
        self._remote = remote
        self._means = means
        self._figures = figures
        self._down = down
        self._back = back
        self._trial = trial
        backoff = Backoff(means.limits.base_delay, means.limits.max_delay)
        self.breaker = Breaker(backoff, means.rng, means.clock.seconds)
        self._timer: IDelayedCall | None = None
        self._hastening: Deferred[None] | None = None
        self._stopped = False

    @property
    def admits(self) -> bool:
        """Whether a turn may begin now. Not until all is due that waited: else what never failed would go first."""
        return self.breaker.admits and self._hastening is None

    def failed(self, trouble: Trouble, trial: bool) -> None:
        """A turn failed for a reason that concerns the whole remote."""
        if self.breaker.failed(trial, trouble.asked):
            self._figures.opened += 1
            _log.warn("remote down: {reason}", remote=self._remote, reason=trouble.reason)
        if not self.breaker.closed:
            self._down()
            self._rest(self.breaker.wait)

    def worked(self) -> None:
        """The remote did something."""
        if self.breaker.worked():
            _log.info("remote up again", remote=self._remote)
            self._rest(None)
            self.hasten()

    def hasten(self) -> None:
        """Let everything that waits for a retry be due."""
        if self._hastening is None and not self._stopped:
            self._hastening = hastening = Deferred.fromCoroutine(self._hasten())
            hastening.addErrback(lambda failure: _log.failure("retries wait", failure, remote=self._remote))
            hastening.addCallback(self._hastened)

    async def stop(self) -> None:
        """No timer and no question to the catalog is left when this returns."""
        self._stopped = True
        self._rest(None)
        if (hastening := self._hastening) is not None:
            hastening.cancel()
            await hastening

    async def _hasten(self) -> None:
        try:
            await self._means.replicas.hasten(self._remote)
        except CatalogUnavailable as error:
            _log.warn("retries wait: {reason}", remote=self._remote, reason=str(error))
        except (CancelledError, Stopped):
            if not self._stopped:
                raise

    def _hastened(self, _: None) -> None:
        self._hastening = None
        if not self._stopped:
            self._back()

    def _rest(self, seconds: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        stays = seconds is None or self._stopped
        self._timer = None if stays else self._means.clock.callLater(seconds or 0.0, self._trial)
