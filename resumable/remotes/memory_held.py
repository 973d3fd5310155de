"""The memory that bodies of requests may take, however many remotes there are.

One reason to change: how it is shared out. Invariant: no more than the limit is granted at once.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, succeed


class Memory:
    """``limit`` bytes shared by all bodies, first come first served. More lets more requests run at once."""

    def __init__(self, limit: int = 16 << 20) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()

    def acquire(self, size: int) -> Deferred[None]:
        """Fires when these bytes may be held; ``size`` is at most the limit."""
        if not self._waiting and self.used + size <= self.limit:
            self.used += size
            return succeed(None)
        granted: Deferred[None] = Deferred(self._give_up)
        self._waiting.append((size, granted))
        return granted

    def release(self, size: int) -> None:
        """They are no longer held."""
        self.used -= size
        self._grant()

    def _give_up(self, granted: Deferred[None]) -> None:
        self._waiting = deque(each for each in self._waiting if each[1] is not granted)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self.used + self._waiting[0][0] <= self.limit:
            size, granted = self._waiting.popleft()
            self.used += size
            granted.callback(None)
