"""How far one remote is behind the spool.

Invariant: the lag is the catalog's sum at the last look, moved by every commit and confirmation since; where one of
these couldn't be counted, the catalog is asked again soon.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.replication.context import ReplicationContext

LOOK = 30.0
"""Seconds between two questions to the catalog, which goes through all rows for each."""
SOON = 5.0
"""The same while the bound is passed, or the lag is uncertain."""

_log = Logger()


class Lag:
    """``unrecorded`` answers how many confirmed bytes the catalog doesn't know of yet; ``changed`` is called when the
    remote may have caught up. ``size``: bytes that the remote lacks; ``oldest``: since when the oldest finished upload
    has waited for it, None for none."""

    def __init__(
        self, remote: str, context: ReplicationContext, unrecorded: Callable[[], int], changed: Callable[[], None]
    ) -> None:
        self._remote = remote
        self._replicas = context.replicas
        self._clock = context.clock
        self._wall = context.wall
        self._limits = context.limits
        self._unrecorded = unrecorded
        self._changed = changed
        self.size = 0
        self.oldest: float | None = None
        self._since_asked = 0
        self._looking: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False

    @property
    def over(self) -> bool:
        """Whether the lag is past the operator's bound."""
        limits = self._limits
        if limits.max_lag is not None and self.size > limits.max_lag:
            return True
        if limits.max_lag_age is None or self.oldest is None:
            return False
        return self._wall() - self.oldest > limits.max_lag_age

    def move(self, size: int) -> None:
        """So many bytes were committed that the remote lacks, or (negative) were confirmed."""
        self.size += size
        self._since_asked += size
        if size < 0:
            self._changed()

    def uncertain(self) -> None:
        """The lag has moved by an unknown number of bytes."""
        self._look_within(SOON)

    def look(self) -> None:
        """Ask the catalog now."""
        if self._looking is None and not self._stopped:
            self._since_asked = 0
            self._looking = looking = Deferred.fromCoroutine(self._ask())
            looking.addErrback(lambda failure: _log.failure("the lag is not known", failure, remote=self._remote))
            looking.addCallback(self._looked)

    async def stop(self) -> None:
        """No timer and no question to the catalog is left when this returns."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if (looking := self._looking) is not None:
            looking.cancel()
            await looking

    async def _ask(self) -> None:
        try:
            backlog = await self._replicas.backlog(self._remote)
        except (CancelledError, Stopped):
            if not self._stopped:
                raise
        except CatalogUnavailable as error:
            _log.debug("the lag is not known: {reason}", remote=self._remote, reason=str(error))
        else:
            # a part confirmed while the question was under way is in both, or in none: the next look puts it right
            self.size = max(0, backlog.size - self._unrecorded() + max(0, self._since_asked))
            self.oldest = backlog.oldest

    def _looked(self, _: None) -> None:
        self._looking = None
        if self._stopped:
            return
        age = self._limits.max_lag_age
        self._look_within(SOON if self.over else LOOK if age is None else max(SOON, min(LOOK, age / 4)))
        self._changed()

    def _look_within(self, seconds: float) -> None:
        at = self._clock.seconds() + seconds
        if self._stopped:
            return
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self.look)
