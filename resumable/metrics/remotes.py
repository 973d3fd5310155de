"""What each remote lacks, for figures.

Changes when the way to know it does. Where clients are slowed down for lag, replication keeps count of it; elsewhere
the catalog is asked, which goes through many rows for it. Invariant: it is asked at most once in `FRESH` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from resumable.model.replica import Backlog, IReplicas
from resumable.replication.remote_queue import RemoteQueue

FRESH: Final = 30.0


@frozen
class Behind:
    """``size``: bytes that a remote lacks; ``seconds``: how long the oldest finished upload has waited for it."""

    size: int
    seconds: float


class Lags:
    """Those of all remotes."""

    def __init__(
        self, queues: Mapping[str, RemoteQueue], replicas: IReplicas, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self._queues = queues
        self._replicas = replicas
        self._clock = clock
        self._wall = wall
        self._known: dict[str, tuple[float, Backlog]] = {}

    async def of(self, name: str) -> Behind:
        """Raises CatalogUnavailable."""
        lag = self._queues[name].lag
        if lag is not None:
            return self._behind(lag.size, lag.oldest)
        asked, backlog = self._known.get(name, (-FRESH, Backlog()))
        now = self._clock.seconds()
        if name not in self._known or now - asked >= FRESH:
            backlog = await self._replicas.backlog(name)
            self._known[name] = now, backlog
        return self._behind(backlog.size, backlog.oldest)

    def _behind(self, size: int, oldest: float | None) -> Behind:
        return Behind(max(0, size), 0.0 if oldest is None else max(0.0, self._wall() - oldest))
