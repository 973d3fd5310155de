"""Connections through a proxy that first sends the client's address: the PROXY protocol, versions 1 and 2.

Invariants: nothing is read from a peer that isn't trusted; not a byte gets through before a valid header. Bytes that
are no header are recognised by their beginning, or at the latest after `LONGEST`; nothing is taken for an address that
isn't one. The time limit of a request's head includes the time for the PROXY header. Twisted's own ``haproxy:`` is not
used: it believes anybody, expects the header within TLS, where no proxy sends it, and raises where a header is odd.
Spec: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt sections 2.1 and 2.2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address as V4
from ipaddress import IPv6Address as V6
from typing import Any, Final

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.logger import Logger, LogLevel
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from resumable.networks import Network, belongs, plain

NOBODY = IPv4Address("TCP", "0.0.0.0", 0)
"""Stands for a client that the proxy doesn't know; it can't be the proxy's address, which is trusted."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_LINE: Final = 107
LONGEST: Final = 4096
"""Bytes of a header of version 2, with all that a proxy adds to it (TLVs); the protocol's own limit is 65,551."""

_LINE: Final = b"PROXY "
_FAMILIES: Final[Mapping[int, type[V4] | type[V6]]] = {1: V4, 2: V6}
_PROTOCOLS: Final = {"TCP4": _FAMILIES[1], "TCP6": _FAMILIES[2]}
_UNSPECIFIED, _UNIX = 0, 3
_TRANSPORTS: Final = 3  # unspecified, stream, datagram


class Malformed(Exception):
    """The bytes are no header; the message says why."""


@frozen
class Header:
    """``size``: its bytes. ``source``, ``port``: the client's address; None if the proxy doesn't know it.

    ``local``: the proxy speaks for itself, as in a health check.
    """

    size: int
    source: V4 | V6 | None = None
    port: int = 0
    local: bool = False


def parse(data: bytes) -> Header | None:
    """The header that ``data`` begins with; None while more has to come. Raises Malformed."""
    if data.startswith(_LINE):
        return _line(data)
    if data.startswith(SIGNATURE):
        return _binary(data)
    if _LINE.startswith(data) or SIGNATURE.startswith(data):
        return None
    raise Malformed("no PROXY header")


def _line(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise Malformed("a PROXY line without an end")
        return None
    protocol, *fields = data[len(_LINE) : end].decode("latin-1").split(" ")
    if protocol == "UNKNOWN":  # "the receiver must ignore anything presented before the CRLF"
        return Header(end + 2)
    try:
        family = _PROTOCOLS[protocol]
        source, destination, *ports = fields
        port, _ = map(_port, ports)
        address = _address(family, source)
        _address(family, destination)
    except (KeyError, ValueError):
        raise Malformed("a PROXY line that makes no sense") from None
    return Header(end + 2, address, port)


def _address(family: type[V4] | type[V6], text: str) -> V4 | V6:
    if "%" in text:
        raise ValueError("a zone")
    return plain(family(text))


def _port(text: str) -> int:
    port = int(text)
    if str(port) != text or not 0 <= port <= 65535:
        raise ValueError("no port")
    return port


def _binary(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    size = 16 + length
    if command not in (0x20, 0x21):
        raise Malformed("another version or command of the PROXY protocol than 2, LOCAL and PROXY")
    if size > LONGEST:
        raise Malformed("a PROXY header that is too long")
    if len(data) < size:
        return None
    if command == 0x20:  # "the receiver must discard the protocol block including the family"
        return Header(size, local=True)
    family, transport = divmod(family, 16)
    if family > _UNIX or transport >= _TRANSPORTS:
        raise Malformed("an address family that the PROXY protocol doesn't have")
    if family in (_UNSPECIFIED, _UNIX) or transport == _UNSPECIFIED:
        return Header(size)
    kind = _FAMILIES[family]
    width = 4 if kind is V4 else 16
    if length < 2 * width + 4:
        raise Malformed("a PROXY header without its addresses")
    (port,) = struct.unpack_from("!H", data, 16 + 2 * width)
    return Header(size, plain(kind(data[16 : 16 + width])), port)


class SizedReads(ProtocolWrapper):
    """The size of the transport's reads (bytes), for who reads through a wrapper."""

    @property
    def bufferSize(self) -> int:
        """Bytes that the transport reads at once."""
        size: int = self.transport.bufferSize  # type: ignore[union-attr]
        return size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self.transport.bufferSize = size  # type: ignore[union-attr]


class Proxied(SizedReads):
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
    def proxied(self) -> Any:
        """The transport, from which all that follows the header may be read directly."""
        return self.transport


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
