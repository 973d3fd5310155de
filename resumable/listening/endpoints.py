"""Endpoints to listen on, made of their descriptions.

Reason to change: something that Twisted's descriptions can't say. Invariants: where client certificates are to be
verified, no TLS endpoint is without; where a proxy speaks for clients, it is a trusted one. A path means what it means
now, wherever the daemon goes. Spec: https://docs.twisted.org/en/stable/core/howto/endpoints.html
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

from resumable.listening.ports import BACKLOG, PROXIED, taken_apart
from resumable.listening.proxied import ProxiedFactory
from resumable.listening.tls import Certificate, Files
from resumable.networks import Network

_TLS = ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters")
"""What Twisted's ``ssl:`` takes, in its order."""


@frozen
class Terms:
    """What holds for every endpoint. ``client_ca``, ``required``: see `Files`.

    ``trusted``: proxies that may say whose a connection is.
    """

    client_ca: Path | None = None
    required: bool = True
    trusted: tuple[Network, ...] = ()


@frozen
class Point:
    """A place to listen at; nothing is bound yet. ``make``: Twisted's endpoint. ``certificate``: with TLS.

    ``handed_over``: a unix socket that systemd has made, and keeps.
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
        """``site`` behind what comes first on the wire: the proxy's header, then TLS."""
        if self.certificate is not None:
            site = TLSMemoryBIOFactory(self.certificate, False, site, reactor)
        return site if self.trusted is None else ProxiedFactory(site, self.trusted, self.description)


def point(reactor: Any, description: str, terms: Terms, wall: Callable[[], float]) -> Point:
    """Reads certificates. Raises ValueError: what to change."""
    inner = description.removeprefix(PROXIED)
    trusted = None if inner == description else terms.trusted
    if trusted == ():
        raise ValueError("it needs --behind-proxy: whoever connects could claim any address")
    kind, arguments, named = taken_apart(inner)
    if kind == "ssl":
        endpoint, files = _tls(reactor, arguments, named, terms)
        return Point(description, lambda: endpoint, Certificate(files, wall), trusted)
    if kind == "unix":
        inner = _absolute(arguments, named)
    handed_over = kind == "systemd" and "UNIX" in (named.get("domain"), *arguments[:1])
    return Point(description, lambda: serverFromString(reactor, inner), None, trusted, handed_over)


def _absolute(arguments: list[str], named: dict[str, str]) -> str:
    """A unix socket's description, its path made absolute."""
    path, *others = [*([named["address"]] if "address" in named else []), *arguments, ""]
    parts = [os.path.abspath(path), *others[:-1], *(f"{k}={v}" for k, v in named.items() if k != "address")]
    return ":".join(["unix", *(part.replace("\\", r"\\").replace(":", r"\:") for part in parts)])


def _tls(
    reactor: Any, arguments: list[str], named: dict[str, str], terms: Terms
) -> tuple[IStreamServerEndpoint, Files]:
    given = dict(zip(_TLS, arguments, strict=False)) | named
    if unknown := given.keys() & {"sslmethod", "dhParameters"} or given.keys() - set(_TLS):
        raise ValueError(f"TLS here has no {', '.join(sorted(unknown))}; it is 1.2 or 1.3, with ephemeral keys")
    port, backlog = given.get("port", ""), given.get("backlog", str(BACKLOG))
    if not (port.isdigit() and int(port) < 65536 and backlog.isdigit()):
        raise ValueError("it needs a port, like ssl:8443:privateKey=key.pem:certKey=chain.pem")
    key = Path(os.path.abspath(given.get("privateKey", "server.pem")))
    chain = given.get("extraCertChain")
    files = Files(
        Path(os.path.abspath(given["certKey"])) if "certKey" in given else key,
        key,
        None if chain is None else Path(os.path.abspath(chain)),
        terms.client_ca,
        terms.required,
    )
    return TCP4ServerEndpoint(reactor, int(port), int(backlog), given.get("interface", "")), files
