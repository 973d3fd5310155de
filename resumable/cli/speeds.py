"""How fast it goes, and how long it will take, from what was moved a moment ago.

Invariants: only bytes of this run count, so that a run that goes on in the middle shows its own speed; a transfer that
stands still gets slower and slower, and shows no end that can't be known. Pure: the time is given.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Seconds that the speed of now is taken from.
MOMENT: Final = 8.0
#: Seconds before a first speed is shown.
LEAST: Final = 0.4
_SAMPLES: Final = 0.2


class Pace:
    """The speed of one transfer, or of many. ``began``: when, on the clock whose times `moved` is given."""

    def __init__(self, began: float) -> None:
        self.began = began
        self._samples: deque[tuple[float, int]] = deque([(began, 0)])

    def moved(self, total: int, now: float) -> None:
        """So many bytes in all were moved since it began."""
        if total < self._samples[-1][1]:  # the server has less than was sent: count on from there
            lost = self._samples[-1][1] - total
            self._samples = deque((at, max(0, count - lost)) for at, count in self._samples)
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < _SAMPLES:
            samples.pop()
        samples.append((now, total))
        while len(samples) > 2 and samples[1][0] <= now - MOMENT:
            samples.popleft()

    def again(self, now: float) -> None:
        """It goes on after a pause, which is no part of its speed."""
        self._samples = deque([(now, self._samples[-1][1])])

    def speed(self, now: float) -> float | None:
        """Bytes per second in the last moment; None before anything is known."""
        at, count = self._samples[0]
        taken = now - at
        return None if taken < LEAST else (self._samples[-1][1] - count) / taken

    def left(self, remaining: int, now: float) -> float | None:
        """Seconds until so many more bytes are moved; None where that can't be told."""
        speed = self.speed(now)
        return None if not speed else remaining / speed
