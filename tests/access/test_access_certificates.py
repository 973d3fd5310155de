"""Client certificates, over real TLS: verified in the handshake, then a name."""

from __future__ import annotations

import datetime

import pytest
import pytest_twisted
from access_rig import LOOK, refusal, result
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

from resumable.access.certificates import Certificates, subject_of, verifying_options
from resumable.access.interfaces import IAuthorizer, Subject
from resumable.access.secret import AccessProblem
from resumable.protocol.errors import Forbidden, Unauthorized

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

SUBJECT = Subject(
    "CN=laptop 17,O=Example", ("laptop 17",), ("laptop.example.org",), ("a@example.org", "b@example.org"), ()
)


def made(issuer=None, name="laptop 17"):
    """A certificate of its own, or of an issuer's."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("laptop.example.org"), x509.RFC822Name("a@example.org"), x509.RFC822Name("b@example.org")]
    signer = issuer or (key, subject)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer[0], hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ssl.PrivateCertificate.loadPEM(pem), (key, subject), pem


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
    authority, signer, _ = made(name="authority")
    ours, _, _ = made(signer)
    theirs, _, _ = made(signer)
    trust = ssl.trustRootFromCertificates([authority])
    client = ssl.CertificateOptions(theirs.privateKey.original, theirs.original)
    server = ssl.CertificateOptions(ours.privateKey.original, ours.original, trustRoot=trust)
    assert await subject_seen(server, client) == SUBJECT
    assert await subject_seen(server, ssl.CertificateOptions()) == "no request"
    stranger, _, _ = made()
    forged = ssl.CertificateOptions(stranger.privateKey.original, stranger.original)
    assert await subject_seen(server, forged) == "no request"


@pytest_twisted.ensureDeferred
async def test_without_client_certificates_there_is_no_subject():
    ours, _, _ = made()
    options = ssl.CertificateOptions(ours.privateKey.original, ours.original)
    assert await subject_seen(options, ssl.CertificateOptions()) is None
    assert subject_of(object()) is None


@pytest_twisted.ensureDeferred
async def test_a_listener_from_files_verifies_certificates_and_may_do_without(tmp_path):
    _, signer, pem = made(name="authority")
    (tmp_path / "ca").write_bytes(pem)
    (tmp_path / "pem").write_bytes(made(signer)[2])
    theirs, _, _ = made(signer)
    stranger, _, _ = made()
    with_one = ssl.CertificateOptions(theirs.privateKey.original, theirs.original)
    forged = ssl.CertificateOptions(stranger.privateKey.original, stranger.original)
    for required, without in ((True, "no request"), (False, None)):
        options = verifying_options(tmp_path / "pem", tmp_path / "pem", tmp_path / "ca", required=required)
        assert await subject_seen(options, with_one) == SUBJECT
        assert await subject_seen(options, ssl.CertificateOptions()) == without
        assert await subject_seen(options, forged) == "no request"


@pytest.mark.parametrize("broken", ["pem", "key", "ca"])
@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_listener_without_its_files_does_not_start(tmp_path, broken, content):
    _, _, pem = made(name="authority")
    for name in ("pem", "key", "ca"):
        (tmp_path / name).write_bytes(pem)
    (tmp_path / broken).unlink()
    if content is not None:
        (tmp_path / broken).write_text(content)
    with pytest.raises(AccessProblem) as caught:
        verifying_options(tmp_path / "pem", tmp_path / "key", tmp_path / "ca", required=True)
    assert "\n" not in str(caught.value) and str(tmp_path / broken) in str(caught.value)


def test_it_is_an_authorizer():
    assert IAuthorizer.providedBy(Certificates())


@pytest.mark.parametrize(
    ("part", "name"), [("cn", "laptop 17"), ("dn", "CN=laptop 17,O=Example"), ("dns", "laptop.example.org")]
)
def test_a_part_of_the_certificate_is_the_name(part, name):
    assert result(Certificates(part).authorize(evolve(LOOK, tls=SUBJECT))).name == name


@pytest.mark.parametrize("part", ["email", "uri"])
def test_several_of_that_part_or_none_name_nobody(part):
    refusal(Certificates(part).authorize(evolve(LOOK, tls=SUBJECT)), Forbidden)


@pytest.mark.parametrize("names", [("",), ("a\0b",), ("x" * 256,), ("a", "a")])
def test_a_name_that_is_none_is_refused(names):
    refusal(Certificates().authorize(evolve(LOOK, tls=evolve(SUBJECT, common_names=names))), Forbidden)


def test_only_those_on_the_list_get_in_where_there_is_one():
    ask = evolve(LOOK, tls=SUBJECT)
    assert result(Certificates(allowed=frozenset({"laptop 17"})).authorize(ask)).name == "laptop 17"
    refusal(Certificates(allowed=frozenset({"laptop 1"})).authorize(ask), Forbidden)


def test_no_certificate_is_401():
    assert refusal(Certificates().authorize(LOOK), Unauthorized).headers["WWW-Authenticate"]
