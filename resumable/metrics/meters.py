"""Meters that belong to no other room: the delay of the event loop, warnings in the log, each remote's lag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from resumable.aio.deferreds import Timer
from resumable.model.replica import Backlog, IReplicas
from resumable.model.telemetry import Tally
from resumable.replication.remote_queue import RemoteQueue

EVERY: Final = 0.5
"""Seconds between two measurements of the event loop's delay."""
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of the histogram's buckets, in seconds."""


class ReactorDelay:
    """How late the event loop is: it grows when something blocks the loop, or the processor is too slow.

    Measures every `EVERY` seconds between `start` and `stop`. Invariant: a delay counts at least once, however long.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due = 0.0
        self._timer = Timer(clock, self._measure)
        self.tally = Tally(BOUNDS)

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._clock.seconds() + EVERY
        self._timer.set(EVERY)

    def stop(self) -> None:
        """Leave no timer behind."""
        self._timer.clear()

    def _measure(self) -> None:
        self.tally.add(max(0.0, self._clock.seconds() - self._due))
        self.start()


LEVELS: Final = (LogLevel.warn, LogLevel.error, LogLevel.critical)
MOST: Final = 200
"""Counters of the log; beyond, all further parts of the program count as `OTHER`."""
OTHER: Final = "other"


@implementer(ILogObserver)
class LogCounter:
    """Counts warnings and worse in the log, by level and part of the program. Called from any thread.

    Parts are modules of ours, everything else is by package. Invariant: the number of counters is bounded.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        # Each level begins at 0, so that the first warning shows as an increase.
        self._counts: Counter[tuple[str, ...]] = Counter({(level.name, OTHER): 0 for level in LEVELS})

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if level not in LEVELS:
            return
        key = (level.name, part_of(str(event.get("log_namespace") or OTHER)))
        with self._lock:
            if key not in self._counts and len(self._counts) >= MOST:
                key = (level.name, OTHER)
            self._counts[key] += 1

    def counts(self) -> Mapping[tuple[str, ...], int]:
        """The number of log events, by level and part."""
        with self._lock:
            return dict(self._counts)


def part_of(namespace: str) -> str:
    """The part of the program that logs under a namespace: ``uploads.append``, or ``twisted`` for all of Twisted."""
    top, _, rest = namespace.partition(".")
    return ".".join(rest.split(".")[:2]) if top == "resumable" and rest else top


FRESH: Final = 30.0
"""Seconds for which an answer of the catalog is shown again; it goes through many rows for each."""


@frozen
class RemoteLag:
    """``size``: bytes that a remote lacks; ``seconds``: how long the oldest finished upload has waited for it."""

    size: int
    seconds: float


class RemoteLags:
    """The lags of all remotes, by name.

    Where the operator bounds the lag, replication keeps count of it; elsewhere the catalog is asked.
    """

    def __init__(
        self, queues: Mapping[str, RemoteQueue], replicas: IReplicas, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self._queues = queues
        self._replicas = replicas
        self._clock = clock
        self._wall = wall
        self._known: dict[str, tuple[float, Backlog]] = {}

    async def of(self, name: str) -> RemoteLag:
        """The lag of one remote. Raises CatalogUnavailable."""
        lag = self._queues[name].lag
        if lag is not None:
            return self._behind(lag.size, lag.oldest)
        asked, backlog = self._known.get(name, (-FRESH, Backlog()))
        now = self._clock.seconds()
        if name not in self._known or now - asked >= FRESH:
            backlog = await self._replicas.backlog(name)
            self._known[name] = now, backlog
        return self._behind(backlog.size, backlog.oldest)

    def _behind(self, size: int, oldest: float | None) -> RemoteLag:
        return RemoteLag(max(0, size), 0.0 if oldest is None else max(0.0, self._wall() - oldest))
