"""Bodies that threads take from their connections themselves, over real sockets: from the first read on."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from resumable.aio.threads import Batcher, Pool, Stopped
from resumable.http.body import Body
from resumable.http.request import StreamingRequest
from resumable.http.twisted_web import WebChannel
from resumable.listening.proxy_protocol import ProxiedFactory
from resumable.model.errors import BodyLost
from resumable.spool import Budget, Disk, Sink, Spool
from resumable.spool.direct import DirectTransfer, Ending, IDirectConsumer
from tests.http.sockets import MIB, Server, connected, in_thread, patch, read_all

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="only Linux has splice(2)")


class Appending:
    """A handler that writes each body to a file of its own through a sink, and answers 204 when that is durable."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pool = Pool(reactor, 4, "spool")
        self.spool = Spool(
            str(directory),
            disk=Disk(),
            batcher=lambda work: Batcher(reactor, work, name="puts"),  # type: ignore[arg-type]
            pool=self.pool,
            budget=Budget(),
        )
        self.sinks: list[Sink] = []
        self.requests: list[StreamingRequest] = []
        self.ends: list[str] = []
        self.ended: Deferred[str] = Deferred()
        self.wrote: Callable[[Sink], None] = lambda sink: None
        self.status = 204
        self.pool.start()
        self.spool.start()

    def __call__(self, request: StreamingRequest) -> None:
        Deferred.fromCoroutine(self.receive(request)).addErrback(lambda failure: failure.trap(Stopped))

    async def receive(self, request: StreamingRequest) -> None:
        sink = self.spool.sink(f"{len(self.sinks):032x}", 0, ceiling=None)
        self.sinks.append(sink)
        self.requests.append(request)
        sink.on_write = lambda: self.wrote(sink)
        sink.start()
        end = ""
        try:
            await request.body.deliver(sink)
        except BodyLost as lost:
            end = lost.reason
        if sink.received:
            await sink.sync()
        await sink.close()
        self.ends.append(end)
        request.setResponseCode(self.status)
        request.finish()
        if not self.ended.called:
            self.ended.callback(end)

    def content(self, number: int = 0) -> bytes:
        return (self.directory / f"{number:032x}").read_bytes()


@pytest.fixture
def appending(tmp_path: Path) -> Iterator[Appending]:
    it = Appending(tmp_path)
    yield it
    pytest_twisted.blockon(it.spool.stop())
    pytest_twisted.blockon(it.pool.stop())


@pytest.fixture
def serve(appending: Appending) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        servers.append(Server(appending, **{"direct_from": 1, **options}))
        return servers[-1]

    yield start
    for server in servers:
        pytest_twisted.blockon(Deferred.fromCoroutine(server.stop()))


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> list[DirectTransfer]:
    """All transfers that began."""
    begun: list[DirectTransfer] = []
    init = DirectTransfer.__init__

    def spy(self: DirectTransfer, *args: Any, **more: Any) -> None:
        begun.append(self)
        init(self, *args, **more)

    monkeypatch.setattr(DirectTransfer, "__init__", spy)
    return begun


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("size", [2, 100_000, 40 * MIB + 1])
async def test_a_body_arrives_whole_and_the_next_request_after_it(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer], size: int
) -> None:
    server = serve()
    blob = os.urandom(size)

    def client() -> list[bytes]:
        answers = []
        with connected(server) as connection:
            for _ in range(2):
                connection.sendall(patch(size))
                connection.sendall(blob)
                answers.append(connection.recv(4096))
            connection.sendall(patch(5) + b"after" + patch(4) + b"more")
            answers += [connection.recv(4096)]
        return answers

    answers = await in_thread(client)
    assert all(answer.startswith(b"HTTP/1.1 204 ") for answer in answers)
    assert appending.content(0) == appending.content(1) == blob
    assert appending.content(2) == b"after"
    assert transfers or size < MIB
    assert server.site.received >= 2 * size
    assert [request.body.received for request in appending.requests[:2]] == [size, size]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_lost_midway_brings_what_arrived(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer], reset: bool
) -> None:
    server = serve()
    arrived: Deferred[None] = Deferred()

    def wrote(sink: Sink) -> None:
        if sink.received == 3 * MIB and not arrived.called:
            arrived.callback(None)

    appending.wrote = wrote
    connection = server.connect()
    await in_thread(lambda: connection.sendall(patch(8 * MIB) + b"x" * (3 * MIB)))
    await arrived
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert await appending.ended == "disconnected"
    assert appending.content() == b"x" * (3 * MIB)
    assert transfers


@pytest_twisted.ensureDeferred
async def test_a_connection_that_we_cut_off_keeps_what_a_thread_has_taken(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer]
) -> None:
    server = serve()
    begun: Deferred[None] = Deferred()

    def wrote(sink: Sink) -> None:
        if sink.received >= 8 * MIB and not begun.called:
            begun.callback(None)

    appending.wrote = wrote

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(1 << 40))
            with pytest.raises(ConnectionError):
                while True:
                    connection.sendall(b"x" * MIB)
        return b"cut off"

    sent = in_thread(client)
    await begun
    server.site.abort_all()
    assert await appending.ended == "disconnected"
    assert await sent == b"cut off"
    assert appending.sinks[0].durable == len(appending.content()) >= 8 * MIB
    assert appending.requests[0].body.received == appending.sinks[0].durable
    assert all(transfer.put == transfer.taken == transfer.counted for transfer in transfers)


