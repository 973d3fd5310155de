"""How late the event loop is: the first sign that something blocks it, or that the processor is too slow.

Changes when that is to be measured otherwise. Invariant: a delay counts at least once, however long it is.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from resumable.model.telemetry import Tally

EVERY: Final = 0.5
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Delay:
    """Measures every `EVERY` seconds between `start` and `stop`."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due = 0.0
        self._timer: IDelayedCall | None = None
        self.tally = Tally(SECONDS)

    def start(self) -> None:
        self._due = self._clock.seconds() + EVERY
        self._timer = self._clock.callLater(EVERY, self._called)

    def stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _called(self) -> None:
        self.tally.add(max(0.0, self._clock.seconds() - self._due))
        self.start()
