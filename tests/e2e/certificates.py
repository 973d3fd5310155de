"""Certificates for daemons on this machine and for their clients."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certified(name: str, issuer: tuple[Any, x509.Name] | None = None) -> tuple[bytes, tuple[Any, x509.Name]]:
    """A certificate with its key in PEM, and what signs with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, now = issuer or (key, subject), datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(signer[1], subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        # Python 3.13 and later ask for these (RFC 5280, 4.2.1)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer[0].public_key()), critical=False)
        .add_extension(x509.KeyUsage(True, *[False] * 4, issuer is None, *[False] * 3), critical=True)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = builder.sign(signer[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem + private, (key, subject)
