"""A bound on bytes per second: a bucket of tokens, from which all transfers of one client take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

DEPTH: Final = 0.25
"""Seconds: what may be sent at once after a pause."""


class TokenBucket:
    """``rate`` in bytes per second; ``now`` in seconds."""

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self._rate, self._now = rate, now
        self._depth = max(1.0, rate * DEPTH)
        self._tokens = self._depth
        self._filled = now()
        self._lock = threading.Lock()

    def take(self, want: int) -> tuple[int, float]:
        """How many of ``want`` bytes may be sent now, and the seconds to wait if that is none."""
        with self._lock:
            now = self._now()
            self._tokens = min(self._depth, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            granted = int(min(want, self._tokens))
            if granted < 1 or (granted < want and granted < self._depth / 8):  # no dribble of tiny writes
                return 0, max(0.001, (max(1.0, min(want, self._depth / 8)) - self._tokens) / self._rate)
            self._tokens -= granted
            return granted, 0.0

    def spend(self, count: int) -> float:
        """So many bytes have moved already: the seconds to wait before the next."""
        with self._lock:
            now = self._now()
            self._tokens = min(self._depth, self._tokens + (now - self._filled) * self._rate) - count
            self._filled = now
            return max(0.0, -self._tokens / self._rate)

    def give_back(self, count: int) -> None:
        """Bytes that were taken and not sent."""
        with self._lock:
            self._tokens = min(self._depth, self._tokens + count)
