"""Clients wait while the remotes lag behind the spool by more than the operator allows, and when they send too fast.

Reason to change: what is asked of clients then. Invariant: such a pause is ours, so it counts for none of the guards
against silent clients; it is bounded. One for the lag ends with everything received committed, if not before.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from resumable.protocol.errors import Unavailable
from resumable.spool.sink import Sink
from resumable.uploads.engine import Engine

_LAGGING = "The server's storage doesn't keep up at the moment; resume later."


class Lagging(Unavailable):
    """A pause took too long; the connection is to be closed, so that another server may be tried."""


def check_admitted(engine: Engine) -> None:
    """Raises Unavailable while no upload is to begin."""
    if not engine.replication.admits():
        raise Unavailable(_LAGGING, engine.limits.retry_after)


class Gate:
    """The pauses of one append: `check` when bytes came or are about to, `close` at its end.

    ``pace``: see `resumable.uploads.caller.Caller`.
    """

    __slots__ = ("_admitted", "_engine", "_give_up", "_pace", "_pausing", "_sink", "_timer")

    def __init__(
        self,
        engine: Engine,
        sink: Sink,
        give_up: Callable[[Lagging], None],
        pace: Callable[[int], float] | None = None,
    ) -> None:
        self._engine = engine
        self._sink = sink
        self._give_up = give_up
        self._pace = pace
        self._timer: IDelayedCall | None = None
        self._pausing: IDelayedCall | None = None
        self._admitted: Deferred[None] | None = None

    def check(self, size: int = 0) -> None:
        """``size`` bytes came: pause the sink's producer if the lag is too large, until it no longer is, or for as
        long as it was too fast."""
        engine = self._engine
        if self._pace is not None:
            self._slow_down(self._pace(size))
        if self._timer is not None or engine.replication.admits():
            return
        self._sink.hold(True)
        self._timer = engine.clock.callLater(engine.limits.max_pause, self._overdue)
        admitted = self._admitted = engine.replication.when_admitted()
        admitted.addCallbacks(self._open, _cancelled)

    def close(self) -> None:
        """No pause any more, and none left behind."""
        for timer in (self._timer, self._pausing):
            if timer is not None and timer.active():
                timer.cancel()
        if self._admitted is not None:
            self._admitted.cancel()

    def _slow_down(self, seconds: float) -> None:
        if seconds > 0 and self._pausing is None:
            self._sink.hold(True)
            self._pausing = self._engine.clock.callLater(seconds, self._paused)

    def _paused(self) -> None:
        self._pausing = None
        self._sink.hold(self._timer is not None)

    def _open(self, _: None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sink.hold(self._pausing is not None)

    def _overdue(self) -> None:
        self._give_up(Lagging(_LAGGING, self._engine.limits.retry_after))


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
