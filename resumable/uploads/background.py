"""Work on uploads in the background: which of them wait for it, and when what has failed is due again.

Invariant: an upload that isn't remembered is found in the catalog; one that never works costs little.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable

log = Logger()

REMEMBERED: Final = 4096
"""Ids that wait; beyond, all that wait are looked for in the catalog."""


class BackgroundWork:
    """Runs ``work`` while uploads wait for it, and never twice at once. ``name``: the work, in the log.

    ``work`` takes ids, as long as there `waits` any.
    """

    def __init__(self, name: str, work: Callable[[], Coroutine[Deferred[Any], Any, object]]) -> None:
        self._name = name
        self._work = work
        self._ids: deque[str] = deque()
        self._all = False
        self._working: Deferred[None] | None = None
        self.stopping = False

    @property
    def waits(self) -> bool:
        """Whether there is something to do; nothing more once it stops."""
        return bool(self._ids or self._all) and not self.stopping

    @property
    def knows_ids(self) -> bool:
        """Whether `take` would give some."""
        return bool(self._ids)

    def add(self, upload_id: str) -> None:
        """This upload waits."""
        if len(self._ids) < REMEMBERED:
            self._ids.append(upload_id)
        else:
            self._all = True
        self._go_on()

    def add_all(self) -> None:
        """Whatever waits by the catalog, including what has failed before."""
        self._all = True
        self._go_on()

    def take(self, most: int) -> list[str]:
        """At most so many ids, the oldest first. None of them: what waits by the catalog is to be done now."""
        if not self._ids:
            self._all = False
        return [self._ids.popleft() for _ in range(min(most, len(self._ids)))]

    async def stop(self) -> None:
        """The work has ended, and doesn't begin again."""
        self.stopping = True
        if self._working is not None:
            await self._working

    def _go_on(self) -> None:
        if self._working is None and not self.stopping:
            self._working = Deferred()
            Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        try:
            await self._work()
        except (CatalogUnavailable, Stopped) as error:
            log.debug("{work}: the next round goes on: {reason}", work=self._name, reason=str(error))
        except Exception:
            log.failure("{work} failed; the next round tries again", work=self._name)
        finally:
            working, self._working = self._working, None
            assert working is not None, "it says that this runs"
            working.callback(None)


class Retries:
    """Pauses double, from ``soonest`` to ``latest`` seconds. ``remembered``: at most so many uploads; those that are
    forgotten are due."""

    def __init__(self, clock: IReactorTime, soonest: float, latest: float, remembered: int) -> None:
        self._clock = clock
        self._soonest = soonest
        self._latest = latest
        self._remembered = remembered
        self._due: OrderedDict[str, tuple[float, float]] = OrderedDict()  # when, and the pause before that

    def is_due(self, upload_id: str) -> bool:
        """Whether it may be tried."""
        return self._due.get(upload_id, (0.0, 0.0))[0] <= self._clock.seconds()

    def failed(self, upload_id: str) -> None:
        """It is tried again after a longer pause than before."""
        _, pause = self._due.pop(upload_id, (0.0, self._soonest / 2))
        pause = min(2 * pause, self._latest)
        self._due[upload_id] = (self._clock.seconds() + pause, pause)
        if len(self._due) > self._remembered:
            self._due.popitem(last=False)

    def worked(self, upload_id: str) -> None:
        """Forget its failures."""
        self._due.pop(upload_id, None)
