"""The short way of a request, past the router, from its handler to the socket: the same answers as by the long way."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.tcp import Server as ServerTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from resumable.aio.transports import PRIVATES
from resumable.http.handling import handle
from resumable.http.request import StreamingRequest
from resumable.http.tus import TusRoutes
from resumable.protocol.errors import Gone
from tests.http.http1_client import GET, Client
from tests.http.visitor import Client as Visitor
from tests.http.visitor import Reply, ask, connect, new, request, serving

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "TRACE", "head", "Post")
SPELLINGS = (
    "/files", "/files/", "/files//", "//files/", "/files/?a=b", "/%66iles/", "/FILES/", "/files/.", "/", "*",
    "/files/{}", "/files/{}/", "/files/{}?a=b", "/files//{}", "/files/{}/status", "/files/{}/status/", "/files/{}/x",
    "/files/%30{}", "/files/{}%20", "/files/{}.bin", "/files/-{}", "/files/short", "/files/%ff{}", "/files/a%2f{}",
    "http://up.example/files/{}", "/healthz", "/readyz", "/nothing/{}",
)  # fmt: skip
OVERRIDES = (
    (),
    ("X-HTTP-Method-Override: HEAD",),
    ("X-HTTP-Method-Override: options",),
    ("Origin: https://a.example",),
)


def answers(spelling: str) -> Iterator[tuple[int, list[tuple[str, ...]], bytes]]:
    with serving() as server:
        for method in METHODS:
            upload_id = new(Visitor(server))
            for fields in OVERRIDES:
                for tus in (True, False):
                    client = Visitor(server)
                    reply = client.ask(method, spelling.format(upload_id), "Upload-Length: 3", *fields, tus=tus)
                    yield reply.status, sorted(field for field in reply.fields if field[0] != "Date"), reply.body


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_method_and_spelling_is_answered_as_by_the_router(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list(answers(spelling))
    monkeypatch.setattr(TusRoutes, "answer", lambda *arguments: False)
    assert seen == list(answers(spelling))


@pytest.mark.parametrize("base", ["/", "/healthz/", "/a%20b/", "/a//b/", "/a/b/"])
def test_a_base_path_is_found_as_by_the_router(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = ["/", "/healthz", "/healthz/", base, base.rstrip("/") or "/", "/a b/", "/a/b/", "/a/b", "/a//b/"]
    targets += [f"{base}{'1' * 20}", "/a/b/" + "1" * 20, "1" * 20]

    def found() -> list[int]:
        said = []
        for target in targets:
            channel, wire = connect(base_path=base)
            channel.dataReceived(request("Host: up.example", method="OPTIONS", path=target))
            said.append(Reply(wire.value()).status)
        return said

    seen = found()
    monkeypatch.setattr(TusRoutes, "answer", lambda *arguments: False)
    assert seen == found()


@pytest.mark.parametrize("host", ["a..b", "a" * 64, ".", "u_p"])
@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/files/", 201), ("GET", f"/files/{'a' * 32}/x", 404)])
def test_a_host_that_no_name_in_the_dns_can_be_is_a_host_all_the_same(
    host: str, method: str, path: str, status: int
) -> None:
    assert ask(f"Host: {host}", method=method, path=path).status == status


# To the socket


class Reactor(Clock):
    """Notes who waits for a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[object] = []

    def addReader(self, reader: object) -> None:
        pass

    removeReader = removeWriter = addReader

    def addWriter(self, writer: object) -> None:
        self.writers.append(writer)


