"""Connections through a proxy that first sends the client's address (the PROXY protocol).

Invariants: nothing is read from a peer that isn't trusted; not a byte gets through before a valid header. The time
limit of a request's head includes the time for the PROXY header. Twisted's own ``haproxy:`` is not used: it believes
anybody, expects the header within TLS, where no proxy sends it, and raises where a header is odd.
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
"""Stands for a client that the proxy doesn't know; it can't be the proxy's address, which is trusted."""


class Proxied(ProtocolWrapper):
    """One connection, whose peer is the proxy's client for the protocol within."""

    factory: ProxiedFactory
    _header: Header | None = None
    _input = b""

    def dataReceived(self, data: bytes) -> None:
        """Take off the header, then pass on all bytes."""
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
        """The client's address, or the proxy's where that speaks for itself."""
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
        """Bytes that the transport reads at once."""
        size: int = self.transport.bufferSize  # type: ignore[union-attr]
        return size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self.transport.bufferSize = size  # type: ignore[union-attr]


class ProxiedFactory(WrappingFactory[Proxied]):
    """``trusted``: proxies whose headers count; a proxy that connects through a Unix socket always is one.

    A refused connection is logged once as a warning for each reason, then for debugging only: anybody can cause it.
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
        """A connection of a trusted proxy; None closes any other."""
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
