"""Certificates that tests make: of authorities, of servers on this machine, and of clients."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import PrivateCertificate

DAY = 86400.0
HERE = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
LAPTOP = (x509.DNSName("laptop.example.org"), x509.RFC822Name("a@example.org"), x509.RFC822Name("b@example.org"))


@frozen
class Certified:
    """A certificate and its key, which may sign others if it is its own issuer's."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key alone."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def both(self) -> bytes:
        """The certificate, then its key, as PEM."""
        return self.pem + self.key_pem

    @property
    def private(self) -> PrivateCertificate:
        """The same for Twisted."""
        return PrivateCertificate.loadPEM(self.both)


def certified(
    name: str,
    issuer: Certified | None = None,
    *,
    names: Sequence[x509.GeneralName] = HERE,
    organization: str | None = None,
    begins: float = -DAY,
    ends: float = DAY,
) -> Certified:
    """A certificate of ``issuer``'s, or of its own. ``begins``, ``ends``: seconds from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = key if issuer is None else issuer.key
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization is not None:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject, now = x509.Name(parts), datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(seconds=begins))
        .not_valid_after(now + datetime.timedelta(seconds=ends))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # Python 3.13 and later ask for these (RFC 5280, 4.2.1)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.KeyUsage(True, *[False] * 4, issuer is None, *[False] * 3), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return Certified(certificate, key)


def laptop(
    issuer: Certified | None = None, name: str = "laptop 17", begins: float = -DAY, ends: float = DAY
) -> Certified:
    """A certificate with an organization, a domain and addresses, of which clients are told apart."""
    return certified(name, issuer, names=LAPTOP, organization="Example", begins=begins, ends=ends)


class Authority:
    """Signs certificates for localhost and for clients, whose names are domains."""

    def __init__(self) -> None:
        self._own = certified("authority", names=[x509.DNSName("authority")])
        self.pem = self._own.pem.decode()

    def issue(self, name: str) -> tuple[str, str]:
        """A certificate and its key."""
        made = certified(name, self._own, names=[x509.DNSName(name)])
        return made.pem.decode(), made.key_pem.decode()
