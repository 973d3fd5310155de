"""Whom a hook's connection trusts, and as whom it shows up.

One reason to change: how certificates are given. Invariant: the host's name is always checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@implementer(IPolicyForHTTPS)
class Tls:
    """``authorities``: PEM text of those to trust instead of the system's. ``identity``: PEM text of a certificate and
    its key, shown to hooks that ask. Raises ValueError for what is neither."""

    def __init__(self, authorities: str | None = None, identity: str | None = None) -> None:
        try:
            self._trust: Any = platformTrust() if authorities is None else _roots(authorities)
            self._identity = None if identity is None else PrivateCertificate.loadPEM(identity.encode())
        except Exception as error:  # pyOpenSSL and cryptography have no base class of their own for this
            raise ValueError("that is no PEM certificate, or has no key with it") from error

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        made: IOpenSSLClientConnectionCreator = optionsForClientTLS(
            hostname.decode("ascii"), trustRoot=self._trust, clientCertificate=self._identity
        )
        return made


def from_files(authorities: Path | None, certificate: Path | None, key: Path | None) -> Tls:
    """Read before the reactor runs. ``key`` may be in ``certificate``'s file. Raises ValueError, OSError."""
    read = [None if path is None else path.read_text(encoding="ascii") for path in (authorities, certificate, key)]
    identity = None if read[1] is None else read[1] + "\n" + (read[2] or "")
    return Tls(read[0], identity)


def _roots(text: str) -> Any:
    found = [part.partition(_END)[0] for part in text.split(_BEGIN)[1:]]
    if not found:
        raise ValueError("no certificate")
    return trustRootFromCertificates([Certificate.loadPEM(f"{_BEGIN}{part}{_END}\n".encode()) for part in found])
