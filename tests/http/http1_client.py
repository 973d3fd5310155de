"""A client of HTTP/1.1 without sockets: bytes into `StreamingSite.buildProtocol`, on a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from resumable.http.body import Body
from resumable.http.channel import READ_SIZE
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.http.site import StreamingSite
from resumable.model.errors import BodyLost

Handler = Callable[[StreamingRequest], None]


@implementer(IConsumer)
class Consumer:
    """Keeps what it is given. ``pause_after``: it pauses its producer whenever it holds so many bytes."""

    def __init__(self, pause_after: int | None = None) -> None:
        self.data = b""
        self.writes: list[bytes] = []
        self.producer: Any = None
        self.registrations = 0
        self.pause_after = pause_after

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming and self.producer is None
        self.producer = producer
        self.registrations += 1

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        assert self.producer is not None, "written to after the producer was unregistered"
        assert type(data) is bytes
        self.data += data
        self.writes.append(data)
        if self.pause_after is not None and len(self.data) >= self.pause_after:
            self.producer.pauseProducing()


class Tree(Resource):
    """Hands every request to the handler of the test."""

    isLeaf = True

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.requests: list[StreamingRequest] = []
        self.handler = handler

    def render(self, request: Any) -> int:
        self.requests.append(request)
        self.handler(request)
        return NOT_DONE_YET


class Wire(StringTransport):
    """A transport that a read size may be set on."""

    bufferSize = READ_SIZE


def answer(request: StreamingRequest, code: int = 204, body: bytes = b"") -> None:
    request.setResponseCode(code)
    if body or code != 204:
        request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    request.write(body)
    request.finish()


def nothing(request: StreamingRequest) -> None:
    """Leaves the answer to the test."""


class Watcher(RequestObserver):
    """A watch that changes or answers requests, and notes how they and what was none have ended."""

    def __init__(self, prepare: Callable[[StreamingRequest], None] = lambda _: None) -> None:
        self._prepare = prepare
        self.seen: list[tuple[bytes, int, bool, float]] = []
        self.refusals: list[int] = []

    def prepare(self, request: StreamingRequest) -> None:
        self._prepare(request)

    def done(self, request: StreamingRequest, seconds: float) -> None:
        self.seen.append((request.method, request.code, request.gone, seconds))

    def refused(self, status: int) -> None:
        self.refusals.append(status)


class Client:
    """One connection to a site with one handler."""

    def __init__(self, handler: Handler = nothing, site: StreamingSite | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.tree = Tree(handler)
        self.site = site or StreamingSite(self.tree, reactor=self.clock, **options)
        self.wire = Wire()
        self.channel = self.site.buildProtocol(None)
        self.wire.protocol = self.channel
        self.channel.makeConnection(self.wire)
        self.lost: list[str] = []

    def send(self, *pieces: bytes) -> bytes:
        """Send; answers everything that was answered since the last call."""
        for piece in pieces:
            self.channel.dataReceived(piece)
        return self.received()

    def received(self) -> bytes:
        value = self.wire.value()
        self.wire.clear()
        return value

    def hang_up(self) -> None:
        self.channel.connectionLost(Failure(ConnectionLost()))

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))

    @property
    def request(self) -> StreamingRequest:
        return self.tree.requests[-1]

    @property
    def body(self) -> Body:
        return self.request.body

    def deliver(self, consumer: Consumer | None = None) -> tuple[Consumer, list[str]]:
        """Have the last request's body delivered; how it ends is put in the list: "" or BodyLost's reason."""
        consumer = consumer or Consumer()
        return consumer, ending(self.body.deliver(consumer))


def ending(delivered: Deferred[None]) -> list[str]:
    ends: list[str] = []
    delivered.addCallbacks(
        lambda _: ends.append(""), lambda failure: ends.append(failure.trap(BodyLost) and failure.value.reason)
    )
    return ends


def patch(length: int | None = None, *fields: str, version: str = "1.1", method: str = "PATCH") -> bytes:
    """The head of a request with a body; chunked when its length is None."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"{method} /files/1 HTTP/{version}", "Host: example.com", framing, *fields]
    return "\r\n".join([*lines, "", ""]).encode()


GET = b"GET /files/1 HTTP/1.1\r\nHost: example.com\r\n\r\n"
EXPECT = "Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def problem_of(response: bytes) -> tuple[int, bytes, dict[str, Any]]:
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert b"\r\nContent-Type: application/problem+json" in head
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert len(body) >= 256
    document = json.loads(body)
    assert set(document) == {"type", "title", "status", "detail"}
    return int(head.split(b" ")[1]), head, document
