"""A failure of a turn goes into the catalog and the log.

One reason to change: what is recorded and said of failures. Invariant: a replica that begins to fail is logged once
and one that is given up once, however often it fails between.
"""

from __future__ import annotations

from twisted.logger import Logger

from resumable.model.upload import Replica
from resumable.replication.settings import Figures, Means
from resumable.replication.standing import Standing
from resumable.replication.troubles import Trouble, after, gives_up
from resumable.replication.turn import Turn

_log = Logger()


class Setbacks:
    """Those of one remote."""

    def __init__(self, remote: str, means: Means, figures: Figures) -> None:
        self._remote = remote
        self._means = means
        self._figures = figures

    async def record(self, standing: Standing, turn: Turn, trouble: Trouble, counts: bool) -> bool:
        """Whether the replica is tried again; else it is parked. ``counts``: this was one of its attempts.

        Raises CatalogUnavailable, Overtaken.
        """
        was, now, limits = standing.replica, self._means.wall(), self._means.limits
        replica = standing.replica = after(was, trouble, now=now, rng=self._means.rng, limits=limits, counts=counts)
        standing.hurried, standing.not_before = False, now + (trouble.asked or 0.0)
        why = gives_up(replica, trouble, now=now, limits=limits)
        if why is not None:
            await self._park(replica, why, now)
            return False
        self._figures.retries += 1
        say = _log.warn if was.error is None else _log.debug
        say("failed, will try again: {reason}", upload=was.upload_id, remote=self._remote, reason=trouble.reason)
        await turn.save()
        return True

    async def _park(self, replica: Replica, why: str, now: float) -> None:
        if await self._means.replicas.park(replica, why, now):
            self._figures.parked += 1
            _log.error("given up: {reason}", upload=replica.upload_id, remote=self._remote, reason=why)
