"""How fast letters go, and when they go again.

One reason to change: the pauses. Pure. Times are seconds. Invariant: an answer, be it an error, is no outage.
Source: exponential backoff with full jitter, https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

from random import Random

from attrs import frozen

THRESHOLD = 8
"""Uploads that got no answer since there was one make an outage: one may be at fault itself, several are not."""

LONGEST_OUTAGE_PAUSE = 10.0
"""Longer spares a receiver that is down nothing worth mentioning, and makes events wait when it is back."""


@frozen
class RetryPolicy:
    """How one deliverer is served.

    ``concurrency``: letters under way at once. ``per_second``: letters started, at most; more empties a backlog faster
    and takes more of the reactor's time from uploads (infinity: no limit). ``timeout``: of one attempt.

    Pauses grow from ``first_pause`` to ``longest_pause``, each a random share of that. A letter that fails so long
    after its fact as ``give_up_after``, and for the ``least_attempts``th time or more, is dead.
    """

    concurrency: int = 8
    per_second: float = 100.0
    timeout: float = 30.0
    first_pause: float = 1.0
    longest_pause: float = 600.0
    give_up_after: float = 3 * 86400.0
    least_attempts: int = 8

    def pause(self, failures: int, rng: Random) -> float:
        """Before the next attempt, when so many have failed before this one."""
        return rng.uniform(0, min(self.longest_pause, self.first_pause * 2.0 ** min(failures, 32)))


class SendingRate:
    """Room for ``concurrency`` letters at once, then for ``per_second``; none before ``not_before``."""

    def __init__(self, delivery: RetryPolicy) -> None:
        self.not_before = 0.0
        self._gap = 1 / delivery.per_second
        self._burst = delivery.concurrency * self._gap
        self._next = 0.0

    def take(self, now: float) -> float:
        """0: one may go now, and is counted. Else how long to wait before asking again."""
        slot = max(self._next, now - self._burst)
        wait = max(self.not_before, slot) - now
        if wait > 0:
            return wait
        self._next = slot + self._gap
        return 0.0


class Outage:
    """Notices when there is no answer any more."""

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._probes = 0

    @property
    def is_on(self) -> bool:
        return len(self._failing) >= THRESHOLD

    def unreached(self, upload_id: str, delivery: RetryPolicy, rng: Random) -> float:
        """A letter got no answer; the pause that all take for it."""
        if not self.is_on:
            self._failing.add(upload_id)
            return 0.0
        self._probes += 1
        return min(delivery.pause(self._probes, rng), LONGEST_OUTAGE_PAUSE)

    def over(self) -> bool:
        """There was an answer; whether that was the end of an outage."""
        was_on, self._probes = self.is_on, 0
        self._failing.clear()
        return was_on
