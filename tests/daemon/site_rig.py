"""A site without sockets, seen by a watch, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite
from resumable.http.watch import RequestLog
from tests.http.visitor import Reply


class Tree(Resource):
    """Leaves requests to ``handler``."""

    isLeaf = True

    def __init__(self, handler: Callable[[StreamingRequest], None]) -> None:
        super().__init__()
        self.handler = handler

    def render(self, request: Any) -> int:
        self.handler(request)
        return NOT_DONE_YET


def finish(status: int = 204) -> Callable[[StreamingRequest], None]:
    """A handler that answers so at once."""

    def answer(request: StreamingRequest) -> None:
        request.setResponseCode(status)
        request.finish()

    return answer


class Site:
    """One site and what is seen of it; `ask` makes a connection for each request."""

    def __init__(
        self,
        handler: Callable[[StreamingRequest], None] | None = None,
        *,
        tree: Any = None,
        level: LogLevel | None = None,
    ) -> None:
        self.clock = Clock()
        self.watch = RequestLog(Origin("/files/", None, ()), "run", level)
        self.site = StreamingSite(tree or Tree(handler or finish()), reactor=self.clock, watch=self.watch)

    def send(self, said: bytes) -> tuple[Any, StringTransport]:
        """A new connection that has sent this."""
        wire = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 5))
        channel = self.site.buildProtocol(None)
        channel.makeConnection(wire)
        channel.dataReceived(said)
        return channel, wire

    def ask(self, *lines: str, method: str = "GET", path: str = "/files/x") -> Reply:
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: h", *lines, "", ""])
        return Reply(self.send(head.encode("latin-1"))[1].value())

    def ended(self, method: str) -> dict[str, int]:
        """How requests of that method have ended, without what none has."""
        return {status: count for status, count in self.watch.methods[method].by_status() if count}


class Listening:
    """Takes down the log's events while it is open."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __enter__(self) -> list[Any]:
        globalLogPublisher.addObserver(self.events.append)
        return self.events

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self.events.append)
