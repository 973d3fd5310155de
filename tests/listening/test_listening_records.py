"""What a connection over TLS passes on, and when: Python's own TLS on the other side, without sockets."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from importlib.metadata import version

import pytest
import twisted
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from resumable.http.channel import READ_SIZE
from resumable.http.site import StreamingSite
from resumable.listening.twisted_tls import LARGEST, PRIVATES, RECORD, SLICE, TESTED_PYOPENSSL, TlsFactory
from tests.certificates import certified
from tests.http.http1_client import Consumer, Tree, Wire, patch

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

OURS = certified("localhost")


class Inner(Protocol):
    """Notes what it is given; ``then`` is called with it each time."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.reason: Failure | None = None
        self.then: Callable[[Inner], object] = lambda _: None

    def dataReceived(self, data: bytes) -> None:
        assert self.reason is None and type(data) is bytes
        self.pieces.append(data)
        self.then(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.reason = reason

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class NoDelay(Wire):
    """One of TCP."""

    def setTcpNoDelay(self, wanted: bool) -> None:
        """Twisted's channel does this to all of them."""


class Link:
    """A server of ours, and a client whose bytes wait in `said` until they are given to it."""

    def __init__(self, site: Factory | StreamingSite | None = None) -> None:
        factory = Factory.forProtocol(Inner)
        options = CertificateOptions(OURS.private.privateKey.original, OURS.private.original)
        self.clock = Clock()
        self.wire = NoDelay()
        self.server = TlsFactory(options, site or factory, self.clock).buildProtocol(None)
        self.inner = self.server.wrappedProtocol
        self.server.makeConnection(self.wire)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._heard, self._said = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._heard, self._said)
        while True:
            try:
                self.client.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.server.dataReceived(self.said())
                self.hear()

    def hear(self) -> None:
        self.clock.advance(0)
        self._heard.write(self.wire.value())
        self.wire.clear()

    def said(self) -> bytes:
        return self._said.read()

    def record(self, *data: bytes) -> bytes:
        """These bytes as they go over the wire."""
        for each in data:
            view = memoryview(each)
            while view:
                view = view[self.client.write(view) :]
        return self.said()

    def goodbye(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.client.unwrap()
        return self.said()

    def start(self) -> None:
        """The client's last words of the handshake."""
        self.server.dataReceived(self.said())

    def answer(self) -> bytes:
        self.hear()
        return self.client.read(65_536)


@pytest.fixture
def link() -> Link:
    made = Link()
    made.start()
    return made


BODY = bytes(range(256)) * 12_000  # 3 MB


def test_every_private_name_that_is_leaned_on_is_there(link: Link) -> None:
    """Tested with the versions from TESTED_PYOPENSSL[0] to TESTED_PYOPENSSL[1]; run everything before widening it."""
    oldest, newest = (tuple(map(int, each.split("."))) for each in TESTED_PYOPENSSL)
    found = version("pyopenssl")
    assert oldest <= tuple(map(int, found.split(".")[:2])) <= newest, f"never tested with pyOpenSSL {found}"
    for kind, names in PRIVATES.items():
        missing = [name for name in names if not hasattr(kind, name)]
        assert not missing, f"Twisted {twisted.__version__}, pyOpenSSL {found}: no {missing} in {kind.__name__}"
    assert hasattr(link.server, "_appSendBuffer") and hasattr(link.server._tlsConnection, "_ssl")


def test_all_records_of_a_read_are_passed_on_as_one(link: Link) -> None:
    link.server.dataReceived(link.record(BODY[:1_000_000]))
    assert [len(each) for each in link.inner.pieces] == [1_000_000]
    assert link.inner.data == BODY[:1_000_000]


def test_no_piece_is_much_larger_than_the_largest(link: Link) -> None:
    link.server.dataReceived(link.record(BODY))
    assert link.inner.data == BODY
    assert max(map(len, link.inner.pieces)) <= LARGEST + RECORD


@pytest.mark.parametrize("cut", [1_000, RECORD, SLICE - 1, SLICE, SLICE + 7, 400_000])
def test_where_reads_cut_records_does_not_matter(link: Link, cut: int) -> None:
    sizes = [1, 9, RECORD, 5_000, 200_000]
    pieces, at = [], 0
    while at < 1_000_000:
        pieces.append(BODY[at : at + sizes[len(pieces) % len(sizes)]])
        at += len(pieces[-1])
    wire = link.record(*pieces)
    for begin in range(0, len(wire), cut):
        link.server.dataReceived(wire[begin : begin + cut])
    assert link.inner.data == BODY[:at]


def test_bytes_that_come_with_the_end_of_the_handshake_are_passed_on() -> None:
    link = Link()
    link.server.dataReceived(link.record(BODY))
    assert link.inner.data == BODY


def test_bytes_come_before_the_goodbye_that_follows_them(link: Link) -> None:
    link.inner.then = lambda inner: inner.transport.write(b"answer")
    link.server.dataReceived(link.record(BODY[:100_000]) + link.goodbye())
    assert link.inner.data == BODY[:100_000]
    assert link.wire.disconnecting
    link.server.connectionLost(Failure(ConnectionDone()))
    assert link.inner.reason.check(ConnectionDone)


def test_a_client_that_says_goodbye_with_its_request_has_its_answer(link: Link) -> None:
    """It is out before our own goodbye: a client may have closed its half only."""
    link.inner.then = lambda inner: (inner.transport.write(b"answer"), inner.transport.loseConnection())
    link.server.dataReceived(link.record(b"request") + link.goodbye())
    assert link.answer() == b"answer"
    assert link.wire.disconnecting


def test_bytes_before_a_broken_record_are_kept(link: Link) -> None:
    first, broken = link.record(BODY[:100_000]), link.record(b"more")
    link.server.dataReceived(first + broken[:-1] + bytes([broken[-1] ^ 1]) + link.record(b"yet more"))
    assert link.inner.data == BODY[:100_000]
    assert link.wire.disconnecting
    link.server.connectionLost(Failure(ConnectionDone()))
    assert link.inner.reason.check(SSL.Error)


def test_bytes_before_a_lost_connection_are_kept(link: Link) -> None:
    whole, half = link.record(BODY[:100_000]), link.record(b"x" * 1_000)[:500]
    link.server.dataReceived(whole + half)
    link.server.connectionLost(Failure(ConnectionLost()))
    assert link.inner.data == BODY[:100_000]
    assert link.inner.reason.check(ConnectionLost)


def test_nothing_comes_after_an_abort(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StringTransport, "abortConnection", lambda _: None)
    link.inner.then = lambda inner: inner.transport.abortConnection()
    link.server.dataReceived(link.record(BODY))
    link.server.dataReceived(link.record(b"more"))
    assert [len(each) for each in link.inner.pieces] == [64 * RECORD + RECORD]


def test_what_a_read_brings_is_not_held_back_by_a_pause(link: Link) -> None:
    """The transport isn't read any more; what it has read must not wait for bytes that don't come."""
    link.inner.then = lambda inner: inner.transport.pauseProducing()
    link.server.dataReceived(link.record(BODY))
    assert (link.inner.data, link.wire.producerState) == (BODY, "paused")


def test_two_connections_do_not_mix_their_bytes(link: Link) -> None:
    """They decrypt into one buffer."""
    factory = link.server.factory
    other = Link()
    other.server.factory = factory
    other.start()
    link.inner.then = lambda _: other.server.dataReceived(other.record(b"b" * 100_000))
    link.server.dataReceived(link.record(b"a" * 100_000))
    assert (link.inner.data, other.inner.data) == (b"a" * 100_000, b"b" * 100_000)


def test_reads_of_a_fast_body_grow_behind_tls_too() -> None:
    tree = Tree(lambda request: consumers.append(Consumer()) or request.body.deliver(consumers[-1]))
    consumers: list[Consumer] = []
    link = Link(StreamingSite(tree, reactor=Clock()))
    link.start()
    link.server.dataReceived(link.record(patch(len(BODY))))
    wire = link.record(BODY)
    sizes = []
    while wire:
        size = link.wire.bufferSize
        sizes.append(size)
        link.server.dataReceived(wire[:size])
        wire = wire[size:]
    assert sizes[:5] == [READ_SIZE << each for each in range(5)]
    assert consumers[0].data == BODY
    assert link.wire.bufferSize == READ_SIZE
