"""TLS of a listener: a certificate from files that may be renewed while the daemon runs.

Invariant: a certificate is taken as a whole, with the key that fits, or the one before it stays. This is the only place
that makes a TLS context for a server: TLS 1.2 and 1.3 with Twisted's choice of ciphers, ALPN as the site says.
Spec: RFC 8446, RFC 5246, RFC 7301.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from resumable.aio.threads import IPool, Stopped
from resumable.auth.secret import AccessProblem, read_text

SOON = 14 * 86400.0
"""Seconds before its end at which a certificate is warned of; a fifth of its life, if that is less."""

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

log = Logger()


@frozen
class CertificateFiles:
    """PEM files. ``certificate`` may hold its chain, or ``chain`` does.

    ``client_ca``: authorities whose clients are let in; None: clients aren't asked for certificates. ``required``: a
    client without a certificate can't connect at all; else it connects without a name.
    """

    certificate: Path
    key: Path
    chain: Path | None = None
    client_ca: Path | None = None
    required: bool = True

    def version(self) -> tuple[tuple[int, ...], ...]:
        """A value that changes whenever a file does. Blocks. Raises AccessProblem."""
        return tuple(
            _stat(path) for path in (self.certificate, self.key, self.chain, self.client_ca) if path is not None
        )


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as problem:
        raise AccessProblem(f"{path} can't be read ({problem.strerror})") from None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


@frozen
class LoadedCertificate:
    """A certificate that was read. ``version``: of its files. ``begins``, ``ends``: seconds since 1970."""

    version: tuple[tuple[int, ...], ...]
    options: ssl.CertificateOptions
    begins: float
    ends: float


def load(files: CertificateFiles) -> LoadedCertificate:
    """Read the files. Blocks. Raises AccessProblem for one that is missing, makes no sense or doesn't fit."""
    version = files.version()  # before they are read: a change meanwhile counts the next time
    pems = _certificates("certificate", files.certificate)
    if files.chain is not None:
        pems += _certificates("chain", files.chain)
    private = read_text("private key", files.key).encode()
    leaf = x509.load_pem_x509_certificate(pems[0])
    try:
        key = load_pem_private_key(private, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AccessProblem(f"private key: {files.key} has no key in PEM that is free of a passphrase") from None
    if key.public_key() != leaf.public_key():
        raise AccessProblem(f"private key: {files.key} does not belong to the first certificate in {files.certificate}")
    ours = ssl.PrivateCertificate.loadPEM(pems[0] + b"\n" + private)
    options = ssl.CertificateOptions(
        ours.privateKey.original,
        ours.original,
        extraCertChain=[ssl.Certificate.loadPEM(pem).original for pem in pems[1:]],
        **_verification(files),
    )
    try:
        options.getContext()
    except SSL.Error as problem:
        reason = problem.args[0][0][2] if problem.args and problem.args[0] else "unknown reason"
        raise AccessProblem(f"certificate: OpenSSL does not take {files.certificate} ({reason})") from None
    return LoadedCertificate(
        version, options, leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    )


def _verification(files: CertificateFiles) -> dict[str, Any]:
    if files.client_ca is None:
        return {}
    authorities = _certificates("authority of clients", files.client_ca)
    return {
        "verify": True,
        "caCerts": [ssl.Certificate.loadPEM(pem).original for pem in authorities],
        "requireCertificate": files.required,
    }


def _certificates(what: str, path: Path) -> list[bytes]:
    found = [pem.encode() for pem in _PEM.findall(read_text(what, path))]
    try:
        loaded = [x509.load_pem_x509_certificate(pem) for pem in found]
    except ValueError:
        loaded = []
    if not loaded:
        raise AccessProblem(f"{what}: {path} has no certificate in PEM")
    return found


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """The newest certificate that was good, for new connections; those that are open keep theirs.

    ``wall``: seconds since 1970. Making one blocks, and raises AccessProblem.
    """

    def __init__(self, files: CertificateFiles, wall: Callable[[], float]) -> None:
        self._files = files
        self._wall = wall
        self._loaded = load(files)
        self._complaint = ""
        self._warned: tuple[float, str] | None = None

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See IOpenSSLServerConnectionCreator."""
        return self._loaded.options.serverConnectionForTLS(tlsProtocol)

    @property
    def left(self) -> float:
        """Seconds until the certificate ends; below 0: since it ended."""
        return self._loaded.ends - self._wall()

    async def look(self, endpoint: str, pool: IPool) -> None:
        """Read the files if they have changed; log each thing that is wrong once."""
        try:
            found = await pool.run(self._changed)
        except AccessProblem as problem:
            if self._complaint != str(problem):
                self._complaint = str(problem)
                log.error(
                    "the certificate on {endpoint} stays as it is: {problem}", endpoint=endpoint, problem=str(problem)
                )
        except Stopped:
            return
        else:
            self._complaint = ""
            if found is not None:
                self._loaded = found
                log.info(
                    "a new certificate is shown on {endpoint}, good for {days:.0f} days",
                    endpoint=endpoint,
                    days=self.left / 86400,
                )
        self._warn(endpoint)

    def _changed(self) -> LoadedCertificate | None:
        return None if self._files.version() == self._loaded.version else load(self._files)

    def _warn(self, endpoint: str) -> None:
        """Log a certificate that clients will refuse, now or soon."""
        now, loaded = self._wall(), self._loaded
        if loaded.ends <= now:
            state = "has expired"
        elif loaded.begins > now:
            state = "is not valid yet"
        elif self.left < min(SOON, (loaded.ends - loaded.begins) / 5):
            state = "expires soon"
        else:
            return
        if self._warned != (loaded.ends, state):
            self._warned = (loaded.ends, state)
            log.warn(
                "the certificate {file} on {endpoint} {state}: {days:.1f} days are left",
                file=str(self._files.certificate),
                endpoint=endpoint,
                state=state,
                days=self.left / 86400,
            )
