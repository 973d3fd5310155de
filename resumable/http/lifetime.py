"""How a connection of HTTP/1.1 lives and ends: its states, its deadlines, and the time for which it lingers.

Invariants: the next request is read only from `IDLE`, which nothing but a complete answer to a complete request
leads to. No answer is lost by a reset, because the bytes that a client still sends are read and dropped for a while
before the connection is closed. A client that doesn't read is found by `Outgoing`.
Spec: RFC 9112 section 9 (connection management).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import Final

from twisted.python.failure import Failure

from resumable.http.connections import Connections, Outgoing
from resumable.http.request import StreamingRequest
from resumable.http.twisted_web import WebChannel

LINGER_FULL: Final = 1.0
"""Seconds to linger at the most once no more is read: a browser shows the answer only when the connection ends."""
LINGER_STOPPING: Final = 2.0
"""Seconds to linger at the most while the server stops or is full: a client that hasn't read the answer by then asks
again."""

COMING: Final = 1.0
"""Seconds, at most, for the first request of a connection, or the rest of a head, to come while the server stops: a
client that was let in before the stop is answered."""


class ChannelState(enum.IntEnum):
    """Where a connection is, between its requests and in them. Numbers, as hashes of other enums are slow."""

    OPENED = enum.auto()
    """No byte has come."""
    FIRST_HEAD = enum.auto()
    """The head of the first request, or the preface of HTTP/2, is coming."""
    HEAD = enum.auto()
    """The head of a later request is coming."""
    BODY = enum.auto()
    """The body of the request is coming."""
    ANSWERING = enum.auto()
    """The request is complete, its answer is not."""
    DEAF = enum.auto()
    """The answer is not complete, and bytes that came, or will come, belong to no request."""
    IDLE = enum.auto()
    """The answer is out, and the next request may come."""
    LINGERING = enum.auto()
    """The last answer is out; bytes are read and dropped, so that no reset takes the answer away."""
    CLOSING = enum.auto()
    """The connection is closed when the transport has sent all bytes."""


# Names of the module are found in a tenth of the time that a member of an enum takes.
OPENED, FIRST_HEAD, HEAD, BODY, ANSWERING, DEAF, IDLE, LINGERING, CLOSING = ChannelState

IN_HEAD: Final = frozenset({FIRST_HEAD, HEAD})
"""A head has begun."""
AWAITING_HEAD: Final = IN_HEAD | {OPENED, IDLE}
"""The next bytes belong to a head."""

TRANSITIONS: Final[Mapping[ChannelState, frozenset[ChannelState]]] = {
    OPENED: frozenset({FIRST_HEAD, CLOSING}),
    # A head is dispatched, with a body or without; or it is refused.
    FIRST_HEAD: frozenset({BODY, ANSWERING, LINGERING, CLOSING}),
    HEAD: frozenset({BODY, ANSWERING, LINGERING, CLOSING}),
    # A body is complete, or lost; or its request is answered before its end.
    BODY: frozenset({ANSWERING, DEAF, LINGERING, CLOSING}),
    # LINGERING: the answer says "close", and the client has sent more.
    ANSWERING: frozenset({IDLE, DEAF, LINGERING, CLOSING}),
    DEAF: frozenset({LINGERING, CLOSING}),
    IDLE: frozenset({HEAD, CLOSING}),
    LINGERING: frozenset({CLOSING}),
    CLOSING: frozenset({CLOSING}),
}
"""The states that may follow each state."""


class ChannelLifetime(WebChannel):
    """See the module, and `resumable.http.connections.OpenConnection`.

    ``deadline``: when `expire` is to be called. ``seconds``: the site's clock, from `connectionMade` on.
    """

    site: Connections
    requests: list[StreamingRequest]
    outgoing: Outgoing
    seconds: Callable[[], float]
    deadline = math.inf

    _state: ChannelState = OPENED
    _turned_away = False  # there is no room, and the client is told so
    _dropped = 0  # bytes of this request's body, or behind it, that nobody wants

    def connectionMade(self) -> None:
        self.outgoing = Outgoing(self.transport, self.site.network_timeout, self.site.min_rate)
        self.seconds = self.site.seconds
        self.deadline = self.seconds() + self.site.network_timeout
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.connected(self)
        if self._state is OPENED:
            self.site.idle(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._enter(CLOSING)
        try:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
        finally:
            self.site.disconnected(self)

    def _enter(self, state: ChannelState, deadline: float = math.inf) -> None:
        """Go on to ``state``."""
        assert state in TRANSITIONS[self._state], f"{self._state.name} does not lead to {state.name}"
        self._state = state
        self.deadline = deadline

    def dropped(self, size: int) -> None:
        """See `BodySource.dropped`. Beyond the site's ``linger_bytes``, the connection is read no more."""
        self._dropped += size
        if self._state is ANSWERING:
            self._enter(DEAF)
        if self._dropped > self.site.linger_bytes:
            if self._state is LINGERING:
                self.deadline = min(self.deadline, self.seconds() + LINGER_FULL)
            self.regulate()

    def regulate(self) -> None:
        """Open or close the TCP window."""
        raise NotImplementedError

    # For the transport, whose send buffer is full, or empty again

    def pauseProducing(self) -> None:
        self.outgoing.full(self.seconds())
        super().pauseProducing()
        self.regulate()

    def resumeProducing(self) -> None:
        self.outgoing.empty()
        super().resumeProducing()
        self.regulate()

    # The end

    def _linger(self) -> None:
        """Tell the client that nothing more comes, then read and drop until it is done or the bounds are reached.

        Closing at once with bytes unread would send a reset, which can eat the answer (RFC 9112 section 9.6).
        """
        self.outgoing.empty()  # the time for all that is bounded from now on
        linger = self.site.linger
        if self.site.stopping or self._turned_away:
            linger = min(linger, LINGER_STOPPING)
        if self._dropped > self.site.linger_bytes:
            linger = min(linger, LINGER_FULL)
        self._enter(LINGERING, self.seconds() + linger)
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is not None and not self.isSecure():
            self.leave_transport()
            half_close()
        self.regulate()

    def loseConnection(self) -> None:
        """Close when all that was written is sent."""
        if self._state is not CLOSING:
            self._enter(CLOSING)
            self.outgoing.full(self.seconds())
            super().loseConnection()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Close at once, with a reset."""
        self._enter(CLOSING)
        self.transport.abortConnection()  # type: ignore[union-attr]

    def turn_away(self) -> None:
        """Take one request, answer that there is no room, and close."""
        self._turned_away = True

    def stop(self) -> None:
        """Close after the answer that is under way; now if there is none, and no request is on its way."""
        for request in self.requests:
            request.close_after_answer()
        if self._state not in AWAITING_HEAD:
            return
        began = self.deadline - self.site.network_timeout  # the connection, or the head of a request
        if self._state is not IDLE and began + COMING > self.seconds():
            self.deadline = min(self.deadline, began + COMING)
        else:
            self._leave()

    def _leave(self) -> None:
        """Close: nothing is left to send, and a client that doesn't answer the goodbye of TLS isn't waited for."""
        self.loseConnection()
        self.deadline = self.seconds() + LINGER_STOPPING

    def expire(self, now: float) -> None:
        """`deadline` has passed, and neither a head nor a body is coming."""
        if self._state is CLOSING:
            self.abort()
        elif self._state is LINGERING:
            self.loseConnection()
        elif self.site.stopping:
            self._leave()
        elif self.choked:
            self.deadline = now + self.site.network_timeout
        else:
            self.loseConnection()
