"""Requests over real sockets on 127.0.0.1, sent by blocking clients in threads."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import pytest_twisted
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from resumable.http.request import StreamingRequest
from resumable.model.errors import BodyLost
from tests.certificates import certified
from tests.http.sockets import MIB, Server, connected, in_thread, patch, read_all


@implementer(IConsumer)
class Consumer:
    """Counts and digests; ``paused`` pauses its producer from the start."""

    def __init__(self, paused: bool = False) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self.largest = 0
        self.producer: Any = None
        self.paused = paused
        self.first_write: Deferred[None] = Deferred()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        if self.paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self.largest = max(self.largest, len(data))
        self.digest.update(data)
        if not self.first_write.called:
            self.first_write.callback(None)


def answer(request: StreamingRequest, code: int, body: bytes = b"") -> None:
    request.setResponseCode(code)
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    request.write(body)
    request.finish()


class Receiving:
    """A handler that has every body delivered to ``consumer`` and answers 204; ``ends`` are the outcomes."""

    def __init__(self, consumer: Consumer | None = None) -> None:
        self.consumer = consumer or Consumer()
        self.ends: list[str] = []
        self.ended: Deferred[str] = Deferred()
        self.started: Deferred[None] = Deferred()

    def __call__(self, request: StreamingRequest) -> None:
        Deferred.fromCoroutine(self.receive(request))

    async def receive(self, request: StreamingRequest) -> None:
        delivered = request.body.deliver(self.consumer)
        if not self.started.called:
            self.started.callback(None)
        try:
            await delivered
        except BodyLost as lost:
            self.ends.append(lost.reason)
        else:
            self.ends.append("")
            request.setResponseCode(204)
        request.finish()
        if not self.ended.called:
            self.ended.callback(self.ends[-1])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("chunk", [None, 4096, 100_000, 3 * MIB])
async def test_a_large_body_arrives_whole_in_growing_reads(serve: Callable[..., Server], chunk: int | None) -> None:
    receiving = Receiving()
    server = serve(receiving)
    blob = os.urandom(32 * MIB)

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(len(blob) if chunk is None else None))
            if chunk is None:
                connection.sendall(blob)
            else:
                for at in range(0, len(blob), chunk):
                    piece = blob[at : at + chunk]
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                connection.sendall(b"0\r\n\r\n")
            return connection.recv(4096)

    assert (await in_thread(client)).startswith(b"HTTP/1.1 204 ")
    assert receiving.consumer.size == len(blob)
    assert receiving.consumer.digest.digest() == hashlib.sha256(blob).digest()
    assert receiving.consumer.largest <= MIB


@pytest_twisted.ensureDeferred
async def test_keep_alive_works_with_a_plain_client(serve: Callable[..., Server]) -> None:
    receiving = Receiving()
    server = serve(receiving)

    def client() -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        statuses = []
        for _ in range(5):
            connection.request("PATCH", "/files/1", body=b"x" * 100_000)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            first = connection.sock
            assert first is not None
        connection.close()
        return statuses

    assert await in_thread(client) == [204] * 5
    assert receiving.consumer.size == 500_000


@pytest_twisted.ensureDeferred
async def test_a_client_that_sends_everything_first_gets_the_early_answer_and_no_reset(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda request: answer(request, 409, b"conflict"))

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(12 * MIB))
            for _ in range(12):
                connection.sendall(b"x" * MIB)
            return read_all(connection)

    received = await in_thread(client)
    assert received.startswith(b"HTTP/1.1 409 ") and received.endswith(b"conflict")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest_twisted.ensureDeferred
async def test_an_early_answer_and_its_end_come_before_the_body_was_sent(serve: Callable[..., Server]) -> None:
    server = serve(lambda request: answer(request, 409, b"conflict"))

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(1 << 40) + b"x" * 1000)
            received = read_all(connection)
            connection.sendall(b"x" * MIB)  # still taken, not reset
            return received

    assert (await in_thread(client)).endswith(b"conflict")


@pytest_twisted.ensureDeferred
async def test_the_answer_to_a_malformed_request_is_not_eaten_by_a_reset(serve: Callable[..., Server]) -> None:
    server = serve(lambda request: answer(request, 200))

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(b"PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n" + b"x" * 4 * MIB)
            return read_all(connection)

    received = await in_thread(client)
    assert received.startswith(b"HTTP/1.1 400 ") and received.count(b"HTTP/1.1 ") == 1


@pytest_twisted.ensureDeferred
async def test_no_more_than_the_linger_bytes_are_dropped(serve: Callable[..., Server]) -> None:
    requests: list[StreamingRequest] = []

    def handler(request: StreamingRequest) -> None:
        requests.append(request)
        answer(request, 409)

    server = serve(handler, linger=0.2, linger_bytes=4 * MIB)

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(1 << 40))
            with pytest.raises(ConnectionError):  # the client would send for ever
                while True:
                    connection.sendall(b"x" * MIB)
            return b"over"

    assert await in_thread(client) == b"over"
    assert requests[0].body.received <= 5 * MIB


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_lost_midway_brings_what_arrived(serve: Callable[..., Server], reset: bool) -> None:
    receiving = Receiving()
    server = serve(receiving)
    connection = server.connect()
    await in_thread(lambda: connection.sendall(patch(MIB) + b"x" * 1000))
    await receiving.consumer.first_write
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert await receiving.ended == "disconnected"
    assert receiving.consumer.size == 1000


@pytest_twisted.ensureDeferred
async def test_a_paused_body_stops_the_client_and_goes_on_when_resumed(serve: Callable[..., Server]) -> None:
    receiving = Receiving(Consumer(paused=True))
    server = serve(receiving)
    total = 256 * MIB
    with connected(server) as connection:
        await in_thread(lambda: connection.sendall(patch(total)))
        await receiving.started
        connection.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < total:
                sent += connection.send(b"x" * MIB)
        assert sent < total
        assert receiving.consumer.size == 0
        connection.setblocking(True)

        def rest() -> bytes:
            left = total - sent
            while left:
                left -= connection.send(b"x" * min(left, MIB))
            return connection.recv(4096)

        receiving.consumer.producer.resumeProducing()
        assert (await in_thread(rest)).startswith(b"HTTP/1.1 204 ")
    assert receiving.consumer.size == total


@pytest_twisted.ensureDeferred
async def test_bytes_of_a_client_that_went_while_paused_come_after_the_pause(serve: Callable[..., Server]) -> None:
    receiving = Receiving(Consumer(paused=True))
    server = serve(receiving)
    connection = server.connect()
    await in_thread(lambda: connection.sendall(patch(MIB)))
    await receiving.started
    await in_thread(lambda: connection.sendall(b"x" * 50_000))
    connection.close()
    assert receiving.ends == []
    receiving.consumer.producer.resumeProducing()
    assert await receiving.ended == "disconnected"
    assert receiving.consumer.size == 50_000


@pytest_twisted.ensureDeferred
async def test_a_silent_client_is_answered_and_let_go(serve: Callable[..., Server]) -> None:
    receiving = Receiving()
    server = serve(receiving, network_timeout=0.3, linger=0.2)

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(patch(MIB) + b"x" * 1000)
            return read_all(connection)

    assert b"Connection: close\r\n" in await in_thread(client)
    assert receiving.ends == ["idle"]
    assert receiving.consumer.size == 1000


@pytest_twisted.ensureDeferred
async def test_a_graceful_stop_lets_the_answers_out(serve: Callable[..., Server]) -> None:
    receiving = Receiving()
    server = serve(receiving)
    idle, busy = server.connect(), server.connect()
    await in_thread(lambda: busy.sendall(patch(1000) + b"x" * 400))
    await receiving.consumer.first_write
    closing = Deferred.fromCoroutine(server.site.close_connections(60))
    assert await in_thread(lambda: idle.recv(100)) == b""

    def finish() -> bytes:
        busy.sendall(b"x" * 600)
        return read_all(busy)

    received = await in_thread(finish)
    assert received.startswith(b"HTTP/1.1 204 ") and b"Connection: close\r\n" in received
    busy.close()
    idle.close()
    await closing
    assert not server.site.connections


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted calls what pyOpenSSL has deprecated
@pytest_twisted.ensureDeferred
async def test_over_tls_without_http2_http_1_1_is_negotiated_and_early_answers_arrive(
    serve: Callable[..., Server],
) -> None:
    receiving = Receiving()

    def handler(request: StreamingRequest) -> None:
        if request.getHeader(b"X-Refuse"):
            answer(request, 409, b"conflict")
        else:
            receiving(request)

    server = serve(handler, tls=certified("localhost").private.options(), http2=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])

    def client() -> tuple[str | None, bytes, bytes]:
        with context.wrap_socket(server.connect()) as connection:
            connection.sendall(patch(4 * MIB))
            for _ in range(4):
                connection.sendall(b"x" * MIB)
            first = connection.recv(4096)
            connection.sendall(patch(4 * MIB, "X-Refuse: yes"))
            for _ in range(4):
                connection.sendall(b"x" * MIB)
            return connection.selected_alpn_protocol(), first, read_all(connection)

    protocol, first, second = await in_thread(client)
    assert protocol == "http/1.1"
    assert first.startswith(b"HTTP/1.1 204 ")
    assert receiving.consumer.size == 4 * MIB
    assert second.startswith(b"HTTP/1.1 409 ") and second.endswith(b"conflict")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted calls what pyOpenSSL has deprecated
@pytest.mark.parametrize("encrypted", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_socket_can_be_asked_what_its_client_has_taken(serve: Callable[..., Server], encrypted: bool) -> None:
    """`resumable.http.connections.Outgoing` does; without it a slow reader would be cut off."""
    found: list[object] = []

    def handler(request: StreamingRequest) -> None:
        found.append(getattr(request.channel.transport, "socket", None))
        request.setResponseCode(204)
        request.finish()

    tls = certified("localhost").private.options() if encrypted else None
    server = serve(handler, tls=tls)

    def ask() -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with server.connect() as plain, context.wrap_socket(plain) if encrypted else plain as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return len(connection.recv(1000))

    assert await deferToThread(ask)
    assert isinstance(found[0], socket.socket)


class Crowded:
    """A full house over TLS: one connection, whose upload is under way, is all that it takes."""

    def __init__(self, serve: Callable[..., Server], stack: ExitStack) -> None:
        self.stack = stack
        self.begun: Deferred[None] = Deferred()
        tls = certified("localhost").private.options()
        self.server = serve(lambda _: self.begun.callback(None), tls=tls, max_connections=1)

    @contextmanager
    def connect(self, *protocols: str) -> Iterator[ssl.SSLSocket]:
        """A client that hears of an end that isn't TLS's own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(protocols)
        with context.wrap_socket(self.server.connect(), suppress_ragged_eofs=False) as connection:
            yield connection

    async def fill(self) -> None:
        """The upload begins."""

        def begin() -> None:
            self.stack.enter_context(self.connect("http/1.1")).sendall(patch(100))

        await in_thread(begin)
        await self.begun
        (self.channel,) = self.server.site.connections

    def goes_on(self) -> bool:
        """Whether the upload does, after one client was turned away."""
        site = self.server.site
        return self.channel in site.connections and (site.cut["idle"], site.cut["full"]) == (0, 1)


