"""One request whose handler runs when its head is complete, while its body streams.

Invariant: a client that has gone is never answered, and the bytes that it has sent reach the handler's consumer before
the handler is cancelled. The request knows its channel, of HTTP/1.1 or HTTP/2, by `RequestChannel` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from klein.interfaces import IKleinRequest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from werkzeug.routing import MapAdapter

from resumable.http.body import Body
from resumable.http.h1 import Fields, problem
from resumable.http.twisted_web import QuickHeaders, WebRequest
from resumable.model.errors import BodyLost
from resumable.model.telemetry import REQUEST

__all__ = ["Body", "RequestChannel", "RequestObserver", "RequestSite", "StreamingRequest"]

_REASONS: Final = {104: b"Upload Resumption Supported"}
"""Of informational responses. Others have none, which RFC 9112 section 4 allows."""


class RequestObserver:
    """Sees every request of a site. This one does nothing."""

    def prepare(self, request: StreamingRequest) -> None:
        """The head of the request is in; the observer may change or answer the request."""

    def done(self, request: StreamingRequest, seconds: float) -> None:
        """The request was answered, or its client has gone, so many seconds after `prepare`."""

    def refused(self, status: int) -> None:
        """The client has sent something that is no request, and was answered with this status."""


class RequestSite(Protocol):
    """The part of the site that a request uses."""

    watch: RequestObserver
    seconds: Callable[[], float]
    stopping: bool
    at_stop: set[Callable[[], object]]
    """Ends each answer that would go on for ever."""
    resource: IResource

    def getResourceFor(self, request: StreamingRequest) -> IResource:
        """The resource that answers the request."""

    def log(self, request: StreamingRequest) -> None:
        """The request has ended."""


class RequestChannel(Protocol):
    """The part of its channel that a request uses, beside the part that Twisted's request does."""

    transport: Any
    persistent: bool
    """Whether the connection stays open after the answer."""

    @property
    def site(self) -> RequestSite:
        """The site of the connection."""

    @property
    def room(self) -> int:
        """Bytes of the answer that have somewhere to go."""

    @property
    def backed_up(self) -> bool:
        """Whether bytes that were sent before wait for the client to read."""

    def interim(self, code: bytes, reason: bytes, headers: Headers) -> bool:
        """Send an informational response; whether that's possible. The answer hasn't begun."""

    def answering(self, request: StreamingRequest) -> None:
        """The headers of the answer are about to go out."""

    def begin_answer(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers, data: bytes, whole: bool
    ) -> None:
        """Send the head of the answer and the beginning of its body, ``data``; ``whole``: nothing more comes."""

    def push(self, data: bytes) -> None:
        """Send the next bytes of an answer that has begun: at once, if none wait."""

    def loseConnection(self) -> None:
        """Close the connection, or end the stream: the answer can't be completed."""

    def hang_up(self, request: StreamingRequest) -> None:
        """The same before the answer has begun. The request is lost at once, `StreamingRequest.connectionLost`."""


class _Date:
    """The value of the Date field, made once a second."""

    __slots__ = ("_second", "_value")

    def __init__(self) -> None:
        self._second, self._value = 0, b""

    def now(self) -> bytes:
        """The time as an IMF-fixdate."""
        second = int(time.time())
        if second != self._second:
            self._second, self._value = second, datetimeToString(second)
        return self._value


_date = _Date()


