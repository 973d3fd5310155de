"""Requests that reach the resource tree when their headers are complete, with a body that streams.

The only file that knows Twisted's private attributes; it changes when Twisted does (`TESTED_TWISTED`, `PRIVATES`).
Invariants: the next request is read only after the answer to the one before; nothing that isn't a request is ever
parsed as one; an answer is never eaten by a reset, because what a client still sends is read and dropped for a
while before the connection is closed. HTTP/1.1 (RFC 9112) and HTTP/1.0 here; HTTP/2 in the package `two`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from klein.interfaces import IKleinRequest
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site
from werkzeug.routing import MapAdapter

from resumable.http.body import Body
from resumable.http.chunks import ChunkReader, parse_trailers
from resumable.http.connections import Connections, no_room
from resumable.http.framing import (
    Fields,
    Head,
    Refused,
    check_unfinished,
    origins_in,
    parse_head,
    problem,
    refusal,
    take_expectation,
)
from resumable.http.h2.connection import Connection
from resumable.http.h2.frames import PREFACE
from resumable.http.h2.limits import Held
from resumable.http.h2.stream import Stream
from resumable.http.outgoing import Outgoing
from resumable.model.errors import BodyLost
from resumable.model.telemetry import REQUEST

__all__ = ["Body", "StreamingRequest", "StreamingSite"]

TESTED_TWISTED: Final = ("26.4", "26.10")
"""The oldest and the newest version of Twisted that the tests ran with."""

PRIVATES: Final[Mapping[type, tuple[str, ...]]] = {
    HTTPChannel: ("_requestProducer", "_waitingForTransport", "pauseProducing", "resumeProducing", "writeHeaders"),
    HTTPRequest: ("_cleanup", "_disconnected", "requestReceived"),
    Request: ("_handleStar",),
}
"""What is leaned on beyond Twisted's documented interface. A test fails loudly when one of these is missing."""

READ_SIZE: Final = 65_536
"""Bytes asked of the kernel at once, as Twisted does by default. It grows while a fast body arrives."""
PIPELINED: Final = 16_384
"""Bytes of later requests kept while one is answered, before the TCP window closes."""

LINGER_FULL: Final = 1.0
"""Seconds to linger at the most once no more is read: a browser shows the answer only when the connection ends."""
LINGER_STOPPING: Final = 2.0
"""Seconds to linger at the most while the server stops or is full: who hasn't read the answer by then asks again."""

COMING: Final = 1.0
"""Seconds, at most, for the first request of a connection, or the rest of a head, to come while the server stops: a
client that was let in before the stop is answered."""

_OPEN, _LINGERING, _CLOSED = range(3)


class Watch(Protocol):
    """Sees every request of a site."""

    def prepare(self, request: StreamingRequest) -> None:
        """Its head is in; the request may be changed or answered."""

    def done(self, request: StreamingRequest, seconds: float) -> None:
        """It was answered, or its client has gone, so many seconds after that."""

    def refused(self, status: int) -> None:
        """What came was no request, and this was the answer."""


class Unwatched:
    """Nobody looks."""

    def prepare(self, request: StreamingRequest) -> None:
        pass

    def done(self, request: StreamingRequest, seconds: float) -> None:
        pass

    def refused(self, status: int) -> None:
        pass


