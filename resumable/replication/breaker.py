"""Whether a remote may be asked at all.

One reason to change: when a whole remote counts as down. No timers: time is asked for.

Invariant: while it is open, one turn at most is let through, and only after the pause; what anybody sees work closes
it, whoever it was.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from resumable.replication.backoff import Backoff


class Breaker:
    """Opens after ``threshold`` failures in a row, for a pause that grows with each trial that fails."""

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
        return not self._openings

    @property
    def wait(self) -> float:
        """Seconds until a turn may begin; 0: one may, now, unless one is being tried."""
        return 0.0 if self.closed else max(0.0, self._until - self._seconds())

    @property
    def admits(self) -> bool:
        """Whether a turn may begin now."""
        return self.closed or (not self._trying and not self.wait)

    def begin(self) -> bool:
        """A turn begins; whether it is a trial. `tried` must be called at the end of one."""
        self._trying = not self.closed
        return self._trying

    def tried(self) -> None:
        """A trial has ended, which may not have proven anything."""
        self._trying = False

    def worked(self) -> bool:
        """The remote did what it was asked; whether that closes the breaker."""
        closes = not self.closed
        self._failures = self._openings = 0
        self._trying = False
        return closes

    def failed(self, trial: bool, asked: float | None = None) -> bool:
        """It didn't, and that concerned the whole remote; whether that opens the breaker, for the first time."""
        if not self.closed and not trial:
            return False  # it began before
        self._failures += 1
        if self.closed and self._failures < self._threshold:
            return False
        self._openings += 1
        # half of it for certain: a remote that is down isn't asked again at once by chance
        least = self._backoff.ceiling(self._openings) / 2
        self._until = self._seconds() + least + self._backoff.pause(self._openings, self._rng, asked) / 2
        if asked:
            self._until = max(self._until, self._seconds() + self._backoff.pause(1, self._rng, asked))
        return self._openings == 1
