"""The open connections of a server: their one timer, which of them makes room for another, which client takes nothing,
and how a stop closes them.

Invariants: a connection is known from its first moment to its last, so `Connections.drained` never fires too early; the
timer runs only while there is a connection. A client that opens very many connections takes neither open files from
uploads under way nor, while they are idle, the places of later clients. A client that finds no room is told so, but few
are told at once, and each for a short while.
"""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.deferreds import Timer, Waiters
from resumable.http.h1 import Fields, RefusedRequest
from resumable.http.h2.limits import HeldBytes
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.networks import client_of

log = Logger()

TELLING: Final = 64
"""Connections, at most, that are told at once that there is no room: they come on top of all others."""
TELLING_TAKES: Final = 5.0
"""Seconds, at most, until they are told: the head of a request comes first, and says which page may read the answer."""
RETRY_AFTER: Final = 10
"""Seconds after which they may try again."""

UNREAD: Final = "unread"
"""Why a connection is cut off: its client takes no byte of an answer, or too few."""
IDLE: Final = "idle"
"""It had no request under way, and made room for another connection."""
NO_ROOM: Final = "full"
"""It found no room, and was told so or closed."""

STEPS: Final = 10
"""How often a transport that is full is looked at in one time-out."""

_ACKED: Final = struct.Struct("=120xQ")
"""``tcpi_bytes_acked`` within ``struct tcp_info`` of linux/tcp.h (since Linux 4.1)."""
_SIOCOUTQ: Final = 0x5411


class OpenConnection(Protocol):
    """One connection, of HTTP/1.1 or HTTP/2, as `Connections` sees it."""

    outgoing: Outgoing
    """The connection is aborted when its client takes too little of this."""
    transport: Any

    @property
    def deadline(self) -> float:
        """When `expire` is to be called, in seconds of the clock; infinity: never. It may change at any time."""

    def expire(self, now: float) -> None:
        """The deadline has passed: close, or set another deadline."""

    def turn_away(self) -> None:
        """Answer its first request with `no_room`, and close."""

    def stop(self) -> None:
        """Close now if idle, else after the answer that is under way."""

    def abort(self) -> None:
        """Close at once, with a reset."""


