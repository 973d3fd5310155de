"""TLS whose certificate is renewed while connections are open: over real sockets, with files on a disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from resumable.auth.certificates import subject_of
from resumable.auth.secret import AccessProblem
from resumable.listening.endpoints import Terms
from resumable.listening.listeners import LOOK_EVERY, Listeners
from resumable.listening.tls import Certificate, CertificateFiles
from resumable.model.errors import StartupError
from tests.certificates import DAY, Certified, laptop
from tests.daemon.site_rig import Listening

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


class Pool:
    """Does at once what it is given."""

    def run(self, call: Callable[[], Any]) -> Deferred[Any]:
        return maybeDeferred(call)


POOL: Any = Pool()


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        subject = subject_of(self.transport)
        self.transport.write(data if subject is None else subject.common_names[0].encode())


@implementer(IProtocolNegotiationFactory)
class Site(Factory):
    protocol = Echo
    noisy = False

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2", b"http/1.1"]


class Client(Protocol):
    """Sends a byte, and shows what came back and from whom."""

    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def ask(self) -> Deferred[bytes]:
        self.heard = Deferred()
        self.transport.write(b"?")
        return self.heard

    def dataReceived(self, data: bytes) -> None:
        self.heard.callback(data)

    def connectionLost(self, reason: Any) -> None:
        self.lost.callback(None)
        if not self.heard.called:
            self.heard.callback(b"closed")

    @property
    def shown(self) -> int:
        """The serial number of the server's certificate."""
        number: int = self.transport.getPeerCertificate().get_serial_number()
        return number


@define
class Server:
    listeners: Listeners
    port: int

    async def connect(self, **options: Any) -> Client:
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", self.port, ssl.CertificateOptions(**options))
        return await connectProtocol(endpoint, Client())


@pytest.fixture
def serve() -> Any:
    """Makes a server from the files of a directory."""
    servers: list[Server] = []

    def make(place: Path, **terms: Any) -> Server:
        description = f"ssl:0:interface=127.0.0.1:privateKey={place / 'key'}:certKey={place / 'cert'}"
        listeners = Listeners(reactor, [description], lambda _: Site(), Terms(**terms), pool=POOL, wall=time.time)
        (address,) = listeners.bind()
        servers.append(Server(listeners, int(address.rpartition(":")[2])))
        return servers[-1]

    yield make
    for server in servers:
        pytest_twisted.blockon(Deferred.fromCoroutine(server.listeners.stop()))


def put(place: Path, pem: bytes, *names: str) -> None:
    """A certificate and its key, in one file or in two."""
    for name in names or ("cert", "key"):
        beside = place / f"{name}.new"
        beside.write_bytes(pem)
        beside.rename(place / name)


def serial(of: Certified) -> int:
    return of.certificate.serial_number


async def closed(*clients: Client) -> None:
    for client in clients:
        client.transport.loseConnection()
        await client.lost


@pytest_twisted.ensureDeferred
async def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(tmp_path, serve):
    first, second = laptop(), laptop()
    put(tmp_path, first.both)
    server = serve(tmp_path)
    old = await server.connect()
    assert await old.ask() == b"?" and old.shown == serial(first)
    put(tmp_path, second.both)
    with Listening() as events:
        await server.listeners.reload()
        await server.listeners.reload()
    new = await server.connect()
    assert await new.ask() == b"?" and new.shown == serial(second)
    assert await old.ask() == b"?" and old.shown == serial(first)
    assert len([e for e in events if "new certificate" in e.get("log_format", "")]) == 1
    await closed(old, new)


@pytest_twisted.ensureDeferred
async def test_a_pair_that_does_not_fit_changes_nothing_and_is_told_of_once(tmp_path, serve):
    first, second = laptop(), laptop()
    put(tmp_path, first.both)
    server = serve(tmp_path)

    async def shown() -> int:
        client = await server.connect()
        await client.ask()
        number = client.shown
        await closed(client)
        return number

    with Listening() as events:
        for broken, name in ((second.both, "cert"), (second.both[:300], "cert"), (b"", "key")):
            put(tmp_path, broken, name)
            for _ in range(3):
                await server.listeners.reload()
            assert await shown() == serial(first)
        (tmp_path / "key").unlink()
        await server.listeners.reload()
        assert await shown() == serial(first)
        put(tmp_path, second.both)
        await server.listeners.reload()
        assert await shown() == serial(second)
    errors = [event for event in events if event.get("log_level") and event["log_level"].name == "error"]
    assert len(errors) == len({event["problem"] for event in errors}) == 3
    assert all(event["endpoint"] == f"127.0.0.1:{server.port}" for event in errors)


def test_files_are_looked_at_now_and_then(tmp_path):
    """Each minute, and the time that is left is that of what is shown."""
    clock: Any = MemoryReactorClock()
    put(tmp_path, laptop(ends=30 * DAY).both)
    description = f"ssl:8443:privateKey={tmp_path / 'key'}:certKey={tmp_path / 'cert'}"
    listeners = Listeners(clock, [description, "tcp:8080"], lambda _: Site(), Terms(), pool=POOL, wall=time.time)
    (place, _) = listeners.bind()
    listeners.start()
    assert round(listeners.expiry()[place] / DAY) == 30 and len(listeners.expiry()) == 1
    put(tmp_path, laptop(ends=90 * DAY).both)
    clock.advance(LOOK_EVERY - 1)
    assert round(listeners.expiry()[place] / DAY) == 30
    clock.advance(1)
    assert round(listeners.expiry()[place] / DAY) == 90
    Deferred.fromCoroutine(listeners.stop())
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_the_sites_protocols_are_negotiated(tmp_path, serve):
    put(tmp_path, laptop().both)
    server = serve(tmp_path)
    for offered, agreed in (([b"h2", b"http/1.1"], b"h2"), ([b"http/1.1"], b"http/1.1"), (None, None)):
        client = await server.connect(acceptableProtocols=offered)
        await client.ask()
        assert client.transport.negotiatedProtocol == agreed
        await closed(client)


