"""Authorizes clients by their TLS certificates.

Invariant: only a certificate that the handshake has verified counts; one in
which the part that is the name is missing or stands several times names nobody. Spec: RFC 5280 sections 4.1.2.6 and
4.2.1.6, RFC 4514.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.auth.credentials import valid_name
from resumable.auth.interfaces import AuthRequest, IAuthorizer, Subject
from resumable.model.principal import Principal
from resumable.protocol.errors import Forbidden, Unauthorized

CHALLENGE = 'Mutual-TLS realm="resumable"'
PARTS: dict[str, Callable[[Subject], tuple[str, ...]]] = {
    "cn": lambda subject: subject.common_names,
    "dn": lambda subject: (subject.dn,),
    "dns": lambda subject: subject.dns,
    "email": lambda subject: subject.emails,
    "uri": lambda subject: subject.uris,
}
"""The parts of a certificate that can be the principal's name."""


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
class ClientCertificates:
    """``part``: one of `PARTS`. ``allowed``: names that may come in; none given: whoever has a certificate."""

    def __init__(self, part: str = "cn", allowed: frozenset[str] = frozenset()) -> None:
        self._part = PARTS[part]
        self._allowed = allowed

    def authorize(self, request: AuthRequest) -> Deferred[Principal]:
        """See `IAuthorizer.authorize`."""
        if request.tls is None:
            return fail(Unauthorized("A client certificate is needed.", [CHALLENGE]))
        names = self._part(request.tls)
        if len(names) != 1 or not valid_name(names[0]) or (self._allowed and names[0] not in self._allowed):
            return fail(Forbidden("This certificate is not for uploads."))
        return succeed(Principal(names[0]))
