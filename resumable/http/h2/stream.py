"""One HTTP/2 stream: the channel of one request, and the connection of its body.

Invariants: the bytes that arrived are delivered, however the stream ends; a client may send on only as far as its bytes
were taken; an answer is complete before the stream is reset. Spec: RFC 9113 sections 8.1 and 8.1.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from resumable.http.body import Body
from resumable.http.h1 import Fields, RefusedRequest, RequestHead, problem, take_expectation
from resumable.http.h2.answers import AnswerQueue, StreamAnswer
from resumable.http.h2.frames import Data, Violation, trailers_of
from resumable.http.h2.limits import STREAM_WINDOW, ReceiveWindow
from resumable.http.h2.link import Http2Link
from resumable.http.request import StreamingRequest

GRAIN: Final = 65_536
"""Bytes of the windows that are given back at once, at least."""

_BODILESS = (b"204", b"304")


def _head(code: bytes, headers: Headers) -> list[tuple[bytes, bytes]]:
    fields = [(name.lower(), value) for name, values in headers.getAllRawHeaders() for value in values]
    return [(b":status", code), *fields]


class Http2Stream(StreamAnswer):
    """See the module, `request.RequestChannel` and `body.BodySource`. ``forget`` is called when the stream is over."""

    persistent = True
    """A request may set it to False. It means this request only, whose stream ends with its answer anyway."""

    def __init__(
        self, link: Http2Link, queue: AnswerQueue, forget: Callable[[Http2Stream], None], number: int, ended: bool
    ) -> None:
        super().__init__(link, queue, number)
        self.site: Any = link.site
        self.factory: Any = link.site
        self.transport = link.transport
        self.body = Body(self, 0)
        self._site = link.site
        self._forget = forget
        self._window = ReceiveWindow(STREAM_WINDOW)
        self._head: RequestHead | None = None
        self._request: StreamingRequest | None = None
        self._heard = ended  # the client has said all
        self._until: float | None = None  # when to call off the body that a client still sends after its answer
        self._came = self._credited = self._held = self._dropped = 0

    # For the connection

    def accept(self, head: RequestHead) -> None:
        """This is the request; `begin` follows when the bytes that came along are taken in. Raises RefusedRequest."""
        self.body = Body(self, head.length, take_expectation(head.headers))
        self._head = head

    def begin(self) -> None:
        """Dispatch the request."""
        if self._over or self._head is None:
            return
        if self._heard and not self.body.received:
            self.body.length = 0
        self._request = request = self._site.requestFactory(self)
        request.body = self.body
        request.receive(self._head)

    def arrived(self, data: Data) -> None:
        """Bytes of the body, or its end. Raises Violation."""
        if self._heard:
            raise Violation(ErrorCodes.STREAM_CLOSED)
        self._window.take(data.size)
        self._came += data.size
        payload, length = data.payload, self.body.length
        excess = 0 if length is None else max(0, self.body.received + len(payload) - length)
        if payload:
            self.body.arrived(payload[: len(payload) - excess] if excess else payload)
        if excess:
            self.body.end("malformed")
        if self._over:
            return
        if data.ends:
            self._link.machine.body_ended(self.number)
            self.ended(None)
        else:
            self.regulate()

    def ended(self, trailers: Fields | None) -> None:
        """The client has sent all of the request; ``trailers`` are the fields at its end, if there are any."""
        self._heard = True
        reason = ""
        if self._head is not None and self._head.length not in (None, self.body.received):
            reason = "malformed"
        elif trailers is not None:
            try:
                self.body.trailers = trailers_of(trailers)
            except RefusedRequest:
                reason = "malformed"
        self.body.end(reason)
        self.regulate()
        if self._until is not None:
            self.leave()

    def refuse(self, refused: RefusedRequest, asked: Fields) -> None:
        """Answer a head that no resource can see; ``asked``: its fields."""
        self._site.watch.refused(refused.status)
        document = problem(refused.status, refused.detail)
        origins = [value for name, value in asked if name == b"origin"]
        fields = [(name.lower(), value) for name, value in [*refused.fields, *self._site.refusal_fields(origins)]]
        fields += [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(document))]
        self._said = (b":method", b"HEAD") in asked  # a body would be an error of the protocol
        head = [(b":status", b"%d" % refused.status), *fields]
        self._link.machine.send_headers(self.number, head, end_stream=self._said)
        self._done = True
        if self._said:
            self._queue.pump(self)
        else:
            self.write(document)

    def check(self, now: float) -> float:
        """Give up the body, or the answer, if the client is too slow. Returns when to look again, at the earliest."""
        if self._over:
            return math.inf
        if self._wants_to_send() and self.window <= 0:
            if self._progress.overdue(now, self._sent):
                self.give_up()
                return math.inf
        else:
            self._progress.end()
        return min(self._progress.deadline, self._check_body(now))

    def _check_body(self, now: float) -> float:
        if self._heard:
            return math.inf
        if self._until is not None:
            if now < self._until:
                return self._until
            self.call_off()
            return math.inf
        timeout = self._site.network_timeout
        reason = self.body.overdue(now, timeout, self._site.min_rate)
        if reason is not None:
            self.body.end(reason)
        return self.body.next_check(now, timeout)

    def call_off(self) -> None:
        """Tell a client that has its answer, and still sends, that the rest of its body isn't needed."""
        if self._until is not None and not self._over:
            self._link.machine.reset_stream(self.number, ErrorCodes.NO_ERROR)
            self._link.lingers = True
            self.leave()

    def lost(self, reason: Failure) -> None:
        """The client has given up this request, or has gone; or its answer can't be completed."""
        self.leave()
        request, self._request = self._request, None
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if request is not None:
            request.connectionLost(reason)
        self.body.end("disconnected")

    def leave(self) -> None:
        """No more is received or sent. The stream's parts of the connection's window and memory are given back."""
        if self._over:
            return
        self._over = True
        if self._held:
            self._link.hold(-self._held)
        self._link.took(self._came - self._credited)
        self._queue.unsent -= len(self.unsent)
        self.unsent.clear()
        self._forget(self)

    # For the body

    def seconds(self) -> float:
        """See `BodySource.seconds`."""
        return self._site.seconds()

    def dropped(self, size: int) -> None:
        """See `BodySource.dropped`. Beyond the site's ``linger_bytes``, an answered request's body is called off."""
        self._dropped += size
        if self._dropped > self._site.linger_bytes:
            self.call_off()

    def send_continue(self) -> None:
        """See `BodySource.send_continue`."""
        if not self._over and self._request is not None and not self._request.startedWriting:
            self._link.machine.send_headers(self.number, [(b":status", b"100")])
            self._link.flush()

    def regulate(self) -> None:
        """Let the client send as much again as was taken, or dropped within bounds."""
        if self._over:
            return
        held = self.body.held
        if held != self._held:
            more, self._held = held - self._held, held
            self._link.hold(more)
        owed = self._came - held - self._credited
        if owed >= GRAIN and self._dropped <= self._site.linger_bytes:
            self._credited += owed
            if not self._heard:
                self._link.credit(self.number, self._window, owed)
            self._link.took(owed)

    # For the request

    def getPeer(self) -> Any:
        """The client's address, or its proxy's."""
        return self.transport.getPeer()

    def getHost(self) -> Any:
        """The address that the client has connected to."""
        return self.transport.getHost()

    def isSecure(self) -> bool:
        """Whether the connection is encrypted."""
        return self._link.secure

    @property
    def backed_up(self) -> bool:
        """See `RequestChannel.backed_up`. What other streams send is no sign of that, before it fills the buffer."""
        return self._link.choked

    def interim(self, code: bytes, reason: bytes, headers: Headers) -> bool:
        """See `RequestChannel.interim`."""
        if not self._over:
            self._link.machine.send_headers(self.number, _head(code, headers))
            self._link.flush()
        return not self._over

    def answering(self, request: Any) -> None:
        """The headers of an answer are about to go out. Nothing has to be closed for it."""

    def begin_answer(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers, data: bytes, whole: bool
    ) -> None:
        """See `RequestChannel.begin_answer`. The head ends the stream if the answer has no body."""
        if not self._over:
            head = _head(code, headers)
            empty = code in _BODILESS or (b"content-length", b"0") in head
            self._said = empty or (self._request is not None and self._request.method == b"HEAD")
            self._link.machine.send_headers(self.number, head, end_stream=self._said)
            self._link.flush()
            if data:
                self.write(data)

    def requestDone(self, request: Any) -> None:
        """The answer is complete."""
        self._request = None
        self._done = True
        if not self._over:
            self._link.pace.answered()
            if not self._heard:
                self.body.end("disconnected")
            self._queue.pump(self)

    def loseConnection(self) -> None:
        """The answer can't be completed."""
        self._reset(ErrorCodes.INTERNAL_ERROR)

    def hang_up(self, request: Any) -> None:
        """See `RequestChannel.hang_up`."""
        # After INTERNAL_ERROR a client asks how far it came, as after any failure. CANCEL would say that nobody wants
        # the rest, REFUSED_STREAM that nothing was taken, NO_ERROR that the answer is complete.
        self.loseConnection()

    def abort(self) -> None:
        """Nobody waits for the end of this request any more."""
        self._reset(ErrorCodes.CANCEL)

    # Inside

    def _reset(self, code: ErrorCodes) -> None:
        if not self._over:
            if not (self._said and self._heard):  # else it's over for both already
                self._link.machine.reset_stream(self.number, code)
            self.lost(Failure(ConnectionAborted()))
            self._queue.pump()

    def _conclude(self) -> None:
        """The answer is out. A client that still sends has some time to see it: curl 7 loses it by a reset at once."""
        if not self._said:
            self._said = True
            self._link.machine.end_stream(self.number)
        if self._heard:
            self.leave()
            return
        self._until = self._link.linger()
        if self._dropped > self._site.linger_bytes:
            self.call_off()
