"""Endpoints to listen on, made of their endpoint strings.

Invariants: where client certificates are to be verified, no TLS endpoint is without; where a proxy speaks for clients,
it is a trusted one. A relative path starts at the directory in which the string was read.
Spec: https://docs.twisted.org/en/stable/core/howto/endpoints.html
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory

from resumable.listening.ports import BACKLOG, PROXIED, quoted, split_endpoint
from resumable.listening.proxied import ProxiedFactory
from resumable.listening.tls import Certificate, CertificateFiles
from resumable.networks import Network

_TLS = ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters")
"""The arguments of Twisted's ``ssl:``, in its order."""


@frozen
class Terms:
    """Common to all endpoints. ``client_ca``, ``required``: see `CertificateFiles`.

    ``trusted``: proxies that may tell for which client a connection is.
    """

    client_ca: Path | None = None
    required: bool = True
    trusted: tuple[Network, ...] = ()


@frozen
class ListeningPoint:
    """An endpoint that is not bound yet. ``make`` makes Twisted's endpoint. ``certificate``: None without TLS.

    ``trusted``: proxies whose headers count; None: no header is expected. ``handed_over``: a Unix socket that systemd
    has made, and keeps.
    """

    description: str
    make: Callable[[], IStreamServerEndpoint]
    certificate: Certificate | None = None
    trusted: tuple[Network, ...] | None = None
    handed_over: bool = False

    def listen(self, reactor: Any, site: IProtocolFactory) -> Deferred[IListeningPort]:
        """Bind it. Raises ValueError for a socket that systemd has not handed over."""
        try:
            endpoint = self.make()
        except LookupError:
            raise ValueError("systemd has handed over no such socket; does its .socket unit name it?") from None
        return endpoint.listen(self.factory(reactor, site))

    def factory(self, reactor: Any, site: IProtocolFactory) -> IProtocolFactory:
        """The site, behind TLS and the proxy's header, which comes first on the wire."""
        if self.certificate is not None:
            site = TLSMemoryBIOFactory(self.certificate, False, site, reactor)
        return site if self.trusted is None else ProxiedFactory(site, self.trusted, self.description)


def listening_point(reactor: Any, description: str, terms: Terms, wall: Callable[[], float]) -> ListeningPoint:
    """Make one from its endpoint string; reads certificates. Raises ValueError, which says how to correct it."""
    inner = description.removeprefix(PROXIED)
    trusted = None if inner == description else terms.trusted
    if trusted == ():
        raise ValueError("it needs --behind-proxy: whoever connects could claim any address")
    kind, arguments, named = split_endpoint(inner)
    if kind == "ssl":
        endpoint, files = _tls(reactor, arguments, named, terms)
        return ListeningPoint(description, lambda: endpoint, Certificate(files, wall), trusted)
    if kind == "unix":
        inner = _absolute(arguments, named)
    handed_over = kind == "systemd" and "UNIX" in (named.get("domain"), *arguments[:1])
    return ListeningPoint(description, lambda: serverFromString(reactor, inner), None, trusted, handed_over)


def _absolute(arguments: list[str], named: dict[str, str]) -> str:
    """A unix socket's description, its path made absolute."""
    path, *others = [*([named["address"]] if "address" in named else []), *arguments, ""]
    parts = [os.path.abspath(path), *others[:-1], *(f"{k}={v}" for k, v in named.items() if k != "address")]
    return ":".join(["unix", *map(quoted, parts)])


def _tls(
    reactor: Any, arguments: list[str], named: dict[str, str], terms: Terms
) -> tuple[IStreamServerEndpoint, CertificateFiles]:
    given = dict(zip(_TLS, arguments, strict=False)) | named
    if unknown := given.keys() & {"sslmethod", "dhParameters"} or given.keys() - set(_TLS):
        raise ValueError(f"TLS here has no {', '.join(sorted(unknown))}; it is 1.2 or 1.3, with ephemeral keys")
    port, backlog = given.get("port", ""), given.get("backlog", str(BACKLOG))
    if not (port.isdigit() and int(port) < 65536 and backlog.isdigit()):
        raise ValueError("it needs a port, like ssl:8443:privateKey=key.pem:certKey=chain.pem")
    key = Path(os.path.abspath(given.get("privateKey", "server.pem")))
    chain = given.get("extraCertChain")
    files = CertificateFiles(
        Path(os.path.abspath(given["certKey"])) if "certKey" in given else key,
        key,
        None if chain is None else Path(os.path.abspath(chain)),
        terms.client_ca,
        terms.required,
    )
    return TCP4ServerEndpoint(reactor, int(port), int(backlog), given.get("interface", "")), files
