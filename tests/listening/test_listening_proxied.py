"""Connections that a proxy speaks for: whose they are, who may say so, and what becomes of the rest."""

from __future__ import annotations

import time
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport

from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite
from resumable.listening.endpoints import Terms, listening_point
from resumable.listening.listeners import Listeners
from resumable.listening.proxied import ProxiedFactory
from resumable.model.errors import StartupError
from resumable.model.values import networks
from tests.certificates import laptop
from tests.daemon.site_rig import Listening, Tree
from tests.http.visitor import Reply
from tests.listening.headers import V4, binary

TRUSTED = networks(["10.0.0.0/8", "fc00::/7"])
PROXY = IPv4Address("TCP", "10.0.0.9", 40000)
CLIENT = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n"
NETWORK_TIMEOUT = 60


class Door:
    """A site behind the PROXY protocol, that answers with whose the request is and which origin it has."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.origin = Origin("/files/", None, TRUSTED)
        site = StreamingSite(Tree(self.answer), reactor=self.clock, network_timeout=NETWORK_TIMEOUT)
        self.site = site
        self.factory = ProxiedFactory(site, TRUSTED, "here")

    def answer(self, request: StreamingRequest) -> None:
        scheme, host = self.origin.place(request)
        request.write(f"{self.origin.peer(request)} {scheme}://{host}".encode())
        request.finish()

    def connect(self, *said: bytes, peer: Any = PROXY) -> StringTransport:
        protocol = self.factory.buildProtocol(peer)
        wire = Wire(peerAddress=peer)
        if protocol is None:
            wire.gone = True
            return wire
        wire.protocol = protocol
        protocol.makeConnection(wire)
        for each in said:
            if not wire.gone:
                protocol.dataReceived(each)
        return wire

    def ask(self, header: bytes, *fields: str, peer: Any = PROXY) -> str:
        lines = b"".join(f"{field}\r\n".encode() for field in fields)
        reply = Reply(self.connect(header + GET + lines + b"\r\n", peer=peer).value())
        return reply.body.split(b"\r\n")[1].decode()


class Wire(StringTransport):
    """``gone``: it was reset."""

    gone = False
    protocol: Any = None
    bufferSize = 1

    def abortConnection(self) -> None:
        self.gone = True
        self.protocol.connectionLost(None)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize("header", [CLIENT, binary(0x11, V4)])
def test_the_client_is_whom_the_proxy_names(door: Door, header: bytes) -> None:
    assert door.ask(header) == "192.0.2.7 http://h"


def test_the_header_may_come_in_pieces(door: Door) -> None:
    for header in (CLIENT, binary(0x11, V4)):
        wire = door.connect(*(bytes([byte]) for byte in header + GET + b"\r\n"))
        assert b"192.0.2.7" in wire.value()


def test_forwarding_fields_of_a_client_are_not_believed(door: Door) -> None:
    """With the header the client itself is who speaks, not the proxy."""
    claims = ("X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example")
    assert door.ask(CLIENT, *claims) == "192.0.2.7 http://h"
    assert door.ask(CLIENT, "Forwarded: for=198.51.100.1;proto=https;host=evil.example") == "192.0.2.7 http://h"


def test_a_client_that_is_a_trusted_proxy_itself_is_believed(door: Door) -> None:
    inner = b"PROXY TCP4 10.0.0.3 10.0.0.1 56324 443\r\n"
    claims = ("X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: up.example")
    assert door.ask(inner, *claims) == "198.51.100.1 https://up.example"


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", binary(0x00, b""), binary(0x31, b"x" * 216)])
def test_a_client_that_the_proxy_does_not_know_is_nobody(door: Door, header: bytes) -> None:
    """It must not be taken for the proxy, whose word counts."""
    assert door.ask(header, "X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https") == "0.0.0.0 http://h"


def test_the_proxys_own_health_checks_are_its_own(door: Door) -> None:
    assert door.ask(binary(0x00, b"", 0x20)) == "10.0.0.9 http://h"


@pytest.mark.parametrize(
    "peer",
    [
        IPv4Address("TCP", "192.0.2.66", 1),
        IPv6Address("TCP", "2001:db8::66", 1),
        IPv6Address("TCP", "::ffff:192.0.2.66", 1),
    ],
)
def test_nobody_else_may_speak_for_clients(door: Door, peer: Any) -> None:
    with Listening() as events:
        for _ in range(3):
            assert door.connect(CLIENT + GET + b"\r\n", peer=peer).gone
    levels = [event["log_level"].name for event in events if event.get("endpoint") == "here"]
    assert levels == ["warn", "debug", "debug"], "whoever likes can cause it, so it is told once"


@pytest.mark.parametrize(
    "peer",
    [
        IPv6Address("TCP", "fc00::9", 1),
        IPv6Address("TCP", "::ffff:10.0.0.9", 1),
        UNIXAddress(b"/run/x"),
        UNIXAddress(None),
    ],
)
def test_trusted_peers_of_every_kind(door: Door, peer: Any) -> None:
    assert door.ask(CLIENT, peer=peer) == "192.0.2.7 http://h"


@pytest.mark.parametrize(
    "said",
    [
        GET + b"\r\n",
        b"\x16\x03\x01\x02\0",
        b"PROXY TCP4 x y 1 2\r\n" + GET,
        b"PROXY TCP4 " + b"1" * 200,
        binary(0x41, V4),
    ],
)
def test_without_a_good_header_nothing_is_served(door: Door, said: bytes) -> None:
    with Listening() as events:
        wire = door.connect(said)
    assert wire.gone and wire.value() == b""
    assert not door.site.connections
    assert [event["log_level"].name for event in events if event.get("endpoint") == "here"] == ["warn"]


@pytest.mark.parametrize("said", [(), (b"PROXY TCP4 192.",), (binary(0x11, V4)[:20],)])
def test_a_header_that_does_not_end_is_waited_for_as_long_as_a_head(door: Door, said: tuple[bytes, ...]) -> None:
    wire = door.connect(*said)
    for _ in range(NETWORK_TIMEOUT - 1):
        door.clock.advance(1)
    assert not wire.disconnecting and not wire.gone
    if said:
        wire.protocol.dataReceived(b"1")  # a drip does not make it longer
    for _ in range(3):
        door.clock.advance(1)
    assert wire.disconnecting
    assert wire.value() == b""


def test_large_reads_are_asked_of_the_transport_that_reads(door: Door) -> None:
    wire = door.connect(CLIENT)
    inner = wire.protocol.wrappedProtocol.transport
    inner.bufferSize = 1 << 20
    assert wire.bufferSize == inner.bufferSize == 1 << 20  # type: ignore[comparison-overlap]


def test_a_stop_closes_connections_that_have_not_said_whose_they_are(door: Door) -> None:
    wire = door.connect(b"PROXY ")
    door.site.stop_idle()
    door.clock.pump([0.5] * 4)
    assert wire.disconnecting


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_the_header_comes_before_tls(tmp_path: Any) -> None:
    """As HAProxy sends it with ``ssl send-proxy``, and every proxy that passes TLS on."""
    (tmp_path / "pem").write_bytes(laptop().both)
    at = listening_point(None, f"haproxy:ssl:8443:privateKey={tmp_path / 'pem'}", Terms(trusted=TRUSTED), time.time)
    factory = at.factory(Clock(), Door().site)
    assert isinstance(factory, ProxiedFactory)
    wire = Wire(peerAddress=PROXY)
    wire.protocol = protocol = factory.buildProtocol(PROXY)
    protocol.makeConnection(wire)
    assert protocol.wrappedProtocol.wrappedProtocol.isSecure()
    protocol.dataReceived(CLIENT)
    assert protocol.wrappedProtocol.wrappedProtocol.getPeer().host == "192.0.2.7"


@pytest.mark.parametrize("inner", ["tcp:8080", "ssl:8443", "unix:/run/x"])
def test_without_trusted_proxies_nobody_may_listen_so(inner: str) -> None:
    reactor: Any = MemoryReactorClock()
    with pytest.raises(StartupError, match="needs --behind-proxy"):
        Listeners(reactor, [f"haproxy:{inner}"], lambda _: Door().site, Terms(), pool=None, wall=time.time)  # type: ignore[arg-type]
