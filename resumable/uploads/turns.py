"""Who copies next, where several want to.

Reason to change: what is fair among final uploads that are put together at once. Invariant: at most so many have a turn
at a time, and everybody gets one: whoever has much to do lets later ones go first, but only so many.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from twisted.internet.defer import Deferred

#: How many that come later go before somebody for each step that this one has left.
BEHIND = 16
#: Steps that count for that, at most.
COUNTED = 16


class Turns:
    """``at_once``: how many have one at a time. `take` one, do something short, `give_back`."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._numbers = count()
        self._waiting: list[tuple[int, int, Deferred[None]]] = []

    def take(self, left: int) -> Deferred[None]:
        """Fires when it is the turn of one that has so many whole steps ``left`` after it."""
        turn: Deferred[None] = Deferred()
        number = next(self._numbers)
        heappush(self._waiting, (number + BEHIND * min(left, COUNTED), number, turn))
        self._next()
        return turn

    def give_back(self) -> None:
        """Somebody else may have it."""
        self._free += 1
        self._next()

    def _next(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            heappop(self._waiting)[2].callback(None)