class Connections:
    """All open connections of a server, and the settings that they share, which `StreamingSite` explains and sets.

    ``connections``: those that are open, at most ``max_connections`` and those that are turned away. ``stopping``: each
    closes after its answer. ``at_stop``: ends an answer that would go on for ever. ``seconds``: the clock. ``cut``: how
    many were cut off, by reason.
    """

    network_timeout: float
    min_rate: int
    linger: float
    linger_bytes: int
    max_body_buffer: int
    direct_from: int
    refusal_fields: Callable[[Sequence[bytes]], Fields]
    watch: RequestObserver
    http2: bool
    h2c: bool
    received: int
    held: HeldBytes
    requestFactory: Callable[[Any], StreamingRequest]

    def begin(self, timer: IReactorTime, interval: float, max_connections: int) -> None:
        """Start without connections. Their deadlines are checked every ``interval`` seconds."""
        self.max_connections = max_connections
        self.cut = dict.fromkeys((UNREAD, IDLE, NO_ROOM), 0)
        self._idle: dict[OpenConnection, None] = {}  # the one that has been so for longest comes first
        self._turned_away: dict[OpenConnection, float] = {}  # until when; the oldest first
        self._telling = max(1, min(TELLING, max_connections // 16))
        self.seconds: Callable[[], float] = timer.seconds
        self.stopping = False
        self.at_stop: set[Callable[[], object]] = set()
        self.connections: set[OpenConnection] = set()
        self._clock = timer
        self._tick_every = interval
        self._ticking = Timer(timer, self._tick)
        self._drained = Waiters()

    # For the connections

    def connected(self, channel: OpenConnection) -> None:
        """The connection is open. It may be told at once to stop, or that there is no room."""
        self.connections.add(channel)
        if not self._ticking.pending:
            self._ticking.set(self._tick_every)
        if self.stopping:
            channel.stop()
        elif channel in self._turned_away:
            channel.turn_away()
        elif len(self.connections) - len(self._turned_away) > self.max_connections:
            self._make_room(channel)

    def _make_room(self, newcomer: OpenConnection) -> None:
        """Abort the connection that was idle for longest; turn the newcomer away if none is idle."""
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
        """The connection was turned away, and its time is over."""
        del self._turned_away[channel]
        channel.abort()

    def cut_off(self, why: str, transport: Any) -> None:
        """Count and log that a connection is cut off; ``why``: `UNREAD`, `IDLE` or `NO_ROOM`."""
        self.cut[why] += 1
        client, count = client_at(transport), len(self.connections)
        log.debug("{client} is cut off: {why}; there are {count} connections", client=client, why=why, count=count)

    def idle(self, channel: OpenConnection) -> None:
        """The connection has no request under way."""
        if channel not in self._turned_away:
            self._idle[channel] = None

    def busy(self, channel: OpenConnection) -> None:
        """The connection has a request under way."""
        self._idle.pop(channel, None)

    def replaced(self, channel: OpenConnection, successor: OpenConnection) -> None:
        """The connection goes on as ``successor``, which doesn't count as a new one; `disconnected` follows."""
        self.connections.discard(channel)
        if channel in self._turned_away:
            self._turned_away[successor] = self._turned_away.pop(channel)

    def disconnected(self, channel: OpenConnection) -> None:
        """The connection is closed."""
        self.connections.discard(channel)
        self._idle.pop(channel, None)
        self._turned_away.pop(channel, None)
        if not self.connections:
            self._ticking.clear()
            self._drained.fire()

    def _tick(self) -> None:
        """One timer for all connections: five thousand of them cost five thousand comparisons a second."""
        self._ticking.set(self._tick_every)
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
        for end in list(self.at_stop):
            end()

    def drained(self) -> Deferred[None]:
        """Fires when no connection is left."""
        return self._drained.wait() if self.connections else succeed(None)

    def abort_all(self) -> None:
        """Reset all that are still open."""
        for channel in list(self.connections):
            channel.abort()

    async def close_connections(self, grace: float) -> None:
        """Stop gracefully: answers under way have ``grace`` seconds, then the connections that are left are reset."""
        self.stop_idle()
        abort = Timer(self._clock, self.abort_all)
        abort.set(grace)
        await self.drained()
        abort.clear()


def no_room(method: bytes) -> RefusedRequest:
    """The answer to a client that is turned away. After a HEAD that is answered 503, tus-js-client starts over."""
    said = "The server has as many connections as it can serve; try again later."
    return RefusedRequest(423 if method == b"HEAD" else 503, said, RETRY_AFTER)


def client_at(transport: Any) -> str:
    """The address of the connection's client, or of its proxy, see `client_of`; empty on a unix socket."""
    return client_of(getattr(transport.getPeer(), "host", None) or "")


class Outgoing:
    """What one connection has written and its client has not taken yet.

    Invariants: a client that takes no byte for a time-out is found, however many the kernel has accepted for it; a
    client that takes bytes steadily, at ``--min-rate`` or faster, is never given up. How much of a write the kernel's
    buffer takes shows neither: it holds megabytes, and asks for more only when a third of it is free, which takes a
    slow reader minutes. Hence Linux is asked how much the other side's system has acknowledged (`tcp(7)`, TCP_INFO;
    `unix(7)`, SIOCOUTQ). On other systems a client has to make room for the next piece within the time-out.

    ``deadline``: when `stuck` is to be called; infinity while the transport takes what is written.
    """

    __slots__ = ("_outq", "_progress", "_step", "_taken", "_transport", "deadline")

    def __init__(self, transport: Any, timeout: float, rate: float) -> None:
        self.deadline = math.inf
        self._transport = transport
        self._progress = TakingProgress(timeout, rate)
        self._step = timeout / STEPS
        self._taken = self._outq = 0

    def full(self, now: float) -> None:
        """The transport has enough for now; or all is written, and the connection is to close when it's taken."""
        if self.deadline == math.inf:
            self._look()
            self._progress.begin(now, self._taken)
            self.deadline = now + self._step

    def empty(self) -> None:
        """The transport has handed all of it on."""
        self.deadline = math.inf
        self._progress.end()

    def stuck(self, now: float) -> bool:
        """Whether the client doesn't take it."""
        self._look()
        self.deadline = now + self._step
        return self._progress.overdue(now, self._taken)

    def _look(self) -> None:
        """See how much has been taken since the last time."""
        sock = getattr(self._transport, "socket", None)
        try:
            if sock is None or sys.platform != "linux":
                return
            if sock.family == socket.AF_UNIX:
                waits = _waiting(sock)
                self._taken += max(0, self._outq - waits)
                self._outq = waits
            else:
                (self._taken,) = _ACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size))
        except (OSError, ValueError, struct.error):  # it is closed; or the kernel is older than that
            pass


def _waiting(sock: socket.socket) -> int:
    """Bytes that the other side hasn't read, with the kernel's overhead for them."""
    (waits,) = struct.unpack("=i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))
    return int(waits)


class TakingProgress:
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
        """Bytes wait, if none did before. ``taken``: how many were taken up to now."""
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
