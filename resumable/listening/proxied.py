"""Connections whose proxy tells, before anything else, whose they are (the PROXY protocol).

Reason to change: whose word counts, or what a connection becomes without it. Invariants: only a trusted peer is read
from at all; not a byte gets through before a header that makes sense. A header that doesn't come is waited for as long
as a request's head: the protocol inside counts its time from the first moment on. Twisted's own ``haproxy:`` is not
used: it believes anybody, expects the header within TLS, where no proxy sends it, and raises where a header is odd.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address as V6
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.logger import Logger, LogLevel
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from resumable.listening.proxy_header import Header, Malformed, parse
from resumable.networks import Network, belongs

NOBODY = IPv4Address("TCP", "0.0.0.0", 0)
"""A client that the proxy doesn't know either; its address must not be the proxy's, whose word counts."""


class Proxied(ProtocolWrapper):
    """One connection: the peer that its transport shows within is the proxy's client."""

    factory: ProxiedFactory
    _header: Header | None = None
    _input = b""

    def dataReceived(self, data: bytes) -> None:
        if self._header is None:
            self._input += data
            try:
                self._header = parse(self._input)
            except Malformed as problem:
                self.factory.complain(self.transport.getPeer(), str(problem))  # type: ignore[union-attr]
                self.transport.abortConnection()  # type: ignore[union-attr]
                return
            if self._header is None:
                return
            data, self._input = self._input[self._header.size :], b""
        if data:
            self.wrappedProtocol.dataReceived(data)

    def getPeer(self) -> IAddress:
        header = self._header
        if header is None or header.local:
            peer: IAddress = self.transport.getPeer()  # type: ignore[union-attr]
            return peer
        if header.source is None:
            return NOBODY
        kind = IPv6Address if isinstance(header.source, V6) else IPv4Address
        return kind("TCP", str(header.source), header.port)

    @property
    def bufferSize(self) -> int:
        """Bytes of one read, of the transport that reads."""
        size: int = self.transport.bufferSize  # type: ignore[union-attr]
        return size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self.transport.bufferSize = size  # type: ignore[union-attr]


class ProxiedFactory(WrappingFactory[Proxied]):
    """``trusted``: who may speak for others; who comes through a unix socket always may.

    What is refused is logged once as a warning for each reason, then for debugging only: whoever likes can cause it.
    """

    protocol = Proxied
    noisy = False
    log = Logger()

    def __init__(self, site: IProtocolFactory, trusted: Sequence[Network], endpoint: str) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._trusted = tuple(trusted)
        self._endpoint = endpoint
        self._complaints: set[str] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = getattr(addr, "host", None)
        if host is not None and not belongs(host, self._trusted):
            self.complain(addr, "it is not one of --behind-proxy")
            return None
        return super().buildProtocol(addr)

    def complain(self, peer: IAddress | None, reason: str) -> None:
        """Log that this peer was not served."""
        level = LogLevel.debug if reason in self._complaints else LogLevel.warn
        self._complaints.add(reason)
        self.log.emit(
            level,
            "a connection of {peer} to {endpoint} was closed: {reason}",
            peer=getattr(peer, "host", None) or "a unix socket",
            endpoint=self._endpoint,
            reason=reason,
        )