@pytest.fixture
def house(serve: Callable[..., Server]) -> Iterator[Crowded]:
    with ExitStack() as stack:
        yield Crowded(serve, stack)


@pytest.mark.slow  # it lingers for seconds
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted calls what pyOpenSSL has deprecated
@pytest_twisted.ensureDeferred
async def test_over_tls_who_finds_a_full_house_can_read_so_and_is_closed_rightly(house: Crowded) -> None:
    """Its end is TLS's own, for whoever reads on; and who is still sending a body isn't reset."""
    await house.fill()

    def visit() -> bytes:
        with house.connect("http/1.1") as connection:
            connection.sendall(patch(4 * MIB))
            for _ in range(4):
                connection.sendall(b"x" * MIB)
            return read_all(connection)

    head, _, body = (await in_thread(visit)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 10" in head.split(b"\r\n")
    assert len(body) >= 256 and b'"status": 503' in body
    assert house.goes_on()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted calls what pyOpenSSL has deprecated
@pytest_twisted.ensureDeferred
async def test_over_tls_http_2_tells_of_a_full_house_too(house: Crowded) -> None:
    await house.fill()

    def visit() -> list[Any]:
        events: list[Any] = []
        with house.connect("h2") as connection:
            assert connection.selected_alpn_protocol() == "h2"
            client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
            client.initiate_connection()
            fields = {":method": "GET", ":scheme": "https", ":authority": "a", ":path": "/"}
            client.send_headers(1, list(fields.items()), end_stream=True)
            connection.sendall(client.data_to_send())
            while data := connection.recv(65_536):
                events += client.receive_data(data)
        return events

    events = await in_thread(visit)
    (told,) = [each for each in events if isinstance(each, ResponseReceived)]
    assert dict(told.headers)[":status"] == "503" and dict(told.headers)["retry-after"] == "10"
    assert [each.error_code for each in events if isinstance(each, ConnectionTerminated)] == [0]
    assert house.goes_on()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted calls what pyOpenSSL has deprecated
@pytest_twisted.ensureDeferred
async def test_over_tls_who_never_shakes_hands_makes_room(house: Crowded) -> None:
    silent = house.stack.enter_context(await in_thread(house.server.connect))
    await house.fill()

    def ended() -> bool:
        try:
            return not silent.recv(1)
        except ConnectionResetError:
            return True

    assert await in_thread(ended)
    assert len(house.server.site.connections) == 1 and house.server.site.cut["idle"] == 1
