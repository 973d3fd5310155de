"""The open connections of a server: their one timer, which makes room for another, and how a stop closes them.

Invariants: a connection is known from its first
moment to its last, so `Connections.drained` never fires too early; the timer runs only while there is a connection; who
opens very many takes neither the files from uploads under way nor, by idling, the place from those who come later. Who
comes when there is no room is told so, but those who are being told are few, and for a short while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from resumable.http.h1.head import Fields, RefusedRequest
from resumable.http.h2.limits import HeldBytes
from resumable.http.outgoing import Outgoing
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.networks import client_of

log = Logger()

TELLING: Final = 64
"""Connections, at most, that are being told that there is no room: they come on top of all others."""
TELLING_TAKES: Final = 5.0
"""Seconds, at most, for that: the head of a request has to come first, as it says which page may read the answer."""
RETRY_AFTER: Final = 10

UNREAD: Final = "unread"
"""Why somebody is cut off: takes nothing of an answer, or too little."""
IDLE: Final = "idle"
"""Had no request under way, and made room for somebody else."""
NO_ROOM: Final = "full"
"""Found no room, and was told so or closed."""


class OpenConnection(Protocol):
    """What is asked of a connection."""

    outgoing: Outgoing
    """What its client doesn't take of it has it aborted."""
    transport: Any

    @property
    def deadline(self) -> float:
        """When it wants `expire` to be called, in seconds of the clock; infinity: never. It may change at any time."""

    def expire(self, now: float) -> None:
        """The deadline has passed: do something about it, or set another one."""

    def turn_away(self) -> None:
        """Answer its first request with `no_room`, and close."""

    def stop(self) -> None:
        """Close now if idle, else after the answer that is under way."""

    def abort(self) -> None:
        """Close at once, with a reset."""


class Connections:
    """Keeps the books; a server's factory inherits it.

    ``connections``: all that are open, at most ``max_connections`` and those that are turned away. ``stopping``: none
    is to outlive its answer. ``seconds``: the clock. ``cut``: how many were cut off, by why. `StreamingSite` has the
    settings.
    """

    network_timeout: float
    min_rate: int
    linger: float
    linger_bytes: int
    max_body_buffer: int
    refusal_fields: Callable[[Sequence[bytes]], Fields]
    watch: RequestObserver
    http2: bool
    h2c: bool
    received: int
    held: HeldBytes
    requestFactory: Callable[[Any], StreamingRequest]

    def keep_books(self, timer: IReactorTime, interval: float, max_connections: int) -> None:
        """Begin, with deadlines looked at every ``interval`` seconds."""
        self.max_connections = max_connections
        self.cut = dict.fromkeys((UNREAD, IDLE, NO_ROOM), 0)
        self._idle: dict[OpenConnection, None] = {}  # the one that has been so for longest comes first
        self._turned_away: dict[OpenConnection, float] = {}  # until when; the oldest first
        self._telling = max(1, min(TELLING, max_connections // 16))
        self.seconds: Callable[[], float] = timer.seconds
        self.stopping = False
        self.connections: set[OpenConnection] = set()
        self._timer = timer
        self._tick_every = interval
        self._ticking: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []

    # For the connections

    def outgoing(self, transport: Any) -> Outgoing:
        """For a connection, which pauses when the transport says so."""
        return Outgoing(transport, self.network_timeout, self.min_rate)

    def connected(self, channel: OpenConnection) -> None:
        self.connections.add(channel)
        if self._ticking is None:
            self._ticking = self._timer.callLater(self._tick_every, self._tick)
        if self.stopping:
            channel.stop()
        elif channel in self._turned_away:
            channel.turn_away()
        elif len(self.connections) - len(self._turned_away) > self.max_connections:
            self._make_room(channel)

    def _make_room(self, newcomer: OpenConnection) -> None:
        """Who has been idle for longest goes; the newcomer itself, where all others have something to do."""
        if self._idle:
            longest = next(iter(self._idle))
            del self._idle[longest]
            self.cut_off(IDLE, longest.transport)
            longest.abort()
            return
        self.cut_off(NO_ROOM, newcomer.transport)
        self._turned_away[newcomer] = self.seconds() + TELLING_TAKES
        newcomer.turn_away()
        if len(self._turned_away) > self._telling:
            self._drop(next(iter(self._turned_away)))

    def _drop(self, channel: OpenConnection) -> None:
        """It was turned away, and has had its time."""
        del self._turned_away[channel]
        channel.abort()

    def cut_off(self, why: str, transport: Any) -> None:
        """Count and log that somebody is."""
        self.cut[why] += 1
        client, count = client_at(transport), len(self.connections)
        log.debug("{client} is cut off: {why}; there are {count} connections", client=client, why=why, count=count)

    def idle(self, channel: OpenConnection) -> None:
        """It has no request under way."""
        if channel not in self._turned_away:
            self._idle[channel] = None

    def busy(self, channel: OpenConnection) -> None:
        """It has one again."""
        self._idle.pop(channel, None)

    def replaced(self, channel: OpenConnection, successor: OpenConnection) -> None:
        """The same connection goes on as another one, which isn't one more; `disconnected` follows."""
        self.connections.discard(channel)
        if channel in self._turned_away:
            self._turned_away[successor] = self._turned_away.pop(channel)

    def disconnected(self, channel: OpenConnection) -> None:
        self.connections.discard(channel)
        self._idle.pop(channel, None)
        self._turned_away.pop(channel, None)
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
                self.cut_off(UNREAD, channel.transport)
                channel.abort()
        for channel in [channel for channel, until in self._turned_away.items() if until <= now]:
            self._drop(channel)

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


def no_room(method: bytes) -> RefusedRequest:
    """What those are told who are turned away. After a HEAD that is answered 503, tus-js-client starts over."""
    said = "The server has as many connections as it can serve; try again later."
    return RefusedRequest(423 if method == b"HEAD" else 503, said, RETRY_AFTER)


def client_at(transport: Any) -> str:
    """Whose connection it is, or whose proxy's; empty on a unix socket."""
    return client_of(getattr(transport.getPeer(), "host", None) or "")
