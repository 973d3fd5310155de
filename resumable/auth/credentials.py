"""The credentials of a request: its Authorization field, the challenges that ask for it, and the client's certificate.

Invariants: a field that is malformed or given twice is no credential. Only a certificate that the handshake has
verified counts; one in which the part that is the name is missing or stands several times names nobody.
Specs: RFC 9110 section 11, RFC 7617 (Basic), RFC 6750 (Bearer), RFC 5280 sections 4.1.2.6 and 4.2.1.6, RFC 4514.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.auth.interfaces import AuthRequest, IAuthorizer, Subject
from resumable.auth.secret import AccessProblem
from resumable.model.principal import Principal
from resumable.protocol.errors import Forbidden, Unauthorized
from resumable.protocol.fields import base64

_SCHEME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([^ ]+)")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")

BASIC = 'Basic realm="resumable", charset="UTF-8"'
BEARER = 'Bearer realm="resumable"'
LONGEST_NAME = 255

MUTUAL_TLS = 'Mutual-TLS realm="resumable"'
PARTS: dict[str, Callable[[Subject], tuple[str, ...]]] = {
    "cn": lambda subject: subject.common_names,
    "dn": lambda subject: (subject.dn,),
    "dns": lambda subject: subject.dns,
    "email": lambda subject: subject.emails,
    "uri": lambda subject: subject.uris,
}
"""The parts of a certificate that can be the principal's name."""


def _credentials(request: AuthRequest, scheme: str) -> str | None:
    match = _SCHEME.fullmatch(request.one("authorization") or "")
    return match[2] if match and match[1].lower() == scheme else None


def basic(request: AuthRequest) -> tuple[str, bytes] | None:
    """User and password."""
    encoded = _credentials(request, "basic")
    try:
        user, colon, password = base64(encoded or "").partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:
        return None


def bearer(request: AuthRequest) -> str | None:
    """The token."""
    token = _credentials(request, "bearer")
    return token if token and is_token(token) else None


def is_token(text: str) -> bool:
    """Whether it can be sent as a bearer token."""
    return _TOKEN.fullmatch(text) is not None


def invalid_token(detail: str) -> Unauthorized:
    """A bearer token came, and it was wrong. ``detail`` is a fixed text."""
    return Unauthorized(detail, [f'{BEARER}, error="invalid_token", error_description="{detail}"'])


def valid_name(name: object) -> bool:
    """Whether it can be an identity's: something that people can read, the same however it was written."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip()


def needs(extra: str, package: str) -> AccessProblem:
    """A package that only this part needs isn't there."""
    return AccessProblem(f"{package} is not installed; run: pip install 'resumable-server[{extra}]'")


def fingerprint(salt: bytes, *parts: bytes) -> bytes:
    """A key for credentials that can't be told from it. ``salt``: random, of this process."""
    keyed = hmac.new(salt, digestmod=hashlib.sha256)
    for part in parts:
        keyed.update(len(part).to_bytes(8, "big") + part)
    return keyed.digest()


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
            return fail(Unauthorized("A client certificate is needed.", [MUTUAL_TLS]))
        names = self._part(request.tls)
        if len(names) != 1 or not valid_name(names[0]) or (self._allowed and names[0] not in self._allowed):
            return fail(Forbidden("This certificate is not for uploads."))
        return succeed(Principal(names[0]))
