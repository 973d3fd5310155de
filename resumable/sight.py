"""What an operator sees of one daemon: its figures, whether it is ready, and a site for both.

Changes when what the daemon shows is made of something else. Invariant: nothing here decides anything, and a daemon
without a listener for operators counts all the same, at next to no cost.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.logger import LogLevel, globalLogPublisher

from resumable import __version__
from resumable.catalog.sqlite import SqliteCatalog
from resumable.http.admin import Admin
from resumable.http.dead import DeadEvents
from resumable.http.origin import Origin
from resumable.http.readiness import Check, Readiness
from resumable.http.streaming import StreamingSite
from resumable.http.watch import Watch
from resumable.interfaces import CatalogUnavailable
from resumable.metrics.delay import Delay
from resumable.metrics.figures import Figures, Sources
from resumable.metrics.remotes import Lags
from resumable.metrics.troubles import Troubles
from resumable.options import Settings
from resumable.replication.engine import Replication
from resumable.spool import Budget
from resumable.threads import Pool
from resumable.uploads.counts import Counts
from resumable.uploads.holds import LocalHolds
from resumable.uploads.space import Space

#: Seconds that answers to operators get at the end.
GRACE = 1.0


@frozen
class Seen:
    """The parts of the daemon that are looked at."""

    catalog: SqliteCatalog
    pool: Pool
    budget: Budget
    holds: LocalHolds
    space: Space
    counts: Counts
    wall: Callable[[], float]
    replication: Replication | None = None


class Sight:
    """``watch`` is for the site that takes uploads, ``readiness`` for both. `start` and `stop` with the daemon."""

    def __init__(self, settings: Settings, reactor: Any, origin: Origin, seen: Seen) -> None:
        self._settings = settings
        self._reactor = reactor
        self._seen = seen
        self._delay = Delay(reactor)
        self._troubles = Troubles()
        level = None if settings.access_log == "off" else LogLevel.levelWithName(settings.access_log)
        self.watch = Watch(origin, secrets.token_hex(4), level)
        self.readiness = Readiness(self._checks(), reactor)
        self._site: StreamingSite | None = None

    def site(self, uploads: StreamingSite) -> StreamingSite:
        """The one for operators; ``uploads`` is the other."""
        figures = Figures(self._sources(uploads))
        catalog, hooks = self._seen.catalog, self._settings.hooks.deliverers
        dead = DeadEvents(catalog.outbox, hooks, lambda: catalog.on_facts()) if hooks else None
        self._site = StreamingSite(Admin(figures, self.readiness, dead).resource, reactor=self._reactor)
        return self._site

    def start(self) -> None:
        self._delay.start()
        globalLogPublisher.addObserver(self._troubles)

    async def stop(self) -> None:
        """Its ports must have been closed before."""
        self._delay.stop()
        if self._site is not None:
            await self._site.close_connections(GRACE)
        globalLogPublisher.removeObserver(self._troubles)

    def _sources(self, uploads: StreamingSite) -> Sources:
        seen = self._seen
        lanes = None if seen.replication is None else seen.replication.lanes

        async def disk() -> tuple[int, int]:
            usage = await seen.pool.run(shutil.disk_usage, str(self._settings.upload_dir))
            return usage.free, usage.used

        return Sources(
            version=__version__,
            clock=self._reactor,
            wall=seen.wall,
            watch=self.watch,
            site=uploads,
            counts=seen.counts,
            holds=seen.holds,
            space=seen.space,
            budget=seen.budget,
            disk=disk,
            batches=seen.catalog.timing,
            outbox=seen.catalog.outbox,
            delay=self._delay,
            troubles=self._troubles,
            hooks=self._settings.hooks.deliverers,
            replication=seen.replication,
            lags=None if lanes is None else Lags(lanes, seen.catalog.replicas, self._reactor, seen.wall),
        )

    # Readiness

    def _checks(self) -> dict[str, Check]:
        checks: dict[str, Check] = {"catalog": self._catalog_writable, "disk": self._disk_above_reserve}
        if self._settings.ready_remotes != "none":
            checks["remotes"] = self._remotes_up
        return checks

    async def _catalog_writable(self) -> str | None:
        try:
            await self._seen.catalog.check()
        except CatalogUnavailable as error:
            return str(error)
        return None

    async def _disk_above_reserve(self) -> str | None:
        return "the free space is down to the reserve" if self._seen.space.room <= 0 else None

    async def _remotes_up(self) -> str | None:
        if self._seen.replication is None:
            return None
        lanes, every = self._seen.replication.lanes, self._settings.ready_remotes == "all"
        down = [name for name, lane in lanes.items() if lane.down and (every or lane.remote.required)]
        return f"down: {', '.join(down)}" if down else None
