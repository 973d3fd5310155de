"""The open connections of a server: their one timer, who makes room for another, and how they are closed when it stops.

Changes when the rules of a graceful stop do, or those of a full house. Invariants: a connection is known from its first
moment to its last, so `Connections.drained` never fires too early; the timer runs only while there is a connection; who
opens very many takes neither the files from uploads under way nor, by idling, the place from those who come later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from resumable.http.outgoing import Outgoing

log = Logger()


class Connection(Protocol):
    """What is asked of a connection."""

    outgoing: Outgoing
    """What its client doesn't take of it has it aborted."""

    @property
    def deadline(self) -> float:
        """When it wants `expire` to be called, in seconds of the clock; infinity: never. It may change at any time."""

    def expire(self, now: float) -> None:
        """The deadline has passed: do something about it, or set another one."""

    def stop(self) -> None:
        """Close now if idle, else after the answer that is under way."""

    def abort(self) -> None:
        """Close at once, with a reset."""


class Connections:
    """Keeps the books; a server's factory inherits it.

    ``connections``: all that are open, at most ``max_connections``. ``stopping``: none is to outlive its
    answer. ``seconds``: the clock.
    """

    def keep_books(self, timer: IReactorTime, interval: float, max_connections: int) -> None:
        """Begin, with deadlines looked at every ``interval`` seconds."""
        self.max_connections = max_connections
        self._idle: dict[Connection, None] = {}  # the one that has been so for longest comes first
        self.seconds: Callable[[], float] = timer.seconds
        self.stopping = False
        self.connections: set[Connection] = set()
        self._timer = timer
        self._tick_every = interval
        self._ticking: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []

    # For the connections

    def connected(self, channel: Connection) -> None:
        self.connections.add(channel)
        if self._ticking is None:
            self._ticking = self._timer.callLater(self._tick_every, self._tick)
        if self.stopping:
            channel.stop()
        elif len(self.connections) > self.max_connections:
            self._make_room(channel)

    def _make_room(self, newcomer: Connection) -> None:
        """Who has been idle for longest goes; the newcomer itself, where all others have something to do."""
        log.debug("a connection is closed: there are {count}", count=len(self.connections))
        if self._idle:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.abort()
        else:
            newcomer.abort()

    def idle(self, channel: Connection) -> None:
        """It has no request under way."""
        self._idle[channel] = None

    def busy(self, channel: Connection) -> None:
        """It has one again."""
        self._idle.pop(channel, None)

    def disconnected(self, channel: Connection) -> None:
        self.connections.discard(channel)
        self._idle.pop(channel, None)
        if not self.connections:
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None
            drained, self._drained = self._drained, []
            for waiter in drained:
                waiter.callback(None)

    def _tick(self) -> None:
        """One timer for all connections: five thousand of them cost five thousand comparisons a second."""
        self._ticking = self._timer.callLater(self._tick_every, self._tick)
        now = self.seconds()
        for channel in [channel for channel in self.connections if channel.deadline <= now]:
            channel.expire(now)
        for channel in [channel for channel in self.connections if channel.outgoing.deadline <= now]:
            if channel.outgoing.stuck(now):
                log.debug("a connection was cut off: its client takes no answers")
                channel.abort()

    # Stopping

    def stop_idle(self) -> None:
        """Close idle connections; the others close after their answer. The port must have been closed before."""
        self.stopping = True
        for channel in list(self.connections):
            channel.stop()

    def drained(self) -> Deferred[None]:
        """Fires when no connection is left."""
        if not self.connections:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._drained.append(waiter)
        return waiter

    def abort_all(self) -> None:
        """Reset what is still open."""
        for channel in list(self.connections):
            channel.abort()

    async def close_connections(self, grace: float) -> None:
        """Stop gracefully: answers under way have ``grace`` seconds, then what is left is reset."""
        self.stop_idle()
        abort = self._timer.callLater(grace, self.abort_all)
        await self.drained()
        if abort.active():
            abort.cancel()
