"""One connection of HTTP/1.1 (RFC 9112) or HTTP/1.0: reads requests and their bodies, and leaves writing to Twisted.

Invariants: the next request is read only after the answer to the one before; no byte that isn't part of a request is
parsed as one; no answer is lost by a reset, because the bytes that a client still sends are read and dropped for a
while before the connection is closed. A client that begins with HTTP/2 is handed over to `h2.connection`.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure
from twisted.web.http import Request as TwistedRequest
from twisted.web.http_headers import Headers

from resumable.http.body import Body
from resumable.http.connections import no_room
from resumable.http.h1 import (
    ChunkReader,
    RefusedRequest,
    RequestHead,
    end_of_head,
    origins_in,
    parse_head,
    parse_trailers,
    refusal,
    take_expectation,
)
from resumable.http.h2.connection import Http2Connection
from resumable.http.h2.frames import PREFACE
from resumable.http.lifetime import (
    ANSWERING,
    AWAITING_HEAD,
    BODY,
    CLOSING,
    DEAF,
    FIRST_HEAD,
    HEAD,
    IDLE,
    IN_HEAD,
    LINGERING,
    OPENED,
    ChannelLifetime,
    ChannelState,
)
from resumable.http.request import StreamingRequest
from resumable.http.twisted_web import QuickHeaders
from resumable.spool.direct import Ending

READ_SIZE: Final = 65_536
"""Bytes asked of the kernel at once, as Twisted does by default. It grows while a fast body arrives."""
PIPELINED: Final = 16_384
"""Bytes of later requests kept while one is answered, before the TCP window closes."""


class StreamingChannel(ChannelLifetime):
    """See the module, `body.BodySource` and `request.RequestChannel`."""

    persistent: bool = True
    room = sys.maxsize  # the transport pauses a producer that writes too much

    _body: Body | None = None  # while it arrives, even if its request has been answered
    _left = 0  # bytes to come of a body with a Content-Length, or of one chunk
    _chunks: ChunkReader | None = None
    _input = b""  # bytes not looked at yet
    _parsing = False  # further up the stack
    _pipelined = False  # the request came before the answer to the one before was out, or another came along
    _reading = True
    _read_size = READ_SIZE
    _direct_from: float = sys.maxsize  # bytes of a read after which a thread may take the rest of the body

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._input, self._body, self._chunks = b"", None, None
        super().connectionLost(reason)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        size = len(data)
        self.site.received += size
        if size < self._left:  # within a body or a chunk: nothing to parse, nothing to copy
            self._left -= size
            if 2 * size > self._read_size:
                self._read_more()
            body = self._body
            assert body is not None
            body.arrived(data)
            if size >= self._direct_from and self._body is body:
                self._go_direct(body)
        else:
            self._input += data
            self._advance()

    def _advance(self) -> None:
        """Take the input as far as possible. Handlers that answer at once come back here: no recursion."""
        if self._parsing:
            return
        self._parsing = True
        try:
            while self._input:
                if self._body is not None:
                    self._take_body(self._body)
                elif self._state is ANSWERING and self.persistent:
                    break
                elif self._state not in AWAITING_HEAD:
                    self.dropped(len(self._input))
                    self._input = b""
                elif not self._take_head():
                    break
        except RefusedRequest as refused:
            self._input = self._input.removeprefix(b"\r\n")
            if self._is_preface():
                self._hand_over()
            else:
                self._refuse(refused)
        finally:
            self._parsing = False
        if self.requests:
            self.regulate()

    def _is_preface(self) -> bool:
        """Whether the input is the beginning of HTTP/2, and both sides have agreed upon that."""
        site, given = self.site, self._input[: len(PREFACE)]
        if self._state is not FIRST_HEAD or not PREFACE.startswith(given):
            return False
        return site.h2c or (site.http2 and getattr(self.transport, "negotiatedProtocol", None) == b"h2")

    def _hand_over(self) -> None:
        """From now on the connection speaks HTTP/2."""
        data, self._input = self._input, b""
        successor = Http2Connection(self.site)
        self.dataReceived = successor.dataReceived  # type: ignore[method-assign]
        self.connectionLost = successor.connectionLost  # type: ignore[method-assign]
        self.leave_transport()
        self.site.replaced(self, successor)
        successor.makeConnection(self.transport)  # type: ignore[no-untyped-call]
        self.site.disconnected(self)
        successor.dataReceived(data)

    def _take_head(self) -> bool:
        """Dispatch the request whose head is in; False when more must come."""
        if self._state not in IN_HEAD:
            head_state = FIRST_HEAD if self._state is OPENED else HEAD
            self._enter(head_state, self.seconds() + self.site.network_timeout)
        data = self._input.removeprefix(b"\r\n")  # RFC 9112 section 2.2: one empty line is ignored
        end = end_of_head(data)
        if end < 0:
            return False
        if self._turned_away:
            raise no_room(data.partition(b" ")[0])
        head = parse_head(data[:end], QuickHeaders.of)
        expects = head.version == b"HTTP/1.1" and take_expectation(head.headers)
        self._input = data[end + 4 :]
        self._dispatch(head, Body(self, head.length, expects))
        return True

    def _dispatch(self, head: RequestHead, body: Body) -> None:
        request: StreamingRequest = self.requestFactory(self)  # type: ignore[assignment]
        self.requests.append(request)
        self.site.busy(self)
        self.persistent, self._dropped = head.persistent, 0
        if head.length == 0:
            self._enter(ANSWERING)
        else:
            self._enter(BODY, self.seconds() + self.site.network_timeout)
            self._body, self._left = body, head.length or 0
            self._chunks = ChunkReader() if head.length is None else None
            self._direct_from = sys.maxsize if head.length is None else self.site.direct_from
        if self.site.stopping:
            request.close_after_answer()
        request.body = body
        request.receive(head)

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
        if 2 * len(data) > self._read_size:
            self._read_more()
        pieces: list[bytes] = []
        rest, malformed = None, False
        chunks.left = self._left
        try:
            rest = chunks.feed(data, pieces)
            if rest is not None:
                body.trailers = parse_trailers(chunks.trailers)
        except RefusedRequest:
            malformed = True
        self._left = chunks.left
        self._pipelined = self._pipelined or bool(rest)
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
        self._forget_body(ANSWERING)
        body.end()
        if self._state is LINGERING and not self._input:
            self.loseConnection()

    def _lose_body(self, reason: str) -> None:
        """Drop the rest of this body. Its request may be answered, then the connection closes."""
        body = self._body
        assert body is not None
        self._forget_body(DEAF)
        self._input = b""
        for request in self.requests:
            request.close_after_answer()
        body.end(reason)
        self.regulate()

    def _forget_body(self, following: ChannelState) -> None:
        self._body = self._chunks = None
        self._left = 0
        if self._state is BODY:
            self._enter(following)
        if self._read_size != READ_SIZE:
            self._read_size = self.transport.bufferSize = READ_SIZE  # type: ignore[union-attr]

    def _read_more(self) -> None:
        """Reads come back full: larger ones make a fast body twice as fast."""
        limit = self.site.max_body_buffer
        larger = min(2 * self._read_size, limit // 2 if self._chunks else limit)  # chunks are copied once
        if larger > self._read_size and hasattr(self.transport, "bufferSize"):
            self._read_size = self.transport.bufferSize = larger  # type: ignore[union-attr]

    def _go_direct(self, body: Body) -> None:
        """Have a thread take the rest of the body from the socket, if there is much of it; see `spool.direct`."""
        if self._left < self._direct_from or body.blocked:
            return
        source = self.borrow_socket()
        if source is None:
            self._direct_from = sys.maxsize
            return

        def arrived(size: int) -> None:
            self.site.received += size
            self._left -= size

        def ended(ending: Ending) -> None:
            os.close(source)
            if self._body is body:
                if not self._left:
                    self._body_complete(body)
                elif ending is Ending.AGAIN:
                    self._go_direct(body)
                elif ending is Ending.NEVER:
                    self._direct_from = sys.maxsize
            self.regulate()

        done = body.receive(source, self._left, arrived)
        if done is None:
            os.close(source)
        else:
            self.regulate()
            done.addCallback(ended)

    # For the body

    def send_continue(self) -> None:
        """See `BodySource.send_continue`."""
        if self._state is not CLOSING and self.requests and not self.requests[0].startedWriting:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # type: ignore[no-untyped-call]

    def regulate(self) -> None:
        """Open or close the TCP window."""
        if self._state is CLOSING:
            return
        if self._dropped > self.site.linger_bytes:
            wanted = False
        elif self._body is not None:
            wanted = not self._body.blocked
        elif self.requests:
            wanted = len(self._input) <= PIPELINED
        else:
            wanted = self._state is LINGERING or not self.choked
        if wanted != self._reading:
            self._reading = wanted
            self.set_reading(wanted)

    # Answering

    def interim(self, code: bytes, reason: bytes, headers: Headers) -> bool:
        """See `RequestChannel.interim`. A client that pipelines may take it for the answer to another request."""
        if self._state not in (BODY, ANSWERING) or self._pipelined or self._goes_on():
            return False
        self.send_interim(code, reason, headers)
        return True

    def _goes_on(self) -> bool:
        """Whether bytes are here that lie behind the end of the request."""
        if self._chunks is None or not self._input:
            return len(self._input) > self._left
        try:  # they came along with the head, and none of them is taken
            return bool(ChunkReader().feed(self._input, []))
        except RefusedRequest:  # whatever they are
            return True

    def hang_up(self, request: StreamingRequest) -> None:
        """See `RequestChannel.hang_up`. No more is read, so a reset may follow what the client gets."""
        self.requests.remove(request)
        self.loseConnection()
        self.deadline = self.seconds() + self.site.linger  # TLS awaits the goodbye of a client that may send on
        self._input, self._body, self._chunks, self._left = b"", None, None, 0
        self.stopProducing()  # type: ignore[no-untyped-call]
        request.connectionLost(Failure(ConnectionAborted()))

    def answering(self, request: StreamingRequest) -> None:
        """The headers of an answer are about to go out."""
        body = self._body
        if body is not None and (self._input or (not self._left and self._chunks is None)):
            self._take_body(body)  # it came along with its head, or this is the answer to its last byte
        if self._body is not None or not self.persistent:
            request.close_after_answer()

    def requestDone(self, request: TwistedRequest) -> None:
        """The answer is out: read the next request, or close."""
        self.requests.remove(request)  # type: ignore[arg-type]
        body = self._body
        if self._state is CLOSING:
            return
        if self._state is ANSWERING and self.persistent:
            self._enter(IDLE, self.seconds() + self.site.network_timeout)
            self._pipelined = bool(self._input)
            self.site.idle(self)
            self.regulate()
            self._advance()
        elif self._state is ANSWERING and not self._input:
            self.loseConnection()
        else:
            self._linger()
            if body is not None:
                body.end("disconnected")
                self.regulate()  # it may have been waiting to be wanted: read and drop it now

    def _refuse(self, refused: RefusedRequest) -> None:
        answer = refusal(refused, self.site.refusal_fields(origins_in(self._input)), self._input)
        self._input = b""
        self.site.watch.refused(refused.status)
        self.write(answer)  # type: ignore[no-untyped-call]
        self._linger()

    def expire(self, now: float) -> None:
        """`deadline` has passed."""
        body, site = self._body, self.site
        if self._state is BODY and body is not None:
            reason = body.overdue(now, site.network_timeout, site.min_rate)
            if reason is None:
                self.deadline = body.next_check(now, site.network_timeout)
            else:
                self._lose_body(reason)
        elif self._state in IN_HEAD:
            self._input = self._input.removeprefix(b"\r\n")
            self._refuse(RefusedRequest(408, "The request's head took too long."))
        else:
            super().expire(now)
