"""Whether an address is in the networks that an operator has named, and which addresses are one client's.

Invariant: an IPv4 address stays itself, however IPv6 wraps it (RFC 4291 section 2.5.5.2); a text that is no address is
in no network. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network
LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
"""Addresses from which only this machine itself can connect (RFC 6890)."""


def plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address within, if there is one."""
    return getattr(address, "ipv4_mapped", None) or address


def client_of(address: str) -> str:
    """One client's key: its address; of IPv6 the whole /64 (RFC 6177, RFC 8981).

    A port may follow (``192.0.2.7:80``, ``[2001:db8::7]:80``); a text that is no address is a client by itself.
    """
    host = address.rpartition("]")[0].removeprefix("[") or address
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        parsed = plain(ip_address(host.partition("%")[0]))
    except ValueError:
        return host
    return str(parsed if parsed.version == 4 else IPv6Network((int(parsed) >> 64 << 64, 64)))


def counted(address: str) -> str:
    """The name that a client without a name is counted by: it begins with a blank, so that it is nobody's."""
    return f" {client_of(address)}"


def belongs(host: str, networks: Iterable[Network]) -> bool:
    """Whether the address, which may have a zone (``%eth0``), is in one of them."""
    try:
        address = plain(ip_address(host.partition("%")[0]))
    except ValueError:
        return False
    return any(address in network for network in networks)
