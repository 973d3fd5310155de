"""The header of the PROXY protocol, versions 1 and 2, by which a proxy tells a client's address.

Pure. Invariants: bytes that are no header are recognised by their beginning, or at the latest after `LONGEST`; nothing
is taken for an address that isn't one.
Spec: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt sections 2.1 and 2.2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from resumable.networks import plain

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_LINE: Final = 107
LONGEST: Final = 4096
"""Bytes of a header of version 2, with all that a proxy adds to it (TLVs); the protocol's own limit is 65,551."""

_LINE: Final = b"PROXY "
_FAMILIES: Final[Mapping[int, type[IPv4Address] | type[IPv6Address]]] = {1: IPv4Address, 2: IPv6Address}
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
    source: IPv4Address | IPv6Address | None = None
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


def _address(family: type[IPv4Address] | type[IPv6Address], text: str) -> IPv4Address | IPv6Address:
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
    width = 4 if kind is IPv4Address else 16
    if length < 2 * width + 4:
        raise Malformed("a PROXY header without its addresses")
    (port,) = struct.unpack_from("!H", data, 16 + 2 * width)
    return Header(size, plain(kind(data[16 : 16 + width])), port)
