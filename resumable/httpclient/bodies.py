"""Bodies of requests, read from their source while they are sent.

Invariant: one body holds one piece, `PIECE` bytes: the next is read when the transport has sent the last. (Reading
ahead in halves needs twice the reads, and several parts go at once.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

PIECE = 256 << 10
"""Bytes that one body holds at most."""


class Content(Protocol):
    """Bytes that a request is made of, such as a region of an upload. ``size``: how many."""

    size: int

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Exactly the ``size`` bytes (at most `PIECE`) from ``offset`` on. A failure is the request's."""


@implementer(IBodyProducer)
class BytesBody:
    """A small body that is in memory already."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


@implementer(IBodyProducer)
class RegionBody:
    """A region, piece by piece. ``failure``: why it could not be read, None while it can.

    ``progress`` is called whenever the network has taken something. ``sent``: bytes handed to the transport.
    """

    def __init__(self, region: Content, progress: Callable[[], None] = lambda: None) -> None:
        self.length: int = region.size
        self.progress = progress
        self.failure: Failure | None = None
        self.sent = 0
        self._region = region
        self._paused: Deferred[None] | None = None
        self._running: Deferred[None] | None = None
        self._stopped = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._running = Deferred.fromCoroutine(self._produce(consumer))
        self._running.addCallbacks(done.callback, self._failed, errbackArgs=(done,))
        return done

    def pauseProducing(self) -> None:
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            self.progress()
            paused.callback(None)

    def stopProducing(self) -> None:
        """See IBodyProducer. May be repeated, and called after the end."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    async def _produce(self, consumer: IConsumer) -> None:
        while self.sent < self.length:
            if self._paused is not None:
                await self._paused  # the transport still has the last piece
            piece = await self._region.read(self.sent, min(PIECE, self.length - self.sent))
            if not piece or self.sent + len(piece) > self.length:
                raise ValueError("a region answered another number of bytes than it was asked for")
            self.sent += len(piece)
            consumer.write(piece)
            del piece

    def _failed(self, failure: Failure, done: Deferred[None]) -> None:
        if self._stopped and failure.check(CancelledError):
            return
        self.failure = failure
        done.errback(failure)