@pytest_twisted.ensureDeferred
async def test_clients_are_verified_by_the_authorities_of_now(tmp_path, serve):
    old, new = laptop(name="old"), laptop(name="new")
    put(tmp_path, laptop().both)
    put(tmp_path, old.both, "ca")

    def shows(authority: Any) -> dict[str, Any]:
        theirs = laptop(authority).private
        return {"privateKey": theirs.privateKey.original, "certificate": theirs.original}

    async def answer(server: Server, options: dict[str, Any]) -> bytes:
        client = await server.connect(**options)
        heard = await client.ask()
        await closed(client)
        return heard

    for required, without in ((True, b"closed"), (False, b"?")):
        put(tmp_path, old.both, "ca")
        server = serve(tmp_path, client_ca=tmp_path / "ca", required=required)
        assert await answer(server, shows(old)) == b"laptop 17"
        assert await answer(server, shows(new)) == b"closed"
        assert await answer(server, {}) == without
        put(tmp_path, new.both, "ca")
        await server.listeners.reload()
        assert await answer(server, shows(old)) == b"closed"
        assert await answer(server, shows(new)) == b"laptop 17"
        assert await answer(server, {}) == without


BAD = [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]


@pytest.mark.parametrize("broken", ["cert", "key", "ca"])
@pytest.mark.parametrize("content", BAD)
def test_a_listener_without_its_files_does_not_start(tmp_path, broken, content):
    pem = laptop(name="authority").both
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_bytes(pem)
    (tmp_path / broken).unlink()
    if content is not None:
        (tmp_path / broken).write_bytes(content)
    with pytest.raises(AccessProblem) as caught:
        Certificate(CertificateFiles(tmp_path / "cert", tmp_path / "key", None, tmp_path / "ca"), time.time)
    assert "\n" not in str(caught.value) and str(tmp_path / broken) in str(caught.value)


def encrypted() -> bytes:
    form = serialization.PrivateFormat.PKCS8
    lock = serialization.BestAvailableEncryption(b"secret")
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, form, lock)


@pytest.mark.parametrize(
    ("key", "why"), [(lambda: laptop().both, "does not belong"), (encrypted, "free of a passphrase")]
)
def test_a_key_that_can_not_be_used_is_said_to_be_one(tmp_path, key, why):
    put(tmp_path, laptop().both, "cert")
    put(tmp_path, key(), "key")
    with pytest.raises(AccessProblem, match=why):
        Certificate(CertificateFiles(tmp_path / "cert", tmp_path / "key"), time.time)


@pytest.mark.parametrize(
    "description", ["ssl", "ssl:x", "ssl:70000", "ssl:1:sslmethod=TLSv1_METHOD", "ssl:1:colour=red", "ssl:1:backlog=x"]
)
def test_what_an_ssl_endpoint_can_not_be_is_one_line(description):
    with pytest.raises(StartupError) as caught:
        Listeners(reactor, [description], lambda _: Site(), Terms(), pool=POOL, wall=time.time)
    assert "\n" not in str(caught.value) and description in str(caught.value)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("begins", "ends", "told"),
    [
        (-DAY, 89 * DAY, None),
        (-80 * DAY, 10 * DAY, "expires soon"),
        (-4 * DAY, 2 * DAY, None),  # a certificate for a week is renewed every few days
        (-5.5 * DAY, 0.5 * DAY, "expires soon"),
        (-9 * DAY, -DAY, "has expired"),
        (DAY, 90 * DAY, "is not valid yet"),
    ],
)
async def test_a_certificate_that_clients_will_refuse_is_warned_of_once(tmp_path, begins, ends, told):
    put(tmp_path, laptop(begins=begins, ends=ends).both)
    certificate = Certificate(CertificateFiles(tmp_path / "cert", tmp_path / "key"), time.time)
    with Listening() as events:
        for _ in range(3):
            await certificate.look("here", POOL)
    assert [event["state"] for event in events if "state" in event] == ([] if told is None else [told])
    assert abs(certificate.left - ends) < 60


@pytest_twisted.ensureDeferred
async def test_a_warning_that_comes_true_is_another_one(tmp_path):
    put(tmp_path, laptop(begins=-80 * DAY, ends=10 * DAY).both)
    late = [0.0]
    certificate = Certificate(CertificateFiles(tmp_path / "cert", tmp_path / "key"), lambda: time.time() + late[0])
    with Listening() as events:
        await certificate.look("here", POOL)
        late[0] = 11 * DAY
        await certificate.look("here", POOL)
        put(tmp_path, laptop(begins=-DAY, ends=101 * DAY).both)
        await certificate.look("here", POOL)
    assert [event["state"] for event in events if "state" in event] == ["expires soon", "has expired"]