@implementer(IConsumer, IDirectConsumer)
class Taking:
    """A consumer whose thread takes bytes until ``taken`` fires. ``registered``: whether it may go on."""

    def __init__(self) -> None:
        self.taken: Deferred[Ending] = Deferred()
        self.registered = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.registered = True

    def unregisterProducer(self) -> None:
        self.registered = False

    def write(self, data: bytes) -> None: ...

    def receive(self, source: int, size: int, arrived: Callable[[int], None]) -> Deferred[Ending]:
        return self.taken


class Source:
    """What a body needs of its connection."""

    def seconds(self) -> float:
        return 0.0

    def regulate(self) -> None: ...

    def dropped(self, size: int) -> None: ...

    def send_continue(self) -> None: ...


def test_no_more_is_taken_from_a_connection_that_was_lost() -> None:
    """The thread's descriptor keeps it open, so that its client could go on for ever."""
    body, taking, lost = Body(Source(), 1 << 40), Taking(), []
    body.deliver(taking).addErrback(lost.append)
    body.receive(7, 1 << 40, lambda size: None)
    body.end("disconnected")
    assert not taking.registered and not lost
    taking.taken.callback(Ending.AGAIN)
    assert lost[0].check(BodyLost)


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_discarded_meanwhile_is_answered_and_no_reset_eats_the_answer(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer]
) -> None:
    server = serve()

    def wrote(sink: Sink) -> None:
        request = appending.requests[0]
        if sink.received >= 8 * MIB and not request.finished:
            request.body.discard()
            request.setResponseCode(409)
            request.finish()

    appending.wrote = wrote

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(24 * MIB))
            for _ in range(24):
                connection.sendall(b"x" * MIB)
            return read_all(connection)

    assert (await in_thread(client)).startswith(b"HTTP/1.1 409 ")
    await appending.sinks[0].close()
    assert not appending.sinks[0].receiving


@pytest_twisted.ensureDeferred
async def test_a_sink_that_pauses_it_goes_on_later(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer]
) -> None:
    server = serve()
    pauses: list[int] = []

    def wrote(sink: Sink) -> None:
        if len(pauses) < 3:
            pauses.append(sink.received)
            sink.hold(True)
            reactor.callLater(0, sink.hold, False)  # type: ignore[attr-defined]

    appending.wrote = wrote
    blob = os.urandom(48 * MIB)

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(len(blob)))
            connection.sendall(blob)
            return connection.recv(4096)

    assert (await in_thread(client)).startswith(b"HTTP/1.1 204 ")
    assert appending.content() == blob
    assert pauses


@pytest_twisted.ensureDeferred
async def test_many_at_once_arrive_whole(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer]
) -> None:
    server = serve()
    blobs = [os.urandom(12 * MIB + number) for number in range(8)]

    def client(blob: bytes) -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(len(blob)))
            connection.sendall(blob)
            return connection.recv(4096)

    sent = [in_thread(lambda blob=blob: client(blob)) for blob in blobs]  # type: ignore[misc]
    for each in sent:
        assert (await each).startswith(b"HTTP/1.1 204 ")
    assert sorted(appending.content(number) for number in range(8)) == sorted(blobs)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("way", ["chunked", "off", "early"])
async def test_other_bodies_come_through_the_reactor(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer], way: str
) -> None:
    blob = os.urandom(4 * MIB)
    options: dict[str, Any] = {"off": {"direct_from": None}, "early": {"direct_from": 2 * MIB}}.get(way, {})
    server = serve(**options)

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(None if way == "chunked" else len(blob), "Connection: close"))
            connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(blob), blob) if way == "chunked" else blob)
            return read_all(connection)

    assert (await in_thread(client)).startswith(b"HTTP/1.1 204 ")
    assert appending.content() == blob
    assert transfers == []


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_tells_the_address_first_has_the_same_way(
    serve: Callable[..., Server], appending: Appending, transfers: list[DirectTransfer]
) -> None:
    server = serve()
    factory = ProxiedFactory(server.site, [ip_network("127.0.0.0/8")], "here")
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
    blob = os.urandom(4 * MIB)

    def client() -> bytes:
        with socket.create_connection(("127.0.0.1", listening.getHost().port)) as connection:
            connection.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + patch(len(blob)))
            connection.sendall(blob)
            return connection.recv(4096)

    assert (await in_thread(client)).startswith(b"HTTP/1.1 204 ")
    assert appending.content() == blob
    assert transfers
    await listening.stopListening()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("secure", [False, True])
async def test_the_socket_below_tls_is_lent_to_nobody(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, transfers: list[DirectTransfer], secure: bool
) -> None:
    monkeypatch.setattr(WebChannel, "isSecure", lambda self: secure)
    server = serve()

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(4 * MIB, "Connection: close"))
            connection.sendall(b"x" * (4 * MIB))
            return connection.recv(4096)

    assert (await in_thread(client)).startswith(b"HTTP/1.1 204 ")
    assert bool(transfers) != secure
