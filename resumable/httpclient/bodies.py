"""Bodies of requests, read from their source while they are sent, and of answers, read at the reader's pace.

Invariants: one body of a request holds one piece, `PIECE` bytes: the next is read when the transport has sent the last.
(Reading ahead in halves needs twice the reads, and several parts go at once.) Of an answer's body some `PIECE` is held
at most, then the TCP window closes; a body that is given up takes its connection along; nobody waits longer than a
time-out for the next sign of progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet import error, protocol
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from resumable.httpclient.errors import TimedOut, TooLong, error_for

PIECE = 256 << 10
"""Bytes that one body holds at most."""


class LentFile(Protocol):
    """A region of a file in the hands of the kernel. ``file``: a descriptor, and the offset of the region in it."""

    file: tuple[int, int]

    def give_back(self) -> None:
        """The descriptor is no longer used."""


class Content(Protocol):
    """Bytes that a request is made of, such as a region of an upload. ``size``: how many.

    One that lies in a file has also ``lend_file() -> LentFile | None``.
    """

    size: int

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Exactly the ``size`` bytes (at most `PIECE`) from ``offset`` on. A failure is the request's."""


@implementer(IBodyProducer)
class BytesBody:
    """A small body that is in memory already."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self.data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.data)
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

    ``progress`` is called whenever the network has taken something. ``sent``: bytes handed to the transport, or sent
    before by the kernel.
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

    def lend(self) -> LentFile | None:
        """The region as the kernel can send it, instead of `startProducing`; None: it can't."""
        lend_file: Callable[[], LentFile | None] = getattr(self._region, "lend_file", lambda: None)
        try:
            return lend_file()
        except ValueError:
            return None  # it is closed, as reading it will tell

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


class IdleTimeout:
    """Calls ``give_up`` when ``seconds`` have passed since the last `touch`."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.expired = False
        self.give_up: Callable[[], None] = lambda: None
        self._seconds = seconds
        self._call = clock.callLater(seconds, self._expire)

    def touch(self) -> None:
        """Something has moved: the time begins anew."""
        if self._call.active():
            self._call.reset(self._seconds)

    def stop(self) -> None:
        """End the watch. May be repeated."""
        if self._call.active():
            self._call.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.give_up()


class BodyStream(protocol.Protocol):
    """The body of one answer. ``seconds``: of silence, while somebody waits, after which it is given up.

    ``until_closed``: a body of unknown length may end with its connection, so a broken one can't be told from a whole.
    """

    def __init__(self, clock: IReactorTime, seconds: float, until_closed: bool = False) -> None:
        self._clock = clock
        self._seconds = seconds
        self._whole = (ResponseDone, PotentialDataLoss) if until_closed else (ResponseDone,)
        self._pieces: list[bytes] = []
        self._held = 0
        self._paused = False
        self._waiting: Deferred[bytes] | None = None
        self._watch: IdleTimeout | None = None
        self._end: Failure | None = None

    def read(self) -> Deferred[bytes]:
        """The next bytes, none at the end. One call at a time. Fails with HttpError; cancelling it is closing."""
        if self._pieces:
            return succeed(self._take())
        if self._end is not None:
            return succeed(b"") if self._end.check(*self._whole) else fail(self._end)
        self._waiting = Deferred(lambda _: self.close())
        self._watch = IdleTimeout(self._clock, self._seconds)
        self._watch.give_up = self._give_up
        return self._waiting

    async def read_all(self, largest: int) -> bytes:
        """All that is left, ``largest`` bytes at most. Raises HttpError; the stream is closed then."""
        pieces, room = [], largest
        try:
            while piece := await self.read():
                room -= len(piece)
                if room < 0:
                    raise TooLong(largest)
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            self.close()

    def close(self) -> None:
        """No more is wanted. May be repeated, also after the end. A `read` that waits fails with CancelledError."""
        self._stop(Failure(CancelledError()))

    def _stop(self, reason: Failure) -> None:
        if self._end is None:
            self._ended(reason)
            if self.transport is not None:
                self.transport.stopProducing()  # type: ignore[attr-defined]
        self._pieces.clear()

    def dataReceived(self, data: bytes) -> None:
        if self._end is not None:
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._waiting is not None:
            self._tell(self._take())
        elif self._held >= PIECE and not self._paused:
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._ended(reason or Failure(error.ConnectionLost()))

    def _ended(self, reason: Failure) -> None:
        if self._end is None:
            done = reason.check(*self._whole) is not None
            self._end = reason if done else Failure(error_for(reason.value or error.ConnectionLost()))
            if self._waiting is not None:
                self._tell(b"" if done else self._end)

    def _give_up(self) -> None:
        self._stop(Failure(TimedOut(self._seconds)))

    def _tell(self, result: bytes | Failure) -> None:
        waiting, self._waiting = self._waiting, None
        if self._watch is not None:
            self._watch.stop()
        if waiting is not None and not waiting.called:
            waiting.callback(result)

    def _take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            if self._end is None:
                self.transport.resumeProducing()  # type: ignore[union-attr]
        return data


def stream_of(response: IResponse, clock: IReactorTime, seconds: float, until_closed: bool = False) -> BodyStream:
    """The body of an answer whose head is there; see `BodyStream`."""
    stream = BodyStream(clock, seconds, until_closed)
    response.deliverBody(stream)
    return stream
