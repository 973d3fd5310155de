"""A file on its way, and all of them together, as they are shown: how far, how fast, how long still.

Invariants: how far is the position in the file, what an earlier run has sent included; how fast, and how long still,
come from this run's bytes alone. After a lost connection the position goes back to what the server has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from resumable import client
from resumable.cli.speeds import Pace

State = Literal["waiting", "sending", "retrying", "paused", "checking", "storing", "done", "failed"]
OVER = ("done", "failed")


class Trip:
    """One file. ``name``: how people call it; ``size``: bytes, None while it isn't known; ``index``: its number.

    ``position``: bytes that went to the network; ``safe``: those that the server has; ``run``: those of this run;
    ``why``: what it waits for, or what has gone wrong; ``until``: when it goes on. Times are those of the clock that
    `heed` is given.
    """

    def __init__(self, name: str, size: int | None, index: int = 0) -> None:
        self.name = name
        self.size = size
        self.index = index
        self.state: State = "waiting"
        self.url: str | None = None
        self.protocol: str | None = None
        self.resumed_from = 0
        self.position = 0
        self.safe = 0
        self.run = 0
        self.checked = 0
        self.attempt = 0
        self.why = ""
        self.until: float | None = None
        self.tiers: client.Tiers | None = None
        self.pace: Pace | None = None
        self.began: float | None = None
        self.ended: float | None = None

    @property
    def active(self) -> bool:
        """Whether it has begun, and isn't over."""
        return self.state != "waiting" and self.state not in OVER

    def begin(self, now: float) -> None:
        """A worker takes it."""
        self.state, self.began, self.pace = "sending", now, Pace(now)

    def end(self, state: State, now: float, why: str = "") -> None:
        """It is over, well or not."""
        self.state, self.ended, self.why = state, now, why
        if state == "done" and self.size is not None:
            self.position = self.safe = self.size

    def heed(self, event: client.TransferEvent, now: float) -> None:
        """Take what the library tells."""
        match event:
            case client.Begun():
                self.url, self.protocol, self.resumed_from = event.url, event.protocol, event.offset
                self.position = self.safe = event.offset
                self.size = self.size if event.total is None else event.total
                self._goes_on(now)
            case client.Moved():
                self.size = self.size if event.total is None else event.total
                self._moved(event.sent, event.acknowledged, event.run, now)
            case client.Received():
                self.size = self.size if event.total is None else event.total
                self._moved(event.received, event.received, event.run, now)
            case client.Retried():
                self.state, self.why, self.attempt, self.until = (
                    "retrying",
                    event.reason,
                    event.attempt,
                    now + event.wait,
                )
            case client.Waiting():
                self.state, self.why, self.until = "paused", event.reason, now + event.wait
            case client.Recovered():
                self.position = self.safe = event.offset
                self._goes_on(now)
            case client.StartedOver():
                self.position = self.safe = self.resumed_from = 0
            case client.Looked():
                self.tiers = event.tiers
                self.safe = max(self.safe, event.tiers.durable)
            case client.Checking():
                self.state, self.checked = "checking", event.done
            case client.Sent():
                self.position = self.safe = self.size = event.size
                self.url, self.state = event.url, "storing"
            case _:
                pass

    def _moved(self, position: int, safe: int, run: int, now: float) -> None:
        if self.state != "sending":
            self._goes_on(now)
        self.position, self.safe, self.run = position, safe, run
        if self.pace is not None:
            self.pace.moved(run, now)

    def _goes_on(self, now: float) -> None:
        if self.state in ("retrying", "paused") and self.pace is not None:
            self.pace.again(now)
        self.state, self.why, self.until = "sending", "", None

    def speed(self, now: float) -> float | None:
        """Bytes per second, while it moves."""
        return self.pace.speed(now) if self.pace is not None and self.state == "sending" else None

    def left(self, now: float) -> float | None:
        """Seconds until its end; None where that can't be told."""
        if self.size is None or self.pace is None or self.state != "sending":
            return None
        return self.pace.left(max(0, self.size - self.position), now)

    def replicas(self) -> Sequence[client.Replicated]:
        """Its copies in remotes, as far as the server tells of them."""
        return () if self.tiers is None else self.tiers.replicas


class AllTrips:
    """All files of a command, together. What is over is summed up once: there may be many."""

    def __init__(self, trips: Sequence[Trip], began: float) -> None:
        self.count = len(trips)
        self.active: list[Trip] = []
        self.done = 0
        self.failed = 0
        self.pace = Pace(began)
        self._streams = sum(trip.size is None for trip in trips)
        self._known = sum(trip.size or 0 for trip in trips)
        self._over_position = self._over_run = 0

    def begun(self, trip: Trip) -> None:
        """It is under way."""
        self._streams -= trip.size is None
        self._known -= trip.size or 0
        self.active.append(trip)

    def over(self, trip: Trip) -> None:
        """It isn't any more. What has failed counts as far as it came."""
        self.active.remove(trip)
        self.done += trip.state == "done"
        self.failed += trip.state == "failed"
        self._known += trip.position
        self._over_position += trip.position
        self._over_run += trip.run

    def tick(self, now: float) -> None:
        """Look at what was moved."""
        self.pace.moved(self.run, now)

    @property
    def run(self) -> int:
        """Bytes of this run."""
        return self._over_run + sum(trip.run for trip in self.active)

    @property
    def position(self) -> int:
        """Bytes of all files that went out, in this run or before."""
        return self._over_position + sum(trip.position for trip in self.active)

    @property
    def size(self) -> int | None:
        """Bytes of all files; None while a stream is among them whose end isn't known."""
        sizes = [trip.size for trip in self.active]
        if self._streams or None in sizes:
            return None
        return self._known + sum(size or 0 for size in sizes)

    def speed(self, now: float) -> float | None:
        """Bytes per second of all together."""
        return self.pace.speed(now)

    def left(self, now: float) -> float | None:
        """Seconds until the end of all."""
        size = self.size
        return None if size is None else self.pace.left(max(0, size - self.position), now)
