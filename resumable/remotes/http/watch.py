"""A time-out that counts from the last sign of progress. Changes when what a time-out does changes."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime


class Watch:
    """Calls ``give_up`` when ``seconds`` have passed since the last `touch`."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.expired = False
        self.give_up: Callable[[], None] = lambda: None
        self._seconds = seconds
        self._call = clock.callLater(seconds, self._expire)

    def touch(self) -> None:
        if self._call.active():
            self._call.reset(self._seconds)

    def stop(self) -> None:
        if self._call.active():
            self._call.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.give_up()