@pytest.fixture
def pair() -> Iterator[tuple[ServerTransport, socket.socket, Reactor]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reactor = Reactor()
        yield ServerTransport(ours, None, ("192.0.2.1", 1), None, 0, reactor), theirs, reactor  # type: ignore[arg-type]


def served(pair: tuple[ServerTransport, socket.socket, Reactor], body: bytes) -> Client:
    def handler(request: StreamingRequest) -> None:
        request.set_field(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()

    client = Client(handler)
    transport = pair[0]
    client.channel = client.site.buildProtocol(None)
    transport.protocol = client.channel
    client.channel.makeConnection(transport)
    return client


def test_a_whole_answer_is_sent_at_once(pair: tuple[ServerTransport, socket.socket, Reactor]) -> None:
    client = served(pair, b"whole")
    client.channel.dataReceived(GET)
    assert Reply(pair[1].recv(4096)).body == b"whole"
    assert pair[2].writers == []


def test_what_a_full_socket_does_not_take_is_sent_later_and_in_order(
    pair: tuple[ServerTransport, socket.socket, Reactor],
) -> None:
    transport, theirs, reactor = pair
    transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    body = bytes(range(256)) * 1024
    client = served(pair, body)
    client.channel.dataReceived(GET)
    client.channel.dataReceived(GET)
    assert reactor.writers
    theirs.settimeout(5)
    came = b""
    while came.count(b"HTTP/1.1 200") < 2 or not came.endswith(body):
        transport.doWrite()
        came += theirs.recv(1 << 20)
    first, second = came.split(b"HTTP/1.1 ")[1:]
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2] == body


def test_an_answer_waits_for_what_was_written_before_it(pair: tuple[ServerTransport, socket.socket, Reactor]) -> None:
    client = served(pair, b"whole")
    pair[0].write(b"before")
    client.channel.dataReceived(GET)
    pair[0].doWrite()
    assert pair[1].recv(4096).startswith(b"beforeHTTP/1.1 200 ")


def test_a_transport_still_has_the_private_names_that_are_leaned_on() -> None:
    for kind, names in PRIVATES.items():
        assert all(hasattr(kind, name) for name in names)
    assert hasattr(FileDescriptor(Reactor()), "_tempDataBuffer")  # type: ignore[arg-type]


# What is left behind


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("HEAD", "/files/{}", b"", 200),
        ("HEAD", f"/files/{'z' * 32}", b"", 404),
        ("OPTIONS", "/files/", b"", 200),
        ("POST", "/files/", b"", 201),
        ("POST", "/files/", b"whole", 201),
        ("PATCH", "/files/{}", b"whole", 204),
    ],
)
def test_a_request_leaves_no_objects_to_the_garbage_collector(method: str, path: str, body: bytes, status: int) -> None:
    """Else it would have to be run all the time."""
    with serving() as server:
        for _ in range(2):  # the first one fills caches
            target = path.format(new(Visitor(server), 5))
            client = Visitor(server)
            fields = ["Upload-Offset: 0"] if method == "PATCH" else ["Upload-Length: 5"]
            if body:
                fields += ["Content-Type: application/offset+octet-stream", f"Content-Length: {len(body)}"]
            gc.collect()
            assert client.ask(method, target, *fields, body=body).status == status
            client.channel.connectionLost(Failure(ConnectionLost()))
            assert gc.collect() == 0


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector runs only when it is called."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# The handler

number: ContextVar[int] = ContextVar("number", default=0)


class Handled:
    """One request whose handler waits for ``waits``."""

    def __init__(self) -> None:
        self.waits: Deferred[Any] = Deferred()
        self.seen: list[object] = []
        self.client = Client(lambda request: handle(request, self.handle(), self.refuse))
        self.client.send(GET)

    async def handle(self) -> bytes:
        number.set(1)
        try:
            return b"%d" % await self.waits
        except Exception as error:
            self.seen.append(type(error).__name__)
            raise
        finally:
            self.seen.append(number.get())

    def refuse(self, request: StreamingRequest, failure: Any) -> bytes:
        request.setResponseCode(410)
        return str(failure.value).encode()


def test_a_handler_keeps_its_context_variables() -> None:
    handled = Handled()
    number.set(2)
    handled.waits.callback(7)
    assert handled.seen == [1]
    assert b"\r\n\r\n1\r\n7\r\n" in handled.client.received()


def test_a_failure_is_answered() -> None:
    handled = Handled()
    handled.waits.errback(Gone("no more"))
    assert handled.client.received().startswith(b"HTTP/1.1 410 ")


def test_a_handler_whose_client_has_gone_is_cancelled_quietly() -> None:
    handled = Handled()
    with capturedLogs() as logged:
        handled.client.hang_up()
    assert handled.seen == ["CancelledError", 1]
    assert not logged


def test_a_handler_that_fails_after_its_client_has_gone_is_logged() -> None:
    handled = Handled()
    handled.waits = Deferred(lambda waits: waits.errback(KeyError("odd")))
    handled.client = Client(lambda request: handle(request, handled.handle(), handled.refuse))
    handled.client.send(GET)
    with capturedLogs() as logged:
        handled.client.hang_up()
    assert [type(event["log_failure"].value) for event in logged] == [KeyError]


def test_a_refusal_that_fails_is_answered_500() -> None:
    handled = Handled()
    handled.refuse = lambda request, failure: 1 // 0  # type: ignore[method-assign,assignment,return-value]
    handled.client = Client(lambda request: handle(request, handled.handle(), handled.refuse))
    handled.client.send(GET)
    with capturedLogs():
        handled.waits.errback(Gone("no more"))
    assert handled.client.received().startswith(b"HTTP/1.1 500 ")
