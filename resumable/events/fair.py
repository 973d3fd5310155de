"""A bounded number of places, which no client can take for all others.

One reason to change: how places are shared. Invariants: no more are taken than there are; nobody has more than three
quarters of several; a place that gets free goes to who has the fewest, and among these to who has waited longest.
"""

from __future__ import annotations

from collections import Counter, deque

from twisted.internet.defer import Deferred, succeed


class Places:
    """``count`` places. Whoever takes one gives it back."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._most = count - count // 4
        self._used: Counter[str] = Counter()
        self._waiting: dict[str, deque[Deferred[None]]] = {}

    def take(self, whose: str) -> Deferred[None]:
        """Fires when there is a place. Cancelled: none is wanted any more."""
        if self._free and self._used[whose] < self._most:
            self._grant(whose)
            return succeed(None)
        waiting = self._waiting.setdefault(whose, deque())
        waiter: Deferred[None] = Deferred(lambda waiter: self._forget(whose, waiter))
        waiting.append(waiter)
        return waiter

    def give_back(self, whose: str) -> None:
        """It is free again."""
        self._free += 1
        self._used[whose] -= 1
        if not self._used[whose]:
            del self._used[whose]
        able = [each for each in self._waiting if self._used[each] < self._most]
        if able:
            first = min(able, key=self._used.__getitem__)
            waiter = self._waiting[first][0]
            self._forget(first, waiter)
            self._grant(first)
            waiter.callback(None)

    def _grant(self, whose: str) -> None:
        self._free -= 1
        self._used[whose] += 1

    def _forget(self, whose: str, waiter: Deferred[None]) -> None:
        waiting = self._waiting.pop(whose)
        waiting.remove(waiter)
        if waiting:
            self._waiting[whose] = waiting  # behind all others