class StreamingRequest(WebRequest):
    """A request whose bytes come through ``body``; ``content`` is always empty."""

    channel: RequestChannel
    site: RequestSite  # type: ignore[assignment]
    body: Body
    sent_method = b""
    """The method that the client's own parser goes by; ``method`` may be changed to the one that the client meant."""
    began = 0.0
    """When the request was dispatched, on the site's clock."""
    mapper: MapAdapter
    branch_segments: tuple[str, ...] = ("",)
    on_loss: Callable[[], object] | None = None
    """Called when the client has gone, after the end of the body."""
    speaks: tuple[str, str | None] | None = None
    """The upload protocol, "tus" or "draft", and the version that the client names; None: neither, or not known yet."""
    prepath: list[bytes]
    _postpath: list[bytes] | None = None
    _informed = False

    @property
    def postpath(self) -> list[bytes]:
        """The segments of the path that are still to be looked up, decoded."""
        if self._postpath is None:
            self._postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        return self._postpath

    @postpath.setter
    def postpath(self, value: list[bytes]) -> None:
        """For who has looked some of them up."""
        self._postpath = value

    def process(self) -> None:
        """Find the resource and render it, after the site's ``watch`` has seen the request. Never raises."""
        self.sent_method = self.method
        self.site = site = self.channel.site
        self.began = site.seconds()
        self.responseHeaders.put(b"Server", b"resumable")
        self.responseHeaders.put(b"Date", _date.now())
        self.prepath = []
        try:
            site.watch.prepare(self)
            if self.finished or self.gone:
                return
            before = REQUEST.set(self.known_as)
            try:
                if self.path == b"*":
                    self.answer_asterisk()
                else:
                    resource = site.resource
                    self.render(resource if resource.isLeaf else site.getResourceFor(self))
            finally:
                REQUEST.reset(before)
        except Exception:
            self.processingFailed(Failure())

    def render(self, resrc: IResource) -> None:
        """Have ``resrc`` answer. Twisted's own version sends pages for failures, and logs a line for each HEAD."""
        body = resrc.render(self)
        if body is not NOT_DONE_YET:
            self.set_field(b"content-length", b"%d" % len(body))
            self.write(body)
            self.finish()

    def getRequestHostname(self) -> bytes:
        """Not the client's: Klein's router refuses one that DNS couldn't have, and uses none."""
        return b"localhost"

    def __conform__(self, interface: Any) -> Any:
        """This is Klein's view of the request too. Klein's adapter takes a twentieth of a small request's time."""
        return self if interface is IKleinRequest else super().__conform__(interface)  # type: ignore[no-untyped-call]

    def processingFailed(self, reason: Failure) -> Failure:
        """Log the failure, and answer 500 without telling the client why."""
        if not (self.gone and isinstance(reason.value, BodyLost | CancelledError)):
            self.logger.failure(
                "{method} {path} failed", reason, method=self.method, path=self.path, request=self.known_as
            )
        if self.gone or self.finished:
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
        """Send these bytes of the answer's body, after its head."""
        if not self.startedWriting and not self.gone:
            if self.method != self.sent_method and b"HEAD" in (self.method, self.sent_method):
                self._frame_for_client()
            self.channel.answering(self)
            if self.finished:  # the rest of the body came in just now, and its end was answered
                return
        super().write(data)

    def push(self, data: bytes) -> None:
        """Send the next bytes of an answer without a length that has begun, as `write` does; at once, without the
        reactor's next turn, if none wait."""
        if not (self.gone or self.finished):
            self.sentLength += len(data)
            self.channel.push(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def interim(self, code: int, fields: Fields) -> bool:
        """Send an informational response before the answer, RFC 9110 section 15.2: any but 100, which `Body` sends, and
        101. Line ends in values become spaces, as in the answer's fields.

        False where that can't be done: the answer has begun, the client has gone, speaks HTTP/1.0 or pipelines; or it
        doesn't read, and has been sent one already. Raises ValueError for other codes, InvalidHeaderName.
        """
        if not 101 < code < 200:
            raise ValueError(f"{code} is no informational response that a handler may send")
        if self.gone or self.startedWriting or self.clientproto == b"HTTP/1.0":
            return False
        if self._informed and self.channel.backed_up:
            return False
        headers = QuickHeaders()
        for name, value in fields:
            headers.addRawHeader(name, value)
        sent = self.channel.interim(b"%d" % code, _REASONS.get(code, b""), headers)
        self._informed = self._informed or sent
        return sent

    def hang_up(self) -> None:
        """End the request without an answer, or without the rest of one that has begun. The client gets what was sent
        before, then the end of its connection of HTTP/1.1, or the reset of its stream of HTTP/2.

        The body's bytes that have come are delivered, then its end ("disconnected"). The client counts as gone: a
        handler that waits is cancelled as if the client had hung up; the one that calls this just goes on.
        """
        if self.gone or self.finished:
            return
        if self.startedWriting:
            self.channel.loseConnection()
        else:
            self.channel.hang_up(self)

    def _frame_for_client(self) -> None:
        """One of the method that counts and the sent one is HEAD. A client that has sent HEAD expects no body after a
        Content-Length; every other client expects one."""
        if self.method == b"HEAD":
            self.responseHeaders.setRawHeaders(b"Content-Length", [b"0"])
        self.method = b"HEAD"

    def finish(self) -> None:
        """The answer is complete. Does nothing when the client has gone, which may happen at any time."""
        if not self.gone:
            super().finish()

    @property
    def known_as(self) -> str:
        """The request's X-Request-ID, which the client, a proxy or the site's ``watch`` has set; empty without one."""
        given = self.requestHeaders.getRawHeaders(b"x-request-id")
        return given[0].decode("latin-1") if given else ""

    def set_field(self, name: bytes, value: bytes) -> None:
        """Set one field of the answer's header."""
        self.responseHeaders.put(name, value)

    def close_after_answer(self) -> None:
        """Close the connection when this request has been answered, and say so if the headers aren't out yet."""
        if not self.gone and not self.finished:
            self.channel.persistent = False
            if not self.startedWriting:
                self.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def connectionLost(self, reason: Failure) -> None:
        """End the body first, so that its bytes are delivered before the handler is cancelled."""
        self.set_gone()
        self.site.log(self)
        self.body.end("disconnected")
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        lost, self.on_loss = self.on_loss, None
        if lost is not None:
            lost()
