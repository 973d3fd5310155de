"""The body of one request while it arrives, on its way from the connection to a consumer (an append's `spool.sink`).

Invariant: the consumer gets every byte that arrived, once and in order, before the end, however the body ended. The
body knows neither HTTP's grammar nor Twisted's insides: a `StreamingChannel` or an `Http2Stream` feeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from resumable.model.errors import BodyLost
from resumable.model.upload import IBody
from resumable.spool.direct import Ending, IDirectConsumer

READ_AHEAD = 65_536
"""Bytes kept for a body that nobody has asked for yet, before the TCP window closes."""

_MAX_PIECES = 64
_PIECE = 65_536
"""Bytes that small pieces are collected to where there are many."""
_NO_TRAILERS: Mapping[str, str] = MappingProxyType({})


class BodySource(Protocol):
    """What a body needs of the connection it arrives on."""

    def seconds(self) -> float:
        """The time, on the clock that the guards use."""

    def regulate(self) -> None:
        """`Body.blocked` or `Body.held` may have changed: let the client send, or not."""

    def dropped(self, size: int) -> None:
        """So many bytes arrived that nobody wants."""

    def send_continue(self) -> None:
        """Send ``100 Continue``, unless a final status was sent before."""


@implementer(IBody, IPushProducer)
class Body:
    """See `resumable.model.upload.IBody`.

    ``received`` is how many bytes have arrived, delivered or not; ``held`` how many of them wait here.
    """

    __slots__ = (
        "_connection",
        "_consumer",
        "_direct",
        "_done",
        "_dropping",
        "_flushing",
        "_held",
        "_open_time",
        "_opened_at",
        "_paused",
        "_quiet_since",
        "_result",
        "_window_received",
        "expects_continue",
        "held",
        "length",
        "received",
        "trailers",
    )

    def __init__(self, connection: BodySource, length: int | None, expects_continue: bool = False) -> None:
        self.length = length
        self.received = self.held = 0
        self.expects_continue = expects_continue
        self.trailers = _NO_TRAILERS
        self._connection = connection
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._result: str | None = "" if length == 0 else None  # None: not over; "": complete; else why it was lost
        self._held: list[bytes | bytearray] = []
        self._paused = self._dropping = self._flushing = self._direct = False
        self._opened_at: float | None = None  # None while we don't wait for bytes
        self._open_time = 0.0  # seconds of this window before _opened_at
        self._quiet_since = 0.0
        self._window_received = 0

    # What a handler uses

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See `IBody.deliver`. Cancelling the Deferred discards the body."""
        if self._done is not None or self._dropping:
            raise RuntimeError("a body is delivered once, and not after discard()")
        if self.expects_continue and not self._result:
            self._connection.send_continue()
        done = self._done = Deferred(self._cancelled)
        self._consumer = consumer
        self._open()
        consumer.registerProducer(self, True)
        self._flush()
        return done

    def discard(self) -> None:
        """See `IBody.discard`. Unregisters from the consumer."""
        consumer, self._consumer = self._consumer, None
        self._let_go()
        self._dropping = True
        self._close()
        if consumer is not None:
            consumer.unregisterProducer()
        self._connection.regulate()

    def _cancelled(self, _: Deferred[None]) -> None:
        self.discard()

    # IPushProducer, for the consumer

    def pauseProducing(self) -> None:
        if not self._paused and self._consumer is not None:
            self._paused = True
            self._close()
            self._connection.regulate()

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            if self._consumer is not None:
                self._open()
                self._flush()

    def stopProducing(self) -> None:
        """The consumer wants no more: the rest is dropped, and `deliver` fails with BodyLost."""
        if self._consumer is not None:
            self._let_go()
            self._result = "disconnected"
            self._close()
            self._flush()
            self._connection.regulate()

    # What the connection uses

    @property
    def blocked(self) -> bool:
        """Whether nothing more should be read from the network for now."""
        if self._direct:
            return True
        if self._dropping or self._result is not None:
            return False
        return self._paused or (self._consumer is None and self.held >= READ_AHEAD)

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self._result == ""

    def arrived(self, data: bytes) -> None:
        """Take the next bytes. The path of every byte of every upload: no copy, one call to the consumer."""
        self.received += len(data)
        consumer = self._consumer
        if consumer is not None and not self._paused and not self._held:
            self._quiet_since = self._connection.seconds()
            consumer.write(data)
        elif self._dropping or self._result:
            self._connection.dropped(len(data))
        else:
            self._hold(data)
            self._connection.regulate()

    def receive(self, source: int, size: int, arrived: Callable[[int], None]) -> Deferred[Ending] | None:
        """Have the consumer take the next bytes from the socket by itself (see `IDirectConsumer.receive`).

        Until then this body is blocked, and its end waits. That time is ours: it counts for no guard.
        """
        consumer = IDirectConsumer(self._consumer, None)
        if consumer is None or self._paused or self._held or self._result is not None:
            return None

        def count(size: int) -> None:
            self.received += size
            arrived(size)

        done: Deferred[Ending] | None = consumer.receive(source, size, count)
        if done is None or done.called:
            return done
        self._direct = True
        self._close()
        return done.addCallback(self._received)

    def _received(self, ending: Ending) -> Ending:
        self._direct = False
        if self._result is not None:
            self._flush()
        elif self._consumer is not None and not self._paused:
            self._open()
        return ending

    def end(self, reason: str = "") -> None:
        """Nothing more comes: all of it is here, or it was lost for ``reason`` (see BodyLost)."""
        if self._result is None:
            self._result = reason
            self._close()
            if self._consumer is not None:
                if self._direct and reason:
                    self._consumer.unregisterProducer()  # a thread takes no more from a connection that was lost
                self._flush()

    def overdue(self, now: float, timeout: float, min_rate: float) -> str | None:
        """Why this body should be given up: ``idle`` or ``slow``. Time in which we did not read counts for neither."""
        if self._opened_at is None:
            return None
        if now - self._quiet_since >= timeout:
            return "idle"
        if self._open_time + now - self._opened_at >= timeout:
            if self.received - self._window_received < min_rate * timeout:
                return "slow"
            self._open_time, self._opened_at, self._window_received = 0.0, now, self.received
        return None

    def next_check(self, now: float, timeout: float) -> float:
        """The earliest time at which `overdue` may answer something else."""
        if self._opened_at is None:
            return now + timeout
        return min(self._quiet_since, self._opened_at - self._open_time) + timeout

    # Inside

    def _hold(self, data: bytes) -> None:
        """Keep it for later, in few pieces however small it comes."""
        last = self._held[-1] if self._held else b""
        if len(self._held) < _MAX_PIECES or len(data) >= _PIECE:
            self._held.append(data)
        elif isinstance(last, bytearray) and len(last) < _PIECE:
            last += data
        else:
            self._held.append(bytearray(data))
        self.held += len(data)

    def _let_go(self) -> None:
        self._held.clear()
        self.held = 0

    def _open(self) -> None:
        if self._result is None and not self._direct:
            self._opened_at = self._quiet_since = self._connection.seconds()

    def _close(self) -> None:
        if self._opened_at is not None:
            self._open_time += self._connection.seconds() - self._opened_at
            self._opened_at = None

    def _flush(self) -> None:
        """Write what is held: all of it after a loss, else until the consumer pauses us."""
        if self._flushing:  # the consumer resumed us from within write(): the loop below goes on
            return
        self._flushing = True
        try:
            while self._held and self._consumer is not None and (self._result or not self._paused):
                piece = self._held.pop(0)
                self.held -= len(piece)
                self._consumer.write(bytes(piece))
        finally:
            self._flushing = False
        self._connection.regulate()
        if self._result is not None and not self._held and not self._direct:
            self._fire(self._result)

    def _fire(self, result: str) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None or self._done is None:
            return
        consumer.unregisterProducer()
        if result:
            self._done.errback(BodyLost(result))
        else:
            self._done.callback(None)
