"""Rates: requests and bytes a second, for each identity and in all.

Invariants: everything is counted at once, before anything is awaited. A refused request costs nothing. At most ``most``
buckets are kept, and none that isn't full goes while one that is full could go. Pure: the time is passed in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

from attrs import define, frozen

from resumable.protocol.errors import TooManyRequests

MOST = 10_000
LONGEST_PAUSE = 30.0
"""Seconds: a client is to be told to come back rather than be kept waiting for longer."""


@frozen
class Rate:
    """``per_second`` on average, None for no limit; ``burst`` at once, which is a second's worth unless given."""

    per_second: float | None = None
    burst: float | None = None

    @property
    def capacity(self) -> float:
        """The most that may come at once."""
        return max(1.0, self.per_second or 0.0) if self.burst is None else self.burst


@define
class _Bucket:
    level: float
    at: float


class Buckets:
    """A bucket for each name, filled at ``rate``."""

    def __init__(self, rate: Rate, most: int = MOST) -> None:
        self._rate = rate
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    @property
    def limited(self) -> bool:
        """Whether there is a rate at all."""
        return self._rate.per_second is not None

    def wait(self, name: str, amount: float, now: float) -> float:
        """Seconds until ``amount`` is there, 0 if it is; nothing is taken."""
        if self._rate.per_second is None:
            return 0.0
        return max(0.0, (amount - self._level(self._buckets.get(name), now)) / self._rate.per_second)

    def take(self, name: str, amount: float, now: float) -> float:
        """Take it, there or not; seconds until the bucket is out of debt."""
        if self._rate.per_second is None:
            return 0.0
        level = self._level(self._buckets.get(name), now) - amount
        self._buckets[name] = _Bucket(level, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._most:
            self._evict(now)
        return max(0.0, -level / self._rate.per_second)

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, bucket: _Bucket | None, now: float) -> float:
        if bucket is None:
            return self._rate.capacity
        earned = (now - bucket.at) * (self._rate.per_second or 0.0)
        return min(self._rate.capacity, bucket.level + max(0.0, earned))

    def _evict(self, now: float) -> None:
        """The longest unused of a few that is full: it says no more than none would; else the longest unused."""
        oldest = [name for name, _ in zip(self._buckets, range(8), strict=False)]
        full = (name for name in oldest if self._level(self._buckets[name], now) >= self._rate.capacity)
        del self._buckets[next(full, oldest[0])]


class Rates:
    """``requests`` and ``size``: pairs of the rate for each identity and the rate in all. ``clock``: seconds."""

    def __init__(self, clock: Callable[[], float], *, requests: Sequence[Rate] = (), size: Sequence[Rate] = ()) -> None:
        self._clock = clock
        self._requests = _pair(requests)
        self._bytes = _pair(size)

    @property
    def of_requests(self) -> bool:
        """Whether requests are limited."""
        return any(buckets.limited for buckets in self._requests)

    @property
    def of_bytes(self) -> bool:
        """Whether bytes are limited."""
        return any(buckets.limited for buckets in self._bytes)

    def request(self, name: str) -> None:
        """One more request. Raises TooManyRequests, and then it isn't counted."""
        now = self._clock()
        each, overall = self._requests
        wait = max(each.wait(name, 1.0, now), overall.wait("", 1.0, now))
        if wait > 0:
            raise TooManyRequests("Too many requests; slow down.", retry_after=math.ceil(wait))
        each.take(name, 1.0, now)
        overall.take("", 1.0, now)

    def refused(self, address: str) -> None:
        """One more request from ``address`` that wasn't let in. Raises as `request` does.

        It doesn't count among all requests: refused clients must keep nobody out.
        """
        self.afford(address)
        self._requests[0].take(address, 1.0, self._clock())

    def afford(self, address: str) -> None:
        """Check that ``address``, still a stranger's, may cost us something. Raises as `request` does."""
        wait = self._requests[0].wait(address, 1.0, self._clock())
        if wait > 0:
            raise TooManyRequests("Too many requests; slow down.", retry_after=math.ceil(wait))

    def received(self, name: str, count: int) -> float:
        """So many bytes came: seconds for which to read no more from this client, `LONGEST_PAUSE` at most."""
        now = self._clock()
        each, overall = self._bytes
        return min(LONGEST_PAUSE, max(each.take(name, count, now), overall.take("", count, now)))


def _pair(rates: Sequence[Rate]) -> tuple[Buckets, Buckets]:
    each, overall = rates or (Rate(), Rate())
    return Buckets(each), Buckets(overall)
