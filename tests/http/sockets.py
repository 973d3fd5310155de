"""A site on a real socket of 127.0.0.1, and what blocking clients in threads do with it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite

T = TypeVar("T")
Handler = Callable[[StreamingRequest], object]
MIB = 1 << 20


class Tree(Resource):
    isLeaf = True

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler = handler

    def render(self, request: Any) -> int:
        self.handler(request)
        return NOT_DONE_YET


class Server:
    """A listening site."""

    def __init__(self, handler: Handler, tls: Any = None, **options: Any) -> None:
        self.site = StreamingSite(Tree(handler), reactor=reactor, **options)  # type: ignore[arg-type]
        if tls is None:
            self.listening = reactor.listenTCP(0, self.site, interface="127.0.0.1")  # type: ignore[attr-defined]
        else:
            self.listening = reactor.listenSSL(0, self.site, tls, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.port = self.listening.getHost().port

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(60)
        return connection

    async def stop(self) -> None:
        await self.listening.stopListening()
        self.site.abort_all()
        await self.site.drained()


def in_thread(call: Callable[[], T]) -> Deferred[T]:
    return deferToThread(call)


def patch(length: int | None, *fields: str) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join(["PATCH /files/1 HTTP/1.1", "Host: a", framing, *fields, "", ""]).encode()


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end; raises ConnectionResetError where there was a reset."""
    received = b""
    while data := connection.recv(65_536):
        received += data
    return received


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    connection = server.connect()
    try:
        yield connection
    finally:
        connection.close()