class StreamingRequest(Request):
    """A request whose handler runs when the headers are complete; its bytes come through ``body``.

    ``content`` is always empty.
    """

    defaultContentType = None
    channel: StreamingChannel | Stream  # type: ignore[assignment]
    site: StreamingSite
    body: Body
    sent_method = b""
    """What the client's own parser goes by; ``method`` may be changed to what the client meant."""
    began = 0.0
    """When it was dispatched, on the site's clock."""
    mapper: MapAdapter
    branch_segments: tuple[str, ...] = ("",)

    def begin(self, head: Head, body: Body) -> None:
        """Be dispatched: this is the request."""
        self.requestHeaders = head.headers
        self.content = BytesIO()
        self.body = body
        self.parseCookies()  # type: ignore[no-untyped-call]
        self.requestReceived(head.method, head.target, head.version)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        """Find the resource and render it, after the site's ``watch`` had its look. Never raises."""
        self.sent_method = self.method
        self.site = site = self.channel.site
        self.began = site.seconds()
        self.responseHeaders.setRawHeaders(b"Server", [b"resumable"])
        self.responseHeaders.setRawHeaders(b"Date", [datetimeToString()])
        self.prepath: list[bytes] = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            site.watch.prepare(self)
            if self.finished or self._disconnected:
                return
            before = REQUEST.set(self.known_as)
            try:
                if self.path == b"*":
                    self._handleStar()  # type: ignore[no-untyped-call]
                else:
                    self.render(site.getResourceFor(self))
            finally:
                REQUEST.reset(before)
        except Exception:
            self.processingFailed(Failure())

    def render(self, resrc: IResource) -> None:
        """Have ``resrc`` answer. Twisted's own has pages for what goes wrong, and a line in the log for each HEAD."""
        body = resrc.render(self)
        if body is not NOT_DONE_YET:
            self.set_field(b"content-length", b"%d" % len(body))
            self.write(body)
            self.finish()

    def __conform__(self, interface: Any) -> Any:
        """Be Klein's view of the request too; making one by its adapter costs a twentieth of a small request."""
        return self if interface is IKleinRequest else super().__conform__(interface)  # type: ignore[no-untyped-call]

    def processingFailed(self, reason: Failure) -> Failure:
        """Log it, and tell the client no more than that it failed."""
        if not (self._disconnected and isinstance(reason.value, BodyLost | CancelledError)):
            self._log.failure(
                "{method} {path} failed", reason, method=self.method, path=self.path, request=self.known_as
            )
        if self._disconnected or self.finished:
            return reason
        self.close_after_answer()
        if self.startedWriting:
            self.channel.loseConnection()
            return reason
        body = problem(500, "Something went wrong here; the request may be repeated.")
        self.setResponseCode(500)
        self.responseHeaders.setRawHeaders(b"Content-Type", [b"application/problem+json"])
        self.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        self.write(body)
        self.finish()
        return reason

    def write(self, data: bytes) -> None:
        if not self.startedWriting and not self._disconnected:
            self._frame_for_client()
            self.channel.answering(self)
            if self.finished:  # the rest of the body came in just now, and its end was answered
                return
        super().write(data)  # type: ignore[no-untyped-call]

    def _frame_for_client(self) -> None:
        """Only who has sent a HEAD expects no body after a Content-Length, and always does."""
        if self.method != self.sent_method and b"HEAD" in (self.method, self.sent_method):
            if self.method == b"HEAD":
                self.responseHeaders.setRawHeaders(b"Content-Length", [b"0"])
            self.method = b"HEAD"

    def finish(self) -> None:
        """The answer is complete. Nothing happens when the client is gone: it may go at any time."""
        if not self._disconnected:
            super().finish()  # type: ignore[no-untyped-call]

    @property
    def gone(self) -> bool:
        """Whether the client has gone: there is nobody to answer."""
        return bool(self._disconnected)

    @property
    def known_as(self) -> str:
        """What the client, a proxy or the watch calls it: its X-Request-ID. Empty if nobody does."""
        given = self.requestHeaders.getRawHeaders(b"x-request-id")
        return given[0].decode("latin-1") if given else ""

    def set_field(self, name: bytes, value: bytes) -> None:
        """Set one field of the answer's header."""
        self.responseHeaders.setRawHeaders(name, [value])

    def close_after_answer(self) -> None:
        """Close the connection when this request has been answered, and say so if the headers aren't out yet."""
        if not self._disconnected and not self.finished:
            self.channel.persistent = False
            if not self.startedWriting:
                self.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def connectionLost(self, reason: Failure) -> None:
        """The body goes first: what it brought is delivered before anybody cancels the handler."""
        self._disconnected = True
        self.site.log(self)
        self.body.end("disconnected")
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class StreamingChannel(HTTPChannel):
    """One connection. Reads requests itself, and leaves the writing of answers to Twisted."""

    site: StreamingSite
    persistent: bool = True
    requests: list[StreamingRequest]

    _body: Body | None = None  # while it arrives, even if its request has been answered
    _left = 0  # bytes to come of a body with a Content-Length, or of one chunk
    _chunks: ChunkReader | None = None
    _input = b""  # bytes not looked at yet
    _busy = False  # parsing, further up the stack
    _begun = False  # the first byte of a request has come
    _served = False  # a request was read
    _blank = False  # an empty line before the request was skipped
    _reading = True
    _state = _OPEN
    _turned_away = False  # there is no room, and this is all that is to be said
    _unread = False  # the client sends, or may send, what nobody reads
    _dropped = 0
    _read_size = READ_SIZE
    deadline = math.inf
    """When `expire` wants to be called, on the site's clock."""
    outgoing: Outgoing
    room = sys.maxsize
    """Bytes of an answer that have somewhere to go. The transport pauses who writes too many."""

    def connectionMade(self) -> None:
        self.outgoing = self.site.outgoing(self.transport)
        self.deadline = self.seconds() + self.site.network_timeout
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.connected(self)
        if self._state == _OPEN:
            self.site.idle(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._state, self.deadline, self._input = _CLOSED, math.inf, b""
        self._body = self._chunks = None
        try:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
        finally:
            self.site.disconnected(self)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        size = len(data)
        self.site.received += size
        if size < self._left:  # within a body or a chunk: nothing to parse, nothing to copy
            self._left -= size
            if size >= self._read_size:
                self._read_more()
            assert self._body is not None
            self._body.arrived(data)
        else:
            self._input += data
            self._advance()

    def _advance(self) -> None:
        """Take what can be taken of the input. Handlers that answer at once come back here: no recursion."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._input:
                if self._body is not None:
                    self._take_body(self._body)
                elif self._state != _OPEN or (self.requests and not self.persistent):
                    self.dropped(len(self._input))
                    self._input = b""
                elif self.requests or not self._take_head():
                    break
        except Refused as refused:
            if self._is_preface():
                self._hand_over()
            else:
                self._refuse(refused)
        finally:
            self._busy = False
        if self.requests:
            self.regulate()

    def _is_preface(self) -> bool:
        """Whether what can't be read here is the beginning of HTTP/2, and that was agreed upon."""
        site, given = self.site, self._input[: len(PREFACE)]
        if self._served or not PREFACE.startswith(given):
            return False
        return site.h2c or (site.http2 and getattr(self.transport, "negotiatedProtocol", None) == b"h2")

    def _hand_over(self) -> None:
        """From now on the connection speaks HTTP/2."""
        data, self._input = self._input, b""
        successor = Connection(self.site)
        self.dataReceived = successor.dataReceived  # type: ignore[method-assign]
        self.connectionLost = successor.connectionLost  # type: ignore[method-assign]
        self._networkProducer.unregisterProducer()  # type: ignore[attr-defined]
        self.site.replaced(self, successor)
        successor.makeConnection(self.transport)  # type: ignore[no-untyped-call]
        self.site.disconnected(self)
        successor.dataReceived(data)

    def _take_head(self) -> bool:
        """Dispatch the request whose head is in; False when more must come."""
        if not self._begun:
            self._begun = True
            self.deadline = self.seconds() + self.site.network_timeout
        if not self._blank and self._input.startswith(b"\r\n"):  # RFC 9112 section 2.2
            self._blank = True
            self._input = self._input[2:]
        end = self._input.find(b"\r\n\r\n")
        if end < 0:
            check_unfinished(self._input)
            return False
        if self._turned_away:
            raise no_room(self._input.partition(b" ")[0])
        head = parse_head(self._input[:end])
        expects = head.version == b"HTTP/1.1" and take_expectation(head.headers)
        self._input = self._input[end + 4 :]
        self._begun = self._blank = False
        self._dispatch(head, Body(self, head.length, expects))
        return True

    def _dispatch(self, head: Head, body: Body) -> None:
        request: StreamingRequest = self.requestFactory(self)  # type: ignore[assignment]
        self.requests.append(request)
        self.site.busy(self)
        self.persistent, self._served = head.persistent, True
        self.deadline, self._dropped = math.inf, 0
        if head.length != 0:
            self._body, self._left = body, head.length or 0
            self.deadline = self.seconds() + self.site.network_timeout
            self._chunks = ChunkReader() if head.length is None else None
        if self.site.stopping:
            request.close_after_answer()
        request.begin(head, body)

    def _take_body(self, body: Body) -> None:
        data, self._input = self._input, b""
        if self._chunks is not None:
            self._take_chunks(body, self._chunks, data)
            return
        if len(data) > self._left:
            data, self._input = data[: self._left], data[self._left :]
        self._left -= len(data)
        if data:
            body.arrived(data)
        if not self._left and self._body is body:
            self._body_complete(body)

    def _take_chunks(self, body: Body, chunks: ChunkReader, data: bytes) -> None:
        if len(data) >= self._read_size:
            self._read_more()
        pieces: list[bytes] = []
        rest, malformed = None, False
        chunks.left = self._left
        try:
            rest = chunks.feed(data, pieces)
            if rest is not None:
                body.trailers = parse_trailers(chunks.trailers)
        except Refused:
            malformed = True
        self._left = chunks.left
        if pieces:  # one write for all that one read brought
            body.arrived(b"".join(pieces))
        if self._body is not body:
            return
        if malformed:
            self._lose_body("malformed")
        elif rest is not None:
            self._input = rest
            self._body_complete(body)

    def _body_complete(self, body: Body) -> None:
        self._forget_body()
        body.end()
        if self._state == _LINGERING and not self._input and not self._unread:
            self.loseConnection()

    def _lose_body(self, reason: str) -> None:
        """The rest of this body is worth nothing. Its request may be answered, then the connection closes."""
        body = self._body
        assert body is not None
        self._forget_body()
        self._unread = True
        self._input = b""
        for request in self.requests:
            request.close_after_answer()
        body.end(reason)
        self.regulate()

    def _forget_body(self) -> None:
        self._body = self._chunks = None
        self._left = 0
        self.deadline = self.deadline if self._state else math.inf
        if self._read_size != READ_SIZE:
            self._read_size = self.transport.bufferSize = READ_SIZE  # type: ignore[union-attr]

    def _read_more(self) -> None:
        """Reads come back full: larger ones make a fast body twice as fast."""
        limit = self.site.max_body_buffer
        larger = min(2 * self._read_size, limit // 2 if self._chunks else limit)  # chunks are copied once
        if larger > self._read_size and hasattr(self.transport, "bufferSize"):
            self._read_size = self.transport.bufferSize = larger  # type: ignore[union-attr]

    # For the body

    def seconds(self) -> float:
        return self.site.seconds()

    def dropped(self, size: int) -> None:
        self._dropped += size
        if self._body is None:
            self._unread = True
        if self._dropped > self.site.linger_bytes:
            if self._state == _LINGERING:
                self.deadline = min(self.deadline, self.seconds() + LINGER_FULL)
            self.regulate()

    def send_continue(self) -> None:
        if self._state == _OPEN and self.requests and not self.requests[0].startedWriting:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # type: ignore[no-untyped-call]

    def regulate(self) -> None:
        """Open or close the TCP window."""
        if self._state == _CLOSED:
            return
        if self._dropped > self.site.linger_bytes:
            wanted = False
        elif self._body is not None:
            wanted = not self._body.blocked
        elif self.requests:
            wanted = len(self._input) <= PIPELINED
        else:
            wanted = self._state == _LINGERING or not self._waitingForTransport
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._networkProducer.resumeProducing()
            else:
                self._networkProducer.pauseProducing()

    # The transport's send buffer is full, or empty again. Twisted's own versions know nothing of a streaming body.

    def pauseProducing(self) -> None:
        self._waitingForTransport = True
        self.outgoing.full(self.seconds())
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()
        self.regulate()

    def resumeProducing(self) -> None:
        self._waitingForTransport = False
        self.outgoing.empty()
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        self.regulate()

    # Answering and closing

    def answering(self, request: StreamingRequest) -> None:
        """The headers of an answer are about to go out."""
        body = self._body
        if body is not None and (self._input or (not self._left and self._chunks is None)):
            self._take_body(body)  # it came along with its head, or this is the answer to its last byte
        if self._body is not None or not self.persistent:
            request.close_after_answer()

    def requestDone(self, request: HTTPRequest) -> None:
        """The answer is out: read the next request, or close."""
        self.requests.remove(request)  # type: ignore[arg-type]
        body = self._body
        if self._state == _CLOSED:
            pass
        elif self.persistent and body is None:
            self._begun = False
            self.deadline = self.seconds() + self.site.network_timeout
            self.site.idle(self)
            self.regulate()
            self._advance()
        elif body is None and not self._input and not self._unread:
            self.loseConnection()
        else:
            self._linger()
            if body is not None:
                body.end("disconnected")
                self.regulate()  # it may have been waiting to be wanted: read and drop it now

    def _refuse(self, refused: Refused) -> None:
        answer = refusal(refused, self.site.refusal_fields(origins_in(self._input)), self._input)
        self._input = b""
        self._unread = True
        self.site.watch.refused(refused.status)
        self.write(answer)  # type: ignore[no-untyped-call]
        self._linger()

    def _linger(self) -> None:
        """Tell the client that nothing more comes, then read and drop until it is done or the bounds are reached.

        Closing at once with bytes unread would send a reset, which can eat the answer (RFC 9112 section 9.6).
        """
        self._state = _LINGERING
        self.outgoing.empty()  # the time for all that is bounded from now on
        linger = self.site.linger
        if self.site.stopping or self._turned_away:
            linger = min(linger, LINGER_STOPPING)
        if self._dropped > self.site.linger_bytes:
            linger = min(linger, LINGER_FULL)
        self.deadline = self.seconds() + linger
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is not None and not self.isSecure():  # type: ignore[no-untyped-call]
            self._networkProducer.unregisterProducer()  # type: ignore[attr-defined]
            half_close()
        self.regulate()

    def loseConnection(self) -> None:
        """Close when all that was written is sent."""
        if self._state != _CLOSED:
            self._state, self.deadline = _CLOSED, math.inf
            self.outgoing.full(self.seconds())
            super().loseConnection()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Close at once, with a reset."""
        self._state, self.deadline = _CLOSED, math.inf
        self.transport.abortConnection()  # type: ignore[union-attr]

    def turn_away(self) -> None:
        """Take one request, answer that there is no room, and close."""
        self._turned_away = True

    def stop(self) -> None:
        """Close after the answer that is under way; now if there is none, and no request is on its way."""
        for request in self.requests:
            request.close_after_answer()
        if not self.requests and self._state == _OPEN:
            began = self.deadline - self.site.network_timeout  # the connection, or the head of a request
            if (self._begun or not self._served) and began + COMING > self.seconds():
                self.deadline = min(self.deadline, began + COMING)
            else:
                self._leave()

    def _leave(self) -> None:
        """Close: there is nothing left to send, and who doesn't answer the goodbye of TLS isn't waited for."""
        self.loseConnection()
        self.deadline = self.seconds() + LINGER_STOPPING

    def expire(self, now: float) -> None:
        """`deadline` has passed."""
        site = self.site
        if self._state == _CLOSED:
            self.abort()
        elif self._state == _LINGERING:
            self.loseConnection()
        elif self._body is not None:
            reason = self._body.overdue(now, site.network_timeout, site.min_rate)
            if reason is None:
                self.deadline = self._body.next_check(now, site.network_timeout)
            else:
                self._lose_body(reason)
        elif self._begun:
            self._refuse(Refused(408, "The request's head took too long."))
        elif site.stopping:
            self._leave()
        elif self._waitingForTransport:
            self.deadline = now + site.network_timeout
        else:
            self.loseConnection()


class StreamingSite(Connections, Site):
    """The factory of connections, with their book-keeping (connections.py).

    ``network_timeout``: seconds that a client may be silent in a head, a wanted body or between requests, or take
    nothing of what waits for it.
    ``min_rate``: bytes a second that a wanted body must bring, and that must be taken of an answer, on the average of a
    ``network_timeout``; 0: any.
    ``linger``, ``linger_bytes``: how long and how much is read and dropped after an early answer.
    ``max_body_buffer``: bytes of the largest read, and so what one paused body may hold in memory.
    ``refusal_fields``: what else a refusal carries that is sent before there is a request; told what Origin says.
    ``http2``: offer it over TLS. ``h2c``: take it from whoever begins with it, without TLS too.
    ``max_connections``: when there are more, an idle one is closed, or the new one is turned away.
    ``held``: what paused bodies of HTTP/2 hold in memory.
    ``watch``: sees each request. ``received``: bytes that have come in, over all connections.
    """

    protocol = StreamingChannel  # type: ignore[assignment]
    requestFactory = StreamingRequest
    displayTracebacks = False
    noisy = False

    def __init__(
        self,
        resource: IResource,
        *,
        reactor: IReactorTime,
        network_timeout: float = 60,
        min_rate: int = 100,
        linger: float = 10,
        linger_bytes: int = 16 << 20,
        max_body_buffer: int = 1 << 20,
        refusal_fields: Callable[[Sequence[bytes]], Fields] = lambda origins: (),
        watch: Watch | None = None,
        http2: bool = True,
        h2c: bool = False,
        max_connections: int = sys.maxsize,
    ) -> None:
        super().__init__(resource, reactor=reactor, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self.network_timeout = network_timeout
        self.min_rate = min_rate
        self.linger = linger
        self.linger_bytes = linger_bytes
        self.max_body_buffer = max_body_buffer
        self.refusal_fields = refusal_fields
        self.watch = watch or Unwatched()
        self.http2 = http2
        self.h2c = h2c
        self.held = Held()
        self.received = 0
        self.keep_books(reactor, max(0.01, min(1.0, network_timeout / 10, linger / 10)), max_connections)

    def outgoing(self, transport: Any) -> Outgoing:
        """For a connection, which pauses when the transport says so."""
        return Outgoing(transport, self.network_timeout, self.min_rate)

    # Twisted's own would keep a timer for its dates.

    def startFactory(self) -> None:
        pass

    def stopFactory(self) -> None:
        pass

    def log(self, request: HTTPRequest) -> None:
        """The answer is complete, or nobody is there to read it."""
        assert isinstance(request, StreamingRequest)
        self.watch.done(request, max(0.0, self.seconds() - request.began))

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel = StreamingChannel()  # type: ignore[no-untyped-call]
        channel.factory = channel.site = self
        channel.requestFactory = self.requestFactory
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may agree upon, the best first."""
        return [b"h2", b"http/1.1"] if self.http2 else [b"http/1.1"]
