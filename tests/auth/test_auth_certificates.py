"""Client certificates, over real TLS: verified in the handshake, then a name."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

from resumable.auth.certificates import ClientCertificates, subject_of
from resumable.auth.interfaces import IAuthorizer, Subject
from resumable.protocol.errors import Forbidden, Unauthorized
from tests.auth.auth_rig import LOOK, refusal, result
from tests.certificates import laptop

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

SUBJECT = Subject(
    "CN=laptop 17,O=Example", ("laptop 17",), ("laptop.example.org",), ("a@example.org", "b@example.org"), ()
)


class Telling(Protocol):
    def dataReceived(self, data):
        self.factory.heard.callback(subject_of(self.transport))
        self.transport.loseConnection()


class Speaking(Protocol):
    def __init__(self):
        self.lost = Deferred()

    def connectionMade(self):
        self.transport.write(b"x")

    def connectionLost(self, reason):
        self.lost.callback(None)


async def subject_seen(server_options, client_options):
    factory = Factory.forProtocol(Telling)
    factory.noisy = False
    factory.heard = Deferred()
    port = reactor.listenSSL(0, factory, server_options, interface="127.0.0.1")
    try:
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, client_options)
        client = await connectProtocol(endpoint, Speaking())
        await client.lost
        return factory.heard.result if factory.heard.called else "no request"
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_names_of_a_verified_certificate_are_read():
    authority = laptop(name="authority")
    ours, theirs = laptop(authority).private, laptop(authority).private
    trust = ssl.trustRootFromCertificates([authority.private])
    client = ssl.CertificateOptions(theirs.privateKey.original, theirs.original)
    server = ssl.CertificateOptions(ours.privateKey.original, ours.original, trustRoot=trust)
    assert await subject_seen(server, client) == SUBJECT
    assert await subject_seen(server, ssl.CertificateOptions()) == "no request"
    stranger = laptop().private
    forged = ssl.CertificateOptions(stranger.privateKey.original, stranger.original)
    assert await subject_seen(server, forged) == "no request"


@pytest_twisted.ensureDeferred
async def test_without_client_certificates_there_is_no_subject():
    ours = laptop().private
    options = ssl.CertificateOptions(ours.privateKey.original, ours.original)
    assert await subject_seen(options, ssl.CertificateOptions()) is None
    assert subject_of(object()) is None


def test_it_is_an_authorizer():
    assert IAuthorizer.providedBy(ClientCertificates())


@pytest.mark.parametrize(
    ("part", "name"), [("cn", "laptop 17"), ("dn", "CN=laptop 17,O=Example"), ("dns", "laptop.example.org")]
)
def test_a_part_of_the_certificate_is_the_name(part, name):
    assert result(ClientCertificates(part).authorize(evolve(LOOK, tls=SUBJECT))).name == name


@pytest.mark.parametrize("part", ["email", "uri"])
def test_several_of_that_part_or_none_name_nobody(part):
    refusal(ClientCertificates(part).authorize(evolve(LOOK, tls=SUBJECT)), Forbidden)


@pytest.mark.parametrize("names", [("",), ("a\0b",), ("x" * 256,), ("a", "a")])
def test_a_name_that_is_none_is_refused(names):
    refusal(ClientCertificates().authorize(evolve(LOOK, tls=evolve(SUBJECT, common_names=names))), Forbidden)


def test_only_those_on_the_list_get_in_where_there_is_one():
    ask = evolve(LOOK, tls=SUBJECT)
    assert result(ClientCertificates(allowed=frozenset({"laptop 17"})).authorize(ask)).name == "laptop 17"
    refusal(ClientCertificates(allowed=frozenset({"laptop 1"})).authorize(ask), Forbidden)


def test_no_certificate_is_401():
    assert refusal(ClientCertificates().authorize(LOOK), Unauthorized).headers["WWW-Authenticate"]
