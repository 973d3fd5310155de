"""When a client that takes too little of an answer that waits for it is given up.

Invariant: a client that takes something steadily, at ``--min-rate`` or faster, never is given up. Pure.
"""

from __future__ import annotations

import math


class Progress:
    """Whether at least ``rate`` bytes a second are taken, on the average of each ``timeout``, and one at the least.

    ``deadline``: when `overdue` may answer something else; infinity while nothing waits.
    """

    __slots__ = ("_least", "_taken", "_timeout", "deadline")

    def __init__(self, timeout: float, rate: float) -> None:
        self.deadline = math.inf
        self._timeout = timeout
        self._least = max(1.0, rate * timeout)
        self._taken = 0

    def begin(self, now: float, taken: int) -> None:
        """Something waits, if nothing did before. ``taken``: what was taken up to now."""
        if self.deadline == math.inf:
            self.deadline, self._taken = now + self._timeout, taken

    def end(self) -> None:
        """Nothing waits any more."""
        self.deadline = math.inf

    def overdue(self, now: float, taken: int) -> bool:
        """Whether this client should be given up."""
        if now < self.deadline:
            return False
        if taken - self._taken < self._least:
            return True
        self.deadline, self._taken = now + self._timeout, taken
        return False
