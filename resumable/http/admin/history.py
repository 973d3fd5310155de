"""The last hour in figures, kept in memory: one point every 10 seconds, for the dashboard's pictures.

Invariants: the ring has `POINTS` points at most, whatever happens; a figure that isn't known is None. What took longer,
or more than this process, is Prometheus' to tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.deferreds import Timer
from resumable.http.status import written

log = Logger()

EVERY: Final = 10.0
POINTS: Final = 360
RATES: Final = ("received", "sent", "requests")
"""Figures that only grow, and are told as a second's share; ``received`` and ``sent`` are bytes."""
COUNTS: Final = ("refused", "failed", "retries", "complaints")
"""Figures that only grow, and are told as what was added in a point's time."""
LEVELS: Final = ("lag", "lag_seconds", "free", "used", "appending", "queued")

Figures = Mapping[str, float | None]


@frozen
class HistoryPoint:
    """``at``: seconds since the epoch, the end of its time. ``figures``: by the names above."""

    at: float
    figures: Figures


class History:
    """``look`` answers all figures as they are now."""

    def __init__(self, clock: IReactorTime, wall: Callable[[], float], look: Callable[[], Awaitable[Figures]]) -> None:
        self._clock = clock
        self._wall = wall
        self._look = look
        self._points: deque[HistoryPoint] = deque(maxlen=POINTS)
        self._timer = Timer(clock, self._take)
        self._before: tuple[float, Figures] | None = None
        self._running = False

    def start(self) -> None:
        """Take the first figures, and a point every `EVERY` seconds."""
        self._running = True
        self._take()

    def stop(self) -> None:
        """Take no more."""
        self._running = False
        self._timer.clear()

    def _take(self) -> None:
        self._timer.set(EVERY)
        Deferred.fromCoroutine(self._add()).addErrback(lambda failed: log.failure("figures are not known", failed))

    async def _add(self) -> None:
        figures, now = await self._look(), self._clock.seconds()
        before, self._before = self._before, (now, figures)
        if before is not None and self._running and now > before[0]:
            self._points.append(HistoryPoint(self._wall(), _between(before[1], figures, now - before[0])))

    def document(self) -> dict[str, Any]:
        """All points, the oldest first, as one list for each figure."""
        points = list(self._points)
        names = (*RATES, *COUNTS, *LEVELS)
        return {
            "interval": EVERY,
            "most": POINTS,
            "at": [written(point.at) for point in points],
            **{name: [point.figures[name] for point in points] for name in names},
        }


def _between(before: Figures, now: Figures, seconds: float) -> Figures:
    """The figures of a point."""

    def added(name: str) -> float | None:
        last, this = before.get(name), now.get(name)
        return None if last is None or this is None else max(0.0, this - last)

    rates = {name: None if (grown := added(name)) is None else round(grown / seconds, 3) for name in RATES}
    return {**rates, **{name: added(name) for name in COUNTS}, **{name: now.get(name) for name in LEVELS}}
