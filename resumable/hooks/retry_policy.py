"""How fast events go to one hook, and when they go again.

Pure. Times are seconds. Invariant: an answer, even an error, is no outage.
Source: exponential backoff with full jitter, https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

from random import Random

from attrs import frozen

THRESHOLD = 8
"""So many uploads without an answer, and none to others since, make an outage: one alone may be at fault itself."""

LONGEST_OUTAGE_PAUSE = 10.0
"""A longer pause spares a receiver that is down hardly anything, and makes events wait when it is back."""


@frozen
class RetryPolicy:
    """How one hook gets its events.

    ``concurrency``: events under way at once. ``per_second``: events started, at most; more empties a backlog faster
    and takes more of the reactor's time from uploads (infinity: no limit). ``timeout``: of one attempt.

    Pauses grow from ``first_pause`` to ``longest_pause``, each a random share of that. An event that fails so long
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
        """The pause after an attempt that failed, when so many ``failures`` came before it."""
        return rng.uniform(0, min(self.longest_pause, self.first_pause * 2.0 ** min(failures, 32)))


class SendingRate:
    """Room for ``concurrency`` events at once, then for ``per_second``; none before ``not_before``."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.not_before = 0.0
        self._gap = 1 / policy.per_second
        self._burst = policy.concurrency * self._gap
        self._next = 0.0

    def take(self, now: float) -> float:
        """0: one event may go now, and is counted. Else the time to wait before asking again."""
        slot = max(self._next, now - self._burst)
        wait = max(self.not_before, slot) - now
        if wait > 0:
            return wait
        self._next = slot + self._gap
        return 0.0


class Outage:
    """Whether the hook can't be reached at all."""

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._probes = 0

    @property
    def is_on(self) -> bool:
        """Whether there is an outage now."""
        return len(self._failing) >= THRESHOLD

    def unreached(self, upload_id: str, policy: RetryPolicy, rng: Random) -> float:
        """An event of that upload did not reach the hook. Returns the pause that all events take for it."""
        if not self.is_on:
            self._failing.add(upload_id)
            return 0.0
        self._probes += 1
        return min(policy.pause(self._probes, rng), LONGEST_OUTAGE_PAUSE)

    def over(self) -> bool:
        """There was an answer. Returns whether that was the end of an outage."""
        was_on, self._probes = self.is_on, 0
        self._failing.clear()
        return was_on
