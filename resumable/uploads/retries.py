"""When work on an upload that has failed is due again: each time later, so that one that never works costs little."""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime


class Retries:
    """Pauses double, from ``soonest`` to ``latest`` seconds. ``remembered``: at most so many uploads; those that are
    forgotten are due."""

    def __init__(self, clock: IReactorTime, soonest: float, latest: float, remembered: int) -> None:
        self._clock = clock
        self._soonest = soonest
        self._latest = latest
        self._remembered = remembered
        self._due: OrderedDict[str, tuple[float, float]] = OrderedDict()  # when, and the pause before that

    def is_due(self, upload_id: str) -> bool:
        """Whether it may be tried."""
        return self._due.get(upload_id, (0.0, 0.0))[0] <= self._clock.seconds()

    def failed(self, upload_id: str) -> None:
        """It is tried again after a longer pause than before."""
        _, pause = self._due.pop(upload_id, (0.0, self._soonest / 2))
        pause = min(2 * pause, self._latest)
        self._due[upload_id] = (self._clock.seconds() + pause, pause)
        if len(self._due) > self._remembered:
            self._due.popitem(last=False)

    def worked(self, upload_id: str) -> None:
        """Forget its failures."""
        self._due.pop(upload_id, None)
