"""Clients that prove who they are by a TLS certificate.

Reason to change: which part of a certificate is the name. Invariant: only a certificate that the handshake has verified
counts; one that has several of that part, or none, names nobody. Spec: RFC 5280 sections 4.1.2.6 and 4.2.1.6, RFC 4514.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from twisted.internet import ssl
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.access.credentials import valid_name
from resumable.access.interfaces import Ask, IAuthorizer, Identity, Subject
from resumable.access.secret import AccessProblem, read_text
from resumable.protocol.errors import Forbidden, Unauthorized

CHALLENGE = 'Mutual-TLS realm="resumable"'
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PARTS: dict[str, Callable[[Subject], tuple[str, ...]]] = {
    "cn": lambda subject: subject.common_names,
    "dn": lambda subject: (subject.dn,),
    "dns": lambda subject: subject.dns,
    "email": lambda subject: subject.emails,
    "uri": lambda subject: subject.uris,
}
"""What of a certificate can be the identity's name."""


def verifying_options(certificate: Path, key: Path, client_ca: Path, *, required: bool) -> ssl.CertificateOptions:
    """TLS for a listener that verifies the certificates of clients, PEM files all of them. Blocks.

    ``certificate`` may hold its chain. ``required``: who has none can't connect at all; else they come without a name.
    Raises AccessProblem.
    """
    chain = _certificates("certificate", certificate)
    private = read_text("private key", key).encode()
    authorities = _certificates("authority of clients", client_ca)
    try:
        load_pem_private_key(private, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AccessProblem(f"private key: {key} has no key in PEM that is free of a passphrase") from None
    ours = ssl.PrivateCertificate.loadPEM(chain[0] + b"\n" + private)
    return ssl.CertificateOptions(
        ours.privateKey.original,
        ours.original,
        extraCertChain=[ssl.Certificate.loadPEM(pem).original for pem in chain[1:]],
        verify=True,
        caCerts=[ssl.Certificate.loadPEM(pem).original for pem in authorities],
        requireCertificate=required,
    )


def _certificates(what: str, path: Path) -> list[bytes]:
    found = [pem.encode() for pem in _PEM.findall(read_text(what, path))]
    try:
        loaded = [x509.load_pem_x509_certificate(pem) for pem in found]
    except ValueError:
        loaded = []
    if not loaded:
        raise AccessProblem(f"{what}: {path} has no certificate in PEM")
    return found


def subject_of(transport: Any) -> Subject | None:
    """Whose certificate came with this connection; None without TLS or without one.

    The listener must have been told to verify certificates: one that only asks for them takes any.
    """
    peer = getattr(transport, "getPeerCertificate", None)
    found = peer() if peer is not None else None
    return None if found is None else read_subject(found.to_cryptography())


def read_subject(certificate: x509.Certificate) -> Subject:
    """The names in a certificate."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value
    except (x509.ExtensionNotFound, ValueError):
        names = x509.SubjectAlternativeName([])
    return Subject(
        certificate.subject.rfc4514_string(),
        tuple(str(attribute.value) for attribute in common),
        tuple(names.get_values_for_type(x509.DNSName)),
        tuple(names.get_values_for_type(x509.RFC822Name)),
        tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
    )


@implementer(IAuthorizer)
class Certificates:
    """``part``: one of `PARTS`. ``allowed``: names that may come in; none given: whoever has a certificate."""

    def __init__(self, part: str = "cn", allowed: frozenset[str] = frozenset()) -> None:
        self._part = PARTS[part]
        self._allowed = allowed

    def authorize(self, ask: Ask) -> Deferred[Identity]:
        """See `IAuthorizer.authorize`."""
        if ask.tls is None:
            return fail(Unauthorized("A client certificate is needed.", [CHALLENGE]))
        names = self._part(ask.tls)
        if len(names) != 1 or not valid_name(names[0]) or (self._allowed and names[0] not in self._allowed):
            return fail(Forbidden("This certificate is not for uploads."))
        return succeed(Identity(names[0]))
